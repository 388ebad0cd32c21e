"""Debian packages for arm64 through this machine's own apt, with a private state.

The package sources, proxies and keys are the machine's; the lists, the cache and the architecture
are ours, in a folder that the caller gives and removes. So nothing on the machine changes and no
root is needed. Mirrors apt.conf(5), sources.list(5) ("target"), apt-get(8) ("indextargets",
"download --print-uris"). Left out: dependencies beyond the one that a metapackage stands for.
"""

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from armkvm.vmm.errors import FetchError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Hooks of the machine (they refresh the desktop's indexes and clean the real cache) must not run
# for a private state. #clear works because a file given with -c is read after the machine's.
CONFIG = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "root";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Dir::State "{root}/state";
Dir::State::Lists "{root}/state/lists";
Dir::State::status "{root}/state/status";
Dir::Cache "{root}/cache";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""

# Called with bytes so far and bytes in all.
Progress = Callable[[int, int], None]


def available() -> bool:
    """Whether this machine has what ``Apt`` runs."""
    return shutil.which("apt-get") is not None


@dataclass(frozen=True)
class Source:
    """A line of sources.list, without its type."""

    site: str
    release: str


class Apt:
    """apt-get with its own state under ``root``, for one suite (None: the machine's own)."""

    def __init__(self, root: Path, suite: str | None) -> None:
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise FetchError(f"cannot fetch Debian packages: this machine has no {program}")
        if any(character in str(root) for character in '";{}\n'):
            raise FetchError(f"apt cannot work in a folder of that name: {root}")
        self._root = root
        self._update_error = ""
        for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
            (root / folder).mkdir(parents=True)
        (root / "state/status").touch()
        (root / "apt.conf").write_text(CONFIG.format(root=root))
        signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
        lines = [
            f"deb [arch=arm64 target=Packages{signed}] {source.site} {source.release} main\n"
            for source in self._sources(suite)
        ]
        (root / "sources.list").write_text("".join(lines))

    def update(self) -> None:
        """Fetch the package lists. A source that fails matters only if a package is missed."""
        done = self._run("apt-get", "-q", "update")
        self._update_error = _reason(done.stderr)

    def stands_for(self, metapackage: str) -> str:
        """The package that a metapackage depends on: the kernel of linux-image-cloud-arm64."""
        done = self._run("apt-cache", "depends", metapackage)
        found = re.search(r"^ *Depends: ([a-z0-9][a-z0-9+.-]*)$", done.stdout, re.MULTILINE)
        if found is None:
            reason = self._update_error or _reason(done.stderr) or "no such package"
            raise FetchError(f"apt cannot find {metapackage} for arm64: {reason}")
        return found[1]

    def download(self, packages: list[str], progress: Progress) -> list[Path]:
        """The .deb files of ``packages``, in that order."""
        plan = self._run("apt-get", "-q", "download", "--print-uris", *packages)
        files = re.findall(r"^'[^']*' (\S+) (\d+) \S*$", plan.stdout, re.MULTILINE)
        if plan.returncode or len(files) != len(packages):
            reason = self._update_error or _reason(plan.stderr) or "not all packages are there"
            raise FetchError(f"apt cannot download {' '.join(packages)}: {reason}")
        total = sum(int(size) for _, size in files)
        folder = self._root / "debs"
        command = self._command("apt-get", "-q", "download", *packages)
        # apt's own words go to a file, not to a pipe that nobody empties, and not to a disk that
        # may be what is full.
        with os.fdopen(os.memfd_create("apt"), "w+", errors="replace") as log:
            with subprocess.Popen(
                command, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log,
            ) as process:  # fmt: skip
                while True:
                    try:
                        code = process.wait(0.1)
                        break
                    except subprocess.TimeoutExpired:
                        progress(self._downloaded(), total)
                    except BaseException:
                        process.kill()
                        raise
            log.seek(0)
            if code:
                reason = _reason(log.read()) or f"apt-get ended with {code}"
                raise FetchError(f"apt cannot download {' '.join(packages)}: {reason}")
        progress(total, total)
        by_package = {path.name.split("_")[0]: path for path in folder.glob("*.deb")}
        return [by_package[package] for package in packages]

    def _downloaded(self) -> int:
        total = 0
        for folder in ("debs", "cache/archives/partial"):
            for path in (self._root / folder).iterdir():
                try:
                    total += path.stat().st_size
                except FileNotFoundError:
                    continue  # apt has just renamed it
        return total

    def _sources(self, suite: str | None) -> list[Source]:
        # The machine's configuration, not ours: no -c here.
        form = "$(SITE)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)"
        done = subprocess.run(
            ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
            capture_output=True, text=True, env=_environment(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        found = []
        for line in done.stdout.splitlines():
            site, release, component, origin = line.split("\t")
            # Without lists apt does not know the origin and leaves the field as it is.
            if component == "main" and origin in ("Debian", "", "$(ORIGIN)"):
                found.append(Source(site, release))
        found = list(dict.fromkeys(found))
        if not found:
            raise FetchError("cannot fetch: this machine's apt has no Debian source")
        if suite is None:
            return found
        own = min((source.release for source in found), key=len)  # bookworm, not bookworm-updates
        return [
            Source(source.site, suite + source.release.removeprefix(own))
            for source in found
            if source.release.startswith(own)
        ]

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [program, "-c", str(self._root / "apt.conf"), *arguments]

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(program, *arguments),
            capture_output=True, text=True, errors="replace",
            env=_environment(), stdin=subprocess.DEVNULL, cwd=self._root / "debs",
        )  # fmt: skip


def unpack(package: Path, pattern: str, target: Path) -> None:
    """Write the first regular file of a .deb whose path matches ``pattern`` to ``target``.

    The archive streams by, so that a kernel's hundreds of megabytes of modules touch no disk.
    """
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and re.fullmatch(pattern, member.name.removeprefix("./")):
                        source = archive.extractfile(member)
                        assert source is not None
                        with target.open("wb") as out:
                            shutil.copyfileobj(source, out)
                        return
        except tarfile.TarError as error:
            raise FetchError(f"cannot unpack {package.name}: {error}") from None
        finally:
            process.kill()
    raise FetchError(f"{package.name} holds no file {pattern}")


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C"}


def _reason(text: str) -> str:
    """The line of apt's messages that says most: an error before a warning, in one line."""
    for mark in ("E: ", "W: "):
        for line in text.splitlines():
            if line.startswith(mark):
                return line.removeprefix(mark).strip()
    return ""

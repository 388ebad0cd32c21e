"""Debian packages for arm64 (or another architecture) through this machine's own apt, with a state
of their own.

The package sources, proxies and keys are the machine's; the lists, the cache and the architecture
are ours, in a folder that the caller gives and removes. So nothing on the machine changes and no
root is needed. Mirrors apt.conf(5), sources.list(5) ("target"), apt-get(8) ("indextargets",
"download --print-uris"). Left out: what packages do when they are installed.
"""

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from armkvm.vmm.errors import FetchError, NoDebianError
from armkvm.vmm.guest import sources

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Hooks of the machine (they refresh the desktop's indexes and clean the real cache) must not run
# for a private state. #clear works because a file given with -c is read after the machine's.
CONFIG = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Default-Release;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
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


class Apt:
    """apt-get with its own state under ``root``, for one suite (None: the machine's own).

    Raises NoDebianError where this machine has nothing to fetch with.
    """

    def __init__(self, root: Path, suite: str | None, architecture: str = "arm64") -> None:
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise NoDebianError(f"this machine has no {program}")
        if any(character in str(root) for character in '";{}\n'):
            raise FetchError(f"apt cannot work in a folder of that name: {root}")
        self._root, self._architecture = root, architecture
        self._update_error = ""
        self._main, self._companions = sources.of_suite(suite)
        for folder in ("state/lists/partial", "cache/archives/partial", "debs"):
            (root / folder).mkdir(parents=True)
        (root / "state/status").touch()
        config = CONFIG.format(root=root, architecture=architecture)
        if suite is not None and suite != sources.base(suite):
            # Packages of backports have a lower priority unless they are asked for.
            config += f'APT::Default-Release "{suite}";\n'
        (root / "apt.conf").write_text(config)
        signed = f" signed-by={KEYRING}" if KEYRING.exists() else ""
        options = f"arch={architecture} target=Packages{signed}"
        lines = [
            f"deb [{options}] {source.site} {source.release} main\n"
            for source in self._main + self._companions
        ]
        (root / "sources.list").write_text("".join(lines))

    def update(self) -> None:
        """Fetch the package lists. A source that fails matters only if a package is missed."""
        done = self._run("apt-get", "-q", "update")
        # A companion that is missing (sid has no sid-updates) is never why something else fails.
        ours = [
            line for line in done.stderr.splitlines()
            if not any(source.is_in(line) for source in self._companions)
        ]  # fmt: skip
        self._update_error = _reason("\n".join(ours))

    def depends(self, package: str) -> list[str]:
        """The packages that a package depends on, without alternatives."""
        done = self._run("apt-cache", "depends", package)
        found = re.findall(r"^ *Depends: ([a-z0-9][a-z0-9+.-]*)$", done.stdout, re.MULTILINE)
        if not found:
            reason = self._update_error or _reason(done.stderr) or "no such package"
            raise FetchError(f"apt cannot find {package} for {self._architecture}: {reason}")
        return found

    def closure(self, packages: Sequence[str]) -> list[str]:
        """The packages, and all that they need on an empty machine."""
        options = ("-y", "--no-install-recommends", "--print-uris")
        plan = self._run("apt-get", "-q", "install", *options, *packages)
        found = re.findall(r"^'[^']*' ([^_\s]+)_\S* \d+ \S*$", plan.stdout, re.MULTILINE)
        if plan.returncode or not found:
            reason = self._update_error or _reason(plan.stderr) or "no such package"
            raise FetchError(f"apt cannot resolve {' '.join(packages)}: {reason}")
        return found

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
                command, cwd=folder, env=sources.environment(), stdin=subprocess.DEVNULL,
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

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [program, "-c", str(self._root / "apt.conf"), *arguments]

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(program, *arguments),
            capture_output=True, text=True, errors="replace",
            env=sources.environment(), stdin=subprocess.DEVNULL, cwd=self._root / "debs",
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


def _reason(text: str) -> str:
    """The line of apt's messages that says most: an error before a warning, in one line."""
    for mark in ("E: ", "W: "):
        for line in text.splitlines():
            if line.startswith(mark):
                return line.removeprefix(mark).strip()
    return ""

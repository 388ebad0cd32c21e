"""The Debian sources that this machine's apt has, and those of another suite made from them.

Mirrors sources.list(5) and apt-get(8), "indextargets"; os-release(5) where apt does not know whose
a source is. Left out: sources that nobody configured (whom to ask is the machine's choice).
"""

import os
import platform
import re
import subprocess
from dataclasses import dataclass

from armkvm.vmm.errors import NoDebianError

# Suites that are laid over another one; else the part before the first "-" names that.
BASES = {"experimental": "sid", "rc-buggy": "sid"}


@dataclass(frozen=True)
class Source:
    """A line of sources.list, without its type."""

    site: str
    release: str

    def is_in(self, line: str) -> bool:
        """Whether a line of apt's is about it: bookworm is only a part of bookworm-updates."""
        return re.search(f"[ /]{re.escape(self.release)}[ /]", line) is not None


def of_suite(suite: str | None) -> tuple[list[Source], list[Source]]:
    """The sources of a suite, made from the machine's: itself, and companions such as -updates."""
    found = _machine_sources()
    own = _own(found)
    if suite is None:
        main = [source for source in found if source.release == own]
        return main, [source for source in found if source.release != own]
    under = base(suite)
    main = [
        Source(source.site, name)
        for source in found if source.release == own
        for name in dict.fromkeys((under, suite))
    ]  # fmt: skip
    companions = [
        Source(source.site, under + source.release.removeprefix(own))
        for source in found if source.release.startswith(own)
    ]  # fmt: skip
    return main, [source for source in companions if source not in main]


def base(suite: str) -> str:
    """The suite that this one is laid over, or itself."""
    return BASES.get(suite, suite.partition("-")[0])


def _machine_sources() -> list[Source]:
    """Debian's sources in this machine's apt."""
    found = [source for source, origin in _targets() if origin == "Debian"]
    if not found:
        # Where no lists were fetched (containers remove them) apt does not know an origin: then
        # a Debian machine's sources of its own release are taken for Debian's.
        codename = _codename()
        names = (codename, "oldstable", "stable", "testing", "unstable", "sid")
        every = _targets("-o", "APT::Get::IndexTargets::ReleaseInfo=false")
        found = [s for s, _ in every if codename and re.split("[-/]", s.release)[0] in names]
        if any(source.release == codename for source in found):
            found = [source for source in found if source.release.startswith(codename)]
    if not found:
        raise NoDebianError("this machine's apt has no Debian source")
    return list(dict.fromkeys(found))


def _targets(*options: str) -> list[tuple[Source, str]]:
    """The sources of this machine's apt that have a component main, and their origins."""
    form = "$(SITE)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)"
    # The machine's configuration, not ours: no -c here.
    done = subprocess.run(
        ["apt-get", "indextargets", *options, "--format", form, "Created-By: Packages"],
        capture_output=True, text=True, errors="replace", env=environment(),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [(Source(row[0], row[1]), row[3]) for row in rows if len(row) == 4 and row[2] == "main"]


def _own(found: list[Source]) -> str:
    """This machine's release: bookworm, not bookworm-updates."""
    releases = [source.release for source in found]
    codename = _codename()
    return codename if codename in releases else min(releases, key=len)


def _codename() -> str:
    """The name of this machine's Debian release; "" where it is not Debian."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""


def environment() -> dict[str, str]:
    """For apt's programs: their words are read."""
    return os.environ | {"LC_ALL": "C"}

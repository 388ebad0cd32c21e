"""The default guest: Debian's arm64 kernel and a static busybox, kept in the user's cache.

Fetched once through apt (see ``apt``). What is kept is a folder with two files and a manifest
(see ``fetched``). XDG_CACHE_HOME is honoured (XDG Base Directory Specification). Left out: kernel
modules (the default guest needs none), a history of versions.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from armkvm.process import cache
from armkvm.vmm.errors import FetchError, GuestError
from armkvm.vmm.guest import apt, fetched

Flavour = Literal["cloud", "generic", "rt"]

# Debian's names for its arm64 kernels.
METAPACKAGES: dict[Flavour, str] = {
    "cloud": "linux-image-cloud-arm64",
    "generic": "linux-image-arm64",
    "rt": "linux-image-rt-arm64",
}
BUSYBOX = "busybox-static"
# Until Linux 6.x, and since 7 (Debian 14 and backports), when the package got a part of its own.
KERNEL, BINARY = "linux-image-", "linux-binary-"
KERNEL_PATTERN = r"boot/vmlinuz-.*|(usr/)?lib/modules/[^/]+/vmlinuz"
BUSYBOX_PATTERN = r"(usr/)?bin/busybox"
FILES = ("Image", "busybox")

# Called with what is being done, bytes so far and bytes in all (0, 0 where that is not known).
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Guest:
    """A guest in the cache; ``packages`` maps the names of its Debian packages to versions."""

    folder: Path
    packages: dict[str, str]

    @property
    def kernel(self) -> Path:
        return self.folder / "Image"

    @property
    def busybox(self) -> Path:
        return self.folder / "busybox"


def cache_folder() -> Path:
    """Where fetched guests live. OSError: there is no home directory."""
    return cache.directory() / "guests"


def cached(suite: str | None = None, flavour: Flavour = "cloud") -> Guest | None:
    """The guest if it is in the cache and whole. ``suite`` None is the machine's own."""
    folder = _folder(suite, flavour)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        sizes = {name: (folder / name).stat().st_size for name in FILES}
        whole = all(manifest["files"][name]["size"] == sizes[name] for name in FILES)
        return Guest(folder, dict(manifest["packages"])) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fetch(
    suite: str | None = None,
    flavour: Flavour = "cloud",
    *,
    again: bool = False,
    progress: Progress = lambda step, done, total: None,
) -> Guest:
    """The guest from the cache, fetched first if it is not there (or ``again``).

    Raises FetchError, whose message is one line, when apt, the network or the disk fail, and
    GuestError when ``suite`` cannot be one.
    """
    if suite is not None and not suite.replace("-", "").isalnum():
        raise GuestError(f"{suite!r} is no name of a Debian suite")
    if not again and (guest := cached(suite, flavour)):
        return guest
    folder = _folder(suite, flavour)
    fetched.folder(
        folder,
        "the guest",
        lambda: not again and cached(suite, flavour) is not None,
        lambda partial: _make(partial, suite, flavour, progress),
    )
    guest = cached(suite, flavour)
    if guest is None:
        raise FetchError(f"the guest that was just fetched into {folder} is gone")
    return guest


def _folder(suite: str | None, flavour: Flavour) -> Path:
    return cache_folder() / f"{suite or 'host'}-{flavour}"


def _make(partial: Path, suite: str | None, flavour: Flavour, progress: Progress) -> None:
    source = apt.Apt(partial / "apt", suite)
    progress("reading Debian's package lists", 0, 0)
    source.update()
    kernel = kernel_package(source, flavour)
    step = f"downloading {kernel}"
    debs = source.download([kernel, BUSYBOX], lambda done, total: progress(step, done, total))
    progress("unpacking", 0, 0)
    guest = partial / fetched.RESULT
    guest.mkdir()
    apt.unpack(debs[0], KERNEL_PATTERN, guest / "Image")
    apt.unpack(debs[1], BUSYBOX_PATTERN, guest / "busybox")
    manifest = {
        "packages": dict(_name_and_version(deb) for deb in debs),
        "files": {name: _description(guest / name) for name in FILES},
    }
    (guest / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def kernel_package(source: apt.Apt, flavour: Flavour) -> str:
    """The package with the kernel of a flavour."""
    metapackage = METAPACKAGES[flavour]
    for package in source.depends(metapackage):
        if package.startswith(KERNEL):
            parts = source.depends(package)
            return next((part for part in parts if part.startswith(BINARY)), package)
    raise FetchError(f"{metapackage} stands for no kernel")


def _name_and_version(deb: Path) -> tuple[str, str]:
    name, version, _ = deb.name.split("_")
    return name, version.replace("%3a", ":")


def _description(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

"""What an arm64 program needs on another host: qemu-aarch64, and a libc. From Debian, in the cache.

Fetched once through the machine's apt, without root, as the default guest is. The emulator is
Debian's static one, for this machine's own architecture; the libraries are those that every Debian
system has for a C or C++ program. What else a program links with is its owner's to provide.
"""

import functools
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

from armkvm.process import cache
from armkvm.vmm.errors import FetchError
from armkvm.vmm.guest import apt, fetched
from armkvm.vmm.guest.debian import Progress

# Where the static emulator is: up to Debian 12 the first, since then the second.
EMULATORS = {
    "qemu-user-static": r"usr/bin/qemu-aarch64-static",
    "qemu-user": r"usr/bin/qemu-aarch64",
}
HERE = {"x86_64": "amd64", "aarch64": "arm64"}  # Debian's names for the hosts of armkvm
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6")


def emulator(progress: Progress = lambda step, done, total: None) -> Path:
    """qemu-aarch64, fetched if it is not there. FetchError."""
    folder = _fetched("qemu-aarch64", lambda partial: _make_emulator(partial, progress))
    return folder / "qemu-aarch64"


def libraries(progress: Progress = lambda step, done, total: None) -> Path:
    """The root of an arm64 system with a libc, fetched if it is not there. FetchError."""
    return _fetched("arm64-libraries", lambda partial: _make_libraries(partial, progress))


def _fetched(name: str, make: Callable[[Path], None]) -> Path:
    try:
        place = cache.directory() / "programs" / name
        if not place.exists():
            fetched.folder(place, name, place.exists, make)
        cache.trust(place)  # it will be run
    except OSError as error:
        raise FetchError(str(error.strerror)) from None
    return place


def _make_emulator(partial: Path, progress: Progress) -> None:
    source = apt.Apt(partial / "apt", None, HERE.get(platform.machine(), "amd64"))
    progress("reading Debian's package lists", 0, 0)
    source.update()
    out = partial / fetched.RESULT
    out.mkdir()
    for package, pattern in EMULATORS.items():
        shown = functools.partial(progress, f"downloading {package}")
        [deb] = source.download([package], shown)
        try:
            apt.unpack(deb, pattern, out / "qemu-aarch64")
        except FetchError:
            continue
        (out / "qemu-aarch64").chmod(0o755)
        return
    raise FetchError("Debian's qemu-user packages hold no qemu-aarch64")


def _make_libraries(partial: Path, progress: Progress) -> None:
    source = apt.Apt(partial / "apt", None)
    progress("reading Debian's package lists", 0, 0)
    source.update()
    packages = source.closure(LIBRARIES)
    debs = source.download(packages, functools.partial(progress, "downloading arm64 libraries"))
    progress("unpacking", 0, 0)
    for deb in debs:
        ran = subprocess.run(
            ["dpkg-deb", "-x", deb, partial / fetched.RESULT], capture_output=True, check=False
        )
        if ran.returncode:
            raise FetchError(f"cannot unpack {deb.name}")
    # Since Debian 13 packages have their files under /usr alone.
    if not (partial / fetched.RESULT / "lib").exists():
        (partial / fetched.RESULT / "lib").symlink_to("usr/lib")

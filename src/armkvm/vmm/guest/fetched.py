"""A folder of the cache that something is fetched into.

It is made under another name and renamed when it is whole, so that a folder is either complete or
not there; one process makes it while others wait. What a killed process has left is cleared away.
"""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from armkvm.vmm.errors import FetchError

RESULT = "result"  # in the folder that `make` works in: what is kept


def folder(
    place: Path, what: str, there: Callable[[], bool], make: Callable[[Path], None]
) -> None:
    """Make a folder, unless another process has made it meanwhile: `there` says so.

    `make` is given a folder to work in and leaves RESULT there. FetchError: the disk.
    """
    try:
        with _locked(place.parent):
            if there():
                return
            _clear(place.parent)
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=place.parent))
            try:
                make(partial)
                if place.exists():
                    shutil.rmtree(place)
                (partial / RESULT).rename(place)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FetchError(f"cannot fetch {what} into {place.parent}: {reason}") from None


@contextlib.contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """One at a time; the lock falls with the process that holds it."""
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear(parent: Path) -> None:
    """Remove what a fetch left that was killed. Only the holder of the lock may do that."""
    for partial in parent.glob(".partial-*"):
        shutil.rmtree(partial, ignore_errors=True)

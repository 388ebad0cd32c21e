"""Output files on the command line: what cannot be written is one line, and whose fault it is."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from armkvm.cli.main import HostError, UsageError
from armkvm.process import output

# The name's fault; everything else (no space, a limit, a broken disk) is the host's.
OF_THE_NAME = frozenset((
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EINVAL, errno.EROFS, errno.ETXTBSY,
))  # fmt: skip


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What goes wrong in here is that this file cannot be written."""
    try:
        yield
    except OSError as error:
        kind = UsageError if error.errno in OF_THE_NAME else HostError
        raise kind(f"cannot write {path}: {error.strerror or error}") from None


def check(*paths: str | Path | None) -> None:
    """Before the work that they are the result of: they can be written, and are not the same."""
    seen: dict[Path, str | Path] = {}
    for path in paths:
        if path is None:
            continue
        with writing(path):
            output.check(path)
            place = Path(path).resolve()
        if place in seen:
            raise UsageError(f"{seen[place]} and {path} are the same file")
        seen[place] = path


def write(path: str | Path, data: bytes) -> None:
    """The file with these contents, complete or not at all."""
    with writing(path):
        output.replace(path, [data])

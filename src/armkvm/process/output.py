"""Files that a person names for output: one rule for all of them.

A name is served if it is new or a regular file's. A symbolic link is followed: its target is
written, the link stays. Anything else, a device, a FIFO, a directory, is refused, and so is a file
that standard output or error go to already.

`replace` writes a file as a whole: it is there when it is complete, or not at all, and what was
there before stays until then. Meanwhile it has no name (O_TMPFILE), so that a writer that is killed
leaves nothing behind. Where the file system or the kernel cannot do that it has a name beside its
place and a lock for as long as its writer lives; the next writer removes those without.
`stream` is for what grows while somebody may look on: the file itself, emptied.

Left out: syncing the directory. After a crash of the host the old file may be back, never a half.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SUFFIX = ".partial"  # of names that only a writer without O_TMPFILE needs
NAME_MAX = 255  # bytes

_KINDS = (
    (stat.S_ISDIR, "a directory"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
)  # fmt: skip
# What open() says of O_TMPFILE where it does not exist: the file system's, and the kernel's way.
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)

Parts = Iterable[bytes | bytearray | memoryview]


class NotServedError(OSError):
    """Something is there that is not to be overwritten."""


def check(path: str | Path) -> None:
    """OSError if it is clear now that this cannot be written; for before the work, not after."""
    target, old = _target(path)
    place = target.parent if old is None else target
    if not os.access(target.parent, os.X_OK) or not os.access(place, os.W_OK):
        folder = os.stat(target.parent)  # OSError: it is not there
        if not stat.S_ISDIR(folder.st_mode):
            raise _error(errno.ENOTDIR, path)
        raise _error(errno.EACCES, path)


def replace(path: str | Path, parts: Parts, *, mode: int = 0o666) -> None:
    """Put a file with these contents there, at once. A new one gets `mode` less the umask,
    an old one keeps its mode, and its owner where that can be. OSError."""
    target, old = _target(path)
    if old is not None and not _writable(target):
        old = None
    folder = os.open(target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sweep(target.parent, target.name)
        writer = _Writer(folder, target.name, mode)
        try:
            writer.write(parts)
            if old is not None:
                with suppress(PermissionError):
                    os.fchown(writer.fd, old.st_uid, old.st_gid)
                os.fchmod(writer.fd, stat.S_IMODE(old.st_mode))
            writer.publish()
        finally:
            writer.close()
    finally:
        os.close(folder)


def _writable(target: Path) -> bool:
    """False where it has gone meanwhile, as another writer may do. OSError: it is not for us."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except FileNotFoundError:
        return False
    return True


def stream(path: str | Path) -> int:
    """A descriptor of the file itself, empty, to write to. OSError."""
    target, _old = _target(path)
    # Not emptied before it is known what was opened; and no waiting for the reader of a FIFO.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(target, flags, 0o666)
    try:
        _served(path, os.fstat(fd))
        os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def sweep(folder: Path, name: str) -> None:
    """Remove what writers of this file have left that were killed."""
    prefix = _prefix(name)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(SUFFIX):
                with suppress(OSError):
                    _remove_if_left(entry.path)


def _remove_if_left(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(fd)
        if stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    finally:
        os.close(fd)


def _target(path: str | Path) -> tuple[Path, os.stat_result | None]:
    """Where a name leads, and what is there; OSError if that is nothing to write to."""
    if str(path).endswith(os.sep):
        raise _error(errno.EISDIR, path)
    old = None
    try:
        state = os.stat(path)  # before the links are followed by hand: the kernel may forbid it
    except FileNotFoundError:
        if not os.fspath(path):
            raise
    else:
        _served(path, state)
        old = state
    return Path(os.path.realpath(path)), old


def _served(path: str | Path, state: os.stat_result) -> None:
    for matches, kind in _KINDS:
        if matches(state.st_mode):
            raise NotServedError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    for fd, name in ((1, "standard output"), (2, "standard error")):
        try:
            same = os.path.samestat(state, os.fstat(fd))
        except OSError:  # it is closed
            continue
        if same:
            raise NotServedError(errno.EINVAL, f"{name} goes there already", str(path))


def _error(code: int, path: str | Path) -> OSError:
    return OSError(code, os.strerror(code), str(path))


def _prefix(name: str) -> str:
    room = NAME_MAX - len(SUFFIX) - 2 - 8  # two dots and eight digits
    return f".{os.fsdecode(os.fsencode(name)[:room])}."


class _Writer:
    """A file under way to its name in `folder`, a descriptor."""

    def __init__(self, folder: int, name: str, mode: int) -> None:
        self._folder, self._name = folder, name
        self._partial: str | None = None  # its name now, if any
        self.fd = self._unnamed(mode)
        if self.fd < 0:
            self._named(mode)

    def _unnamed(self, mode: int) -> int:
        if not os.path.isdir("/proc/self/fd"):  # through which it gets its name
            return -1
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            fd = os.open(".", flags, mode, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            return -1
        self._lock(fd)
        return fd

    def _named(self, mode: int) -> None:
        while True:
            name = self._fresh()
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
            self.fd = os.open(name, flags, mode, dir_fd=self._folder)
            self._lock(self.fd)
            if os.fstat(self.fd).st_nlink:
                self._partial = name
                return
            os.close(self.fd)  # swept away before it was locked

    def _fresh(self) -> str:
        return f"{_prefix(self._name)}{secrets.token_hex(4)}{SUFFIX}"

    @staticmethod
    def _lock(fd: int) -> None:
        with suppress(OSError):  # a file system without locks: then nobody sweeps either
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, parts: Parts) -> None:
        """The contents, and all of them on the disk."""
        for part in parts:
            left = memoryview(part)
            while left:
                left = left[os.write(self.fd, left) :]
        os.fsync(self.fd)

    def publish(self) -> None:
        """Give it its name."""
        if self._partial is None:
            with suppress(FileExistsError):
                self._link(self._name)
                return
            # There is no linkat() that replaces.
            name = self._fresh()
            self._link(name)
            self._partial = name
        os.replace(self._partial, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._partial = None

    def _link(self, name: str) -> None:
        os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self._folder, follow_symlinks=True)

    def close(self) -> None:
        if self._partial is not None:
            with suppress(OSError):
                os.unlink(self._partial, dir_fd=self._folder)
        os.close(self.fd)

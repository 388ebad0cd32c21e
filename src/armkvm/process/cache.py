"""The user's cache for armkvm: where it is, and what in it can be trusted with being run.

The place is the XDG Base Directory Specification's: $XDG_CACHE_HOME, or .cache in the home
directory; relative paths are ignored. What is made there is the user's alone.

Native code is loaded from here, so a file counts only if nobody but this user and root can have
written it: by its own owner and mode, and by those of every directory on the way, as ssh looks at
its keys (auth_secure_path() in OpenSSH's misc.c). Two allowances: a group of one's own may write,
as Debian's ssh has it, for systems with a umask of 002; and an owner that this user namespace does
not know is like root, because nobody in it can be him.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from armkvm.process import output

WRITABLE = stat.S_IWGRP | stat.S_IWOTH
LARGEST = 1 << 28  # bytes; nothing that is kept here comes near


class DistrustError(OSError):
    """Somebody else could put something into the cache; the directory is named, and what to do."""


def directory() -> Path:
    """Where the cache is, or will be. OSError: there is no home directory."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(home):
        return Path(home) / "armkvm"
    home = os.environ.get("HOME", "")
    if not os.path.isabs(home):
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = ""
    if not os.path.isabs(home):
        raise OSError(
            errno.ENOENT, "there is no home directory: set XDG_CACHE_HOME to a writable directory"
        )
    return Path(home) / ".cache" / "armkvm"


def load(path: Path) -> bytes:
    """What is kept under this name. DistrustError; any other OSError: nothing that counts."""
    trust(path.parent)
    # Neither through a link nor waiting for the writer of a FIFO.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as file:
        state = os.fstat(file.fileno())
        mode = state.st_mode
        if not stat.S_ISREG(mode) or mode & WRITABLE or not _known(state.st_uid):
            raise OSError(errno.EPERM, "anybody can have written it", str(path))
        if state.st_size > LARGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(LARGEST)


def store(path: Path, data: bytes) -> None:
    """Keep it, in place of whatever has that name. OSError, DistrustError."""
    _make(path.parent)
    trust(path.parent)
    with suppress(FileNotFoundError):
        os.unlink(path)
    output.replace(path, [data], mode=0o600)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        with suppress(FileExistsError):  # two first starts at once
            folder.mkdir(mode=0o700)


def trust(folder: Path) -> None:
    place = Path(os.path.realpath(folder))
    for part in (place, *place.parents):
        try:
            state = os.stat(part)
        except FileNotFoundError:
            continue
        # In a sticky directory nobody can rename what is not his.
        sticky = part != place and state.st_mode & stat.S_ISVTX
        if not _known(state.st_uid):
            why = f"belongs to user {state.st_uid}"
        elif _others_write(state) and not sticky:
            why = "can be written by others"
        else:
            continue
        raise DistrustError(
            errno.EPERM,
            f"{part} {why}, so no code is loaded from {place}"
            f" (chmod go-w {part}, or set XDG_CACHE_HOME to a directory of your own)",
        )


def _known(uid: int) -> bool:
    return uid in (0, os.geteuid()) or _outside(uid)


def _outside(uid: int) -> bool:
    """Whether this user namespace has no such user (user_namespaces(7))."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:
        return False
    ranges = [[int(word) for word in line.split()] for line in lines]
    return not any(first <= uid < first + count for first, _outer, count in ranges)


def _others_write(state: os.stat_result) -> bool:
    if state.st_mode & stat.S_IWOTH:
        return True
    return bool(state.st_mode & stat.S_IWGRP) and state.st_gid != 0 and not _private(state.st_gid)


def _private(gid: int) -> bool:
    """A group of this user alone, which many systems make for each."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    alone = {*group.gr_mem} <= {user.pw_name}
    return gid == user.pw_gid and group.gr_name == user.pw_name and alone

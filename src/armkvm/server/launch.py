"""Starting a program with the shim in it, and living beside it.

On an arm64 host the program runs as it is, elsewhere under qemu-aarch64. Nothing of it touches the
disk: a changed program is a memfd. A dynamic program's libc is changed once and kept in the cache,
by the hash of what it is made from; LD_LIBRARY_PATH leads the program there.

The process that starts it stays its parent. Signals from the terminal reach both; others are handed
on, and what the program does (stops, goes on, ends) its parent does too. If the parent dies, the
program is killed.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from armkvm.process import cache
from armkvm.server.program import ProgramError, fingerprint, is_dynamic, with_shim

EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")
SYSROOTS = ("/usr/aarch64-linux-gnu",)  # of Debian's cross compiler
_LIBC = ("lib/libc.so.6", "lib/aarch64-linux-gnu/libc.so.6", "usr/lib/aarch64-linux-gnu/libc.so.6")
_SI_KERNEL = 0x80  # si_code of a signal that a terminal has sent
_PR_SET_PDEATHSIG = 1
# All but those that an instruction raises: who blocks one is killed by it.
_ASKED = signal.valid_signals() - {
    signal.SIGBUS, signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
_FOREIGN = platform.machine() != "aarch64"


class LaunchError(Exception):
    """The program cannot be started here; one line that says what to do."""


@dataclass(frozen=True)
class Launch:
    """What execve(2) is given."""

    command: list[str]
    environment: dict[str, str]
    program: int  # the descriptor of a memfd, which the child keeps


def prepare(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    emulator: Callable[[], str],
    sysroot: Callable[[], str],
) -> Launch:
    """The program with the shim, ready to start. The environment says where the server is.

    Asked for where they are needed: an `emulator`, and the `sysroot` where the interpreter and the
    libraries of a dynamic program are. LaunchError.
    """
    path = shutil.which(arguments[0], path=environment.get("PATH"))
    if path is None:
        raise LaunchError(f"there is no program {arguments[0]!r}")
    own = dict(environment)
    prefix: list[str] = []
    if _FOREIGN:
        prefix = [emulator(), "-0", arguments[0]]
    try:
        program = Path(path).read_bytes()
        if is_dynamic(program):
            root = sysroot() if _FOREIGN else "/"
            folder = _changed_libc(root)
            before = own.get("LD_LIBRARY_PATH")
            own["LD_LIBRARY_PATH"] = f"{folder}:{before}" if before else str(folder)
            if _FOREIGN:
                # The emulator is this machine's own program: the variable is for its guest alone.
                prefix += ["-L", root, "-E", f"LD_LIBRARY_PATH={own.pop('LD_LIBRARY_PATH')}"]
                if before is not None:
                    own["LD_LIBRARY_PATH"] = before
        fd = _in_memory(Path(path).name, with_shim(program))
    except ProgramError as error:
        raise LaunchError(f"{path}: {error}") from None
    except OSError as error:
        raise LaunchError(f"cannot read {error.filename or path}: {error.strerror}") from None
    return Launch([*prefix, f"/proc/self/fd/{fd}", *arguments[1:]], own, fd)


def installed_emulator(environment: Mapping[str, str]) -> str | None:
    """qemu-aarch64 on the path."""
    found = (shutil.which(name, path=environment.get("PATH")) for name in EMULATORS)
    return next((path for path in found if path is not None), None)


def installed_sysroot(environment: Mapping[str, str]) -> str | None:
    """A root with an arm64 libc on this machine."""
    for root in (environment.get("QEMU_LD_PREFIX", ""), *SYSROOTS):
        if root and any((Path(root) / libc).exists() for libc in _LIBC):
            return root
    return None


def _changed_libc(root: str) -> Path:
    """The folder of a libc.so.6 with the shim."""
    found = next((p for p in (Path(root) / libc for libc in _LIBC) if p.exists()), None)
    if found is None:
        raise LaunchError(f"there is no libc.so.6 for arm64 under {root}")
    libc = found.read_bytes()
    digest = hashlib.sha256(fingerprint() + libc).hexdigest()[:32]
    path = cache.directory() / "libc" / digest / found.name
    try:
        cache.load(path)
    except OSError:
        cache.store(path, with_shim(libc))
    return path.parent


def _in_memory(name: str, program: bytes) -> int:
    fd = os.memfd_create(name[:200], 0)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(program)
    os.fchmod(fd, 0o700)
    return fd


def start(launch: Launch) -> subprocess.Popen[bytes]:
    """Start it. The signals of this process are blocked from here on: `wait` takes them."""
    libc = ctypes.CDLL(None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED)
    parent = os.getpid()

    def child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(errno.ESRCH)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        # preexec_fn: no other thread runs yet.
        return subprocess.Popen(
            launch.command, env=launch.environment, pass_fds=(launch.program,), preexec_fn=child
        )
    finally:
        os.close(launch.program)


def wait(child: subprocess.Popen[bytes]) -> int:
    """Live beside it to its end: its exit code, or 128 and the number of the signal."""
    while True:
        info = signal.sigwaitinfo(_ASKED)
        number = info.si_signo
        if number == signal.SIGCHLD:
            code = _news(child.pid)
            if code is not None:
                child.returncode = code
                return code
        elif info.si_code != _SI_KERNEL or number == signal.SIGCONT:
            # A terminal sends to the whole job, the program included.
            os.kill(child.pid, number)


def _news(pid: int) -> int | None:
    """What has become of it: None if it goes on."""
    while True:
        got, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if got == 0:
            return None
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        if os.WIFSIGNALED(status):
            return 128 + os.WTERMSIG(status)
        # Stopped: so is this process, until the shell lets both go on.
        os.kill(os.getpid(), signal.SIGSTOP)

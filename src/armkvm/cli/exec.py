"""Run an arm64 program that wants /dev/kvm: armkvm exec [options] -- PROGRAM [ARGS].

The program is not changed on disk and needs no rights. It finds a /dev/kvm that is served by this
process; terminal, signals and exit code are its own. On other hosts than arm64 it runs under
qemu-aarch64.
"""

import argparse
import json
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from armkvm.cli.main import HostError, UsageError, tell
from armkvm.cli.progress import shown
from armkvm.host.cpu import EngineBackend
from armkvm.host.host import KINDS
from armkvm.kvm.system import System
from armkvm.server import launch
from armkvm.server.server import VARIABLE, Server
from armkvm.vmm.errors import FetchError
from armkvm.vmm.guest import programs
from armkvm.vmm.guest.debian import Progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm exec``."""
    parser.add_argument("--host", choices=KINDS, default="vhe-gicv3", help="which host it is")
    parser.add_argument("--sysroot", metavar="DIR", help="where a dynamic program's libraries are")
    parser.add_argument("-E", "--env", metavar="NAME=VALUE", action="append", default=[],
                        help="a variable of the program's environment, and of that alone")
    parser.add_argument("--stats", action="store_true", help="print a line of JSON at the end")
    parser.add_argument("program", metavar="-- PROGRAM", help="the program, on the path or a path")
    parser.add_argument("args", metavar="ARGS", nargs=argparse.REMAINDER, help="its arguments")


def _variable(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise UsageError(f"--env takes NAME=VALUE, not {given!r}")
    return name, value


def _or_fetched(
    installed: str | None, fetch: Callable[[Progress], Path], progress: Progress, needed: str
) -> str:
    try:
        return installed or str(fetch(progress))
    except FetchError as error:
        raise HostError(f"{needed}: {error}") from None


def _emulator(environment: Mapping[str, str], progress: Progress) -> str:
    return _or_fetched(
        launch.installed_emulator(environment), programs.emulator, progress,
        "programs need qemu-aarch64 here (Debian, Ubuntu: apt install qemu-user)",
    )  # fmt: skip


def _sysroot(environment: Mapping[str, str], progress: Progress) -> str:
    return _or_fetched(
        launch.installed_sysroot(environment), programs.libraries, progress,
        "a dynamic program needs arm64 libraries: name their root with --sysroot"
        " (Debian, Ubuntu: apt install libc6-arm64-cross)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve one program to its end."""
    address = f"@armkvm-{os.getpid()}-{secrets.token_hex(8)}"
    environment = {**os.environ, **dict(_variable(v) for v in args.env), VARIABLE: address}
    with shown() as progress:
        try:
            ready = launch.prepare(
                [args.program, *args.args],
                environment,
                emulator=lambda: _emulator(environment, progress),
                sysroot=lambda: args.sysroot or _sysroot(environment, progress),
            )
        except launch.LaunchError as error:
            raise UsageError(str(error)) from None
        backend = EngineBackend(progress)
    with System(args.host, "realtime", backend=backend) as kvm, Server(kvm, address) as server:
        try:
            child = launch.start(ready)
        except OSError as error:
            raise HostError(f"cannot start {args.program}: {error.strerror}") from None
        server.start()
        code = launch.wait(child)
        if args.stats:
            sys.stdout.flush()
            tell(json.dumps({"exit": code, "kvm_run": server.stats.runs,
                             "ioctls": sum(server.stats.ioctls.values())}))  # fmt: skip
    return code

"""The ``armkvm`` command: find the verb, run it, turn every failure into one line and a code.

Only the verb's own module is imported: the time from command to guest instruction counts.
"""

import argparse
import difflib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn, Protocol, cast

import armkvm
from armkvm.bench import BenchError
from armkvm.cli.codes import Code, table
from armkvm.engine.errors import EngineError
from armkvm.process import stdio
from armkvm.vmm.errors import FetchError, GuestError

# Verb to what it does; each is a module armkvm.cli.<verb>.
VERBS = {
    "run": "boot a guest (without --kernel: Debian's arm64 kernel and busybox)",
    "exec": "run an arm64 program that wants /dev/kvm",
    "serve": "be /dev/kvm for arm64 programs that are started otherwise",
    "guest": "fetch the default guest into the cache",
    "dis": "disassemble A64 instructions",
    "caps": "print what the KVM and the CPU here can do",
    "trace": "summarise what run --trace has recorded",
    "bench": "measure against qemu-system-aarch64",
    "check": "explore every schedule of timers and interrupt controllers, and find old bugs",
    "conformance": "ask a KVM what the real one was asked, and compare",
}


class Verb(Protocol):
    """What a verb's module offers. Its docstring's first line is the help's."""

    __doc__: str | None

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class UsageError(Exception):
    """Options that cannot be served, found after parsing; one line."""


class HostError(Exception):
    """The host lacks what it takes; one line."""


class FailedError(Exception):
    """A verb did its work and the answer is bad; one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message} ({self.prog} --help shows the options)")
        raise SystemExit(Code.USAGE)


def complain(message: str, *, patient: bool = True) -> None:
    """Print an error line; if not `patient`, only to a reader that takes it soon."""
    tell(f"armkvm: {' '.join(message.split())}", patient=patient)


def tell(line: str, *, patient: bool = True) -> None:
    """A line on standard error."""
    with suppress(OSError):  # nobody may listen; the exit code still tells
        if patient or stdio.has_room(2):
            print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except UsageError as error:
        complain(str(error))
        return Code.USAGE
    except (FailedError, BenchError) as error:
        complain(str(error))
        return Code.FAILED
    except (HostError, EngineError, FetchError) as error:
        complain(str(error))
        return Code.HOST
    except GuestError as error:
        complain(str(error))
        return Code.USAGE
    except KeyboardInterrupt:
        return Code.INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit: give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Code.PIPE
    except Exception as error:
        if os.environ.get("ARMKVM_DEBUG"):
            raise
        if isinstance(error, OSError):
            where = f": {error.filename}" if error.filename else ""
            complain(f"{error.strerror or error}{where}")
            return Code.HOST
        if isinstance(error, MemoryError):
            complain("not enough memory on this host")
            return Code.HOST
        complain(f"internal error: {type(error).__name__}: {error} (ARMKVM_DEBUG=1 shows where)")
        return Code.INTERNAL


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(_help())
        return Code.OK if arguments else Code.USAGE
    if name in ("-V", "--version"):
        print(f"armkvm {armkvm.__version__}")
        return Code.OK
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(VERBS)}"
        raise UsageError(f"there is no verb {name!r} ({hint})")
    if name != "run" and threading.current_thread() is threading.main_thread():
        _interruptible()
    verb = cast(Verb, importlib.import_module(f"armkvm.cli.{name}"))
    parser = Parser(
        prog=f"armkvm {name}",
        description=(verb.__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"exit codes:\n{table()}" if name == "run" else None,
    )
    verb.arguments(parser)
    return verb.run(parser.parse_args(arguments[1:]))


def _interruptible() -> None:
    """Ctrl-C is KeyboardInterrupt again, which verbs that have no signals of their own end by."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _help() -> str:
    verbs = "\n".join(f"  {name:<11} {text}" for name, text in VERBS.items())
    return (
        "usage: armkvm VERB [options]\n\n"
        "KVM/arm64 as a Python library, without Arm hardware and without /dev/kvm.\n\n"
        f"verbs (armkvm VERB --help shows the options):\n{verbs}\n\n"
        f"exit codes:\n{table()}"
    )

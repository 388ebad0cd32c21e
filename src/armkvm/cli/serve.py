"""Be /dev/kvm for arm64 programs that are started otherwise, until SIGTERM or Ctrl-C.

The address is @NAME or the path of a socket. A program finds it by ARMKVM_SERVER=ADDRESS in its
environment, and needs the shim in it: `armkvm exec` does both.
"""

import argparse
import signal

from armkvm.cli.main import HostError, tell
from armkvm.cli.progress import shown
from armkvm.host.cpu import EngineBackend
from armkvm.host.host import KINDS
from armkvm.kvm.system import System
from armkvm.process.signals import SIGNALS
from armkvm.server.server import VARIABLE, Server


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm serve``."""
    parser.add_argument("address", help="@NAME, or the path of a socket")
    parser.add_argument("--host", choices=KINDS, default="vhe-gicv3", help="which host it is")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    with shown() as progress:
        backend = EngineBackend(progress)
    with System(args.host, "realtime", backend=backend) as kvm:
        try:
            server = Server(kvm, args.address)
        except OSError as error:
            raise HostError(f"cannot listen at {args.address}: {error.strerror}") from None
        # By an exception, whichever signal it is: the socket is not left behind.
        with server, SIGNALS.watched():
            server.start()
            tell(f"armkvm: serving, {VARIABLE}={args.address}")
            while True:
                signal.pause()

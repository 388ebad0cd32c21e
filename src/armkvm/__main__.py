"""The process: ``armkvm``, or ``python -m armkvm``. What surrounds the command line's own work.

A signal that comes while modules are still being imported ends it by its default action: there is
nothing yet to put back, and no traceback to show. Standard descriptors that are closed are
/dev/null. Who was told twice to leave does not stay to tidy up.
"""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os

from armkvm.process import stdio
from armkvm.process.signals import SIGNALS


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    stdio.secure()
    from armkvm.cli.main import main as command

    try:
        code = command()
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0
    if SIGNALS.asked:
        os._exit(code)  # without flushing to who does not read
    stdio.finish()
    return code


if __name__ == "__main__":
    sys.exit(main())

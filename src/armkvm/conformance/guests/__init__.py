"""The guests: small programs in assembler that make KVM answer.

The ``.S`` files are the source; the ``.hex`` files hold the same as machine code
(client/machine_code.py), each guest under its label.
"""

from functools import cache
from importlib import resources

from armkvm.client import machine_code

SOURCES = ("vectors", "timers", "waiting", "exits", "vgic")


@cache
def programs() -> dict[str, bytes]:
    """Machine code by the guest's name; ``vectors`` is what all of them share."""
    folder = resources.files(__name__)
    return {
        name: code
        for source in SOURCES
        for name, code in machine_code.read(folder / f"{source}.hex").items()
    }

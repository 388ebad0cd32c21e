"""The built-in bare-metal guest, for machines on which no Linux can be fetched.

``guest.S`` is its source, ``guest.hex`` the same as machine code (client/machine_code.py).
"""

from importlib import resources

from armkvm.client import machine_code


def program() -> bytes:
    """The guest as a flat binary for 0x40080000."""
    return bytes(machine_code.program(resources.files(__name__) / "guest.hex"))

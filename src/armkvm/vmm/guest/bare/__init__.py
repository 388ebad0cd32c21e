"""The built-in bare-metal guest, for machines on which no Linux can be fetched.

``guest.S`` is its source, ``guest.hex`` the same as machine code (hexadecimal bytes, 32 a line),
so that nobody needs an assembler to run it; tests/vmm/guest/test_bare.py holds the two together. To
renew the second from the first: ``python tests/vmm/guest/test_bare.py``.
"""

from importlib import resources


def program() -> bytes:
    """The guest as a flat binary for 0x40080000."""
    return bytes.fromhex(resources.files(__name__).joinpath("guest.hex").read_text("ascii"))

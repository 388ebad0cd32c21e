"""Numbers as people write them on the command line: one rule for all options.

Digits are ASCII's, a whole number may be hexadecimal (0x), have underscores between its digits or
be written as 1e9, and every kind has its bounds. All else is refused in a line that names it.
"""

import argparse
import re

UNITS = {"": 20, "K": 10, "M": 20, "G": 30, "T": 40}
U64_MAX = (1 << 64) - 1

_WHOLE = re.compile(r"0[xX][0-9a-fA-F]+(_[0-9a-fA-F]+)*|[0-9]+(_[0-9]+)*|[0-9]+[eE][0-9]{1,2}")
_DECIMAL = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,2})?")
_SIZE = re.compile(r"([0-9]{1,12})([KMGT]?)(i?B)?", re.IGNORECASE | re.ASCII)
LONGEST = 100  # characters of a number


def size(text: str) -> int:
    """Bytes from 512 (MiB, as lkvm and QEMU take it), 256M, 2G; a page at least, whole pages."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size (512, 256M, 2G)")
    value = int(match[1]) << UNITS[match[2].upper()]
    if value == 0 or value % 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 4 KiB pages")
    return value


def positive(text: str) -> int:
    """A whole number above zero, of 64 bits."""
    value = _whole(text)
    if value is None or value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return _bounded(text, value)


def natural(text: str) -> int:
    """A whole number of 64 bits."""
    value = _whole(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return _bounded(text, value)


def seconds(text: str) -> float:
    """A time above zero."""
    fits = len(text) <= LONGEST and _DECIMAL.fullmatch(text)
    value = float(text) if fits else 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above zero")
    return value


def code_address(text: str) -> int:
    """The address of an instruction."""
    value = _whole(text)
    if value is None or value > U64_MAX or value % 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address of an instruction")
    return value


def _whole(text: str) -> int | None:
    if len(text) > LONGEST or not _WHOLE.fullmatch(text):
        return None
    digits, exponent = text.lower(), "0"
    if not digits.startswith("0x") and "e" in digits:
        digits, exponent = digits.split("e")
    value = int(digits, 16) if digits.startswith("0x") else int(digits)
    for _ in range(int(exponent)):
        value *= 10
    return value


def _bounded(text: str, value: int) -> int:
    if value > U64_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is too large: at most {U64_MAX}")
    return value

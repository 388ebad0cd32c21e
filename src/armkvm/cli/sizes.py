"""Numbers as people write them on the command line."""

import argparse
import re

UNITS = {"": 20, "K": 10, "M": 20, "G": 30, "T": 40}


def size(text: str) -> int:
    """Bytes from 512 (MiB, as lkvm and QEMU take it), 256M, 2G; a page at least, whole pages."""
    match = re.fullmatch(r"(\d{1,12})([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size (512, 256M, 2G)")
    value = int(match[1]) << UNITS[match[2].upper()]
    if value == 0 or value % 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 4 KiB pages")
    return value


def positive(text: str) -> int:
    """A whole number above zero; 0x for hexadecimal, underscores and 1e9 allowed."""
    try:
        value = int(float(text)) if re.fullmatch(r"\d+e\d{1,2}", text) else int(text, 0)
    except ValueError:
        value = 0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return value


def seconds(text: str) -> float:
    """A time above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above zero")
    return value

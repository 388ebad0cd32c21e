"""Numbers as people write them."""

import argparse
from collections.abc import Callable

import pytest

from armkvm.cli.sizes import code_address, natural, positive, seconds, size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512", 512 << 20),
        ("256M", 256 << 20),
        ("256m", 256 << 20),
        ("2G", 2 << 30),
        ("64K", 64 << 10),
        ("1T", 1 << 40),
        ("256MiB", 256 << 20),
        ("2GB", 2 << 30),
    ],
)
def test_size(text: str, value: int) -> None:
    assert size(text) == value


BAD_SIZES = ["", "0", "M", "-1", "1.5G", "1X", "1K", "0x10", "1 2", "²", "9" * 99]


@pytest.mark.parametrize("text", BAD_SIZES)
def test_bad_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a"):
        size(text)


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("0x10", 16), ("1_000", 1000), ("1e9", 10**9)]
)
def test_positive(text: str, value: int) -> None:
    assert positive(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "1e999"])
def test_bad_positive(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number above zero"):
        positive(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "x"])
def test_bad_seconds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds"):
        seconds(text)
    assert seconds("1.5") == 1.5


# Python's int() and float() take the digits of every script, signs, blanks and underscores.
ODD = [
    "\u0664",
    "\uff14",
    "+1",
    " 1",
    "1_",
    "_1",
    "1__0",
    "1e",
    "0b1",
    "0o1",
    "0x",
    "1e2e3",
    "9" * 5000,
]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("kind", [positive, natural, seconds, code_address])
def test_one_rule_for_digits(kind: Callable[[str], object], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a"):
        kind(text)


def test_whole_numbers_have_64_bits() -> None:
    """2^64 instructions were none at all."""
    assert positive("0xffff_ffff_ffff_ffff") == natural("18446744073709551615") == (1 << 64) - 1
    for kind in (positive, natural):
        for text in ("18446744073709551616", "1e99", "0x1" + "0" * 16):
            with pytest.raises(argparse.ArgumentTypeError, match="is too large: at most 184"):
                kind(text)
    assert natural("0") == code_address("0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match="not an address"):
        code_address("0x10000000000000000")


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), (".5", 0.5), ("2.", 2.0), ("1e-3", 1e-3)]
)
def test_seconds(text: str, value: float) -> None:
    assert seconds(text) == value

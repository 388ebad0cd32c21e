"""Numbers as people write them."""

import argparse

import pytest

from armkvm.cli.sizes import positive, seconds, size


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

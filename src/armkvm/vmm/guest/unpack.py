"""What kernels come packed in, unpacked within a limit.

Understood is what arch/arm64/boot/Makefile and drivers/firmware/efi/libstub/Makefile.zboot make:
gzip, bzip2, lzma, xz, zstd, lz4 (its frame format and the legacy one that the kernel's build
writes) and lzop. As with gzip(1), streams may follow one another, and what follows the last one is
ignored. Nothing is unpacked beyond the limit: there is one buffer of that size at most, and a
packer's window of WINDOW_MAX. Left out: archives, dictionaries.
"""

import bz2
import importlib
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from armkvm.vmm.errors import GuestError

MIB = 1 << 20
# The kernel's own packing uses windows of up to 128 MiB (xz_wrap.sh; zstd -22 --ultra).
WINDOW_MAX = 130 * MIB
INPUT, OUTPUT = 1 << 16, MIB  # bytes handed to a packer and taken from it at a time
LZ4_BLOCK = 8 * MIB  # of lz4's legacy format, unpacked
LZOP_BLOCK = 256 << 10  # what lzop writes, and all that the kernel's lib/decompress_unlzo.c takes
_ZEROS = re.compile(rb"\0*")

Data = bytes | bytearray | memoryview


class Stream(Protocol):
    """How bz2, lzma and zstd unpack one stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: Data, max_length: int) -> bytes: ...


@dataclass(frozen=True)
class Packer:
    """A compression: its name for people, how its files begin, and how they are unpacked."""

    name: str
    magic: re.Pattern[bytes]
    pieces: Callable[["Packer", memoryview], Iterator[bytes]]
    start: Callable[[], Stream] | None = None


def packer(data: Data) -> Packer | None:
    """What `data` is packed with, if it is."""
    return next((found for found in PACKERS if found.magic.match(data)), None)


def unpack(data: Data, found: Packer, limit: int) -> bytearray:
    """The contents of a packed kernel. Raises GuestError, also when they are more than `limit`."""
    out = bytearray()
    try:
        for piece in found.pieces(found, memoryview(data)):
            if len(out) + len(piece) > limit:
                raise GuestError(
                    f"the kernel unpacks to more than the machine's memory ({limit / MIB:.4g} MiB)"
                )
            out += piece
    except EOFError:
        raise GuestError(f"the kernel is a truncated {found.name} file") from None
    except _errors() as error:
        reason = str(error).split(": ")[-1] or type(error).__name__
        raise GuestError(f"the kernel is a damaged {found.name} file: {reason}") from None
    return out


def _streams(found: Packer, data: memoryview) -> Iterator[bytes]:
    """The pieces of the streams that follow one another, with padding of zeros between them."""
    assert found.start is not None
    at = 0
    while found.magic.match(data, at):
        stream = found.start()
        while not stream.eof:
            chunk = data[at : at + INPUT] if stream.needs_input else data[:0]
            if stream.needs_input and not chunk:
                raise EOFError
            at += len(chunk)
            yield stream.decompress(chunk, OUTPUT)
        at -= len(stream.unused_data or b"")
        zeros = _ZEROS.match(data, at)
        at = zeros.end() if zeros else at


class _Gzip:
    """zlib's decompressor with the interface of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: Data, max_length: int) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail or data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(out) < max_length
        return out


def _lzma(form: int) -> Callable[[], Stream]:
    return lambda: lzma.LZMADecompressor(form, memlimit=WINDOW_MAX)


def _zstd() -> Stream:
    # In the standard library since 3.14; the backport has the same interface.
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return _library(name, "zstd").ZstdDecompressor()  # type: ignore[no-any-return]


def _lz4() -> Stream:
    return _library("lz4.frame", "lz4").LZ4FrameDecompressor()  # type: ignore[no-any-return]


def _lz4_legacy(found: Packer, data: memoryview) -> Iterator[bytes]:
    """The magic number, then blocks behind their packed sizes, up to the end of the file."""
    library = _library("lz4.block", "lz4")
    at = 0
    while at + 4 <= len(data):
        if found.magic.match(data, at):
            at += 4
            continue
        size = int.from_bytes(data[at : at + 4], "little")
        if not 0 < size <= LZ4_BLOCK + LZ4_BLOCK // 255 + 16:
            return  # no block: what follows a file is ignored
        at += 4 + size
        if at > len(data):
            raise EOFError
        yield library.decompress(data[at - size : at], uncompressed_size=LZ4_BLOCK)


# lzop's flags: which checksums stand in front of a block, and what the header has besides.
ADLER_OUT, ADLER_IN, EXTRA, CRC_OUT, CRC_IN, FILTER = 0x1, 0x2, 0x40, 0x100, 0x200, 0x800


def _lzop(found: Packer, data: memoryview) -> Iterator[bytes]:
    """The blocks behind lzop's header; big-endian numbers."""
    match = found.magic.match(data)
    at = match.end() if match else 0
    library = _library("lzallright", "lzop")

    def number(size: int = 4) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise EOFError
        return int.from_bytes(data[at - size : at], "big")

    version = number(2)
    number(2)  # of the library
    newer = version >= 0x940
    number(4 if newer else 1)  # version needed, method, level
    flags = number()
    if flags & FILTER:
        number()
    number(12 if newer else 8)  # mode, times
    number(number(1))  # name
    number()  # checksum
    if flags & EXTRA:
        number(number() + 4)
    while size := number():
        packed = number()
        if size > LZOP_BLOCK or packed > size:
            raise ValueError("bad size of a block")
        adler = number() if flags & ADLER_OUT else None
        crc = number() if flags & CRC_OUT else None
        if packed < size:
            number(4 * (bool(flags & ADLER_IN) + bool(flags & CRC_IN)))
        at += packed
        if at > len(data):
            raise EOFError
        block = bytes(data[at - packed : at])
        if packed < size:
            block = library.LZOCompressor.decompress(block, size)
        if (
            len(block) != size
            or adler not in (None, zlib.adler32(block))
            or crc not in (None, zlib.crc32(block))
        ):
            raise ValueError("a checksum is wrong")
        yield block


# Programs that unpack what a library is missing for, and the libraries as pip knows them.
_INSTEAD = {
    "zstd": ("backports.zstd", "unzstd"),
    "lz4": ("lz4", "unlz4"),
    "lzop": ("lzallright", "lzop -d"),
}


def _library(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package, program = _INSTEAD[name]
        raise GuestError(
            f"the kernel is packed with {name}: pip install {package}, "
            f"or unpack it first ({program})"
        ) from None


def _errors() -> tuple[type[Exception], ...]:
    """What the packers raise for bad data; those of a library that is not in use do not count."""
    errors: list[type[Exception]] = [zlib.error, lzma.LZMAError, OSError, ValueError, RuntimeError]
    for module, name in (
        ("compression.zstd", "ZstdError"),
        ("backports.zstd", "ZstdError"),
        ("lz4.block", "LZ4BlockError"),
        ("lzallright", "LZOError"),
    ):
        if error := getattr(sys.modules.get(module), name, None):
            errors.append(error)
    return tuple(errors)


def _magic(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_POWERS = rb"[\x01\x02\x04\x08\x10\x20\x40\x80\x03\x06\x0c\x18\x30\x60\xc0]"

PACKERS = (
    Packer("gzip", _magic(rb"\x1f\x8b"), _streams, _Gzip),
    Packer("bzip2", _magic(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), _streams, bz2.BZ2Decompressor),
    Packer("xz", _magic(rb"\xfd7zXZ\0"), _streams, _lzma(lzma.FORMAT_XZ)),
    # No magic: the usual properties, a window of 64 KiB or more (2^n or 3 * 2^n), and a size below
    # 256 GiB or none.
    Packer(
        "lzma",
        _magic(rb"\x5d\0\0(" + _POWERS + rb"\0|\x80\x01|\0" + _POWERS + rb")"
               rb"(\xff{8}|.{4}[\0-\x3f]\0{3})"),
        _streams,
        _lzma(lzma.FORMAT_ALONE),
    ),
    # A frame, or one of those to be skipped.
    Packer("zstd", _magic(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _streams, _zstd),
    Packer("lz4", _magic(rb"\x04\x22\x4d\x18"), _streams, _lz4),
    Packer("lz4", _magic(rb"\x02\x21\x4c\x18"), _lz4_legacy),
    Packer("lzop", _magic(rb"\x89LZO\0\r\n\x1a\n"), _lzop),
)  # fmt: skip

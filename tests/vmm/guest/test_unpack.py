"""Packed kernels: every packer, streams in a row, and no more memory than was allowed."""

import bz2
import gzip
import lzma
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache

import lz4.block
import lz4.frame
import pytest
from lzallright import LZOCompressor

from armkvm.vmm.errors import GuestError
from armkvm.vmm.guest.loader import Image, load

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20
Pack = Callable[[bytes], bytes]


def lz4_legacy(data: bytes) -> bytes:
    """As lz4 -l writes it, which the kernel's build uses."""
    out = b"\x02\x21\x4c\x18"
    for at in range(0, len(data), 8 * MIB):
        block = lz4.block.compress(data[at : at + 8 * MIB], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return out


def lzop(data: bytes, version: int = 0x1030, flags: int = 0x3000303) -> bytes:
    """A file of lzop's, with the checksums that `flags` asks for."""
    out = b"\x89LZO\0\r\n\x1a\n" + struct.pack(">2H", version, 0x20A0)
    newer = version >= 0x940
    out += struct.pack(">H2B", 0x940, 1, 5) if newer else b"\1"
    out += struct.pack(">I", flags) + bytes(4 if flags & 0x800 else 0)
    out += bytes(12 if newer else 8) + b"\5Image" + bytes(4)
    if flags & 0x40:
        out += struct.pack(">I", 3) + b"abc" + bytes(4)
    for at in range(0, len(data), 256 << 10):
        block = data[at : at + (256 << 10)]
        packed = min(LZOCompressor().compress(block), block, key=len)
        out += struct.pack(">2I", len(block), len(packed))
        sums = {1: (zlib.adler32, block), 0x100: (zlib.crc32, block)}
        if len(packed) < len(block):
            sums |= {2: (zlib.adler32, packed), 0x200: (zlib.crc32, packed)}
        for bit, (check, of) in sums.items():
            if flags & bit:
                out += struct.pack(">I", check(of))
        out += packed
    return out + bytes(4)


def xz(data: bytes) -> bytes:
    """As the kernel's xz_wrap.sh: checked by CRC32."""
    return lzma.compress(data, check=lzma.CHECK_CRC32)


PACKERS: dict[str, Pack] = {
    # No time stamp: the names of hypothesis' and pytest's examples must not change.
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": xz,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
    "lz4 legacy": lz4_legacy,
    "lzop": lzop,
    "lzop with nothing": lambda data: lzop(data, 0x900, 0),
    "lzop with all": lambda data: lzop(data, flags=0xB43),
}
# By the names in Makefile.zboot; what is put behind the payload is not part of it.
ZBOOT = {
    "gzip": "gzip", "lz4": "lz4 legacy", "lzma": "lzma", "lzo": "lzop", "xzkern": "xz",
    "zstd22": "zstd", "zstd": "zstd",
}  # fmt: skip
each = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)


@cache
def image(size: int = 600_000) -> bytes:
    """An Image whose bytes pack neither to nothing nor not at all."""
    header = struct.pack("<2I3Q3Q4sI", 0x14000000, 0, 0, size, 0xA, 0, 0, 0, b"ARM\x64", 0)
    return header + bytes(random.Random(1).choices(b"etaoin shrdlu", k=size - len(header)))


def ok(kernel: bytes, mem: int = 64) -> Image:
    return load(kernel, mem_bytes=mem * MIB)


@each
def test_an_image_in_every_packer(pack: Pack) -> None:
    assert ok(pack(image())) == ok(image())


@pytest.mark.parametrize("name", ZBOOT)
def test_efi_zboot_with_every_packer(name: str) -> None:
    payload = PACKERS[ZBOOT[name]](image())
    head = b"MZ\0\0zimg" + struct.pack("<2I8x", 64, len(payload)) + name.encode().ljust(32, b"\0")
    assert ok(head.ljust(64, b"\0") + payload + b"SIZE" + bytes(60)) == ok(image())


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "lz4 legacy"])
@pytest.mark.parametrize("padding", [b"", bytes(512)], ids=len)
def test_streams_in_a_row(name: str, padding: bytes) -> None:
    """As `cat a.gz b.gz` makes them; parallel packers write many."""
    if name == "lz4 legacy" and padding:
        padding = b""  # ends with the file
    pack, data = PACKERS[name], image()
    cut = len(data) // 3
    parts = [pack(part) + padding for part in (data[:cut], b"", data[cut:-5], data[-5:])]
    assert ok(b"".join(parts)) == ok(data)


@each
@pytest.mark.parametrize("tail", [b"SIZE", bytes(3), b"\xd0\x0d\xfe\xed" * 2000], ids=len)
def test_what_follows_is_ignored(pack: Pack, tail: bytes) -> None:
    """The kernel's build appends sizes, Android's device trees."""
    assert ok(pack(image()) + tail) == ok(image())


def test_zstd_frames_to_be_skipped() -> None:
    skipped = b"\x53\x2a\x4d\x18" + struct.pack("<I", 9) + b"seektable"
    assert ok(skipped + zstd.compress(image()) + skipped) == ok(image())


@each
@pytest.mark.parametrize("keep", [20, 1000, -9])
def test_truncated(pack: Pack, keep: int) -> None:
    data = pack(image())[:keep]
    with pytest.raises(GuestError, match=r"the kernel is a truncated .* file|truncated Image"):
        ok(data)


@each
def test_damaged(pack: Pack) -> None:
    """One line whatever is turned over; where there are checksums, nothing slips through."""
    rng = random.Random(2)
    good = pack(image())
    for _ in range(12):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        message = ""
        try:
            ok(bytes(data))
        except GuestError as error:
            message = str(error)
        assert "\n" not in message


@each
def test_bombs_are_bounded_by_the_guests_memory(pack: Pack) -> None:
    """48 MiB of zeros for a machine of 8; windows and blocks have 8 MiB, at most three at once."""
    bomb = pack(image() + bytes(48 * MIB))
    assert len(bomb) < MIB
    tracemalloc.start()
    with pytest.raises(GuestError, match=r"unpacks to more than the machine's memory \(8 MiB\)"):
        ok(bomb, mem=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (8 + 3 * 8 + 2) * MIB


def test_a_bomb_of_members() -> None:
    """Thousands of streams, none of them large."""
    member = PACKERS["gzip"](bytes(MIB))
    with pytest.raises(GuestError, match="unpacks to more"):
        ok(member * 17, mem=16)
    assert ok(PACKERS["gzip"](b"") * 20000 + PACKERS["gzip"](image())) == ok(image())


def test_windows_are_bounded() -> None:
    """The kernel's own packing uses windows of 128 MiB; a file that asks for 1 GiB gets none."""
    def filtered(window: int) -> bytes:
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": window}]
        return lzma.compress(image(), check=lzma.CHECK_CRC32, filters=filters)

    assert ok(filtered(128 * MIB)) == ok(image())
    with pytest.raises(GuestError, match="damaged xz file: Memory usage limit exceeded"):
        ok(filtered(1 << 30))


@pytest.mark.parametrize(
    ("name", "library", "line"),
    [
        ("zstd", "backports.zstd", r"pip install backports\.zstd, or unpack it first \(unzstd\)"),
        ("lz4", "lz4.frame", r"pip install lz4, or unpack it first \(unlz4\)"),
        ("lz4 legacy", "lz4.block", r"pip install lz4, or unpack it first \(unlz4\)"),
        ("lzop", "lzallright", r"pip install lzallright, or unpack it first \(lzop -d\)"),
    ],
)
def test_a_library_that_is_not_there(
    name: str, library: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (library, "compression.zstd" if name == "zstd" else library):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(GuestError, match=line):
        ok(PACKERS[name](image()))

"""The loader: placement by booting.rst, and one clear line for every kind of bad input."""

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armkvm.vmm.board import FLAT_BASE, RAM_BASE
from armkvm.vmm.errors import GuestError
from armkvm.vmm.guest.loader import MIB, Image, is_flat, load, read


def packed(data: bytes) -> bytes:
    """gzip without a time stamp: test names are made of parameters and must not change."""
    return gzip.compress(data, mtime=0)


def image(
    size: int = 0x10000, *, text_offset: int = 0, memory: int | None = None, flags: int = 0xA
) -> bytes:
    header = struct.pack(
        "<2I3Q3Q4sI",
        0x14000000,
        0xD503201F,
        text_offset,
        size if memory is None else memory,
        flags,
        0,
        0,
        0,
        b"ARM\x64",
        0,
    )
    return header.ljust(size, b"\x5a")


def stub(size: int) -> bytes:
    """An Image that is an EFI application too: one PE section, which ends with the file."""
    data = bytearray(image(size, memory=size + 0x8000))
    data[:2] = b"MZ"
    struct.pack_into("<I", data, 60, 64)
    coff = struct.pack("<2H3I2H", 0xAA64, 1, 0, 0, 0, 40, 0)
    section = b".text\0\0\0" + struct.pack("<4I16x", size, 0, size - 0x200, 0x200)
    data[64 : 64 + 128] = b"PE\0\0" + coff + bytes(40) + section + bytes(24)
    return bytes(data)


def elf(entry: int = 0x1000, paddr: int = RAM_BASE + MIB, machine: int = 183) -> bytes:
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<2HI3QI6H", 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    code = b"\x1f\x20\x03\xd5" * 4
    segment = struct.pack("<2I6Q", 1, 5, 120, 0x1000, paddr, len(code), 0x100, 0x1000)
    return header + segment + code


def zboot(payload: bytes, packer: bytes = b"gzip") -> bytes:
    head = b"MZ\0\0zimg" + struct.pack("<2I8x", 64, len(payload)) + packer.ljust(32, b"\0")
    return head.ljust(64, b"\0") + payload


def ok(kernel: bytes, initrd: bytes | None = None, mem: int = 256, flat: bool = False) -> Image:
    return load(kernel, initrd, mem_bytes=mem * MIB, flat=flat)


def test_image() -> None:
    placed = ok(image(), b"initrd")
    kernel, initrd = placed.segments
    assert placed.kind == "Image"
    assert kernel.address == placed.entry == RAM_BASE + 2 * MIB
    assert kernel.data == image()
    assert placed.dtb_address % (2 * MIB) == 0
    assert placed.dtb_address >= kernel.end
    assert placed.initrd == (initrd.address, initrd.end)
    assert initrd.data == b"initrd"
    assert initrd.address == placed.dtb_address + 2 * MIB  # the tree may have 2 MiB


def test_image_with_an_efi_stub() -> None:
    assert ok(stub(0x1000)).segments[0].size == 0x9000


def test_image_that_wants_the_start_of_memory() -> None:
    assert ok(image(flags=0, text_offset=0x80000)).entry == RAM_BASE + 0x80000


def test_image_of_an_old_kernel_without_a_size() -> None:
    assert ok(image(memory=0, flags=0, text_offset=0)).entry == RAM_BASE + 0x80000


def test_bss_is_kept_free() -> None:
    placed = ok(image(memory=0x1_8000), b"x", mem=8)
    assert placed.segments[0].size == 0x1_8000
    assert placed.segments[0].end <= placed.dtb_address


def test_large_kernel_pushes_the_tree_up() -> None:
    placed = ok(image(8 * MIB), mem=14)
    assert placed.dtb_address == RAM_BASE + 10 * MIB


@pytest.mark.parametrize("pack", [packed, lambda data: zboot(packed(data))])
def test_packed_images(pack: object) -> None:
    assert callable(pack)
    assert ok(pack(image())) == ok(image())


def test_elf() -> None:
    placed = ok(elf())
    assert placed.kind == "ELF"
    assert placed.entry == RAM_BASE + MIB
    assert placed.segments[0].data == b"\x1f\x20\x03\xd5" * 4
    assert placed.segments[0].size == 0x100


def test_flat() -> None:
    placed = ok(b"\x1f\x20\x03\xd5", flat=True)
    assert (placed.kind, placed.entry) == ("flat", FLAT_BASE)
    assert placed.initrd is None
    assert is_flat("a/guest.bin")
    assert not is_flat("a/Image")


def test_empty_initrd_is_none() -> None:
    assert ok(image(), b"").initrd is None


@pytest.mark.parametrize(
    ("kernel", "line"),
    [
        (b"", "empty"),
        (b"hello, world\n" * 20, "not an arm64 Image"),
        (image()[:40], "not an arm64 Image"),
        (b"MZ" + image()[2:40], "truncated Image: 40 bytes"),
        (image(0x10000)[:0x3000], "truncated Image: 12288 bytes of at least 16384"),
        (stub(0x10000)[:0xF000], "truncated Image: 61440 bytes of at least 65536"),
        (stub(0x10000)[:0x90], "truncated Image: 144 bytes of at least 168"),
        (image(flags=1), "big-endian"),
        (image(memory=1 << 60), "damaged"),
        (image(text_offset=1 << 40), "damaged"),
        (bytes(0x202) + b"HdrS" + bytes(100), "x86 bzImage"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "packed with zstd: unpack it first"),
        (packed(image())[:100], "truncated gzip"),
        (packed(image())[:12] + b"\xff" * 200, "damaged gzip"),
        (packed(b"hello"), "not an arm64 Image or ELF file inside the gzip file"),
        (packed(packed(image())), "inside the gzip file"),
        (zboot(b"", b"zstd"), "EFI zboot file packed with zstd"),
        (zboot(packed(image()))[:160], "truncated EFI zboot"),
        (zboot(b"")[:30], "truncated EFI zboot"),
        (elf(machine=62), "not for little-endian AArch64"),
        (elf()[:130], "truncated ELF"),
        (elf()[:70], "damaged ELF"),
        (elf(entry=0x9000), "lies in none"),
        (elf(paddr=0xFFFF_8000_0800_0000), "vmlinux"),
        (elf(paddr=0x1000), "below the memory"),
        (elf(paddr=RAM_BASE + 300 * MIB), "memory is too small"),
    ],
)
def test_bad_kernels(kernel: bytes, line: str) -> None:
    with pytest.raises(GuestError, match=line) as error:
        ok(kernel)
    assert "\n" not in str(error.value)


def test_memory_too_small() -> None:
    with pytest.raises(GuestError, match=r"memory is too small: the kernel needs 36 MiB.* has 16"):
        ok(image(0x10000, memory=32 * MIB - 1).ljust(16 * MIB), mem=16)


def test_initrd_does_not_fit() -> None:
    with pytest.raises(GuestError, match="initrd does not fit: it has 30 MiB"):
        ok(image(), bytes(30 * MIB), mem=32)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"cannot read the kernel .*: No such file"):
        read(tmp_path / "none", "kernel")
    with pytest.raises(GuestError, match=r"cannot read the initrd .*: Is a directory"):
        read(tmp_path, "initrd")


@given(
    st.sampled_from([image(0x400), stub(0x400), elf(), packed(elf()), zboot(image(0x400))]),
    st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), max_size=8),
    st.integers(0, 1200),
)
def test_damaged_kernels_end_in_one_line(
    kernel: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(kernel[:length])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    try:
        placed = ok(bytes(data))
    except GuestError as error:
        message = str(error)
    else:
        message = ""
        # Whatever was accepted lies in memory.
        assert all(RAM_BASE <= s.address <= s.end <= placed.dtb_address for s in placed.segments)
    assert "\n" not in message

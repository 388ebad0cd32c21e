"""The loader: placement by booting.rst, and one clear line for every kind of bad input."""

import gzip
import os
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armkvm.kvm.system import System
from armkvm.vmm.board import FLAT_BASE, RAM_BASE
from armkvm.vmm.console import BufferConsole
from armkvm.vmm.errors import GuestError
from armkvm.vmm.guest.loader import Image, load, read
from armkvm.vmm.machine import Config, Machine

MIB = 1 << 20


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


CODE = b"\x1f\x20\x03\xd5" * 4


def elf(
    *places: int, entry: int = 0x1000, machine: int = 183, code: bytes = CODE, memory: int = 0x100
) -> bytes:
    """An ELF file with the same code in each place."""
    places = places or (RAM_BASE + MIB,)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    count = len(places)
    header = ident + struct.pack(
        "<2HI3QI6H", 2, machine, 1, entry, 64, 0, 0, 64, 56, count, 64, 0, 0
    )
    segments = (
        struct.pack("<2I6Q", 1, 5, 64 + 56 * count, 0x1000, place, len(code), memory, 0x1000)
        for place in places
    )
    return header + b"".join(segments) + code


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


@pytest.mark.parametrize("data", [b"hello, world\n" * 20, image()[:40], bytes(8)])
def test_what_has_no_known_format_is_a_flat_binary(data: bytes) -> None:
    placed = ok(data)
    assert (placed.kind, placed.entry, placed.segments[0].data) == ("flat", FLAT_BASE, data)
    assert ok(packed(data)) == placed


@pytest.mark.parametrize("data", [image(), elf(), packed(image()), b"MZ", b"07070100"])
def test_flat_insists(data: bytes) -> None:
    placed = ok(data, flat=True)
    assert (placed.kind, placed.segments[0].data) == ("flat", data)


def test_empty_initrd_is_none() -> None:
    assert ok(image(), b"").initrd is None


@pytest.mark.parametrize(
    ("kernel", "line"),
    [
        (b"", "empty"),
        (b"MZ" + image()[2:40], "truncated Image: 40 bytes"),
        (image(0x10000)[:0x3000], "truncated Image: 12288 bytes of at least 16384"),
        (stub(0x10000)[:0xF000], "truncated Image: 61440 bytes of at least 65536"),
        (stub(0x10000)[:0x90], "truncated Image: 144 bytes of at least 168"),
        (image(flags=1), "big-endian"),
        (image(memory=1 << 60), "damaged"),
        (image(text_offset=1 << 40), "damaged"),
        (bytes(0x202) + b"HdrS" + bytes(100), "x86 bzImage"),
        (b"\xd0\x0d\xfe\xed" + bytes(100), "this is a device tree"),
        (b"!<arch>\ndebian-binary   ", "Debian package.*--flat"),
        (b"07070100", "this is a cpio archive"),
        (b"MZ" + bytes(100), "this is an EFI program"),
        (packed(image())[:100], "truncated gzip"),
        (packed(image())[:12] + b"\xff" * 200, "damaged gzip"),
        (packed(b""), "the kernel is empty inside the gzip file"),
        (packed(packed(image())), "packed with gzip inside the gzip file: unpack it first"),
        (zboot(b"", b"zip"), "EFI zboot file packed with zip, but its payload is not"),
        (zboot(packed(image()))[:160], "truncated EFI zboot"),
        (zboot(b"")[:30], "truncated EFI zboot"),
        (elf(machine=62), "not for little-endian AArch64"),
        (elf()[:130], "truncated ELF"),
        (elf()[:70], "damaged ELF"),
        (elf()[:40], "truncated ELF"),
        (elf(entry=0x9000), "lies in none"),
        (elf(0xFFFF_8000_0800_0000), "vmlinux"),
        (elf(0x1000), "below the memory"),
        (elf(RAM_BASE + 300 * MIB), "memory is too small"),
        (elf(memory=1 << 63), "memory is too small"),
        (elf(RAM_BASE, RAM_BASE + 0xFF), "segments of the kernel overlap at 0x400000ff"),
        (elf(RAM_BASE + 0x80, RAM_BASE), "segments of the kernel overlap at 0x40000080"),
        (elf(memory=8), "damaged ELF"),
        (elf()[:54] + b"\x01" + elf()[55:], "damaged ELF"),
        (elf()[:56] + bytes(2) + elf()[58:], "nothing to load"),
        (elf()[:64] + b"\6" + elf()[65:], "nothing to load"),
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


def peak_of(call: Callable[[], Image]) -> tuple[Image | GuestError, int]:
    """What a call gives or raises, and how many bytes it had at most."""
    tracemalloc.start()
    try:
        got: Image | GuestError = call()
    except GuestError as error:
        got = error.with_traceback(None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return got, peak


# Prints the first byte of what is at the start of memory, and of what x0 points to.
LOOK = struct.pack(
    "<9I",
    0xD2A80001,  # mov x1, #0x40000000
    0xB9400022,  # ldr w2, [x1]
    0xB9400003,  # ldr w3, [x0]
    0xD2A12005,  # mov x5, #0x9000000    the UART
    0xB90000A2,  # str w2, [x5]
    0xB90000A3,  # str w3, [x5]
    0x52B08000,  # mov w0, #0x84000000
    0x72800100,  # movk w0, #8           PSCI SYSTEM_OFF
    0xD4000002,  # hvc #0
)
MAGIC = b"\xd0"  # a device tree begins with d00dfeed


@pytest.mark.parametrize(
    ("kernel", "at_start"),
    [
        (LOOK, MAGIC),
        (elf(code=LOOK), MAGIC),
        (elf(RAM_BASE + 0x10000, code=LOOK), MAGIC),
        # There is no room for it: x0 alone tells where it is.
        (elf(RAM_BASE, code=LOOK), LOOK[:1]),
        (elf(RAM_BASE + 0x100, code=LOOK), b"\0"),
    ],
    ids=["flat", "elf", "elf at 64 KiB", "elf at the start", "elf at 256 bytes"],
)
def test_bare_metal_finds_the_device_tree_at_the_start_of_memory(
    kernel: bytes, at_start: bytes
) -> None:
    """QEMU's docs/system/arm/virt.rst: guests that are not Linux have it at 0x40000000."""
    console = BufferConsole()
    image = load(kernel, mem_bytes=16 * MIB, flat=kernel is LOOK)
    with System("nvhe-gicv2", "virtual") as system:
        machine = Machine(Config(system, image, console, mem_bytes=16 * MIB, max_insns=1000))
        try:
            assert machine.run().reason == "shutdown"
        finally:
            machine.close()
    assert console.output == at_start + MAGIC


def test_an_elf_file_takes_no_more_memory_than_it_has() -> None:
    """Hundreds of program headers over the same bytes, in the same place or in a row."""
    ok(elf())  # imports
    above = elf(*[RAM_BASE + MIB] * 400, code=bytes(MIB), memory=MIB)
    got, peak = peak_of(lambda: ok(above))
    assert peak < MIB
    assert "segments of the kernel overlap" in str(got)
    apart = elf(*(RAM_BASE + n * MIB for n in range(1, 60)), code=bytes(MIB), memory=MIB)
    placed, peak = peak_of(lambda: ok(apart))
    assert peak < MIB
    assert isinstance(placed, Image)
    assert [segment.data == bytes(MIB) for segment in placed.segments] == [True] * 59


def test_a_file_as_large_as_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(5000))
    assert read(path, "kernel", 5000) == bytes(5000)
    with pytest.raises(GuestError, match=r"the kernel .*/file has more than 0.00\d+ MiB"):
        read(path, "kernel", 4999)


@pytest.mark.parametrize("endless", ["/dev/zero", "fifo"])
def test_endless_files_are_read_to_the_limit(endless: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    keep = os.open(tmp_path / "fifo", os.O_RDWR)
    with subprocess.Popen(["cat", "/dev/zero"], stdout=keep) as writer:
        try:
            with pytest.raises(GuestError, match=r"the initrd .* has more than 4 MiB"):
                read(tmp_path / endless, "initrd", 4 * MIB)
        finally:
            writer.kill()
            os.close(keep)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"kernel")
    os.close(writer)
    assert read(f"/dev/fd/{reader}", "kernel") == b"kernel"
    os.close(reader)


def test_a_fifo_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(GuestError, match=r"cannot read the kernel .*/fifo: nobody writes to it"):
        read(tmp_path / "fifo", "kernel")


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

"""Where a kernel, its initrd and its device tree go in guest memory.

Mirrors Documentation/arch/arm64/booting.rst: the Image header (section 4), the rules for the
placement of the device tree (section 2) and of the initrd (section 4). Understood are what Debian
ships (a plain Image) and Image in gzip or in an EFI zboot wrapper with gzip, ELF, and flat
binaries. The result is a description; whoever owns the guest's memory writes it there.
Left out: other compressions, big-endian kernels, relocation.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from armkvm.vmm.board import FLAT_BASE, RAM_BASE
from armkvm.vmm.errors import GuestError

MIB = 1 << 20
DTB_SIZE_MAX = 2 * MIB  # booting.rst section 2
# As QEMU does: leave this much below the device tree for a kernel that does not tell its size.
DTB_OFFSET = 128 * MIB
UNPACKED_MAX = 1 << 30  # what a compressed kernel may grow to

IMAGE_HEADER = struct.Struct("<2I3Q3Q4sI")
IMAGE_MAGIC = b"ARM\x64"
FLAG_BIG_ENDIAN = 1 << 0
FLAG_ANY_PLACE = 1 << 3  # the 2 MiB-aligned base may be anywhere in memory

# Packers that are told by name instead of "not an Image".
FOREIGN = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x5d\0\0", "lzma"),
    (b"BZh", "bzip2"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x89LZO", "lzo"),
)


@dataclass(frozen=True)
class Segment:
    """Bytes to write at a guest physical address, and the zeroes that follow them."""

    address: int
    data: bytes
    size: int  # in memory, at least len(data)

    @property
    def end(self) -> int:
        return self.address + self.size


@dataclass(frozen=True)
class Image:
    """What to write, where to start, and where the device tree goes (its address is in x0)."""

    kind: str  # "Image", "ELF" or "flat"
    segments: tuple[Segment, ...]
    entry: int
    dtb_address: int
    initrd: tuple[int, int] | None  # first address, first address behind


@dataclass(frozen=True)
class _Kernel:
    kind: str
    segments: tuple[Segment, ...]
    entry: int

    @property
    def end(self) -> int:
        return max(segment.end for segment in self.segments)


def read(path: str | Path, what: str) -> bytes:
    """A whole file; ``what`` names it in the error line ("kernel", "initrd")."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise GuestError(f"cannot read the {what} {path}: {reason}") from None


def is_flat(path: str | Path) -> bool:
    """A flat binary has no header, so that its name has to tell: it ends in .bin."""
    return str(path).endswith(".bin")


def load(
    kernel: bytes, initrd: bytes | None = None, *, mem_bytes: int, flat: bool = False
) -> Image:
    """Place everything in ``mem_bytes`` of memory from RAM_BASE. Raises GuestError."""
    found = _flat(kernel) if flat else _kernel(kernel)
    ram_end = RAM_BASE + mem_bytes
    for segment in found.segments:
        if segment.address < RAM_BASE:
            raise GuestError(
                f"the kernel wants to be loaded at {segment.address:#x}, below the memory "
                f"at {RAM_BASE:#x}"
            )
    dtb = _up(max(found.end, RAM_BASE + min(DTB_OFFSET, mem_bytes // 2)), DTB_SIZE_MAX)
    end = dtb + DTB_SIZE_MAX
    if end > ram_end:
        raise GuestError(
            f"the memory is too small: the kernel needs {_mib(end - RAM_BASE)}, "
            f"the machine has {_mib(mem_bytes)}"
        )
    segments = found.segments
    place = None
    if initrd:
        place = (end, end + len(initrd))
        if place[1] > ram_end:
            raise GuestError(
                f"the initrd does not fit: it has {_mib(len(initrd))}, "
                f"{_mib(ram_end - end)} of memory are left"
            )
        segments += (Segment(end, initrd, len(initrd)),)
    return Image(found.kind, segments, found.entry, dtb, place)


def _kernel(data: bytes, packed: str = "") -> _Kernel:
    if len(data) >= 64 and data[56:60] == IMAGE_MAGIC:
        return _image(data)
    if data[:4] == b"\x7fELF":
        return _elf(data)
    if not packed and data[:2] == b"\x1f\x8b":
        return _kernel(_gunzip(data), "gzip")
    if not packed and data[:2] == b"MZ" and data[4:8] == b"zimg":
        return _kernel(_zboot(data), "EFI zboot")
    inside = f" inside the {packed} file" if packed else ""
    if not data:
        raise GuestError(f"the kernel is empty{inside}")
    for magic, name in FOREIGN:
        if data.startswith(magic):
            raise GuestError(f"the kernel is packed with {name}{inside}: unpack it first")
    if len(data) > 0x206 and data[0x202:0x206] == b"HdrS":
        raise GuestError("the kernel is an x86 bzImage, not an arm64 Image")
    if data[:2] == b"MZ" and len(data) < 64:
        raise GuestError(f"the kernel is a truncated Image: {len(data)} bytes{inside}")
    raise GuestError(
        f"the kernel is not an arm64 Image or ELF file{inside} "
        "(a flat binary needs a name that ends in .bin)"
    )


def _image(data: bytes) -> _Kernel:
    _, _, text_offset, image_size, flags, _, _, _, _, _ = IMAGE_HEADER.unpack_from(data)
    if flags & FLAG_BIG_ENDIAN:
        raise GuestError("the kernel is big-endian, which this machine is not")
    if image_size == 0:
        # Before Linux 3.17: text_offset is 0x80000 in whatever byte order, the size unknown.
        text_offset, image_size = 0x80000, len(data)
    if text_offset >= 1 << 30 or image_size >= 1 << 40:
        raise GuestError("the kernel's Image header is damaged")
    promised = _file_size(data) or image_size // 4
    if len(data) < promised:
        raise GuestError(
            f"the kernel is a truncated Image: {len(data)} bytes of at least {promised}"
        )
    # Kernels that cannot use memory below themselves ask for the start of memory.
    base = RAM_BASE + (2 * MIB if flags & FLAG_ANY_PLACE else 0)
    start = base + text_offset
    return _Kernel("Image", (Segment(start, data, max(image_size, len(data))),), start)


def _file_size(data: bytes) -> int:
    """How long an Image with an EFI stub must be, from its PE sections; 0 if it has no stub.

    The Image header alone does not tell: image_size includes .bss, which the file leaves out.
    """
    pe: int = IMAGE_HEADER.unpack_from(data)[-1]
    if data[:2] != b"MZ" or data[pe : pe + 4] != b"PE\0\0" or len(data) < pe + 24:
        return 0
    count: int
    count, optional_size = struct.unpack_from("<H12xH", data, pe + 6)
    table: int = pe + 24 + optional_size
    if len(data) < table + 40 * count:
        return table + 40 * count
    raw = (struct.unpack_from("<2I", data, table + 40 * i + 16) for i in range(count))
    return max((offset + size for size, offset in raw if size), default=0)


def _flat(data: bytes) -> _Kernel:
    if not data:
        raise GuestError("the kernel is empty")
    return _Kernel("flat", (Segment(FLAT_BASE, data, len(data)),), FLAT_BASE)


def _elf(data: bytes) -> _Kernel:
    # Imported here: most kernels are no ELF files, and every start of `armkvm run` would pay.
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(data))
        if elf["e_machine"] != "EM_AARCH64" or elf.elfclass != 64 or not elf.little_endian:
            raise GuestError("the kernel is an ELF file, but not for little-endian AArch64")
        loads = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_memsz"]]
        segments = tuple(Segment(s["p_paddr"], s.data(), s["p_memsz"]) for s in loads)
        entry = int(elf["e_entry"])
        whole = all(len(s.data()) == s["p_filesz"] <= s["p_memsz"] for s in loads)
    except (ELFError, struct.error, KeyError, UnicodeDecodeError, OSError, OverflowError) as error:
        raise GuestError(f"the kernel is a damaged ELF file: {error}") from None
    if not segments or not whole:
        raise GuestError("the kernel is a truncated ELF file")
    if any(segment.address >= 1 << 48 for segment in segments):
        raise GuestError(
            "the kernel is an ELF file with virtual addresses (a vmlinux): take the Image "
            "that was built from it"
        )
    # e_entry is a virtual address; the machine starts with the MMU off.
    for load in loads:
        if load["p_vaddr"] <= entry < load["p_vaddr"] + load["p_memsz"]:
            return _Kernel("ELF", segments, entry - load["p_vaddr"] + load["p_paddr"])
    raise GuestError(f"the kernel's ELF entry point {entry:#x} lies in none of its segments")


def _gunzip(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        out = unpacker.decompress(data, UNPACKED_MAX)
    except zlib.error as error:
        reason = str(error).split(": ")[-1]
        raise GuestError(f"the kernel is a damaged gzip file: {reason}") from None
    if unpacker.unconsumed_tail:
        raise GuestError("the kernel unpacks to more than 1 GiB")
    if not unpacker.eof:
        raise GuestError("the kernel is a truncated gzip file")
    return out


def _zboot(data: bytes) -> bytes:
    # drivers/firmware/efi/libstub/zboot-header.S: where the payload is, and how it is packed.
    if len(data) < 56:
        raise GuestError(f"the kernel is a truncated EFI zboot file: {len(data)} bytes")
    offset, size = struct.unpack_from("<2I", data, 8)
    packer = data[24:56].split(b"\0")[0].decode("ascii", "replace")
    if packer != "gzip":
        raise GuestError(f"the kernel is an EFI zboot file packed with {packer}: unpack it first")
    if offset + size > len(data):
        raise GuestError("the kernel is a truncated EFI zboot file")
    return _gunzip(data[offset : offset + size])


def _up(value: int, alignment: int) -> int:
    return (value + alignment - 1) & -alignment


def _mib(size: int) -> str:
    return f"{max(size, 0) / MIB:.4g} MiB"

"""What kind of file a kernel is, and what of it goes where in guest memory.

An arm64 Image (Documentation/arch/arm64/booting.rst, section 4) packed or not, also in the EFI
zboot wrapper; an ELF file (elf.py); and whatever has no known format is a flat binary. Files that
are plainly something else are told by name, instead of running their bytes as instructions.
Left out: big-endian kernels, relocation, packing within packing.
"""

import re
import struct
from dataclasses import dataclass

from armkvm.vmm.board import FLAT_BASE, RAM_BASE
from armkvm.vmm.errors import GuestError
from armkvm.vmm.guest.unpack import MIB, Data, packer, unpack

IMAGE_HEADER = struct.Struct("<2I3Q3Q4sI")
IMAGE_MAGIC = b"ARM\x64"
FLAG_BIG_ENDIAN = 1 << 0
FLAG_ANY_PLACE = 1 << 3  # the 2 MiB-aligned base may be anywhere in memory

# Files that people give by mistake, and that cannot run.
FOREIGN = (
    (rb".{514}HdrS", "an x86 bzImage"),
    (rb"\xd0\x0d\xfe\xed", "a device tree or a FIT image"),
    (rb"\x27\x05\x19\x56", "a uImage of U-Boot"),
    (rb"ANDROID!", "an Android boot image"),
    (rb"!<arch>\n", "an archive of ar, or a Debian package"),
    (rb"07070[127]", "a cpio archive (an initrd?)"),
    (rb"QFI\xfb", "a disk image"),
    (rb"armkvm snapshot ", "a saved machine (--restore goes on with it)"),
    (rb"MZ.{58}", "an EFI program"),
)


@dataclass(frozen=True)
class Segment:
    """Bytes to write at a guest physical address, and the zeroes that follow them."""

    address: int
    data: Data
    size: int  # in memory, at least len(data)

    @property
    def end(self) -> int:
        return self.address + self.size


@dataclass(frozen=True)
class Kernel:
    """A kernel's segments, in the file's order, and where it starts."""

    kind: str  # "Image", "ELF" or "flat"
    segments: tuple[Segment, ...]
    entry: int

    @property
    def end(self) -> int:
        return max(segment.end for segment in self.segments)


def recognise(data: Data, limit: int, *, flat: bool = False) -> Kernel:
    """The kernel in `data`, unpacked to `limit` bytes at most; `flat` insists on a flat binary."""
    packed = ""
    if not flat:
        if data[:2] == b"MZ" and data[4:8] == b"zimg":
            packed = "EFI zboot"
            data = _zboot(data, limit)
        elif found := packer(data):
            packed = found.name
            data = unpack(data, found, limit)
    inside = f" inside the {packed} file" if packed else ""
    if not data:
        raise GuestError(f"the kernel is empty{inside}")
    if flat:
        return _flat(data)
    if len(data) >= 64 and data[56:60] == IMAGE_MAGIC:
        return _image(data)
    if data[:4] == b"\x7fELF":
        # Imported here: most kernels are no ELF files, and every start would pay for the library.
        from armkvm.vmm.guest.elf import parts

        segments, entry = parts(data)
        return Kernel("ELF", tuple(Segment(*segment) for segment in segments), entry)
    if again := packer(data):
        raise GuestError(f"the kernel is packed with {again.name}{inside}: unpack it first")
    if data[:2] == b"MZ" and len(data) < 64:
        raise GuestError(f"the kernel is a truncated Image: {len(data)} bytes{inside}")
    for magic, name in FOREIGN:
        if re.match(magic, data, re.DOTALL):
            raise GuestError(
                f"this is {name}, not an arm64 kernel{inside} (--flat loads it all the same)"
            )
    return _flat(data)


def _image(data: Data) -> Kernel:
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
    return Kernel("Image", (Segment(start, data, max(image_size, len(data))),), start)


def _file_size(data: Data) -> int:
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


def _flat(data: Data) -> Kernel:
    return Kernel("flat", (Segment(FLAT_BASE, data, len(data)),), FLAT_BASE)


def _zboot(data: Data, limit: int) -> bytearray:
    # drivers/firmware/efi/libstub/zboot-header.S: where the payload is, and how it is packed.
    if len(data) < 56:
        raise GuestError(f"the kernel is a truncated EFI zboot file: {len(data)} bytes")
    offset, size = struct.unpack_from("<2I", data, 8)
    if offset + size > len(data):
        raise GuestError("the kernel is a truncated EFI zboot file")
    payload = memoryview(data)[offset : offset + size]
    found = packer(payload)
    if found is None:
        name = bytes(data[24:56]).split(b"\0")[0].decode("ascii", "replace")
        raise GuestError(
            f"the kernel is an EFI zboot file packed with {name}, but its payload is not"
        )
    return unpack(payload, found, limit)

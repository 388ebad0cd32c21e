"""A writer of flattened device trees.

Mirrors the Devicetree Specification v0.4: section 2.2 (names), chapter 5 (the flattened format,
version 17). Devices describe themselves inside ``with fdt.node(...)`` blocks and refer to each
other through labels, which become phandles. Left out: reading trees, memory reservations (the
boot images are reserved by the kernel itself), overlays.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MAGIC = 0xD00DFEED
VERSION = 17
LAST_COMPATIBLE_VERSION = 16

FDT_BEGIN_NODE = 1
FDT_END_NODE = 2
FDT_PROP = 3
FDT_END = 9

# Section 2.2.1: a node name is name@unit-address, each part at most 31 characters.
NODE_NAME = re.compile(r"[a-zA-Z][0-9a-zA-Z,._+-]{0,30}(@[0-9a-zA-Z,._+-]{1,31})?")
# Section 2.2.4.1.
PROPERTY_NAME = re.compile(r"[0-9a-zA-Z,._+?#-]{1,31}")

Value = str | int | bytes


@dataclass
class _Node:
    name: str
    properties: dict[str, bytes] = field(default_factory=dict)
    children: dict[str, "_Node"] = field(default_factory=dict)


class Fdt:
    """A tree that is being written; it begins inside the root node."""

    def __init__(self) -> None:
        self._root = _Node("")
        self._open = [self._root]
        self._phandles: dict[str, int] = {}
        self._defined: set[int] = set()

    @contextmanager
    def node(self, name: str) -> Iterator[None]:
        """Open a child of the current node for the length of a ``with`` block."""
        if not NODE_NAME.fullmatch(name):
            raise ValueError(f"bad device tree node name {name!r}")
        parent = self._open[-1]
        if name in parent.children:
            raise ValueError(f"device tree node {self._path(name)} written twice")
        child = parent.children[name] = _Node(name)
        self._open.append(child)
        try:
            yield
        finally:
            self._open.pop()

    def prop(self, name: str, *values: Value) -> None:
        """Give the current node a property: strings, u32 cells, bytes, or nothing (a flag)."""
        if not PROPERTY_NAME.fullmatch(name):
            raise ValueError(f"bad device tree property name {name!r}")
        properties = self._open[-1].properties
        if name in properties:
            raise ValueError(f"device tree property {self._path(name)} written twice")
        properties[name] = b"".join(self._encode(name, value) for value in values)
        if name == "phandle":
            self._define(values)

    def reg(self, *address_size: int) -> None:
        """``reg`` from (address, size) pairs, two cells each, as the root node declares them."""
        if len(address_size) % 2:
            raise ValueError(f"{self._path('reg')} needs pairs of address and size")
        self.prop("reg", *(cell for value in address_size for cell in u64(value)))

    def phandle(self, label: str) -> int:
        """The phandle of a label. The labelled node defines it by ``prop("phandle", ...)``.

        Others may refer to it before that node is written.
        """
        return self._phandles.setdefault(label, len(self._phandles) + 1)

    def blob(self) -> bytes:
        """The finished tree. Every node must be closed and every label used be defined."""
        if len(self._open) > 1:
            raise ValueError(f"device tree node {self._path()} is still open")
        missing = [label for label, number in self._phandles.items() if number not in self._defined]
        if missing:
            raise ValueError(f"device tree labels used but not defined: {', '.join(missing)}")
        strings = _Strings()
        structure = _structure(self._root, strings) + struct.pack(">I", FDT_END)
        reservations = bytes(16)  # only the terminating entry
        header_size = 40
        off_structure = header_size + len(reservations)
        off_strings = off_structure + len(structure)
        total = (off_strings + len(strings.block) + 7) & ~7
        header = struct.pack(
            ">10I",
            MAGIC,
            total,
            off_structure,
            off_strings,
            header_size,
            VERSION,
            LAST_COMPATIBLE_VERSION,
            0,  # boot_cpuid_phys
            len(strings.block),
            len(structure),
        )
        return (header + reservations + structure + bytes(strings.block)).ljust(total, b"\0")

    def _define(self, values: tuple[Value, ...]) -> None:
        if len(values) != 1 or not isinstance(values[0], int):
            raise ValueError(f"{self._path('phandle')} must be one cell")
        if values[0] in self._defined:
            raise ValueError(f"{self._path('phandle')} is another node's")
        self._defined.add(values[0])

    def _path(self, leaf: str | None = None) -> str:
        names = [node.name for node in self._open[1:]]
        return "/" + "/".join(names if leaf is None else [*names, leaf])

    def _encode(self, name: str, value: Value) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            if "\0" in value:
                raise ValueError(f"{self._path(name)}: a string must not contain a NUL")
            # What came from the command line and is no UTF-8 goes on as the bytes that it was.
            return value.encode(errors="surrogateescape") + b"\0"
        if not 0 <= value <= 0xFFFFFFFF:
            raise ValueError(f"{self._path(name)}: {value:#x} does not fit a 32-bit cell")
        return struct.pack(">I", value)


def u64(value: int) -> tuple[int, int]:
    """A 64-bit number as two cells, the more significant first."""
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value:#x} does not fit two 32-bit cells")
    return value >> 32, value & 0xFFFFFFFF


class _Strings:
    """The strings block: every property name once."""

    def __init__(self) -> None:
        self.block = bytearray()
        self._offsets: dict[str, int] = {}

    def offset(self, name: str) -> int:
        if name not in self._offsets:
            self._offsets[name] = len(self.block)
            self.block += name.encode() + b"\0"
        return self._offsets[name]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _structure(node: _Node, strings: _Strings) -> bytes:
    # Section 5.4.2: a node's properties precede its children.
    out = bytearray(struct.pack(">I", FDT_BEGIN_NODE) + _padded(node.name.encode() + b"\0"))
    for name, value in node.properties.items():
        out += struct.pack(">3I", FDT_PROP, len(value), strings.offset(name)) + _padded(value)
    for child in node.children.values():
        out += _structure(child, strings)
    return bytes(out + struct.pack(">I", FDT_END_NODE))

"""The house: imports run downward only, in every floor and between the rooms of a floor."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import armkvm

SRC = Path(armkvm.__file__).parent

# From the ground up. A floor may import those before it.
FLOORS = (
    "process", "abi", "arch", "isa", "engine", "host", "kvm", "client", "server", "trace", "vmm",
    "check", "conformance", "bench", "cli",
)  # fmt: skip
# The rooms of a floor from the bottom up; "" is what lies beside them, if it has a place in this.
ROOMS = {
    "isa": ("", "base", "fp", "ldst", "simd"),
    "engine": ("llvm", "native", "interp", "hosts", ""),
    "kvm": ("vgic", "pmu", "io", ""),
    "vmm": ("devices", "irqchip", "guest", ""),
}
# Leaves at the root that the rooms share: layouts, errors, what every ioctl's file is made of.
SHARED = {
    "engine": {"layout", "exits", "errors"},
    "kvm": {"file", "ioctl", "kvm_host", "trace"},
    "vmm": {"board", "errors", "fdt"},
}

# A file of ours, as texts name it; others' are in C, and their paths begin elsewhere.
NAMED = r"(?<![\w/.-])((?:\w+/)*[\w-]+\.(?:py|md|pml))\b"


def imports(path: Path) -> Iterator[str]:
    """The modules of armkvm that a file imports when it runs."""
    tree = ast.parse(path.read_text())
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("armkvm"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if exists(whole) else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("armkvm."))


def exists(module: str) -> bool:
    """A module or package of that name is there."""
    place = SRC.joinpath(*module.split(".")[1:])
    return place.with_suffix(".py").exists() or place.is_dir()


@cache
def edges() -> list[tuple[list[str], list[str]]]:
    """(importer, imported), as paths of names below armkvm."""
    return [
        (list(path.relative_to(SRC).with_suffix("").parts), module.split(".")[1:])
        for path in sorted(SRC.rglob("*.py"))
        for module in imports(path)
    ]


def test_every_folder_is_a_floor() -> None:
    folders = {p.name for p in SRC.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == {*FLOORS}


def test_the_package_names_its_floors() -> None:
    """In its docstring, from the roof down."""
    named = re.findall(r"``(\w+)``", armkvm.__doc__ or "")
    assert named == [*reversed(FLOORS)]


def test_a_file_that_is_named_exists() -> None:
    """In comments, docstrings and documents: by the end of its path."""
    top = Path(__file__).parents[1]
    kept = (p for d in ("src", "tests", "tools", "docs") for p in top.glob(f"{d}/**/*.*"))
    files = [f"/{p.relative_to(top)}" for p in (*kept, *top.glob("*.md"))]
    texts = [*SRC.rglob("*.py"), *top.glob("docs/*.md"), top / "README.md", top / "ARCHITECTURE.md"]
    gone = {
        (text.name, name)
        for text in texts
        for name in re.findall(NAMED, text.read_text())
        if not any(file.endswith(f"/{name}") for file in files)
    }
    assert gone == set()


def test_floors() -> None:
    """A floor imports floors below it and nothing else."""
    up = [
        (".".join(a), ".".join(b))
        for a, b in edges()
        if len(a) > 1 and b and a[0] != b[0] and FLOORS.index(a[0]) < FLOORS.index(b[0])
    ]
    assert up == []


@pytest.mark.parametrize("floor", ROOMS)
def test_rooms(floor: str) -> None:
    """In a floor with rooms, each imports rooms below it and what they share."""
    rooms = ROOMS[floor]

    def room(path: list[str]) -> str | None:
        inner = path[1:]
        if not inner or inner[0] in SHARED.get(floor, ()):
            return None
        return inner[0] if inner[0] in rooms else ""

    up = []
    for a, b in edges():
        if b and a[0] == b[0] == floor and a[-1] != "__init__":
            x, y = room(a), room(b)
            if x is not None and y is not None and rooms.index(x) < rooms.index(y):
                up.append((".".join(a), ".".join(b)))
    assert up == []

"""The architecture's numbers are in arch/, and nowhere else again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import armkvm
from armkvm.arch import esr, gic, hcr, its, timer, word

SRC = Path(armkvm.__file__).parent
NUMBERS = {
    name: value
    for module in (esr, gic, hcr, its, timer, word)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, int)
}


def literals(path: Path) -> Iterator[tuple[str, int]]:
    """The module's names for numbers that are spelled out there."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            [target], value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for name, number in pairs:
            plain = not any(isinstance(n, ast.Name | ast.Call) for n in ast.walk(number))
            if isinstance(name, ast.Name) and plain:
                x = eval(ast.unparse(number))
                if isinstance(x, int):
                    yield name.id.strip("_"), x


def same(name: str, value: int, known: str) -> bool:
    """A second name for a number: LR_PENDING beside ICH_LR_PENDING (whatever its value: 62 would be
    its position), EC_DABT beside EC_DABT_LOW, IMASK beside CTL_IMASK."""
    tail = known.endswith(f"_{name}") or name == known
    if "_" in name and tail:
        return True
    long = len(name) > 4  # not EN, CTLR: many registers have these
    head = "_" in name and known.startswith(f"{name}_")
    return value == NUMBERS[known] and (name == known or (long and tail) or head)


def test_each_number_has_one_name() -> None:
    again = [
        f"{path.relative_to(SRC)}: {name} ({known})"
        for path in sorted(SRC.rglob("*.py"))
        if path.parent.name != "arch"
        for name, value in literals(path)
        for known in NUMBERS
        if same(name, value, known)
    ]
    assert not again, again


def test_masks_and_positions() -> None:
    """What ends in _SHIFT is a position below 64; other bits of registers are masks."""
    for name, value in NUMBERS.items():
        if name.endswith("_SHIFT"):
            assert value < 64, name
    assert gic.ICH_LR_PENDING | gic.ICH_LR_ACTIVE == gic.ICH_LR_STATE == 3 << 62
    ctlr = [v for name, v in NUMBERS.items() if name.startswith("GICC_CTLR_")]
    assert gic.ICH_VMCR_GICC_CTLR == sum(ctlr) & ~gic.GICC_CTLR_BYPASS_DISABLE == 0x21F

"""The table of instructions: encodings drawn as in the Arm manual, each beside its meaning.

    @insn("sf 0 0 100010 sh imm12:12 Rn:5 Rd:5", asm="add {Rd:rsp}, ...", ref="C6.2.5")
    def ADD_imm(m, sf, sh, imm12, Rn, Rd): ...

A drawing is a row of tokens from bit 31 down: literal bits (`x` is ignored by the CPU), and named
fields with a width (`name` alone is one bit wide). Fields are of two kinds:

- `R...` and `imm...` are *operands*: the description gets a `Field`, a decode-time expression, and
the
  generated code reads its value from the instruction's op record;
- every other field *specialises*: each of its values makes a form of its own, and the description
gets
  a Python int. `=name:width` makes any field one of these.

`where(**fields)` says which words are allocated: a Python bool over specialising fields drops whole
forms; a `Field` becomes a guard in the decoder. Words that no form takes are UNDEFINED.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from armkvm.isa.field import Field, evaluate, word_bits

_TOKEN = re.compile(r"(?P<bits>[01x]+)|(?P<fixed>=?)(?P<name>[A-Za-z]\w*)(:(?P<width>\d+))?")

Semantics = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Feature:
    """A set of instructions that a CPU has as a whole or not at all.

    `consists`: the descriptions by name, or encoding classes ("simd.copy") that stand for all of
    theirs. Only when all are in the table the ID register says so: `field` is (register, lowest
    bit, value), and there it reads `absent` otherwise. `traps`: see Insn.traps.
    """

    name: str
    consists: tuple[str, ...] = ()
    field: tuple[str, int, int] | None = None
    absent: int = 0
    traps: str = ""

    def complete(self, table: Collection[Insn]) -> bool:
        """All of it is in the table."""
        mine = [i for i in table if i.feature == self.name]
        return {*self.consists} <= {i.name for i in mine} | {i.encoding_class for i in mine}


FEATURES: dict[str, Feature] = {}


def feature(
    name: str,
    *,
    consists: tuple[str, ...] = (),
    field: tuple[str, int, int] | None = None,
    absent: int = 0,
    traps: str = "",
) -> str:
    """Declare a feature beside its instructions (see Feature); gives its name."""
    if name in FEATURES:
        raise ValueError(f"feature {name!r} is declared twice")
    FEATURES[name] = Feature(name, consists, field, absent, traps)
    return name


BASE = feature("base")


@dataclass(frozen=True, slots=True)
class Form:
    """One instruction with its specialising fields fixed: what the engine makes a handler for."""

    insn: Insn
    name: str
    mask: int
    value: int
    fields: dict[str, int | Field]
    guard: Field | None

    def matches(self, word: int) -> bool:
        """True when the word is this form and allocated."""
        return word & self.mask == self.value and (self.guard is None or self.guard.eval(word) != 0)

    def operands(self, word: int) -> dict[str, int]:
        """Every named field's value in the word."""
        return {k: evaluate(v, word) for k, v in self.fields.items()}

    def trace(self, m: Any) -> None:
        """Run the description against a trace."""
        self.insn.semantics(m, **self.fields)


@dataclass(frozen=True, slots=True, eq=False)
class Insn:
    """One description: a drawing, its meaning and its assembly."""

    name: str
    drawing: str
    semantics: Semantics
    asm: str | Callable[..., str]
    ref: str
    feature: str
    where: Callable[..., bool | int | Field] | None
    layout: list[tuple[str, int, int, bool]] = field(
        default_factory=list
    )  # name, lo, width, operand

    @property
    def traps(self) -> str:
        """What must be open for it: "fp" asks CPACR_EL1.FPEN (the CPU state's `fp_trap`), and where
        that is shut ends in the routine `fp_trapped`."""
        return FEATURES[self.feature].traps

    @property
    def encoding_class(self) -> str:
        """The file that describes it, from isa on: "ldst.pair"."""
        return self.semantics.__module__.partition(".isa.")[2]

    def forms(self) -> Iterator[Form]:
        """All forms, in the order of their specialising fields."""
        mask, value = self._literal_bits()
        special = [(n, lo, w) for n, lo, w, operand in self.layout if not operand]
        operands = {n: word_bits(lo, w) for n, lo, w, operand in self.layout if operand}
        for combo in itertools.product(*(range(1 << w) for _, _, w in special)):
            known = dict(zip((n for n, _, _ in special), combo, strict=True))
            fields: dict[str, int | Field] = {**known, **operands}
            fields = {n: fields[n] for n, *_ in self.layout}
            allowed = True if self.where is None else self.where(**fields)
            if isinstance(allowed, (bool, int)) and not allowed:
                continue
            m, v = mask, value
            for (_, lo, w), x in zip(special, combo, strict=True):
                m |= ((1 << w) - 1) << lo
                v |= x << lo
            name = "_".join([self.name, *(f"{n}{x}" for n, x in known.items())])
            yield Form(self, name, m, v, fields, allowed if isinstance(allowed, Field) else None)

    def _literal_bits(self) -> tuple[int, int]:
        mask = value = 0
        pos = 32
        for token in _TOKEN.finditer(self.drawing):
            if not token["bits"]:
                pos -= int(token["width"] or 1)
                continue
            for c in token["bits"]:
                pos -= 1
                if c != "x":
                    mask |= 1 << pos
                    value |= int(c) << pos
        return mask, value


def _layout(drawing: str) -> list[tuple[str, int, int, bool]]:
    if _TOKEN.sub("", drawing).strip():
        raise ValueError(f"not a drawing: {drawing!r}")
    pos, out = 32, []
    for token in _TOKEN.finditer(drawing):
        if token["bits"]:
            pos -= len(token["bits"])
            continue
        name, width = token["name"], int(token["width"] or 1)
        pos -= width
        operand = not token["fixed"] and (name.startswith("imm") or name[0] == "R")
        out.append((name, pos, width, operand))
    if pos != 0:
        raise ValueError(f"{32 - pos} bits in drawing {drawing!r}")
    return out


TABLE: list[Insn] = []


def insn(
    drawing: str,
    *,
    asm: str | Callable[..., str],
    ref: str = "",
    feature: str = BASE,
    where: Callable[..., bool | int | Field] | None = None,
    name: str | None = None,
) -> Callable[[Semantics], Semantics]:
    """Enter the decorated description in the table (see the module's docstring)."""

    def enter(semantics: Semantics) -> Semantics:
        own = name or semantics.__name__
        TABLE.append(Insn(own, drawing, semantics, asm, ref, feature, where, _layout(drawing)))
        return semantics

    return enter

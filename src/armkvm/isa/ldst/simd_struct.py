"""Advanced SIMD structure loads and stores (C4.1: multiple structures).

LD1 to LD4 and ST1 to ST4 of whole registers, without and with post-index. An access is one span.
Interleaving is a shuffle of the memory image. LD1 and ST1 need none (little-endian), so their
element size is an operand, for the text only: they ask for no alignment even where SCTLR_EL1.A or
Device memory want aligned elements. Post-index by register 31 means by the size of the access: the
step is the sum of X[Rm], zero then, and a decode-time constant, zero otherwise.
"""

from __future__ import annotations

from armkvm.isa.field import Field
from armkvm.isa.ldst import text
from armkvm.isa.machine import Machine
from armkvm.isa.table import insn
from armkvm.isa.value import Value, vector

# opcode of the multiple-structure class -> registers, for LD1 and for LD2..LD4
CONSECUTIVE = {0b0111: 1, 0b1010: 2, 0b0110: 3, 0b0010: 4}
INTERLEAVED = {0b1000: 2, 0b0100: 3, 0b0000: 4}


def register(Rt: Field, i: int) -> Field:
    """The i-th register of a list: behind V31 comes V0."""
    return (Rt + i) & 31 if i else Rt


def post_index(m: Machine, Rn: Field, Rm: Field, address: Value, size: int) -> None:
    """Write back the base: moved by X[Rm], or by the size of the access where Rm is 31."""
    m.set_XSP(Rn, address + m.X(Rm) + m.imm(Rm.is_(31).choose(size, 0)))


def list_text(rt: int, n: int, arrangement: str) -> str:
    """{v1.8h, v2.8h}; three or more are written as a range unless they wrap."""
    if n > 2 and rt + n <= 32:
        return f"{{v{rt}.{arrangement}-v{rt + n - 1}.{arrangement}}}"
    regs = ", ".join(f"v{(rt + i) & 31}.{arrangement}" for i in range(n))
    return f"{{{regs}}}"


def address_text(rn: int, rm: int | None, size: int) -> str:
    """[Xn|SP], with its post-index unless rm is None."""
    if rm is None:
        return text.offset(rn, 0)
    return text.post_index(rn, size) if rm == 31 else f"[{text.XSP(rn)}], x{rm}"


# -- multiple structures --------------------------------------------------------------------


def _multiple_text(
    Q: int, L: int, opcode: int, Rn: int, Rt: int, size: int = 0, immsize: int = 0,
    Rm: int | None = None,
) -> str:  # fmt: skip
    elem = size | immsize
    n = CONSECUTIVE.get(opcode) or INTERLEAVED[opcode]
    name = f"{('st', 'ld')[L]}{INTERLEAVED.get(opcode, 1)}"
    arrangement = f"{(8 << Q) >> elem}{'bhsd'[elem]}"
    return f"{name} {list_text(Rt, n, arrangement)}, {address_text(Rn, Rm, n * (8 << Q))}"


def _consecutive(m: Machine, Q: int, L: int, n: int, Rt: Field, address: Value) -> None:
    """LD1, ST1 of n registers."""
    ty, step = ("i64", "<2 x i64>")[Q], 8 << Q
    span = m.span(address, n * step, write=not L)
    if L:
        for i in range(n):
            m.set_V(register(Rt, i), span.load(i * step, ty))
    else:
        for i in range(n):
            span.store(i * step, m.V(register(Rt, i), ty))
        span.done()


def _interleaved(m: Machine, Q: int, L: int, n: int, size: int, Rt: Field, address: Value) -> None:
    """LDn, STn of n registers: element e of register r lies at index e * n + r."""
    lanes, elem = (8 << Q) >> size, f"i{8 << size}"
    span = m.span(address, n * (8 << Q), write=not L, elem=1 << size)
    if L:
        image = span.load(0, vector(n * lanes, elem))
        for r in range(n):
            m.set_V(register(Rt, r), image.shuffle([e * n + r for e in range(lanes)]))
    else:
        regs = [m.V(register(Rt, r), vector(lanes, elem)) for r in range(n)]
        if n == 3:
            regs.append(regs[2])  # shuffles join two equal halves
        image = regs[0].shuffle(list(range(2 * lanes)), regs[1])
        if n > 2:
            high = regs[2].shuffle(list(range(2 * lanes)), regs[3])
            image = image.shuffle(list(range(4 * lanes)), high)
        span.store(0, image.shuffle([r * lanes + e for e in range(lanes) for r in range(n)]))
        span.done()


@insn("0 Q 0011000 L 000000 opcode:4 immsize:2 Rn:5 Rt:5", asm=_multiple_text,
      ref="C7.2 LD1 (multiple structures)", feature="asimd",
      where=lambda opcode, **_: opcode in CONSECUTIVE)  # fmt: skip
def LD1(m: Machine, Q: int, L: int, opcode: int, immsize: Field, Rn: Field, Rt: Field) -> None:
    """LD1, ST1 of one to four whole registers."""
    _consecutive(m, Q, L, CONSECUTIVE[opcode], Rt, m.base(Rn))


@insn("0 Q 0011001 L 0 Rm:5 opcode:4 immsize:2 Rn:5 Rt:5", asm=_multiple_text,
      ref="C7.2 LD1 (multiple structures)", feature="asimd",
      where=lambda opcode, **_: opcode in CONSECUTIVE)  # fmt: skip
def LD1_post(
    m: Machine, Q: int, L: int, Rm: Field, opcode: int, immsize: Field, Rn: Field, Rt: Field
) -> None:
    """LD1, ST1 of whole registers, post-index."""
    address, n = m.base(Rn), CONSECUTIVE[opcode]
    _consecutive(m, Q, L, n, Rt, address)
    post_index(m, Rn, Rm, address, n * (8 << Q))


def _interleaved_allocated(Q: int, opcode: int, size: int, **_: object) -> bool:
    return opcode in INTERLEAVED and (size < 3 or Q == 1)


@insn("0 Q 0011000 L 000000 opcode:4 size:2 Rn:5 Rt:5", asm=_multiple_text,
      ref="C7.2 LD2 (multiple structures)", feature="asimd",
      where=_interleaved_allocated)  # fmt: skip
def LD2(m: Machine, Q: int, L: int, opcode: int, size: int, Rn: Field, Rt: Field) -> None:
    """LD2, LD3, LD4, ST2, ST3, ST4."""
    _interleaved(m, Q, L, INTERLEAVED[opcode], size, Rt, m.base(Rn))


@insn("0 Q 0011001 L 0 Rm:5 opcode:4 size:2 Rn:5 Rt:5", asm=_multiple_text,
      ref="C7.2 LD2 (multiple structures)", feature="asimd",
      where=_interleaved_allocated)  # fmt: skip
def LD2_post(
    m: Machine, Q: int, L: int, Rm: Field, opcode: int, size: int, Rn: Field, Rt: Field
) -> None:
    """LD2, LD3, LD4, ST2, ST3, ST4, post-index."""
    address, n = m.base(Rn), INTERLEAVED[opcode]
    _interleaved(m, Q, L, n, size, Rt, address)
    post_index(m, Rn, Rm, address, n * (8 << Q))

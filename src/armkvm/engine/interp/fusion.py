"""Compare-and-branch pairs in one handler.

A comparison followed by B.cond inside the page is what most loops end with. The decoder gives the
comparison's record a handler that does both: the flags are still written, but the condition comes
straight from the operands, and one dispatch is saved. The branch keeps its own record, for who
jumps to it and for stepping, and that is where its displacement is read.
"""

from __future__ import annotations

from armkvm.engine import layout
from armkvm.engine.interp.handler import Handler
from armkvm.engine.llvm.code import Routine
from armkvm.engine.llvm.ir import UNLIKELY, Function, Pointer, Symbol
from armkvm.engine.llvm.module import Module
from armkvm.engine.llvm.native import unoptimised
from armkvm.engine.native.control import limit_reached
from armkvm.isa.table import Form
from armkvm.isa.value import Value

B_COND_MASK, B_COND = 0xFF00_0010, 0x5400_0000
CONDITIONS = 14  # AL and NV are not worth a handler

FUSIONS = Symbol("fusions")
_ROW = 16  # bytes: {plain handler, its fused handlers}


def compares(form: Form) -> bool:
    """SUBS or ANDS, immediate or plain register: CMP and TST."""
    f = form.fields
    if form.insn.name == "ADDSUB_imm" and f["op"] == 1 and f["S"] == 1:
        return f["sh"] == 0
    if form.insn.name == "ADDSUB_reg" and f["op"] == 1 and f["S"] == 1:
        return f["shift"] == 0
    return form.insn.name == "LOGICAL_imm" and f["opc"] == 3


class Fused(Handler):
    """A comparison and the conditional branch behind it."""

    def __init__(self, form: Form, name: str, cond: int, *, back: bool) -> None:
        super().__init__(form, name)
        self.cond, self.back = cond, back
        self._compared: tuple[Value, Value | int, Value] | None = None

    def set_flags_sub(self, x: Value, y: Value, result: Value) -> None:
        super().set_flags_sub(x, y, result)
        self._compared = (x, y, result)

    def set_flags_logic(self, result: Value) -> None:
        super().set_flags_logic(result)
        # As result - 0 compares: C, which would differ, is asked for by no fused condition.
        self._compared = (result, 0, result)

    def trace(self) -> None:
        """The comparison, then the branch."""
        self.form.trace(self)
        taken, fall = self.label(), self.label()
        self.branch_on(self._holds(), taken, fall)
        self.place(fall)
        self.dispatch(self.op + 2 * layout.RECORD)
        self.place(taken)
        branch = self.op + layout.RECORD
        distance = (branch + layout.OPERANDS).load("i32").sext("i64")
        target = branch + distance
        acc = self.acc + layout.RECORD - distance
        if self.back:
            with self.if_((acc + target.address()).sge(self.get("limit32")), UNLIKELY):
                self.tail(limit_reached, target, acc)
        self.dispatch(target, acc)

    def _holds(self) -> Value:
        assert self._compared is not None
        x, y, result = self._compared
        kind = self.cond >> 1
        if kind == 2:
            holds = result.slt(0)
        elif kind == 3:
            return self.condition_holds(self.cond)
        else:
            compare = {0: x.eq, 1: x.uge, 4: x.ugt, 5: x.sge, 6: x.sgt}[kind]
            holds = compare(y)
        return ~holds if self.cond & 1 else holds


def fused(form: Form, name: str) -> list[Fused]:
    """The fused handlers of a comparison, by condition, forward before backward."""
    logical = form.insn.name == "LOGICAL_imm"
    out = []
    for cond in range(CONDITIONS):
        for back in (False, True):
            # TST leaves C and V clear: unsigned and signed orders after it are left alone.
            if not logical or cond >> 1 in (0, 2):
                out.append(Fused(form, f"{name}_{cond}{'b' if back else 'f'}", cond, back=back))
    return out


def tables(module: Module, rows: list[tuple[Routine, list[Fused]]]) -> None:
    """FUSIONS: {plain handler, row of CONDITIONS * 2 fused handlers or null}, ended by null."""
    entries = []
    for plain, handlers in rows:
        by_key = {(h.cond, h.back): h.routine.ref for h in handlers}
        cells = [by_key.get((c, b), "null") for c in range(CONDITIONS) for b in (False, True)]
        row = module.constant(f"row_{plain.name}", "ptr", cells)
        entries.append(f"{{ {plain!r}, {row!r} }}")
    module.constant(FUSIONS.name, "{ ptr, ptr }", [*entries, "zeroinitializer"])


@unoptimised
def fuse(fn: Function, rec: Pointer, w: Value, i: Value) -> None:
    """Let a comparison's record do the near B.cond behind it, decoded just now from w, too."""
    cond = w & 15
    with fn.if_((w & B_COND_MASK).ne(B_COND) | cond.uge(CONDITIONS)):
        fn.ret()
    delta = (w.lshr(5) << 45).ashr(45)
    with fn.if_((i + delta).uge(1024)):
        fn.ret()
    before = rec + -layout.RECORD
    plain = before.load_pointer()
    entry = fn.var("i64", 0)
    with fn.loop() as loop:
        at = fn.symbol(FUSIONS) + entry.get()
        candidate = at.load_pointer()
        loop.break_if(candidate.is_null())
        with fn.if_(candidate.eq(plain)):
            cell = (cond << 1) + delta.sle(0).zext("i64")
            both = ((at + 8).load_pointer() + (cell << 3)).load_pointer()
            with fn.unless(both.is_null()):
                before.store_pointer(both)
            fn.ret()
        entry.set(entry.get() + _ROW)

"""Compare-and-branch pairs in one handler.

A comparison followed by B.cond inside the page is what most loops end with. The decoder gives the
comparison's record a handler that does both: the flags are still written, but the condition comes
straight from the operands, and one dispatch is saved. The branch keeps its own record, for who
jumps to it and for stepping, and that is where its displacement is read.
"""

from __future__ import annotations

from armkvm.engine import layout
from armkvm.engine.interp.handler import Handler
from armkvm.engine.llvm.ir import UNLIKELY, Function
from armkvm.isa.table import Form
from armkvm.isa.value import Value

B_COND_MASK, B_COND = 0xFF00_0010, 0x5400_0000
CONDITIONS = 14  # AL and NV are not worth a handler


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
        self.dispatch(self.gep("%op", 2 * layout.RECORD))
        self.place(taken)
        branch = self.gep("%op", layout.RECORD)
        distance = self.load_at(self.gep(branch, layout.OPERANDS), "i32").sext("i64")
        target = self.gep(branch, distance)
        acc = Value(self, "i64", "%acc") + layout.RECORD - distance
        if self.back:
            stop = (acc + self.address(target)).sge(self.get("limit32"))
            with self.if_(stop, UNLIKELY):
                self.tail("limit_reached", target, acc.ref)
        self.dispatch(target, acc.ref)

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


def tables(rows: list[tuple[str, list[Fused]]]) -> str:
    """`@fusions`: {plain handler, row of CONDITIONS * 2 fused handlers or null}, ended by null."""
    text = []
    for plain, handlers in rows:
        by_key = {(h.cond, h.back): h.name for h in handlers}
        cells = [by_key.get((c, b)) for c in range(CONDITIONS) for b in (False, True)]
        row = ", ".join(f"ptr @{c}" if c else "ptr null" for c in cells)
        text.append(f"@row_{plain} = internal constant [{2 * CONDITIONS} x ptr] [{row}]")
    entries = [f"{{ ptr, ptr }} {{ ptr @{p}, ptr @row_{p} }}" for p, _ in rows]
    entries.append("{ ptr, ptr } zeroinitializer")
    text.append(
        f"@fusions = internal constant [{len(entries)} x {{ ptr, ptr }}] [{', '.join(entries)}]"
    )
    return "\n".join([*text, _fuse()])


def _fuse() -> str:
    """Let a comparison's record do the near B.cond behind it, decoded just now from %w, too."""
    fn = Function()
    word = Value(fn, "i64", "%w")
    cond = word & 15
    with fn.if_((word & B_COND_MASK).ne(B_COND) | cond.uge(CONDITIONS)):
        fn.ret()
    delta = (word.lshr(5) << 45).ashr(45)
    with fn.if_((Value(fn, "i64", "%i") + delta).uge(1024)):
        fn.ret()
    before = fn.gep("%rec", -layout.RECORD)
    plain = fn.emit(f"load ptr, ptr {before}, align 8")
    entry = fn.var("i64", 0)
    with fn.loop() as loop:
        at = fn.gep("@fusions", entry.get())
        candidate = fn.emit(f"load ptr, ptr {at}, align 8")
        loop.break_if(fn.value("i1", f"icmp eq ptr {candidate}, null"))
        with fn.if_(fn.value("i1", f"icmp eq ptr {candidate}, {plain}")):
            row = fn.emit(f"load ptr, ptr {fn.gep(at, 8)}, align 8")
            cell = (cond << 1) + delta.sle(0).zext("i64")
            both = fn.emit(f"load ptr, ptr {fn.gep(row, cell << 3)}, align 8")
            with fn.if_(fn.value("i1", f"icmp ne ptr {both}, null")):
                fn.line(f"store ptr {both}, ptr {before}, align 8")
            fn.ret()
        entry.set(entry.get() + 16)
    fn.ret()
    return f"define internal void @fuse(ptr %rec, i64 %w, i64 %i) #2 {{\n{fn.body()}\n}}"

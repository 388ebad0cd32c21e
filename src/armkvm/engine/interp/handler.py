"""Tracing one instruction form into one interpreter handler.

A handler is `preserve_nonecc void h(ptr cpu, ptr op, i64 acc)`: `op` is the instruction's record,
acc + op is 32 times the number of instructions retired before it (so straight-line code counts for
free and only taken branches touch acc). A handler ends in a musttail call of the next record's
handler, and it stays frameless: whatever needs a stack is another function that it tail-calls.

A form that accesses memory has a second, slow handler. The first compares one software-TLB tag; on
a miss it tail-calls the slow one, which runs the whole instruction through `mem_access`
(engine/native/memory.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from armkvm.arch import esr
from armkvm.engine import layout
from armkvm.engine.llvm.code import Code, Routine
from armkvm.engine.llvm.ir import CPU, LIKELY, RAM, UNLIKELY, Pointer
from armkvm.engine.native import exception
from armkvm.engine.native.control import limit_reached
from armkvm.engine.native.memory import (
    ACCESS_ATOMIC,
    ACCESS_CACHE,
    ACCESS_ICACHE,
    ACCESS_UNPRIV,
    ACCESS_WRITE,
    ACCESS_ZERO,
    ALIGN_SHIFT,
    ELEMENT_SHIFT,
    ZERO_BLOCK,
    mem_access,
    mem_commit,
)
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine, Span, Transfer
from armkvm.isa.table import Form
from armkvm.isa.value import Value, bits

_FLAGS = {
    "unpriv": ACCESS_UNPRIV, "cache": ACCESS_CACHE, "icache": ACCESS_CACHE | ACCESS_ICACHE,
    "zero": ACCESS_ZERO, "atomic": ACCESS_ATOMIC,
}  # fmt: skip


class FastSpan(Span):
    """A checked run of guest memory at a host pointer."""

    def __init__(self, h: Handler, host: Pointer, write: bool) -> None:
        self.h, self.host, self.write = h, host, write

    def load(self, offset: int, ty: str) -> Value:
        return (self.host + offset).load(ty, RAM, 1)

    def store(self, offset: int, value: Value) -> None:
        (self.host + offset).store(value, RAM, 1)

    def done(self) -> None:
        if self.h.slow and self.write:
            mem_commit(self.h)


class Handler(Code, Machine):
    """One trace of one form. `variant`: "", or "fw", "bk", "far" (branches), "sp", "slow"."""

    def __init__(self, form: Form, name: str, *, variant: str = "", slow: bool = False) -> None:
        super().__init__()
        self.form, self.variant, self.slow = form, variant, slow
        self.routine, self.slow_twin = Routine(name), Routine(f"{name}_slow")
        self.operands: dict[tuple[Field, str], int] = {}
        self.touches_memory = self.is_branch = self.uses_base = self.links = False
        self.offset: Field | None = None
        self._free = list(range(layout.OPERANDS, layout.RECORD))
        self._loaded: dict[tuple[Field, str], str] = {}

    def trace(self) -> None:
        """Run the description."""
        trap = self.form.insn.traps
        if trap:
            with self.if_(self.get(f"{trap}_trap").ne(0), UNLIKELY):
                self.tail(Routine(f"{trap}_trapped"))
        self.form.trace(self)
        self.falls_through = not self.ended
        if not self.ended:
            self.next()

    # -- operands ---------------------------------------------------------------------------
    def _operand(self, f: Field, ty: str) -> Value:
        key = (f, ty)
        if key not in self._loaded:
            size = bits(ty) // 8
            at = self.operands.get(key)
            if at is None:
                at = next(
                    p
                    for p in self._free
                    if p % size == 0 and {*range(p, p + size)} <= {*self._free}
                )
                self._free = [p for p in self._free if not at <= p < at + size]
                self.operands[key] = at
            # Operand loads go to the entry block: they must dominate every use.
            self._names += 1
            ref = f"%t{self._names}"
            self.allocas.append(f" {ref}p = getelementptr i8, {self.op!r}, i64 {at}")
            self.allocas.append(f" {ref} = load {ty}, ptr {ref}p, align {size}, {CPU}")
            self._loaded[key] = ref
        return Value(self, ty, self._loaded[key])

    def imm(self, f: Field | int, ty: str = "i64") -> Value:
        if isinstance(f, int):
            width = bits(ty)
            return self.const(ty, (f + (1 << (width - 1))) % (1 << width) - (1 << (width - 1)))
        return self._operand(f, ty)

    def _slot(self, f: Field | int) -> Pointer:
        """Pointer into the CPU state at a byte offset known when decoding."""
        return self.cpu + (f if isinstance(f, int) else self._operand(f, "i16").zext("i64"))

    # -- registers --------------------------------------------------------------------------
    def _x_slot(self, r: Field | int, at31: int) -> Pointer:
        if isinstance(r, int):
            return self._slot(8 * (at31 if r == 31 else r))
        return self._slot(r * 8 if at31 == 31 else r.is_(31).choose(at31, r) * 8)

    def X(self, r: Field | int, ty: str = "i64") -> Value:
        return self._x_slot(r, layout.ZERO_SLOT).load(ty, align=min(8, bits(ty) // 8))

    def set_X(self, r: Field | int, v: Value) -> None:
        self._x_slot(r, layout.DUMP_SLOT).store(v.zext("i64"))

    def XSP(self, r: Field | int, ty: str = "i64") -> Value:
        return self._x_slot(r, layout.SP_SLOT).load(ty)

    def set_XSP(self, r: Field | int, v: Value) -> None:
        self._x_slot(r, layout.SP_SLOT).store(v.zext("i64"))

    def base(self, r: Field | int) -> Value:
        self.uses_base = True
        v = self.XSP(r)
        if self.variant == "sp":
            with self.if_((v & self.get("sp_mask")).ne(0), UNLIKELY):
                self.tail(exception.sp_alignment_fault)
        return v

    def _v_slot(self, r: Field | int) -> Pointer:
        self._needs_trap()
        return self._slot(r * 16 + layout.V_OFFSET)

    def _needs_trap(self) -> None:
        insn = self.form.insn
        if not insn.traps:
            raise TypeError(
                f"{insn.name} uses a SIMD&FP register: its feature {insn.feature!r} has to trap"
            )

    def V(self, r: Field | int, ty: str) -> Value:
        return self._v_slot(r).load(ty, align=min(16, bits(ty) // 8))

    def set_V(self, r: Field | int, v: Value) -> None:
        if v.bits == 128:
            self._v_slot(r).store(v, align=16)
            return
        whole = v.bitcast(f"i{v.bits}")
        if v.bits < 64:
            whole = whole.zext("i64")
        self._v_slot(r).store(self.const("<2 x i64>", 0).insert(0, whole), align=16)

    def V_elem(self, r: Field | int, offset: Field | int, ty: str) -> Value:
        self._needs_trap()
        slot = self._slot(r * 16 + offset + layout.V_OFFSET)
        return slot.load(ty, align=bits(ty) // 8)

    def set_V_elem(self, r: Field | int, offset: Field | int, v: Value) -> None:
        self._needs_trap()
        slot = self._slot(r * 16 + offset + layout.V_OFFSET)
        slot.store(v, align=v.bits // 8)

    def page(self) -> Value:
        return self.pc() & layout.PAGE_MASK

    # -- PSTATE -----------------------------------------------------------------------------
    def set_flags_add(self, x: Value, y: Value, result: Value) -> None:
        overflow = (x ^ result) & (y ^ result)
        self._flags(result, result.ult(x).zext("i64"), overflow.lshr(result.bits - 1).zext("i64"))

    def set_flags_sub(self, x: Value, y: Value, result: Value) -> None:
        overflow = (x ^ y) & (x ^ result)
        self._flags(result, x.uge(y).zext("i64"), overflow.lshr(result.bits - 1).zext("i64"))

    def set_flags_logic(self, result: Value) -> None:
        self._flags(result, self.i64(0), self.i64(0))

    def set_flags(self, nz: Value, c: Value, v: Value) -> None:
        self._flags(nz, c.zext("i64"), v.zext("i64"))

    def _flags(self, nz: Value, c: Value, v: Value) -> None:
        wide = nz.sext("i64")
        self.put("flag_n", wide)
        self.put("flag_z", wide)
        self.put("flag_c", c)
        self.put("flag_v", v)

    def set_nzcv(self, nzcv: Value) -> None:
        self.put("flag_n", nzcv << 60)
        self.put("flag_z", ~nzcv & 4)
        self.put("flag_c", nzcv.lshr(1) & 1)
        self.put("flag_v", nzcv & 1)

    def nzcv(self) -> Value:
        z = self.get("flag_z").eq(0).zext("i64")
        high = self.get("flag_n").lshr(63) << 3 | z << 2
        return high | self.get("flag_c") << 1 | self.get("flag_v")

    def carry(self) -> Value:
        return self.get("flag_c")

    def condition_holds(self, cond: int) -> Value:
        kind = cond >> 1
        if kind == 0:
            r = self.get("flag_z").eq(0)
        elif kind == 1:
            r = self.get("flag_c").ne(0)
        elif kind == 2:
            r = self.get("flag_n").slt(0)
        elif kind == 3:
            r = self.get("flag_v").ne(0)
        elif kind == 4:
            r = self.get("flag_c").ne(0) & self.get("flag_z").ne(0)
        elif kind == 7:
            return self.const("i1", 1)
        else:
            r = self.get("flag_n").lshr(63).eq(self.get("flag_v"))
            if kind == 6:
                r = r & self.get("flag_z").ne(0)
        return ~r if cond & 1 else r

    # -- control ----------------------------------------------------------------------------
    def unlikely(self, c: Value, usual: Value, compute: Callable[[], Value]) -> Value:
        cold, join, before = self.label(), self.label(), self._block
        self.branch_on(c, cold, join, UNLIKELY)
        self.place(cold)
        other = compute()
        end = self._block
        self.goto(join)
        self.place(join)
        pairs = f"[ {usual.ref}, %{before} ], [ {other.ref}, %{end} ]"
        return self.value(usual.ty, f"phi {usual.ty} {pairs}")

    @contextmanager
    def when(self, c: Value) -> Iterator[None]:
        with self.if_(c):
            yield

    # -- memory -----------------------------------------------------------------------------
    def load(
        self, address: Value, ty: str, *, acc: str = "normal", one: Transfer | None = None
    ) -> Value:
        size = bits(ty) // 8
        align = size if acc == "ordered" else 1
        s = self.span(address, size, write=False, align=align, elem=size, acc=acc, one=one)
        return s.load(0, ty)

    def store(
        self, address: Value, value: Value, *, acc: str = "normal", one: Transfer | None = None
    ) -> None:
        size = value.bits // 8
        align = size if acc == "ordered" else 1
        s = self.span(address, size, write=True, align=align, elem=size, acc=acc, one=one)
        s.store(0, value)
        s.done()

    def span(
        self,
        address: Value,
        size: int,
        *,
        write: bool,
        align: int = 1,
        elem: int = 1,
        acc: str = "normal",
        one: Transfer | None = None,
    ) -> Span:
        self.touches_memory = True
        rt = self._reserved(one)
        if self.slow:
            flags = size | ACCESS_WRITE * write | _FLAGS.get(acc, 0)
            flags |= align << ALIGN_SHIFT | elem << ELEMENT_SHIFT
            host = mem_access(self, address, self.i64(flags))
            with self.if_(host.is_null(), UNLIKELY):
                self.put("arg0", self._syndrome(size, acc, one, rt))
                self.tail(exception.mem_fault)
            return self._span_at(host, write, acc)
        tlb = self.field("dtlb_el0" if acc == "unpriv" else "dtlb").load_pointer()
        want = (address + (size - 1)) & layout.PAGE_MASK
        if align > 1:
            want = want | (address & (align - 1))
        shift = 12 - layout.DTLB_ENTRY.bit_length() + 1
        mask = (layout.DTLB_ENTRIES - 1) * layout.DTLB_ENTRY
        entry = tlb + (address.lshr(shift) & mask)
        hit = entry.get(8 * write).eq(want)
        yes, no = self.label(), self.label()
        self.branch_on(hit, yes, no, LIKELY)
        self.place(no)
        self.tail(self.slow_twin)
        self.place(yes)
        at = address + entry.get(16)
        if acc == "icache":
            # A page's other lines, behind its first: nothing was fetched from it in between.
            with self.if_((at & layout.PAGE_MASK).ne(self.get("ic_host")), UNLIKELY):
                self.tail(self.slow_twin)
        return self._span_at(self.pointer(at), write, acc)

    def _reserved(self, one: Transfer | None) -> int:
        """Where the record has the number of the register that travels: its last byte.

        Only the slow handler reads it, but what the decoder writes is what both ask for.
        """
        if one is None or isinstance(one.Rt, int):
            return 0
        key, at = (one.Rt, "i8"), layout.RECORD - 1
        if key not in self.operands:
            self._free.remove(at)
            self.operands[key] = at
        return at

    def _syndrome(self, size: int, acc: str, one: Transfer | None, at: int) -> Value:
        """ISV, SAS, SSE, SRT, SF and AR of the abort that this access may meet; or 0."""
        if one is None:
            return self.i64(0)
        iss = esr.DABT_ISV | (size.bit_length() - 1) << esr.DABT_SAS_SHIFT
        iss |= esr.DABT_SSE * one.signed | esr.DABT_SF * one.wide | esr.DABT_AR * (acc == "ordered")
        if isinstance(one.Rt, int):
            return self.i64(iss | one.Rt << esr.DABT_SRT_SHIFT)
        rt = (self.op + at).load("i8").zext("i64")
        return rt << esr.DABT_SRT_SHIFT | iss

    def _span_at(self, host: Pointer, write: bool, acc: str) -> Span:
        if acc == "zero":
            host = self.pointer(host.address() & -ZERO_BLOCK)
        return FastSpan(self, host, write)

    # -- branches ---------------------------------------------------------------------------
    def branch(self, offset: Field, *, link: bool = False, cond: Value | None = None) -> None:
        self.is_branch = True
        self.offset = offset
        self.links = link
        if cond is not None:
            taken, go = self.label(), self.label()
            self.branch_on(cond, taken, go)
            self.place(taken)
        if link:
            self._set_link()
        if self.variant == "far":
            self.jump(self.pc() + self.imm(offset), self.retired())
        else:
            self._near(self.imm(offset << 3, "i32").sext("i64"))
        if cond is not None:
            self.place(go)

    def _set_link(self) -> None:
        (self.cpu + 8 * 30).store(self.pc() + 4)

    def _near(self, distance: Value) -> None:
        target = self.op + distance
        acc = self.acc + layout.RECORD - distance
        if self.variant == "bk":
            with self.if_((acc + target.address()).sge(self.get("limit32")), UNLIKELY):
                self.tail(limit_reached, target, acc)
        self.dispatch(target, acc)

    def branch_to(self, target: Value, *, link: bool = False) -> None:
        self.links = link
        if link:
            self._set_link()
        self.jump(target, self.retired())

    # -- exceptions and system --------------------------------------------------------------
    def undefined(self) -> None:
        self.tail(exception.undefined)

    def ask(self, name: str, *args: Value) -> Value:
        return self.call(name, "i64", self.cpu, *args)

    def tell(self, name: str, *args: Value) -> None:
        self.call(name, "void", self.cpu, *args)

    def count(self) -> Value:
        return (self.op.address() + self.acc).lshr(layout.RECORD_SHIFT)

    def finish(self, name: str, *args: Value) -> None:
        for i, a in enumerate(args):
            self.put(f"arg{i}", a.zext("i64"))
        self.tail(Routine(name))

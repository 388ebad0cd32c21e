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
from armkvm.arch.sysreg import DCZID_BS
from armkvm.engine import layout
from armkvm.engine.llvm.code import Code
from armkvm.engine.llvm.ir import CPU, LIKELY, RAM, UNLIKELY
from armkvm.isa.field import Field
from armkvm.isa.machine import Machine, Span, Transfer
from armkvm.isa.table import Form
from armkvm.isa.value import Value, bits

ZERO_BLOCK = 4 << DCZID_BS  # bytes that DC ZVA clears
# Beside the size, in `access`; ZERO is DC ZVA.
ACCESS_WRITE, ACCESS_UNPRIV, ACCESS_CACHE, ACCESS_ZERO = 1 << 8, 1 << 9, 1 << 10, 1 << 11
ACCESS_ICACHE = 1 << 12  # with CACHE: what was fetched from there is dropped
ACCESS_ATOMIC = 1 << 13  # a read-modify-write
_FLAGS = {
    "unpriv": ACCESS_UNPRIV, "cache": ACCESS_CACHE, "icache": ACCESS_CACHE | ACCESS_ICACHE,
    "zero": ACCESS_ZERO, "atomic": ACCESS_ATOMIC,
}  # fmt: skip
ALIGN_SHIFT, ELEMENT_SHIFT = 16, 24  # required alignment; element size, for Device and SCTLR.A


class FastSpan(Span):
    """A checked run of guest memory at a host pointer."""

    def __init__(self, h: Handler, ptr: str, write: bool) -> None:
        self.h, self.ptr, self.write = h, ptr, write

    def load(self, offset: int, ty: str) -> Value:
        return self.h.load_at(self.h.gep(self.ptr, offset), ty, RAM, 1)

    def store(self, offset: int, value: Value) -> None:
        self.h.store_at(self.h.gep(self.ptr, offset), value, RAM, 1)

    def done(self) -> None:
        if self.h.slow and self.write:
            self.h.line("call void @mem_commit(ptr %cpu)")


class Handler(Code, Machine):
    """One trace of one form. `variant`: "", or "fw", "bk", "far" (branches), "sp", "slow"."""

    def __init__(self, form: Form, name: str, *, variant: str = "", slow: bool = False) -> None:
        super().__init__()
        self.form, self.name, self.variant, self.slow = form, name, variant, slow
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
                self.tail(f"{trap}_trapped")
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
            self.allocas.append(f" {ref}p = getelementptr i8, ptr %op, i64 {at}")
            self.allocas.append(f" {ref} = load {ty}, ptr {ref}p, align {size}, {CPU}")
            self._loaded[key] = ref
        return Value(self, ty, self._loaded[key])

    def imm(self, f: Field | int, ty: str = "i64") -> Value:
        if isinstance(f, int):
            width = bits(ty)
            return self.const(ty, (f + (1 << (width - 1))) % (1 << width) - (1 << (width - 1)))
        return self._operand(f, ty)

    def _slot(self, f: Field | int) -> str:
        """Pointer into the CPU state at a byte offset known when decoding."""
        if isinstance(f, int):
            return self.gep(self.cpu, f)
        return self.gep(self.cpu, self._operand(f, "i16").zext("i64"))

    # -- registers --------------------------------------------------------------------------
    def _x_slot(self, r: Field | int, at31: int) -> str:
        if isinstance(r, int):
            return self._slot(8 * (at31 if r == 31 else r))
        return self._slot(r * 8 if at31 == 31 else r.is_(31).choose(at31, r) * 8)

    def X(self, r: Field | int, ty: str = "i64") -> Value:
        return self.load_at(self._x_slot(r, layout.ZERO_SLOT), ty, align=min(8, bits(ty) // 8))

    def set_X(self, r: Field | int, v: Value) -> None:
        self.store_at(self._x_slot(r, layout.DUMP_SLOT), v.zext("i64"))

    def XSP(self, r: Field | int, ty: str = "i64") -> Value:
        return self.load_at(self._x_slot(r, layout.SP_SLOT), ty)

    def set_XSP(self, r: Field | int, v: Value) -> None:
        self.store_at(self._x_slot(r, layout.SP_SLOT), v.zext("i64"))

    def base(self, r: Field | int) -> Value:
        self.uses_base = True
        v = self.XSP(r)
        if self.variant == "sp":
            with self.if_((v & self.get("sp_mask")).ne(0), UNLIKELY):
                self.tail("sp_alignment_fault")
        return v

    def _v_slot(self, r: Field | int) -> str:
        self._needs_trap()
        return self._slot(r * 16 + layout.V_OFFSET)

    def _needs_trap(self) -> None:
        insn = self.form.insn
        if not insn.traps:
            raise TypeError(
                f"{insn.name} uses a SIMD&FP register: its feature {insn.feature!r} has to trap"
            )

    def V(self, r: Field | int, ty: str) -> Value:
        return self.load_at(self._v_slot(r), ty, align=min(16, bits(ty) // 8))

    def set_V(self, r: Field | int, v: Value) -> None:
        if v.bits == 128:
            self.store_at(self._v_slot(r), v, align=16)
            return
        whole = v.bitcast(f"i{v.bits}")
        if v.bits < 64:
            whole = whole.zext("i64")
        slot = self._v_slot(r)
        self.store_at(slot, self.const("<2 x i64>", 0).insert(0, whole), align=16)

    def V_elem(self, r: Field | int, offset: Field | int, ty: str) -> Value:
        self._needs_trap()
        slot = self._slot(r * 16 + offset + layout.V_OFFSET)
        return self.load_at(slot, ty, align=bits(ty) // 8)

    def set_V_elem(self, r: Field | int, offset: Field | int, v: Value) -> None:
        self._needs_trap()
        slot = self._slot(r * 16 + offset + layout.V_OFFSET)
        self.store_at(slot, v, align=v.bits // 8)

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
        self._flags(result, self.const("i64", 0), self.const("i64", 0))

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
        unpriv = acc == "unpriv"
        rt = self._reserved(one)
        if self.slow:
            flags = size | ACCESS_WRITE * write | _FLAGS.get(acc, 0)
            flags |= align << ALIGN_SHIFT | elem << ELEMENT_SHIFT
            text = f"call ptr @mem_access(ptr %cpu, i64 {address.ref}, i64 {flags})"
            ptr = self.emit(text)
            with self.if_(self.value("i1", f"icmp eq ptr {ptr}, null"), UNLIKELY):
                self.put("arg0", self._syndrome(size, acc, one, rt))
                self.tail("mem_fault")
            return self._span_at(Value(self, "ptr", ptr), write, acc)
        tlb = self.emit(
            f"load ptr, ptr {self.field('dtlb_el0' if unpriv else 'dtlb')}, align 8, {CPU}"
        )
        want = (address + (size - 1)) & layout.PAGE_MASK
        if align > 1:
            want = want | (address & (align - 1))
        shift = 12 - layout.DTLB_ENTRY.bit_length() + 1
        entry = self.gep(tlb, address.lshr(shift) & ((layout.DTLB_ENTRIES - 1) * layout.DTLB_ENTRY))
        hit = self.load_at(self.gep(entry, 8 * write), "i64").eq(want)
        yes, no = self.label(), self.label()
        self.branch_on(hit, yes, no, LIKELY)
        self.place(no)
        self.tail(f"{self.name}_slow")
        self.place(yes)
        host = address + self.load_at(self.gep(entry, 16), "i64")
        if acc == "icache":
            # A page's other lines, behind its first: nothing was fetched from it in between.
            with self.if_((host & layout.PAGE_MASK).ne(self.get("ic_host")), UNLIKELY):
                self.tail(f"{self.name}_slow")
        return self._span_at(Value(self, "ptr", self.pointer(host)), write, acc)

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
            return self.const("i64", 0)
        iss = esr.DABT_ISV | (size.bit_length() - 1) << esr.DABT_SAS_SHIFT
        iss |= esr.DABT_SSE * one.signed | esr.DABT_SF * one.wide | esr.DABT_AR * (acc == "ordered")
        if isinstance(one.Rt, int):
            return self.const("i64", iss | one.Rt << esr.DABT_SRT_SHIFT)
        rt = self.load_at(self.gep("%op", at), "i8").zext("i64")
        return rt << esr.DABT_SRT_SHIFT | iss

    def _span_at(self, host: Value, write: bool, acc: str) -> Span:
        if acc == "zero":
            host = Value(self, "ptr", self.pointer(self.address(host.ref) & -ZERO_BLOCK))
        return FastSpan(self, host.ref, write)

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
        self.store_at(self.gep(self.cpu, 8 * 30), self.pc() + 4)

    def _near(self, distance: Value) -> None:
        target = self.gep("%op", distance)
        acc = Value(self, "i64", "%acc") + layout.RECORD - distance
        if self.variant == "bk":
            stop = (acc + self.address(target)).sge(self.get("limit32"))
            with self.if_(stop, UNLIKELY):
                self.tail("limit_reached", target, acc.ref)
        self.dispatch(target, acc.ref)

    def branch_to(self, target: Value, *, link: bool = False) -> None:
        self.links = link
        if link:
            self._set_link()
        self.jump(target, self.retired())

    # -- exceptions and system --------------------------------------------------------------
    def undefined(self) -> None:
        self.tail("undefined")

    def ask(self, name: str, *args: Value) -> Value:
        return self.call(name, "i64", "ptr %cpu", *args)

    def count(self) -> Value:
        return (self.op_address() + Value(self, "i64", "%acc")).lshr(layout.RECORD_SHIFT)

    def finish(self, name: str, *args: Value) -> None:
        for i, a in enumerate(args):
            self.put(f"arg{i}", a.zext("i64"))
        self.tail(name)

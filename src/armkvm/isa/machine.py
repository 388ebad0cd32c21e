"""What an instruction description may do: the machine `m` that it is traced against.

Descriptions hold no word of the engine. Everything they need of the CPU is a method here, named
after the manual's pseudocode where that has a name. `Field` arguments are decode-time operands (an
int is as good); `Value`s are run-time values. Faults, traps and undefined instructions end the
instruction: nothing that is written after them happens, nothing before them may have been written,
so a description makes all its checks and memory accesses before its register writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from armkvm.isa.field import Field
from armkvm.isa.value import Value


@dataclass(frozen=True, slots=True)
class Transfer:
    """An access of one general register without writeback, as the syndrome of its Data Abort tells
    it to a hypervisor that emulates a device (ESR_EL2.ISS with ISV, D17.2.37).

    The access itself says its size and, by acc="ordered", whether it acquires or releases (AR).
    """

    Rt: Field | int
    wide: bool  # SF: X register, not W
    signed: bool = False  # SSE: what is loaded is sign-extended


class Span(ABC):
    """A run of guest memory that was checked as one access and may now be read or written."""

    @abstractmethod
    def load(self, offset: int, ty: str) -> Value:
        """The value of type ty at byte `offset` (little-endian)."""

    @abstractmethod
    def store(self, offset: int, value: Value) -> None:
        """Write value at byte `offset`."""

    @abstractmethod
    def done(self) -> None:
        """End of the access; must be called once after the last store of a span that is written."""


class Machine(ABC):
    """The CPU as the descriptions see it (Arm ARM, shared pseudocode)."""

    # -- values -----------------------------------------------------------------------------
    @abstractmethod
    def const(self, ty: str, x: int | float) -> Value:
        """A constant; a vector type gets it in every lane."""

    @abstractmethod
    def imm(self, f: Field | int, ty: str = "i64") -> Value:
        """A decode-time operand as a run-time value (low bits of the 64-bit expression)."""

    @abstractmethod
    def select(self, c: Value, a: Value | int | float, b: Value | int | float) -> Value:
        """a where c, else b; c is i1, or a vector of i1 for vectors. One of a, b is a Value."""

    @abstractmethod
    def intrinsic(self, name: str, ty: str, *args: Value | bool) -> Value:
        """Call `llvm.NAME` (given in full, with its type suffix) returning ty; a Python bool passes
        an immediate i1."""

    @abstractmethod
    def unlikely(self, c: Value, usual: Value, compute: Callable[[], Value]) -> Value:
        """`usual`, but where c (i1) holds what compute() traces, in a cold block of its own."""

    @abstractmethod
    def when(self, c: Value) -> AbstractContextManager[None]:
        """A block that runs where c (i1) holds and then goes on behind it; may end the
        instruction."""

    @abstractmethod
    def get(self, name: str, ty: str = "i64") -> Value:
        """A named field of the CPU state (engine/layout.py), e.g. "fpcr"."""

    @abstractmethod
    def put(self, name: str, value: Value | int, ty: str = "i64") -> None:
        """Write a named field of the CPU state."""

    # -- registers --------------------------------------------------------------------------
    @abstractmethod
    def X(self, r: Field | int, ty: str = "i64") -> Value:
        """X[r] (low bits as ty: i8 to i64); register 31 is zero."""

    @abstractmethod
    def set_X(self, r: Field | int, v: Value) -> None:
        """X[r] = ZeroExtend(v); register 31 discards."""

    @abstractmethod
    def XSP(self, r: Field | int, ty: str = "i64") -> Value:
        """As X, but register 31 is SP."""

    @abstractmethod
    def set_XSP(self, r: Field | int, v: Value) -> None:
        """As set_X, but register 31 is SP."""

    @abstractmethod
    def base(self, r: Field | int) -> Value:
        """XSP[r] as the base of a memory access: CheckSPAlignment() where r is 31."""

    @abstractmethod
    def V(self, r: Field | int, ty: str) -> Value:
        """V[r] read as ty (8 to 128 bits, from bit 0; a scalar or a vector type). Any arithmetic on
        Field r is allowed: m.V((Rt + 1) & 31, ...)."""

    @abstractmethod
    def set_V(self, r: Field | int, v: Value) -> None:
        """V[r] = ZeroExtend(v, 128)."""

    @abstractmethod
    def V_elem(self, r: Field | int, offset: Field | int, ty: str) -> Value:
        """The element of scalar type ty at byte `offset` of V[r]."""

    @abstractmethod
    def set_V_elem(self, r: Field | int, offset: Field | int, v: Value) -> None:
        """Replace the element at byte `offset` of V[r]; other bits stay."""

    @abstractmethod
    def pc(self) -> Value:
        """The address of this instruction."""

    @abstractmethod
    def page(self) -> Value:
        """PC with bits [11:0] zero."""

    # -- PSTATE -----------------------------------------------------------------------------
    @abstractmethod
    def set_flags_add(self, x: Value, y: Value, result: Value) -> None:
        """PSTATE.NZCV of x + y (no carry in)."""

    @abstractmethod
    def set_flags_sub(self, x: Value, y: Value, result: Value) -> None:
        """PSTATE.NZCV of x - y."""

    @abstractmethod
    def set_flags_logic(self, result: Value) -> None:
        """PSTATE.NZCV of a logical result: C and V are cleared."""

    @abstractmethod
    def set_flags(self, nz: Value, c: Value, v: Value) -> None:
        """N and Z from the value nz (i32 or i64), C and V from i1 values."""

    @abstractmethod
    def set_nzcv(self, nzcv: Value) -> None:
        """All four flags from an i64 with N at bit 3 and V at bit 0."""

    @abstractmethod
    def nzcv(self) -> Value:
        """The four flags as an i64, N at bit 3."""

    @abstractmethod
    def carry(self) -> Value:
        """PSTATE.C as an i64, 0 or 1."""

    @abstractmethod
    def condition_holds(self, cond: int) -> Value:
        """ConditionHolds(cond), i1."""

    # -- memory -----------------------------------------------------------------------------
    @abstractmethod
    def load(
        self, address: Value, ty: str, *, acc: str = "normal", one: Transfer | None = None
    ) -> Value:
        """Mem[address] of type ty. acc: "normal"; "unpriv" (LDTR: as EL0); "ordered"
        (acquire/release, exclusive: an unaligned address faults). `one`: what an abort's syndrome
        says of it; without, there is none (pairs, SIMD&FP, exclusives, writeback)."""

    @abstractmethod
    def store(
        self, address: Value, value: Value, *, acc: str = "normal", one: Transfer | None = None
    ) -> None:
        """Mem[address] = value."""

    @abstractmethod
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
        """Check `size` bytes (up to 64) at address as one access, for instructions that touch
        several registers (LDP, LD4) or read and write (write=True allows both). `align`:
        alignment that always faults when missed (1: none); `elem`: element size, the alignment that
        Device memory and SCTLR_EL1.A ask for. acc also takes
        "atomic": read and written as one (an abort is a read's where reading alone would have met
        it); "cache": maintenance by address, no data moved; "icache": that of the instruction
        cache; and "zero": DC ZVA, the span being the block that holds the address."""

    # -- branches ---------------------------------------------------------------------------
    @abstractmethod
    def branch(self, offset: Field, *, link: bool = False, cond: Value | None = None) -> None:
        """PC += offset (bytes, signed 64-bit expression); link sets X30; ends the instruction."""

    @abstractmethod
    def branch_to(self, target: Value, *, link: bool = False) -> None:
        """PC = target (indirect); ends the instruction."""

    # -- exceptions and system --------------------------------------------------------------
    @abstractmethod
    def undefined(self) -> None:
        """UNDEFINED at run time: exception with EC 0; ends the instruction."""

    @abstractmethod
    def ask(self, name: str, *args: Value) -> Value:
        """Call the engine's function `name` (engine/native) on this CPU; i64 arguments, i64
        result."""

    @abstractmethod
    def tell(self, name: str, *args: Value) -> None:
        """Call the engine's function `name` that has no result."""

    @abstractmethod
    def count(self) -> Value:
        """Instructions retired before this one."""

    @abstractmethod
    def finish(self, name: str, *args: Value) -> None:
        """Leave to the engine's routine `name` (system instructions: "svc", "eret", ...); ends the
        instruction."""

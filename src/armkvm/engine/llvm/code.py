"""Functions with the handler signature: what instruction handlers and the engine's routines share.

`preserve_nonecc void f(ptr cpu, ptr op, i64 acc)`: `op` is a record, acc + op is 32 times the
number of instructions retired before it. Such a function ends in a musttail call of another one,
or leaves to the run loop.
"""

from __future__ import annotations

from collections.abc import Callable

from armkvm.engine import layout
from armkvm.engine.llvm.ir import Function, Pointer, Symbol
from armkvm.isa.value import Value

CC = "preserve_nonecc"
PARAMS = "ptr noalias %cpu, ptr %op, i64 %acc"
HANDLER, SLOW = "#0", "#3"  # attributes


class Code(Function):
    """A function with the handler signature, under construction."""

    def __init__(self) -> None:
        super().__init__()
        self.op = Pointer(self, "%op")
        self.acc = Value(self, "i64", "%acc")

    def tail(self, to: Routine, op: Pointer | None = None, acc: Value | None = None) -> None:
        """musttail call of a routine of the module; ends the block."""
        self.needs(to.name, to.prototype)
        self._tail(to.ref, self.op if op is None else op, acc)

    def dispatch(self, op: Pointer, acc: Value | None = None) -> None:
        """Go on at the record `op`."""
        self._tail(op.load_pointer().ref, op, acc)

    def _tail(self, ref: str, op: Pointer, acc: Value | None) -> None:
        acc = self.acc if acc is None else acc
        self.line(f"musttail call {CC} void {ref}({self.cpu!r}, {op!r}, {acc!r})")
        self.ret()

    def next(self) -> None:
        """Go on at the following instruction."""
        self.dispatch(self.op + layout.RECORD)

    def leave(self, code: int, op: Pointer | None = None) -> None:
        """Return to the run loop with an exit code; op and acc say where and when."""
        self.put("exit_code", code)
        self.field("exit_op").store_pointer(self.op if op is None else op)
        self.put("exit_acc", self.acc)
        self.ret()

    def pc(self) -> Value:
        """This instruction's address: pc_base + op / 8 (a record is 8 times an instruction)."""
        return self.op.address().lshr(3) + self.get("pc_base")

    def retired(self) -> Value:
        """32 times the instructions retired when this one is done."""
        return self.op.address() + self.acc + layout.RECORD

    def jump(self, target: Value, retired: Value) -> None:
        """Go on at a guest virtual address, `retired` as above."""
        self.tail(lookup, self.pointer(target), retired)


class Routine(Symbol):
    """The handle of a routine: a function with the handler signature that handlers tail-call.

    Without a body it is one whose body is elsewhere.
    """

    prototype = "routine"

    def __init__(self, name: str, body: Callable[[Code], None] | None = None) -> None:
        super().__init__(name)
        self.body, self.home = body, body.__module__ if body else ""
        self.defined = body is not None

    def head(self, attributes: str = HANDLER) -> str:
        """What comes before its body in LLVM."""
        return f"define internal {CC} void @{self.name}({PARAMS}) {attributes}"

    def write(self) -> tuple[str, Function]:
        """Its head and its body."""
        fn = Code()
        if self.body:
            self.body(fn)
        if not fn.ended:
            fn.next()
        return self.head(), fn


def routine(body: Callable[[Code], None]) -> Routine:
    """A routine; where its body ends, the following instruction is next."""
    return Routine(body.__name__, body)


def routine_as(name: str) -> Callable[[Callable[[Code], None]], Routine]:
    """`routine` under a name that is made up of parts."""
    return lambda body: Routine(name, body)


def enter_code(fn: Function, at: Routine | Pointer, op: Pointer, acc: Value) -> None:
    """Call guest code from a native function; it returns when it leaves to the run loop."""
    if isinstance(at, Routine):
        fn.needs(at.name, at.prototype)
    fn.line(f"call {CC} void {at.ref}({fn.cpu!r}, {op!r}, {acc!r})")


lookup = Routine("lookup")  # native/control.py: op is the target address, acc what retired

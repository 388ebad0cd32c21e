"""Functions with the handler signature: what instruction handlers and the engine's routines share.

`preserve_nonecc void f(ptr cpu, ptr op, i64 acc)`: `op` is a record, acc + op is 32 times the
number of instructions retired before it. Such a function ends in a musttail call of another one,
or leaves to the run loop.
"""

from __future__ import annotations

from armkvm.engine import layout
from armkvm.engine.llvm.ir import CPU, Function
from armkvm.isa.value import Value

CC = "preserve_nonecc"
PARAMS = "ptr noalias %cpu, ptr %op, i64 %acc"


class Code(Function):
    """A function with the handler signature: what handlers and the engine's routines share."""

    def tail(self, name: str, op: str = "%op", acc: str = "%acc") -> None:
        """musttail call of a routine of the module; ends the block."""
        self.line(f"musttail call {CC} void @{name}(ptr %cpu, ptr {op}, i64 {acc})")
        self.line("ret void")
        self.ended = True

    def dispatch(self, op: str, acc: str = "%acc") -> None:
        """Go on at the record `op`."""
        h = self.emit(f"load ptr, ptr {op}, align 8, {CPU}")
        self.line(f"musttail call {CC} void {h}(ptr %cpu, ptr {op}, i64 {acc})")
        self.line("ret void")
        self.ended = True

    def next(self) -> None:
        """Go on at the following instruction."""
        self.dispatch(self.gep("%op", layout.RECORD))

    def leave(self, code: int, op: str = "%op", acc: str = "%acc") -> None:
        """Return to the run loop with an exit code; (op, acc) say where and when."""
        self.put("exit_code", code)
        self.line(f"store ptr {op}, ptr {self.field('exit_op')}, align 8, {CPU}")
        self.line(f"store i64 {acc}, ptr {self.field('exit_acc')}, align 8, {CPU}")
        self.ret()

    def field(self, name: str) -> str:
        """Pointer to a named CPU field."""
        return self.gep(self.cpu, layout.OFFSET[name])

    def op_address(self) -> Value:
        """The record's address."""
        return self.address("%op")

    def pc(self) -> Value:
        """This instruction's address: pc_base + op / 8 (a record is 8 times an instruction)."""
        return self.op_address().lshr(3) + self.get("pc_base")

    def retired(self) -> Value:
        """32 times the instructions retired when this one is done."""
        return self.op_address() + Value(self, "i64", "%acc") + layout.RECORD

    def jump(self, target: Value, retired: Value) -> None:
        """Go on at a guest virtual address, `retired` as above."""
        self.tail("lookup", self.pointer(target), retired.ref)

"""Writing LLVM functions in Python: a text builder with structured control flow.

`Function` collects the lines of one LLVM function and is the `Emitter` of the values in it. `if_`,
`else_` and `loop` give structured control; `Var` is a mutable variable (an alloca, which LLVM's
sroa turns into SSA). CPU-state accesses and guest memory carry different TBAA tags: that is what
lets LLVM keep guest registers in host registers across a guest store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from armkvm.engine import layout
from armkvm.isa.value import Value, bits, literal

CPU = "!tbaa !3"
RAM = "!tbaa !4"
LIKELY = "!prof !0"
UNLIKELY = "!prof !1"

METADATA = """
!0 = !{!"branch_weights", i32 100000, i32 1}
!1 = !{!"branch_weights", i32 1, i32 100000}
!2 = !{!"root"}
!5 = !{!"cpu", !2, i64 0}
!6 = !{!"ram", !2, i64 0}
!3 = !{!5, !5, i64 0}
!4 = !{!6, !6, i64 0}
"""


class Var:
    """A mutable variable of a function under construction."""

    def __init__(self, fn: Function, ty: str, init: Value | int) -> None:
        self.fn, self.ty = fn, ty
        fn.allocas.append(f" %v{len(fn.allocas)} = alloca {ty}")
        self.ref = f"%v{len(fn.allocas) - 1}"
        self.set(init)

    def get(self) -> Value:
        """The present value."""
        return Value(self.fn, self.ty, self.fn.emit(f"load {self.ty}, ptr {self.ref}"))

    def set(self, x: Value | int) -> None:
        """Assign."""
        ref = x.ref if isinstance(x, Value) else literal(self.ty, x)
        self.fn.line(f"store {self.ty} {ref}, ptr {self.ref}")


class Function:
    """The lines of one LLVM function."""

    def __init__(self, cpu: str = "%cpu") -> None:
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.cpu = cpu
        self.ended = False
        self._names = 0
        self._labels = 0
        self._block = "entry"

    # -- lines ------------------------------------------------------------------------------
    def emit(self, text: str) -> str:
        """Append an instruction that has a result; returns its name."""
        self._names += 1
        name = f"%t{self._names}"
        if not self.ended:  # behind the end of a block nothing happens
            self.lines.append(f" {name} = {text}")
        return name

    def line(self, text: str) -> None:
        """Append an instruction without a result."""
        if not self.ended:
            self.lines.append(f" {text}")

    def label(self) -> str:
        """A fresh label."""
        self._labels += 1
        return f"L{self._labels}"

    def place(self, label: str) -> None:
        """Start the block of that label."""
        self.lines.append(f"{label}:")
        self._block = label
        self.ended = False

    def body(self) -> str:
        """The text between the braces."""
        return "\n".join(["entry:", *self.allocas, *self.lines])

    # -- values -----------------------------------------------------------------------------
    def const(self, ty: str, x: int | float) -> Value:
        """A constant of type ty."""
        return Value(self, ty, literal(ty, x))

    def value(self, ty: str, text: str) -> Value:
        """The result of an instruction given as text."""
        return Value(self, ty, self.emit(text))

    def var(self, ty: str, init: Value | int) -> Var:
        """A mutable variable."""
        return Var(self, ty, init)

    def select(self, c: Value, a: Value | int | float, b: Value | int | float) -> Value:
        """a where c, else b."""
        typed = a if isinstance(a, Value) else b
        if not isinstance(typed, Value):
            raise TypeError("select needs a typed side")
        x, y = typed.operand(a), typed.operand(b)
        return self.value(typed.ty, f"select {c!r}, {typed.ty} {x}, {typed.ty} {y}")

    def intrinsic(self, name: str, ty: str, *args: Value | bool) -> Value:
        """Call an LLVM intrinsic (declared on first use by the module)."""
        text = [repr(a) if isinstance(a, Value) else f"i1 {str(a).lower()}" for a in args]
        kinds = [a.ty if isinstance(a, Value) else "i1" for a in args]
        INTRINSICS[name] = f"declare {ty} @{name}({', '.join(kinds)})"
        call = f"call {ty} @{name}({', '.join(text)})"
        if ty == "void":
            self.line(call)
            return Value(self, "i1", "false")
        return self.value(ty, call)

    # -- memory -----------------------------------------------------------------------------
    def gep(self, base: str, offset: Value | int) -> str:
        """base + offset bytes, as a ptr."""
        if isinstance(offset, int):
            return base if offset == 0 else self.emit(f"getelementptr i8, ptr {base}, i64 {offset}")
        return self.emit(f"getelementptr i8, ptr {base}, i64 {offset.ref}")

    def pointer(self, address: Value) -> str:
        """An i64 as a ptr."""
        return self.emit(f"inttoptr i64 {address.ref} to ptr")

    def address(self, ptr: str) -> Value:
        """A ptr as an i64."""
        return self.value("i64", f"ptrtoint ptr {ptr} to i64")

    def load_at(self, ptr: str, ty: str, tag: str = CPU, align: int = 0) -> Value:
        """Read host memory."""
        align = align or min(max(bits(ty) // 8, 1), 8)
        return self.value(ty, f"load {ty}, ptr {ptr}, align {align}, {tag}")

    def store_at(self, ptr: str, v: Value, tag: str = CPU, align: int = 0) -> None:
        """Write host memory."""
        align = align or min(max(v.bits // 8, 1), 8)
        self.line(f"store {v!r}, ptr {ptr}, align {align}, {tag}")

    def get(self, name: str, ty: str = "i64") -> Value:
        """A named field of the CPU state."""
        return self.load_at(self.gep(self.cpu, layout.OFFSET[name]), ty)

    def put(self, name: str, value: Value | int, ty: str = "i64") -> None:
        """Write a named field of the CPU state."""
        v = value if isinstance(value, Value) else self.const(ty, value)
        self.store_at(self.gep(self.cpu, layout.OFFSET[name]), v)

    def load_atomic(self, name: str, order: str) -> Value:
        """A field of the CPU state that other threads write: "acquire" or "monotonic"."""
        ptr = self.gep(self.cpu, layout.OFFSET[name])
        return self.value("i64", f"load atomic i64, ptr {ptr} {order}, align 8")

    def store_atomic(self, name: str, value: Value, order: str) -> None:
        """Write a field of the CPU state that other threads read or write."""
        ptr = self.gep(self.cpu, layout.OFFSET[name])
        self.line(f"store atomic i64 {value.ref}, ptr {ptr} {order}, align 8")

    # -- control ----------------------------------------------------------------------------
    def goto(self, label: str) -> None:
        """Branch, unless the block has ended."""
        if not self.ended:
            self.line(f"br label %{label}")
            self.ended = True

    def branch_on(self, c: Value, yes: str, no: str, weight: str = "") -> None:
        """Two-way branch."""
        self.line(f"br {c!r}, label %{yes}, label %{no}" + (f", {weight}" if weight else ""))
        self.ended = True

    @contextmanager
    def if_(self, c: Value, weight: str = "") -> Iterator[None]:
        """A block that runs where c holds."""
        yes, join = self.label(), self.label()
        self.branch_on(c, yes, join, weight)
        self.place(yes)
        yield
        self.goto(join)
        self.place(join)

    @contextmanager
    def unless(self, c: Value, weight: str = "") -> Iterator[None]:
        """A block that runs where c does not hold."""
        with self.if_(~c, weight):
            yield

    @contextmanager
    def loop(self) -> Iterator[Loop]:
        """An endless loop; leave it by `break_if`, `ret` or a tail call."""
        loop = Loop(self, self.label(), self.label())
        self.goto(loop.head)
        self.place(loop.head)
        yield loop
        self.goto(loop.head)
        self.place(loop.out)

    @contextmanager
    def range(self, n: int | Value) -> Iterator[Value]:
        """A counted loop; gives the index as an i64."""
        i = self.var("i64", 0)
        with self.loop() as loop:
            ix = i.get()
            loop.break_if(ix.uge(n))
            yield ix
            i.set(ix + 1)

    def ret(self, v: Value | int | None = None, ty: str = "i64") -> None:
        """Return."""
        if v is None:
            self.line("ret void")
        else:
            self.line(f"ret {v!r}" if isinstance(v, Value) else f"ret {ty} {literal(ty, v)}")
        self.ended = True

    def call(self, name: str, ty: str, *args: Value | str) -> Value:
        """Call a native function of the module (C calling convention)."""
        text = ", ".join(a if isinstance(a, str) else repr(a) for a in args)
        if ty == "void":
            self.line(f"call void @{name}({text})")
            return Value(self, "i1", "false")
        if ty == "ptr":
            return Value(self, "ptr", self.emit(f"call ptr @{name}({text})"))
        return self.value(ty, f"call {ty} @{name}({text})")


class Loop:
    """Labels of an open loop."""

    def __init__(self, fn: Function, head: str, out: str) -> None:
        self.fn, self.head, self.out = fn, head, out

    def break_if(self, c: Value) -> None:
        """Leave the loop where c holds."""
        go = self.fn.label()
        self.fn.branch_on(c, self.out, go)
        self.fn.place(go)

    def again_if(self, c: Value) -> None:
        """Back to the head where c holds."""
        go = self.fn.label()
        self.fn.branch_on(c, self.head, go)
        self.fn.place(go)


INTRINSICS: dict[str, str] = {}

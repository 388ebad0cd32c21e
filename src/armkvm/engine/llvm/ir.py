"""Writing LLVM functions in Python: a text builder with structured control flow.

`Function` collects the lines of one LLVM function and is the `Emitter` of the values in it: numbers
are a `Value`, addresses a `Pointer`. `if_`, `unless`, `loop` and `range` give structured control;
`Var` is a mutable variable (an alloca, which LLVM's sroa turns into SSA). CPU-state accesses and
guest memory carry different TBAA tags: that is what lets LLVM keep guest registers in host
registers across a guest store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


class Symbol:
    """What a module calls by name: a function, a routine, a constant."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def ref(self) -> str:
        """LLVM's spelling of its address."""
        return f"@{self.name}"

    def __repr__(self) -> str:
        return f"ptr {self.ref}"


class Pointer:
    """An address in host memory. `p + 8` is eight bytes further.

    `get` and `put` are for the tables and structs of 64-bit words that the engine is made of:
    `entry.put(layout.SEG_HOST, address)`.
    """

    __slots__ = ("fn", "ref")
    ty = "ptr"

    def __init__(self, fn: Function, ref: str) -> None:
        self.fn, self.ref = fn, ref

    def __repr__(self) -> str:
        return f"ptr {self.ref}"

    def __bool__(self) -> bool:
        raise TypeError("a run-time pointer has no truth while tracing: use is_null()")

    def __add__(self, offset: Value | int) -> Pointer:
        if isinstance(offset, int):
            if offset == 0:
                return self
            offset = self.fn.i64(offset)
        return Pointer(self.fn, self.fn.emit(f"getelementptr i8, {self!r}, {offset!r}"))

    def address(self) -> Value:
        """The address as an i64."""
        return self.fn.value("i64", f"ptrtoint {self!r} to i64")

    def eq(self, other: Pointer | Symbol) -> Value:
        """The same address."""
        return self.fn.value("i1", f"icmp eq {self!r}, {other.ref}")

    def ne(self, other: Pointer | Symbol) -> Value:
        """Another address."""
        return self.fn.value("i1", f"icmp ne {self!r}, {other.ref}")

    def is_null(self) -> Value:
        """The null pointer."""
        return self.eq(self.fn.null())

    def load(self, ty: str = "i64", tag: str = CPU, align: int = 0) -> Value:
        """What is there, as ty."""
        align = align or min(max(bits(ty) // 8, 1), 8)
        return self.fn.value(ty, f"load {ty}, {self!r}, align {align}, {tag}")

    def store(self, v: Value, tag: str = CPU, align: int = 0) -> None:
        """Write v there."""
        align = align or min(max(v.bits // 8, 1), 8)
        self.fn.line(f"store {v!r}, {self!r}, align {align}, {tag}")

    def get(self, offset: int) -> Value:
        """The u64 at that offset in bytes."""
        return (self + offset).load()

    def put(self, offset: int, v: Value | int) -> None:
        """Write the u64 at that offset in bytes."""
        (self + offset).store(v if isinstance(v, Value) else self.fn.i64(v))

    def load_pointer(self) -> Pointer:
        """The pointer that is there."""
        return Pointer(self.fn, self.fn.emit(f"load ptr, {self!r}, align 8, {CPU}"))

    def store_pointer(self, p: Pointer | Symbol) -> None:
        """Write a pointer there."""
        self.fn.line(f"store {p!r}, {self!r}, align 8, {CPU}")


class Var:
    """A mutable variable of a function under construction."""

    def __init__(self, fn: Function, ty: str, init: Value | int | None) -> None:
        self.ty = ty
        fn.allocas.append(f" %v{len(fn.allocas)} = alloca {ty}")
        self.at = Pointer(fn, f"%v{len(fn.allocas) - 1}")
        if init is not None:
            self.set(init)

    def get(self) -> Value:
        """The present value."""
        return self.at.fn.value(self.ty, f"load {self.ty}, {self.at!r}")

    def set(self, x: Value | int) -> None:
        """Assign."""
        ref = x.ref if isinstance(x, Value) else literal(self.ty, x)
        self.at.fn.line(f"store {self.ty} {ref}, {self.at!r}")


class Function:
    """The lines of one LLVM function, and what it asks of its module."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.calls: dict[str, str] = {}  # prototype by name
        self.intrinsics: dict[str, str] = {}  # declaration by name
        self.cpu = Pointer(self, "%cpu")
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

    def i64(self, x: int) -> Value:
        """A constant of 64 bits."""
        return self.const("i64", x)

    def null(self) -> Pointer:
        """The null pointer."""
        return Pointer(self, "null")

    def pointer(self, address: Value) -> Pointer:
        """An i64 as a pointer."""
        return Pointer(self, self.emit(f"inttoptr {address!r} to ptr"))

    def symbol(self, s: Symbol) -> Pointer:
        """The address of a function or a constant of the module."""
        return Pointer(self, s.ref)

    def value(self, ty: str, text: str) -> Value:
        """The result of an instruction given as text."""
        return Value(self, ty, self.emit(text))

    def var(self, ty: str, init: Value | int | None) -> Var:
        """A mutable variable; None leaves it undefined."""
        return Var(self, ty, init)

    def select(self, c: Value, a: Value | int | float, b: Value | int | float) -> Value:
        """a where c, else b."""
        typed = a if isinstance(a, Value) else b
        if not isinstance(typed, Value):
            raise TypeError("select needs a typed side")
        x, y = typed.operand(a), typed.operand(b)
        return self.value(typed.ty, f"select {c!r}, {typed.ty} {x}, {typed.ty} {y}")

    def choose(self, c: Value, a: Pointer | Symbol, b: Pointer | Symbol) -> Pointer:
        """`select` for pointers."""
        return Pointer(self, self.emit(f"select {c!r}, {a!r}, {b!r}"))

    # -- the CPU state ----------------------------------------------------------------------
    def field(self, name: str) -> Pointer:
        """Pointer to a named field."""
        return self.cpu + layout.OFFSET[name]

    def get(self, name: str, ty: str = "i64") -> Value:
        """A named field."""
        return self.field(name).load(ty)

    def put(self, name: str, value: Value | int, ty: str = "i64") -> None:
        """Write a named field."""
        v = value if isinstance(value, Value) else self.const(ty, value)
        self.field(name).store(v)

    def load_atomic(self, name: str, order: str) -> Value:
        """A field that other threads write: "acquire" or "monotonic"."""
        return self.value("i64", f"load atomic i64, {self.field(name)!r} {order}, align 8")

    def store_atomic(self, name: str, value: Value, order: str) -> None:
        """Write a field that other threads read or write."""
        self.line(f"store atomic {value!r}, {self.field(name)!r} {order}, align 8")

    def fence(self) -> None:
        """A full barrier."""
        self.line("fence seq_cst")

    # -- calls ------------------------------------------------------------------------------
    def needs(self, name: str, prototype: str) -> None:
        """The module must have a function of that name and type."""
        if not self.ended:
            self.calls[name] = prototype

    def intrinsic(self, name: str, ty: str, *args: Value | Pointer | bool) -> Value:
        """Call an LLVM intrinsic; a bool is an immediate."""
        text = [f"i1 {str(a).lower()}" if isinstance(a, bool) else repr(a) for a in args]
        kinds = ["i1" if isinstance(a, bool) else a.ty for a in args]
        self.intrinsics[name] = f"declare {ty} @{name}({', '.join(kinds)})"
        return self._call(f"@{name}", ty, text)

    def call(self, name: str, ty: str, *args: Value | Pointer) -> Value:
        """Call a function of the module by its name, returning ty. See llvm/native.py."""
        self.needs(name, prototype(ty, (a.ty for a in args)))
        return self._call(f"@{name}", ty, map(repr, args))

    def call_at(self, target: Pointer, ty: str, *args: Value | Pointer) -> Value:
        """Call the function at that address."""
        return self._call(target.ref, ty, map(repr, args))

    def _call(self, ref: str, ty: str, args: Iterable[str]) -> Value:
        call = f"call {ty} {ref}({', '.join(args)})"
        if ty == "void":
            self.line(call)
            return Value(self, "i1", "poison")
        return self.value(ty, call)

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

    def ret(self, v: Value | Pointer | int | None = None) -> None:
        """Return; a Python number as an i64."""
        v = self.i64(v) if isinstance(v, int) else v
        self.line("ret void" if v is None else f"ret {v!r}")
        self.ended = True

    def unreachable(self) -> None:
        """Nothing comes here."""
        self.line("unreachable")
        self.ended = True


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


def prototype(ty: str, parameters: Iterable[str]) -> str:
    """A function's type, as LLVM writes it."""
    return f"{ty} ({', '.join(parameters)})"


def bit(x: Value, n: int) -> Value:
    """Bit n of x as 0 or 1."""
    return x.lshr(n) & 1


def flag(x: Value, mask: int) -> Value:
    """True where x has any bit of the mask, as an i1."""
    return (x & mask).ne(0)

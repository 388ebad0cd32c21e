"""Native functions of the engine that are not handlers: C calling convention, the CPU first.

`native("name", "i64 %va, i64 %flags")` opens a function for the Python code below it to fill:

    with native("walk", "i64 %va", ret="i64") as fn: ...

Everything entered here, and the routines of `routine()` (handler signature), becomes one LLVM
module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from armkvm.engine import layout
from armkvm.engine.llvm.code import CC, PARAMS, Code
from armkvm.engine.llvm.ir import Function
from armkvm.isa.value import Value

TEXTS: list[str] = []


@contextmanager
def native(
    name: str, params: str, *, ret: str = "void", public: bool = False
) -> Iterator[Function]:
    """A native function `ret name(ptr %cpu, params)`."""
    fn = Function()
    yield fn
    if not fn.ended:
        if ret == "void":
            fn.ret()
        else:
            fn.line("unreachable")
    linkage = "" if public else "internal "
    head = f"define {linkage}{ret} @{name}(ptr %cpu{', ' if params else ''}{params}) #1 {{"
    TEXTS.append(f"{head}\n{fn.body()}\n}}")


@contextmanager
def routine(name: str) -> Iterator[Code]:
    """A routine with the handler signature that handlers tail-call."""
    fn = Code()
    yield fn
    if not fn.ended:
        fn.next()
    TEXTS.append(f"define internal {CC} void @{name}({PARAMS}) #0 {{\n{fn.body()}\n}}")


def param(fn: Function, name: str) -> Value:
    """An i64 parameter."""
    return Value(fn, "i64", f"%{name}")


def field_at(fn: Function, base: str, offset: int) -> Value:
    """The u64 at base + offset."""
    return fn.load_at(fn.gep(base, offset), "i64")


def set_field_at(fn: Function, base: str, offset: int, v: Value | int) -> None:
    """Write the u64 at base + offset."""
    fn.store_at(fn.gep(base, offset), v if isinstance(v, Value) else fn.const("i64", v))


def cpu_array(fn: Function, offset: int) -> Value:
    """The address of something inside the CPU struct."""
    return fn.address(fn.gep("%cpu", offset))


def bit(x: Value, n: int) -> Value:
    """Bit n of x as 0 or 1."""
    return x.lshr(n) & 1


def flag(x: Value, mask: int) -> Value:
    """True where x has any bit of the mask, as an i1."""
    return (x & mask).ne(0)


def stage2(fn: Function) -> str:
    """Pointer to the VM's stage-2 table."""
    return fn.pointer(fn.get("stage2"))


def page_of(fn: Function, address: Value) -> Value:
    """The address with its page offset cleared."""
    return address & layout.PAGE_MASK

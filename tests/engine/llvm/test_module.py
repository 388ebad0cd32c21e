"""Modules of the builder's own: what is written runs, and what does not fit is refused."""

from __future__ import annotations

import ctypes
import types

import llvmlite.binding as llvm
import pytest

from armkvm.engine import build, layout
from armkvm.engine.llvm.code import Code, Routine, routine
from armkvm.engine.llvm.ir import Function, Pointer, bit, flag
from armkvm.engine.llvm.module import Module, definitions
from armkvm.engine.llvm.native import declared, exported, native, native_as
from armkvm.isa.value import Value


def returned(*arguments: int, module: Module, name: str = "main") -> int:
    """What a function of the module returns, run on this machine."""
    machine = build.native_target()
    ee = llvm.create_mcjit_compiler(llvm.parse_assembly(module.text()), machine, use_lmm=True)
    ee.finalize_object()
    u64 = ctypes.c_uint64
    run = ctypes.CFUNCTYPE(u64, *[u64] * len(arguments))(ee.get_function_address(name))
    return int(run(*arguments))


@native
def half(fn: Function, x: Value) -> Value:
    """x / 2."""
    return x.lshr(1)


@native
def later(fn: Function, p: Pointer, n: Value) -> Pointer:
    """The nth u64 behind p, or null for the first."""
    with fn.if_(n.eq(0)):
        fn.ret(fn.null())
    return p + (n << 3)


@native
def count(fn: Function, p: Pointer) -> None:
    """One more."""
    p.put(0, p.get(0) + 1)


def test_a_handle_is_called() -> None:
    @exported
    def main(fn: Function, p: Pointer, x: Value) -> Value:
        with fn.range(3):
            count(fn, p)
        with fn.unless(later(fn, p, fn.i64(0)).is_null()):
            fn.ret(1)
        second = later(fn, p, fn.i64(1))
        return half(fn, x) + p.get(0) * 100 + second.get(0) * 1000

    module = Module()
    module.define(half, later, count, main)
    memory = (ctypes.c_uint64 * 2)(4, 6)
    assert returned(0, ctypes.addressof(memory), 9, module=module) == 4 + 700 + 6000
    assert [*memory] == [7, 6]


def test_a_call_is_for_the_callers_cpu_or_for_another() -> None:
    @native
    def exits(fn: Function) -> Value:
        return fn.get("exit_code")

    @exported
    def main(fn: Function, other: Pointer) -> Value:
        fn.put("exit_code", 5)
        return exits(fn) * 10 + exits.on(other)

    module = Module()
    module.define(exits, main)
    one, two = (ctypes.create_string_buffer(layout.V_OFFSET) for _ in range(2))
    ctypes.c_uint64.from_buffer(two, layout.OFFSET["exit_code"]).value = 3
    assert returned(ctypes.addressof(one), ctypes.addressof(two), module=module) == 53


def test_pointers_to_functions_and_constants() -> None:
    @native
    def twice(fn: Function, x: Value) -> Value:
        return x << 1

    module = Module()
    table = module.constant("table", "ptr", [half.ref, twice.ref, "null"])

    @exported
    def main(fn: Function, x: Value) -> Value:
        at = fn.symbol(table)
        chosen = fn.choose(flag(x, 1), at.load_pointer(), (at + 8).load_pointer())
        end = (at + 16).load_pointer()
        same = chosen.eq(half).zext("i64") + chosen.ne(half).zext("i64") * 2
        return half.at(chosen, x) * 10 + same + end.is_null().zext("i64") * 4 + bit(x, 2) * 1000

    module.define(half, twice, main)
    assert returned(0, 5, module=module) == 1000 + 20 + 1 + 4
    assert returned(0, 2, module=module) == 40 + 2 + 4


def test_one_name_is_made_of_parts() -> None:
    @native_as("read_" + "x1")
    def read(fn: Function) -> Value:
        return fn.get("x0")

    assert read.name == "read_x1"
    assert read.prototype == "i64 (ptr)"


def test_what_is_called_must_be_there() -> None:
    module = Module()

    @native
    def main(fn: Function) -> Value:
        return half(fn, fn.i64(1))

    module.define(main)
    with pytest.raises(TypeError, match=r"half is called as i64 \(ptr, i64\), and is not there"):
        module.text()


def test_what_is_declared_must_have_that_type() -> None:
    @declared
    def missing(fn: Function, x: Value) -> None:
        """Elsewhere."""

    @native_as("missing")
    def other(fn: Function, x: Value) -> Value:
        return x

    @native
    def main(fn: Function) -> None:
        missing(fn, fn.i64(1))

    module = Module()
    module.define(other, main)
    with pytest.raises(TypeError, match=r"missing is called as void .*, and is i64 "):
        module.text()


def test_a_tail_call_must_reach_a_routine() -> None:
    @routine
    def here(fn: Code) -> None:
        fn.tail(Routine("half"))

    module = Module()
    module.define(half, here)
    with pytest.raises(TypeError, match=r"half is called as routine, and is i64"):
        module.text()


def test_behind_the_end_of_a_block_nothing_is_called() -> None:
    @native
    def main(fn: Function) -> None:
        fn.ret()
        half(fn, fn.i64(1))

    module = Module()
    module.define(main)
    assert "half" not in module.text()


def test_llvm_knows_no_keywords() -> None:
    with pytest.raises(TypeError, match="half: LLVM knows no keywords"):
        half(Function(), x=Function().i64(1))


def test_a_pointer_has_no_truth() -> None:
    with pytest.raises(TypeError, match="use is_null"):
        bool(Function().null())


FILE = """
from armkvm.engine.llvm.code import Routine, lookup, routine
from armkvm.engine.llvm.ir import Function, Symbol
from armkvm.engine.llvm.native import declared, native
from tests.engine.llvm.test_module import half

after = Routine("after")
table = Symbol("table")

@native
def second(fn: Function) -> None: ...

@declared
def elsewhere(fn: Function) -> None: ...

@routine
def first(fn): ...

REST = [native(second.body)]
"""


def test_definitions_of_a_file() -> None:
    """Its own, in its order, alone or in lists; not what it imports or only declares."""
    file = types.ModuleType("somewhere")
    exec(FILE, vars(file))
    assert [d.name for d in definitions(file)] == ["second", "first", "second"]

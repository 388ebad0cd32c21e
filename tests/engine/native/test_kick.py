"""A kick from another thread against the limit of a run that begins: neither may be lost.

On x86-64 the two meet for real, a few hundred thousand times, as a litmus test: the code of both
sides is the engine's own. For Arm the generated assembly is read: each of the named places has its
barrier or its acquire or release. Taking any of them away fails a test, and here it is taken away.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import llvmlite.binding as llvm
import pytest

from armkvm.engine import build, layout
from armkvm.engine.hosts import aarch64
from armkvm.engine.llvm.ir import Function
from armkvm.engine.llvm.module import Module
from armkvm.engine.llvm.native import exported
from armkvm.engine.native import control
from armkvm.isa.all import forms
from armkvm.isa.value import Value

ROUNDS = 200_000
LIMIT = 1 << 40
LIMIT32 = layout.OFFSET["limit32"]


# -- the litmus test ------------------------------------------------------------------------


def meet(fn: Function, mine: str, other: str, i: Value) -> None:
    """Both threads are here in round i."""
    fn.store_atomic(mine, i, "release")
    with fn.loop() as wait:
        wait.break_if(fn.load_atomic(other, "acquire").uge(i))


def hesitate(fn: Function, steps: Value) -> None:
    """A few nanoseconds, so that the two sides meet at every distance."""
    with fn.range(steps):
        fn.load_atomic("arg0", "monotonic")


@exported
def runner(fn: Function, n: Value) -> Value:
    """One thread: how many kicks were lost in n rounds."""
    lost = fn.var("i64", 0)
    with fn.range(n) as i:
        fn.store_atomic("kick", fn.i64(0), "monotonic")
        fn.store_atomic("limit32", fn.i64(0), "monotonic")
        meet(fn, "arg0", "arg1", i + 1)
        hesitate(fn, (i * 7) & 63)
        control.publish_limit(fn, fn.i64(LIMIT))
        meet(fn, "arg2", "arg3", i + 1)
        with fn.if_(fn.load_atomic("limit32", "monotonic").ne(0)):
            lost.set(lost.get() + 1)
    return lost.get()


@exported
def kicker(fn: Function, n: Value) -> None:
    """The other thread."""
    with fn.range(n) as i:
        meet(fn, "arg1", "arg0", i + 1)
        hesitate(fn, (i.lshr(6) * 5) & 63)
        control.kick(fn)
        meet(fn, "arg3", "arg2", i + 1)


def lost_kicks() -> int:
    """Of ROUNDS."""
    module = Module()
    module.define(control.kick, runner, kicker)
    machine = build.native_target()
    ee = llvm.create_mcjit_compiler(llvm.parse_assembly(module.text()), machine, use_lmm=True)
    ee.finalize_object()
    memory = ctypes.create_string_buffer(layout.V_OFFSET)
    cpu = ctypes.addressof(memory)
    u64 = ctypes.c_uint64
    run = ctypes.CFUNCTYPE(u64, u64, u64)(ee.get_function_address(runner.name))
    kick = ctypes.CFUNCTYPE(None, u64, u64)(ee.get_function_address(kicker.name))
    thread = threading.Thread(target=kick, args=(cpu, ROUNDS))
    thread.start()
    lost = int(run(cpu, ROUNDS))
    thread.join()
    return lost


@contextmanager
def without(taken: str, nth: int | None = None) -> Iterator[None]:
    """The engine's code without its barriers, acquires or releases, or without the nth of them."""
    original = Function.line, Function.emit
    seen = 0

    def is_it() -> bool:
        nonlocal seen
        seen += 1
        return nth is None or nth == seen - 1

    def weaker(text: str) -> str:
        if f" {taken}, " in text and is_it():
            return text.replace(f" {taken}, ", " monotonic, ")
        return text

    def line(fn: Function, text: str) -> None:
        if not (text.startswith(taken) and is_it()):
            original[0](fn, weaker(text))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Function, "line", line)
        patch.setattr(Function, "emit", lambda fn, text: original[1](fn, weaker(text)))
        yield


def test_no_kick_is_lost() -> None:
    assert lost_kicks() == 0


def test_without_the_fence_kicks_are_lost() -> None:
    """On x86-64 a load passes the store before it; the test above can fail."""
    with without("fence"):
        assert lost_kicks() > 0


# -- what Arm gets --------------------------------------------------------------------------


@cache
def arm() -> dict[str, list[str]]:
    """The engine's functions for an arm64 host, as assembly: instructions by function."""
    return functions(build.assembly(aarch64, forms()[:1]))


def functions(text: str) -> dict[str, list[str]]:
    """The instructions between a function's label and its end, as `mnemonic operands`."""
    found: dict[str, list[str]] = {}
    for name, body in re.findall(r"^(\w+):.*?\n(.*?)^\.Lfunc_end", text, re.M | re.S):
        lines = (re.sub(r"\s*(//|;).*", "", line).strip() for line in body.split("\n"))
        found[name] = [" ".join(x.split()) for x in lines if x and x[0] not in ".$"]
    return found


def mnemonics(code: list[str]) -> list[str]:
    return [line.split()[0] for line in code]


def check_kick(code: list[str]) -> None:
    """kick is released, then a full barrier, then limit32 is released."""
    ordered = [m for m in mnemonics(code) if m in ("stlr", "str", "dmb", "stp")]
    assert ordered == ["stlr", "dmb", "stlr"]
    assert "dmb ish" in code


def check_run(code: list[str]) -> None:
    """The run loop acquires kick at its head, and once more behind a full barrier."""
    names = mnemonics(code)
    acquires = [i for i, m in enumerate(names) if m in ("ldar", "ldapr")]
    assert len(acquires) == 2
    barriers = [i for i, line in enumerate(code) if line == "dmb ish"]
    assert len(barriers) == 1
    assert acquires[0] < barriers[0] < acquires[1]
    # limit32 is stored right before the barrier.
    stores = [line for line in code[acquires[0] : barriers[0]] if line.startswith("str x")]
    assert re.search(rf"#{LIMIT32}\]", stores[-1])


def test_arm_orders_both_sides() -> None:
    check_kick(arm()["kick"])
    check_run(arm()["run"])


@pytest.mark.parametrize("nth", [0, 1])
@pytest.mark.parametrize("taken", ["fence", "acquire", "release"])
def test_arm_without_one_of_them(taken: str, nth: int) -> None:
    """The test above sees each: one side's, and the other's."""
    with without(taken, nth):
        weaker = functions(build.assembly(aarch64, forms()[:1]))

    def check() -> None:
        check_kick(weaker["kick"])
        check_run(weaker["run"])

    with pytest.raises(AssertionError):
        check()

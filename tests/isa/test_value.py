"""Run-time values: the LLVM text that operators append, and the mistakes that they refuse."""

from __future__ import annotations

import pytest

from armkvm.isa.value import Value, bits, element, lanes, literal, same_shape, vector


class Trace:
    """Collects the appended instructions."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def emit(self, text: str) -> str:
        self.lines.append(text)
        return f"%{len(self.lines)}"


@pytest.fixture
def trace() -> Trace:
    return Trace()


def test_types() -> None:
    assert [bits(t) for t in ("i1", "i64", "i128", "half", "float", "double")] == [
        1, 64, 128, 16, 32, 64,
    ]  # fmt: skip
    assert bits("<4 x float>") == bits("<16 x i8>") == 128
    assert (lanes("<4 x i32>"), lanes("i32")) == (4, 1)
    assert (element("<4 x i32>"), element("i32")) == ("i32", "i32")
    assert vector(2, "double") == "<2 x double>"
    assert same_shape("<8 x i16>", "i1") == "<8 x i1>"
    assert same_shape("i16", "i1") == "i1"


@pytest.mark.parametrize(
    ("ty", "x", "text"),
    [
        ("i8", -1, "255"), ("i64", 1 << 63, str(1 << 63)), ("i1", 1, "true"), ("i1", 0, "false"),
        ("double", 1.0, "0x3FF0000000000000"), ("float", 0.5, "0x3FE0000000000000"),
        ("half", 1.0, "0xH3C00"), ("<2 x i64>", 3, "splat (i64 3)"),
        ("<4 x float>", 2.0, "splat (float 0x4000000000000000)"),
    ],
)  # fmt: skip
def test_literals(ty: str, x: float, text: str) -> None:
    assert literal(ty, x) == text


@pytest.mark.parametrize(("ty", "x"), [("i8", 256), ("i8", -256), ("i32", 1 << 32), ("i32", 1.5)])
def test_literals_that_do_not_fit(ty: str, x: float) -> None:
    with pytest.raises(TypeError, match="does not fit"):
        literal(ty, x)


def test_arithmetic(trace: Trace) -> None:
    x, y = Value(trace, "i32", "%x"), Value(trace, "i32", "%y")
    results = [x + y, x - 1, 1 - x, x * y, x & 15, x | y, ~x, -x, x << 2, x.lshr(y), x.ashr(31)]
    assert trace.lines == [
        "add i32 %x, %y", "sub i32 %x, 1", "sub i32 1, %x", "mul i32 %x, %y", "and i32 %x, 15",
        "or i32 %x, %y", "xor i32 %x, 4294967295", "sub i32 0, %x", "shl i32 %x, 2",
        "lshr i32 %x, %y", "ashr i32 %x, 31",
    ]  # fmt: skip
    assert [repr(r) for r in results] == [f"i32 %{i + 1}" for i in range(len(results))]


def test_operations_that_cost_nothing(trace: Trace) -> None:
    """Shifts by a constant 0 and casts to the same type are the value itself."""
    x = Value(trace, "i64", "%x")
    for y in (x << 0, x.lshr(0), x.ashr(0), x | 0, x ^ 0, x.zext("i64"), x.trunc("i64")):
        assert y is x
    assert trace.lines == []


def test_comparisons(trace: Trace) -> None:
    x = Value(trace, "<4 x i32>", "%x")
    assert x.eq(0).ty == "<4 x i1>"
    assert Value(trace, "double", "%d").fcmp("uno", 0.0).ty == "i1"
    assert trace.lines == [
        "icmp eq <4 x i32> %x, splat (i32 0)", "fcmp uno double %d, 0x0000000000000000",
    ]  # fmt: skip


def test_casts(trace: Trace) -> None:
    x = Value(trace, "i8", "%x")
    assert [v.ty for v in (x.zext("i64"), x.sext("i32"), x.trunc("i1"))] == ["i64", "i32", "i1"]
    assert trace.lines == ["zext i8 %x to i64", "sext i8 %x to i32", "trunc i8 %x to i1"]


def test_lanes(trace: Trace) -> None:
    v = Value(trace, "<4 x i16>", "%v")
    assert v[2].ty == "i16"
    assert v.insert(1, 7).ty == "<4 x i16>"
    assert v.shuffle([3, 2]).ty == "<2 x i16>"
    assert Value(trace, "i8", "%b").splat(16).ty == "<16 x i8>"
    assert trace.lines[:3] == [
        "extractelement <4 x i16> %v, i32 2",
        "insertelement <4 x i16> %v, i16 7, i32 1",
        "shufflevector <4 x i16> %v, <4 x i16> poison, <2 x i32> <i32 3, i32 2>",
    ]


def test_mistakes_are_errors_while_tracing(trace: Trace) -> None:
    """Never bad code: two widths do not mix, a value has no truth."""
    x, y = Value(trace, "i32", "%x"), Value(trace, "i64", "%y")
    with pytest.raises(TypeError, match="i64 where i32 was expected"):
        x + y
    with pytest.raises(TypeError, match="i64 where i32"):
        x.eq(y)
    with pytest.raises(TypeError, match="i64 where i16"):
        Value(trace, "<4 x i16>", "%v").insert(0, y)
    with pytest.raises(TypeError, match="was expected"):
        Value(trace, "<4 x i16>", "%v").shuffle([0], Value(trace, "<2 x i32>", "%w"))
    with pytest.raises(TypeError, match="no truth"):
        bool(x)
    assert trace.lines == []

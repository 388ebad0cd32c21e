"""Native functions of the engine: Python functions that write an LLVM function, and that others
call by its handle.

    @native
    def walk(fn: Function, va: Value, flags: Value) -> Value:
        ...
        return status

    status = walk(fn, va, fn.i64(WALK_FETCH))

The first parameter is the LLVM function under construction: on the left the one that is defined, on
the right the one that calls. The others are its parameters, their annotations its type: a `Value`
is an i64, a `Pointer` a ptr. What the Python function returns the LLVM function returns, unless
`fn.ret` came first. In LLVM the CPU comes before them: `i64 walk(ptr %cpu, i64 %va, i64 %flags)`.

A handle holds no module: `Module.define` writes it into one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, get_type_hints

from armkvm.engine.llvm.ir import Function, Pointer, Symbol, prototype
from armkvm.isa.value import Value

P = ParamSpec("P")
R_co = TypeVar("R_co", bound=Value | Pointer | None, covariant=True)

UNOPTIMISED = "#2"

_TYPES = {Value: "i64", Pointer: "ptr", type(None): "void"}


class Native(Symbol, Generic[P, R_co]):
    """The handle of a native function. `defined` is False for one whose body is elsewhere."""

    def __init__(
        self,
        body: Callable[Concatenate[Function, P], R_co],
        name: str = "",
        *,
        public: bool = False,
        defined: bool = True,
        attributes: str = "#1",
    ) -> None:
        super().__init__(name or body.__name__)
        hints = get_type_hints(body)
        self.returns = _TYPES[hints.pop("return")]
        own = [*hints.items()][1:]
        self.parameters = {"%cpu": "ptr", **{f"%{name}": _TYPES[kind] for name, kind in own}}
        self.body, self.home, self.defined = body, body.__module__, defined
        self._linkage = "" if public else "internal "
        self._attributes = attributes

    def __call__(self, fn: Function, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call it from `fn`, for the same CPU."""
        return self.on(fn.cpu, *args, **kwargs)

    def on(self, cpu: Pointer, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call it for another CPU than the caller's."""
        given = self._given(args, kwargs)
        return self._result(cpu.fn, cpu.fn.call(self.name, self.returns, cpu, *given))

    def at(self, target: Pointer, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function of this type at an address."""
        fn, given = target.fn, self._given(args, kwargs)
        return self._result(fn, fn.call_at(target, self.returns, fn.cpu, *given))

    def _given(self, args: Any, kwargs: Any) -> tuple[Value | Pointer, ...]:
        if kwargs:
            raise TypeError(f"{self.name}: LLVM knows no keywords")
        return cast(tuple[Value | Pointer, ...], args)

    def _result(self, fn: Function, v: Value) -> R_co:
        if self.returns == "void":
            return cast(R_co, None)
        return cast(R_co, Pointer(fn, v.ref) if self.returns == "ptr" else v)

    @property
    def prototype(self) -> str:
        """Its type, as LLVM writes it."""
        return prototype(self.returns, self.parameters.values())

    def write(self) -> tuple[str, Function]:
        """Its head and its body."""
        fn = Function()
        named = [
            Pointer(fn, ref) if ty == "ptr" else Value(fn, ty, ref)
            for ref, ty in self.parameters.items()
        ]
        result = self.body(fn, *named[1:])  # type: ignore[arg-type, call-arg]
        if not fn.ended:
            fn.ret(result)
        parameters = ", ".join(f"{ty} {ref}" for ref, ty in self.parameters.items())
        head = f"define {self._linkage}{self.returns} @{self.name}({parameters}) {self._attributes}"
        return head, fn


def native(body: Callable[Concatenate[Function, P], R_co]) -> Native[P, R_co]:
    """A native function that only the engine calls."""
    return Native(body)


def native_as(name: str) -> Callable[[Callable[Concatenate[Function, P], R_co]], Native[P, R_co]]:
    """`native` under a name that is made up of parts."""
    return lambda body: Native(body, name)


def exported(body: Callable[Concatenate[Function, P], R_co]) -> Native[P, R_co]:
    """A native function that Python calls too."""
    return Native(body, public=True)


def declared(body: Callable[Concatenate[Function, P], R_co]) -> Native[P, R_co]:
    """A native function that a file further up defines under the same name and type."""
    return Native(body, defined=False)


def unoptimised(body: Callable[Concatenate[Function, P], R_co]) -> Native[P, R_co]:
    """A native function that runs seldom: less time in LLVM."""
    return Native(body, attributes=UNOPTIMISED)

"""An ioctl is a method: what copies its structure in and its result out, after copy_from_user().

    @ioctl(nr.KVM_IRQ_LINE, st.KvmIrqLevel)
    def irq_line(self, irq: int, level: int) -> None:

A parameter is the structure's field of the same name. Where that is not so, a keyword says what it
is: another field's name, a function of the call and the structure, `pointer` or `whole`. `arg`
names the parameter that is the ioctl's argument itself. A result is the ioctl's own; one that is a
file becomes a file descriptor, one that is a structure is copied out, and `ret` names the field
that takes it, or is a function that brings it to the client.

Both ways of calling meet the same checks: the method, called by itself, refuses what no structure
could have held with the errno of the call. EINVAL: a number that its field does not hold, or no
number; EFAULT: no structure or value where one is read. A parameter's default always passes.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

from armkvm.kvm.file import Call, File, Read, fail

F = TypeVar("F", bound=Callable[..., Any])
Get = Callable[[Call, Any], Any]  # a parameter, from the call and the structure
Put = Callable[[Call, Any, Any], None]  # the method's result goes to the client
Check = Callable[[Any], None]


class Source(NamedTuple):
    """Where a parameter comes from that is no field, and what a caller of the method may give."""

    get: Get
    check: Check


ANYTHING: Final = ""  # `arg` of an ioctl that does not look at its argument


def ioctl(
    number: int,
    struct: type[Any] | None = None,
    *,
    arg: str | None = None,
    ret: str | Put | None = None,
    **sources: str | Get | Source,
) -> Callable[[F], F]:
    """Make a method of a File the ioctl `number`, whose argument points to `struct`.

    Without `struct` and `arg` the argument has to be zero.
    """

    def decorate(method: F) -> F:
        name = method.__name__
        gets, checks = _parameters(method, struct, arg, sources)
        in_order = tuple(checks.values())

        @functools.wraps(method)
        def checked(self: File, *args: Any, **kwargs: Any) -> Any:
            for value, (default, check) in zip(args, in_order, strict=False):
                if value is not default:
                    check(value)
            for key, value in kwargs.items():
                default, check = checks.get(key, (value, _anything))
                if value is not default:
                    check(value)
            return method(self, *args, **kwargs)

        def handler(self: File, call: Call) -> int:
            if call.arg and struct is None and arg is None:
                fail(errno.EINVAL)
            it = call.struct(struct) if struct is not None else None
            bound = getattr(self, name)  # whatever stands in its place
            return _deliver(call, it, ret, bound(**{key: get(call, it) for key, get in gets}))

        cast(Any, checked).ioctl = number, handler
        return cast(F, checked)

    return decorate


def _parameters(
    method: Callable[..., Any], struct: Any, arg: str | None, sources: dict[str, str | Get | Source]
) -> tuple[list[tuple[str, Get]], dict[str, tuple[Any, Check]]]:
    """Where parameters come from; and, of all in their order, the default and the check."""
    fields = dict(getattr(struct, "_fields_", {"value": struct}))
    gets: list[tuple[str, Get]] = []
    checks: dict[str, tuple[Any, Check]] = {}
    for p in list(inspect.signature(method).parameters.values())[1:]:
        source = sources.get(p.name, p.name)
        if p.name == arg:
            source = Source(_argument, _number)
        elif isinstance(source, str) and source in fields:
            source = Source(_field(source), _holds(fields[source]))
        elif callable(source):
            source = Source(source, _anything)
        # What is left is for callers of the method only: no client of the ABI can say it.
        checks[p.name] = p.default, source.check if isinstance(source, Source) else _anything
        if isinstance(source, Source):
            gets.append((p.name, source.get))
    return gets, checks


def pointer(field: str) -> Source:
    """What a field points to, read when the method does: a `Value` of kvm/file.py."""

    def get(call: Call, struct: Any) -> Read:
        address: int = getattr(struct, field)
        return lambda size: call.ctx.read(address, size)

    return Source(get, _value)


def to_pointer(field: str, size: Callable[[Any], int]) -> Put:
    """The result is a number of `size(structure)` bytes, for where a field points to."""

    def put(call: Call, struct: Any, result: int) -> None:
        call.ctx.write(getattr(struct, field), result.to_bytes(size(struct), "little"))

    return put


def whole(struct: type[Any]) -> Source:
    """The parameter is the structure itself."""

    def get(_call: Call, it: Any) -> Any:
        return it

    def check(value: object) -> None:
        if not isinstance(value, struct):
            fail(errno.EFAULT)

    return Source(get, check)


def caller(call: Call, _struct: Any) -> Any:
    """The parameter is the context: whose file descriptors the structure names."""
    return call.ctx


def _deliver(call: Call, struct: Any, ret: str | Put | None, result: Any) -> int:
    """The result, on its way to the client; returns what ioctl() does."""
    if callable(ret):
        ret(call, struct, result)
        return 0
    if result is None:
        return 0
    if isinstance(result, File):
        result = call.install(result)
    elif isinstance(result, ctypes.Structure):
        call.data[: ctypes.sizeof(result)] = bytes(result)
        return 0
    if ret is None:
        return int(result)
    setattr(struct, ret, result)
    return 0


# where parameters come from


def _argument(call: Call, _struct: Any) -> int:
    return call.arg


def _field(name: str) -> Get:
    return lambda _call, struct: getattr(struct, name)


# what a parameter may be


def _anything(_value: object) -> None:
    """The method looks at it itself."""


def _number(value: object) -> None:
    if not isinstance(value, int):
        fail(errno.EINVAL)


def _value(value: object) -> None:
    if not isinstance(value, int | bytes) and not callable(value):
        fail(errno.EFAULT)


def _holds(kind: Any) -> Check:
    """A field of this type can have held it; an array, so many numbers or its first one."""
    length = getattr(kind, "_length_", 0)
    word = kind._type_ if length else kind
    bits = 8 * ctypes.sizeof(word)
    low = -1 << bits - 1 if word(-1).value < 0 else 0
    high = low + (1 << bits) - 1

    def number(value: object) -> None:
        if not isinstance(value, int) or not low <= value <= high:
            fail(errno.EINVAL)

    def numbers(value: object) -> None:
        if isinstance(value, int):
            number(value)
        elif isinstance(value, Sequence | ctypes.Array) and len(value) <= length:
            for one in value:
                number(one)
        else:
            fail(errno.EINVAL)

    return numbers if length else number

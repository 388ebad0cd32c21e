"""Which devices a machine has: each module of this package that has `fit` brings its own.

A device is one file: its registers, its node of the device tree, where it is on the board, and
`fit`, which makes it out of what a machine has for its devices. Machine maps what comes back, ticks
it, saves it and describes it to the guest, whatever it is.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from armkvm.vmm import devices
from armkvm.vmm.board import Describe, Place
from armkvm.vmm.devices.device import Arm, Line, Region, Report

if TYPE_CHECKING:
    from armkvm.client.extras import Clock
    from armkvm.vmm.console import Console
    from armkvm.vmm.fdt import Fdt


@dataclass(frozen=True)
class Platform:
    """What a machine has for its devices."""

    console: Console  # where input comes from
    output: Callable[[bytes], None]  # where the guest's goes
    clock: Clock
    line: Callable[[Place], Line]  # the input of the interrupt controller at a place
    timer: Callable[[], Arm]  # makes one; when it is due, every device's `tick` is called
    report: Report


class Device(Region, Protocol):
    """What a machine wants of a device, beside its window on the bus."""

    def tick(self) -> None:
        """Guest time may have passed."""

    def poll(self) -> None:
        """There may be something from outside: the console has input."""

    def state(self) -> Any:
        """A dataclass of plain values."""

    def restore(self, state: Any) -> None:
        """Take it over; the line is moved to where it belongs."""

    def fdt(self, fdt: Fdt, place: Place, interrupt: Describe) -> None:
        """Its node."""


@dataclass(frozen=True)
class Fitted:
    """A device in its place. `name` is its own in a snapshot."""

    name: str
    place: Place
    device: Device
    stdout: bool = False  # the guest's console, as /chosen has it


Fit = Callable[[Platform], Iterable[Fitted]]


def standard() -> tuple[Fit, ...]:
    """The `fit` of every module here that has one, in the order of names."""
    names = sorted(module.name for module in pkgutil.iter_modules(devices.__path__))
    modules = (importlib.import_module(f"{devices.__name__}.{name}") for name in names)
    return tuple(cast(Fit, module.fit) for module in modules if hasattr(module, "fit"))

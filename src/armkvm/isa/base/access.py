"""Who may: the checks that system instructions begin with (Arm ARM D1.3, "Traps to EL1")."""

from __future__ import annotations

from armkvm.isa.machine import Machine
from armkvm.isa.value import Value


def user(m: Machine) -> Value:
    """At EL0, as an i1."""
    return m.get("el").eq(0)


def privileged(m: Machine) -> None:
    """UNDEFINED at EL0."""
    with m.when(user(m)):
        m.undefined()


def gate(m: Machine, register: str, bits: int) -> None:
    """EL0 may go on only where one of these bits is set; else the access traps to EL1."""
    with m.when(user(m) & (m.get(register) & bits).eq(0)):
        m.finish("sys_to_el1")

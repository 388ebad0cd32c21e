"""How native code leaves for the hypervisor: the exit codes of KVM's run loop, and two of our
own."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What `Cpu.run` returns; IRQ and TRAP are KVM's ARM_EXCEPTION_IRQ and ARM_EXCEPTION_TRAP."""

    IRQ = 0  # an interrupt of the host: a timer, or a kick
    TRAP = 2  # to EL2: esr_el2, far_el2, hpfar_el2 say why
    LIMIT = 4  # `limit` instructions have retired


CHECK = 8  # internal: a limit check hit; the run loop looks at the deadlines
ARENA_FULL = 9  # internal: no room for another page of op records

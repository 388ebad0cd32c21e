"""A scripted guest's operations as a line of assembly each, with names for its devices.

What a timeline shows of the guest. Values go where an assembler would want a register: a script has
no registers to load them into.
"""

from __future__ import annotations

from armkvm.abi import psci
from armkvm.arch.gic import GICC_CTLR, GICC_EOIR, GICC_IAR, GICC_PMR
from armkvm.arch.sysreg import BY_ENCODING, Encoding
from armkvm.check.world import user
from armkvm.host.scripted import Hvc, Load, Mask, Mrs, Msr, Native, Op, Run, Store, Wfe, Wfi

DEVICES = {
    user.IAR: "IAR",
    user.EOI: "EOI",
    user.MARK: "MARK",
    user.END: "END",
    user.VALUE: "VALUE",
    user.GICD: "GICD_CTLR",
    user.GICD + 0x100: "GICD_ISENABLER0",
    user.GICC + GICC_CTLR: "GICC_CTLR",
    user.GICC + GICC_PMR: "GICC_PMR",
    user.GICC + GICC_IAR: "GICC_IAR",
    user.GICC + GICC_EOIR: "GICC_EOIR",
}
CALLS = {
    psci.PSCI_0_2_FN64_CPU_ON: "CPU_ON",
    psci.PSCI_0_2_FN64_CPU_SUSPEND: "CPU_SUSPEND",
    psci.PSCI_0_2_FN_CPU_OFF: "CPU_OFF",
    psci.PSCI_0_2_FN_SYSTEM_OFF: "SYSTEM_OFF",
    psci.PSCI_0_2_FN_SYSTEM_RESET: "SYSTEM_RESET",
}


def assembly(op: Op) -> str:
    """One operation."""
    match op:
        case Native():
            if op.field.startswith("x"):
                return f"mov {op.field}, {number(op.value)}"
            return f"msr {op.field}_el0, {number(op.value)}"
        case Msr():
            return f"msr {register(op.encoding)}, {number(op.value)}"
        case Mrs():
            return f"mrs x{op.rt}, {register(op.encoding)}"
        case Load():
            return f"ldr x{op.rt}, [{device(op.ipa)}]"
        case Store():
            return f"str {number(op.value)}, [{device(op.ipa)}]"
        case Mask():
            return f"msr daif{'set' if op.masked else 'clr'}, 2"
        case Wfi():
            return "wfi"
        case Wfe():
            return "wfe"
        case Hvc():
            return f"hvc {CALLS.get(op.args[0], number(op.args[0]))}"
        case Run():
            return "b ."


def number(value: int) -> str:
    """Small ones in decimal, as a reader of a timer's registers expects them."""
    return str(value) if value < 100_000 else f"{value:#x}"


def device(address: int) -> str:
    """A device register's name."""
    return DEVICES.get(address, f"{address:#x}")


def register(encoding: Encoding) -> str:
    """A system register's name."""
    found = BY_ENCODING.get(encoding)
    return found.name.lower() if found is not None else "s{}_{}_c{}_c{}_{}".format(*encoding)

"""A GICv3's ICC_* registers for user space, after arch/arm64/kvm/vgic-sys-reg-v3.c.

The guest's own accesses do not come here: the engine has the registers. What the guest has
written is in the virtual CPU interface's ICH_VMCR and active-priorities registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armkvm.kvm.vgic.v3 import SRE_EL1

if TYPE_CHECKING:
    from armkvm.kvm.sys_regs import Encoding
    from armkvm.kvm.vgic.irq import VgicCpu

VENG0, VENG1, VCBPR, VEOIM = 0, 1, 4, 9
VBPR1, VBPR0, VPMR = 18, 21, 24
CTLR_PRI_BITS, CTLR_ID_BITS, CTLR_SEIS, CTLR_A3V = 8, 11, 14, 15
HOST_SEIS, HOST_A3V = 0, 1

# Reads return the value; writes (value given) return it, or None if it cannot be.
Access = Callable[["VgicCpu", int | None], int | None]


def _set(vgic: VgicCpu, shift: int, width: int, value: int) -> None:
    mask = (1 << width) - 1
    vgic.vmcr.value = vgic.vmcr.value & ~(mask << shift) | (value & mask) << shift


def _get(vgic: VgicCpu, shift: int, width: int) -> int:
    return int(vgic.vmcr.value) >> shift & (1 << width) - 1


def _field(shift: int, width: int) -> Access:
    def access(vgic: VgicCpu, value: int | None) -> int:
        if value is not None:
            _set(vgic, shift, width, value)
        return _get(vgic, shift, width)

    return access


def _ctlr(vgic: VgicCpu, value: int | None) -> int | None:
    """ICC_CTLR_EL1: a state that needs more than this host has cannot be restored."""
    if value is not None:
        pri_bits, id_bits = (value >> CTLR_PRI_BITS & 7) + 1, value >> CTLR_ID_BITS & 7
        if pri_bits > vgic.num_pri_bits:
            return None
        vgic.num_pri_bits = pri_bits
        if id_bits > vgic.num_id_bits:
            return None
        vgic.num_id_bits = id_bits
        if value >> CTLR_SEIS & 1 != HOST_SEIS or value >> CTLR_A3V & 1 != HOST_A3V:
            return None
        _set(vgic, VCBPR, 1, value)
        _set(vgic, VEOIM, 1, value >> 1)
    fixed = (vgic.num_pri_bits - 1) << CTLR_PRI_BITS | vgic.num_id_bits << CTLR_ID_BITS
    fixed |= HOST_SEIS << CTLR_SEIS | HOST_A3V << CTLR_A3V
    return fixed | _get(vgic, VCBPR, 1) | _get(vgic, VEOIM, 1) << 1


def _bpr1(vgic: VgicCpu, value: int | None) -> int:
    if _get(vgic, VCBPR, 1):
        return min(_get(vgic, VBPR0, 3) + 1, 7)
    if value is not None:
        _set(vgic, VBPR1, 3, value)
    return _get(vgic, VBPR1, 3)


def _apr(group: int, n: int) -> Access:
    def access(vgic: VgicCpu, value: int | None) -> int | None:
        if n:
            return None  # five bits of preemption need one register
        reg = vgic.ap1r if group else vgic.ap0r
        if value is not None:
            reg.value = value & 0xFFFF_FFFF
        return int(reg.value)

    return access


def _sre(_vgic: VgicCpu, value: int | None) -> int | None:
    return None if value is not None and not value & 1 else SRE_EL1


GIC_V3_ICC_REG_DESCS: dict[Encoding, Access] = {
    (3, 0, 4, 6, 0): _field(VPMR, 8),
    (3, 0, 12, 8, 3): _field(VBPR0, 3),
    **{(3, 0, 12, 8, 4 + n): _apr(0, n) for n in range(4)},
    **{(3, 0, 12, 9, n): _apr(1, n) for n in range(4)},
    (3, 0, 12, 12, 3): _bpr1,
    (3, 0, 12, 12, 4): _ctlr,
    (3, 0, 12, 12, 5): _sre,
    (3, 0, 12, 12, 6): _field(VENG0, 1),
    (3, 0, 12, 12, 7): _field(VENG1, 1),
}


def find(attr: int) -> Access | None:
    """The register of a device attribute: its encoding is in the low 16 bits."""
    enc = attr >> 14 & 3, attr >> 11 & 7, attr >> 7 & 15, attr >> 3 & 15, attr & 7
    return GIC_V3_ICC_REG_DESCS.get(enc)

"""A GICv3's ICC_* registers for user space, after arch/arm64/kvm/vgic-sys-reg-v3.c.

The guest's own accesses do not come here: the engine has the registers. What the guest has
written is in the virtual CPU interface's ICH_VMCR and active-priorities registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armkvm.arch import gic as g
from armkvm.kvm.vgic.v3 import SRE_EL1

if TYPE_CHECKING:
    from armkvm.kvm.sys_regs import Encoding
    from armkvm.kvm.vgic.cpu import VgicCpu

HOST_CTLR = g.ICC_CTLR_A3V  # of SEIS and A3V

# Reads return the value; writes (value given) return it, or None if it cannot be.
Access = Callable[["VgicCpu", int | None], int | None]


def _set(vgic: VgicCpu, mask: int, value: int) -> None:
    vgic.vmcr.value = vgic.vmcr.value & ~mask | value & mask


def _get(vgic: VgicCpu, mask: int, shift: int) -> int:
    return (int(vgic.vmcr.value) & mask) >> shift


def _field(mask: int, shift: int) -> Callable[[VgicCpu, int | None], int]:
    """A field of ICH_VMCR that is a register of its own, at its bottom."""

    def access(vgic: VgicCpu, value: int | None) -> int:
        if value is not None:
            _set(vgic, mask, value << shift)
        return _get(vgic, mask, shift)

    return access


_bpr0 = _field(7 << g.ICH_VMCR_BPR0_SHIFT, g.ICH_VMCR_BPR0_SHIFT)
_own_bpr1 = _field(7 << g.ICH_VMCR_BPR1_SHIFT, g.ICH_VMCR_BPR1_SHIFT)


def _ctlr(vgic: VgicCpu, value: int | None) -> int | None:
    """ICC_CTLR_EL1: a state that needs more than this host has cannot be restored."""
    if value is not None:
        pri_bits = (value >> g.ICC_CTLR_PRI_BITS_SHIFT & 7) + 1
        id_bits = value >> g.ICC_CTLR_ID_BITS_SHIFT & 7
        if pri_bits > vgic.num_pri_bits:
            return None
        vgic.num_pri_bits = pri_bits
        if id_bits > vgic.num_id_bits:
            return None
        vgic.num_id_bits = id_bits
        if value & (g.ICC_CTLR_SEIS | g.ICC_CTLR_A3V) != HOST_CTLR:
            return None
        _set(vgic, g.ICH_VMCR_CBPR, g.ICH_VMCR_CBPR if value & g.ICC_CTLR_CBPR else 0)
        _set(vgic, g.ICH_VMCR_EOIM, g.ICH_VMCR_EOIM if value & g.ICC_CTLR_EOIMODE else 0)
    ctlr = (vgic.num_pri_bits - 1) << g.ICC_CTLR_PRI_BITS_SHIFT | HOST_CTLR
    ctlr |= vgic.num_id_bits << g.ICC_CTLR_ID_BITS_SHIFT
    ctlr |= g.ICC_CTLR_CBPR if vgic.vmcr.value & g.ICH_VMCR_CBPR else 0
    return ctlr | (g.ICC_CTLR_EOIMODE if vgic.vmcr.value & g.ICH_VMCR_EOIM else 0)


def _bpr1(vgic: VgicCpu, value: int | None) -> int:
    if vgic.vmcr.value & g.ICH_VMCR_CBPR:
        return min(_bpr0(vgic, None) + 1, 7)
    return _own_bpr1(vgic, value)


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
    return None if value is not None and not value & g.ICC_SRE_SRE else SRE_EL1


GIC_V3_ICC_REG_DESCS: dict[Encoding, Access] = {
    (3, 0, 4, 6, 0): _field(0xFF << g.ICH_VMCR_PMR_SHIFT, g.ICH_VMCR_PMR_SHIFT),
    (3, 0, 12, 8, 3): _bpr0,
    **{(3, 0, 12, 8, 4 + n): _apr(0, n) for n in range(4)},
    **{(3, 0, 12, 9, n): _apr(1, n) for n in range(4)},
    (3, 0, 12, 12, 3): _bpr1,
    (3, 0, 12, 12, 4): _ctlr,
    (3, 0, 12, 12, 5): _sre,
    (3, 0, 12, 12, 6): _field(g.ICH_VMCR_ENG0, 0),
    (3, 0, 12, 12, 7): _field(g.ICH_VMCR_ENG1, 1),
}


def find(attr: int) -> Access | None:
    """The register of a device attribute: its encoding is in the low 16 bits."""
    enc = attr >> 14 & 3, attr >> 11 & 7, attr >> 7 & 15, attr >> 3 & 15, attr & 7
    return GIC_V3_ICC_REG_DESCS.get(enc)

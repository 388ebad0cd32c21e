"""Registers that trap: what KVM emulates, what is UNDEFINED."""

from __future__ import annotations

import pytest
from tests.kvm.rig import IO, Ops, Rig

from armkvm.host.scripted import Mrs, Msr, ScriptedCpu, Store
from armkvm.kvm.sys_regs import Encoding, sys_reg_descs

OSLAR, OSLSR, OSDLR = (2, 0, 1, 0, 4), (2, 0, 1, 1, 4), (2, 0, 1, 3, 4)
DBGBCR2 = (2, 0, 0, 2, 5)
PMCR = (3, 3, 9, 12, 0)
ICC_SRE, ICC_IAR1, ICC_SGI1R = (3, 0, 12, 12, 5), (3, 0, 12, 12, 0), (3, 0, 12, 11, 5)


def do(*ops: Mrs | Msr, kind: str = "nvhe-gicv2") -> list[int | str]:
    """The results of the reads; "UNDEF" for an operation that is UNDEFINED."""
    results: list[int | str] = []

    def guest(cpu: ScriptedCpu) -> Ops:
        for op in ops:
            value = yield op
            if cpu.injected:
                esr = cpu.injected.pop()[1]
                results.append("UNDEF" if esr >> 26 == 0 else hex(esr))
            elif isinstance(op, Mrs):
                results.append(value)
        yield Store(IO)

    Rig(guest, kind=kind).stored()
    return results


def test_debug_registers_keep_what_is_written() -> None:
    assert do(Mrs(DBGBCR2), Msr(DBGBCR2, 0x1234), Mrs(DBGBCR2)) == [0, 0x1234]


def test_os_lock() -> None:
    ops = (Mrs(OSLSR), Msr(OSLAR, 1), Mrs(OSLSR), Msr(OSLAR, 0), Mrs(OSLSR))
    assert do(*ops) == [8, 0xA, 8]
    assert do(Msr(OSLSR, 1), Mrs(OSLAR)) == ["UNDEF", "UNDEF"]
    assert do(Msr(OSDLR, 1), Mrs(OSDLR)) == [0]


@pytest.mark.parametrize("kind", ["nvhe-gicv2", "vhe-gicv3"])
@pytest.mark.parametrize("enc", [PMCR, ICC_IAR1, ICC_SGI1R, (3, 4, 1, 0, 0), (3, 6, 1, 0, 0)])
def test_what_the_vm_has_not_is_undefined(kind: str, enc: Encoding) -> None:
    """Without PMU and vgic. A guest's ICC_SGI1R write crashed hosts once (CVE-2024-46707)."""
    assert do(Mrs(enc), Msr(enc, 1), kind=kind) == ["UNDEF", "UNDEF"]


def test_icc_sre_cannot_be_hidden_on_a_gicv3_host() -> None:
    assert do(Mrs(ICC_SRE), Msr(ICC_SRE, 0), Mrs(ICC_SRE), kind="vhe-gicv3") == [7, 7]
    assert do(Mrs(ICC_SRE)) == ["UNDEF"]


def test_set_way_maintenance_is_ignored() -> None:
    assert do(Msr((1, 0, 7, 6, 2), 5), Msr((1, 0, 7, 14, 2), 5)) == []


def test_xzr_reads_as_zero_and_swallows() -> None:
    results: list[int] = []

    def guest(cpu: ScriptedCpu) -> Ops:
        yield Msr(DBGBCR2, 7)
        results.append((yield Mrs(DBGBCR2, rt=31)))
        yield Store(IO)

    Rig(guest).stored()
    assert results == [0]


@pytest.mark.parametrize("enc", sys_reg_descs, ids=lambda enc: sys_reg_descs[enc][0])
def test_every_register_answers(enc: Encoding) -> None:
    for result in do(Mrs(enc), Msr(enc, 0), Mrs(enc)):
        assert result == "UNDEF" or isinstance(result, int)

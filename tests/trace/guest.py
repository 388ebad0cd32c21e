"""A scripted guest that causes most events, and a run of it that is recorded."""

from __future__ import annotations

import errno
from pathlib import Path

from tests.kvm.rig import IO, Ops, Rig

from armkvm.abi import kvm as k
from armkvm.abi.psci import PSCI_0_2_FN_PSCI_VERSION
from armkvm.host.scripted import Hvc, Load, Mask, Msr, Native, Run, ScriptedCpu, Store, Wfi
from armkvm.trace import record

CNTP_CTL, CNTP_CVAL = (3, 3, 14, 2, 1), (3, 3, 14, 2, 2)


def guest(_cpu: ScriptedCpu) -> Ops:
    yield Hvc((PSCI_0_2_FN_PSCI_VERSION, 0, 0, 0))
    yield Store(IO + 8, 0xABCD, size=2)
    yield Load(IO + 16, size=4)
    yield Mask(False)
    yield Native("cntv_cval", 1000)
    yield Native("cntv_ctl", 1)
    yield Run(100_000)  # the timer fires at tick 1000
    yield Msr(CNTP_CVAL, 100_000)
    yield Msr(CNTP_CTL, 1)
    yield Wfi()
    yield Store(IO + 12)


def irq(_cpu: ScriptedCpu) -> Ops:
    yield Native("cntv_ctl", 3)
    yield Msr(CNTP_CTL, 3)
    yield Store(IO)  # an interrupt controller's end of interrupt


def run(rig: Rig) -> None:
    """What a VMM does: mirrors the levels to the IRQ line, until the store to IO + 12."""
    high = False
    while True:
        ret = rig.vcpu.run_raw()
        assert ret in (0, -errno.EINTR)
        if bool(rig.level) != high:
            high = not high
            rig.line(int(high))
        mmio = rig.struct.mmio
        if ret == 0:
            assert rig.struct.exit_reason == k.KVM_EXIT_MMIO
            if not mmio.is_write:
                mmio.value = 0x1234_5678
            elif mmio.phys_addr == IO + 12:
                return


def recorded(path: Path, kind: str = "nvhe-gicv2") -> str:
    """The trace of that guest."""
    rig = Rig(guest, irq, kind=kind)
    with record(rig.vm, str(path)):
        run(rig)
    trace = rig.vm.trace
    assert all(getattr(trace, name) is None for name in trace.__slots__)
    return path.read_text()

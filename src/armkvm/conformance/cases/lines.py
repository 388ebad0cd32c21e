"""The CPU's interrupt lines, driven between runs and from another thread while the vCPU waits."""

from __future__ import annotations

from armkvm.abi import ioctl as nr
from armkvm.abi import structs as st
from armkvm.abi.caps import Cap
from armkvm.client.protocol import Thread
from armkvm.conformance.rig import CPU_LINE, FIQ, IRQ, Rig
from armkvm.conformance.session import Session

FROM_OTHER_THREAD = "from other thread"


def _later(rig: Rig, num: int) -> Thread:
    """A thread that raises a line in 100 ms."""
    return rig.client.after(100, lambda: rig.line(CPU_LINE, 0, num, 1, FROM_OTHER_THREAD))


def _steps(rig: Rig, number: int) -> None:
    for _ in range(number):
        rig.step(500)


def l1(session: Session) -> None:
    """IRQ and FIQ, masked and unmasked; a line stays as it was driven."""
    session.emit("== L1 CPU IRQ/FIQ lines")
    with Rig.ready(session, "lines") as rig:
        rig.step(500)
        rig.line(CPU_LINE, 0, IRQ, 1, "CPU_IRQ high (guest I masked)")
        rig.step(500)
        rig.emit("   (guest then unmasks I)")
        _steps(rig, 3)
        rig.line(CPU_LINE, 0, IRQ, 0, "CPU_IRQ low")
        _steps(rig, 2)
        rig.line(CPU_LINE, 0, FIQ, 1, "CPU_FIQ high (F masked)")
        _steps(rig, 4)
        rig.line(CPU_LINE, 0, FIQ, 0, "CPU_FIQ low")
        _steps(rig, 3)
        rig.emit("   (guest now in WFI or about to)")
        thread = _later(rig, FIQ)
        rig.step(500)
        thread.join()
        rig.step(500)
        rig.line(CPU_LINE, 0, FIQ, 0, "CPU_FIQ low")
        rig.run_all(4, 500)


def l2(session: Session) -> None:
    """A line wakes a vCPU from WFI, masked or not."""
    session.emit("== L2 WFI woken by CPU_IRQ from another thread, I masked")
    with Rig.ready(session, "wfi_none") as rig:
        rig.step(500)
        thread = _later(rig, IRQ)
        rig.step(500)
        thread.join()
        rig.emit("   (line still high: next WFI)")
        rig.run_all(4, 500)


def m10(session: Session) -> None:
    """An access without syndrome goes to user space when that has been asked for (api.rst 7.19)."""
    session.emit("== M10 NISV_TO_USER enabled, ldp")
    with Rig(session) as rig:
        cap = st.KvmEnableCap(cap=Cap.ARM_NISV_TO_USER)
        rig.query(rig.vm, nr.KVM_ENABLE_CAP, cap, "ENABLE_CAP NISV_TO_USER")
        rig.create_vcpu()
        rig.init()
        rig.load("ldp")
        rig.run_all(4, 500)

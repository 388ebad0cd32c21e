"""KVM_ARM_VCPU_INIT, reset and the first run: arch/arm64/kvm/reset.c and parts of arm.c."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from armkvm.abi import kvm as k
from armkvm.kvm import id_regs, sys_regs
from armkvm.kvm.file import fail
from armkvm.kvm.pmu.emul import PMUVER, Pmu
from armkvm.kvm.vgic import init as vgic_init

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

VCPU_RESET_PSTATE_EL1 = 0x3C5  # EL1h, D A I F masked

# What a first run does on the host takes time. A guest that sets a timer into the past must not
# find a counter that has only just begun to count.
FIRST_RUN_NS = 100_000

SUPPORTED_FEATURES = 1 << k.KVM_ARM_VCPU_PSCI_0_2 | 1 << k.KVM_ARM_VCPU_PMU_V3


def vcpu_init(vcpu: Vcpu, target: int, features: int) -> None:
    """kvm_arch_vcpu_ioctl_vcpu_init(). EINVAL, ENOENT."""
    # Starting powered off is a matter of this call, not of the vCPU's features.
    power_off = bool(features & 1 << k.KVM_ARM_VCPU_POWER_OFF)
    features &= ~(1 << k.KVM_ARM_VCPU_POWER_OFF)
    if target != k.KVM_ARM_TARGET_GENERIC_V8:
        fail(errno.EINVAL)
    if features >> k.KVM_VCPU_MAX_FEATURES:
        fail(errno.ENOENT)
    if features & ~SUPPORTED_FEATURES:
        fail(errno.EINVAL)
    with vcpu.vm.config_lock:
        if vcpu.vm.features not in (None, features):
            fail(errno.EINVAL)  # all vCPUs of a VM have the same
        vcpu.vm.features = features
    if not vcpu.initialized:
        vcpu.features = features
        vcpu.initialized = True
        sys_regs.set_identity(vcpu)
        sys_regs.set_gic_field(vcpu, vcpu.vm.host.kind.gic == "gicv3")
        if features & 1 << k.KVM_ARM_VCPU_PMU_V3:
            vcpu.pmu = Pmu(vcpu)
            sys_regs.set_pmu_field(vcpu, PMUVER)
        id_regs.set_up(vcpu)
    kvm_reset_vcpu(vcpu)
    if vcpu.has_run_once:
        # A VM that starts over: what it executes next may have been loaded anew.
        vcpu.vm.written()
    else:
        # Only before the first run: afterwards the lines stay as KVM_IRQ_LINE has driven them.
        with vcpu.wait:
            vcpu.hcr = 0
    if power_off:
        vcpu.power_off()
    else:
        vcpu.mp_state = k.KVM_MP_STATE_RUNNABLE


def kvm_reset_vcpu(vcpu: Vcpu) -> None:
    """Registers as after power-up; for PSCI CPU_ON with the caller's entry point and argument."""
    loaded = vcpu.pcpu
    if loaded is not None:
        vcpu.arch_timer.put(loaded)
    cpu, state = vcpu.cpu, vcpu.state
    for i in range(31):
        vcpu.x[i] = 0
    for i in range(32):
        cpu.set_v(i, 0)
    state.fpcr = 0
    cpu.fpsr = 0
    cpu.sp_el0 = cpu.sp_el1 = 0
    state.elr_el1 = state.spsr_el1 = 0
    vcpu.core_spsr = [0] * 5
    state.pc = 0
    cpu.pstate = VCPU_RESET_PSTATE_EL1
    vcpu.mmio_needed = False
    sys_regs.reset(vcpu)
    if vcpu.pmu is not None:
        vcpu.pmu.reset(sys_regs.RESET_UNKNOWN)
    if vcpu.reset_state is not None:
        state.pc, vcpu.x[0] = vcpu.reset_state
        vcpu.reset_state = None
    vcpu.arch_timer.reset()
    if loaded is not None:
        vcpu.arch_timer.load(loaded)


def kvm_arch_vcpu_run_pid_change(vcpu: Vcpu) -> int:
    """First run, or first from this thread. A run that fails here, with a negative errno,
    does not count as one."""
    if not vcpu.initialized:
        return -errno.ENOEXEC
    if vcpu.ran_once:
        return 0
    if vcpu.vm.irqchip_in_kernel:
        ret = vgic_init.map_resources(vcpu.vm)
        if ret:
            return ret
    sys_regs.set_gic_field(vcpu, vcpu.vm.has_gicv3 and id_regs.shows_gic(vcpu.vm))
    ret = vcpu.arch_timer.enable()
    if ret:
        return ret
    if vcpu.pmu is not None:
        ret = vcpu.pmu.enable()
        if ret:
            # It has not run, so a vgic may still come; the timer has to be mapped to it then.
            vcpu.arch_timer.enabled = False
            return ret
    vcpu.ran_once = True
    vcpu.vm.clock.work(FIRST_RUN_NS)
    return 0

"""A machine at rest: everything that it takes to go on elsewhere, through the KVM API.

The order is QEMU's. To save: the access that the last exit was about is completed first (KVM_RUN
with immediate_exit), then everything is read. To restore, on a machine that was made alike and has
not run: memory; registers; the vgic's; a first KVM_RUN, which ends at once; the counters, and only
then the timers, which otherwise would compare with a counter that is not theirs; devices, which
drive their lines anew; device_irq_level, so that what user space was told stays told.

Guest time goes on where it stood, to the nanosecond if the clock can be set (a clock of its own,
not further already). Then a restored run is the same as one that was not interrupted, with these
exceptions. A load-exclusive in front of the save point lost its monitor, as by any exception: the
store fails once. A GICv2 in the kernel forgets who sent an SGI that is being handled: KVM takes it
for CPU 0's, and the guest's end of it may go to nobody. With an ITS, saving fills its tables in
guest memory. With several vCPUs, whose turn it is begins anew.

A vCPU that slept in a WFI when it was told to stop goes on with MP state SUSPENDED, which is a WFI
too: KVM tells when it ends. Left out: machines of other sizes or other interrupt controllers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import types
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from armkvm.abi import kvm as k
from armkvm.abi import regs as r
from armkvm.abi import structs as st
from armkvm.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS
from armkvm.arch.word import M64
from armkvm.vmm.errors import GuestError
from armkvm.vmm.irqchip import kernel_gic_state
from armkvm.vmm.irqchip.kernel_gic import KernelGic

if TYPE_CHECKING:
    from armkvm.client.extras import Vcpu
    from armkvm.vmm.machine import Machine

MPIDR_EL1 = r.sys_reg(3, 0, 0, 0, 5)
COUNTERS = (r.KVM_REG_ARM_TIMER_CNT, r.KVM_REG_ARM_PTIMER_CNT)
# CTL last: it starts the timer.
TIMERS = (
    r.KVM_REG_ARM_TIMER_CVAL, r.KVM_REG_ARM_TIMER_CTL,
    r.KVM_REG_ARM_PTIMER_CVAL, r.KVM_REG_ARM_PTIMER_CTL,
)  # fmt: skip
# PMINTENCLR, PMCNTENCLR, PMOVSCLR: other views of the registers that set the same bits.
CLEARING = (
    r.sys_reg(3, 0, 9, 14, 2), r.sys_reg(3, 3, 9, 12, 2), r.sys_reg(3, 3, 9, 12, 3),
)  # fmt: skip

PIECE = 1 << 16  # memory is looked at, and kept, in pieces of this many bytes


class Mismatch(GuestError):
    """A snapshot does not fit the machine that shall go on with it."""


@dataclass
class VcpuState:
    """One vCPU."""

    registers: dict[int, int]  # by id of KVM_GET_ONE_REG
    mp_state: int
    events: bytes  # struct kvm_vcpu_events
    device_irq_level: int  # as user space has been told
    has_run: bool


@dataclass
class Snapshot:
    """A machine. Devices' states are plain: numbers, lists and dictionaries."""

    host: str
    irqchip: str
    cpus: int
    mem_bytes: int
    ns: int  # guest time: of the clock, in nanoseconds
    vcpus: list[VcpuState]
    vgic: list[kernel_gic_state.Register] = field(default_factory=list)
    devices: dict[str, Any] = field(default_factory=dict)
    memory: list[tuple[int, bytes]] = field(default_factory=list)  # offset and what is not zero
    pmu: bool = False
    seed: int | None = None  # of the random numbers that KVM gives; None: they are the host's


# -- the machine --------------------------------------------------------------------------------


def save(machine: Machine) -> Snapshot:
    """Everything. No vCPU is in KVM_RUN."""
    config, irqchip = machine.config, machine.irqchip
    ns = machine.system.clock.now()
    vcpus = [save_vcpu(vcpu, asleep=vcpu in machine.asleep) for vcpu in machine.vcpus]
    if isinstance(irqchip, KernelGic):
        kernel_gic_state.save_tables(irqchip.device, irqchip.its)
    saved = Snapshot(
        host=machine.system.host_kind,
        irqchip=config.irqchip,
        cpus=config.cpus,
        mem_bytes=config.mem_bytes,
        ns=ns,
        seed=machine.system.seed,
        pmu=config.pmu,
        vcpus=vcpus,
        devices={name: asdict(device.state()) for name, device in machine.parts().items()},
        memory=save_memory(machine.memory),
    )
    if isinstance(irqchip, KernelGic):
        mpidrs = [vcpu.registers[MPIDR_EL1] for vcpu in saved.vcpus]
        high = irqchip.high | {
            n << 32 | vcpu.get_device_attr(k.KVM_ARM_VCPU_TIMER_CTRL, timer)
            for n, vcpu in enumerate(machine.vcpus)
            for timer, ctl in enumerate((r.KVM_REG_ARM_TIMER_CTL, r.KVM_REG_ARM_PTIMER_CTL))
            if timer_level(saved.vcpus[n], ctl)
        }
        saved.vgic = kernel_gic_state.save(
            irqchip.device, irqchip.its, irqchip.version, mpidrs, high
        )
    return saved


def restore(machine: Machine, saved: Snapshot) -> None:
    """Everything, into a machine that has not run. Mismatch."""
    try:
        _restore(machine, saved)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Mismatch(f"KVM does not take what the snapshot holds: {why}") from error
    except (LookupError, ValueError) as error:
        raise Mismatch("the snapshot is not of a machine like this one") from error


def _restore(machine: Machine, saved: Snapshot) -> None:
    restore_memory(machine.memory, saved.memory)
    for vcpu, state in zip(machine.vcpus, saved.vcpus, strict=True):
        restore_registers(vcpu, state)
    irqchip = machine.irqchip
    if isinstance(irqchip, KernelGic):
        kernel_gic_state.restore(irqchip.device, irqchip.its, saved.vgic)
    # The host's work for a first run is done before guest time goes on.
    for vcpu, state in zip(machine.vcpus, saved.vcpus, strict=True):
        if state.has_run:
            complete(vcpu)
    machine.system.clock.skip_to(saved.ns)
    if saved.seed is not None:
        machine.system.seed = saved.seed
    for vcpu, state in zip(machine.vcpus, saved.vcpus, strict=True):
        restore_timers(vcpu, state)
    machine.tell_levels([state.device_irq_level for state in saved.vcpus])
    parts = machine.parts()
    if set(parts) != set(saved.devices):
        raise ValueError("devices")
    for name, device in parts.items():
        device.restore(typed(type(device.state()), saved.devices[name]))


# -- vCPUs --------------------------------------------------------------------------------------


def complete(vcpu: Vcpu) -> None:
    """Let KVM finish what the last exit was about, without running the guest (api.rst 5)."""
    run = vcpu.run_struct
    run.immediate_exit = 1
    try:
        ret = vcpu.run_raw()
    finally:
        run.immediate_exit = 0
    if ret != -errno.EINTR:
        raise OSError(-ret, os.strerror(-ret))


def save_vcpu(vcpu: Vcpu, *, asleep: bool = False) -> VcpuState:
    """Everything of a vCPU that is not in KVM_RUN. `asleep`: it was in a WFI before."""
    if vcpu.run_struct.exit_reason == k.KVM_EXIT_MMIO:
        complete(vcpu)
    mp_state = vcpu.get_mp_state()
    if asleep and mp_state == k.KVM_MP_STATE_RUNNABLE:
        mp_state = k.KVM_MP_STATE_SUSPENDED
    return VcpuState(
        registers={reg: vcpu.get_one_reg(reg) for reg in vcpu.get_reg_list()},
        mp_state=mp_state,
        events=bytes(vcpu.get_vcpu_events()),
        device_irq_level=vcpu.irq_level.value,
        has_run=vcpu.stat.returns > 0,
    )


def restore_registers(vcpu: Vcpu, state: VcpuState) -> None:
    """The first half, on a vCPU that has not run: all but time."""
    registers = state.registers
    for reg in CLEARING:
        if reg in registers:
            vcpu.set_one_reg(reg, M64)
    for reg, value in registers.items():
        if reg not in CLEARING and reg not in COUNTERS and reg not in TIMERS:
            vcpu.set_one_reg(reg, value)


def restore_timers(vcpu: Vcpu, state: VcpuState) -> None:
    """The second half: the counters (the VM's), the timers, what is pending, and its power."""
    for reg in (*COUNTERS, *TIMERS):
        vcpu.set_one_reg(reg, state.registers[reg])
    events = st.KvmVcpuEvents.from_buffer_copy(state.events)
    events.ext_dabt_pending = 0
    vcpu.set_vcpu_events(events)
    vcpu.irq_level.value = state.device_irq_level
    vcpu.set_mp_state(state.mp_state)


def timer_level(state: VcpuState, ctl: int) -> bool:
    """The output of one of its timers; `ctl` is the id of its CTL."""
    value = state.registers[ctl] & (CTL_ENABLE | CTL_IMASK | CTL_ISTATUS)
    return value == CTL_ENABLE | CTL_ISTATUS


# -- memory -------------------------------------------------------------------------------------


def save_memory(memory: Any) -> list[tuple[int, bytes]]:
    """The pieces of a mapping that hold anything; neighbours are not joined."""
    zero = bytes(PIECE)
    pieces = []
    for at in range(0, len(memory), PIECE):
        piece = memory[at : at + PIECE]
        if piece != zero[: len(piece)]:
            pieces.append((at, piece))
    return pieces


def restore_memory(memory: Any, pieces: list[tuple[int, bytes]]) -> None:
    """Fill a mapping that is all zero."""
    for at, piece in pieces:
        if not 0 <= at <= len(memory) - len(piece):
            raise Mismatch("the snapshot's memory is larger than the machine's")
        memory[at : at + len(piece)] = piece


# -- devices' states ----------------------------------------------------------------------------


def typed(kind: Any, value: Any) -> Any:
    """The inverse of asdict(), by the types that a dataclass declares. ValueError: no such type."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        names = {f.name for f in fields(kind)}
        if not isinstance(value, dict) or set(value) != names:
            raise ValueError(f"not a {kind}")
        return kind(**{name: typed(hints[name], value[name]) for name in names})  # type: ignore[operator]
    origin, args = get_origin(kind), get_args(kind)
    if origin is list:
        if not isinstance(value, list):
            raise ValueError("not a list")
        return [typed(args[0], item) for item in value]
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return typed(next(arg for arg in args if arg is not type(None)), value)
    if type(value) is not kind:
        raise ValueError(f"not of type {kind}")
    if kind is int and value < 0:
        raise ValueError("negative")
    return value


# What comes from a file must have this many bytes.
EVENTS_SIZE = ctypes.sizeof(st.KvmVcpuEvents)

"""User space: a small VMM with an interrupt controller of its own, one thread a vCPU.

What a client of KVM_CAP_ARM_USER_IRQ has to do and no more: after every return look at the bits,
move the inputs of its interrupt controller, drive the vCPU's line by KVM_IRQ_LINE; answer the
guest's accesses to IAR and EOI. The controller is level-triggered and has an active state, as a
GIC has.

Devices at IO: IAR (read), EOI, MARK (the guest counts), END (the guest is done).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from armkvm.abi import kvm as k
from armkvm.arch.gic import INTID_SPURIOUS, PPI_PHYSICAL_TIMER, PPI_PMU, PPI_VIRTUAL_TIMER

if TYPE_CHECKING:
    from armkvm.check.world.world import World
    from armkvm.kvm import Vcpu, Vm

GICD, GICC, GICR = 0x800_0000, 0x801_0000, 0x80A_0000  # of a controller in the kernel
IO = 0x1000_0000
IAR, EOI, MARK, END, VALUE = IO + 0xC, IO + 0x10, IO + 0x200, IO + 0x300, IO + 0x400
CAP_ARM_USER_IRQ = 144


class Vmm:
    """User space of one VM. The class attributes are where a client can go wrong."""

    cap_user_irq = CAP_ARM_USER_IRQ
    # bit of device_irq_level, interrupt
    forwards = (
        (k.KVM_ARM_DEV_EL1_VTIMER, PPI_VIRTUAL_TIMER),
        (k.KVM_ARM_DEV_EL1_PTIMER, PPI_PHYSICAL_TIMER),
        (k.KVM_ARM_DEV_PMU, PPI_PMU),
    )

    def __init__(self, world: World, vm: Vm) -> None:
        self.world = world
        self.vm = vm
        self.slow = False  # another thread drives the lines
        self.disabled: set[int] = set()  # interrupts that the guest has switched off here
        self.inputs: dict[tuple[int, int], bool] = {}
        self.active: set[tuple[int, int]] = set()
        self.marks: tuple[int, ...] = ()
        self.returns: tuple[int, ...] = ()
        self.finished: set[int] = set()
        self.stopping: Any = False  # set by other threads
        self.left = 0  # what `on_exit` has still to do: its state
        self.on_exit: Callable[[Vcpu, int], None] | None = None
        world.vmms.append(self)

    def key(self) -> tuple[object, ...]:
        """The state."""
        return (
            tuple(sorted(self.inputs.items())), tuple(sorted(self.active)), self.marks,
            self.returns, tuple(sorted(self.finished)), self.stopping, self.left,
        )  # fmt: skip

    def thread(self, vcpu: Vcpu) -> Callable[[], None]:
        """The body of a vCPU's thread."""
        return lambda: self.loop(vcpu)

    def loop(self, vcpu: Vcpu) -> None:
        """KVM_RUN until the guest is done."""
        self.world.owns(vcpu)
        if not self.vm.irqchip_in_kernel and not self.vm.check_extension(self.cap_user_irq):
            self.world.monitor.fail("I14", f"capability {self.cap_user_irq} is refused")
        while not self.stopping and vcpu.vcpu_id not in self.finished:
            ret = self.world.run(vcpu)
            if not vcpu.vm.irqchip_in_kernel and not vcpu.vm.closed:
                try:
                    self.mirror(vcpu)
                except OSError as error:
                    if error.errno == errno.EBADF and self.stopping:
                        return  # another thread closes it
                    raise
            if vcpu.closed or vcpu.vm.closed:
                return
            if self.on_exit is not None:
                self.world.execution.touch(None)
                self.on_exit(vcpu, ret)
            if ret == 0:
                self.exit(vcpu)
            elif ret != -errno.EINTR:
                self.returns += (ret,)
                return

    def exit(self, vcpu: Vcpu) -> None:
        """A finished exit."""
        run: Any = vcpu.run_struct
        if run.exit_reason == k.KVM_EXIT_MMIO:
            data = int.from_bytes(bytes(run.mmio.data)[: run.mmio.len], "little")
            if run.mmio.is_write:
                self.write(vcpu, int(run.mmio.phys_addr), data)
            else:
                value = self.read(vcpu, int(run.mmio.phys_addr))
                for i, byte in enumerate(value.to_bytes(8, "little")):
                    run.mmio.data[i] = byte
        else:
            self.finished.add(vcpu.vcpu_id)

    # the interrupt controller

    def mirror(self, vcpu: Vcpu) -> None:
        """After every return of KVM_RUN."""
        bits = vcpu.irq_level.value
        n = vcpu.vcpu_id
        for bit, intid in self.forwards:
            self.inputs[n, intid] = bool(bits & bit)
        if not self.slow:
            self.drive(vcpu)

    def drive(self, vcpu: Vcpu) -> None:
        """The vCPU's line follows."""
        self.world.irq_line(vcpu, self.pending(vcpu.vcpu_id) != INTID_SPURIOUS)

    def pending(self, n: int) -> int:
        """The interrupt that the vCPU would get, if any."""
        for _bit, intid in self.forwards:
            if self.inputs.get((n, intid)) and (n, intid) not in self.active:
                if intid not in self.disabled:
                    return intid
        return INTID_SPURIOUS

    def read(self, vcpu: Vcpu, address: int) -> int:
        """A device read."""
        if address != IAR:
            return 0x1234
        intid = self.pending(vcpu.vcpu_id)
        if intid != INTID_SPURIOUS:
            self.active.add((vcpu.vcpu_id, intid))
        if not self.slow:
            self.drive(vcpu)
        return intid

    def write(self, vcpu: Vcpu, address: int, value: int) -> None:
        """A device write."""
        if address == EOI:
            self.active.discard((vcpu.vcpu_id, value))
            if not self.slow:
                self.drive(vcpu)
        elif address == MARK:
            self.world.execution.touch(self.vm)
            self.marks += (value,)
        elif address == END:
            self.world.execution.touch(self.vm)
            self.finished.add(vcpu.vcpu_id)

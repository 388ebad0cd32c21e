"""KVM_IRQFD and its routes: an eventfd is an interrupt, after virt/kvm/eventfd.c and irqchip.c.

Where the kernel is called by the eventfd, a thread waits for those of one VM; it exists as long as
there are any. So an interrupt by irqfd comes at a time of the host's, also in virtual time. A route
names a pin of the vgic: SPI number 32 + pin; without KVM_SET_GSI_ROUTING, pin and GSI are the
same. Or it is an MSI to an ITS, which is sent when the line would rise; what becomes of it, nobody
asks.

The vgic can take an SPI where the eventfd is signalled (kvm_arch_set_irq_inatomic), so KVM raises
the line there and never lowers it: a pulse for an edge-triggered interrupt, and for a level one
pending until somebody lowers it, which is what KVM_IRQFD_FLAG_RESAMPLE is for.
Left out: irq bypass.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from armkvm.abi import kvm as k
from armkvm.kvm.file import Context, fail
from armkvm.kvm.io.eventfd import EventFd
from armkvm.kvm.vgic.dist import inject_irq
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS
from armkvm.kvm.vgic.msi import Msi, send

if TYPE_CHECKING:
    from armkvm.abi.structs import KvmIrqfd
    from armkvm.kvm.vm import Vm

FLAG_DEASSIGN: Final = 1 << 0
FLAG_RESAMPLE: Final = 1 << 1

# (gsi, type, flags, pin), or (gsi, KVM_IRQ_ROUTING_MSI, flags, address_lo, address_hi, data, devid)
Route = tuple[int, ...]

KVM_IRQCHIP_NUM_PINS: Final = 1020 - VGIC_NR_PRIVATE_IRQS


@dataclass(eq=False)
class IrqFd:
    """struct kvm_kernel_irqfd."""

    gsi: int
    event: EventFd
    resample: EventFd | None  # the line stays high until the guest has ended the interrupt

    def close(self) -> None:
        """Drop the references."""
        self.event.close()
        if self.resample is not None:
            self.resample.close()


class Routing:
    """struct kvm_irq_routing_table: which pin a GSI drives, which GSI a pin's end belongs to."""

    def __init__(self, entries: Iterable[Route]) -> None:
        """EINVAL: out of range, or a GSI twice."""
        self.msis: dict[int, Msi] = {}
        self.pins: dict[int, int] = {}
        self.gsis: dict[int, int] = {}  # of several GSIs on a pin, the last
        seen = set()
        for gsi, kind, flags, *words in entries:
            valid_flags = k.KVM_MSI_VALID_DEVID if kind == k.KVM_IRQ_ROUTING_MSI else 0
            if gsi >= k.KVM_MAX_IRQ_ROUTES or flags & ~valid_flags or gsi in seen:
                fail(errno.EINVAL)
            seen.add(gsi)
            if kind == k.KVM_IRQ_ROUTING_IRQCHIP:
                pin = words[0]
                if pin >= KVM_IRQCHIP_NUM_PINS:
                    fail(errno.EINVAL)
                self.pins[gsi] = pin
                self.gsis[pin] = gsi
            elif kind == k.KVM_IRQ_ROUTING_MSI:
                low, high, data, devid = (*words, 0, 0, 0)[:4]
                self.msis[gsi] = Msi(high << 32 | low, data, flags, devid)
            else:
                fail(errno.EINVAL)


class IrqFds:
    """Those of one VM."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.routing: Routing | None = None  # None: one to one
        self.lock = threading.Lock()
        self._items: dict[int, IrqFd] = {}  # by descriptor
        # By GSI, those whose line falls with an acknowledgement. Guarded by the vgic's lock, which
        # who acknowledges holds already; it is taken inside `lock`, never around it.
        self._resamplers: dict[int, list[IrqFd]] = {}
        self._thread: threading.Thread | None = None
        self._wake = -1  # an eventfd that makes the thread look again
        self._listening = False

    def ioctl(self, args: KvmIrqfd, ctx: Context) -> None:
        """KVM_IRQFD (api.rst 4.75). EINVAL, EAGAIN (no initialised vgic), EBADF, EBUSY."""
        if args.flags & ~(FLAG_DEASSIGN | FLAG_RESAMPLE):
            fail(errno.EINVAL)
        if args.flags & FLAG_DEASSIGN:
            self._deassign(args, ctx)
            return
        if not self.vm.irqchip_in_kernel or not self.vm.vgic.initialized:
            fail(errno.EAGAIN)
        event = EventFd(ctx, args.fd)
        resample = None
        try:
            if args.flags & FLAG_RESAMPLE:
                resample = EventFd(ctx, args.resamplefd)
            with self.lock:
                if any(item.event.id == event.id for item in self._items.values()):
                    fail(errno.EBUSY)
                item = IrqFd(args.gsi, event, resample)
                self._items[event.fd] = item
                if resample is not None:
                    with self.vm.vgic.lock:
                        self._resamplers.setdefault(args.gsi, []).append(item)
                self._look_again()
                if event.take():
                    # An event from before: a work item of the kernel's, which pulses the line.
                    self.set_irq(args.gsi, True)
                    if resample is None:
                        self.set_irq(args.gsi, False)
        except OSError:
            event.close()
            if resample is not None:
                resample.close()
            raise

    def _deassign(self, args: KvmIrqfd, ctx: Context) -> None:
        event = EventFd(ctx, args.fd)
        event.close()
        with self.lock:
            for fd, item in list(self._items.items()):
                if (item.event.id, item.gsi) == (event.id, args.gsi):
                    # KVM is called by the write itself: what was written so far has arrived.
                    self._signalled(item)
                    del self._items[fd]
                    if item.resample is not None:
                        self._leave_resampler(item)
                    item.close()
            self._look_again()

    def _leave_resampler(self, item: IrqFd) -> None:
        """irqfd_resampler_shutdown(): with the last one nobody is left who would lower the line."""
        with self.vm.vgic.lock:
            items = self._resamplers[item.gsi]
            items.remove(item)
            if not items:
                del self._resamplers[item.gsi]
                self.set_irq(item.gsi, False)

    def _look_again(self) -> None:
        """The set has changed; the lock is held."""
        if self._thread is None and self._items:
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._thread = threading.Thread(target=self._wait, name="irqfd", daemon=True)
            self._thread.start()
        elif self._wake >= 0:
            os.eventfd_write(self._wake, 1)
        if not self._listening:
            self._listening = self.vm.irqchip_in_kernel
            if self._listening:
                self.vm.vgic.ack_notifiers.append(self._acked)

    def _wait(self) -> None:
        wake = self._wake
        while True:
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            with self.lock:
                if not self._items:
                    self._thread, self._wake = None, -1
                    os.close(wake)
                    return
                for fd in self._items:
                    poll.register(fd, select.POLLIN)
            ready = [fd for fd, _ in poll.poll()]
            if wake in ready:
                os.eventfd_read(wake)
                continue  # a descriptor in the list may be another one by now
            with self.lock:
                for fd in ready:
                    if fd in self._items:
                        self._signalled(self._items[fd])

    def _signalled(self, item: IrqFd) -> None:
        """irqfd_wakeup(): the line goes up, if the event is still there."""
        if item.event.take():
            self.set_irq(item.gsi, True)

    def set_irq(self, gsi: int, level: bool) -> None:
        """kvm_set_irq()."""
        if self.vm.vm_dead:
            return
        routing = self.routing
        pin = gsi if routing is None else routing.pins.get(gsi)
        if pin is not None:
            inject_irq(self.vm, None, pin + VGIC_NR_PRIVATE_IRQS, level)
        elif level and routing is not None and gsi in routing.msis:
            with suppress(OSError):
                send(self.vm, routing.msis[gsi])

    def _acked(self, pin: int) -> None:
        """irqfd_resampler_ack(): lower the line once, then ask all who may want it high again.

        Once, because the first who is asked may have raised it before the last one is. The caller
        holds the vgic's lock.
        """
        gsi = pin if self.routing is None else self.routing.gsis.get(pin)
        items = self._resamplers.get(gsi, ()) if gsi is not None else ()
        if not items:
            return
        assert gsi is not None
        self.set_irq(gsi, False)
        for item in items:
            assert item.resample is not None
            item.resample.signal()

    def release(self) -> None:
        """The VM goes away."""
        with self.lock:
            thread = self._thread
            for item in self._items.values():
                item.close()
            self._items.clear()
            self._resamplers.clear()
            self._look_again()
        if thread is not None:
            thread.join()

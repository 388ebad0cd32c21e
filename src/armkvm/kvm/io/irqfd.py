"""KVM_IRQFD and its routes: an eventfd is an interrupt, after virt/kvm/eventfd.c and irqchip.c.

Where the kernel is called by the eventfd, a thread waits for those of one VM; it exists as long as
there are any. So an interrupt by irqfd comes at a time of the host's, also in virtual time. A route
names a pin of the vgic: SPI number 32 + pin; without KVM_SET_GSI_ROUTING, pin and GSI are the
same. Left out: MSI routes (there is no ITS that could take them), irq bypass.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from armkvm.kvm.file import Context, fail
from armkvm.kvm.io.eventfd import EventFd
from armkvm.kvm.vgic.irq import VGIC_NR_PRIVATE_IRQS, inject_irq

if TYPE_CHECKING:
    from armkvm.abi.structs import KvmIrqfd
    from armkvm.kvm.vm import Vm

FLAG_DEASSIGN: Final = 1 << 0
FLAG_RESAMPLE: Final = 1 << 1


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


class IrqFds:
    """Those of one VM."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.routes: dict[int, int] | None = None  # GSI to pin; None: one to one
        self.lock = threading.Lock()
        self._items: dict[int, IrqFd] = {}  # by descriptor
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
                self._items[event.fd] = IrqFd(args.gsi, event, resample)
                self._look_again()
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
                    del self._items[fd]
                    item.close()
            self._look_again()

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
        """irqfd_inject(): an edge, or a level until the guest acknowledges it."""
        with contextlib.suppress(BlockingIOError):
            # Somebody else may have read it since: never wait.
            os.preadv(item.event.fd, [bytearray(8)], -1, os.RWF_NOWAIT)
            self.set_irq(item.gsi, True)
            if item.resample is None:
                self.set_irq(item.gsi, False)

    def set_irq(self, gsi: int, level: bool) -> None:
        """kvm_set_irq()."""
        pin = gsi if self.routes is None else self.routes.get(gsi)
        if pin is not None and not self.vm.vm_dead:
            inject_irq(self.vm, None, pin + VGIC_NR_PRIVATE_IRQS, level)

    def _acked(self, pin: int) -> None:
        """irqfd_resampler_ack(): lower the line and tell user space, which raises it again."""
        for item in list(self._items.values()):
            routed = item.gsi if self.routes is None else self.routes.get(item.gsi)
            if item.resample is not None and routed == pin:
                self.set_irq(item.gsi, False)
                item.resample.signal()

    def release(self) -> None:
        """The VM goes away."""
        with self.lock:
            thread = self._thread
            for item in self._items.values():
                item.close()
            self._items.clear()
            self._look_again()
        if thread is not None:
            thread.join()

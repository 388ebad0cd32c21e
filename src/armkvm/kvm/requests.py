"""What other threads want of a vCPU: lines, requests and signals, and how they reach it.

The protocol of Documentation/virt/kvm/vcpu-requests.rst. Who wants something writes it down under
`wait`, then looks at `mode`: in the guest, the vCPU is kicked out of it; elsewhere it looks at all
of this itself before it enters. It says that it enters (IN_GUEST_MODE) before it looks for the last
time, so that one of the two always sees the other. Left out: requests without a kick or a wait,
which Linux tells apart by flags.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from armkvm.kvm import kvm_host as h

if TYPE_CHECKING:
    from armkvm.host.cpu import GuestCpu
    from armkvm.host.turn import Task, Turn


class Requests:
    """The part of a vCPU that other threads touch."""

    cpu: GuestCpu
    turn: Turn
    task: Task
    pid: int | None  # thread of the last KVM_RUN that got past its first checks

    def __init__(self) -> None:
        self.wait = threading.Condition()  # guards what is here, and mp_state
        self.hcr = 0  # HCR_EL2.VI, VF, VSE: lines that are high
        self.requests = 0  # kvm_host.REQ_*
        self.signal_pending = False
        self.mode = h.OUTSIDE_GUEST_MODE

    def kick(self) -> None:
        """From any thread: end KVM_RUN with EINTR, this one or the next. An exit is never lost."""
        with self.wait:
            self.signal_pending = True
        self.vcpu_kick()

    def unkick(self) -> None:
        """Take back a kick that no KVM_RUN has ended by: the signal was delivered elsewhere."""
        with self.wait:
            self.signal_pending = False

    def make_request(self, request: int) -> None:
        """kvm_make_request()."""
        with self.wait:
            self.requests |= request

    def check_request(self, request: int) -> bool:
        """kvm_check_request(): test and clear."""
        if not self.requests & request:
            return False
        with self.wait:
            if not self.requests & request:
                return False
            self.requests &= ~request
            return True

    def wake_up(self) -> None:
        """kvm_vcpu_wake_up(): end a sleep, or the one that is about to begin."""
        self.turn.wake(self.task)

    def vcpu_kick(self) -> None:
        """kvm_vcpu_kick(): wake it up, or make it leave the guest."""
        self.wake_up()
        if self.mode == h.IN_GUEST_MODE:
            self.cpu.kick()

    def kick_out(self) -> None:
        """Make it leave the guest, and wait until it has; the caller has made a request."""
        if self.pid == threading.get_ident():
            return  # we are its thread, so it is not in the guest
        with self.wait:
            while self.mode == h.IN_GUEST_MODE:
                self.cpu.kick()
                # It may have been kicked just before it set the mode: ask again.
                self.wait.wait(0.01)

"""/dev/kvm: the system ioctls, after virt/kvm/kvm_main.c (kvm_dev_ioctl)."""

from __future__ import annotations

import errno
from collections.abc import Callable

from armkvm.abi import ioctl as nr
from armkvm.abi.kvm import KVM_API_VERSION, KVM_VCPU_MMAP_SIZE, KVM_VM_TYPE_ARM_IPA_SIZE_MASK
from armkvm.host.clock import Clock, make_clock
from armkvm.host.cpu import Backend, EngineBackend
from armkvm.host.host import Host, HostParts
from armkvm.host.hrtimer import UserTimer
from armkvm.host.sched import Scheduler
from armkvm.kvm.arch_timer import kvm_timer_hyp_init
from armkvm.kvm.capabilities import check_extension
from armkvm.kvm.file import File, fail
from armkvm.kvm.ioctl import ioctl
from armkvm.kvm.trace import Trace
from armkvm.kvm.vm import Vm

DEFAULT_IPA_BITS = 40
MIN_IPA_BITS = 32


class System(File):
    """/dev/kvm of one host.

        from armkvm.abi.caps import Cap
        from armkvm.kvm import System

        with System("vhe-gicv3") as kvm:
            assert kvm.get_api_version() == 12
            assert kvm.check_extension(Cap.ARM_VM_IPA_SIZE) == 40  # bits
            with kvm.create_vm() as vm:
                vcpu = vm.create_vcpu(0)

    `host_kind` is a name in host.host.KINDS; `clock` a Clock or the name of a mode; `backend`
    supplies guest CPUs (default: the engine, loaded when the first VM is made). `seed` is what the
    random numbers for guests are made of (TRNG); without one they are the machine's own, and in
    virtual time those of seed 0. `sched` and `parts` are a checker's.
    """

    def __init__(
        self,
        host_kind: str = "nvhe-gicv2",
        clock: Clock | str = "virtual",
        *,
        backend: Backend | None = None,
        sched: Scheduler | None = None,
        parts: HostParts | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.clock = make_clock(clock) if isinstance(clock, str) else clock
        self.host = Host(host_kind, self.clock, sched, parts, seed)
        kvm_timer_hyp_init(self.host)
        self.trace = Trace()
        self._backend = backend

    @property
    def host_kind(self) -> str:
        """Its name in host.host.KINDS."""
        return self.host.kind.name

    @property
    def seed(self) -> int | None:
        """What the random numbers for guests are made of; None: they are the machine's own."""
        return self.host.random.seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        self.host.random.seed = seed

    @property
    def backend(self) -> Backend:
        """Where guest CPUs come from."""
        if self._backend is None:
            self._backend = EngineBackend()
        return self._backend

    @ioctl(nr.KVM_GET_API_VERSION)
    def get_api_version(self) -> int:
        """KVM_GET_API_VERSION: 12."""
        return KVM_API_VERSION

    @ioctl(nr.KVM_GET_VCPU_MMAP_SIZE)
    def get_vcpu_mmap_size(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE in bytes."""
        return KVM_VCPU_MMAP_SIZE

    @ioctl(nr.KVM_CHECK_EXTENSION, arg="cap")
    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION; 0 for what is unknown."""
        return check_extension(self.host.kind, cap)

    @ioctl(nr.KVM_CREATE_VM, arg="machine_type")
    def create_vm(self, machine_type: int = 0) -> Vm:
        """KVM_CREATE_VM. `machine_type` holds the IPA size in bits, 0 for 40. EINVAL."""
        if machine_type & ~KVM_VM_TYPE_ARM_IPA_SIZE_MASK:
            fail(errno.EINVAL)
        limit = self.host.kind.ipa_limit
        bits = machine_type or DEFAULT_IPA_BITS
        if not MIN_IPA_BITS <= bits <= limit:
            fail(errno.EINVAL)
        return Vm(self, bits)

    def timer(self, expired: Callable[[], None]) -> UserTimer:
        """A timer of this host in guest time, as timerfd is for a VMM. Not in KVM.

        `expired` is called from within a KVM_RUN: it may kick a vCPU, and should do no more.
        """
        return UserTimer(self.host.hrtimers, expired)

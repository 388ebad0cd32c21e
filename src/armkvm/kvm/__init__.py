"""The hypervisor: KVM/arm64 as Linux 6.12 has it, in the kernel's own vocabulary.

`System` stands for /dev/kvm, `Vm` and `Vcpu` for the file descriptors that come from it. Every
ioctl is a method of the same name in lower case that raises `OSError` with the kernel's errno, and
is reachable as ``ioctl(cmd, arg, data)`` with the kernel's numbers and byte layouts as well.
"""

from armkvm.kvm.system import System
from armkvm.kvm.vcpu import Vcpu
from armkvm.kvm.vm import Vm

__all__ = ["System", "Vcpu", "Vm"]

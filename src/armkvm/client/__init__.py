"""Who calls KVM: the interfaces of a client, and what implements them.

For a VMM, objects with a method an ioctl: `kvm` is what any KVM has, `extras` what our own offers
beyond it. For a program as C would write it, descriptors and ioctl(): `protocol`, with two
implementations, `inprocess` on this process's own hypervisor and `device` on a real /dev/kvm.
For both, `machine_code` reads the guests that are kept as words.
"""

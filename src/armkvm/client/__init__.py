"""Who calls KVM: the interface of a client, and its two implementations.

`protocol` is what a client needs, `inprocess` this process's own hypervisor through its ioctls,
`device` a real /dev/kvm.
"""

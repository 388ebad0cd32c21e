"""User space: what a VMM adds to KVM to make a machine. It uses ``armkvm.kvm`` through its API."""

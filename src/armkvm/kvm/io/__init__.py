"""Devices in the kernel and eventfds, after virt/kvm: buses, irqfd, ioeventfd, coalesced MMIO."""

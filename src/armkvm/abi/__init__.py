"""The ABI: linux/kvm.h and linux/psci.h as numbers and layouts. Imports nothing of armkvm."""

"""The interrupt controller in the kernel, file by file after arch/arm64/kvm/vgic."""

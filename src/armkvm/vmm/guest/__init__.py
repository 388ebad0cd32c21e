"""What runs in the machine: loading kernels, the default guest, the built-in one."""

"""The machine's interrupt controllers: in user space, and the ones of KVM set up by user space."""

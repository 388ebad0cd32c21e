"""What surrounds the hypervisor while it is checked, what must hold there, and what is seen."""

"""The machine under the hypervisor.

Physical CPUs with their per-CPU interrupts and timers, hrtimers, the clock and the scheduler.
"""

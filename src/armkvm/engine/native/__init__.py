"""The CPU around its instructions: memory, exceptions, timers, the GIC's CPU interface."""

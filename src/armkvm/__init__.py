"""KVM/arm64 as a Python library: vCPUs, timers, the run loop, and a small VMM on top.

The packages are a house of floors; each imports only floors below its own:
``cli``, ``vmm``, ``kvm``, ``host``, ``engine``, ``isa``, ``abi``. ARCHITECTURE.md walks through
them. This file holds the version and nothing else, so that importing one floor does not load
the others.
"""

__version__ = "0.1.0"

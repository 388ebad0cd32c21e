"""KVM/arm64 as a Python library: vCPUs, timers, the run loop, and a small VMM on top.

The packages are a house of floors; each imports only floors below its own. From the roof down:
``cli``, ``bench``, ``conformance``, ``check``, ``vmm``, ``trace``, ``server``, ``client``, ``kvm``,
``host``, ``engine``, ``isa``, ``arch``, ``abi``, ``process``. ARCHITECTURE.md walks through them.
This file holds the version and nothing else, so that importing one floor does not load the others.
"""

__version__ = "0.1.0"

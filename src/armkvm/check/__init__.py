"""The checker: the hypervisor's own code under every schedule of small scenarios.

`kvm` and `host` run unchanged; what is replaced is what surrounds them. From the bottom up:

- execution: actors of which one runs at a time, and the locks that they wait for
- world: host, guests and user space around the hypervisor; what must hold; what a state is
- scenarios, mutants, seed.py: small situations, bugs of history, the patch of 2017
- explorer: which schedules are tried, which are left out, what goes round for ever
- jobs: explorations as pieces of work, for any executor
- report: text, JSON, HTML
"""

"""The checker: the hypervisor's own code under every schedule of small scenarios.

`kvm` and `host` run unchanged; what is replaced is what surrounds them. Threads become actors of
which one runs at a time (actors.py), guest CPUs follow scripts (guest.py), time passes when the
explorer says so (world.py). search.py decides who goes on, properties.py says what must hold.
"""

"""User space: what a VMM adds to KVM to make a machine.

It is written against ``armkvm.client``: KVM's ioctls, and a few extras that are listed there.
"""

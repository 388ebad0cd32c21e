"""Figures of a run, as `run --stats` prints them in JSON: how much a guest did, and digests.

In virtual time all but `wall_seconds` are a function of the run's inputs. Digests are SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armkvm.vmm.machine import Machine


def figures(machine: Machine, wall_ns: int) -> dict[str, Any]:
    """Instructions, exits by reason, seconds, digests."""
    vcpus = machine.vcpus
    exits = [vcpu.stat.as_dict() for vcpu in vcpus]
    return {
        "instructions": machine.vm.instructions,
        "exits": _sum(exits),
        "vcpus": [
            {"instructions": vcpu.instructions, "exits": one}
            for vcpu, one in zip(vcpus, exits, strict=True)
        ],
        "guest_seconds": machine.system.clock.now() / 1e9,
        "wall_seconds": wall_ns / 1e9,
        "odd_accesses": machine.odd.count,
        "console_digest": machine.console.digest(),
        "memory_digest": hashlib.sha256(machine.memory).hexdigest(),
    }


def _sum(counters: list[dict[str, Any]]) -> dict[str, Any]:
    """Counters of several vCPUs, nested by reason, added up."""
    total: dict[str, Any] = {}
    for one in counters:
        for name, value in one.items():
            if isinstance(value, dict):
                total[name] = _sum([total.get(name, {}), value])
            else:
                total[name] = total.get(name, 0) + value
    return total

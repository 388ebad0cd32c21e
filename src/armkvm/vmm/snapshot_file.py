"""Snapshots in files: one format, with a version.

    armkvm snapshot 3\\n        the first line
    {"host": ..., ...}\\n       everything but memory, as JSON in one line; numbers are decimal, ids
                               and contents of registers are strings in hexadecimal; "memory" lists
                               [offset from the start of RAM, bytes] of what follows
    memory                     the pieces, one after the other
    SHA-256                    32 bytes, of all that comes before

A file appears under its name when it is complete, or not at all. What is no such file, is of
another version, or damaged is refused in one line. Left out: compression, encryption; whoever can
write a snapshot decides what the guest does, but not more than a guest may.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from armkvm.process import output
from armkvm.vmm.errors import GuestError
from armkvm.vmm.snapshot import EVENTS_SIZE, Snapshot, VcpuState

MAGIC = b"armkvm snapshot "
VERSION = 3
DIGEST = 32
PAGE = 1 << 12


def write(path: str | Path, snapshot: Snapshot) -> None:
    """Write it under that name, at once. OSError."""
    head = json.dumps(_plain(snapshot), separators=(",", ":"))
    output.replace(path, _parts(head, snapshot))


def _parts(head: str, snapshot: Snapshot) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for part in (
        MAGIC + b"%d\n" % VERSION, head.encode() + b"\n",
        *(piece for _at, piece in snapshot.memory),
    ):  # fmt: skip
        digest.update(part)
        yield part
    yield digest.digest()


def read(path: str | Path) -> Snapshot:
    """Read it back. GuestError: it cannot be read, is something else, or damaged."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(MAGIC))
            if begin != MAGIC:  # before the rest is read, which may have no end
                raise GuestError(f"{path} is not a snapshot of armkvm")
            data = memoryview(begin + file.read())
    except OSError as error:
        raise GuestError(f"cannot read {path}: {error.strerror}") from None
    first, at = _line(data, 0)
    if first != MAGIC + b"%d" % VERSION:
        raise GuestError(f"{path} has another version's format: this armkvm reads {VERSION}")
    body, digest = data[:-DIGEST], bytes(data[-DIGEST:])
    if len(data) < at + DIGEST or hashlib.sha256(body).digest() != digest:
        raise GuestError(f"{path} is damaged: its checksum is wrong")
    head, at = _line(body, at)
    try:
        return _snapshot(json.loads(head), body[at:])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise GuestError(f"{path} is damaged: a part of it makes no sense") from None


def _line(data: memoryview, start: int) -> tuple[bytes, int]:
    """The line that begins there, and where the next one does."""
    window = 1 << 16
    while True:
        part = bytes(data[start : start + window])
        end = part.find(b"\n")
        if end >= 0:
            return part[:end], start + end + 1
        if start + window >= len(data):
            return part, len(data)
        window *= 4


def _plain(s: Snapshot) -> dict[str, Any]:
    return {
        "host": s.host,
        "irqchip": s.irqchip,
        "cpus": s.cpus,
        "mem_bytes": s.mem_bytes,
        "ns": s.ns,
        "seed": s.seed,
        "pmu": s.pmu,
        "vcpus": [
            {
                "registers": {f"{reg:#x}": f"{value:#x}" for reg, value in v.registers.items()},
                "mp_state": v.mp_state,
                "events": v.events.hex(),
                "device_irq_level": v.device_irq_level,
                "has_run": v.has_run,
            }
            for v in s.vcpus
        ],
        "vgic": [[group, f"{attr:#x}", f"{value:#x}"] for group, attr, value in s.vgic],
        "devices": s.devices,
        "memory": [[at, len(piece)] for at, piece in s.memory],
    }


def _snapshot(plain: dict[str, Any], memory: memoryview) -> Snapshot:
    pieces = []
    start = 0
    for at, size in plain["memory"]:
        if not 0 <= size <= len(memory) - start:
            raise ValueError("memory")
        pieces.append((_int(at), bytes(memory[start : start + size])))
        start += size
    if start != len(memory):
        raise ValueError("memory")
    snapshot = Snapshot(
        host=_str(plain["host"]),
        irqchip=_str(plain["irqchip"]),
        cpus=_int(plain["cpus"]),
        mem_bytes=_int(plain["mem_bytes"]),
        ns=_int(plain["ns"]),
        seed=None if plain["seed"] is None else _int(plain["seed"]),
        pmu=_bool(plain["pmu"]),
        vcpus=[_vcpu(v) for v in plain["vcpus"]],
        vgic=[(_int(group), int(attr, 16), int(value, 16)) for group, attr, value in plain["vgic"]],
        devices=dict(plain["devices"]),
        memory=pieces,
    )
    if len(snapshot.vcpus) != snapshot.cpus or not snapshot.mem_bytes or snapshot.mem_bytes % PAGE:
        raise ValueError("sizes")
    return snapshot


def _vcpu(v: dict[str, Any]) -> VcpuState:
    events = bytes.fromhex(v["events"])
    if len(events) != EVENTS_SIZE:
        raise ValueError("events")
    return VcpuState(
        registers={int(reg, 16): int(value, 16) for reg, value in v["registers"].items()},
        mp_state=_int(v["mp_state"]),
        events=events,
        device_irq_level=_int(v["device_irq_level"]),
        has_run=_bool(v["has_run"]),
    )


def _int(value: Any) -> int:
    """A number that is not negative and fits a register."""
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("number")
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("truth")
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("string")
    return value

"""Memory for native code: given back once, and not touched afterwards."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from armkvm.engine.hostmem import HostMemory


@pytest.fixture
def memory() -> Iterator[HostMemory]:
    memory = HostMemory(4096)
    ctypes.memset(memory.address, 0x5A, 4096)
    yield memory
    memory.close()


def test_it_is_zeroed(memory: HostMemory) -> None:
    memory.clear()
    assert ctypes.string_at(memory.address, 4096) == bytes(4096)


def test_what_is_closed_clears_nobody_elses(
    memory: HostMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives addresses out again."""
    closed = HostMemory(4096)
    closed.close()
    monkeypatch.setattr(closed, "address", memory.address)
    closed.clear()
    assert ctypes.string_at(memory.address, 4096) == bytes([0x5A]) * 4096

"""Snapshots in files: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armkvm.vmm import snapshot_file
from armkvm.vmm.errors import GuestError
from armkvm.vmm.snapshot import EVENTS_SIZE, Snapshot, VcpuState

VCPU = VcpuState({0x6030_0000_0010_0000: 1 << 63, 5: 0}, 5, bytes(EVENTS_SIZE), 3, True)


def some() -> Snapshot:
    return Snapshot(
        "nvhe-gicv2", "kernel-gicv2", 1, 4 << 20, 12345, [VCPU], [(1, 0x1_0000_0100, 7)],
        {"pl031": {"due": None, "cr": 1}}, [(0, b"abc\n"), (0x1_0000, b"\0\xff")],
    )  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    snapshot_file.write(tmp_path / "a", some())
    assert snapshot_file.read(tmp_path / "a") == some()
    seeded = replace(some(), seed=7)
    snapshot_file.write(tmp_path / "a", seeded)
    assert snapshot_file.read(tmp_path / "a") == seeded
    assert os.listdir(tmp_path) == ["a"]


def test_the_head_is_text(tmp_path: Path) -> None:
    snapshot_file.write(tmp_path / "a", some())
    first, head, _rest = (tmp_path / "a").read_bytes().split(b"\n", 2)
    assert first == b"armkvm snapshot 3"
    assert json.loads(head)["memory"] == [[0, 4], [0x1_0000, 2]]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot_file.write(tmp_path / "a", some())
    before = (tmp_path / "a").read_bytes()

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        snapshot_file.write(tmp_path / "a", some())
    assert (tmp_path / "a").read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damage") / "a"
    snapshot_file.write(path, some())
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path.write_bytes(content)
    with pytest.raises(GuestError) as error:
        snapshot_file.read(path)
    assert "\n" not in str(error.value)


def values() -> st.SearchStrategy[object]:
    plain = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats()
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_right_checksum_does_not_make_sense_of_nonsense(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any value in any place: read as something of the right types, or refused."""
    path = tmp_path_factory.mktemp("nonsense") / "a"
    snapshot_file.write(path, some())
    magic, head, _rest = path.read_bytes().split(b"\n", 2)
    plain = json.loads(head)
    where = plain if data.draw(st.booleans()) else plain["vcpus"][0]
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(values())
    body = magic + b"\n" + json.dumps(plain).encode() + b"\n" + b"abc\n\0\xff"
    path.write_bytes(body + hashlib.sha256(body).digest())
    with suppress(GuestError):
        got = snapshot_file.read(path)
        assert isinstance(got.ns, int)
        assert len(got.vcpus) == got.cpus


def test_brackets_without_end_make_no_sense(tmp_path: Path) -> None:
    """A head of 200,000 brackets was a RecursionError."""
    body = snapshot_file.MAGIC + b"%d\n" % snapshot_file.VERSION + b"[" * 200_000 + b"\n"
    (tmp_path / "a").write_bytes(body + hashlib.sha256(body).digest())
    with pytest.raises(GuestError, match="is damaged: a part of it makes no sense"):
        snapshot_file.read(tmp_path / "a")

"""The viewer's form: valid JSON, balanced slices, counters; also when the end is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.trace.guest import recorded

from armkvm.trace.reader import read


def test_tracks_slices_and_counters(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = json.loads(recorded(tmp_path / "trace.json"))
    assert {"name": "vcpu-0"} in [e["args"] for e in events if e["ph"] == "M"]
    depth = 0
    last = 0.0
    for event in events:
        if event["ph"] == "M":
            continue
        assert event["ts"] >= last
        last = event["ts"]
        depth += {"B": 1, "E": -1}.get(event["ph"], 0)
        assert 0 <= depth <= 1
    slices = [e["name"] for e in events if e["ph"] == "B"]
    assert slices[:6] == ["guest", "HVC64", "guest", "DABT_LOW", "guest", "DABT_LOW"]
    assert {"WFx", "IRQ", "SYS64"} < set(slices)
    counters = [(e["name"], e["args"]["level"]) for e in events if e["ph"] == "C"]
    vtimer = [value for name, value in counters if name == "vcpu0 vtimer reported"]
    assert vtimer == [1, 0]


def test_fields_have_the_kernels_names(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = json.loads(recorded(tmp_path / "trace.perfetto-trace"))
    mmio = next(e for e in events if e.get("name") == "kvm_mmio")
    assert mmio["args"] == {
        "type": "write", "len": 2, "gpa": "0x10000008", "val": "0xabcd", "vcpu": 0,
    }  # fmt: skip
    entry = next(e for e in events if e.get("cat") == "kvm_entry")
    assert list(entry["args"]) == ["vcpu_pc"]


def test_a_trace_that_was_cut_short_can_be_read(tmp_path: Path) -> None:
    text = recorded(tmp_path / "trace.json")
    whole = tmp_path / "cut.json"
    whole.write_text(text[: len(text) * 2 // 3])
    with whole.open() as file:
        assert len(list(read(file))) > 20

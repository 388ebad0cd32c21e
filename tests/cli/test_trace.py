"""armkvm trace, and run --trace: a bare guest's run is recorded, then summarised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from armkvm.cli.codes import Code
from armkvm.cli.main import main
from armkvm.vmm.guest import bare


@pytest.mark.parametrize("name", ["trace.txt", "trace.json"])
def test_record_and_summarise(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kernel, trace = tmp_path / "guest.bin", tmp_path / name
    kernel.write_bytes(bare.program())
    assert main(["run", "-k", str(kernel), "--time", "virtual", "--trace", str(trace)]) == 0
    capfd.readouterr()
    assert main(["trace", "--json", str(trace)]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["events"]["kvm_exit"] == found["events"]["kvm_entry"] > 0
    assert found["returns"]["KVM_EXIT_SYSTEM_EVENT"] == 1
    for timer in found["timers"].values():
        assert timer["unknown_entries"] == 0
    assert main(["trace", str(trace)]) == 0
    out = capfd.readouterr().out
    assert "kvm_userspace_exit" in out
    assert "in the guest" in out


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = tmp_path / "guest.bin"
    kernel.write_bytes(bare.program())
    for words, line in (
        (["trace", str(tmp_path / "none")], "No such file"),
        (["trace", str(kernel)], "is not a trace"),
        (["run", "-k", str(kernel), "--trace", str(tmp_path / "no" / "t")], "cannot write"),
    ):
        assert main(words) == Code.USAGE
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1

"""``armkvm conformance``: prints a log, or says by section where it is not the one given."""

import errno
from pathlib import Path

import pytest
from tests.conformance.truth import FILES

from armkvm.abi.ioctl import KVM_CHECK_EXTENSION, KVM_GET_API_VERSION
from armkvm.cli.codes import Code
from armkvm.cli.main import main

E3 = ["conformance", "--only", "E3"]


def test_prints_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(E3) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "== E3 KVM_IRQ_LINE argument matrix, userspace irqchip"
    assert lines[-1] == "ORACLE-DONE"
    assert lines[1].endswith("type=0 vcpu=0 num=0 level=1 -> ret=-1 errno=EINVAL")
    assert len(lines) == 13


@pytest.mark.parametrize("host", FILES)
def test_agrees_by_section(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    only = ["--only", "T1", "--only", "T2"]
    assert main(["conformance", "--host", host, "--against", str(FILES[host]), *only]) == 0
    t1, t2, done, summary = capsys.readouterr().out.splitlines()
    assert t1.startswith("same  T1 vtimer, CVAL=0 (past)")
    assert t1.endswith("(15 lines)")
    assert t2.startswith("same  T2 ")
    assert t2.endswith("(11 lines, 2 as free as they may be)")
    assert done == "same  ORACLE-DONE  (0 lines)"
    assert summary == "all 3 sections are the same"


def test_a_known_bug_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    only = ["--only", "P2", "--only", "P3"]
    assert main(["conformance", "--against", str(FILES["nvhe-gicv2"]), *only]) == 0
    p2, p3, *_ = capsys.readouterr().out.splitlines()
    assert p2.startswith("same  P2 ")
    assert p2.endswith("(26 lines)")
    assert p3.startswith("same  P3 ")
    assert p3.endswith("(31 lines, known: 6.12 loses the timer's interrupt)")


def test_what_runs_is_what_the_log_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "log"
    assert main(["conformance", "--only", "caps", "--only", "T1"]) == 0
    part.write_text(capsys.readouterr().out)
    assert main(["conformance", "--against", str(part)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "all 3 sections are the same"


def test_a_difference_is_shown_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "log"
    text = FILES["nvhe-gicv2"].read_text()
    assert text.count("type=3 vcpu=0 num=0 level=1 -> ret=-1 errno=EINVAL") == 1
    changed.write_text(text.replace("type=3 vcpu=0 num=0 level=1 -> ret=-1 errno=EINVAL", "type=3"))
    assert main([*E3, "--against", str(changed)]) == Code.FAILED
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].startswith("DIFF  E3 ")
    assert [line.split()[0] for line in lines[1:3]] == ["-", "+"]
    assert lines[2].endswith("ret=-1 errno=EINVAL")
    assert shown.err == "armkvm: 1 of 2 sections differ\n"


def test_a_file_that_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    for content in (b"", b"Linux version 6.12\n", b"\xff\xfe\x00"):
        other.write_bytes(content)
        assert main([*E3, "--against", str(other)]) == Code.USAGE
        assert capsys.readouterr().err == (
            f"armkvm: {other} holds no log of the conformance cases\n"
        )
    assert main([*E3, "--against", str(tmp_path / "none")]) == Code.HOST
    assert "No such file or directory" in capsys.readouterr().err


def test_a_device_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*E3, "--device", str(tmp_path / "kvm")]) == Code.HOST
    assert str(tmp_path / "kvm") in capsys.readouterr().err


def test_a_device_that_is_no_kvm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kvm"
    path.touch()
    assert main([*E3, "--device", str(path)]) == Code.HOST
    assert capsys.readouterr().err == f"armkvm: not a KVM device: {path}\n"


def test_a_kvm_of_another_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answered EINVAL and ENODEV, and that was printed as if it meant something."""

    def x86(_fd: int, request: int, argument: object = 0) -> int:
        if request == KVM_GET_API_VERSION:
            return 12
        if request == KVM_CHECK_EXTENSION:
            return 0
        raise OSError(errno.EINVAL, "Invalid argument")

    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr("fcntl.ioctl", x86)
    assert main([*E3, "--device", str(path)]) == Code.HOST
    shown = capsys.readouterr()
    assert shown.err == f"armkvm: a KVM, but not an arm64 host's: {path}\n"
    assert shown.out == ""

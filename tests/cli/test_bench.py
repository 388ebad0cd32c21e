"""armkvm bench: the arithmetic of its figures and the shape of its output."""

import json
import sys
from pathlib import Path

import pytest

from armkvm.bench import BenchError, mips, rival
from armkvm.bench.rival import Boot, Run
from armkvm.cli import bench
from armkvm.cli.codes import Code
from armkvm.cli.main import main


def test_commands() -> None:
    what = Boot(Path("k"), Path("i"), "a b")
    ours, theirs = what.armkvm(), what.qemu()
    assert ours[:4] == [sys.executable, "-m", "armkvm", "run"]
    assert ours[-6:] == ["--kernel", "k", "--initrd", "i", "--params", "a b"]
    assert theirs[-6:] == ["-kernel", "k", "-initrd", "i", "-append", "a b"]
    assert ours[ours.index("--mem") + 1] == theirs[theirs.index("-m") + 1]
    assert "--params" not in Boot(Path("k")).armkvm()


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_whole() -> None:
    done = rival.whole(python("print(1)"), 30)
    assert done.output == b"1\n"
    assert done.seconds > 0
    with pytest.raises(BenchError, match="armkvm ended with 3: why"):
        rival.whole(python("import sys; print('x\\nwhy', file=sys.stderr); sys.exit(3)"), 30)
    with pytest.raises(BenchError, match=r"not done within 0\.2 s"):
        rival.whole(python("input() if 0 else __import__('time').sleep(60)"), 0.2)


def test_until() -> None:
    slow = "import os, time; os.write(1, b'BOOT'); time.sleep(.1); os.write(1, b'-OK')"
    assert rival.until(python(slow + "; time.sleep(60)"), b"BOOT-OK", 30) > 0
    with pytest.raises(BenchError, match=r"ended without printing b'BOOT-OK': no word of why"):
        rival.until(python("print('x')"), b"BOOT-OK", 30)
    with pytest.raises(BenchError, match=r"did not print b'BOOT-OK' in 0\.2 s"):
        rival.until(python("__import__('time').sleep(60)"), b"BOOT-OK", 0.2)


class Rivals:
    """Both machines, with speeds of our choosing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, qemu: bool = True) -> None:
        self.seconds = {"armkvm": 4.0, "qemu": 2.0}
        self.output = {"armkvm": b"ff\n", "qemu": b"ff\r\n"}
        self.boots = 0
        monkeypatch.setattr(rival, "have_qemu", lambda: qemu)
        monkeypatch.setattr(rival, "until", self.until)
        monkeypatch.setattr(rival, "whole", self.whole)

    def until(self, command: list[str], text: bytes, limit: float) -> float:
        self.boots += 1
        # The first run warms the caches and must not count.
        return 99.0 if self.boots == 1 else self.seconds[self.who(command)]

    def whole(self, command: list[str], limit: float) -> Run:
        path = next(word for word in command if word.endswith(".bin"))
        count = int(path.rsplit("-", 1)[1].removesuffix(".bin"))
        work = 0.0 if count == 1 else self.seconds[self.who(command)]
        stats = json.dumps({"instructions": 1000 if count == 1 else 200_001_000})
        who = self.who(command)
        return Run(0.5 + work, self.output[who], stats.encode() if who == "armkvm" else b"")

    def who(self, command: list[str]) -> str:
        return "qemu" if command[0] == rival.QEMU else "armkvm"


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    parsed = json.loads(capsys.readouterr().out)
    assert list(parsed) == ["rows"]
    return list(parsed["rows"])


def test_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Rivals(monkeypatch)
    assert main(["bench", "start", "--json"]) == 0
    assert rows(capsys) == [
        {"name": "start", "ours": 4.0, "qemu": 2.0, "unit": "s", "ratio": 0.5}
    ]


def test_mips(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Rivals(monkeypatch)
    assert main(["bench", "mips", "--json", "--repeat", "1"]) == 0
    got = rows(capsys)
    assert [row["name"] for row in got] == [kernel.name for kernel in mips.KERNELS]
    # 200 million instructions in four seconds and in two.
    for row in got:
        assert (row["ours"], row["qemu"], row["unit"], row["ratio"]) == (50, 100, "MIPS", 0.5)


def test_no_figure_from_noise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A long run that took less time than the short one gave -170 MIPS, ratio -1.48."""
    Rivals(monkeypatch).seconds["qemu"] = -0.25
    assert main(["bench", "mips", "--repeat", "1"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("too noisy") == len(mips.KERNELS)
    assert "-" not in "".join(line for line in shown.out.splitlines() if "sieve" in line)
    assert "armkvm: sieve: qemu-system-aarch64's times are too noisy" in shown.err
    assert main(["bench", "mips", "--repeat", "1", "--json"]) == 0
    for row in rows(capsys):
        assert (row["ours"], row["qemu"], row["ratio"]) == (50, None, None)


def test_most_runs_must_give_a_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rivals = Rivals(monkeypatch)
    times = iter([4.0, 0.0, 4.0] * len(mips.KERNELS))
    real = rivals.whole

    def whole(command: list[str], limit: float) -> Run:
        if rivals.who(command) == "armkvm" and not any(w.endswith("-1.bin") for w in command):
            rivals.seconds["armkvm"] = next(times)
        return real(command, limit)

    monkeypatch.setattr(rival, "whole", whole)
    assert main(["bench", "mips", "--json"]) == 0
    assert {row["ours"] for row in rows(capsys)} == {50}


def test_no_column_for_a_qemu_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Rivals(monkeypatch, qemu=False)
    assert main(["bench", "start"]) == 0
    alone = capsys.readouterr().out
    Rivals(monkeypatch)
    assert main(["bench", "start"]) == 0
    both = capsys.readouterr().out
    for word in ("QEMU", "ratio", "ahead"):
        assert word in both
        assert word not in alone


def test_mips_with_different_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Rivals(monkeypatch).output["qemu"] = b"0\n"
    assert main(["bench", "mips"]) == Code.FAILED
    assert "xorshift: armkvm says b'ff\\n', QEMU b'0\\n'" in capsys.readouterr().err


def test_without_qemu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Rivals(monkeypatch, qemu=False)
    assert main(["bench", "start"]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "armkvm: qemu-system-aarch64 is not installed: armkvm's own figures only\n"
    )
    assert "start" in captured.out
    assert bench.LIMIT > 0

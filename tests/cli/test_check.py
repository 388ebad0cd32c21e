"""``armkvm check`` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from armkvm.cli.codes import Code
from armkvm.cli.main import main

TOKEN = "timer-future/current/no-notification/0.1"


def test_exhausted_and_no_violation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "timer-future", "timer-masked"]) == Code.OK
    out = capsys.readouterr().out
    assert out.count("exhausted") == 2
    assert "states/s" in out


def test_a_mutant_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--mutant", "no-notification", "--json"]) == Code.OK
    (found,) = json.loads(capsys.readouterr().out)["mutants"]
    assert found["found"]
    assert (found["property"], found["commit"], found["token"]) == ("I1", "d9e139778376", TOKEN)


def test_a_replay_is_the_same_in_another_process() -> None:
    command = [sys.executable, "-m", "armkvm", "check", "--replay", TOKEN]
    first, second = (subprocess.run(command, capture_output=True, check=False) for _ in range(2))
    assert first.returncode == Code.FAILED
    assert first.stdout == second.stdout
    assert first.stdout.splitlines()[-1].startswith(b"I1: ")


def test_the_report_is_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    assert main(["check", "--mutant", "never-masked", "--html", str(report)]) == Code.OK
    capsys.readouterr()
    text = report.read_text(encoding="utf-8")
    assert "I3 violated" in text
    assert "http" not in text
    assert "<script" not in text


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["--variant", "none"], ["--mutant", "none"], ["--replay", "x"]],
)
def test_unknown_names(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments]) == Code.USAGE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "code"), [("somewhere", Code.USAGE), ("tcp://127.0.0.1:1", Code.HOST)]
)
def test_a_cluster_that_is_none(
    address: str, code: Code, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "timer-past", "--executor", address]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert address in err


def test_a_cluster_without_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["check", "timer-past", "--executor", "tcp://127.0.0.1:1"]) == Code.USAGE
    assert "armkvm[dask]" in capsys.readouterr().err


# Says when it is there: a process is started, work was given away, a result was handed over.
INTERRUPTED = """
import sys
from armkvm.check.jobs import farm
from armkvm.cli import check
from armkvm.cli.main import main

owner, name = {"starts": (farm.Pool, "submit"), "begun": (check.Exploring, "begun"),
               "ended": (check.Exploring, "ended")}[sys.argv[1]]
real = getattr(owner, name)

def there(*args, **kwargs):
    print("there", flush=True)
    return real(*args, **kwargs)

setattr(owner, name, there)
scenarios = ["timer-past", "migration", "two-vms"]
sys.exit(main(["check", "--bound", "1000000000", "--jobs", "2", *scenarios]))
"""


@pytest.mark.parametrize("when", ["starts", "begun", "ended"])
def test_interrupted(when: str) -> None:
    """Work without end, until Ctrl-C."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, when],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        # As from a terminal: everybody in the group gets it.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out.replace(b"there\n", b""), err) == (Code.INTERRUPTED, b"", b"")

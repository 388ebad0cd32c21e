"""``armkvm check`` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest

from armkvm.check.job import Job
from armkvm.check.search import Bound
from armkvm.cli.check import carry_out
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


class Dying(Executor):
    """Loses the first job it is given."""

    lost = 0

    def submit(self, function, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[object] = Future()
        if not Dying.lost:
            Dying.lost += 1
            future.set_exception(OSError("the worker was killed"))
        else:
            future.set_result(function(*args, **kwargs))
        return future


def test_a_lost_job_is_tried_again_and_none_counts_twice() -> None:
    Dying.lost = 0
    jobs = [Job(name, bound=Bound(schedules=50)) for name in ("timer-past", "timer-future")]
    done = [job for job, _result in carry_out(Dying, jobs)]
    assert sorted(done, key=lambda j: j.scenario) == sorted(jobs, key=lambda j: j.scenario)
    assert Dying.lost == 1

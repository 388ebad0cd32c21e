"""armkvm bench check: the shape of its output, and the checker beside SPIN itself."""

import json
import shutil
from pathlib import Path

import pytest

from armkvm.bench import BenchError, spin
from armkvm.bench.spin import Pan, compare, verdict
from armkvm.bench.spin.compare import PAIRS, Claims, Common, Find, Hunt, Pair, Row, Side
from armkvm.check.mutants import MUTANTS
from armkvm.cli.codes import Code
from armkvm.cli.main import main

OURS = Side(10, 30, 2.0, 5)
THEIRS = Side(1000, 3000, 0.5, 6)
CLAIMS = Claims(safe=0.25, live=0.5, build=3.0)


class Figures:
    """Both checkers, with figures of our choosing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(shutil, "which", lambda tool: None if tool in missing else tool)
        monkeypatch.setattr(compare, "rows", self.rows)
        monkeypatch.setattr(compare, "hunts", self.hunts)

    def rows(self, folder: Path, seconds: float, with_spin: bool, _progress: object) -> list[Row]:
        self.seconds = seconds
        bounded = Side(None, 70, 25.0, 4, "25 s")
        if not with_spin:
            return [Row("one vCPU", OURS), Row("at random", bounded)]
        return [
            Row("one vCPU", OURS, THEIRS, CLAIMS, Common(5, 0, 1)),
            Row("at random", bounded, THEIRS, CLAIMS, Common(4, 0, 2)),
        ]

    def hunts(self, folder: Path, with_spin: bool, _progress: object) -> list[Hunt]:
        theirs = Find("storm[i]<3", 9, 0.1) if with_spin else None
        shared = Common(46, 0, 7) if with_spin else None
        return [Hunt(Pair("M_NOMASK", "never-masked", 1), Find("I3", 2, 0.01), theirs, shared)]


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    figures = Figures(monkeypatch)
    assert main(["bench", "check", "--json", "--seconds", "3"]) == 0
    assert figures.seconds == 3
    got = json.loads(capsys.readouterr().out)
    assert list(got) == ["rows", "mutants"]
    assert got["rows"][0] == {
        "name": "one vCPU",
        "armkvm": {"states": 10, "transitions": 30, "seconds": 2.0, "shared": 5, "bound": ""},
        "spin": {"states": 1000, "transitions": 3000, "seconds": 0.5, "shared": 6, "bound": ""},
        "claims": {"safe": 0.25, "live": 0.5, "build": 3.0},
        "shared": {"both": 5, "only_armkvm": 0, "only_spin": 1},
    }  # fmt: skip
    assert got["mutants"] == [{
        "macro": "M_NOMASK", "mutant": "never-masked", "vcpus": 1,
        "armkvm": {"by": "I3", "states": 2, "seconds": 0.01},
        "spin": {"by": "storm[i]<3", "states": 9, "seconds": 0.1},
        "shared": {"both": 46, "only_armkvm": 0, "only_spin": 7},
    }]  # fmt: skip


def test_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Figures(monkeypatch)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bench", "check"]) == 0
    text = capsys.readouterr().out
    assert "one vCPU: 5 shared states in both, 0 in armkvm only, 1 in SPIN only" in text
    assert "at random: 4 shared states in both, 0 in armkvm only, 2 in SPIN only" in text
    # What SPIN came to is said once, for all that is compared with it.
    assert text.count("SPIN, ") == 1
    assert sum("SPIN" in line and "exhausted" in line for line in text.splitlines()) == 1
    assert "2000" in text  # states a second
    assert "storm[i]<3" in text  # not taken for markup
    assert "46, 7" in text


def test_without_spin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Figures(monkeypatch, "spin")
    assert main(["bench", "check", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "armkvm: spin is not installed: armkvm's own figures only\n"
    got = json.loads(captured.out)
    for row in got["rows"]:
        assert row["spin"] is row["shared"] is row["claims"] is None
    assert got["mutants"][0]["spin"] is got["mutants"][0]["shared"] is None
    assert got["mutants"][0]["armkvm"]["by"] == "I3"


def test_tables_without_spin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Figures(monkeypatch, "spin", "gcc")
    assert main(["bench", "check"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "armkvm: spin and gcc are not installed: armkvm's own figures only\n"
    assert "shared states in both" not in captured.out


SAID = """pan:1: {violation} (at depth 12)
State-vector 56 byte, depth reached 150, errors: {errors}
       62 states, stored (80 visited)
      106 transitions (= visited+matched)
seen 4b2
seen 0
"""


@pytest.mark.parametrize(
    ("errors", "violation", "violated"),
    [
        (0, "", ""),
        (1, "acceptance cycle", "live"),
        (1, "assertion violated (storm[i]<3)", "storm[i]<3"),
        (1, "assertion violated  !( !( !((inguest[0]&&masked))))", "safe"),
    ],
)
def test_verdict(errors: int, violation: str, violated: str) -> None:
    got = verdict(SAID.format(errors=errors, violation=violation), 0.5)
    assert (got.states, got.transitions, got.seconds) == (62, 106, 0.5)
    assert got.violated == violated
    assert got.shared == {0, 0x4B2}


def test_an_incomplete_search_is_none() -> None:
    with pytest.raises(BenchError, match="did not look at all states"):
        verdict("error: max search depth too small\n" + SAID.format(errors=0, violation=""), 1)


def test_a_model_that_does_not_compile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match="spin ended with 1"):
        Pan(tmp_path, 1, "guest=else")
    monkeypatch.setattr(spin, "LIMIT", 1e-6)
    with pytest.raises(BenchError, match="spin was not done within"):
        Pan(tmp_path, 1)


def test_the_model_and_the_hypervisor_share_their_states(tmp_path: Path) -> None:
    """One vCPU: both exhaust, and what the two have in common takes the same values in both."""
    side, seen = compare.explored(1, 120)
    assert not side.bound
    assert side.shared == len(seen)
    pan = Pan(tmp_path, 1)
    states = pan.run("states")
    assert not states.violated
    assert seen == states.shared
    assert not pan.run("safe").violated
    assert not pan.run("live").violated


def test_two_vcpus_stay_within_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as some schedules go, and some walks."""
    states = Pan(tmp_path, 2).run("states").shared
    for search, many in ((compare.explored, 300), (compare.walked, 2)):
        monkeypatch.setattr(compare, "MANY", many)
        side, seen = search(2, compare.ENOUGH)
        assert side.bound
        assert len(seen) > 50
        assert seen <= states


def test_a_mutant_and_its_model_share_their_states(tmp_path: Path) -> None:
    """Past the violation too: where the host's interrupt is never masked, the guest goes round."""
    seen = compare.beyond("never-masked")
    assert seen == Pan(tmp_path, 1, "M_NOMASK").run("states").shared


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.mutant)
def test_mutants_are_found_here(pair: Pair) -> None:
    assert compare.find(pair).by == MUTANTS[pair.mutant].prop


@pytest.mark.parametrize(("macro", "claim"), [("M_NOWAKE", "live"), ("M_NOMASK", "storm[i]<3")])
def test_mutants_are_found_by_spin(tmp_path: Path, macro: str, claim: str) -> None:
    assert compare.find_by_spin(Pan(tmp_path, 1, macro)).by == claim


def test_a_mask_that_is_lost_takes_two_vcpus(tmp_path: Path) -> None:
    pan = Pan(tmp_path, 1, "M_MASKLOST")
    assert not pan.run("safe").violated
    assert not pan.run("live").violated
    assert compare.find_by_spin(Pan(tmp_path, 2, "M_MASKLOST")).by == "safe"


def test_what_the_current_hypervisor_violates_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_args: object) -> list[Row]:
        raise BenchError("protocol: I1: entered with outputs 0x1, told 0x0")

    Figures(monkeypatch)
    monkeypatch.setattr(compare, "rows", broken)
    assert main(["bench", "check"]) == Code.FAILED
    assert "protocol: I1" in capsys.readouterr().err

"""Timelines: what a recorder sees, and how a terminal shows it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from armkvm.check.execution import locks
from armkvm.check.execution.actors import Execution, Violation
from armkvm.check.explorer.search import perform
from armkvm.check.jobs.job import Token, replay
from armkvm.check.report.timeline_text import ASCII, UNICODE, glyphs, text
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.world.listing import assembly
from armkvm.check.world.timeline import USER, Recorder, Sample, Step, Timeline, lanes, what
from armkvm.check.world.user import END, IAR
from armkvm.check.world.world import World
from armkvm.host.scripted import Hvc, Load, Mask, Mrs, Msr, Native, Op, Run, Store, Wfe, Wfi

LATE = "timer-future/current/no-notification/0.1"  # a deadline passes while the guest runs
LOW = Sample(0, 0, 0, 0, None, None, 0, 0, None, 0, None)


def recorded(token: str) -> Timeline:
    """The timeline of a schedule."""
    return replay(Token.parse(token))[0]


def test_the_guest_and_the_lines_are_seen() -> None:
    """Without the notification: the output rises, nobody is told, the guest goes on."""
    timeline = recorded("timer-past/current/no-notification/-")
    assert timeline.threads == ["vcpu", "hrtimer", "time"]
    assert timeline.vcpus == ["vCPU 0"]
    did = list(itertools.chain.from_iterable(step.did for step in timeline.steps))
    assert did[:2] == ["msr cntv_cval_el0, 0", "msr cntv_ctl_el0, 1"]
    *before, last = timeline.steps
    assert last.fails
    assert not any(step.fails for step in before)
    assert (last.vcpus[0].vtimer, last.vcpus[0].told_v, last.vcpus[0].cpu) == (1, 0, 0)
    rises = [n for n, step in enumerate(timeline.steps) if step.vcpus[0].vtimer]
    assert rises
    assert what(timeline.steps[rises[0]]).startswith("msr cntv_ctl_el0, 1")


def test_what_kvm_run_returns_is_seen() -> None:
    timeline = recorded("timer-past/current/never-masked/-")
    assert any("KVM_RUN = -EINTR" in step.did for step in timeline.steps)


def test_time_passes_in_its_own_step() -> None:
    timeline = recorded(LATE)
    times = [step.ns for step in timeline.steps]
    assert times == sorted(times)
    moved = [n for n, (a, b) in enumerate(itertools.pairwise(times), 1) if a != b]
    assert [timeline.threads[timeline.steps[n].actor] for n in moved] == ["time"]


def test_a_deviation_is_marked_where_somebody_else_goes_on() -> None:
    """The schedule deviates once, to the thread that makes the vgic."""
    timeline = recorded("late-vgic/current/late-vgic-busy-ignored/0.1")
    marked = [step for step in timeline.steps if step.deviates]
    assert [timeline.threads[step.actor] for step in marked] == ["creator"]


def test_an_error_in_the_hypervisor_is_where_it_happens() -> None:
    """An exception of kvm's code, not a property of the monitor."""
    timeline, prop, _detail = replay(Token.parse("timer-future/current/vgic-state-without-vgic/-"))
    assert prop == "I0"
    assert [step.fails for step in timeline.steps].count(True) == 1
    assert timeline.threads[timeline.steps[-1].actor] == "vcpu"


def test_what_is_left_behind_is_found_by_user_space_that_closes() -> None:
    timeline, prop, _detail = replay(Token.parse("timer-past/current/key-never-drops/-"))
    assert prop == "I15"
    assert timeline.threads[timeline.steps[-1].actor] == USER


def test_no_violation_no_mark() -> None:
    timeline, prop, _detail = replay(Token.parse("timer-past/current/-/-"))
    assert prop == ""
    assert timeline.steps
    assert not any(step.fails for step in timeline.steps)


class Round:
    """Finds at its fourth choice that the state is the one of its second."""

    round = (1, 3)

    def watch(self, world: World) -> None:
        pass

    def pick(self, execution: Execution, labels: Sequence[str], actors: bool) -> int:
        del labels, actors
        if len(execution.picks) == self.round[1]:
            raise Violation("I14", "nobody comes to an end")
        return 0


def test_a_round_is_marked_where_it_begins_and_where_it_is_found() -> None:
    execution = Execution(Round())
    recorders: list[Recorder] = []
    with locks.controlled():
        perform(SCENARIOS["timer-future"].build, execution, lambda w: recorders.append(Recorder(w)))
    recorders[0].finish()
    timeline = recorders[0].timeline
    *before, last = timeline.steps
    assert [step.again for step in before].count(True) == 1
    assert last.fails
    assert timeline.threads[last.actor] == "vcpu"
    marks = "".join(line[4] for line in text(timeline)[3:])
    assert marks.strip(" ")[0] == "@"
    assert marks[-1] == "!"


def test_what_was_left_out_of_the_search_is_left_out_of_the_replay() -> None:
    """The patch of 2017 breaks I6 before it breaks I8."""
    token = "two-vms/seed/-/49.1"
    found = {replay(Token.parse(t))[1] for t in (token, token + "/I2,I6")}
    assert found <= {"I6", "I8", ""}
    assert str(Token.parse(token + "/I2,I6")) == token + "/I2,I6"
    with pytest.raises(ValueError):
        Token.parse(token + "/I99")


def test_main_lines_are_drawn_and_others_where_they_rise() -> None:
    quiet = Timeline(["vcpu"], ["vCPU 0"], [Step(0, "x", (), 0, False, (LOW,))])
    assert [lane.name for lane in lanes(quiet, 0)] == ["vtmr", "told", "mask", "irq"]
    rises = LOW._replace(ptimer=1, vgic=0)
    quiet.steps.append(Step(0, "y", (), 0, False, (rises,)))
    assert [lane.name for lane in lanes(quiet, 0)] == ["vtmr", "mask", "ptmr", "vgic"]


def drawn(*levels: int | None, width: int = 120) -> list[str]:
    """The virtual timer's lane through some steps."""
    steps = [
        Step(0, f"p{n}", (), 0, False, (LOW._replace(masked_v=level),))
        for n, level in enumerate(levels)
    ]
    return text(Timeline(["vcpu"], ["vCPU 0"], steps), width)


def test_a_square_wave() -> None:
    _names, labels, *body = drawn(0, 1, 1, 0, None, 1)
    column = labels.index("mask")
    waves = [line[column : column + 2].ljust(2) for line in body]
    assert waves == ["│ ", "└┐", " │", "┌┘", "  ", " │"]


def test_the_same_bytes_every_time() -> None:
    assert text(recorded(LATE)) == text(recorded(LATE))


@pytest.mark.parametrize("width", [40, 70, 100, 120])
@pytest.mark.parametrize("token", [LATE, "two-vms/seed/-/49.1"])
def test_no_line_is_wider_than_the_terminal(token: str, width: int) -> None:
    timeline = recorded(token)
    lines = text(timeline, width)
    assert max(map(len, lines)) <= width
    said = " ".join(" ".join(lines).split())
    for step in timeline.steps:
        for words in step.did:  # nothing is cut off: long words go on in the next line
            assert words.split(",")[0] in said


def test_a_narrow_terminal_is_told_what_changes() -> None:
    lines = text(recorded(LATE), 60)
    rises = lines.index("      vCPU 0: vtmr 1")
    assert lines[rises - 1] == "   9> time: time passes"


def test_the_last_steps() -> None:
    timeline = recorded(LATE)
    assert text(timeline, last=5)[-4:] == text(timeline)[-4:]
    assert len(text(timeline)) - len(text(timeline, last=5)) == len(timeline.steps) - 5


def test_a_stream_that_has_no_box_drawing() -> None:
    assert glyphs("UTF-8") is UNICODE
    assert glyphs("ascii") is glyphs(None) is ASCII
    "\n".join(text(recorded(LATE), draw=ASCII)).encode("ascii")


def test_the_guest_in_assembly() -> None:
    operations: dict[Op, str] = {
        Native("cntv_ctl", 1): "msr cntv_ctl_el0, 1",
        Native("x5", 7): "mov x5, 7",
        Msr((3, 3, 14, 2, 2), 0xFFFF_FFFF): "msr cntp_cval_el0, 0xffffffff",
        Mrs((3, 3, 15, 1, 2), 3): "mrs x3, s3_3_c15_c1_2",
        Load(IAR): "ldr x0, [IAR]",
        Store(END, 1): "str 1, [END]",
        Store(0x1234): "str 0, [0x1234]",
        Mask(True): "msr daifset, 2",
        Wfi(): "wfi",
        Wfe(): "wfe",
        Hvc((0xC400_0003,)): "hvc CPU_ON",
        Hvc((1,)): "hvc 1",
        Run(1): "b .",
    }
    for operation, written in operations.items():
        assert assembly(operation) == written

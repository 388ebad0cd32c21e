"""What happened in one schedule, step by step: who acted, what it did, and where all lines stood.

A `Recorder` is attached to a world that replays a schedule. At every point, before anybody else may
come in between, it samples each vCPU: the outputs of its timers as the architecture defines them,
what user space was told, whether the host's interrupt is masked on the CPU that it is loaded on,
its lines, its PC. What an actor did since it was last seen (guest instructions, KVM_RUN and what it
returned) goes with the step in which it is seen next. The last step is where a property failed.

Drawn by timeline_text.py and timeline_html.py. Left out: registers, the vgic beyond "an interrupt
is pending", what happens between two points.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from armkvm.abi.kvm import EXIT_NAMES
from armkvm.check.execution.actors import Actor, Execution
from armkvm.check.world.listing import assembly
from armkvm.check.world.properties import levels

if TYPE_CHECKING:
    from armkvm.check.world.world import World
    from armkvm.host.scripted import Op
    from armkvm.kvm import Vcpu

USER = "user space"  # who closes the files when all threads have ended


class Sample(NamedTuple):
    """One vCPU at one moment. Levels are 0 and 1; None where there is nothing to sample."""

    vtimer: int  # the virtual timer's output
    ptimer: int
    told_v: int  # device_irq_level in kvm_run
    told_p: int
    masked_v: int | None  # the host's interrupt of that timer, on the CPU that it is loaded on
    masked_p: int | None
    irq: int  # the virtual lines in HCR_EL2
    fiq: int
    vgic: int | None  # the vgic has an interrupt for it
    pc: int
    cpu: int | None  # the physical CPU that it is loaded on


@dataclass(frozen=True)
class Step:
    """An actor reaches a point, or waits."""

    actor: int  # its place in Timeline.threads
    place: str  # the point, or what it waits for
    did: tuple[str, ...]  # since it was last seen
    ns: int  # since the guests began
    deviates: bool  # somebody else was picked than the one whose turn it was
    vcpus: tuple[Sample, ...]
    fails: bool = False  # a property does not hold here
    again: bool = False  # what follows comes round again and again


@dataclass
class Timeline:
    """A whole schedule."""

    threads: list[str] = field(default_factory=list)
    vcpus: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


class Recorder:
    """Fills a timeline while a world runs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.timeline = Timeline()
        self._began = world.clock.ns
        self._did: dict[Actor | None, list[str]] = {}
        self._place: dict[Actor | None, str] = {}
        self._picks = 0
        self._failed = False
        self.timeline.vcpus = [_name(world, vcpu) for vcpu in world.vcpus]
        self.timeline.threads = _names(world.execution.actors)
        world.recorder = self
        self._listen(world.execution)

    def _listen(self, execution: Execution) -> None:
        """Hear of failures before anybody unwinds. On this execution alone: others do not pay."""
        execution.failing = lambda _error: self._finish(execution.current, self._samples())
        for actor in execution.actors:
            actor.body = self._body(actor)

    def _body(self, actor: Actor) -> Callable[[], None]:
        body = actor.body

        def watched() -> None:
            try:
                body()
            except Exception:
                # Its stack is gone, and with it what it had loaded: the lines as they were.
                if not self.world.execution.over:
                    self._finish(actor, self._last())
                raise

        return watched

    # what the current actor does

    def instruction(self, op: Op) -> None:
        """Its guest executes one."""
        self.note(assembly(op))

    def returned(self, vcpu: Vcpu, ret: int) -> None:
        """KVM_RUN did."""
        if ret:
            what = f"-{errno.errorcode.get(-ret, -ret)}"
        else:
            reason = vcpu.run_struct.exit_reason
            what = EXIT_NAMES.get(reason, str(reason))
        self.note(f"KVM_RUN = {what}")

    def note(self, text: str) -> None:
        """Anything else."""
        self._did.setdefault(self.world.execution.current, []).append(text)

    # steps

    def seen(self, actor: Actor, place: str) -> None:
        """An actor is at a point."""
        self._place[actor] = place
        self._add(actor, place, self._samples(), False)

    def finish(self) -> None:
        """The execution is over and a property did not hold: if not before, then now."""
        if not self._failed:
            self._failed = True
            execution = self.world.execution
            actor = execution.actors[self._acted()] if execution.exceeded else None
            self._add(actor, "", self._last(), True)

    def _finish(self, actor: Actor | None, samples: tuple[Sample, ...]) -> None:
        if not self._failed:
            self._failed = True
            # Where it has come to, unless that has been said and there is something else to say.
            place = actor.why or actor.place if actor is not None else ""
            if actor in self._did and place == self._place.get(actor):
                place = ""
            self._add(actor, place, samples, True)

    def _add(
        self, actor: Actor | None, place: str, samples: tuple[Sample, ...], fails: bool
    ) -> None:
        execution = self.world.execution
        picks = execution.picks
        begin, _end = getattr(execution.chooser, "round", None) or (-1, -1)
        self.timeline.steps.append(
            Step(
                self._number(actor),
                place,
                tuple(self._did.pop(actor, ())),
                self.world.clock.ns - self._began,
                any(picks[self._picks :]),
                samples,
                fails,
                self._picks <= begin < len(picks),
            )
        )
        self._picks = len(picks)

    def _number(self, actor: Actor | None) -> int:
        actors = self.world.execution.actors
        threads = self.timeline.threads
        if actor is not None:
            return actors.index(actor)
        if USER not in threads:
            threads.append(USER)
        return threads.index(USER)

    def _acted(self) -> int:
        steps = self.timeline.steps
        return steps[-1].actor if steps else 0

    def _last(self) -> tuple[Sample, ...]:
        steps = self.timeline.steps
        return steps[-1].vcpus if steps else self._samples()

    def _samples(self) -> tuple[Sample, ...]:
        world = self.world
        if len(world.vcpus) > len(self.timeline.vcpus):  # another one was created
            self.timeline.vcpus = [_name(world, vcpu) for vcpu in world.vcpus]
        return tuple(sample(vcpu, world.clock.ns) for vcpu in world.vcpus)


def sample(vcpu: Vcpu, now: int) -> Sample:
    """Where its lines stand at a host time in ns."""
    out = levels(vcpu, now)
    told = vcpu.irq_level.value
    pcpu = vcpu.pcpu
    vgic = vcpu.vgic_cpu
    return Sample(
        out & 1,
        out >> 1 & 1,
        told & 1,
        told >> 1 & 1,
        None if pcpu is None else int(pcpu.vtimer_irq.masked),
        None if pcpu is None else int(pcpu.ptimer_irq.masked),
        vcpu.hcr >> 7 & 1,
        vcpu.hcr >> 6 & 1,
        # Not pending_irq(), which takes a lock: to look is not to contend.
        None if vgic is None else int(any(i.enabled and i.is_pending() for i in vgic.ap_list)),
        vcpu.state.pc,
        None if pcpu is None else pcpu.number,
    )


def _name(world: World, vcpu: Vcpu) -> str:
    vm = f"VM {world.vms.index(vcpu.vm)} " if len(world.vms) > 1 else ""
    return f"{vm}vCPU {vcpu.vcpu_id}"


def _names(actors: list[Actor]) -> list[str]:
    """Their names; with a number where several have the same."""
    names = [a.name for a in actors]
    return [
        name if names.count(name) == 1 else f"{name} {names[:n].count(name)}"
        for n, name in enumerate(names)
    ]


class Lane(NamedTuple):
    """One level of a vCPU, as it is drawn."""

    name: str
    field: str  # of Sample
    text: str


LANES = (
    Lane("vtmr", "vtimer", "virtual timer's output"),
    Lane("told", "told_v", "what kvm_run says of it"),
    Lane("mask", "masked_v", "its host interrupt masked where the vCPU is loaded"),
    Lane("ptmr", "ptimer", "physical timer's output"),
    Lane("ptld", "told_p", "what kvm_run says of it"),
    Lane("pmsk", "masked_p", "its host interrupt masked"),
    Lane("irq", "irq", "virtual IRQ line"),
    Lane("fiq", "fiq", "virtual FIQ line"),
    Lane("vgic", "vgic", "the vgic has an interrupt"),
)
_USER = {"vtimer", "told_v", "masked_v", "irq"}  # worth seeing also where they never move
_VGIC = {"vtimer", "masked_v", "vgic"}


def lanes(timeline: Timeline, vcpu: int) -> list[Lane]:
    """What to draw of a vCPU: its main lines, and those of the others that ever rise."""
    samples = [step.vcpus[vcpu] for step in timeline.steps if vcpu < len(step.vcpus)]
    always = _VGIC if any(s.vgic is not None for s in samples) else _USER
    return [
        lane
        for lane in LANES
        if lane.field in always or any(getattr(s, lane.field) for s in samples)
    ]


def what(step: Step, then: str = "→") -> str:
    """What its actor did and where it has come to, in words."""
    did = ", ".join(step.did)
    if did and step.place == "guest":  # the next instruction
        return did
    return f" {then} ".join(filter(None, (did, step.place))) or "fails"

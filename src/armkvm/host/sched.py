"""Places where another thread, an interrupt or a preemption may come between two steps.

Host and kvm call ``point(NAME, vcpu)`` at each of them. In production there is nothing to choose:
`Deterministic.point` is None and a call site costs one test. A checker supplies a scheduler whose
`point` chooses what happens there: it may drive a line from another thread, take a host interrupt,
move the vCPU to another physical CPU, or nothing. The names are the alphabet of its schedules, so
they are part of the interface: change them as one changes a protocol. Which vCPU goes on where the
turn moves, it says through `choose` of turn.py; and in a Turn of its own, when one is scheduled out
that could go on (`crowded`), and whether the target of an interrupt runs at once (`hand_over`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

Point = Callable[[str, object], None]

# vcpu_load(): the saved timer level was sampled, the registers are not restored yet.
TIMER_LOAD: Final = "timer-load"
# vcpu_put(): the timer is saved and off, the soft timer is not armed yet.
TIMER_PUT: Final = "timer-put"
# Run loop, interrupts on: about to look at signals and requests.
LOOP_TOP: Final = "loop-top"
# Requests were handled, mode is not IN_GUEST yet: who raises a line now sends no kick.
BEFORE_IN_GUEST: Final = "before-in-guest"
# mode is IN_GUEST, the last check is still to come: who raises a line now kicks.
IN_GUEST: Final = "in-guest"
# Back from the guest, timers synchronised, host interrupts about to be taken.
AFTER_EXIT: Final = "after-exit"
# The exit is handled, the levels are about to be written to kvm_run.
BEFORE_UPDATE_RUN: Final = "before-update-run"
# vcpu_load(), or a slice begins: this vCPU has the turn and is not loaded yet.
TURN_TAKE: Final = "turn-take"
# vcpu_put(), or a slice ends: about to give the turn up, others may run now.
TURN_GIVE: Final = "turn-give"
# WFI: checked that there is nothing to do, about to sleep.
BEFORE_SLEEP: Final = "before-sleep"
# WFI: woken, not loaded again yet.
AFTER_SLEEP: Final = "after-sleep"
# KVM_IRQ_LINE: the line is set in HCR_EL2, nobody has been told.
LINE_SET: Final = "line-set"
# KVM_IRQ_LINE: the request is made, the kick is still to come.
LINE_REQUESTED: Final = "line-requested"
# An emulated timer's register was written with its soft timer cancelled.
TIMER_WRITTEN: Final = "timer-written"

POINTS: Final = (
    TIMER_LOAD, TIMER_PUT, LOOP_TOP, BEFORE_IN_GUEST, IN_GUEST, AFTER_EXIT, BEFORE_UPDATE_RUN,
    TURN_TAKE, TURN_GIVE, BEFORE_SLEEP, AFTER_SLEEP, LINE_SET, LINE_REQUESTED, TIMER_WRITTEN,
)  # fmt: skip


class Scheduler(Protocol):
    """Chooses at the points. `point` None means that nothing ever comes between."""

    @property
    def point(self) -> Point | None: ...


class Deterministic:
    """The production scheduler: steps follow each other."""

    point: Point | None = None

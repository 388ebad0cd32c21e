"""A timeline for a terminal: time runs downward, one step a line.

Left the threads, a dot where one acts; then what it did; then the lines of each vCPU as square
waves, low on the left and high on the right, with its CPU and PC. `>` marks a deviation, `!` the
step where a property fails, `@` where a round begins that never ends.

Where the terminal is too narrow for that, each step says in words which lines have changed. The
same timeline and width give the same bytes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from armkvm.check.world.timeline import Lane, Sample, Step, Timeline, lanes, what

WIDTH = 120
_LEAST = 24  # columns for what a thread did
_LANE = 5


@dataclass(frozen=True)
class Glyphs:
    """What lines are drawn with; two characters a level."""

    acts: str = "●"
    waits: str = "│"
    low: str = "│ "
    high: str = " │"
    rise: str = "└┐"
    fall: str = "┌┘"
    then: str = "→"


UNICODE = Glyphs()
ASCII = Glyphs("*", ".", "| ", " |", "`.", ".'", "->")


def glyphs(encoding: str | None) -> Glyphs:
    """Those that a stream can carry."""
    return UNICODE if (encoding or "").lower().replace("-", "").startswith("utf") else ASCII


def text(
    timeline: Timeline, width: int = WIDTH, draw: Glyphs = UNICODE, last: int | None = None
) -> list[str]:
    """All lines; with `last`, of so many steps at the end."""
    blocks = [lanes(timeline, n) for n in range(len(timeline.vcpus))]
    first = 0 if last is None else max(len(timeline.steps) - last, 0)
    widths = [
        max(_LANE * len(block) + 10, len(name))
        for block, name in zip(blocks, timeline.vcpus, strict=True)
    ]
    left = 15 + 2 * len(timeline.threads)
    room = width - left - sum(w + 2 for w in widths)
    if room < _LEAST:
        return list(_narrow(timeline, blocks, max(width, 40), draw.then, first))
    longest = max((len(what(step, draw.then)) for step in timeline.steps[first:]), default=0)
    drawing = _Drawing(timeline, blocks, widths, left, min(room, max(longest, _LEAST)), draw)
    return [line.rstrip() for line in (*drawing.head(), *drawing.body(first))]


def _mark(step: Step) -> str:
    return "!" if step.fails else "@" if step.again else ">" if step.deviates else " "


class _Drawing:
    def __init__(
        self,
        timeline: Timeline,
        blocks: list[list[Lane]],
        widths: list[int],
        left: int,
        room: int,
        draw: Glyphs,
    ) -> None:
        self.timeline = timeline
        self.blocks = blocks
        self.widths = widths
        self.left = left
        self.room = room
        self.draw = draw

    def head(self) -> Iterator[str]:
        """Names: of the threads a line each, above their columns."""
        threads = self.timeline.threads
        rows = [f"{self.draw.waits} " * n + name for n, name in enumerate(threads)]
        rows = [""] * (2 - len(rows)) + rows
        names = [name.ljust(w) for name, w in zip(self.timeline.vcpus, self.widths, strict=True)]
        labels = [
            ("".join(lane.name.ljust(_LANE) for lane in block) + "cpu pc").ljust(width)
            for block, width in zip(self.blocks, self.widths, strict=True)
        ]
        for n, row in enumerate(rows):
            start = f"{'step':>4}      us  " if n == len(rows) - 1 else " " * 14
            right = names if n == len(rows) - 2 else labels if n == len(rows) - 1 else []
            row = (start + row).ljust(self.left + self.room)
            yield row + "".join("  " + part for part in right)

    def body(self, first: int) -> Iterator[str]:
        """The steps from number `first` on."""
        steps = self.timeline.steps
        for n in range(first, len(steps)):
            yield from self._step(n, steps[n], steps[n - 1] if n else None, n == first)

    def _step(self, n: int, step: Step, before: Step | None, begins: bool) -> Iterator[str]:
        draw = self.draw
        moved = begins or before is None or before.ns != step.ns
        time = f"{step.ns / 1000:>8.1f}" if moved else " " * 8
        mark = _mark(step)
        dots = " ".join(
            draw.acts if step.actor == t else draw.waits for t in range(len(self.timeline.threads))
        )
        words = textwrap.wrap(what(step, draw.then), self.room, break_on_hyphens=False) or [""]
        lines = self._lines(step, before)
        yield f"{n:>4}{mark}{time} {dots}  {words[0]:<{self.room}}{lines}"
        for more in words[1:]:
            waits = " ".join(draw.waits for _ in self.timeline.threads)
            yield f"{' ' * 14}{waits}  {more:<{self.room}}{self._lines(step, step)}"

    def _lines(self, step: Step, before: Step | None) -> str:
        parts = []
        for n, (block, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            if n >= len(step.vcpus):  # not created yet
                parts.append(" " * width)
                continue
            now = step.vcpus[n]
            was = before.vcpus[n] if before is not None and n < len(before.vcpus) else now
            waves = "".join(self._wave(now, was, lane).ljust(_LANE) for lane in block)
            cpu = "-" if now.cpu is None else str(now.cpu)
            parts.append(f"{waves}{cpu:<3} {now.pc:x}".ljust(width))
        return "".join("  " + part for part in parts)

    def _wave(self, now: Sample, was: Sample, lane: Lane) -> str:
        level, before = getattr(now, lane.field), getattr(was, lane.field)
        if level is None:
            return ""
        if before is None or level == before:
            return self.draw.high if level else self.draw.low
        return self.draw.rise if level else self.draw.fall


def _narrow(
    timeline: Timeline, blocks: list[list[Lane]], width: int, then: str, first: int
) -> Iterator[str]:
    before: Step | None = None
    for n, step in enumerate(timeline.steps):
        changes = [
            f"{name}: {', '.join(words)}"
            for v, name in enumerate(timeline.vcpus)
            if (words := _changes(step, before, v, blocks[v]))
        ]
        if n >= first:
            mark = _mark(step)
            line = f"{timeline.threads[step.actor]}: {what(step, then)}"
            yield from textwrap.wrap(line, width, initial_indent=f"{n:>4}{mark} ",
                                     subsequent_indent=" " * 8)  # fmt: skip
            for change in changes:
                yield from textwrap.wrap(change, width, initial_indent=" " * 6,
                                         subsequent_indent=" " * 8)  # fmt: skip
        before = step


def _changes(step: Step, before: Step | None, vcpu: int, block: list[Lane]) -> list[str]:
    if vcpu >= len(step.vcpus):
        return []
    now = step.vcpus[vcpu]
    was = before.vcpus[vcpu] if before is not None and vcpu < len(before.vcpus) else None
    words = []
    for lane in block:
        level = getattr(now, lane.field)
        if level is not None and (was is None or getattr(was, lane.field) not in (level, None)):
            words.append(f"{lane.name} {level}")
    if was is None or was.cpu != now.cpu:
        words.append("not loaded" if now.cpu is None else f"on CPU {now.cpu}")
    if was is None or was.pc != now.pc:
        words.append(f"pc {now.pc:x}")
    return words

"""A timeline as an HTML table: time runs downward, one step a row.

Each thread has a column, and what it does stands in it, as in the race of a kernel's commit
message. To the right each vCPU's lines are square waves, low on the left and high on the right,
drawn by borders: the cells hold 0 and 1 for those who do not see them. A long timeline keeps its
last steps in sight and folds those before.

Needs the style of report/style.py. On a narrow screen the threads share one column, by that style.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from armkvm.check.world.timeline import LANES, Lane, Sample, Step, Timeline, lanes, what

FOLD = 36  # a timeline of more steps is folded
LAST = 16  # steps in sight then
MOST = 400  # steps in the page: a schedule without an end has thousands

# What a lane is called where there is room for words.
TITLES = {
    "vtimer": "virtual timer",
    "told_v": "told",
    "masked_v": "host mask",
    "ptimer": "physical timer",
    "told_p": "told, physical",
    "masked_p": "its host mask",
    "irq": "IRQ line",
    "fiq": "FIQ line",
    "vgic": "vgic pending",
}


def figure(timeline: Timeline, caption: str) -> str:
    """All of it; the caption is plain text."""
    steps = timeline.steps
    if not steps:
        return ""
    first = 0 if len(steps) <= FOLD else len(steps) - LAST
    begin = max(len(steps) - MOST, 0)
    parts = [f"<figure class=timeline><figcaption>{escape(caption)}</figcaption>"]
    if first:
        which = f"The {first - begin} steps before" if begin else f"The first {first} steps"
        parts.append(f"<details><summary>{which}</summary>")
        if begin:
            parts.append(f"<p>Steps 0 to {begin - 1} are shown by --replay alone.</p>")
        parts.append(_table(timeline, begin, first))
        parts.append("</details>")
    parts.append(_table(timeline, first, len(steps)))
    parts.append("</figure>")
    return "".join(parts)


def _table(timeline: Timeline, start: int, end: int) -> str:
    blocks = [lanes(timeline, n) for n in range(len(timeline.vcpus))]
    rows = "".join(
        _row(timeline, blocks, n, timeline.steps[n - 1] if n else None, n == start)
        for n in range(start, end)
    )
    return (
        f"<div class=scroll><table class=steps><caption>Steps {start} to {end - 1}</caption>"
        f"{_columns(timeline, blocks)}{_head(timeline, blocks)}<tbody>{rows}</tbody></table></div>"
    )


def _columns(timeline: Timeline, blocks: list[list[Lane]]) -> str:
    threads = "<col class=ct>" * len(timeline.threads)
    lines = "".join("<col class=cw>" * len(block) + "<col class=cc><col class=cp>"
                    for block in blocks)  # fmt: skip
    return f"<colgroup><col class=cn><col class=cu>{threads}{lines}</colgroup>"


def _head(timeline: Timeline, blocks: list[list[Lane]]) -> str:
    """Two rows: the vCPUs above their lanes."""
    threads = "".join(
        f"<th rowspan=2 scope=col class=t><span>{escape(name)}</span></th>"
        for name in timeline.threads
    )
    groups = "".join(
        f"<th scope=colgroup class='v b' colspan={len(block) + 2}>{escape(name)}</th>"
        for name, block in zip(timeline.vcpus, blocks, strict=True)
    )
    labels = "".join(
        "".join(
            f"<th scope=col class='w{'' if n else ' b'}'><span>{TITLES[lane.field]}</span></th>"
            for n, lane in enumerate(block)
        )
        + "<th scope=col class=w><span>CPU</span></th><th scope=col class=c>PC</th>"
        for block in blocks
    )
    return (
        "<thead><tr><th rowspan=2 scope=col class=n>step</th>"
        f"<th rowspan=2 scope=col class=u>µs</th>{threads}{groups}</tr><tr>{labels}</tr></thead>"
    )


def _row(
    timeline: Timeline, blocks: list[list[Lane]], n: int, before: Step | None, begins: bool
) -> str:
    step = timeline.steps[n]
    classes = [name for name, is_so in (
        ("dev", step.deviates), ("bad", step.fails),
        ("later", before is not None and before.ns != step.ns),
    ) if is_so]  # fmt: skip
    mark, said = _mark(step)
    title = f" title='{said}'" if said else ""
    moved = begins or before is None or before.ns != step.ns
    time = f"{step.ns / 1000:.1f}" if moved else ""
    cells = "".join(_thread(step, t, name) for t, name in enumerate(timeline.threads))
    cells += "".join(
        _lines(step, before, v, block) for v, block in enumerate(blocks)
    )  # fmt: skip
    attribute = f" class='{' '.join(classes)}'" if classes else ""
    return (
        f"<tr{attribute}><th scope=row class=n{title}>{mark}{n}</th><td class=u>{time}</td>"
        f"{cells}</tr>"
    )


def _mark(step: Step) -> tuple[str, str]:
    if step.fails:
        return "✗", "fails here"
    if step.again:
        return "↻", "a round begins"
    return ("▶", "deviation") if step.deviates else ("", "")


def _thread(step: Step, thread: int, name: str) -> str:
    if step.actor != thread:
        return "<td class=t></td>"
    words = what(step)
    return f"<td class='t on' data-t='{escape(name)}'>{escape(words)}</td>"


def _lines(step: Step, before: Step | None, vcpu: int, block: list[Lane]) -> str:
    if vcpu >= len(step.vcpus):  # not created yet
        return "<td></td>" * (len(block) + 2)
    now = step.vcpus[vcpu]
    was = before.vcpus[vcpu] if before is not None and vcpu < len(before.vcpus) else None
    return "".join(_cells(now, was, block))


def _cells(now: Sample, was: Sample | None, block: list[Lane]) -> Iterator[str]:
    for n, lane in enumerate(block):
        begins = "" if n else " b"  # of a vCPU's block
        level = getattr(now, lane.field)
        before = getattr(was, lane.field) if was is not None else None
        if level is None:
            yield f"<td class='x{begins}'></td>"
        elif before is None or before == level:
            yield f"<td class='{'h' if level else 'l'}{begins}'>{level}</td>"
        else:
            yield f"<td class='{'r' if level else 'f'}{begins}'>{level}</td>"
    moved = was is None or was.pc != now.pc
    yield f"<td class=c>{'–' if now.cpu is None else now.cpu}</td>"
    yield f"<td class='c p{'' if moved else ' same'}'>{now.pc:x}</td>"


def legend() -> str:
    """How to read one."""
    names = "".join(
        f"<div><dt>{TITLES[lane.field]}</dt><dd>{escape(lane.text)}</dd></div>" for lane in LANES
    )
    return (
        "<details class=legend><summary>How to read a timeline</summary>"
        "<p>Time runs downward. A row is one step: what a thread did, and the point of the "
        "hypervisor (host/sched.py) that it has come to. "
        "<i>time</i> moves the clock to the next deadline, <i>hrtimer</i> is the host’s timer "
        "interrupt, <i>sched</i> its scheduler. ▶ marks a deviation: somebody else was picked than "
        "the one whose turn it was. ✗ is where the property fails; where that is because the "
        "schedule goes round for ever, ↻ is where the round begins. Lines are low on the left and "
        "high on the right; a line that stays low throughout is left out unless it is one of the "
        "main ones, and a host mask is shown where the vCPU is loaded.</p>"
        f"<dl>{names}</dl></details>"
    )

"""A run as one HTML file: a summary, a table of what was explored, and each violation's timeline.

No network, no script: the style is in the file, and long timelines fold by `details`. What comes
from outside (names, details of violations) is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import armkvm
from armkvm.check.mutants import MUTANTS
from armkvm.check.report.results import Run, Violated, counted, deviations, outcome
from armkvm.check.report.style import STYLE
from armkvm.check.report.timeline_html import figure, legend
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.world.properties import PROPERTIES

Cell = tuple[str, str]  # class ("" or "n") and HTML


def html(run: Run) -> str:
    """The whole file."""
    violations = run.violations()
    sections = [_violation(n, violated) for n, violated in enumerate(violations)]
    body = [_header(run), _mutants(run) if run.mutants else _scenarios(run)]
    if violations:
        body += ["<h2>Violations</h2>", legend(), *sections]
    body.append(_properties(run))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>armkvm check: {escape(_verdict(run)[0])}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _verdict(run: Run) -> tuple[str, bool]:
    """The answer in one line, and whether it is a good one."""
    shown, violations = run.shown(), run.violations()
    if run.mutants:
        return f"{len(violations)} of {len(shown)} mutants found", len(violations) == len(shown)
    if not violations:
        return "no violation", True
    many = "violation" if len(violations) == 1 else "violations"
    scenarios = len({v.job.scenario for v in violations})
    return f"{len(violations)} {many} in {scenarios} of {_count(run)} scenarios", False


def _count(run: Run) -> int:
    return len({job.scenario for job, _result in run.rows})


def _header(run: Run) -> str:
    verdict, good = _verdict(run)
    variants = ", ".join(sorted({job.variant for job, _result in run.rows}))
    what = "the current hypervisor" if variants == "current" else f"variant {variants}"
    if run.mutants:
        intro = f"Bugs of history, put back one at a time into {what}."
    else:
        intro = f"Schedules of {_count(run)} scenarios on {what}."
    ended = [result for _job, result in run.rows if result.found is None]
    facts: tuple[tuple[str, int | str], ...] = (
        *((("mutants", len(run.shown())),) if run.mutants else (("scenarios", _count(run)),)),
        ("found" if run.mutants else "violations", len(run.violations())),
        *(
            ()
            if run.mutants
            else (
                ("exhausted", sum(not r.bound for r in ended)),
                ("bounded", sum(bool(r.bound) for r in ended)),
            )
        ),
        ("states", run.states),
        ("transitions", run.transitions),
        ("schedules", run.schedules),
        ("seconds", f"{run.seconds:.1f}"),
        ("states/s", round(run.states_per_second)),
    )
    boxes = "".join(f"<div><dt>{name}</dt><dd>{_number(value)}</dd></div>" for name, value in facts)
    return (
        f"<h1>armkvm check</h1><p class=soft>{escape(intro)} armkvm {armkvm.__version__}.</p>"
        f"<p><b class={'ok' if good else 'bad'}>{escape(verdict.capitalize())}.</b></p>"
        f"<dl class=sum>{boxes}</dl>"
    )


def _number(value: int | str) -> str:
    """Thousands apart, by a thin space that does not break."""
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else value


def _scenarios(run: Run) -> str:
    heads = ("scenario", "what", "result", "states", "transitions", "schedules", "seconds")
    links = _links(run)
    rows = []
    for job, result in run.shown():
        how = escape(outcome(job, result))
        if result.found is not None:
            how = f"<b class=bad>{how}</b>"
        elif not result.bound:
            how = f"<span class=ok>{how}</span>"
        rows.append((
            _linked(job.scenario, links.get(id(result))),
            ("", escape(SCENARIOS[job.scenario].title)), ("", how), ("n", _number(result.states)),
            ("n", _number(result.transitions)), ("n", _number(result.schedules)),
            ("n", f"{result.seconds:.2f}"),
        ))  # fmt: skip
    return _table("Scenarios", "What was explored: exhausted, or bounded by what", heads, rows)


def _mutants(run: Run) -> str:
    heads = ("mutant", "what it is", "commit", "scenario", "found by", "deviations", "steps",
             "states", "seconds")  # fmt: skip
    links = _links(run)
    rows = []
    for job, result in run.shown():
        mutant, found = MUTANTS[job.mutant], result.found
        cells: tuple[Cell, ...] = (
            ("", "<b class=bad>not found</b>"), ("n", ""), ("n", ""),
            ("n", _number(result.states)), ("n", f"{result.seconds:.2f}"),
        )  # fmt: skip
        if found is not None:
            cells = (
                ("", escape(found.prop)), ("n", str(deviations(found))),
                ("n", str(found.steps)), ("n", _number(found.states)),
                ("n", f"{found.seconds:.2f}"),
            )  # fmt: skip
        rows.append((_linked(mutant.name, links.get(id(result))), ("", escape(mutant.what)),
                     ("", escape(mutant.commit)), ("", escape(job.scenario)), *cells))  # fmt: skip
    caption = "Each with the schedule of the fewest deviations; states are those seen until then"
    return _table("Mutants", caption, heads, rows)


def _links(run: Run) -> dict[int, int]:
    """By result: the number of its section."""
    found = [result for _job, result in run.shown() if result.found is not None]
    return {id(result): n for n, result in enumerate(found)}


def _linked(name: str, number: int | None) -> Cell:
    return "", escape(name) if number is None else f"<a href='#v{number}'>{escape(name)}</a>"


def _properties(run: Run) -> str:
    heads = ("property", "kind", "sentence", "source", "reached in", "violated in")
    reached = {
        name: len({job.scenario for job, result in run.rows if result.seen[name]})
        for name in PROPERTIES
    }
    rows = []
    for prop in PROPERTIES.values():
        broken = sum(v.found.prop == prop.name for v in run.violations())
        rows.append((
            ("", prop.name), ("", prop.kind), ("", escape(prop.sentence)),
            ("", escape(prop.source)), ("n", str(reached[prop.name] or "–")),
            ("n", f"<b class=bad>{broken}</b>" if broken else "0"),
        ))  # fmt: skip
    unit = "mutants" if run.mutants else "explorations"
    caption = (
        f"Reached: scenarios in which its trigger was counted (–: none, or looked at throughout). "
        f"Violated: {unit}"
    )
    return _table("Properties", caption, heads, rows)


def _table(title: str, caption: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    numeric = [bool(rows) and cell[0] == "n" for cell in rows[0]] if rows else []
    head = "".join(
        f"<th scope=col{' class=n' if is_number else ''}>{name}</th>"
        for name, is_number in zip(heads, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(_cells(heads, row))}</tr>" for row in rows)
    return (
        f"<h2>{title}</h2><table class=list><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cells(heads: Sequence[str], row: Sequence[Cell]) -> Iterator[str]:
    for n, (head, (kind, content)) in enumerate(zip(heads, row, strict=True)):
        if not n:
            yield f"<th scope=row>{content}</th>"
        else:
            yield f"<td data-l='{head}'{' class=n' if kind else ''}>{_one(content)}</td>"


def _one(content: str) -> str:
    """One element, so that a list's grid has two columns: the label and this."""
    return f"<span>{content}</span>" if content else ""


def _violation(number: int, violated: Violated) -> str:
    job, found, prop, mutant = (
        violated.job, violated.found, violated.rule, violated.mutant,
    )  # fmt: skip
    verdict = f"{found.prop} violated" if prop is not None else "vacuous"
    title = f"{mutant.name if mutant else job.scenario}: {verdict}"
    facts: list[tuple[str, str]] = [("what happens", f"<b class=bad>{escape(found.detail)}</b>")]
    if prop is not None:
        facts.append(("property", f"{prop.name}, {prop.kind}: {escape(prop.sentence)}"))
        facts.append(("source", escape(prop.source)))
    if mutant is not None:
        facts.append(("put back", f"{escape(mutant.what)} ({escape(mutant.commit)})"))
    scenario = SCENARIOS[job.scenario]
    facts.append(("scenario", f"{escape(scenario.name)}: {escape(scenario.title)}"))
    facts.append((
        "shortest found",
        f"{counted(deviations(found), 'deviation')}, {counted(found.steps, 'step')}; "
        f"after {counted(found.states, 'state')}, {counted(found.schedules, 'schedule')}, "
        f"{found.seconds:.2f} s",
    ))  # fmt: skip
    command = f"armkvm check --replay {violated.token}"
    facts.append(("again", f"<code class=token>{escape(command)}</code>"))
    rows = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts)
    picture = figure(violated.timeline(), f"The schedule, until {found.prop} fails")
    return (
        f"<section class=v id=v{number}><h3>{escape(title)}</h3>"
        f"<dl class=fact>{rows}</dl>{picture if prop is not None else ''}</section>"
    )

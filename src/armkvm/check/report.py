"""A report as one HTML file: results, and for each violation a timeline of threads.

No network, no script: style and contents are in the file. On a narrow screen tables become lists.
"""

from __future__ import annotations

from html import escape

from armkvm.check.job import Job, Token, replay
from armkvm.check.mutants import MUTANTS
from armkvm.check.properties import PROPERTIES
from armkvm.check.scenario import SCENARIOS
from armkvm.check.search import Result

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:72rem;padding:1rem;color:#1b1b1b;
background:#fff}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;overflow-wrap:anywhere}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.bad{color:#a00000;font-weight:600}.ok{color:#005a1e}
code{font-size:.85rem;overflow-wrap:anywhere}
ol.steps{font:.85rem/1.45 ui-monospace,monospace;padding-left:3rem;max-height:28rem;overflow:auto}
@media(max-width:640px){thead{display:none}tr{display:block;border-bottom:2px solid #ccc;
padding:.4rem 0}td,td.n{display:flex;justify-content:space-between;gap:1rem;border:0;text-align:
right;padding:.1rem 0}td::before{content:attr(data-l);color:#555;text-align:left}}
"""


def html(rows: list[tuple[Job, Result]], mutants: bool) -> str:
    """The whole file."""
    body = [f"<h1>armkvm check: {len(rows)} explorations</h1>", _table(rows, mutants)]
    for job, result in rows:
        if result.found is not None:
            body.append(_violation(job, result))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>armkvm check</title><style>{STYLE}</style></head><body>{''.join(body)}"
        "</body></html>\n"
    )


def _table(rows: list[tuple[Job, Result]], mutants: bool) -> str:
    first = "mutant" if mutants else "scenario"
    heads = (first, "result", "states", "transitions", "schedules", "seconds")
    head = "".join(f"<th{' class=n' if i > 1 else ''}>{h}</th>" for i, h in enumerate(heads))
    lines = []
    for job, r in rows:
        name = f"{job.mutant} in {job.scenario}" if job.mutant else job.scenario
        if r.found is not None:
            how = f"<span class=bad>{escape(r.found.prop)} violated</span>"
        elif r.bound:
            how = f"bounded: {escape(r.bound)}"
        else:
            how = "<span class=ok>exhausted</span>"
        cells = (escape(name), how, r.states, r.transitions, r.schedules, f"{r.seconds:.2f}")
        lines.append("<tr>" + "".join(
            f"<td data-l='{h}'{' class=n' if i > 1 else ''}><span>{c}</span></td>"
            for i, (h, c) in enumerate(zip(heads, cells, strict=True))
        ) + "</tr>")  # fmt: skip
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _violation(job: Job, result: Result) -> str:
    found = result.found
    assert found is not None
    token = Token(job.scenario, job.variant, job.mutant, found.deviations)
    title = f"{job.scenario}: {found.prop}"
    parts = [f"<h2>{escape(title)}</h2><p class=bad>{escape(found.detail)}</p>"]
    prop = PROPERTIES.get(found.prop)
    if prop is not None:
        parts.append(f"<p>{escape(prop.sentence)}<br><small>{escape(prop.source)}</small></p>")
        if job.mutant:
            mutant = MUTANTS[job.mutant]
            parts.append(f"<p>Mutant {escape(mutant.commit)}: {escape(mutant.what)}.</p>")
        steps = "".join(f"<li>{escape(line)}</li>" for line in replay(token)[0])
        parts.append(f"<p><code>armkvm check --replay {escape(str(token))}</code></p>")
        parts.append(f"<ol class=steps>{steps}</ol>")
    return "".join(parts)


def markdown(rows: list[tuple[Job, Result]], mutants: bool) -> str:
    """The table of a page of the documentation."""
    lines = []
    if mutants:
        lines += ["| mutant | commit | what | scenario | found by | deviations | steps | states "
                  "| s |",
                  "|---|---|---|---|---|--:|--:|--:|--:|"]  # fmt: skip
    else:
        lines += ["| scenario | what | states | transitions | schedules | s | result |",
                  "|---|---|--:|--:|--:|--:|---|"]  # fmt: skip
    for job, r in rows:
        f = r.found
        if mutants:
            m = MUTANTS[job.mutant]
            told = (f.prop, len(f.deviations), f.steps, f.states, f"{f.seconds:.2f}") if f else (
                "not found", "", "", r.states, f"{r.seconds:.2f}")  # fmt: skip
            cells: tuple[object, ...] = (m.name, m.commit, m.what, job.scenario, *told)
        else:
            how = f"violates {f.prop}" if f else r.bound or "exhausted"
            title = SCENARIOS[job.scenario].title
            cells = (job.scenario, title, r.states, r.transitions, r.schedules,
                     f"{r.seconds:.2f}", how)  # fmt: skip
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    return "\n".join(lines) + "\n"

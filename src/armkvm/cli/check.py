"""Run the hypervisor through all schedules of small scenarios, and find the bugs of history.

Each line says what was explored: exhausted, or bounded by what. A violation prints its property,
where that comes from, the shortest schedule found and a token; --replay TOKEN shows it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from armkvm.check.explorer.search import Bound
from armkvm.check.jobs import farm
from armkvm.check.jobs.cluster import Cluster, host_and_port
from armkvm.check.jobs.job import Job, Token, replay
from armkvm.check.mutants import MUTANTS
from armkvm.check.report.page import html
from armkvm.check.report.results import Row, Run, as_json
from armkvm.check.report.table import lines
from armkvm.check.report.timeline_text import WIDTH, Glyphs, glyphs
from armkvm.check.report.timeline_text import text as drawn
from armkvm.check.scenarios import SCENARIOS
from armkvm.check.scenarios.table import BOUND
from armkvm.check.seed import VARIANTS
from armkvm.check.world.properties import PROPERTIES
from armkvm.cli import outputs
from armkvm.cli.codes import Code
from armkvm.cli.exploring import Exploring
from armkvm.cli.main import UsageError
from armkvm.cli.sizes import natural, positive, seconds

SAMPLES = 2000


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm check``."""
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help="default: all")
    parser.add_argument("--list", action="store_true", help="list scenarios, variants, mutants")
    parser.add_argument("--variant", default="current", help="current (default) or seed")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--mutant", metavar="NAME", help="put one bug back")
    group.add_argument("--all-mutants", action="store_true", help="one after the other")
    group.add_argument("--replay", metavar="TOKEN", help="show one schedule step by step")
    parser.add_argument("--bound", type=positive, metavar="N",
                        help=f"schedules of a scenario (default {BOUND}, or its own)")  # fmt: skip
    parser.add_argument("--seconds", type=seconds, default=math.inf, metavar="S",
                        help="another bound; results then depend on the speed")  # fmt: skip
    parser.add_argument("--samples", type=natural, default=SAMPLES, metavar="N",
                        help=f"random schedules beyond a bound (default {SAMPLES})")  # fmt: skip
    parser.add_argument("--ignore", default="", metavar="I2,I6", help="properties to leave out")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, metavar="N",
                        help="processes (default: one a CPU)")  # fmt: skip
    parser.add_argument("--executor", metavar="ADDRESS",
                        help="a Dask scheduler whose workers do it; needs distributed")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report as well")


def run(args: argparse.Namespace) -> int:
    """Explore and print."""
    if args.list:
        return _list()
    if args.replay:
        return _replay(args.replay)
    _known(args)
    outputs.check(args.html)
    began = time.perf_counter()
    rows = _explored(args, list(_jobs(args)))
    mutants = args.all_mutants or bool(args.mutant)
    whole = Run(rows, mutants, time.perf_counter() - began)
    if args.json:
        print(json.dumps(as_json(whole), indent=1))
    else:
        for line in lines(whole, *_paper()):
            print(line)
    if args.html:
        outputs.write(args.html, html(whole).encode())
    if mutants:
        return Code.OK if len(whole.violations()) == len(whole.shown()) else Code.FAILED
    return Code.FAILED if whole.violations() else Code.OK


def _known(args: argparse.Namespace) -> None:
    for what, names, table in (
        ("scenario", args.scenario, SCENARIOS),
        ("variant", [args.variant], VARIANTS),
        ("mutant", [args.mutant] if args.mutant else [], MUTANTS),
        ("property", args.ignore.split(",") if args.ignore else [], PROPERTIES),
    ):
        for name in names:
            if name not in table:
                raise UsageError(f"there is no {what} {name!r} (--list shows them)")


def _jobs(args: argparse.Namespace) -> Iterator[Job]:
    ignore = frozenset(args.ignore.split(",")) if args.ignore else frozenset()

    def job(name: str, mutant: str = "") -> Job:
        schedules = args.bound or SCENARIOS[name].bound
        bound = Bound(schedules=schedules, seconds=args.seconds, samples=args.samples)
        return Job(name, args.variant, mutant, bound, ignore)

    if args.all_mutants or args.mutant:
        for mutant in MUTANTS.values() if args.all_mutants else [MUTANTS[args.mutant]]:
            for name in args.scenario or mutant.scenarios:
                yield job(name, mutant.name)
        return
    unknown = VARIANTS[args.variant].hosts
    for name in args.scenario or [s.name for s in SCENARIOS.values() if s.kind not in unknown]:
        yield job(name)


def _explored(args: argparse.Namespace, jobs: list[Job]) -> list[Row]:
    """Each job with its result; what failed once more, without the property that failed."""
    make, width = _executor(args)
    names = list(dict.fromkeys(job.scenario for job in jobs))
    rows: list[Row] = []
    with Exploring() as shown:
        while jobs:
            shown.more(len(set(jobs)))
            results = farm.explore(make, jobs, width=width, begun=shown.begun, ended=shown.ended)
            fresh = [
                (job, result)
                for job, result in zip(jobs, results, strict=True)
                # What cannot be left out is found again and again.
                if result.found is None or result.found.prop not in job.ignore
            ]
            rows += fresh
            jobs = [
                replace(job, ignore=job.ignore | {result.found.prop})
                for job, result in fresh
                if result.found is not None and result.found.prop in PROPERTIES and not job.mutant
            ]
    return rows if rows[0][0].mutant else sorted(rows, key=lambda row: names.index(row[0].scenario))


def _executor(args: argparse.Namespace) -> tuple[farm.Make, int | None]:
    """What carries the jobs out, and how much is given to it at a time."""
    if not args.executor:
        return lambda: farm.Pool(args.jobs), args.jobs
    if importlib.util.find_spec("distributed") is None:
        raise UsageError("--executor needs the package distributed (the extra armkvm[dask])")
    try:
        host_and_port(args.executor)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return lambda: Cluster(args.executor), None


def _list() -> int:
    print("scenarios")
    for s in SCENARIOS.values():
        print(f"  {s.name:<26} {s.title}")
    print("mutants")
    for m in MUTANTS.values():
        print(f"  {m.name:<26} {m.commit}: {m.what}")
    print("properties")
    for p in PROPERTIES.values():
        print(f"  {p.name:<4} {p.kind:<10} {p.sentence}\n{'':18}{p.source}")
    return 0


def _replay(text: str) -> int:
    try:
        token = Token.parse(text)
    except ValueError:
        raise UsageError(f"{text!r} is no token") from None
    timeline, prop, detail = replay(token)
    for line in drawn(timeline, *_paper()):
        print(line)
    if not prop:
        print("no violation")
        return 0
    print(f"{prop}: {detail}")
    return Code.FAILED


def _paper() -> tuple[int, Glyphs]:
    """How wide standard output is, and what it can carry."""
    wide = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    return min(wide, WIDTH), glyphs(sys.stdout.encoding)

"""The progress of `armkvm check` on a terminal: what is under way, how much is done, states so far.

On standard error, and gone when it is over; silence everywhere else. Left out: how far a scenario
is, which nobody knows before it is exhausted.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

from armkvm.check.explorer.search import Result
from armkvm.check.jobs.job import Job

NAMES = 3  # of what is under way, the rest as a number


class Exploring:
    """Told of jobs as they begin and end."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.states = 0
        self.found = 0
        self._under_way: dict[Job, None] = {}
        self._stack = ExitStack()
        self._show: Any = None

    def __enter__(self) -> Exploring:
        if sys.stderr.isatty():
            self._show = self._stack.enter_context(_Display())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def more(self, jobs: int) -> None:
        """So many are to be done besides."""
        self.total += jobs
        self._update()

    def begun(self, job: Job) -> None:
        """A worker has it, or part of it."""
        self._under_way[job] = None
        self._update()

    def ended(self, job: Job, result: Result) -> None:
        """It is complete."""
        self._under_way.pop(job, None)
        self.done += 1
        self.states += result.states
        self.found += result.found is not None
        self._update()

    def text(self) -> str:
        """What is going on, in a line."""
        names = [job.mutant or job.scenario for job in self._under_way]
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        found = f", {self.found} found" if self.found else ""
        return f"{self.states} states{found}: {', '.join(names[:NAMES])}{more}"

    def _update(self) -> None:
        if self._show is not None:
            self._show(self.text(), self.done, self.total)


class _Display:
    """A bar by rich, which is loaded only where it is seen."""

    def __enter__(self) -> Any:
        from rich import progress
        from rich.console import Console
        from rich.table import Column

        self._bar = progress.Progress(
            progress.BarColumn(bar_width=20),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn(
                "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")
            ),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        task = self._bar.add_task("", total=None)
        return lambda text, done, total: self._bar.update(
            task, description=text, completed=done, total=total or None
        )

    def __exit__(self, *_exc: object) -> None:
        self._bar.stop()

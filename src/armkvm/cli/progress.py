"""Progress on a terminal's standard error; silence everywhere else."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from armkvm.vmm.guest import Progress


@contextmanager
def shown() -> Iterator[Progress]:
    """A function that shows a step and how far it is; the display vanishes when it is done."""
    if not sys.stderr.isatty():
        yield lambda step, done, total: None
        return
    # Imported here: rich takes longer to load than a warm start of a guest may.
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("starting", total=None)

        def show(step: str, done: int, total: int) -> None:
            display.update(task, description=step, completed=done, total=total or None)

        yield show

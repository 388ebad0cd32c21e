"""Progress on a terminal's standard error; silence everywhere else."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from armkvm.vmm.guest.debian import Progress


@contextmanager
def shown() -> Iterator[Progress]:
    """A function that shows a step and how far it is; the display vanishes when it is done.

    Nothing is set up until there is a first step to show: most starts have none.
    """
    if not sys.stderr.isatty():
        yield lambda step, done, total: None
        return
    with ExitStack() as stack:
        display: list[Progress] = []

        def show(step: str, done: int, total: int) -> None:
            if not display:
                display.append(stack.enter_context(_display()))
            display[0](step, done, total)

        yield show


@contextmanager
def _display() -> Iterator[Progress]:
    # Imported here: rich takes longer to load than a warm start of a guest may.
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
    )
    with progress.Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda step, done, total: bar.update(
            task, description=step, completed=done, total=total or None
        )

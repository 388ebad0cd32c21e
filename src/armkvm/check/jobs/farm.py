"""Carrying jobs out over any executor of concurrent.futures: none is lost, none counts twice.

A worker may die under a job, and a pool of processes that has lost one takes no more work. So work
goes on in rounds, an executor each: what a round could not finish goes into the next one, up to a
limit. An error in a job's own code is no such death: it would come again, and ends everything.

Results are in the order of the jobs and do not depend on who was ready first. `Pool` is the
executor of this machine; cluster.py has the one of several machines. Left out: stopping a piece
under way because another one has made it superfluous.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from armkvm.check.explorer.search import Result
from armkvm.check.jobs import job
from armkvm.check.jobs.interrupt import awaited, blocked, check
from armkvm.check.jobs.job import Job, Sample

ATTEMPTS = 3  # at one piece of work
LOOK_AGAIN = 1.0  # seconds

W = TypeVar("W", bound=Hashable)
R = TypeVar("R")
Make = Callable[[], Executor]


class JobError(Exception):
    """A job's own code failed."""


class LostError(OSError):
    """A piece of work was lost again and again with the worker that had it."""


@dataclass(frozen=True)
class Failure:
    """What a worker returns in place of a result when the job's code failed."""

    error: str
    where: str


def attempt(function: Callable[[W], R], work: W) -> R | Failure:
    """In a worker. What the machine lacks is raised: another worker may have it."""
    try:
        return function(work)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


def carry_out(
    make: Make,
    function: Callable[[W], R],
    work: Iterable[W],
    follow: Callable[[W, R], Iterable[W]] | None = None,
    width: int | None = None,
    begun: Callable[[W], None] | None = None,
) -> Generator[tuple[W, R], None, None]:
    """Each piece of work with its result, once, as they come.

    `follow` names further work when a result is there. At most `width` pieces are with the executor
    at any time: of a pool that breaks they have all lost an attempt, those that wait have not.

    Raises JobError, LostError after the last attempt, and KeyboardInterrupt as soon as Ctrl-C was
    pressed.
    """
    waiting = deque(dict.fromkeys(work))
    attempts: Counter[W] = Counter()
    while waiting:
        with make() as executor, awaited() as interrupt:
            lost = yield from _round(executor, function, waiting, follow, width, begun, interrupt)
        for piece, error in lost:
            attempts[piece] += 1
            if attempts[piece] == ATTEMPTS:
                raise LostError(
                    f"{piece}: lost {ATTEMPTS} times with its worker ({_text(error)})"
                ) from error
            waiting.append(piece)


def _round(
    executor: Executor,
    function: Callable[[W], R],
    waiting: deque[W],
    follow: Callable[[W, R], Iterable[W]] | None,
    width: int | None,
    begun: Callable[[W], None] | None,
    interrupt: Future[None],
) -> Generator[tuple[W, R], None, list[tuple[W, Exception]]]:
    """Until all is done, or until something was lost and the rest of what is under way is back."""
    flying: dict[Future[R | Failure], W] = {}
    lost: list[tuple[W, Exception]] = []
    while flying or (waiting and not lost):
        while waiting and not lost and (width is None or len(flying) < width):
            piece = waiting.popleft()
            try:
                flying[executor.submit(attempt, function, piece)] = piece
            except Exception as error:  # broken since the last look
                lost.append((piece, error))
            else:
                if begun is not None:
                    begun(piece)
        if not flying:
            continue  # the executor took nothing
        awaits: list[Future[Any]] = [*flying, interrupt]
        ready = wait(awaits, return_when=FIRST_COMPLETED).done
        check(interrupt)
        for future in ready:
            piece = flying.pop(future)
            try:
                result = future.result()
            except Exception as error:  # also CancelledError: a connection that was lost
                lost.append((piece, error))
                continue
            if isinstance(result, Failure):
                raised = JobError(f"{piece}: {result.error}")
                raised.add_note(result.where)
                raise raised
            if follow is not None:
                waiting.extend(follow(piece, result))
            yield piece, result
    return lost


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def explore(
    make: Make,
    jobs: Sequence[Job],
    *,
    width: int | None = None,
    begun: Callable[[Job], None] | None = None,
    ended: Callable[[Job, Result], None] | None = None,
) -> list[Result]:
    """The results of jobs, in their order.

    `begun` is told when an executor is given a job or part of it, `ended` when one is complete.
    """
    explored: dict[Job, Result] = {}
    pieces: dict[Job, list[Sample]] = {}
    sampled: dict[Sample, Result] = {}
    results: dict[Job, Result] = {}

    def follow(work: Job | Sample, result: Result) -> list[Sample]:
        if isinstance(work, Sample):
            sampled[work] = result
            return []
        explored[work] = result
        pieces[work] = job.samples(work, result)
        return pieces[work]

    def given(work: Job | Sample) -> None:
        if begun is not None:
            begun(work.job if isinstance(work, Sample) else work)

    everything: list[Job | Sample] = [*jobs]
    with closing(carry_out(make, job.perform, everything, follow, width, given)) as done:
        for work, _result in done:
            whose = work.job if isinstance(work, Sample) else work
            if all(piece in sampled for piece in pieces[whose]):
                parts = [sampled[piece] for piece in pieces[whose]]
                results[whose] = job.merge(whose, explored[whose], parts)
                if ended is not None:
                    ended(whose, results[whose])
    return [results[each] for each in jobs]


class Pool(ProcessPoolExecutor):
    """Processes of this machine. Left by an exception, it ends them at once.

    They are started by a server process, not forked from here, where other threads may be.
    """

    def __init__(self, processes: int) -> None:
        self.size = processes
        kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(kind)
        if kind == "forkserver":
            context.set_forkserver_preload([job.__name__])
        super().__init__(processes, mp_context=context, initializer=_begin)
        self._awaited = ExitStack()  # Ctrl-C, from the first process on to the end of the last

    def __enter__(self) -> Self:
        try:
            interrupt = self._awaited.enter_context(awaited())
            # Interrupted while it starts, a process would end in a traceback of its own.
            with blocked():
                starting = {self.submit(_here) for _ in range(self.size)}
                while starting and not interrupt.done():
                    awaits: list[Future[Any]] = [*starting, interrupt]
                    ready = wait(awaits, LOOK_AGAIN, FIRST_COMPLETED).done
                    starting -= ready
                    if not ready:
                        # The executor watches the processes that it knew when it last woke: it
                        # misses one that dies as it starts. More work wakes it.
                        with suppress(BrokenProcessPool):
                            starting.add(self.submit(_here))
            check(interrupt)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _is_broken(self) -> bool:
        try:
            self.submit(_here)
        except BrokenProcessPool:
            return True
        return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if kind is not None or self._is_broken():
            # Also one that came while the executor ended those it knew: it would wait for that one.
            # From Python 3.14 on this is kill_workers().
            for process in list((self._processes or {}).values()):
                process.kill()
        self.shutdown(wait=True, cancel_futures=kind is not None)
        self._awaited.__exit__(kind, error, where)


def _here() -> None:
    """In a process of the pool: it has started."""


def _begin() -> None:
    """In a process of the pool: Ctrl-C is for the one who started us, and we end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

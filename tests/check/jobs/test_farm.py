"""Jobs on workers that die, in processes and with executors of the test's own."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from armkvm.check.explorer.search import Bound, Found, Result
from armkvm.check.jobs import farm, job
from armkvm.check.jobs.job import Job

SMALL = Bound(schedules=15, seconds=1e9, samples=30)
JOBS = [
    Job("timer-past", bound=SMALL),
    Job("two-vms", bound=SMALL),
    Job("timer-future", mutant="no-notification", bound=SMALL),
    Job("two-vcpus", bound=SMALL),
    Job("wfi-told", bound=SMALL),
]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded scenario's random schedules are three pieces."""
    monkeypatch.setattr(job, "CHUNK", 12)


def timeless(result: Result) -> Result:
    """All but how long it took."""
    found = result.found and dataclasses.replace(result.found, seconds=0.0)
    return dataclasses.replace(result, seconds=0.0, found=found)


@pytest.fixture(scope="module")
def expected() -> list[Result]:
    """What the jobs give here, one after the other."""
    return [timeless(job.run(each)) for each in JOBS]


class Here(Executor):
    """Does the work at once; the pieces whose numbers are in `lost` are lost."""

    def __init__(self, lost: set[int]) -> None:
        self.lost = lost
        self.number = 0
        self.made = 0

    def make(self) -> Executor:
        """The same one again and again."""
        self.made += 1
        return self

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        """At once."""
        future: Future[object] = Future()
        if self.number in self.lost:
            future.set_exception(BrokenProcessPool("the worker was killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        self.number += 1
        return future


@pytest.mark.parametrize("width", [1, 2, None])
def test_what_was_lost_is_done_again_and_counts_once(
    expected: list[Result], width: int | None
) -> None:
    executor = Here({0, 2, 3, 7})
    complete: list[Job] = []
    results = farm.explore(executor.make, JOBS, width=width,
                           ended=lambda job, _result: complete.append(job))  # fmt: skip
    assert [timeless(r) for r in results] == expected
    assert sorted(map(str, complete)) == sorted(map(str, JOBS))
    assert executor.made > 1


def test_what_is_lost_every_time_is_given_up() -> None:
    executor = Here(set(range(100)))
    with pytest.raises(farm.LostError, match=r"^timer-past/current: lost 3 times .*was killed"):
        farm.explore(executor.make, JOBS[:1])
    assert executor.number == farm.ATTEMPTS


def test_an_error_of_the_job_is_not_tried_again() -> None:
    executor = Here(set())
    with pytest.raises(farm.JobError, match=r"^nothing/current: KeyError: 'nothing'") as caught:
        farm.explore(executor.make, [Job("nothing")])
    assert executor.number == 1
    assert "in explore" in caught.value.__notes__[0]


class Backwards(Executor):
    """What came last is ready first, one piece in a tenth of a second."""

    def __init__(self) -> None:
        self.stack: list[tuple[Future[object], object]] = []

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Later."""
        future: Future[object] = Future()
        self.stack.append((future, lambda: fn(*args, **kwargs)))
        threading.Timer(0.1, self.last).start()
        return future

    def last(self) -> None:
        """One piece."""
        future, call = self.stack.pop()
        future.set_result(call())  # type: ignore[operator]


def test_the_order_in_which_they_are_ready_does_not_matter(expected: list[Result]) -> None:
    assert [timeless(r) for r in farm.explore(Backwards, JOBS)] == expected


def test_the_lowest_seed_wins() -> None:
    def found(at: int) -> Result:
        prop = Found("I1", f"at {at}", ((1, 1),), 5, at, 0, 0.25)
        return Result(schedules=at, seconds=0.25, found=prop)

    explored = Result(states=7, transitions=9, schedules=10, seconds=1.0, bound="10 schedules")
    clean = Result(schedules=250, seconds=0.5)
    each = Job("two-vms", bound=Bound(samples=1000))
    whole = job.merge(each, explored, [clean, found(3), clean, found(1)])
    assert whole.found == Found("I1", "at 3", ((1, 1),), 5, 10 + 250 + 3, 7, 1.75)
    assert (whole.schedules, whole.states, whole.seconds) == (263, 7, 1.75)
    assert explored.schedules == 10


def test_how_seeds_are_cut_does_not_matter() -> None:
    each = Job("migration", bound=Bound(schedules=20, samples=30))
    explored = job.explore(each)
    whole = job.sample(job.Sample(each, 1, 30))
    parts = [job.sample(job.Sample(each, first, 10)) for first in (1, 11, 21)]
    assert timeless(job.merge(each, explored, [whole])) == timeless(
        job.merge(each, explored, parts)
    )


def test_processes_give_the_same(expected: list[Result]) -> None:
    results = farm.explore(lambda: farm.Pool(2), JOBS, width=2)
    assert [timeless(r) for r in results] == expected


def kill_the_first(flag: Path) -> int:
    """Work that ends its process, once."""
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        return 1
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_a_pool_that_loses_a_process_is_replaced(tmp_path: Path) -> None:
    work = [tmp_path / name for name in "abcd"]
    # Each kills its first process, so each is lost at most twice: once as the one beside it.
    done = list(farm.carry_out(lambda: farm.Pool(1), kill_the_first, work, width=1))
    assert sorted(done) == [(path, 1) for path in work]


def test_a_process_killed_from_outside(expected: list[Result]) -> None:
    def kill_one() -> None:
        while not (alive := multiprocessing.active_children()):
            time.sleep(0.01)
        os.kill(alive[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    results = farm.explore(lambda: farm.Pool(2), JOBS, width=2)
    killer.join()
    assert [timeless(r) for r in results] == expected


class LateEntry(dict[int, Any]):
    """An executor's processes; the second dies with its work before it is entered."""

    def __setitem__(self, pid: int, process: Any) -> None:
        if len(self) == 1:
            time.sleep(0.2)  # the first one's work is done, and the executor waits
            process.kill()
            process.join()
        super().__setitem__(pid, process)


class Unseen(dict[int, Any]):
    """An executor's processes, of which it does not see those that live when it ends them."""

    def values(self) -> Any:
        """All, but for who ends them."""
        everything = list(super().values())
        if "terminate_broken" in sys._getframe(1).f_code.co_name:
            return [process for process in everything if not process.is_alive()]
        return everything


def test_a_process_that_comes_while_the_others_are_ended() -> None:
    """The executor joins it and has not told it to end."""
    with farm.Pool(2) as pool:
        pool._processes = Unseen(pool._processes)
        manager: Any = pool._executor_manager_thread
        manager.processes = pool._processes
        first, _second = pool._processes.values()
        first.kill()
        first.join()
        with pytest.raises(BrokenProcessPool):
            list(map(Future.result, [pool.submit(int) for _ in range(1000)]))


def first_at_once(flag: Path) -> None:
    """All but the first take long enough to be killed in it."""
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        time.sleep(0.5)


def test_a_process_that_dies_as_it_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pool = farm.Pool(2)
    pool._processes = LateEntry()
    with monkeypatch.context() as patch:
        patch.setattr(farm, "_here", functools.partial(first_at_once, tmp_path / "flag"))
        with pytest.raises(BrokenProcessPool), pool:
            pool.submit(int).result()


SEEDED = """
from armkvm.check.jobs.job import Job, run
from armkvm.check.explorer.search import Bound
for name in ("gic-slow", "two-vms", "migration"):
    result = run(Job(name, bound=Bound(schedules=150, samples=10)))
    result.seconds = 0
    print(name, result.states, result.transitions, result.bound, sorted(result.seen.items()))
"""


def test_counts_do_not_depend_on_how_a_process_hashes() -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SEEDED], capture_output=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert len(outputs) == 1


def test_processes_end_with_the_one_who_started_them() -> None:
    program = (
        "import sys, time\n"
        "from armkvm.check.jobs import farm\n"
        "if __name__ == '__main__':\n"
        "    with farm.Pool(1) as pool:\n"
        "        print(pool.submit(__import__('os').getpid).result(), flush=True)\n"
        "        pool.submit(time.sleep, 60).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
    while running(worker):
        time.sleep(0.02)


def running(pid: int) -> bool:
    """There is such a process, and it has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Lost:
    """Its finaliser presses Ctrl-C: what Python raises there is printed and forgotten."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("when", ["begun", "ended"])
def test_an_interrupt_where_python_would_forget_it(when: str) -> None:
    """While work is given away, and while a result is handed over: it ends what would go on."""
    pressed: list[Job] = []

    def press(each: Job) -> None:
        pressed.append(each)
        if len(pressed) == 1:
            Lost()

    def begun(each: Job) -> None:
        if when == "begun":
            press(each)

    def ended(each: Job, _result: Result) -> None:
        if when == "ended":
            press(each)

    with pytest.raises(KeyboardInterrupt):
        farm.explore(
            lambda: farm.Pool(1), [Job("timer-past", bound=SMALL), Job("migration", bound=SMALL)],
            width=1, begun=begun, ended=ended,
        )  # fmt: skip
    assert len(pressed) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_an_interrupt_while_processes_start(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = farm.Pool.submit

    def interrupted(pool: farm.Pool, *args: object) -> Future[object]:
        Lost()
        return submit(pool, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(farm.Pool, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt), farm.Pool(1):
        pass
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_who_ignores_the_interrupt_keeps_ignoring_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with farm.Pool(1) as pool:
            os.kill(os.getpid(), signal.SIGINT)
            assert pool.submit(int, "7").result() == 7
    finally:
        signal.signal(signal.SIGINT, before)

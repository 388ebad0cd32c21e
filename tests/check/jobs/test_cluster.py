"""Jobs on a real Dask cluster of two processes, one of which is killed."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import armkvm
from armkvm.check.explorer.search import Bound, Result
from armkvm.check.jobs import cluster, farm, job
from armkvm.check.jobs.job import Job

SMALL = Bound(schedules=100, samples=50)
JOBS = [
    *(Job(name, bound=SMALL) for name in ("two-vms", "migration", "timer-past", "wfi-told")),
    Job("timer-future", mutant="no-notification", bound=SMALL),
    Job("reset", mutant="reset-keeps-timer", bound=SMALL),
    Job("two-vms", variant="seed", bound=SMALL, ignore=frozenset({"I2", "I6"})),
]  # fmt: skip


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    """Two processes and a scheduler, here."""
    distributed = importlib.import_module("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as local:  # fmt: skip
        yield local


@pytest.fixture(scope="module")
def expected() -> list[Result]:
    """What the jobs give without a cluster."""
    return [timeless(job.run(each)) for each in JOBS]


def timeless(result: Result) -> Result:
    """All but how long it took."""
    found = result.found and dataclasses.replace(result.found, seconds=0.0)
    return dataclasses.replace(result, seconds=0.0, found=found)


def make(dask: Any) -> Callable[[], cluster.Cluster]:
    """An executor that uses it."""
    return lambda: cluster.Cluster(dask.scheduler_address)


def test_the_same_as_here(
    dask: Any, expected: list[Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "CHUNK", 20)
    assert [timeless(r) for r in farm.explore(make(dask), JOBS)] == expected


def test_a_worker_that_is_killed_loses_nothing(dask: Any, expected: list[Result]) -> None:
    killed: list[str] = []

    def kill_one_at_work() -> None:
        while not killed:
            for address, worker in list(dask.scheduler.workers.items()):
                busy = next((t for t in worker.processing if t.key.startswith("attempt")), None)
                if busy is not None and not killed:
                    killed.append(busy.key)
                    pid = next(n.pid for n in dask.workers.values() if n.worker_address == address)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one_at_work)
    killer.start()
    complete: list[Job] = []
    results = farm.explore(make(dask), JOBS, ended=lambda job, _result: complete.append(job))
    killer.join()
    assert len(killed) == 1
    assert [timeless(r) for r in results] == expected
    assert sorted(map(str, complete)) == sorted(map(str, JOBS))


def test_workers_with_other_code_are_refused(dask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(armkvm, "__version__", "0.0")
    cluster.identity.cache_clear()
    try:
        with pytest.raises(
            ConnectionError, match=r"the worker tcp://.* has armkvm .*, not 0\.0 \("
        ):
            make(dask)()
    finally:
        cluster.identity.cache_clear()


def test_a_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = importlib.import_module("distributed")
    monkeypatch.setattr(cluster, "WORKERS_SECONDS", 0.1)
    with distributed.LocalCluster(
        n_workers=0,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as empty:
        with pytest.raises(ConnectionError, match="has no workers"):
            make(empty)()


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-Other\r\n"])
def test_what_is_no_scheduler(says: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(says)
                with suppress(ConnectionResetError):
                    connection.recv(1)

        threading.Thread(target=serve).start()
        with pytest.raises(ConnectionError, match=f"what listens at 127.0.0.1:{port} is no Dask"):
            cluster.Cluster(f"127.0.0.1:{port}")
    with pytest.raises(ConnectionError, match=f"nobody answers at 127.0.0.1:{port}: Connection"):
        cluster.Cluster(f"127.0.0.1:{port}")


@pytest.mark.parametrize("text", ["somewhere", "tcp://host", "foo://host:1", "tcp://host:port", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        cluster.host_and_port(text)


def test_an_address() -> None:
    assert cluster.host_and_port("tcp://[::1]:8786") == ("::1", 8786)
    assert cluster.host_and_port("host:8786") == ("host", 8786)

"""A Dask cluster as an executor: the processes of several machines (package `distributed`).

Dask itself gives the work of a lost worker to another one. Before the first piece of work the
workers are asked who they are, since other code would give other results. Left out: asking those
that come later; clusters that start workers only when there is work; TLS.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import logging
import platform
import socket
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import armkvm

CONNECT_SECONDS = 3
LONGEST_GREETING = 1 << 20
WORKERS_SECONDS = 10

P = ParamSpec("P")
T = TypeVar("T")


class Cluster(Executor):
    """The workers of a scheduler. Leaving it closes the connection and drops what is under way.

    Raises ImportError without the package, ValueError for what is no address, ConnectionError when
    nobody answers, when there are no workers, and when they run another Python or another armkvm.
    """

    def __init__(self, address: str) -> None:
        try:
            spoken = greeting(*host_and_port(address))
        except OSError as error:
            raise ConnectionError(f"nobody answers at {address}: {_why(error)}") from error
        if not 0 < spoken < LONGEST_GREETING:
            raise ConnectionError(f"what listens at {address} is no Dask scheduler")
        dask: Any = importlib.import_module("dask")
        distributed: Any = importlib.import_module("distributed")
        # Its own complaints would come in between our lines, and say less.
        for logger in ("distributed", "distributed.client"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        try:
            limit = {"distributed.comm.timeouts.connect": CONNECT_SECONDS}
            with warnings.catch_warnings(), dask.config.set(limit):
                warnings.simplefilter("ignore")  # versions of packages that we do not use
                self._client: Any = distributed.Client(
                    address, timeout=CONNECT_SECONDS, set_as_default=False
                )
        except OSError as error:
            raise ConnectionError(f"no Dask scheduler answers at {address}") from error
        try:
            self._ask(address)
        except BaseException:
            self._client.close()
            raise
        self._executor: Any = self._client.get_executor(pure=False)

    def _ask(self, address: str) -> None:
        try:
            self._client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError:
            raise ConnectionError(f"the Dask scheduler at {address} has no workers") from None
        for worker, answer in self._client.run(identity, on_error="return").items():
            if isinstance(answer, Exception):
                raise ConnectionError(f"the worker {worker} has no armkvm like this one ({answer})")
            for what, here, there in zip(("Python", "armkvm"), identity(), answer, strict=True):
                if here != there:
                    raise ConnectionError(f"the worker {worker} has {what} {there}, not {here}")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Positional arguments only."""
        future: Future[T] = self._executor.submit(fn, *args)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Whoever wants a result has waited for it."""
        self._executor.shutdown(wait=False)
        self._client.close()


def host_and_port(address: str) -> tuple[str, int]:
    """Of tcp://HOST:PORT, or without the tcp://. ValueError for anything else."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    with suppress(ValueError):  # parts.port raises it
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None:
            return parts.hostname, parts.port
    raise ValueError(f"{address!r} is no address of a Dask scheduler (tcp://HOST:PORT)")


def greeting(host: str, port: int) -> int:
    """The length of what a scheduler says of itself to whoever connects; 0 if it says nothing.

    Asked before Dask's own client, which waits long for those that are none.
    """
    with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
        length = b""
        with suppress(TimeoutError):
            while len(length) < 8 and (more := connection.recv(8 - len(length))):
                length += more
    return int.from_bytes(length, "little") if len(length) == 8 else 0


def _why(error: OSError) -> str:
    return error.strerror or str(error)


@functools.cache
def identity() -> tuple[str, str]:
    """Python's version and that of armkvm, with a digest of its sources."""
    digest = hashlib.sha256()
    root = Path(armkvm.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    python = ".".join(platform.python_version_tuple()[:2])
    return python, f"{armkvm.__version__} ({digest.hexdigest()[:12]})"

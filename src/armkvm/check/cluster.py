"""A Dask cluster as an executor: the processes of several machines (package `distributed`).

Dask itself gives the work of a lost worker to another one. Before the first piece of work the
workers are asked who they are, since other code would give other results. Left out: asking those
that come later; clusters that start workers only when there is work; TLS (Dask's own configuration
has it).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import logging
import platform
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import armkvm

CONNECT_SECONDS = 5
WORKERS_SECONDS = 10

P = ParamSpec("P")
T = TypeVar("T")


class Cluster(Executor):
    """The workers of a scheduler. Leaving it closes the connection and drops what is under way.

    Raises ImportError without the package, ConnectionError when nobody answers, when there are no
    workers, and when they run another Python or another armkvm.
    """

    def __init__(self, address: str) -> None:
        distributed: Any = importlib.import_module("distributed")
        # Its own complaints would come in between our lines, and say less.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # versions of packages that we do not use
                self._client: Any = distributed.Client(
                    address, timeout=CONNECT_SECONDS, set_as_default=False
                )
        except (OSError, ValueError) as error:
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


@functools.cache
def identity() -> tuple[str, str]:
    """Python's version and that of armkvm, with a digest of its sources."""
    digest = hashlib.sha256()
    root = Path(armkvm.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    python = ".".join(platform.python_version_tuple()[:2])
    return python, f"{armkvm.__version__} ({digest.hexdigest()[:12]})"

"""The same boot in odd environments: what surrounds the process is not in the guest.

Each run ends with the same exit code, instruction count, console and memory as a plain one.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from armkvm.cli.codes import Code
from armkvm.engine.cpu import Engine
from armkvm.vmm.guest import bare, debian

LIMIT = 120
SAME = ("instructions", "exits", "console_digest", "memory_digest", "guest_seconds")


@dataclass
class Odd:
    """An environment: variables (None: unset), a wrapper, what is done before exec."""

    variables: dict[str, str | None] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    before: Callable[[], object] | None = None
    silent: bool = False  # standard error is not there to be read


def closed(*descriptors: int) -> None:
    for fd in descriptors:
        os.close(fd)


def nowhere() -> None:
    """A working directory that is no more."""
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")


def limited(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


ODD = {
    "plain": Odd(),
    "no home": Odd({"HOME": None}),
    "a relative home": Odd({"HOME": "here"}),
    "LANG=C": Odd({"LANG": "C", "LC_ALL": "C"}),
    "a locale that there is not": Odd({"LANG": "xx_YY.UTF-8", "LC_ALL": "xx_YY"}),
    "ASCII only": Odd({"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}),
    "a time zone": Odd({"TZ": "Asia/Kathmandu"}),
    "no such time zone": Odd({"TZ": ":/nosuch"}),
    "TERM=dumb": Odd({"TERM": "dumb"}),
    "no TERM, one column": Odd({"TERM": None, "COLUMNS": "1", "LINES": "1"}),
    "no temporary directory": Odd({"TMPDIR": "/nosuch"}),
    "no PATH": Odd({"PATH": None}),
    "PATH of nothing": Odd({"PATH": "/nosuch"}),
    "hash seed": Odd({"PYTHONHASHSEED": "1"}),
    "optimised": Odd({"PYTHONOPTIMIZE": "2"}),
    "warnings are errors": Odd({"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}),
    "no byte code": Odd({"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}),
    "env -i": Odd(wrapper=("env", "-i", "XDG_CACHE_HOME={cache}")),
    "nohup": Odd(wrapper=("nohup",)),
    "setsid": Odd(wrapper=("setsid", "--wait")),
    "nice": Odd(wrapper=("nice", "-n", "19")),
    "no standard input": Odd(before=partial(closed, 0)),
    "no standard error": Odd(before=partial(closed, 2), silent=True),
    "none of the three": Odd(before=partial(closed, 0, 1, 2), silent=True),
    "umask 000": Odd(before=partial(os.umask, 0)),
    "umask 777": Odd(before=partial(os.umask, 0o777)),
    "16 files": Odd(before=partial(limited, resource.RLIMIT_NOFILE, 16)),
    "a small stack": Odd(before=partial(limited, resource.RLIMIT_STACK, 1 << 20)),
    "no files to write": Odd(before=partial(limited, resource.RLIMIT_FSIZE, 0)),
    "no core, no locked memory": Odd(before=partial(limited, resource.RLIMIT_MEMLOCK, 0)),
    "signals ignored": Odd(
        before=lambda: [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGPIPE, signal.SIGCHLD)]
    ),
    "signals blocked": Odd(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGUSR1})
    ),
    "a working directory that is gone": Odd(before=nowhere),
}


@pytest.fixture(scope="module")
def place() -> str:
    """Where the engine is that all runs use."""
    Engine.load()
    return str(debian.cache_folder().parents[1])


def boot(folder: Path, place: str, odd: Odd) -> tuple[int, bytes, dict[str, object]]:
    """A boot of the built-in guest; its exit code, console and figures."""
    (folder / "guest.bin").write_bytes(bare.program())
    variables = {**os.environ, "XDG_CACHE_HOME": place}
    for name, value in odd.variables.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    wrapper = [word.format(cache=place) for word in odd.wrapper]
    command = [sys.executable, "-m", "armkvm", "run", "--stats", "-k", str(folder / "guest.bin")]
    done = subprocess.run(
        [*wrapper, *command], cwd=folder, env=variables, preexec_fn=odd.before, timeout=LIMIT,
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    if odd.silent:
        return done.returncode, done.stdout, {}
    lines = done.stderr.decode().splitlines()
    lines = [line for line in lines if not line.startswith("nohup: ")]
    assert len(lines) == 1, done.stderr
    return done.returncode, done.stdout, json.loads(lines[0])


@pytest.fixture(scope="module")
def plain(place: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, object]]:
    """What it looks like where nothing is odd."""
    _code, console, figures = boot(tmp_path_factory.mktemp("plain"), place, ODD["plain"])
    return console, figures


@pytest.mark.parametrize("name", ODD)
def test_the_boot_is_the_same(
    name: str, tmp_path: Path, place: str, plain: tuple[bytes, dict[str, object]]
) -> None:
    code, console, figures = boot(tmp_path, place, ODD[name])
    assert code == Code.OK
    if "none" not in name:
        assert console == plain[0]
        assert b"BOOT-OK" in console
    if figures:
        assert [figures[key] for key in SAME] == [plain[1][key] for key in SAME]


def test_no_home_at_all_is_told(tmp_path: Path) -> None:
    """A container's uid without an entry in the password file: RuntimeError, exit code 70."""
    hook = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    variables = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")
    }
    (tmp_path / "guest.bin").write_bytes(bare.program())
    done = subprocess.run(
        [sys.executable, "-m", "armkvm", "run", "-k", "guest.bin"], cwd=tmp_path,
        env={**variables, "PYTHONPATH": path}, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == Code.HOST
    assert done.stderr == (
        b"armkvm: there is no home directory: set XDG_CACHE_HOME to a writable directory\n"
    )

"""Fixtures for the whole suite."""

import functools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armkvm.engine.cpu import Engine
from armkvm.host.turn import Turn

Oracle = Callable[[str], str | None]

# A shell's background job and nohup begin with signals ignored, and so would every process that a
# test starts: what is tested is how armkvm takes them.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


def installed(name: str) -> str | None:
    """A program on the path or a file by its path; None where it is not installed.

    `.ci/run` installs all that tests ask for, so a missing one is an error there.
    """
    path = shutil.which(name) or (name if os.path.isfile(name) else None)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing: .ci/run should have installed it")
    return path


@pytest.fixture
def oracle() -> Oracle:
    """Find a program that gives a second opinion, which a test asks in addition to its own
    assertions."""
    return installed


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The compiled engine."""
    return Engine.load()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Not in a worker: the one who started it gets its reports, and has the terminal."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(Naming(terminal))


class Naming:
    """Names what fails as it happens: a run that is killed has no summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self.terminal = terminal

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test, or what goes before and after it."""
        if report.failed:
            self.terminal.ensure_newline()
            self.terminal.write_line(f"FAILED {report.nodeid}", flush=True, red=True)


@pytest.fixture(autouse=True, scope="session")
def legal_turns() -> Iterator[None]:
    """After each step of the scheduler its state is one of those that it says are legal."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "join",
            "leave",
            "announce",
            "take",
            "give",
            "pass_on",
            "sleep",
            "wake",
            "hand_over",
        ):
            patch.setattr(Turn, name, _checked(getattr(Turn, name)))
        yield


def _checked(method: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(method)
    def step(turn: Turn, *args: object) -> object:
        try:
            return method(turn, *args)
        finally:
            with turn.lock:
                assert not (why := turn.illegal()), f"after {method.__name__}: {why}"

    return step

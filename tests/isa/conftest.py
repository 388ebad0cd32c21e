"""Fixtures for the tests of instructions."""

import pytest

from armkvm.engine.cpu import Engine

from .bench import Bench


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The compiled engine."""
    return Engine.load()


@pytest.fixture
def bench(engine: Engine) -> Bench:
    """A fresh CPU with fresh memory."""
    return Bench(engine)

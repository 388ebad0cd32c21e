"""Fixtures for the tests of instructions."""

import pytest
from tests.isa.bench import Bench

from armkvm.engine.cpu import Engine


@pytest.fixture
def bench(engine: Engine) -> Bench:
    """A fresh CPU with fresh memory."""
    return Bench(engine)

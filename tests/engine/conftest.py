"""Fixtures for the tests of the engine."""

import pytest

from armkvm.engine.cpu import Engine

from .world import World


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The compiled engine."""
    return Engine.load()


@pytest.fixture
def world(engine: Engine) -> World:
    """A fresh CPU with fresh memory, the MMU off."""
    return World(engine)

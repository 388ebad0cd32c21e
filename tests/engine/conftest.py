"""Fixtures for the tests of the engine."""

import pytest
from tests.engine.world import World

from armkvm.engine.cpu import Engine


@pytest.fixture
def world(engine: Engine) -> World:
    """A fresh CPU with fresh memory, the MMU off."""
    return World(engine)

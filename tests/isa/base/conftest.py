"""Fixtures for the tests of system instructions."""

import pytest
from tests.engine.world import World

from armkvm.engine.cpu import Engine


@pytest.fixture
def world(engine: Engine) -> World:
    """A fresh CPU with fresh memory and stage 1 off."""
    return World(engine)

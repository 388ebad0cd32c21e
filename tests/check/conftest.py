"""Small bounds: the tests look at the checker, `armkvm check` at the hypervisor."""

from __future__ import annotations

import pytest

from armkvm.check.explorer.search import Bound


@pytest.fixture
def bound() -> Bound:
    """Some seconds at most."""
    return Bound(schedules=4000, seconds=20, samples=20)

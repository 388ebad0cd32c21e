"""What devices share."""

from __future__ import annotations

from armkvm.vmm.devices.device import on_change


def test_a_line_is_told_of_changes_alone() -> None:
    told: list[bool] = []
    one, other = on_change(told.append), on_change(told.append)
    for level in (False, True, True, False, False, True):
        one(level)
    assert told == [True, False, True]
    other(True)  # each has its own level
    assert told == [True, False, True, True]

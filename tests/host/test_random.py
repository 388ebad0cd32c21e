"""Where random numbers come from."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import armkvm
from armkvm.host.clock import make_clock
from armkvm.host.host import Host
from armkvm.host.random import Random


def test_a_seeded_number_is_a_function_of_seed_and_moment() -> None:
    first = Random(7).draw(24, 1000, 0)
    assert first == Random(7).draw(24, 1000, 0)
    others = Random(8).draw(24, 1000, 0), Random(7).draw(24, 1001, 0), Random(7).draw(24, 1000, 1)
    assert len({first, *others}) == 4
    assert [len(Random(7).draw(n, 0)) for n in (0, 1, 24)] == [0, 1, 24]


def test_without_a_seed_nothing_repeats() -> None:
    assert Random(None).draw(16, 1000, 0) != Random(None).draw(16, 1000, 0)


@pytest.mark.parametrize(
    ("mode", "asked", "seed"),
    [
        ("virtual", None, 0), ("virtual", 5, 5), ("paced", None, None), ("paced", 5, 5),
        ("realtime", None, None), ("realtime", 0, 0),
    ],
)  # fmt: skip
def test_only_virtual_time_has_a_seed_of_its_own(
    mode: str, asked: int | None, seed: int | None
) -> None:
    assert Host("nvhe-gicv2", make_clock(mode), seed=asked).random.seed == seed


def test_nobody_else_under_the_vmm_asks_the_machine() -> None:
    """Of kvm, host and engine: a second place would be an input that no seed covers."""
    root = Path(armkvm.__file__).parent
    found = set()
    for floor in ("kvm", "host", "engine"):
        for path in (root / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in ("urandom", "getrandom"):
                    found.add(path.relative_to(root).as_posix())
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                    assert not names & {"random", "secrets", "uuid"}, path
    assert found == {"host/random.py"}

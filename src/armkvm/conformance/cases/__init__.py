"""All cases in the order of the log, by the name that begins their heading.

`CASES` are what the ground truth holds. `ON_REQUEST` run only when they are named: they harm some
kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from armkvm.conformance.cases import basics, caps, failed_run, irqs, lines, running, vgic
from armkvm.conformance.cases.simple import EXITS, TIMERS, Simple
from armkvm.conformance.session import Session

Case = Callable[[Session], None]


def _by_name(table: tuple[Simple, ...]) -> dict[str, Case]:
    return {case.heading.split()[0]: case for case in table}


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "caps": caps.caps,
        "E1": basics.e1,
        "E2": basics.e2,
        "E3": basics.e3,
        "E4": vgic.e4,
        "E5": vgic.e5,
        "E6": vgic.e6,  # writes E6b as well
        "E7": irqs.e7,
        "E8": running.e8,
        "E9": running.e9,
        "E10": running.e10,
        "E11": running.e11,
        **_by_name(TIMERS),
        "L1": lines.l1,
        "L2": lines.l2,
        **_by_name(EXITS),
        "M10": lines.m10,
        "P1": irqs.p1,
        "P2": failed_run.p2,
        "P3": failed_run.p3,
    }
)

ON_REQUEST: Mapping[str, Case] = MappingProxyType({"P4": failed_run.p4})

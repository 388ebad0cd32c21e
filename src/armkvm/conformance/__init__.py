"""The conformance cases: some eighty situations in which KVM has to answer as Linux 6.12 does.

A client of the KVM API makes VMs, runs small guests and logs every answer. What the real KVM
printed is the ground truth. The client runs on armkvm's KVM in process and on any /dev/kvm of an
arm64 host: the same cases, two implementations of `client.Client`. Nothing here imports kvm but
`inprocess`.
"""

from __future__ import annotations

from collections.abc import Iterable

from armkvm.client.protocol import Client
from armkvm.conformance.cases import CASES, ON_REQUEST
from armkvm.conformance.session import Emit, Session

DONE = "ORACLE-DONE"  # the log's last line


def run(client: Client, emit: Emit, names: Iterable[str] = tuple(CASES)) -> None:
    """Run cases, the truth's or those named, in the log's order; `emit` takes the lines."""
    wanted = set(names)
    session = Session(client, emit)
    try:
        for name, case in {**CASES, **ON_REQUEST}.items():
            if name in wanted:
                case(session)
    finally:
        client.close(session.kvm)
    emit(DONE)

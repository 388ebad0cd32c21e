"""What KVM does, recorded: the kernel's trace events of a VM, as text or for Perfetto's viewer.

    with record(vm, "boot.json"):
        ...

The form follows from the file's name: .json and .perfetto-trace are for the viewer, anything else
is ftrace's text. Times are guest times, so in virtual time the same run gives the same file.
"""

from __future__ import annotations

from armkvm.kvm import Vm
from armkvm.process import output
from armkvm.trace.ftrace import FtraceWriter
from armkvm.trace.perfetto import PerfettoWriter
from armkvm.trace.recorder import Recorder, Writer

VIEWER_SUFFIXES = (".json", ".perfetto-trace")


def record(vm: Vm, path: str) -> Recorder:
    """Record the events of a VM from now on, until the recorder is closed. OSError."""
    file = open(output.stream(path), "w", encoding="utf-8", newline="\n")  # noqa: SIM115 (the writer's)
    writer: Writer
    if path.endswith(VIEWER_SUFFIXES):
        writer = PerfettoWriter(file)
    else:
        writer = FtraceWriter(file)
    return Recorder(vm, writer)


__all__ = ["VIEWER_SUFFIXES", "Recorder", "record"]

"""The viewer's form: Chrome's JSON trace events, which ui.perfetto.dev opens.

Mirrors "Trace Event Format" (the JSON Array Format, whose closing bracket may be missing, so that a
trace of a run that was cut short opens too). One event a line. A vCPU's track shows slices: guest
code, and each exit by its reason up to the next entry, with what happened during it as instants.
The lines are counter tracks. Times are microseconds with the nanoseconds as decimals.
"""

from __future__ import annotations

import json
from typing import TextIO

from armkvm.host.cpu import EXIT_TRAP
from armkvm.trace.events import EVENTS, exception_class, exception_type
from armkvm.trace.recorder import Task

PROCESS = 1
GUEST = "guest"


class PerfettoWriter:
    """Writes to a text file, which it closes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._named: dict[int, str] = {}  # by PID: how the track is called
        self._open: set[int] = set()  # PIDs with a slice open
        file.write("[\n")
        self._meta("process_name", 0, "armkvm", last="")

    def event(
        self, ns: int, task: Task, cpu: int, name: str, vcpu_id: int, fields: tuple[object, ...]
    ) -> None:
        """One event: entry and exit become slices, everything else an instant."""
        pid = task.pid
        if self._named.get(pid) != task.comm:
            self._named[pid] = task.comm
            self._meta("thread_name", pid, task.comm)
        args = _named_fields(name, fields)
        if name == "kvm_entry":
            self._slice(ns, pid, GUEST, name, args)
        elif name == "kvm_exit":
            code, ec = fields[0], fields[1]
            assert isinstance(code, int)
            assert isinstance(ec, int)
            why = exception_class(ec) if code == EXIT_TRAP else exception_type(code)
            self._slice(ns, pid, why, name, args)
        else:
            args["vcpu"] = vcpu_id
            self._put({"ph": "i", "s": "t", "name": name, "cat": "kvm"}, ns, pid, args)

    def counter(self, ns: int, task: Task, cpu: int, name: str, value: int) -> None:
        """A line's new level."""
        self._put({"ph": "C", "name": name}, ns, task.pid, {"level": value})

    def _slice(self, ns: int, pid: int, name: str, event: str, args: dict[str, object]) -> None:
        """The open slice ends and another begins."""
        if pid in self._open:
            self._put({"ph": "E"}, ns, pid, None)
        self._open.add(pid)
        self._put({"ph": "B", "name": name, "cat": event}, ns, pid, args)

    def _put(
        self, event: dict[str, object], ns: int, pid: int, args: dict[str, object] | None
    ) -> None:
        head = json.dumps(event)[:-1]
        tail = "" if args is None else f', "args": {json.dumps(args)}'
        us, rest = divmod(ns, 1000)
        self._file.write(
            f',\n{head}, "ts": {us}.{rest:03d}, "pid": {PROCESS}, "tid": {pid}{tail}}}'
        )

    def _meta(self, what: str, tid: int, name: str, last: str = ",\n") -> None:
        event = {"ph": "M", "name": what, "pid": PROCESS, "tid": tid, "args": {"name": name}}
        self._file.write(last + json.dumps(event))

    def close(self) -> None:
        """Everything is in the file."""
        try:
            self._file.write("\n]\n")
        finally:
            self._file.close()


def _named_fields(name: str, fields: tuple[object, ...]) -> dict[str, object]:
    """By the kernel's names; addresses and register contents in hexadecimal."""
    named: dict[str, object] = {}
    for field, value in zip(EVENTS[name].fields, fields, strict=True):
        if field.startswith("="):
            named[field[1:]] = f"{value:#x}"
        else:
            named[field] = int(value) if isinstance(value, bool) else value
    return named

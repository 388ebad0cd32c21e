"""The text form: what a reader of /sys/kernel/tracing/trace sees, one event a line.

Mirrors kernel/trace/trace_output.c (the latency format is left out), with nanoseconds in the
timestamp as ``trace-cmd report -t`` prints them: guest time has them, and events that follow each
other within one microsecond are the rule here. Lines and levels that are no events of the kernel
appear as trace_marker writes in the form that viewers of ftrace text draw as counters.
"""

from __future__ import annotations

from typing import TextIO

from armkvm.trace.events import EVENTS, IRQS_ON, wording
from armkvm.trace.recorder import Task

HEADER = """\
# tracer: nop
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""


class FtraceWriter:
    """Writes to a text file, which it closes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._write = file.write
        self._write(HEADER)

    def event(
        self, ns: int, task: Task, cpu: int, name: str, vcpu_id: int, fields: tuple[object, ...]
    ) -> None:
        """One event."""
        self._line(ns, task, cpu, EVENTS[name].flags, name, wording(name, vcpu_id, fields))

    def counter(self, ns: int, task: Task, cpu: int, name: str, value: int) -> None:
        """A line's new level."""
        text = f"C|{task.pid}|{name}|{value}"
        self._line(ns, task, cpu, IRQS_ON, "tracing_mark_write", text)

    def _line(self, ns: int, task: Task, cpu: int, flags: str, name: str, text: str) -> None:
        seconds, rest = divmod(ns, 10**9)
        self._write(
            f"{task.comm:>16}-{task.pid:<7} [{cpu:03d}] {flags} "
            f"{seconds:5d}.{rest:09d}: {name}: {text}\n"
        )

    def close(self) -> None:
        """Everything is in the file."""
        self._file.close()

"""Reading a recorded trace again, of either form, one event at a time.

Mirrors what ftrace.py and perfetto.py write; of text, also what tracefs and trace-cmd print on a
real host, as far as the lines have the same parts. Lines that are no events (headers, comments,
metadata) are passed over. Left out: trace.dat and Perfetto's protocol buffers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple, TextIO

from armkvm.trace.events import user_exit

LINE = re.compile(
    r"\s*(?P<comm>.+?)-(?P<pid>\d+)\s+\[\d+\]\s+(?:\S{4,6}\s+)?"
    r"(?P<seconds>\d+)\.(?P<rest>\d{6,9}):\s+(?P<name>\w+):\s?(?P<text>.*)"
)
EXIT_REASON = re.compile(r"\s*(\w+): HSR_EC: 0x[0-9a-f]+ \((\w+)\)")
REASON = re.compile(r"\s*reason (\S+) \((\d+)\)")
MARKER = "tracing_mark_write"


class TraceError(Exception):
    """The file is not a trace; one line."""


class Read(NamedTuple):
    """An event, or a counter's new value. `detail` is why, of an exit."""

    ns: int
    track: str  # comm-pid
    name: str
    detail: str = ""
    value: int | None = None  # of a counter


def read(file: TextIO) -> Iterator[Read]:
    """All events in order. TraceError if there is none that can be understood."""
    head = file.readline()
    lines = iter(file)
    found = False
    if head.lstrip().startswith(("[", "{")):
        events = _json(lines)
    else:
        events = _text(head, lines)
    for event in events:
        found = True
        yield event
    if not found:
        raise TraceError("there are no events in it")


def _text(head: str, lines: Iterator[str]) -> Iterator[Read]:
    for line in chain((head,), lines):
        match = LINE.match(line)
        if match is None:
            continue
        ns = int(match["seconds"]) * 10**9 + int(match["rest"].ljust(9, "0"))
        track = f"{match['comm']}-{match['pid']}"
        name, text = match["name"], match["text"]
        if name == MARKER:
            parts = text.strip().split("|")
            if len(parts) == 4 and parts[0] == "C" and parts[3].lstrip("-").isdigit():
                yield Read(ns, track, parts[2], value=int(parts[3]))
            continue
        detail = ""
        if name == "kvm_exit" and (exit_ := EXIT_REASON.match(text)):
            detail = exit_[2] if exit_[1] == "TRAP" else exit_[1]
        elif name == "kvm_userspace_exit" and (reason := REASON.match(text)):
            detail = reason[1]
        yield Read(ns, track, name, detail)


def _json(lines: Iterator[str]) -> Iterator[Read]:
    tracks: dict[int, str] = {}
    for line in lines:
        text = line.strip().rstrip(",")
        if not text.startswith("{"):
            continue
        try:
            event = json.loads(text)
        except ValueError:
            break  # cut short
        tid = event.get("tid", 0)
        match event.get("ph"):
            case "M":
                if event.get("name") == "thread_name":
                    tracks[tid] = f"{event['args']['name']}-{tid}"
            case "B":
                yield Read(_ns(event), tracks.get(tid, str(tid)), event["cat"], event["name"])
            case "i":
                detail = ""
                if event["name"] == "kvm_userspace_exit":
                    detail = user_exit(event["args"]["reason"], event["args"]["errno"])
                yield Read(_ns(event), tracks.get(tid, str(tid)), event["name"], detail)
            case "C":
                value = event["args"]["level"]
                yield Read(_ns(event), tracks.get(tid, str(tid)), event["name"], value=value)


def _ns(event: dict[str, float]) -> int:
    return round(event["ts"] * 1000)

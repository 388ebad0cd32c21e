"""Summarise a trace that ``armkvm run --trace`` has recorded, of either form.

Events by name, exits by reason, and for each timer how often its output changed, how often user
space was told, and the longest time between the two.
"""

import argparse
import json
from typing import TYPE_CHECKING, Any

from armkvm.cli.main import UsageError

if TYPE_CHECKING:
    from armkvm.trace.summary import Summary


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm trace``."""
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Read and print."""
    from armkvm.trace.reader import TraceError, read
    from armkvm.trace.summary import summarise

    try:
        with open(args.file, encoding="utf-8", errors="replace") as file:
            summary = summarise(read(file))
    except OSError as error:
        raise UsageError(f"cannot read {args.file}: {error.strerror}") from None
    except TraceError as error:
        raise UsageError(f"{args.file} is not a trace: {error}") from None
    if args.json:
        print(json.dumps(_plain(summary)))
    else:
        _tables(summary)
    return 0


def _plain(summary: "Summary") -> dict[str, Any]:
    assert summary.first_ns is not None
    return {
        "ns": summary.last_ns - summary.first_ns,
        "events": dict(sorted(summary.events.items())),
        "exits": dict(summary.exits.most_common()),
        "returns": dict(summary.returns.most_common()),
        "guest_ns": summary.guest_ns,
        "timers": {
            name: {
                "edges": timer.level.edges,
                "reports": timer.reported.edges,
                "slowest_report_ns": timer.slowest_report,
                # With a vgic nothing is reported, and nothing has to be.
                "unknown_entries": timer.unknown_entries if timer.reported.edges else None,
                "longest_high_ns": timer.level.longest_high,
                "host_irq_masked": timer.masked.edges,
            }
            for name, timer in sorted(summary.timers.items())
        },
        "lines": {
            name: {"edges": wire.edges, "longest_high_ns": wire.longest_high}
            for name, wire in sorted(summary.lines.items())
        },
    }


def _tables(summary: "Summary") -> None:
    from rich.console import Console
    from rich.table import Table

    plain = _plain(summary)
    console = Console()
    for title, counts in (
        ("event", plain["events"]),
        ("exit", plain["exits"]),
        ("return of KVM_RUN", plain["returns"]),
    ):
        table = Table()
        table.add_column(title)
        table.add_column("count", justify="right")
        for name, count in counts.items():
            table.add_row(name, f"{count}")
        console.print(table)
    if plain["timers"]:
        table = Table()
        table.add_column("timer")
        for heading in (
            "edges", "reports", "slowest report", "entered unreported", "longest high",
            "host irq masked",
        ):  # fmt: skip
            table.add_column(heading, justify="right")
        for name, timer in plain["timers"].items():
            table.add_row(
                name,
                f"{timer['edges']}",
                f"{timer['reports']}",
                _time(timer["slowest_report_ns"]),
                "" if timer["unknown_entries"] is None else f"{timer['unknown_entries']}",
                _time(timer["longest_high_ns"]),
                f"{timer['host_irq_masked']}",
            )
        console.print(table)
    for name, wire in plain["lines"].items():
        print(f"{name}: {wire['edges']} edges, high for {_time(wire['longest_high_ns'])} at most")
    for track, ns in plain["guest_ns"].items():
        print(f"{track}: {_time(ns)} of {_time(plain['ns'])} in the guest")


def _time(ns: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            return f"{ns / size:.3f} {unit}"
    return f"{ns} ns"

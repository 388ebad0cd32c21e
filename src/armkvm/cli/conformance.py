"""Ask a KVM what the real one was asked, and print or compare the answers.

The log has the format of the ground truth, what Linux 6.12's KVM answered. With --against, a line
for each section and the lines that differ; the exit code is 1 if any does. What runs then is what
that log holds. Without --device the KVM is armkvm's own; with it, /dev/kvm of an arm64 host, and
--host only says what it is compared as. P4 runs only when it is asked for: it harms some kernels.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress

from armkvm.cli.main import FailedError, UsageError
from armkvm.conformance import run as run_cases
from armkvm.conformance.cases import CASES, ON_REQUEST
from armkvm.conformance.compare import HOSTS, Difference, compare, normalise, sections


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm conformance``."""
    parser.add_argument("--host", choices=HOSTS, default=HOSTS[0], help="the kind of host")
    parser.add_argument("--device", metavar="PATH", help="a real /dev/kvm instead of armkvm's")
    parser.add_argument("--against", metavar="FILE", help="compare with a log, the ground truth")
    parser.add_argument(
        "--only", metavar="CASE", action="append", choices=[*CASES, *ON_REQUEST],
        help="this case; repeatable",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the cases; print the log, or what differs."""
    if args.against is None:
        _run(args, _printer(), args.only or list(CASES))
        return 0
    truth = _read(args.against)
    held = {section.name for section in sections(truth)}
    log: list[str] = []
    _run(args, log.append, args.only or [name for name in CASES if name in held])
    result = compare(log, truth, args.host)
    if args.only:
        made = {line.removeprefix("== ") for line in log}
        result = [section for section in result if section.heading in made]
    return _report(result)


def _printer() -> Callable[[str], None]:
    def emit(line: str) -> None:
        # At once: what runs under it may take the machine down. In one piece: threads write.
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return emit


def _run(args: argparse.Namespace, emit: Callable[[str], None], names: list[str]) -> None:
    if args.device is not None:
        from armkvm.client.device import Device

        with Device(args.device) as device:
            device.identify()
            run_cases(device, emit, names)
        return
    # Imported here: on a real host only the client is needed, no engine.
    from armkvm.cli.progress import shown
    from armkvm.client.inprocess import InProcess
    from armkvm.host.cpu import EngineBackend

    with shown() as progress:
        backend = EngineBackend(progress)
    with InProcess(args.host, backend) as client:
        run_cases(client, emit, names)


def _read(path: str) -> list[str]:
    text = None
    with suppress(UnicodeDecodeError), open(path, encoding="utf-8") as file:
        text = file.read()
    truth = normalise(text or "")
    if not truth:
        raise UsageError(f"{path} holds no log of the conformance cases")
    return truth


def _report(result: list[Difference]) -> int:
    for section in result:
        lines = f"{section.lines} line{'' if section.lines == 1 else 's'}"
        excused = f", {section.excused} as free as they may be" if section.excused else ""
        known = "".join(f", known: {why}" for why in section.departures)
        print(f"{'same' if section.same else 'DIFF'}  {section.heading}  ({lines}{excused}{known})")
        for line in section.diff:
            print(f"        {line}")
    wrong = sum(not section.same for section in result)
    if wrong:
        raise FailedError(f"{wrong} of {len(result)} sections differ")
    print(f"all {len(result)} sections are the same")
    return 0

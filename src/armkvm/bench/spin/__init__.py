"""SPIN on ut.pml: the notification protocol once more, in Promela, checked by somebody else.

`Pan` is a verifier: SPIN writes C for a model, gcc compiles it, and the program looks at the full
state space, without partial-order reduction, for one claim at a time. The claim `states` always
holds; it is there to print `shared` of check/scenarios/protocol.py for each state that it meets.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from armkvm.bench import BenchError
from armkvm.host import clock

TOOLS = ("spin", "gcc")
LIMIT = 600.0  # seconds that one command may take
# Depth of the search and bits of the hash table, by vCPUs: what is not needed costs a tenth of a
# second to set up.
SIZES = {1: ("-m10000", "-w16"), 2: ("-m2000000", "-w22")}


@dataclass(frozen=True)
class Verdict:
    """What one claim came to; `violated` is "", "safe", "live" or the text of an assertion."""

    states: int
    transitions: int
    seconds: float
    violated: str
    shared: frozenset[int]


class Pan:
    """A verifier of the model with so many vCPUs and some macros defined, in its own folder."""

    def __init__(self, folder: Path, vcpus: int, *macros: str) -> None:
        self.vcpus = vcpus
        self.folder = folder / "-".join(("pan", str(vcpus), *macros))
        self.folder.mkdir()
        model = resources.files(__name__).joinpath("ut.pml").read_bytes()
        (self.folder / "ut.pml").write_bytes(model)
        began = clock.monotonic_ns()
        defines = [f"-D{name}" for name in (f"N={vcpus}", *macros)]
        self._command("spin", *defines, "-a", "ut.pml")
        self._command("gcc", "-O2", "-w", "-DNOREDUCE", "-o", "pan", "pan.c")
        self.seconds = (clock.monotonic_ns() - began) / 1e9

    def run(self, claim: str) -> Verdict:
        """Verify one claim: `states` past all violations, `live` under weak fairness."""
        more = {"states": ("-c0",), "live": ("-f",)}.get(claim, ())
        began = clock.monotonic_ns()
        output = self._command("./pan", "-a", *more, *SIZES[self.vcpus], "-N", claim)
        return verdict(output, (clock.monotonic_ns() - began) / 1e9)

    def _command(self, *command: str) -> str:
        try:
            done = subprocess.run(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=LIMIT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BenchError(f"{command[0]} was not done within {LIMIT:g} s") from None
        if done.returncode:
            said = (done.stderr + done.stdout).strip().splitlines()
            raise BenchError(f"{command[0]} ended with {done.returncode}: {(said or [''])[-1]}")
        return done.stdout


def missing() -> str:
    """Which of the tools are not installed: "spin is", "spin and gcc are", or nothing."""
    names = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}" if names else ""


def verdict(output: str, seconds: float) -> Verdict:
    """What a verifier printed."""
    states = re.search(r"(\d+) states, stored", output)
    transitions = re.search(r"(\d+) transitions \(=", output)
    if states is None or transitions is None or "max search depth too small" in output:
        raise BenchError("pan did not look at all states")
    return Verdict(
        int(states[1]),
        int(transitions[1]),
        seconds,
        _violated(output),
        frozenset(int(n, 16) for n in re.findall(r"^seen ([0-9a-f]+)$", output, re.MULTILINE)),
    )


def _violated(output: str) -> str:
    if "errors: 0" in output:
        return ""
    if "acceptance cycle" in output:
        return "live"
    assertion = re.search(r"assertion violated \((.*)\) \(at depth", output)
    # A claim's own violation is printed as an assertion that its automaton has not come to an end.
    return assertion[1] if assertion is not None else "safe"

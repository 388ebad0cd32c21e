"""Boot a guest.

lkvm's flags, with QEMU's common spellings beside them. What the options mean is decided here;
what a machine is, in vmm.machine.
"""

import argparse
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from armkvm.cli import foreign, outputs
from armkvm.cli.choice import DEFAULT_PARAMS, choose
from armkvm.cli.codes import OF_OUTCOME
from armkvm.cli.main import UsageError, complain, tell
from armkvm.cli.progress import shown
from armkvm.cli.sizes import natural, positive, seconds, size
from armkvm.process.signals import SIGNALS
from armkvm.vmm import snapshot, snapshot_file
from armkvm.vmm.board import RAM_BASE
from armkvm.vmm.console import StdioConsole
from armkvm.vmm.irqchip.irqchip import LIMITS

if TYPE_CHECKING:
    from armkvm.vmm.machine import Machine, Outcome

HOSTS = ("nvhe-gicv2", "vhe-gicv3")
HOST_OF_KERNEL_GIC = {
    "kernel-gicv2": "nvhe-gicv2",
    "kernel-gicv3": "vhe-gicv3",
    "kernel-gicv3-its": "vhe-gicv3",
}
TIMES = ("virtual", "paced", "realtime")
STOPPED = ("limit", "timeout", "quit")  # outcomes that are not the guest's own doing
DEFAULT_MEMORY = 512 << 20
DEFAULT_IRQCHIP = "gicv2"
# A snapshot decides these.
OF_THE_FILE = (
    "kernel", "initrd", "flat", "params", "cpus", "mem", "irqchip", "pmu", "host",
    "seed", "dump_dtb",
)  # fmt: skip
# A VM without KVM_VM_TYPE_ARM_IPA_SIZE has 40 bits of guest physical address.
MEMORY_MAX = (1 << 40) - RAM_BASE


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm run``."""
    add = parser.add_argument
    add("-k", "--kernel", "-kernel", metavar="FILE",
        help="an arm64 Image, packed or not, an EFI zboot file, ELF, or else a flat binary (for "
        "0x40080000); default: Debian's arm64 kernel and busybox, fetched once; where apt has no "
        "Debian source, a small built-in guest")  # fmt: skip
    add("--flat", action="store_true", help="the kernel is a flat binary, whatever it looks like")
    add("-i", "--initrd", "-initrd", metavar="FILE", help="initial ramdisk")
    add("-p", "--params", "-append", metavar="STR",
        help=f"kernel command line (default {DEFAULT_PARAMS!r}; "
        "the default guest gets both)")  # fmt: skip
    add("-c", "--cpus", "-smp", metavar="N", type=positive,
        help="vCPUs, as many as the interrupt controller has CPUs at most (default 1)")  # fmt: skip
    add("-m", "--mem", metavar="SIZE", type=size,
        help="memory: 512 (MiB), 256M, 2G (default 512)")  # fmt: skip
    add("--irqchip", choices=LIMITS,
        help="gicv2 (default): a GICv2 in user space; "
        "bcm2836: the Raspberry Pi's (the default guest is Debian's generic kernel then, which "
        "has the driver); kernel-gicv2, kernel-gicv3: KVM's own; kernel-gicv3-its: with an "
        "ITS")  # fmt: skip
    add("--pmu", action="store_true", help="give the vCPUs a performance monitor")
    add("--host", choices=HOSTS,
        help="the host that KVM runs on (default nvhe-gicv2; "
        "vhe-gicv3 for kernel-gicv3 and kernel-gicv3-its)")  # fmt: skip
    add("--time", choices=TIMES,
        help="virtual: counted from instructions (default); paced: the same, but idle time is "
        "slept (default on a terminal); realtime: the host's clock")  # fmt: skip
    add("--seed", metavar="N", type=natural,
        help="what the guest's random numbers begin with (default: 0 in virtual time); a saved "
        "guest keeps its own")  # fmt: skip
    add("--max-insns", metavar="N", type=positive, help="stop after N guest instructions")
    add("--timeout", metavar="SECONDS", type=seconds, help="stop after that much host time")
    add("--save", metavar="FILE",
        help="when the run is stopped from outside (--max-insns, --timeout, Ctrl-A x), "
        "save the machine there")  # fmt: skip
    add(
        "--restore",
        metavar="FILE",
        help="go on with a saved machine, as it was made: no options that make one",
    )
    add("--dump-dtb", metavar="FILE", help="also write the device tree there")
    add("--trace", metavar="FILE",
        help="record what KVM does: ftrace text, or for Perfetto's viewer if FILE ends in .json "
        "or .perfetto-trace")  # fmt: skip
    add("--stats", action="store_true", help="end with a line of JSON on standard error")
    add("-nographic", "--nographic", action="store_true", help=argparse.SUPPRESS)
    add("-no-reboot", "--no-reboot", action="store_true", help=argparse.SUPPRESS)
    foreign.refuse(parser)


def run(args: argparse.Namespace) -> int:
    """Boot, and say by the exit code how it ended."""
    with SIGNALS.watched():
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    _refuse(args)
    console = StdioConsole()
    saved = None if args.restore is None else _saved(args)
    image, params = (None, "") if saved else choose(args, interactive=console.is_terminal)

    # Imported here: a bad option or file should be answered at once.
    from armkvm.engine.cpu import Engine
    from armkvm.kvm.system import System
    from armkvm.vmm.machine import Config, Machine

    with shown() as progress:
        Engine.load(progress)  # the first time ever, this compiles

    time = args.time or ("paced" if console.is_terminal else "virtual")
    with console, System(_host(args), time, seed=args.seed) as system:
        config = Config(
            system=system,
            image=image,
            console=console,
            params=params,
            mem_bytes=args.mem,
            cpus=args.cpus,
            max_insns=args.max_insns,
            timeout=args.timeout,
            irqchip=args.irqchip,
            pmu=args.pmu,
            seed=_seed(args.seed, time),
        )
        machine = Machine(config)
        try:
            if saved is not None:
                snapshot.restore(machine, saved)
            if args.dump_dtb is not None:
                outputs.write(args.dump_dtb, machine.dtb())
            with _traced(machine, args.trace):
                outcome = machine.run()
            SIGNALS.deliver()  # a signal is no reason to save
            stats = machine.stats() if args.stats else None
            if args.save is not None and outcome.reason in STOPPED:
                _save(args.save, machine)
                complain(
                    f"saved in {args.save}: armkvm run --restore {args.save} goes on",
                    patient=_patient(outcome),
                )
        finally:
            machine.close()
    _report(outcome, args)
    if stats is not None:
        tell(json.dumps(stats), patient=_patient(outcome))
    return OF_OUTCOME[outcome.reason]


def _saved(args: argparse.Namespace) -> snapshot.Snapshot:
    """Read the machine that goes on; it brings its own options."""
    saved = snapshot_file.read(args.restore)
    args.host, args.irqchip = saved.host, saved.irqchip
    args.cpus, args.mem, args.pmu = saved.cpus, saved.mem_bytes, saved.pmu
    if args.host not in HOSTS or args.irqchip not in LIMITS:
        raise UsageError(f"{args.restore} is of a machine that this armkvm does not have")
    _refuse_machine(args)
    return saved


def _save(path: str, machine: "Machine") -> None:
    with outputs.writing(path):
        snapshot_file.write(path, snapshot.save(machine))


@contextmanager
def _traced(machine: "Machine", path: str | None) -> Iterator[None]:
    """Record the run."""
    if path is None:
        yield
        return
    from armkvm.kvm import Vm
    from armkvm.trace import record

    assert isinstance(machine.vm, Vm)  # there is no other: its trace points are our own
    with outputs.writing(path):
        recorder = record(machine.vm, path)
    try:
        yield
    finally:
        with outputs.writing(path):
            recorder.close()


def _seed(asked: int | None, time: str) -> int:
    """In virtual time a run is a function of its inputs; else each has its own random numbers."""
    if asked is not None:
        return asked
    return 0 if time == "virtual" else secrets.randbits(64)


def _host(args: argparse.Namespace) -> str:
    """The host's kind: as asked, or what the interrupt controller needs."""
    asked: str | None = args.host
    return asked or HOST_OF_KERNEL_GIC.get(args.irqchip, HOSTS[0])


def _refuse(args: argparse.Namespace) -> None:
    """Options that do not go together; what a new machine is by default."""
    if args.restore is not None:
        for option in OF_THE_FILE:
            given = getattr(args, option)
            if given is not None and given is not False:
                name = option.replace("_", "-")
                raise UsageError(f"--restore and --{name} exclude each other: the file says it all")
    args.cpus = args.cpus or 1
    args.mem = args.mem or DEFAULT_MEMORY
    args.irqchip = args.irqchip or DEFAULT_IRQCHIP
    _refuse_machine(args)
    if args.initrd is not None and args.kernel is None:
        raise UsageError("--initrd needs --kernel: the default guest brings its own")
    if args.flat and args.kernel is None:
        raise UsageError("--flat needs --kernel: the default guest is an Image")
    outputs.check(args.save, args.trace, args.dump_dtb)


def _refuse_machine(args: argparse.Namespace) -> None:
    """Machines that there are not."""
    wants = HOST_OF_KERNEL_GIC.get(args.irqchip)
    if wants is not None and args.host not in (None, wants):
        raise UsageError(f"--irqchip {args.irqchip} needs --host {wants}: KVM has the host's kind")
    most, why = LIMITS[args.irqchip]
    if args.cpus > most:
        raise UsageError(f"--cpus {args.cpus} is too many: {why}")
    if args.mem > MEMORY_MAX:
        raise UsageError(f"--mem is too large: at most {MEMORY_MAX >> 30}G")


def _patient(outcome: "Outcome") -> bool:
    """Whether to wait for a reader who may not be there: not when time is up."""
    return outcome.reason != "timeout"


def _report(outcome: "Outcome", args: argparse.Namespace) -> None:
    """Why the run ended, if not as the guest's owner wished."""
    why = outcome.message
    panic = f" after a kernel panic ({why})" if why else ""
    match outcome.reason:
        case "crash":
            complain(f"the guest cannot go on: {why}")
        case "asleep":
            complain(f"the guest sleeps for ever: {why}")
        case "reset":
            hint = ""
            if args.kernel is not None and args.initrd is None:
                hint = "; if it is Linux, give it a root file system: --initrd FILE"
            complain(f"the guest asked for a reset{panic}{hint}")
        case "limit":
            complain(f"stopped: --max-insns {args.max_insns} reached{panic}")
        case "timeout":
            complain(
                f"stopped: --timeout {args.timeout:g} reached{panic}", patient=_patient(outcome)
            )

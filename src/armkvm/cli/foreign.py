"""Options of QEMU that `armkvm run` does not have: each is answered with what there is instead.

People who know QEMU type these first, and argparse would read -cpu as -c with the value "pu".
"""

import argparse
from collections.abc import Sequence
from typing import Any

NO_DISKS = "there are no disks: what the guest needs is in its initrd (--initrd)"
NO_NETWORK = "there is no network"
NO_DEBUGGER = "there is no gdb server; KVM_SET_GUEST_DEBUG is in the library"
OWN_CONSOLE = "the serial line is this process's standard input and output"
OWN_MACHINE = "there is one machine; --irqchip chooses its interrupt controller"

INSTEAD = {
    "-cpu": "the CPU is that of the host's kind (--host); armkvm caps shows its features",
    "-M": OWN_MACHINE, "-machine": OWN_MACHINE,
    "-drive": NO_DISKS, "-hda": NO_DISKS, "-sd": NO_DISKS, "-cdrom": NO_DISKS,
    "-blockdev": NO_DISKS, "-virtfs": NO_DISKS, "-fsdev": NO_DISKS, "-snapshot": NO_DISKS,
    "-net": NO_NETWORK, "-netdev": NO_NETWORK, "-nic": NO_NETWORK,
    "-s": NO_DEBUGGER, "-S": NO_DEBUGGER, "-gdb": NO_DEBUGGER,
    "-serial": OWN_CONSOLE, "-chardev": OWN_CONSOLE, "-display": OWN_CONSOLE, "-vga": OWN_CONSOLE,
    "-monitor": "there is no monitor; Ctrl-A h shows the keys",
    "-qmp": "there is no monitor; Ctrl-A h shows the keys",
    "-device": "the devices are those of the machine: a PL011, a PL031, the interrupt controller",
    "-accel": "there is one engine", "-enable-kvm": "armkvm is its own KVM",
    "-dtb": "the device tree is made for the machine; --dump-dtb writes it",
    "-bios": "there is no firmware: the kernel is started as its boot protocol says",
    "-icount": "--time virtual, the default without a terminal, counts instructions",
    "-loadvm": "--restore FILE goes on with a saved machine",
    "-rtc": "--time chooses the clock", "-d": "--trace FILE records what KVM does",
    "-daemonize": "your shell does that: armkvm run ... &",
}  # fmt: skip


class _Refuse(argparse.Action):
    """The option's own line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        assert option_string is not None
        parser.error(f"armkvm run has no {option_string}: {INSTEAD[option_string]}")


def refuse(parser: argparse.ArgumentParser) -> None:
    """Add them, hidden from the help."""
    parser.add_argument(*INSTEAD, action=_Refuse, nargs="?", dest="foreign", help=argparse.SUPPRESS)

"""Which guest ``armkvm run`` boots: the files that were given, Debian's, or the built-in one."""

import argparse

from armkvm.cli.main import complain
from armkvm.cli.progress import shown
from armkvm.vmm.errors import FetchError, NoDebianError
from armkvm.vmm.guest import debian, loader
from armkvm.vmm.guest.initramfs import default_initramfs

# panic=-1: a panic ends the run, with a reset, instead of hanging for ever.
DEFAULT_PARAMS = "console=ttyAMA0 panic=-1"
# Debian's cloud kernel, which is small, has no driver for the Raspberry Pi's controllers.
FLAVOURS: dict[str, debian.Flavour] = {"bcm2836": "generic"}
BARE_IRQCHIPS = ("gicv2", "kernel-gicv2")  # what the built-in guest can drive
# What a machine can do that has no Debian in its apt.
DEBIAN = (
    "run this in a Debian container, or add a Debian source to apt "
    '(README.md, "Linux on other machines")'
)
LINUX = f"for Linux give --kernel Image --initrd FILE, or {DEBIAN}"


def choose(args: argparse.Namespace, *, interactive: bool) -> tuple[loader.Image, str]:
    """The guest and its command line. Raises GuestError."""
    if args.kernel is not None:
        return _files(args), DEFAULT_PARAMS if args.params is None else args.params
    try:
        found = _debian(FLAVOURS.get(args.irqchip, "cloud"))
    except NoDebianError as error:
        return _bare(args, str(error))
    kernel = loader.read(found.kernel, "kernel", args.mem)
    initrd = default_initramfs(loader.read(found.busybox, "busybox", args.mem))
    words = [DEFAULT_PARAMS, f"armkvm.mode={'shell' if interactive else 'batch'}"]
    if args.params:
        words.append(args.params)
    return loader.load(kernel, initrd, mem_bytes=args.mem), " ".join(words)


def _files(args: argparse.Namespace) -> loader.Image:
    kernel = loader.read(args.kernel, "kernel", args.mem)
    initrd = loader.read(args.initrd, "initrd", args.mem) if args.initrd is not None else None
    return loader.load(kernel, initrd, mem_bytes=args.mem, flat=args.flat)


def _debian(flavour: debian.Flavour) -> debian.Guest:
    found = debian.cached(None, flavour)
    if found is None:
        with shown() as progress:
            found = debian.fetch(None, flavour, progress=progress)
    return found


def _bare(args: argparse.Namespace, why: str) -> tuple[loader.Image, str]:
    from armkvm.vmm.guest import bare

    if args.irqchip not in BARE_IRQCHIPS:
        raise FetchError(f"{why}, and the built-in guest has no driver for {args.irqchip}: {LINUX}")
    complain(f"{why}, so this is the built-in bare-metal guest; {LINUX}")
    return loader.load(bare.program(), mem_bytes=args.mem, flat=True), args.params or ""

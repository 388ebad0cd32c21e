"""Which guest ``armkvm run`` boots: the files that were given, Debian's, or the built-in one."""

import argparse

from armkvm.cli.main import complain
from armkvm.cli.progress import shown
from armkvm.vmm.guest import apt, debian, loader
from armkvm.vmm.guest.initramfs import default_initramfs

# panic=-1: a panic ends the run, with a reset, instead of hanging for ever.
DEFAULT_PARAMS = "console=ttyAMA0 panic=-1"


def choose(args: argparse.Namespace, *, interactive: bool) -> tuple[loader.Image, str]:
    """The guest and its command line. Raises GuestError."""
    if args.kernel is not None:
        return _files(args), DEFAULT_PARAMS if args.params is None else args.params
    found = debian.cached()
    if found is None:
        if not apt.available():
            return _bare(args)
        with shown() as progress:
            found = debian.fetch(progress=progress)
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


def _bare(args: argparse.Namespace) -> tuple[loader.Image, str]:
    from armkvm.vmm.guest import bare

    complain(
        "no apt here to fetch a Linux with, so this is the built-in bare-metal guest; "
        "give your own: armkvm run --kernel Image --initrd FILE"
    )
    return loader.load(bare.program(), mem_bytes=args.mem, flat=True), args.params or ""

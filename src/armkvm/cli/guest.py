"""Fetch the default guest: Debian's arm64 kernel and busybox-static, through this machine's apt.

Prints where they are, and where an initramfs made from that busybox is, so that they can be given
to ``armkvm run --kernel ... --initrd ...`` or to another VMM.
"""

import argparse
from typing import get_args

from armkvm.cli import outputs
from armkvm.cli.choice import DEBIAN
from armkvm.cli.progress import shown
from armkvm.vmm.errors import FetchError, NoDebianError
from armkvm.vmm.guest import debian
from armkvm.vmm.guest.initramfs import default_initramfs
from armkvm.vmm.guest.loader import read


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``armkvm guest``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="fetch")
    fetch = actions.add_parser("fetch", help="fetch a guest into the cache", allow_abbrev=False)
    fetch.add_argument(
        "--suite", help="Debian suite: trixie, sid, trixie-backports (default: this machine's)"
    )
    flavours = get_args(debian.Flavour)
    fetch.add_argument("--flavour", choices=flavours, default="cloud", help="kernel (cloud)")
    fetch.add_argument("--again", action="store_true", help="fetch even if it is in the cache")


def run(args: argparse.Namespace) -> int:
    """Fetch and print the files' paths."""
    try:
        with shown() as progress:
            found = debian.fetch(args.suite, args.flavour, again=args.again, progress=progress)
    except NoDebianError as error:
        raise FetchError(f"{error}: {DEBIAN}") from None
    for name, version in found.packages.items():
        print(f"{name} {version}")
    initrd = found.folder / "initramfs.cpio"
    # Always made anew: this version's /init may differ from the one that made it last.
    outputs.write(initrd, default_initramfs(read(found.busybox, "busybox")))
    print(f"kernel {found.kernel}")
    print(f"initrd {initrd}")
    return 0

"""Ask the real KVM: the conformance client on Linux 6.12's /dev/kvm, at EL2 inside QEMU.

``make conformance-real`` runs it. Debian's arm64 kernel and Python are fetched through this
machine's apt and kept in the user's cache; an initramfs of them and of the client's sources boots
as the nVHE host with a GICv2 and as the VHE host with a GICv3 of the ground truth, and each log is
compared with that truth. The kernel is the point release's, as the truth's is: 6.12.117 from the
security suite refuses KVM_GET_VCPU_EVENTS before KVM_ARM_VCPU_INIT (ENOEXEC), which 6.12.107
answers.

The host's tick may end a KVM_RUN at any guest instruction, which seldom but sometimes shows where
the truth's run was not hit (T8, T9, T13). So what differs gets another run, up to three; a section
must have been the same in one of them. After the cases of the truth comes P4, which this kernel
answers with an oops on one of the hosts: what it says then is compared with SAID. Needs
qemu-system-aarch64 and, the first time, the network. Not part of ``make test``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from armkvm.conformance.cases import CASES
from armkvm.conformance.compare import Difference, compare, normalise
from armkvm.vmm.guest.apt import Apt, unpack
from armkvm.vmm.guest.debian import BUSYBOX, KERNEL_PATTERN, cache_folder, kernel_package
from armkvm.vmm.guest.initramfs import Cpio

ROOT = Path(__file__).resolve().parent.parent
SUITE = "trixie"  # Linux 6.12, Python 3.13
# By kind of host: the machine that it is on, and what the real KVM said there.
HOSTS = {
    "nvhe-gicv2": ("gic-version=2", "cortex-a57", "612-gic2-a57.txt"),
    "vhe-gicv3": ("gic-version=3", "cortex-a76", "612-gic3-a76.txt"),
}
# What the kernel's log holds after P4 (docs/late-vgic.md). After the other cases it holds nothing.
SAID = {
    "nvhe-gicv2": [],
    "vhe-gicv3": [
        "WARNING in kvm_timer_update_irq",
        "WARNING in kvm_timer_update_irq",
        "Internal error in kvm_vgic_reset_mapped_irq",
    ],
}
# What Python needs to import the client; {} is python3.<minor>.
PYTHON = ("libc6", "libffi8", "libexpat1", "zlib1g", "{}-minimal", "lib{}-minimal", "lib{}-stdlib")
# What of the packages goes into the initramfs. Debian's /lib is a link to usr/lib.
WANTED = re.compile(r"usr/bin/(python3\.\d+|busybox)|(usr/)?lib/.*")
UNWANTED = re.compile(r".*/(gconv|ensurepip|idlelib|pydoc_data|test|__pycache__|modules)/.*")
RUNS = 3
INIT = """\
#!/usr/bin/busybox sh
/usr/bin/busybox mount -t proc proc /proc
/usr/bin/busybox mount -t sysfs sysfs /sys
/usr/bin/busybox mount -t devtmpfs devtmpfs /dev
export PYTHONPATH=/armkvm PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
said() { echo "BEGIN $1"; /usr/bin/busybox dmesg -c; echo "END $1"; }
/usr/bin/busybox dmesg -c > /dev/null
@PYTHON@ -m armkvm conformance --device /dev/kvm @ONLY@
echo "exit code $?"
said cases
@PYTHON@ -m armkvm conformance --device /dev/kvm --only P4
said P4
/usr/bin/busybox poweroff -f
"""


def main() -> int:
    """Run on each kind of host and report; 0 if all is the same."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", choices=HOSTS, action="append", help="only this kind")
    parser.add_argument("--only", choices=CASES, action="append", help="only this case, and P4")
    parser.add_argument("--kernel", type=Path, metavar="IMAGE", help="another kernel's Image")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the logs here")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS")
    args = parser.parse_args()
    kernel, *others = packages()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        image, initrd = Path(folder, "Image"), Path(folder, "initrd")
        unpack(kernel, KERNEL_PATTERN, image)
        initrd.write_bytes(initramfs(others, args.only or []))
        for host in args.host or HOSTS:
            wrong += check(host, args.kernel or image, initrd, args)
    return 1 if wrong else 0


def check(host: str, kernel: Path, initrd: Path, args: argparse.Namespace) -> int:
    """Up to RUNS runs on one kind of host; how many sections were never the same.

    The kernel's log after the cases and after P4 is one of them each.
    """
    truth = normalise((ROOT / "tests" / "data" / "ground-truth" / HOSTS[host][2]).read_text())
    best: dict[str, Difference] = {}
    for number in range(1, RUNS + 1):
        console = boot(host, kernel, initrd, args.timeout)
        log = normalise(console)
        if args.logs is not None:
            args.logs.mkdir(parents=True, exist_ok=True)
            (args.logs / f"{host}-{number}.txt").write_text("\n".join(log) + "\n")
            (args.logs / f"{host}-{number}-console.txt").write_text(console)
        for section in [*compare(log, truth, host), *kernel_log(console, host)]:
            if args.only and section.diff == ["- the section"]:
                continue
            if section.heading not in best or section.same:
                best[section.heading] = section
        wrong = [section for section in best.values() if not section.same]
        agreed = len(best) - len(wrong)
        print(f"{host}, run {number}: {agreed} of {len(best)} sections were the same by now")
        for section in wrong:
            print(f"  DIFF  {section.heading}", *section.diff, sep="\n        ")
        if not wrong:
            break
    return len(wrong)


def kernel_log(console: str, host: str) -> Iterator[Difference]:
    """What the kernel said by itself, against what it should have."""
    for part, wanted in (("cases", []), ("P4", SAID[host])):
        said = re.search(rf"^BEGIN {part}$(.*?)^END {part}$", console, re.DOTALL | re.MULTILINE)
        text = "" if said is None else said[1]
        found = [
            f"{what} in {function}"
            for what, function in re.findall(
                r"(WARNING|Internal error): .*?pc : (\w+)", text, re.DOTALL
            )
        ]
        diff = [] if found == wanted else [*(f"- {w}" for w in wanted), *(f"+ {f}" for f in found)]
        if said is None:
            diff = ["+ nothing: it did not come that far"]
        yield Difference(f"the kernel's log after {part}", len(found), diff, 0)


def packages() -> list[Path]:
    """The kernel's .deb and those of busybox and Python, from the cache or fetched into it."""
    folder = cache_folder() / f"{SUITE}-conformance"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            apt = Apt(Path(temporary, "apt"), SUITE)
            sources = Path(temporary, "apt", "sources.list")
            lines = sources.read_text().splitlines(keepends=True)
            sources.write_text("".join(line for line in lines if f" {SUITE} " in line))
            apt.update()
            python = apt.depends("python3")[0]
            names = [kernel_package(apt, "cloud"), BUSYBOX]
            names += [name.format(python) for name in PYTHON]
            debs = apt.download(names, lambda done, total: None)
            # All of them or none: a folder that is there is whole.
            debs[0].parent.rename(folder)
    found = sorted(folder.glob("*.deb"))
    return sorted(found, key=lambda deb: not deb.name.startswith("linux-image-"))


def initramfs(debs: list[Path], only: list[str]) -> bytes:
    """A root with busybox, Python and the client, which runs the cases named, or all."""
    root = Cpio()
    for path in ("dev", "proc", "sys", "tmp", "usr/bin", "usr/lib"):
        root.directory(path)
    root.symlink("lib", "usr/lib")
    root.character_device("dev/console", 5, 1)
    python = ""
    for deb in debs:
        for member, data in contents(deb):
            name = member.name.removeprefix("./")
            if name.startswith("lib/"):
                name = f"usr/{name}"
            if member.issym():
                root.symlink(name, member.linkname)
            else:
                root.file(name, data, member.mode)
            if name.startswith("usr/bin/python3."):
                python = name
    if not python:
        raise SystemExit(f"there is no Python in {', '.join(deb.name for deb in debs)}")
    source = ROOT / "src" / "armkvm"
    # All of armkvm; what the client imports of it needs nothing but Python.
    for file in sorted(source.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            root.file(f"armkvm/armkvm/{file.relative_to(source)}", file.read_bytes())
    # A log begins with the first case of all.
    wanted = " ".join(f"--only {name}" for name in (["caps", *only] if only else []))
    init = INIT.replace("@PYTHON@", f"/{python}").replace("@ONLY@", wanted)
    root.file("init", init.encode(), 0o755)
    return root.blob()


def contents(deb: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The files and links of a package that are wanted."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if not WANTED.fullmatch(name) or UNWANTED.fullmatch(name):
                    continue
                if member.issym():
                    yield member, b""
                elif member.isfile():
                    file = archive.extractfile(member)
                    assert file is not None
                    yield member, file.read()


def boot(host: str, kernel: Path, initrd: Path, timeout: float) -> str:
    """The console of one run."""
    gic, cpu, _ = HOSTS[host]
    command: list[str | Path] = [
        "qemu-system-aarch64", "-M", f"virt,virtualization=on,{gic}", "-cpu", cpu, "-m", "1024",
        "-nographic", "-nic", "none", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
        "-append", "console=ttyAMA0 panic=-1 loglevel=4",
    ]  # fmt: skip
    run = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=timeout, check=False
    )
    console = run.stdout.decode(errors="replace").replace("\r", "")
    if not normalise(console):
        print(console[-4000:], file=sys.stderr)
        raise SystemExit(f"{host}: the client printed no log")
    return console


if __name__ == "__main__":
    sys.exit(main())

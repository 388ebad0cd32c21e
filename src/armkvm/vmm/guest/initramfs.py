"""An initramfs made from nothing: a cpio archive writer and the default guest's tree.

Mirrors Documentation/driver-api/early-userspace/buffer-format.rst (the "newc" format that the
kernel unpacks). The same input gives the same bytes: inode numbers count up, times are zero and
everything belongs to root. Left out: compression (the archive never leaves this machine), hard
links, checksums.
"""

import stat
from dataclasses import dataclass, field

# /init of the default guest. Only busybox is there when it starts, and its applets have no names
# yet: /proc must be mounted first, because `--install` asks /proc/self/exe where busybox is.
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
hostname armkvm
export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root TERM=linux
mode=batch
for word in $(cat /proc/cmdline); do
  case $word in armkvm.mode=*) mode=${word#*=} ;; esac
done
echo "BOOT-OK Linux $(uname -r) $(uname -m)"
if [ "$mode" = shell ]; then
  echo "A busybox shell. 'exit' powers off, Ctrl-A x leaves at once."
  cd /root
  # A session of its own on the real console, so that job control and Ctrl-C work.
  setsid cttyhack sh -l
else
  . /batch
fi
poweroff -f
"""

# What the default guest does without a terminal.
BATCH = """\
cat /proc/interrupts
sleep 1
cat /proc/interrupts
"""

PROFILE = """\
PS1='armkvm:\\w# '
"""

DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin")


@dataclass
class Cpio:
    """An archive under construction. Missing parent directories are added with mode 755."""

    _out: bytearray = field(default_factory=bytearray)
    _names: set[str] = field(default_factory=set)

    def directory(self, path: str, mode: int = 0o755) -> None:
        self._add(path, stat.S_IFDIR | mode)

    def file(self, path: str, data: bytes | bytearray, mode: int = 0o644) -> None:
        self._add(path, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._add(path, stat.S_IFCHR | mode, device=(major, minor))

    def blob(self) -> bytes:
        """The archive with its trailer, padded to the 512 bytes that cpio itself writes."""
        end = bytearray(self._out)
        end += _entry(0, "TRAILER!!!", 0, b"", (0, 0))
        return bytes(end.ljust((len(end) + 511) & ~511, b"\0"))

    def _add(
        self,
        path: str,
        mode: int,
        data: bytes | bytearray = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"bad path in an initramfs: {path!r}")
        if path in self._names:
            raise ValueError(f"{path} is already in the initramfs")
        parent = "/".join(parts[:-1])
        if parent and parent not in self._names:
            self.directory(parent)
        self._names.add(path)
        self._out += _entry(len(self._names), path, mode, data, device)


def _entry(
    inode: int, path: str, mode: int, data: bytes | bytearray, device: tuple[int, int]
) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # magic, then ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor
    # namesize check, eight hexadecimal digits each.
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(name), 0)
    out = b"070701" + b"".join(b"%08X" % value for value in fields) + name
    out += bytes(-len(out) % 4)
    return out + data + bytes(-len(data) % 4)


def default_initramfs(busybox: bytes | bytearray, batch: str = BATCH) -> bytes:
    """The default guest's root: busybox and an /init that serves both of its modes.

    The kernel parameter ``armkvm.mode=shell`` gives a shell; without it, or with ``batch``, the
    guest prints BOOT-OK, runs the shell lines of ``batch`` and powers off.
    """
    root = Cpio()
    for path in DIRECTORIES:
        root.directory(path)
    root.directory("usr/sbin")
    # The kernel opens /dev/console for init before anything is mounted.
    root.character_device("dev/console", 5, 1)
    root.character_device("dev/null", 1, 3, 0o666)
    root.file("bin/busybox", busybox, 0o755)
    root.file("etc/profile", PROFILE.encode())
    root.file("batch", batch.encode())
    root.file("init", INIT.encode(), 0o755)
    return root.blob()

"""The initramfs: the newc format read back by a reader of our own, and by cpio's rules."""

import stat
from dataclasses import dataclass

import pytest

from armkvm.vmm.guest.initramfs import Cpio, default_initramfs


@dataclass
class Entry:
    inode: int
    mode: int
    links: int
    data: bytes
    device: tuple[int, int]


def read(blob: bytes) -> dict[str, Entry]:
    """A newc reader written from the format's description, not from the writer."""
    entries: dict[str, Entry] = {}
    at = 0
    while True:
        assert blob[at : at + 6] == b"070701"
        head = [int(blob[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = blob[at + 110 : at + 110 + head[11]]
        assert name[-1:] == b"\0"
        at = (at + 110 + head[11] + 3) & ~3
        data = blob[at : at + head[6]]
        at = (at + head[6] + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert not any(blob[at:])
            return entries
        assert head[2:4] == [0, 0]  # root's
        assert head[5] == 0  # no time
        entries[name[:-1].decode()] = Entry(head[0], head[1], head[4], data, (head[9], head[10]))


def test_every_kind_of_entry() -> None:
    cpio = Cpio()
    cpio.directory("d")
    cpio.file("d/f", b"hello", 0o640)
    cpio.symlink("d/l", "f")
    cpio.character_device("d/c", 5, 1)
    entries = read(cpio.blob())
    assert list(entries) == ["d", "d/f", "d/l", "d/c"]
    assert entries["d"].mode == stat.S_IFDIR | 0o755
    assert entries["d/f"].mode == stat.S_IFREG | 0o640
    assert entries["d/f"].data == b"hello"
    assert stat.S_ISLNK(entries["d/l"].mode)
    assert entries["d/l"].data == b"f"
    assert entries["d/c"].mode == stat.S_IFCHR | 0o600
    assert entries["d/c"].device == (5, 1)


def test_inodes_are_distinct() -> None:
    # Equal inode numbers with more than one link would make the kernel join the files.
    entries = read(default_initramfs(b"x"))
    assert len({entry.inode for entry in entries.values()}) == len(entries)
    assert all(e.links == 1 for e in entries.values() if not stat.S_ISDIR(e.mode))


def test_parents_come_before_their_children() -> None:
    cpio = Cpio()
    cpio.file("a/b/c", b"")
    assert list(read(cpio.blob())) == ["a", "a/b", "a/b/c"]


@pytest.mark.parametrize("path", ["", "/etc", "a//b", "a/../b", "./a", "a/"])
def test_bad_paths(path: str) -> None:
    with pytest.raises(ValueError, match="bad path"):
        Cpio().directory(path)


def test_a_path_twice() -> None:
    cpio = Cpio()
    cpio.directory("a")
    with pytest.raises(ValueError, match="already"):
        cpio.file("a", b"")


def test_default_guest() -> None:
    blob = default_initramfs(b"\x7fELF busybox", batch="echo hello\n")
    entries = read(blob)
    assert entries["bin/busybox"].data == b"\x7fELF busybox"
    assert entries["init"].mode == stat.S_IFREG | 0o755
    assert entries["batch"].data == b"echo hello\n"
    assert entries["dev/console"].device == (5, 1)
    init = entries["init"].data.decode()
    assert init.startswith("#!/bin/busybox sh\n")
    assert "BOOT-OK" in init
    assert "armkvm.mode=" in init
    for mount_point in ("proc", "sys", "dev"):
        assert stat.S_ISDIR(entries[mount_point].mode)


def test_same_input_same_bytes() -> None:
    assert default_initramfs(b"b") == default_initramfs(b"b")
    assert len(default_initramfs(b"b")) % 512 == 0

"""The client of a real /dev/kvm, as far as it can be seen without one: files, signals, threads."""

import ctypes
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from armkvm.client.device import Device
from armkvm.client.protocol import address


def test_ioctl_passes_structures_by_address() -> None:
    class Count(ctypes.Structure):
        _fields_ = [("value", ctypes.c_int)]

    read, write = os.pipe()
    with Device() as device:
        os.write(write, b"four")
        count = Count()
        assert device.ioctl(read, termios.FIONREAD, count) == 0
        assert count.value == 4
        device.close(read)
        device.close(write)
        with pytest.raises(OSError, match="Bad file descriptor"):
            device.ioctl(read, termios.FIONREAD, count)


def test_pages_of_a_file_are_shared_and_memory_is_private(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(8192))
    with Device(str(path)) as device:
        fd = device.open()
        pages = device.shared_pages(fd, 8192)
        pages[:4] = b"seen"
        memory = device.memory(0x10000)
        assert address(memory) % 4096 == 0
        assert bytes(memory) == bytes(0x10000)
        device.close(fd)
    assert path.read_bytes()[:4] == b"seen"


def test_an_alarm_rings_and_its_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGALRM)
    read, write = os.pipe()
    with Device() as device:
        with device.alarm(read, 20) as bell:
            for _ in range(1000):
                if bell.rang:
                    break
                time.sleep(0.01)
        assert bell.rang
        with device.alarm(read, 60_000) as bell:
            pass
        assert not bell.rang
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before
    os.close(read)
    os.close(write)


def test_a_later_thread_takes_no_signals() -> None:
    seen: list[tuple[int, bool]] = []

    def action() -> None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        seen.append((threading.get_ident(), signal.SIGALRM in blocked))

    with Device() as device:
        thread = device.after(1, action)
        thread.join()
    assert [blocked for _, blocked in seen] == [True]
    assert seen[0][0] != threading.get_ident()


def test_eventfds_begin_at_zero() -> None:
    with Device() as device:
        fd = device.eventfd()
        os.eventfd_write(fd, 3)
        assert os.eventfd_read(fd) == 3
        device.close(fd)


def test_the_client_needs_python_alone() -> None:
    # A real host has Debian's Python, and need not be one that our engine runs on.
    program = (
        "import sys, armkvm.cli.conformance, armkvm.client.device;"
        "print([m for m in sys.modules if m.startswith(('armkvm.kvm', 'armkvm.host', 'armkvm.isa'))"
        " or m.split('.')[0] in ('llvmlite', 'rich', 'numpy', 'elftools')"
        " or m == 'armkvm.engine.cpu'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")

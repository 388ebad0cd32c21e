"""`armkvm serve`: a /dev/kvm at an address, until a signal comes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.clients import armkvm
from tests.server.peer import Peer

from armkvm.abi import ioctl as nr


def serving(address: str) -> subprocess.Popen[str]:
    """A server that has said that it is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "armkvm", "serve", address, "--host", "nvhe-gicv2"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline() == f"armkvm: serving, ARMKVM_SERVER={address}\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_takes_the_socket_away(
    tmp_path: Path, number: int, code: int
) -> None:
    path = tmp_path / "kvm"
    with serving(str(path)) as process:
        assert path.stat().st_mode & 0o777 == 0o600
        with Peer(str(path)) as peer:
            assert peer.ioctl(peer.open(), nr.KVM_GET_API_VERSION) == 12
        process.send_signal(number)
        assert process.wait() == code
    assert not path.exists()


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "kvm"
    path.write_text("mine")
    done = armkvm("serve", path)
    assert (done.returncode, done.stderr) == (
        6, f"armkvm: cannot listen at {path}: Address already in use\n"
    )  # fmt: skip
    assert path.read_text() == "mine"

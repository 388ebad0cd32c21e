"""Writes to a coalesced zone go to the ring in the second page."""

from __future__ import annotations

import errno
import mmap

import pytest
from tests.engine import a64
from tests.kvm.native import IO, Native, out
from tests.kvm.rig import fails

from armkvm.abi.caps import Cap
from armkvm.abi.structs import KvmCoalescedMmio, KvmCoalescedMmioRing
from armkvm.kvm.io import coalesced_mmio
from armkvm.kvm.io.coalesced_mmio import KVM_COALESCED_MMIO_MAX


def ring(m: Native) -> tuple[KvmCoalescedMmioRing, list[KvmCoalescedMmio]]:
    head = KvmCoalescedMmioRing.from_buffer(m.vcpu.pages, mmap.PAGESIZE)
    kind = KvmCoalescedMmio * KVM_COALESCED_MMIO_MAX
    return head, list(kind.from_buffer(m.vcpu.pages, mmap.PAGESIZE + 8))


def test_the_ring_has_room_for_what_the_kernel_says() -> None:
    said = {4096: 170, 16384: 682, 65536: 2730}
    assert said[mmap.PAGESIZE] == KVM_COALESCED_MMIO_MAX


def test_writes_are_queued_in_order() -> None:
    program = [a64.movz(1, 5), out(1, 0x100), out(31, 0x108), out(1, 0x200)]
    with Native(*program) as m:
        m.vm.register_coalesced_mmio(IO + 0x100, 0x100)
        assert m.stored() == (0x200, 5)
        head, entries = ring(m)
        assert (head.first, head.last) == (0, 2)
        seen = [(e.phys_addr - IO, e.len, e.pio, bytes(e.data)) for e in entries[:2]]
        assert seen == [(0x100, 8, 0, b"\5" + bytes(7)), (0x108, 8, 0, bytes(8))]


def test_a_full_ring_is_an_exit() -> None:
    with Native(out(31, 0x100), a64.b(-1)) as m:
        m.vm.register_coalesced_mmio(IO, 0x1000)
        assert m.stored() == (0x100, 0)
        head, _ = ring(m)
        assert (head.first, head.last) == (0, KVM_COALESCED_MMIO_MAX - 1)
        head.first = 3
        m.stored()
        assert head.last == 2
        head.last = 1 << 31  # user space may write anything
        assert m.stored() == (0x100, 0)


def test_zones_come_and_go() -> None:
    with Native(out(31, 0x100), out(31, 0x200)) as m:
        m.vm.register_coalesced_mmio(IO + 0x100, 8)
        fails(errno.EINVAL, lambda: m.vm.register_coalesced_mmio(IO, 8, 2))
        fails(errno.EINVAL, lambda: m.vm.unregister_coalesced_mmio(IO, 8, 2))
        m.vm.unregister_coalesced_mmio(IO + 0x100, 16)  # not inside: nothing
        assert m.stored()[0] == 0x200
        m.vm.unregister_coalesced_mmio(IO + 0x100, 8)
        assert not m.vm.mmio_bus.ranges


def test_every_vcpu_shows_the_same_ring() -> None:
    with Native(a64.NOP) as m:
        other = m.vm.create_vcpu(1)
        head, _ = ring(m)
        head.last = 77
        assert KvmCoalescedMmioRing.from_buffer(other.pages, mmap.PAGESIZE).last == 77
        assert other.run_struct.exit_reason == 0
        m.struct.exit_reason = 5
        assert other.run_struct.exit_reason == 0
        other.close()


@pytest.mark.parametrize("page", [16 << 10, 64 << 10])
def test_the_ring_is_in_the_second_page_of_the_host_however_large(
    monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """Pages that this machine can map in smaller ones too."""
    monkeypatch.setattr(coalesced_mmio, "HOST_PAGE_SIZE", page)
    monkeypatch.setattr(coalesced_mmio, "KVM_VCPU_MMAP_SIZE", 2 * page)
    program = [a64.movz(1, 5), out(1, 0x100), out(1, 0x200)]
    with Native(*program) as m:
        m.vm.register_coalesced_mmio(IO + 0x100, 0x100)
        other = m.vm.create_vcpu(1)
        assert m.stored() == (0x200, 5)
        for vcpu in (m.vcpu, other):
            assert len(vcpu.pages) == 2 * page
            head = KvmCoalescedMmioRing.from_buffer(vcpu.pages, page)
            assert (head.first, head.last) == (0, 1)
            assert KvmCoalescedMmio.from_buffer(vcpu.pages, page + 8).phys_addr == IO + 0x100
        other.close()


def test_a_zone_of_ports_is_taken_and_never_written() -> None:
    """KVM_CAP_COALESCED_PIO, which 6.12 has on arm64 too, where there are no ports."""
    with Native(out(31, 0x100), out(31, 0x200)) as m:
        assert m.system.check_extension(Cap.COALESCED_PIO) == 1
        fails(errno.EINVAL, lambda: m.vm.register_coalesced_mmio(IO + 0x100, 8, pio=2))
        m.vm.register_coalesced_mmio(IO + 0x100, 8, pio=1)
        assert m.stored()[0] == 0x100
        m.vm.unregister_coalesced_mmio(IO + 0x100, 8, pio=1)
        assert ring(m)[0].last == 0

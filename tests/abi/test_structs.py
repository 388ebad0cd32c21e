"""Sizes and offsets of the ABI's structures, as the kernel's headers give them for arm64."""

import ctypes

import pytest

from armkvm.abi import structs as s


@pytest.mark.parametrize(
    ("cls", "size"),
    [
        (s.KvmRun, 2352),
        (s.KvmSyncRegs, 8),
        (s.KvmVcpuInit, 32),
        (s.KvmIrqLevel, 8),
        (s.KvmDeviceAttr, 24),
        (s.KvmCreateDevice, 12),
        (s.KvmSmcccFilter, 24),
        (s.KvmOneReg, 16),
        (s.KvmMpState, 4),
        (s.KvmVcpuEvents, 64),
        (s.KvmRegs, 864),
        (s.KvmGuestDebug, 520),
        (s.KvmUserspaceMemoryRegion, 32),
        (s.KvmUserspaceMemoryRegion2, 160),
        (s.KvmArmCounterOffset, 16),
        (s.KvmIrqRoutingEntry, 48),
        (s.KvmIoeventfd, 64),
        (s.KvmIrqfd, 32),
    ],
)
def test_sizes(cls: type[ctypes.Structure], size: int) -> None:
    assert ctypes.sizeof(cls) == size


def test_offsets_in_kvm_run() -> None:
    run = s.KvmRun.from_buffer(memory := bytearray(8192))
    run.immediate_exit = 1
    run.exit_reason = 0x11223344
    run.flags = 0x5566
    run.mmio.phys_addr = 0xA1
    run.mmio.value = 0x0807060504030201
    run.mmio.len = 0xB2
    run.mmio.is_write = 0xC3
    run.kvm_valid_regs = 0xD4
    run.kvm_dirty_regs = 0xE5
    run.s_regs.device_irq_level = 0xF6
    assert memory[1] == 1
    assert memory[8:12] == bytes.fromhex("44332211")
    assert memory[14:16] == bytes.fromhex("6655")
    assert memory[32] == 0xA1
    assert memory[40:48] == bytes(range(1, 9)) == bytes(run.mmio.data)
    assert (memory[48], memory[52]) == (0xB2, 0xC3)
    assert (memory[288], memory[296], memory[304]) == (0xD4, 0xE5, 0xF6)


def test_union_members_of_kvm_run() -> None:
    run = s.KvmRun.from_buffer(memory := bytearray(8192))
    run.system_event.type, run.system_event.ndata = 7, 8
    run.system_event.data[0] = 9
    assert (memory[32], memory[36], memory[40]) == (7, 8, 9)
    run.hypercall.nr, run.hypercall.flags = 10, 11
    assert (memory[32], memory[96]) == (10, 11)
    run.arm_nisv.fault_ipa = 12
    assert memory[40] == 12

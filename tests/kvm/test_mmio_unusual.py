"""What a device should never see: instruction fetches and DC ZVA, on the engine's instructions.

Neither has a syndrome, so KVM cannot hand it to user space as an access: a fetch is an abort of the
guest's, DC ZVA an exit without syndrome or ENOSYS. On Device memory DC ZVA is misaligned already.
"""

from __future__ import annotations

import errno
import mmap

import pytest
from tests.engine import a64
from tests.kvm.native import DEVICE, IO, RAM, VECTORS, Native, Words, out

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.abi.structs import KvmVcpuEvents
from armkvm.arch import esr as e

CAP_ARM_NISV_TO_USER = 177
FAR_EL1, SCTLR_EL1 = regs.sys_reg(3, 0, 6, 0, 0), regs.sys_reg(3, 0, 1, 0, 0)
TABLE, CODE = 0xC000, 0x400  # in RAM
NORMAL, DEVICE_NGNRE = 0, 1  # indexes of MAIR
ALIGNMENT = 0x21


def dc_zva(rt: int) -> int:
    return 0xD50B_7420 | rt


def dc_cvac(rt: int) -> int:
    return 0xD50B_7A20 | rt


def guest(program: Words, io: int | None = None) -> Native:
    """A guest with its MMU off, or on: memory is Normal, the gigabyte of the device is `io`."""
    m = Native(program)
    m.vcpu.limit = 1000
    if io is not None:
        flags = 1 << 10 | 3 << 8 | 1  # accessed, inner shareable, a block
        blocks = (io << 2 | flags, RAM | NORMAL << 2 | flags)
        m.memory[TABLE : TABLE + 16] = b"".join(b.to_bytes(8, "little") for b in blocks)
        for enc, value in (
            ((3, 0, 10, 2, 0), 0x04FF),  # MAIR: write-back, Device-nGnRE
            ((3, 0, 2, 0, 2), 2 << 32 | 25),  # TCR: 40 bits out, 39 bits in
            ((3, 0, 2, 0, 0), RAM + TABLE),
        ):
            m.set(regs.sys_reg(*enc), value)
        m.set(SCTLR_EL1, m.get(SCTLR_EL1) | 1)
    return m


MMU = pytest.mark.parametrize("io", [None, NORMAL, DEVICE_NGNRE], ids=["off", "normal", "device"])


@MMU
@pytest.mark.parametrize("offset", [0, 0xFFC])
def test_a_fetch_from_a_device_is_an_external_abort(io: int | None, offset: int) -> None:
    with guest([a64.mov(1, IO + offset), a64.br(1)], io) as m:
        assert m.stored() == (0xF00, e.EC_IABT_CUR << 26 | e.IL | e.FSC_EXTABT)
        assert m.stored() == (0xF08, IO + offset)
        assert m.get(FAR_EL1) == IO + offset
        assert m.vcpu.stat.mmio_exit_user == 2  # the handler's stores


def test_a_fetch_from_a_device_at_el0() -> None:
    program = [*a64.mov(0, IO), a64.msr("ELR_EL1", 0), a64.msr("SPSR_EL1", 31), a64.ERET]
    with guest(program) as m:
        assert m.stored() == (0xF00, e.EC_IABT_LOW << 26 | e.IL | e.FSC_EXTABT)
        assert m.stored() == (0xF08, IO)
        assert m.pc == VECTORS + 0x400 + 12


def test_running_from_memory_into_a_device() -> None:
    """The instruction before is executed, the one behind the end of memory is not."""
    with guest([a64.mov(1, RAM + 0xFFFC), a64.br(1)]) as m:
        m.put(0xFFFC, [a64.movz(5, 77)])
        assert m.stored()[0] == 0xF00
        assert m.stored() == (0xF08, RAM + 0x1_0000)
        assert m.get(regs.core_x(5)) == 77


def test_a_fetch_from_the_page_of_an_eventfd_is_no_write() -> None:
    with guest([a64.br(DEVICE)]) as m:
        m.vm.register_coalesced_mmio(IO, 0x100)
        assert m.stored() == (0xF00, e.EC_IABT_CUR << 26 | e.IL | e.FSC_EXTABT)
        assert m.vcpu.stat.mmio_exit_kernel == 0


@pytest.mark.parametrize("offset", [0, 0x40, 0x7B])
def test_dc_zva_on_a_device_that_is_mapped_as_memory(offset: int) -> None:
    with guest([a64.mov(1, IO + offset), dc_zva(1), out(31, 8)], NORMAL) as m:
        assert m.vcpu.run_raw() == -errno.ENOSYS
        at = m.pc
        assert m.vcpu.run_raw() == -errno.ENOSYS  # nothing is stepped over
        m.vm.enable_cap(CAP_ARM_NISV_TO_USER)
        m.vcpu.run()
        nisv = m.struct.arm_nisv
        assert m.struct.exit_reason == k.KVM_EXIT_ARM_NISV
        # A write, and no cache maintenance; no memory in that gigabyte: level 1.
        assert nisv.esr_iss == e.DABT_WNR | e.FSC_TRANSLATION | 1
        assert nisv.fault_ipa & ~63 == IO + offset & ~63
        assert m.pc == at
        # User space can step over it; or make it an abort, below.
        m.set(regs.CORE_PC, RAM + at + 4)
        assert m.stored() == (8, 0)


def test_dc_zva_on_a_device_can_be_aborted() -> None:
    with guest([dc_zva(DEVICE), out(31, 8)], NORMAL) as m:
        m.vm.enable_cap(CAP_ARM_NISV_TO_USER)
        m.vcpu.run()
        at = m.pc
        m.vcpu.set_vcpu_events(KvmVcpuEvents(ext_dabt_pending=1))
        assert m.stored() == (0xF00, e.EC_DABT_CUR << 26 | e.IL | e.FSC_EXTABT)
        assert m.stored() == (0xF08, RAM + at)


@pytest.mark.parametrize("io", [None, DEVICE_NGNRE], ids=["off", "device"])
def test_dc_zva_on_device_memory_is_an_alignment_fault(io: int | None) -> None:
    """Stage 1's, so the guest's own: KVM sees nothing of it."""
    with guest([dc_zva(DEVICE), out(31, 8)], io) as m:
        exits = e.EC_DABT_CUR << 26 | e.IL | e.DABT_WNR | ALIGNMENT
        assert m.stored() == (0xF00, exits)
        assert m.get(FAR_EL1) == IO


def test_dc_zva_on_a_read_only_slot() -> None:
    rom = mmap.mmap(-1, 0x1000)
    rom[:] = b"\xa5" * 0x1000
    with guest([a64.mov(1, 0x2000_0000), dc_zva(1), out(31, 8)], NORMAL) as m:
        m.vm.set_user_memory_region(1, 0x2000_0000, 0x1000, rom, k.KVM_MEM_READONLY)
        m.vm.enable_cap(CAP_ARM_NISV_TO_USER)
        m.vcpu.run()
        assert m.struct.exit_reason == k.KVM_EXIT_ARM_NISV
        assert m.struct.arm_nisv.fault_ipa == 0x2000_0000
        assert rom[:64] == b"\xa5" * 64


def test_cleaning_a_device_is_stepped_over() -> None:
    with guest([dc_cvac(DEVICE), out(31, 8)], NORMAL) as m:
        assert m.stored() == (8, 0)

"""Register ids of KVM_GET_ONE_REG."""

from armkvm.abi import regs


def test_timer_ids_and_their_historical_swap() -> None:
    """api.rst 4.68: CVAL and CNT carry each other's encoding, and always will."""
    assert regs.KVM_REG_ARM_TIMER_CTL == 0x6030_0000_0013_DF19
    assert regs.KVM_REG_ARM_TIMER_CVAL == 0x6030_0000_0013_DF02
    assert regs.KVM_REG_ARM_TIMER_CNT == 0x6030_0000_0013_DF1A
    assert regs.KVM_REG_ARM_PTIMER_CTL == 0x6030_0000_0013_DF11
    assert regs.KVM_REG_ARM_PTIMER_CVAL == 0x6030_0000_0013_DF12
    assert regs.KVM_REG_ARM_PTIMER_CNT == 0x6030_0000_0013_DF01


def test_core_ids() -> None:
    assert regs.core_x(0) == 0x6030_0000_0010_0000
    assert regs.core_x(30) == 0x6030_0000_0010_003C
    assert regs.CORE_SP == 0x6030_0000_0010_003E
    assert regs.CORE_PC == 0x6030_0000_0010_0040
    assert regs.CORE_PSTATE == 0x6030_0000_0010_0042
    assert regs.CORE_SP_EL1 == 0x6030_0000_0010_0044


def test_sizes() -> None:
    assert regs.reg_size(regs.CORE_PC) == 8
    assert regs.reg_size(regs.core_reg(336, regs.KVM_REG_SIZE_U128)) == 16

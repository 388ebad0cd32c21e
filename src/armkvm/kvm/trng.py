"""The true random number generator of SMCCC (Arm DEN0098, 1.0), after arch/arm64/kvm/trng.c.

A guest's kernel finds it by TRNG_VERSION and seeds itself from it. Where the numbers come from is
host/random.py's business: in virtual time they are a function of the run's inputs. There is never
a lack of entropy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from armkvm.abi import psci as p

if TYPE_CHECKING:
    from armkvm.kvm.vcpu import Vcpu

TRNG_FUNCTIONS: Final = (
    p.ARM_SMCCC_TRNG_VERSION, p.ARM_SMCCC_TRNG_FEATURES, p.ARM_SMCCC_TRNG_GET_UUID,
    p.ARM_SMCCC_TRNG_RND32, p.ARM_SMCCC_TRNG_RND64,
)  # fmt: skip
_WORDS: Final = 3  # registers that hold entropy


def kvm_trng_call(vcpu: Vcpu) -> list[int]:
    """X0 to X3 of one of its calls."""
    arg = vcpu.x[1] & 0xFFFF_FFFF
    match vcpu.x[0] & 0xFFFF_FFFF:
        case p.ARM_SMCCC_TRNG_VERSION:
            return [p.ARM_SMCCC_TRNG_VERSION_1_0, 0, 0, 0]
        case p.ARM_SMCCC_TRNG_FEATURES:
            known = arg in TRNG_FUNCTIONS
            return [p.TRNG_SUCCESS if known else p.TRNG_NOT_SUPPORTED, 0, 0, 0]
        case p.ARM_SMCCC_TRNG_GET_UUID:
            return list(p.TRNG_UUID)
        case p.ARM_SMCCC_TRNG_RND32:
            return _rnd(vcpu, arg, 32)
    return _rnd(vcpu, arg, 64)


def _rnd(vcpu: Vcpu, bits: int, word: int) -> list[int]:
    """So many random bits, the lowest in X3, in registers of 32 or 64 bits; above them zeros."""
    if bits > _WORDS * word:
        return [p.TRNG_INVALID_PARAMETER, 0, 0, 0]
    drawn = vcpu.vm.host.random.draw(_WORDS * 8, vcpu.now(), vcpu.vcpu_id)
    number = int.from_bytes(drawn, "little") & (1 << bits) - 1
    mask = (1 << word) - 1
    return [p.TRNG_SUCCESS, *(number >> word * n & mask for n in reversed(range(_WORDS)))]

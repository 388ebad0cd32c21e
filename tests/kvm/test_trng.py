"""The TRNG of SMCCC, on the engine: what the guest gets, and of what it is a function."""

from __future__ import annotations

import errno

import pytest
from tests.engine import a64
from tests.kvm.native import Native, Words, flat, out
from tests.kvm.rig import fails

from armkvm.abi import psci as p
from armkvm.abi import regs

M64 = (1 << 64) - 1
RND32, RND64 = p.ARM_SMCCC_TRNG_RND32, p.ARM_SMCCC_TRNG_RND64


def call(fn: int, arg: int = 0) -> Words:
    """One call; X0 to X3 go to the device."""
    return [a64.mov(0, fn), a64.mov(1, arg), a64.hvc(0), [out(n, 8 * n) for n in range(4)]]


def answers(
    *calls: tuple[int, int], clock: str = "virtual", seed: int | None = None, allowed: int = 1
) -> list[list[int]]:
    """X0 to X3 of each call."""
    with Native(*(call(*c) for c in calls), clock=clock) as m:
        if seed is not None:
            m.system.seed = seed
        m.set(regs.KVM_REG_ARM_STD_BMAP, allowed)
        return [[m.stored()[1] for _ in range(4)] for _ in calls]


def test_it_says_what_it_is() -> None:
    features, uuid = p.ARM_SMCCC_TRNG_FEATURES, p.ARM_SMCCC_TRNG_GET_UUID
    no = p.TRNG_NOT_SUPPORTED & M64
    got = answers(
        (p.ARM_SMCCC_TRNG_VERSION, 0), (features, RND64), (features, features),
        (features, p.ARM_SMCCC_VERSION_FUNC_ID), (features, 0x8400_0054), (uuid, 0),
    )  # fmt: skip
    assert [results[0] for results in got[:5]] == [0x1_0000, 0, 0, no, no]
    assert all(results[1:] == [0, 0, 0] for results in got[:5])
    # As the DEN0098 lays out 0d21e000-4384-11eb-8070-5244554e5a4c.
    assert b"".join(word.to_bytes(4, "little") for word in got[5]) == bytes.fromhex(
        "0d21e000438411eb80705244554e5a4c"
    )


@pytest.mark.parametrize(
    ("fn", "bits", "masks"),
    [
        (RND32, 0, (0, 0, 0)),
        (RND32, 5, (0, 0, 0x1F)),
        (RND32, 33, (0, 1, 0xFFFF_FFFF)),
        (RND32, 96, (0xFFFF_FFFF,) * 3),
        (RND64, 64, (0, 0, M64)),
        (RND64, 129, (1, M64, M64)),
        (RND64, 192, (M64,) * 3),
    ],
)
def test_so_many_bits_and_no_more(fn: int, bits: int, masks: tuple[int, ...]) -> None:
    """Over a hundred draws each bit that was asked for is seen at 0 and at 1, the others never."""
    draw = flat(call(fn, bits))
    with Native(draw, a64.b(-len(draw))) as m:
        draws = [[m.stored()[1] for _ in range(4)] for _ in range(100)]
    assert all(results[0] == 0 for results in draws)
    seen = zip(*(results[1:] for results in draws), strict=True)
    for words, mask in zip(seen, masks, strict=True):
        union, common = 0, M64
        for word in words:
            union, common = union | word, common & word
        assert (union, common) == (mask, 0)


def test_more_than_three_registers_hold_is_a_wrong_parameter() -> None:
    wrong = [p.TRNG_INVALID_PARAMETER & M64, 0, 0, 0]
    assert answers((RND32, 97), (RND64, 193), (RND64, 0xFFFF_FFFF)) == [wrong] * 3


def test_in_virtual_time_the_seed_decides() -> None:
    calls = [(RND64, 192)] * 3
    first = answers(*calls)
    assert first == answers(*calls) == answers(*calls, seed=0) != answers(*calls, seed=1)
    assert len({tuple(results) for results in first}) == 3


@pytest.mark.parametrize("clock", ["paced", "realtime"])
def test_else_the_host_does(clock: str) -> None:
    assert answers((RND64, 192), clock=clock) != answers((RND64, 192), clock=clock)


def test_user_space_can_take_it_away() -> None:
    functions = (
        p.ARM_SMCCC_TRNG_VERSION, p.ARM_SMCCC_TRNG_FEATURES, p.ARM_SMCCC_TRNG_GET_UUID,
        RND32, RND64,
    )  # fmt: skip
    got = answers(*((fn, RND64) for fn in functions), allowed=0)
    assert got == [[p.SMCCC_RET_NOT_SUPPORTED & M64, 0, 0, 0]] * 5
    with Native(call(RND64, 1)) as m:
        assert m.get(regs.KVM_REG_ARM_STD_BMAP) == 1
        fails(errno.EINVAL, lambda: m.set(regs.KVM_REG_ARM_STD_BMAP, 2))
        m.stored()
        fails(errno.EBUSY, lambda: m.set(regs.KVM_REG_ARM_STD_BMAP, 0))

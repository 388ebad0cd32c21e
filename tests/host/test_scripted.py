"""The scripted CPU against the interface's rules in host/cpu.py."""

from __future__ import annotations

from collections.abc import Generator

from armkvm.host.cpu import EXIT_IRQ, EXIT_LIMIT, EXIT_TRAP
from armkvm.host.scripted import Hvc, Load, Mask, Mrs, Native, Op, Run, ScriptedCpu, Store, Wfi

Ops = Generator[Op, int, None]


def test_load_hands_the_register_to_the_script() -> None:
    seen: list[int] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        seen.append((yield Load(0x0900_0018, size=2, rt=5)))
        yield Store(0x0900_0000, 0x41, size=1)

    cpu = ScriptedCpu(guest)
    assert cpu.run() == EXIT_TRAP
    s = cpu.state
    assert s.esr_el2 >> 26 == 0x24
    assert s.esr_el2 >> 24 & 1  # ISV
    assert (s.esr_el2 >> 22 & 3, s.esr_el2 >> 16 & 31, s.esr_el2 >> 6 & 1) == (1, 5, 0)
    assert s.hpfar_el2 << 8 | s.far_el2 & 0xFFF == 0x0900_0018
    assert cpu.run() == EXIT_TRAP  # not stepped over: the same again
    assert seen == []
    s.x[5] = 77
    s.pc += 4
    assert cpu.run() == EXIT_TRAP
    assert seen == [77]
    assert s.esr_el2 >> 6 & 1
    assert s.count == 1


def test_deadline_is_exact() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Native("cntv_cval", 100)
        yield Native("cntv_ctl", 1)
        yield Run(10**9)

    cpu = ScriptedCpu(guest)
    assert cpu.run() == EXIT_IRQ
    assert cpu.state.count == 1600
    cpu.state.cntv_masked = 1
    cpu.state.limit = 5000
    assert cpu.run() == EXIT_LIMIT
    assert cpu.state.count == 5000


def test_irq_is_taken_when_unmasked_and_returns() -> None:
    log: list[str] = []

    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Run(10)
        log.append("unmask")
        yield Mask(False)
        yield Run(10)
        log.append("after")
        yield Wfi()

    def irq(cpu: ScriptedCpu) -> Ops:
        log.append("irq")
        cpu.state.hcr_vi = 0
        yield Run(3)

    cpu = ScriptedCpu(guest, irq)
    cpu.state.hcr_vi = 1
    assert cpu.run() == EXIT_TRAP
    assert log == ["unmask", "irq", "after"]
    assert not cpu.pstate & 0x80


def test_hvc_returns_behind_itself_and_kick_sticks() -> None:
    def guest(_cpu: ScriptedCpu) -> Ops:
        yield Hvc((0x8400_0000,))
        yield Mrs((3, 0, 12, 12, 5))

    cpu = ScriptedCpu(guest)
    cpu.kick()
    assert cpu.run() == EXIT_IRQ
    assert cpu.run() == EXIT_TRAP
    assert cpu.state.pc == 4
    assert cpu.run() == EXIT_TRAP
    cpu.take_exception(0x0200_0000)
    assert cpu.injected == [("sync", 0x0200_0000, 0)]

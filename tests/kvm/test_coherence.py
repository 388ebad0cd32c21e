"""Code that somebody else has written: what a guest executes after IC and ISB (Arm ARM B2.4.4).

One guest calls the same function again and again. Each time somebody has put another number into
it: the guest through another slot over the same page, user space, another process, another VM. What
it calls after the maintenance that the manual asks for is the new code, wherever its run was cut.
"""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest
from tests.engine import a64
from tests.kvm.native import DEVICE, IO, PSCI, RAM, Native, out

from armkvm.abi import kvm as k
from armkvm.abi import regs
from armkvm.abi import structs as st
from armkvm.kvm import System, Vcpu, Vm

PAGE = 4096
CODE, ALIAS = 0x5000_0000, 0x6000_0000  # two slots over one buffer: a function, and a mailbox
REQUEST, ANSWER, SHOWN, DONE = PAGE, PAGE + 8, PAGE + 16, PAGE + 24
ROUNDS = 12
BUDGETS = range(1, 2001)
RET = a64.ret()

IC = {
    "ivau": a64.dc("ivau", 19),
    "iallu": a64.sys_word(0, 1, 0, 7, 5, 0, 31),
    "ialluis": a64.sys_word(0, 1, 0, 7, 1, 0, 31),
}
DSB = 0xD5033F9F


def cmp(rn: int, rm: int) -> int:
    """CMP Xn, Xm."""
    return 0xEB00001F | rm << 16 | rn << 5


def b_ne(words: int) -> int:
    """B.NE to `words` instructions from here."""
    return 0x54000001 | (words & 0x7FFFF) << 5


# X19: the function; X20: the same by its other address; X22: the number; X23: wrong answers.
NUMBER, WRONG = 22, 23
PUT = [  # MOVZ X0, #X22 into the function, by the other address
    a64.mov(1, 0xD2800000), 0xAA161421, 0xB9000281,  # orr x1, x1, x22, lsl #5; str w1, [x20]
]  # fmt: skip
ASK = [  # a mailbox: whoever reads it puts the number there
    a64.str_(NUMBER, 20, REQUEST), a64.ldr(2, 20, ANSWER), cmp(2, NUMBER), b_ne(-2),
]  # fmt: skip
CALL = [a64.blr(19), cmp(0, NUMBER), 0x54000040, a64.add(WRONG, WRONG, 1)]  # b.eq over the next
POINTERS = [a64.mov(19, CODE), a64.mov(20, ALIAS), a64.movz(NUMBER, 0), a64.movz(WRONG, 0)]


def flat(words: object) -> list[int]:
    if isinstance(words, int):
        return [words]
    assert isinstance(words, list)
    return [word for part in words for word in flat(part)]


def looped(*body: object) -> list[int]:
    """`body` for NUMBER = 1 to ROUNDS, then the wrong answers go to the device."""
    words = [a64.add(NUMBER, NUMBER, 1), *flat(list(body))]
    end = [a64.movz(3, ROUNDS), cmp(NUMBER, 3)]
    return [*flat(POINTERS), *words, *end, b_ne(-len(words) - len(end)), out(WRONG)]


def guest(write: Sequence[object], ic: str) -> list[int]:
    """The guest that writes or asks, and then calls."""
    return looped(list(write), a64.dc("cvau", 20), DSB, IC[ic], DSB, a64.ISB, CALL)


class Shared(Native):
    """A guest with a page of code and a mailbox that others may have, at two addresses."""

    def __init__(self, words: list[int], buffer: mmap.mmap) -> None:
        super().__init__(*words)
        self.vm.set_user_memory_region(1, CODE, 2 * PAGE, buffer)
        self.vm.set_user_memory_region(2, ALIAS, 2 * PAGE, buffer)

    def begin(self) -> None:
        """From the first instruction once more."""
        self.set(regs.CORE_PC, RAM)

    def go_on(self, budget: int | None = None) -> int | None:
        """KVM_RUN; the wrong answers once they were told, None where it was cut."""
        self.vcpu.limit = (1 << 62) if budget is None else self.vcpu.instructions + budget
        if self.vcpu.run_raw() == 0:
            assert self.struct.exit_reason == k.KVM_EXIT_MMIO
            return int(self.struct.mmio.value)
        return None


def buffer_with_code(fd: int = -1) -> mmap.mmap:
    buffer = mmap.mmap(fd, 2 * PAGE)
    buffer[4:8] = RET.to_bytes(4, "little")
    return buffer


def answer(buffer: mmap.mmap) -> None:
    """What is at the other end of the mailbox, once."""
    wanted = buffer[REQUEST : REQUEST + 8]
    if wanted != buffer[ANSWER : ANSWER + 8]:
        number = int.from_bytes(wanted, "little")
        buffer[0:4] = (0xD2800000 | number << 5).to_bytes(4, "little")
        buffer[ANSWER : ANSWER + 8] = wanted


def clear(buffer: mmap.mmap) -> None:
    buffer[REQUEST : REQUEST + 32] = bytes(32)


@pytest.fixture
def buffer() -> mmap.mmap:
    return buffer_with_code()


@pytest.mark.parametrize("ic", IC)
def test_a_guest_writes_through_an_alias(buffer: mmap.mmap, ic: str) -> None:
    """With every budget, and in whole runs."""
    with Shared(guest(PUT, ic), buffer) as m:
        assert m.go_on() == 0
        for budget in BUDGETS:
            m.begin()
            while (wrong := m.go_on(budget)) is None:
                pass
            assert wrong == 0, budget


@pytest.mark.parametrize("ic", IC)
def test_user_space_writes_between_two_runs(buffer: mmap.mmap, ic: str) -> None:
    with Shared(guest(ASK, ic), buffer) as m:
        for budget in BUDGETS:
            clear(buffer)
            m.begin()
            while (wrong := m.go_on(budget)) is None:
                answer(buffer)
            assert wrong == 0, budget


@pytest.mark.parametrize("ic", IC)
def test_a_thread_writes_while_the_guest_runs(buffer: mmap.mmap, ic: str) -> None:
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            answer(buffer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Shared(guest(ASK, ic), buffer) as m:
            for _ in range(5):
                clear(buffer)
                m.begin()
                assert m.go_on() == 0
    finally:
        ended.set()
        thread.join()


CHILD = """
import mmap, os, sys
from tests.kvm.test_coherence import PAGE, answer
buffer = mmap.mmap(int(sys.argv[1]), 2 * PAGE)
print("ready", flush=True)
while os.getppid() == int(sys.argv[2]):
    answer(buffer)
"""


@pytest.mark.parametrize("ic", ["ivau", "ialluis"])
def test_another_process_writes(ic: str) -> None:
    fd = os.memfd_create("code")
    os.ftruncate(fd, 2 * PAGE)
    buffer = buffer_with_code(fd)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(fd), str(os.getpid())],
        pass_fds=[fd], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with Shared(guest(ASK, ic), buffer) as m:
            for budget in (None, 1000, 77, 1, 2000):
                clear(buffer)
                m.begin()
                while (wrong := m.go_on(budget)) is None:
                    pass
                assert wrong == 0, budget
    finally:
        child.kill()
        child.communicate()
        os.close(fd)


def test_another_vm_writes(buffer: mmap.mmap) -> None:
    """It waits for a request that was not answered, writes the function, and answers."""
    writer = [
        *flat([a64.mov(19, CODE), a64.mov(20, ALIAS)]),
        a64.ldr(NUMBER, 20, REQUEST), a64.ldr(2, 20, ANSWER), cmp(2, NUMBER), 0x54FFFFA0,  # b.eq
        *flat(PUT), a64.str_(NUMBER, 20, ANSWER), a64.b(-len(flat(PUT)) - 5),
    ]  # fmt: skip
    with Shared(guest(ASK, "ivau"), buffer) as m, Shared(writer, buffer) as other:
        for budget in (1, 2, 3, 10, 63, 1000, 2000):
            clear(buffer)
            m.begin()
            while (wrong := m.go_on(budget)) is None:
                other.go_on(40)
            assert wrong == 0, budget


@pytest.mark.parametrize("write", [PUT, ASK], ids=["alias", "thread"])
def test_under_random_kicks(buffer: mmap.mmap, write: Sequence[object]) -> None:
    """200 of them, each at a moment of its own."""
    rng = random.Random(1)
    kicks = 0
    with Shared(guest(write, "ivau"), buffer) as m:
        while kicks < 200:
            clear(buffer)
            m.begin()
            wrong = None
            while wrong is None:
                timer = threading.Timer(rng.random() * 2e-4, m.vcpu.kick)
                timer.start()
                wrong = m.go_on()
                timer.join()
                kicks += 1
                if write is ASK:
                    answer(buffer)
            assert wrong == 0


# Of four vCPUs the first writes and maintains, the others see SHOWN, synchronise, call and count.
LEADER = looped(
    PUT, a64.dc("ivau", 19), DSB, a64.str_(NUMBER, 20, SHOWN), a64.ISB, CALL,
    # until the others have counted: DONE = 3 * NUMBER
    0x8B1606C4, a64.ldr(5, 20, DONE), cmp(5, 4), b_ne(-2),  # add x4, x22, x22, lsl #1
)  # fmt: skip
FOLLOWER = looped(
    a64.ldr(2, 20, SHOWN), cmp(2, NUMBER), b_ne(-2), a64.ISB, CALL,
    a64.movz(6, 1), a64.add(7, 20, 1) | 1 << 22, a64.add(7, 7, DONE - PAGE), 0xF82600FF,  # stadd
)  # fmt: skip


def four(buffer: mmap.mmap) -> tuple[System, Vm, list[Vcpu]]:
    system = System("vhe-gicv3", clock="virtual")
    vm = system.create_vm()
    memory = mmap.mmap(-1, 2 * PAGE)
    for at, words in ((0, LEADER), (PAGE, FOLLOWER)):
        code = [*a64.mov(DEVICE, IO), *words, a64.B_SELF]
        memory[at : at + 4 * len(code)] = b"".join(w.to_bytes(4, "little") for w in code)
    for slot, (ipa, backing) in enumerate([(RAM, memory), (CODE, buffer), (ALIAS, buffer)]):
        vm.set_user_memory_region(slot, ipa, 2 * PAGE, backing)
    vcpus = [vm.create_vcpu(i) for i in range(4)]
    for vcpu in vcpus:
        vcpu.arm_vcpu_init(features=PSCI)
    return system, vm, vcpus


@pytest.fixture
def vcpus(buffer: mmap.mmap) -> Iterator[list[Vcpu]]:
    with ExitStack() as stack:
        system, vm, vcpus = four(buffer)
        for file in (system, vm, *vcpus):
            stack.callback(file.close)
        yield vcpus


def restart(vcpus: list[Vcpu], buffer: mmap.mmap) -> None:
    clear(buffer)
    for i, vcpu in enumerate(vcpus):
        vcpu.set_one_reg(regs.CORE_PC, RAM + PAGE * (i > 0))


def test_four_vcpus_with_every_budget(vcpus: list[Vcpu], buffer: mmap.mmap) -> None:
    """One after the other in pieces of so many instructions."""
    for budget in BUDGETS:
        restart(vcpus, buffer)
        going = list(vcpus)
        while going:
            for vcpu in list(going):
                vcpu.limit = vcpu.instructions + budget
                if vcpu.run_raw() == 0:
                    assert vcpu.run_struct.mmio.value == 0, budget
                    going.remove(vcpu)


def test_four_vcpus_under_random_kicks(vcpus: list[Vcpu], buffer: mmap.mmap) -> None:
    rng = random.Random(2)
    wrong: list[int] = []

    def whole(vcpu: Vcpu) -> None:
        while vcpu.run_raw():
            pass
        wrong.append(vcpu.run_struct.mmio.value)

    kicks = 0
    while kicks < 200:
        restart(vcpus, buffer)
        threads = [threading.Thread(target=whole, args=[vcpu]) for vcpu in vcpus]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            rng.choice(vcpus).kick()
            kicks += 1
        for thread in threads:
            thread.join()
        assert wrong == [0] * 4
        wrong.clear()


# -- what user space can say ----------------------------------------------------------------

LOOP = [*flat(POINTERS), a64.blr(19), out(0), a64.b(-2)]


def function(buffer: mmap.mmap, number: int) -> None:
    buffer[0:4] = (0xD2800000 | number << 5).to_bytes(4, "little")


def test_memory_written(buffer: mmap.mmap) -> None:
    """The guest sees it without maintenance of its own, in one page and not by accident."""
    function(buffer, 1)
    with Shared(LOOP, buffer) as m:
        assert m.stored() == (0, 1)
        function(buffer, 2)
        m.vm.memory_written(ALIAS, 4)  # the same page, by its other address
        assert m.stored() == (0, 2)
        function(buffer, 3)
        m.vm.memory_written(RAM, PAGE)
        assert m.stored() == (0, 2)
        m.vm.memory_written(0, 1 << 40)
        assert m.stored() == (0, 3)


def test_memory_written_while_vcpus_run(buffer: mmap.mmap) -> None:
    function(buffer, 0)
    loop = [*flat(POINTERS), a64.blr(19), 0xB4000000 | (-1 & 0x7FFFF) << 5, out(0)]  # cbz x0
    with Shared(loop, buffer) as m:
        result: list[int] = []
        thread = threading.Thread(target=lambda: result.append(m.stored()[1]))
        thread.start()
        while not m.vcpu.instructions:
            pass
        function(buffer, 7)
        m.vm.memory_written(CODE, PAGE)
        thread.join()
        assert result == [7]


def test_a_breakpoint_of_a_debugger(buffer: mmap.mmap) -> None:
    """KVM_SET_GUEST_DEBUG is where BRK in guest memory is seen, and its removal."""
    function(buffer, 1)
    with Shared(LOOP, buffer) as m:
        assert m.stored() == (0, 1)
        buffer[0:4] = a64.brk(0).to_bytes(4, "little")
        args = st.KvmGuestDebug()
        args.control = k.KVM_GUESTDBG_ENABLE | k.KVM_GUESTDBG_USE_SW_BP
        m.vcpu.set_guest_debug(args)
        m.vcpu.run()
        assert m.struct.exit_reason == k.KVM_EXIT_DEBUG
        assert m.get(regs.CORE_PC) == CODE
        function(buffer, 2)
        m.vcpu.set_guest_debug(args)
        assert m.stored() == (0, 2)


def test_what_was_fetched_stays_until_it_is_dropped(buffer: mmap.mmap) -> None:
    """Without maintenance the old code runs, however the run is cut: one result, not two."""
    function(buffer, 1)
    results = []
    for budget in (None, 1, 2, 3):
        with Shared(LOOP, buffer) as m:
            function(buffer, 1)
            seen = [m.stored()]
            function(buffer, 2)
            value = None
            while value is None:
                value = m.go_on(budget)
            results.append((*seen, value))
    assert results == [((0, 1), 1)] * 4


def test_the_cache_type_register_says_so() -> None:
    """CTR_EL0.DIC: 0, instruction fetches need IC."""
    with Native(a64.mrs(1, "CTR_EL0"), out(1)) as m:
        assert not m.stored()[1] >> 29 & 1


def test_a_guest_stores_to_its_own_code_at_once(buffer: mmap.mmap) -> None:
    """Its own stores need no maintenance, through whichever address: more than DIC = 0 promises."""
    with Shared(looped(PUT, CALL), buffer) as m:
        for budget in (None, *range(1, 200)):
            m.begin()
            while (wrong := m.go_on(budget)) is None:
                pass
            assert wrong == 0, budget



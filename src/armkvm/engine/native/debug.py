"""Watchpoints (Arm ARM D2.9; AArch64.WatchpointMatch and AArch64.WatchpointByteMatch).

The fast path of a load or store knows nothing of them: a page that one watches has no entry in a
data TLB that would let an access pass (memory.py), so that all accesses to it come to the slow path
and ask here. While there are none, `watching` is 0 and nobody asks.

Debug exceptions go to EL2 (MDCR_EL2.TDE), so they are never masked, and the guest is at EL1 or EL0
in Non-secure state, which is all that remains of SSC and HMC. What the manual leaves open: reserved
combinations of these and reserved values of MASK disable a watchpoint, BAS counts for nothing
beside MASK, and a BAS with holes selects its bytes.
"""

from __future__ import annotations

from armkvm.arch import debug as d
from armkvm.engine import layout
from armkvm.engine.llvm.ir import Function, Pointer, bit, flag
from armkvm.engine.llvm.native import native
from armkvm.isa.value import Value


def _each(fn: Function, n: Value) -> Pointer:
    return fn.cpu + layout.WATCHPOINTS + n * layout.WATCHPOINT


def _control(watch: Pointer, shift: int, width: int) -> Value:
    return watch.get(layout.WATCH_CONTROL).lshr(shift) & (1 << width) - 1


def _mask(watch: Pointer) -> Value:
    return _control(watch, d.WCR_MASK_SHIFT, 5)


def _differs(watch: Pointer, va: Value) -> Value:
    """The bits in which an address is not the watched one."""
    return (watch.get(layout.WATCH_VALUE) ^ va) & d.DEBUG_ADDRESS


def _state_match(watch: Pointer, el0: Value) -> Value:
    """As `state_match` says, and not disabled otherwise. Links may change at any time."""
    control = watch.get(layout.WATCH_CONTROL)
    enabled = flag(control, d.DBGCR_E) & ~(_mask(watch) - 1).ult(2)
    non_secure = bit(control, d.DBGCR_SSC_SHIFT + 1).eq(0)
    of_el1 = flag(control, d.PC_EL1 << d.DBGCR_PC_SHIFT)
    of_el0 = flag(control, d.PC_EL0 << d.DBGCR_PC_SHIFT)
    of_el0 = of_el0 & (~flag(control, d.DBGCR_HMC) | of_el1)
    return enabled & non_secure & watch.fn.select(el0, of_el0, of_el1)


def _linked_match(watch: Pointer) -> Value:
    """The context is that of the breakpoint that it is linked to, if it is to any."""
    context = watch.fn.get("contextidr_el1") & 0xFFFF_FFFF
    unlinked = ~flag(watch.get(layout.WATCH_CONTROL), d.WCR_WT)
    return unlinked | context.eq(watch.get(layout.WATCH_CONTEXT))


def _byte_match(watch: Pointer, va: Value) -> Value:
    """AArch64.WatchpointByteMatch()."""
    differs, mask = _differs(watch, va), _mask(watch)
    bas = _control(watch, d.WCR_BAS_SHIFT, 8)
    # An address that is no multiple of 8 is a word's: BAS[3:0] are its bytes.
    word = bit(watch.get(layout.WATCH_VALUE), 2).ne(0)
    bas = watch.fn.select(word, bas << 4, bas)
    selected = differs.lshr(3).eq(0) & bas.lshr(va & 7).trunc("i1")
    return watch.fn.select(mask.eq(0), selected, differs.lshr(mask).eq(0))


@native
def watched_page(fn: Function, va: Value, el0: Value) -> Value:
    """What of the page at va is watched at EL0 (1) or EL1 (0): LSC of its watchpoints, together.

    As a TLB entry that is made of the answer lasts, links do not count.
    """
    kinds = fn.var("i64", 0)
    with fn.range(d.WATCHPOINTS) as n:
        watch = _each(fn, n)
        mask = _mask(watch)
        ignored = fn.select(mask.ult(12), 12, mask)
        here = _differs(watch, va).lshr(ignored).eq(0)
        with fn.if_(here & _state_match(watch, el0.ne(0))):
            kinds.set(kinds.get() | _control(watch, d.WCR_LSC_SHIFT, 2))
    return kinds.get()


@native
def watchpoint_match(fn: Function, va: Value, size: Value, el0: Value, kind: Value) -> Value:
    """1 if `size` bytes at va have a watched one for a load (LSC_LOAD) or store (LSC_STORE).

    `fault_va` is the lowest such byte of the first watchpoint that matches.
    """
    with fn.range(d.WATCHPOINTS) as n:
        watch = _each(fn, n)
        asked = (_control(watch, d.WCR_LSC_SHIFT, 2) & kind).ne(0)
        with fn.if_(asked & _state_match(watch, el0.ne(0)) & _linked_match(watch)):
            with fn.range(size) as i:
                with fn.if_(_byte_match(watch, va + i)):
                    fn.put("fault_va", va + i)
                    fn.ret(1)
    return fn.i64(0)

"""Stage 1 and stage 2 address translation (Arm ARM D8: VMSAv8-64, one translation regime EL1&0).

`walk` mirrors AArch64.S1Translate: 4, 16 and 64 KiB granules, 48-bit addresses, hierarchical
permissions, the Access flag managed by software, as Armv8.0 has it. Stage 2 is the sorted list of
memory segments of the VM: what is not in it is a stage 2 fault, which the hypervisor sees as MMIO.
"""

from __future__ import annotations

from armkvm.arch import esr as e
from armkvm.engine import layout
from armkvm.engine.llvm.ir import RAM, Function, Pointer, bit
from armkvm.engine.llvm.native import exported, native
from armkvm.isa.value import Value

# Flags of `walk`.
WALK_WRITE, WALK_FETCH, WALK_EL0 = 1, 2, 4

_OUTER = 2  # SH: Outer Shareable
_OUTPUT = 0x0000_FFFF_FFFF_F000


def stage2(fn: Function) -> Pointer:
    """The VM's stage-2 table."""
    return fn.pointer(fn.get("stage2"))


@native
def segment(fn: Function, ipa: Value) -> Pointer:
    """The stage 2 segment that holds an IPA, or null. The last one found is tried first."""

    def inside(seg: Pointer) -> Value:
        return (ipa - seg.get(layout.SEG_IPA)).ult(seg.get(layout.SEG_BYTES))

    hint = fn.get("segment_hint")
    with fn.if_(hint.ne(0)):
        seg = fn.pointer(hint)
        with fn.if_(inside(seg)):
            fn.ret(seg)
    table = stage2(fn)
    index = fn.pointer(table.get(layout.S2_INDEX))
    # The number of segments that begin at the IPA or below: the last of them it is, or none.
    below = fn.var("i64", 0)
    above = fn.var("i64", table.get(layout.S2_COUNT))
    with fn.loop() as loop:
        loop.break_if(below.get().uge(above.get()))
        middle = (below.get() + above.get()).lshr(1)
        begins = (index + middle * layout.INDEX_ENTRY).get(0)
        with fn.if_(begins.ule(ipa)):
            below.set(middle + 1)
            fn.goto(loop.head)
        above.set(middle)
    with fn.if_(below.get().ne(0)):
        last = index + (below.get() - 1) * layout.INDEX_ENTRY
        address = last.get(8)
        seg = fn.pointer(address)
        with fn.if_(inside(seg)):
            fn.put("segment_hint", address)
            fn.ret(seg)
    return fn.null()


def host_of(seg: Pointer, ipa: Value) -> Value:
    """The host address of an IPA in a segment."""
    return seg.get(layout.SEG_HOST) + (ipa - seg.get(layout.SEG_IPA))


@native
def walk(fn: Function, va: Value, flags: Value) -> Value:
    """Translate; returns 0, or 1 << 8 | fault status. Results in walk_ipa, walk_attr (1: Device),
    walk_shift (log2 of the block) and walk_ng."""
    fetch = bit(flags, 1)

    def fault(code: int, level: Value | int) -> None:
        fn.ret(level + (0x100 | code) if isinstance(level, Value) else 0x100 | code | level)

    sctlr, tcr = fn.get("sctlr_el1"), fn.get("tcr_el1")
    high = bit(va, 55).ne(0)
    tbi = fn.select(high, bit(tcr, 38), bit(tcr, 37)).ne(0)
    canonical = fn.select(tbi, (va << 8).ashr(8), va)
    with fn.if_(bit(sctlr, 0).eq(0)):
        with fn.if_(canonical.lshr(44).ne(0)):
            fault(e.FSC_ADDRESS_SIZE, 0)
        fn.put("walk_ipa", canonical & layout.PAGE_MASK)
        fn.put("walk_attr", fetch ^ 1)
        fn.put("walk_shift", 48)
        fn.put("walk_ng", 0)
        fn.put("walk_par", _OUTER << 7)
        fn.ret(0)

    half = fn.select(high, tcr.lshr(16), tcr) & 0xFFFF
    tsz = half & 63
    tsz = fn.select(tsz.ult(16), 16, fn.select(tsz.ugt(39), 39, tsz))
    # TG1 and TG0 number the granules differently (D17.2.131); a byte for each value of the
    # field.
    shifts = fn.select(high, fn.i64(0x100C_0E0C), fn.i64(0x0C0E_100C))
    page_shift = shifts.lshr((half.lshr(14) & 3) << 3) & 0xFF
    size = fn.i64(64) - tsz
    beyond = canonical.ashr(size)
    with fn.if_(beyond.ne(fn.select(high, fn.i64(-1), fn.i64(0)))):
        fault(e.FSC_TRANSLATION, 0)
    with fn.if_(bit(half, 7).ne(0)):  # EPD0 / EPD1
        fault(e.FSC_TRANSLATION, 0)

    pa_bits = _pa_bits(fn, tcr.lshr(32) & 7)
    stride = page_shift - 3
    levels = (size - page_shift + stride - 1).udiv(stride)
    level = fn.var("i64", fn.i64(4) - levels)
    ttbr = fn.select(high, fn.get("ttbr1_el1"), fn.get("ttbr0_el1"))
    top = size - page_shift - (levels - 1) * stride  # bits that the first table resolves
    table = fn.var("i64", (ttbr & 0x0000_FFFF_FFFF_FFFE).lshr(top + 3) << (top + 3))
    with fn.if_(table.get().lshr(pa_bits).ne(0)):
        fault(e.FSC_ADDRESS_SIZE, 0)
    resolves = fn.var("i64", top)
    tables_attr = fn.var("i64", 0)  # APTable, UXNTable, PXNTable of the tables passed
    one = fn.i64(1)

    with fn.loop() as loop:
        at = level.get()
        shift = page_shift + (fn.i64(3) - at) * stride
        index = va.lshr(shift) & ((one << resolves.get()) - 1)
        where = table.get() + (index << 3)
        seg = segment(fn, where)
        with fn.if_(seg.is_null()):
            fault(e.FSC_EXTABT_TTW, at)
        pte = fn.pointer(host_of(seg, where)).load("i64", RAM)
        with fn.if_(bit(pte, 0).eq(0)):
            fault(e.FSC_TRANSLATION, at)
        output = pte & _OUTPUT & (fn.i64(-1) << page_shift)
        with fn.if_(at.ne(3) & bit(pte, 1).ne(0)):
            with fn.if_(output.lshr(pa_bits).ne(0)):
                fault(e.FSC_ADDRESS_SIZE, at)
            tables_attr.set(tables_attr.get() | pte)
            table.set(output)
            level.set(at + 1)
            resolves.set(stride)
            fn.goto(loop.head)
        last = at.eq(3)
        block_ok = at.eq(2) | (at.eq(1) & page_shift.eq(12))
        with fn.if_(fn.select(last, bit(pte, 1).eq(0), ~block_ok)):
            fault(e.FSC_TRANSLATION, at)
        base = pte & 0x0000_FFFF_FFFF_FFFF
        base = base.lshr(shift) << shift
        with fn.if_(base.lshr(pa_bits).ne(0)):
            fault(e.FSC_ADDRESS_SIZE, at)
        with fn.if_(bit(pte, 10).eq(0)):
            fault(e.FSC_ACCESS, at)
        with fn.unless(_permitted(fn, pte, tables_attr.get(), flags, sctlr)):
            fault(e.FSC_PERMISSION, at)
        offset = va & ((one << shift) - 1)
        fn.put("walk_ipa", (base | offset) & layout.PAGE_MASK)
        attr = fn.get("mair_el1").lshr((pte.lshr(2) & 7) << 3) & 0xFF
        device = attr.ult(16)
        fn.put("walk_attr", device.zext("i64"))
        # Device and Non-cacheable memory is always Outer Shareable (D17.2 PAR_EL1.SH).
        shared = fn.select(device | attr.eq(0x44), fn.i64(_OUTER), pte.lshr(8) & 3)
        fn.put("walk_par", attr << 56 | shared << 7)
        fn.put("walk_shift", shift)
        fn.put("walk_ng", bit(pte, 11))
        fn.ret(0)
    return fn.i64(0)  # not reached


def _pa_bits(fn: Function, ips: Value) -> Value:
    """Output address size in bits from TCR_EL1.IPS, capped at the 44 bits of ID_AA64MMFR0_EL1."""
    sizes = fn.i64(0x2C2C_2C2C_2A28_2420)  # a byte for each value of IPS
    return sizes.lshr(ips << 3) & 0xFF


def _permitted(fn: Function, pte: Value, tables: Value, flags: Value, sctlr: Value) -> Value:
    """AArch64.S1DirectBasePermissions with the hierarchical controls and SCTLR_EL1.WXN."""
    el0 = bit(flags, 2).ne(0)
    readonly = (bit(pte, 7) | bit(tables, 62)).ne(0)
    user = (bit(pte, 6) & (bit(tables, 61) ^ 1)).ne(0)
    uxn = (bit(pte, 54) | bit(tables, 60)).ne(0)
    pxn = (bit(pte, 53) | bit(tables, 59)).ne(0)
    wxn = bit(sctlr, 19).ne(0)
    readable = user | ~el0
    writable = ~readonly & readable
    # What EL0 can write is never executable at EL1.
    user_writable = user & ~readonly
    executable = fn.select(el0, ~uxn, ~pxn & ~user_writable) & ~(wxn & writable)
    fetch, write = bit(flags, 1).ne(0), bit(flags, 0).ne(0)
    return fn.select(fetch, executable, fn.select(write, writable, readable))


@exported
def fetches(fn: Function, va: Value) -> Value:
    """1 if the instruction at va can be fetched at the present level, 0 if it faults."""
    with fn.if_((va & 3).ne(0)):
        fn.ret(0)
    status = walk(fn, va, fn.get("el").eq(0).zext("i64") * WALK_EL0 | WALK_FETCH)
    with fn.if_(status.ne(0)):
        fn.ret(0)
    return (~segment(fn, fn.get("walk_ipa")).is_null()).zext("i64")


@native
def address_translate(fn: Function, va: Value, flags: Value) -> None:
    """AT S1E*: PAR_EL1 for an address and the flags of `walk` (D17.2.102)."""
    status = walk(fn, va, flags)
    with fn.if_(status.ne(0)):
        fn.put("par_el1", (status & 0x3F) << 1 | 0x801)
        fn.ret()
    fn.put("par_el1", fn.get("walk_ipa") | fn.get("walk_par") | 0xA00)  # NS, and a RES1 bit

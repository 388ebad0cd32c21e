"""The CPU's state as one flat struct: the layout, declared once, that generated code and Python
share.

Offsets are bytes from the struct's start. General registers come first, so that an op record can
name one by its byte offset: slot 31 is the current SP, slot 32 always reads zero (XZR as a source),
slot 33 takes writes to XZR. The software TLBs and the step page follow the named fields; `State` is
the ctypes view of everything before them.
"""

from __future__ import annotations

import ctypes

from armkvm.arch import debug
from armkvm.arch.sysreg import STORED

ZERO_SLOT, DUMP_SLOT, SP_SLOT = 32, 33, 31

# Names of the u64 fields behind the general registers.
_WORDS = """
flag_n flag_z flag_c flag_v
limit32 pc_base dtlb itlb dtlb_el0 itlb_el0 fp_trap sp_mask
exit_code exit_op exit_acc
arg0 arg1 arg2 arg3 access
pc el spsel daif il ss sp_el0_ sp_el1_ fpcr fpsr
excl_addr excl_size excl_lo excl_hi
count limit kick
ns_base ns_count ns_mult cntvoff cntpoff
cntv_ctl cntv_cval cntp_ctl cntp_cval cntv_masked cntp_masked cnthctl hyp_deadline_ns
hcr_vi hcr_vf hcr_vse vsesr_el2 twe
esr_el2 far_el2 hpfar_el2
fault_status fault_va fault_ipa fault_kind
stage2 segment_hint ic_host context next_context el1_low el1_blocks el0_blocks el0_high stepping
bounce_host0 bounce_host1 bounce_size bounce_split
walk_ipa walk_attr walk_shift walk_ng walk_par
ich_hcr ich_vmcr ich_ap0r ich_ap1r ich_lr0 ich_lr1 ich_lr2 ich_lr3
icc_sre gicv_base gicv_size phys_deactivated ich_counted_id
el0_count mode_count tde watching
""".split()  # noqa: SIM905 - a table reads better than 60 quoted strings

V_OFFSET = 1088
BOUNCE = V_OFFSET + 32 * 16  # 64 bytes: a page-crossing access goes through here
CONTEXTS = 8
CONTEXT_KEYS = BOUNCE + 64  # CONTEXTS x {ttbr0 base | asid << 48}
SYSREG_BASE = CONTEXT_KEYS + 8 * CONTEXTS

OFFSET: dict[str, int] = {"x0": 0, "sp": 8 * SP_SLOT}
OFFSET |= {name: 8 * 34 + 8 * i for i, name in enumerate(_WORDS)}
OFFSET |= {r.field: SYSREG_BASE + 8 * i for i, r in enumerate(STORED)}
assert OFFSET[_WORDS[-1]] + 8 <= V_OFFSET

# Software TLBs: one data and one instruction TLB for EL1, and one pair for each remembered EL0
# context.
DTLB_ENTRIES = 1024  # {read tag, write tag, addend, log2 of the translation's block size}
DTLB_ENTRY = 32
ITLB_ENTRIES = 1024  # {tag, records, log2 of the block size, unused}
ITLB_ENTRY = 32
NO_TAG = 0x800  # no tag has this bit: tags are page addresses, with low bits for a misalignment

# Behind the system registers: {DBGWVR<n>_EL1, DBGWCR<n>_EL1, the context ID it is linked to}
WATCHPOINTS = SYSREG_BASE + 8 * len(STORED)
WATCHPOINT = 24
WATCH_VALUE, WATCH_CONTROL, WATCH_CONTEXT = 0, 8, 16

PAGE_MASK = -4096
RECORD = 32
RECORD_SHIFT = 5
OPERANDS = 8  # operand bytes start here in a record
PAGE_RECORDS = 1025 * RECORD  # a page of instructions and the sentinel
META_CODE = PAGE_RECORDS  # host address of the guest page
META_WORDS = PAGE_RECORDS + 8  # address of the instructions as they were fetched
META_LIVE = PAGE_RECORDS + 16  # 1 while any record is decoded
PAGE_WORDS = PAGE_RECORDS + 96  # the fetched instructions: a copy of the guest page
PAGE_STRIDE = PAGE_WORDS + 4096
assert PAGE_WORDS % 64 == PAGE_STRIDE % 64 == 0

TLB_BASE = (WATCHPOINTS + debug.WATCHPOINTS * WATCHPOINT + 4095) & ~4095
DTLB_SIZE = DTLB_ENTRIES * DTLB_ENTRY
ITLB_SIZE = ITLB_ENTRIES * ITLB_ENTRY
DTLB_EL1 = TLB_BASE
DTLB_EL0 = DTLB_EL1 + DTLB_SIZE
ITLB_EL1 = DTLB_EL0 + CONTEXTS * DTLB_SIZE
ITLB_EL0 = ITLB_EL1 + ITLB_SIZE
STEP_PAGE = ITLB_EL0 + CONTEXTS * ITLB_SIZE
CPU_SIZE = (STEP_PAGE + PAGE_WORDS + 4095) & ~4095

# Stage 2: number and index of the segments; the arena of record pages with its table by host page;
# the CPUs. The index is sorted: {ipa, address of the segment}.
S2_COUNT, S2_INDEX, S2_ARENA, S2_ARENA_NEXT, S2_ARENA_END, S2_NCPUS = 0, 8, 16, 24, 32, 40
S2_PAGES, S2_PAGES_SHIFT = 48, 56  # the table's address; 64 - log2 of its entries
INDEX_ENTRY = 16
PAGES_ENTRY = 16  # {host page, its records}
SEG_SIZE = 64  # {ipa, size, host, flags, dirty log}
SEG_IPA, SEG_BYTES, SEG_HOST, SEG_FLAGS, SEG_LOG = 0, 8, 16, 24, 32
SEG_READONLY, SEG_LOGGED = 1, 2
MAX_CPUS = 512
S2_CPU_LIST = 64
S2_SIZE = S2_CPU_LIST + 8 * MAX_CPUS


class State(ctypes.Structure):
    """The named part of the struct, for Python."""

    _fields_ = [
        ("x", ctypes.c_uint64 * 31),
        ("sp", ctypes.c_uint64),
        ("zero", ctypes.c_uint64),
        ("dump", ctypes.c_uint64),
        *((name, ctypes.c_uint64) for name in _WORDS),
        ("_pad", ctypes.c_uint8 * (V_OFFSET - 8 * 34 - 8 * len(_WORDS))),
        ("v", ctypes.c_uint64 * 64),
        ("bounce", ctypes.c_uint64 * 8),
        ("context_keys", ctypes.c_uint64 * CONTEXTS),
        *((r.field, ctypes.c_uint64) for r in STORED),
        ("watchpoints", ctypes.c_uint64 * (debug.WATCHPOINTS * WATCHPOINT // 8)),
    ]


assert State.context_keys.offset == CONTEXT_KEYS
assert State.watchpoints.offset == WATCHPOINTS
assert getattr(State, STORED[-1].field).offset == OFFSET[STORED[-1].field]

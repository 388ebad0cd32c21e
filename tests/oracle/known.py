"""Where unicorn 2.1.4 is wrong or merely chose otherwise, with the sentence of the manual.

Each entry says which samples it excuses, as narrowly as it can: such a sample may differ, all
others of the same form may not.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.oracle.samples import DATA, DATA_SIZE, Sample

from armkvm.isa.table import Form


def _address(sample: Sample) -> int:
    """X[Rn] or SP, for instructions without an offset."""
    n = sample.word >> 5 & 31
    return int.from_bytes(sample.registers[8 * n : 8 * n + 8], "little")


def _size(sample: Sample) -> int:
    """Bytes accessed by the load/store exclusive and ordered encodings."""
    return (1 << (sample.word >> 30)) << (sample.word >> 21 & 1)


def _unaligned_ordered(form: Form, sample: Sample) -> bool:
    return form.name.startswith("LDAR") and _address(sample) % _size(sample) != 0


def _refused_exclusive(form: Form, sample: Sample) -> bool:
    if not form.name.startswith(("STXR", "STXP")):
        return False
    address = _address(sample)
    return address % _size(sample) != 0 or not DATA <= address < DATA + DATA_SIZE


def _narrow_signed_minmax(form: Form, sample: Sample) -> bool:
    """LDSMAX and LDSMIN of less than 64 bits; tests/isa/ldst/test_lse.py checks them instead."""
    op = sample.word >> 12 & 0xF
    return form.name.startswith("LDADD") and sample.word >> 30 < 3 and op in (4, 5)


KNOWN: list[tuple[str, Callable[[Form, Sample], bool]]] = [
    (
        "B2.5.2: Load-Acquire and Store-Release instructions generate an Alignment fault if the "
        "address being accessed is not aligned to the size of the data structure being accessed. "
        "QEMU 5.0 checked only exclusives.",
        _unaligned_ordered,
    ),
    (
        "AArch64.ExclusiveMonitorsPass: it is IMPLEMENTATION DEFINED whether the detection of "
        "memory aborts happens before or after the check on the local Exclusives monitor.",
        _refused_exclusive,
    ),
    (
        "LDSMAX: ... treating the values as signed numbers. QEMU 5.0 compares a "
        "sign-extended operand with a zero-extended one (fixed in 5.1).",
        _narrow_signed_minmax,
    ),
]


def excuse(form: Form, sample: Sample) -> bool:
    """True when the two may differ on this sample."""
    return any(applies(form, sample) for _, applies in KNOWN)

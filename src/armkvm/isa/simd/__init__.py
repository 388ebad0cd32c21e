"""Advanced SIMD, one file an encoding class of the manual (C4.1)."""

from armkvm.isa.table import feature

ASIMD = feature(
    "asimd",
    consists=(
        "ldst.simd_struct", "ldst.simd_single", "simd.across", "simd.copy", "simd.elem",
        "simd.estimate", "simd.fp", "simd.fp_across", "simd.fp_elem", "simd.fp_imm",
        "simd.fp_three_same", "simd.fp_width", "simd.imm", "simd.logic", "simd.misc",
        "simd.misc_width", "simd.permute", "simd.shift_imm", "simd.shift_width",
        "simd.three_diff", "simd.three_same",
    ),
    field=("id_aa64pfr0_el1", 20, 0),
    absent=0xF,
    traps="fp",
)  # fmt: skip

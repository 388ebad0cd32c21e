"""Scalar floating point: one file an encoding class, and the manual's pseudocode (fp*.py)."""

from armkvm.isa.table import feature

FP = feature(
    "fp",
    consists=(
        "fp.compare", "fp.convert", "fp.dp", "LDR_literal_fp", "LDP_fp",
        "LDST_fp_unsigned", "LDST_fp_unscaled", "LDST_fp_post", "LDST_fp_pre", "LDST_fp_register",
        "LDST_fp_extended", "MRS_FPCR", "MSR_FPCR", "MRS_FPSR", "MSR_FPSR",
    ),
    field=("id_aa64pfr0_el1", 16, 0),
    absent=0xF,
    traps="fp",
)  # fmt: skip

"""A word: what a general-purpose register, an address or a counter holds (Arm ARM B1.2.1)."""

from typing import Final

M64: Final = (1 << 64) - 1  # what is computed of them is computed modulo 2^64

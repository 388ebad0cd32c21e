"""Advanced SIMD, one file an encoding class of the manual (C4.1)."""

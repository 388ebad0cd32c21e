"""Scalar floating point: one file an encoding class, and the manual's pseudocode (fp*.py)."""

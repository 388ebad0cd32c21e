"""What guest instructions mean: one traced description per A64 instruction, and what follows from it."""

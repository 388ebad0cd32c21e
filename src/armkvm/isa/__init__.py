"""What guest instructions mean: one traced description each, and what follows from it."""

"""Executes guest instructions: the native machine that Python writes from the isa through LLVM."""

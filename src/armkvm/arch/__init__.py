"""The Arm architecture's numbers, each once: registers, syndromes, bits. A leaf."""

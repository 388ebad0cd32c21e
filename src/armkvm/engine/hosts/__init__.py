"""What the engine knows of the machine it runs on: one file a kind of host."""

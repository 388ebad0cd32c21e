"""What hangs on the machine's bus."""

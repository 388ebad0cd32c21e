"""The first tier: op records, a handler for each instruction form, the native decoder."""

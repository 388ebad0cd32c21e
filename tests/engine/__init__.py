"""Tests of the engine: translation, exceptions, exact stops, the cache on disk."""

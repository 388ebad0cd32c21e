"""Tests of what single instructions do."""

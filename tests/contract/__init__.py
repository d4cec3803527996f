"""Checks that every registered algorithm and compressor must pass."""

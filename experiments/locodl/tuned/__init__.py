"""Tuned versions of the comparisons: each method at its best step size and compressor, at equal budget."""

"""Layers against flax's own, networks by their published parameter counts."""

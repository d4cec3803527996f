"""Figures of MCM (arXiv 2102.12528)."""

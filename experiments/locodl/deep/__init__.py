"""LoCoDL (arXiv 2403.04348) and its rivals where no theorem holds: networks."""

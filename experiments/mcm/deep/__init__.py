"""Networks trained with compression both ways (MCM, arXiv 2102.12528)."""

"""LIEC-SGD and its comparison set (arXiv 2402.11857)."""

"""SAVIC, local methods with adaptivity via scaling (arXiv 2406.00846)."""

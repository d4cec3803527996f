"""Low-rank, adaptive and accelerated compression with a server."""

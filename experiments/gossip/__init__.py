"""Methods without a server, on graphs."""

"""The documentation: its pages, and how they become a site (`make docs`)."""

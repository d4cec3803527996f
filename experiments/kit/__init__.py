"""What recipes of figures share: contenders, claims, and the way from runs to a page."""

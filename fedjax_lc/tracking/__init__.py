"""Trackers: what sees every record of a run, or of a sweep's lanes, while it is under way. One file each."""

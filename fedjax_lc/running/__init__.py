"""One run of a method: the compiled loop over steps, compiled programs and their cache on disk.

Import `run` from `fedjax_lc`; all else is for the rooms above.
"""

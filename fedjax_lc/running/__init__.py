"""One run: the compiled loop, programs and their cache.

Import `run` from `fedjax_lc`; all else is for the rooms above.
"""

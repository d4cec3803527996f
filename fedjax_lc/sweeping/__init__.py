"""Sweeps, many runs side by side: axes and grids, lanes placed on devices, blocks, and folders of results.

Import `sweep`, `grid`, `sample` and their axes from `fedjax_lc`; all else is for the rooms above.
"""

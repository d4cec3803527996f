"""The basis of all rooms: types, pytrees, errors, files, choices by platform, exact products, rules for lanes.

Import the module you need, as in `from fedjax_lc.core import pytree`.
"""

"""What methods are made of: the registry, rounds with a server, rounds of local training, aggregation, step sizes and
schedules.

Method files import from here, as in `from fedjax_lc.algorithms.frames.base import register`.
"""

"""Results of runs and sweeps: traces, tables, sums of costs, provenance, and text tables.

Import `Trace` and `Table` from `fedjax_lc`, `ledger` and `report` from here.
"""

"""What runs and sweeps leave behind: traces, tables, sums of costs, where they came from, and text tables.

Import `Trace` and `Table` from `fedjax_lc`, `ledger` and `report` from here.
"""

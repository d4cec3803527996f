"""Slow NumPy implementations written from the papers' formulae, one explicit loop per sum.

They share no code with the package. Random draws are arguments, so both can be fed the same ones:
`coin(t)`, `compress(t, i, slot, v)`, `mask(t)`, `cohort(t)`, `local_steps(t)`.
"""

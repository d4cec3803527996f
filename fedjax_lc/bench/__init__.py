"""Speed, measured against what people would write without this package; one module per suite."""

from __future__ import annotations

from fedjax_lc.bench import mcm, single, sweep

SUITES = {"single": single, "sweep": sweep, "mcm": mcm}

__all__ = ["SUITES", "mcm", "single", "sweep"]

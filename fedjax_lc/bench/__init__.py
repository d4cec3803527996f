"""Speed, measured against what people would write without this package; one module per suite."""

from __future__ import annotations

from fedjax_lc.bench import single, sweep

SUITES = {"single": single, "sweep": sweep}

__all__ = ["SUITES", "single", "sweep"]

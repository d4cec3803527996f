"""Speed, measured against what people would write without this package; one module per suite."""

from __future__ import annotations

from experiments.bench import feedback, gossip, gpu, mcm, neural, scale, single, sweep

SUITES = {
    "single": single,
    "sweep": sweep,
    "mcm": mcm,
    "neural": neural,
    "feedback": feedback,
    "gossip": gossip,
    "gpu": gpu,
    "scale": scale,
}

__all__ = ["SUITES", "feedback", "gossip", "gpu", "mcm", "neural", "scale", "single", "sweep"]

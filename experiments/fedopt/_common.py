"""What the figures of FedOpt (arXiv 2003.00295) share: five servers, and what is tried of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.kit.claim import Claim
from experiments.kit.contender import Contender

SERVERS: Mapping[str, Sequence[float]] = {
    "fedavg": (1.0, 2.0, 4.0),
    "fedavgm": (0.3, 1.0, 2.0),
    "fedadagrad": (0.1, 0.3, 1.0),
    "fedadam": (0.01, 0.03, 0.1),
    "fedyogi": (0.01, 0.03, 0.1),
}
ADAPTIVE = ("FedAdagrad", "FedAdam", "FedYogi")
CLAIMS = (
    *(Claim(f"{name} is above FedAvg", (name,), ("FedAvg",)) for name in ("FedAvgM", *ADAPTIVE)),
    Claim("FedAdam and FedYogi are within one point: FedYogi", ("FedYogi",), ("FedAdam",), margin=-0.01),
    Claim("FedAdam and FedYogi are within one point: FedAdam", ("FedAdam",), ("FedYogi",), margin=-0.01),
)
SETTINGS = "tau = 0.001, b1 = 0.9, b2 = 0.99, v0 = tau^2"  #: of the adaptive ones, theory's defaults


def curves(client_lrs: Sequence[float], **changes: Any) -> tuple[Contender, ...]:
    """The five, each with four client and three server learning rates."""
    return tuple(
        Contender(name, changes=changes, tune={"client_lr": client_lrs, "server_lr": server_lrs})
        for name, server_lrs in SERVERS.items()
    )

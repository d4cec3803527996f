"""What the figures of MCM (arXiv 2102.12528) share: its problems, step sizes and published values.

Beside the LIBSVM sets, the folder FEDJAX_LC_DATA holds mcm/: the authors' synthetic problems (NAME.npz) and clusters
of their non-iid splits (NAME_clusters.npy), as github.com/philipco/mcm-bidirectional-compression has them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.kit.claim import Claim
from experiments.kit.contender import Contender, fields
from experiments.kit.passes import Passes
from fedjax_lc import data, problems
from fedjax_lc.core.errors import InputError
from fedjax_lc.data.download import local_folder
from fedjax_lc.problems import Problem

NUM_CLIENTS = 20
OMEGA = math.sqrt(20)  #: of one level on the synthetic least squares, d = 20
REBALANCE = 10
QUANTUM_FEATURES = 65
#: F* that the published curves subtract: the loss after 40,000 gradient steps, not the minimum
F_STAR = {"a9a": 0.3196268, "phishing": 0.1231585, "w8a": 0.0702559, "quantum": 0.5157690, "superconduct": 0.2654386}
METHODS = ("sgd", "diana", "artemis", "dore", "mcm", "rand_mcm")
EVERYTHING = ("sgd", "qsgd", "diana", "biqsgd", "artemis", "dore", "double_squeeze", "mcm", "rand_mcm", "ghost")
WITH_MEMORY = ("SGD", "DIANA", "Artemis", "Dore", "MCM", "Rand-MCM", "Ghost")  #: or in no need of one
WITHOUT_MEMORY = ("QSGD", "BiQSGD", "DoubleSqueeze")

ORDERINGS = (
    Claim("MCM and Rand-MCM are lower than Artemis and Dore", ("MCM", "Rand-MCM"), ("Artemis", "Dore")),
    Claim("SGD is lower than DIANA", ("SGD",), ("DIANA",)),
    Claim("MCM and Rand-MCM are about as low as DIANA (within 0.3)", ("MCM", "Rand-MCM"), ("DIANA",), margin=-0.3),
    Claim("Artemis and Dore are about equal (within 0.3)", ("Artemis",), ("Dore",), margin=-0.3),
)


def mcm_file(name: str) -> Path:
    """A file of the folder mcm/ beside the data sets.

    Raises:
        InputError: it is not there.
    """
    folder = local_folder(None)
    path = None if folder is None else folder / "mcm" / name
    if path is None or not path.is_file():
        raise InputError(f"mcm/{name} is not on this machine: set FEDJAX_LC_DATA to a folder that holds it")
    return path


def with_bias(features: np.ndarray) -> np.ndarray:
    """A column of ones in front."""
    return np.hstack([np.ones((len(features), 1)), features])


def superconduct() -> data.Dataset:
    """UCI's superconductivity set: mcm/superconduct.csv, its train.csv (81 features, critical_temp); targets
    standardised."""
    found = data.load(mcm_file("superconduct.csv"), labels="regression")
    return dataclasses.replace(found, targets=data.scaled(found.targets[:, None], "standard")[:, 0])


def quantum() -> data.Dataset:
    """KDD Cup 2004's physics set: mcm/phy_train.csv, no header, columns id, target and 78 features.

    Columns with missing values (999 or 9999) and constant ones go, which should leave the authors' 65 (recalled only).

    Raises:
        InputError: another number of columns is left.
    """
    import pandas as pd

    path = mcm_file("phy_train.csv")
    table = pd.read_csv(path, header=None, sep=None, engine="python").to_numpy(np.float64)[:, 1:]
    features = table[:, 1:]
    kept = ~np.any((features == 999) | (features == 9999), axis=0) & np.any(features != features[0], axis=0)
    if kept.sum() != QUANTUM_FEATURES:
        raise InputError(f"{path}: {kept.sum()} features are neither missing nor constant, expected {QUANTUM_FEATURES}")
    return data.from_arrays(features[:, kept], table[:, 0], name="quantum")


OWN_FILES = {"quantum": quantum, "superconduct": superconduct}


def clustered(name: str) -> Problem:
    """A set standardised, with a bias, one client for each of the authors' clusters; L by Frobenius norms, their F*."""
    jax.config.update("jax_enable_x64", True)
    dataset = OWN_FILES[name]() if name in OWN_FILES else data.load(name)
    table = with_bias(data.scaled(dataset.features, "standard"))
    how = f"clusters:{mcm_file(f'{name}_clusters.npy')},rebalance={REBALANCE}"
    rows = data.partition(dataset, NUM_CLIENTS, how)
    clients = [(table[own], dataset.targets[own]) for own in rows]
    options: Mapping[str, Any] = {"l2": 0.0, "norm": "frobenius", "f_star": F_STAR[name], "dtype": "float64"}
    make = least_squares if dataset.task == "regression" else problems.logistic_regression
    return make(clients, **options)


def least_squares(clients: Sequence[tuple[Any, Any]], **options: Any) -> Problem:
    """f_i(x) = mean_s (<a_s, x> - b_s)^2, without the 1/2 of `fl.problems.least_squares`."""
    root = math.sqrt(2)
    return problems.least_squares([(root * A, root * b) for A, b in clients], **options)


def synthetic(name: str) -> Problem:
    """One of the authors' synthetic problems: synth_linear_noised, synth_linear_nonoised or synth_logistic."""
    jax.config.update("jax_enable_x64", True)
    with np.load(mcm_file(f"{name}.npz"), allow_pickle=False) as arrays:
        clients = list(zip(arrays["X"], arrays["Y"], strict=True))
    make = least_squares if "linear" in name else problems.logistic_regression
    return make(clients, l2=0.0, norm="frobenius", dtype="float64")


def curves(
    names: Sequence[str] = METHODS, paper: Mapping[str, float] | None = None, s: int = 1, **changes: Any
) -> tuple[Contender, ...]:
    """Methods as the authors run them: gamma = 1/L, alpha = 1/(2 (1 + omega)), smart initialisation, s levels."""
    return tuple(curve(name, s, (paper or {}).get(name), **changes) for name in names)


def curve(
    name: str, s: int = 1, paper: float | None = None, note: str = "", steps: float = 1.0, **changes: Any
) -> Contender:
    """One of them; `changes` replace its hyperparameters, and gamma = steps/L."""
    choices: dict[str, Any] = {"convention": "mcm_repo"}
    choices |= dict.fromkeys({"compressor", "downlink"} & fields(name), f"qsgd:{s},code=elias")
    if changes.get("participation") is not None and "smart" in fields(name):
        changes = changes | {"smart": False}
    changes = {"gamma": lambda problem, hp: steps * hp.gamma} | changes
    return Contender(name, choices=choices, changes=changes, note=note, paper=paper)


def passes(title: str, problem: str, **options: Any) -> Passes:
    """A figure on one of the synthetic problems."""
    return Passes(title=title, problem=lambda: synthetic(problem), counted=round_bits, **options)


def round_bits(hp: Any, problem: Problem) -> float:
    """Bits of a round of both directions, as `direction_bits` counts; those who take no part hear nothing where models
    are compressed on their way down (MCM's family)."""
    up, down = (getattr(getattr(hp, way, None), "s", 0) for way in ("compressor", "downlink"))
    share = hp.participation or 1.0
    share_down = share if hasattr(hp, "alpha_dwn") else 1.0
    return share * direction_bits(up, problem.dim, problem.n) + share_down * direction_bits(
        down, problem.dim, problem.n
    )


def direction_bits(s: float, d: int, n: int) -> float:
    """Bits of one direction of a round, all n clients together, as the authors count them.

    QSGD's expected length of s levels with a natural for a binary logarithm, and the 32 bits of the norm once; s = 0:
    uncompressed.

    >>> round(direction_bits(1, 20, 20), 1), direction_bits(0, 20, 20)
    (1035.7, 12800)
    """
    if s == 0:
        return 32 * n * d
    nonzeros = s * (s + math.sqrt(d))
    return n * 4.5 * math.log(2 * (s**2 + d) / nonzeros) * nonzeros + 32


def real(
    name: str, *, batch: int, rounds: int, paper: Mapping[str, float] | None = None, participation: float | None = None
) -> Passes:
    """The methods on a clustered set for 599 passes; `rounds` is floor(min_i n_i / batch)."""
    half = "" if participation is None else f", each client in a round with probability {participation:g}"
    return Passes(
        title=f"MCM on {name}, b = {batch}{half}",
        problem=lambda: clustered(name),
        curves=curves(paper=paper, batch_size=batch, participation=participation),
        passes=599,
        rounds=rounds,
        claims=ORDERINGS,
        counted=round_bits,
    )

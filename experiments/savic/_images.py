"""Images split by main class, in the style of SAVIC's experiment (arXiv 2406.00846, recalled only: ten clients with a
share of a main class, unscaled against Adam and OASIS, global against local). No number here is the paper's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments._networks import CIFAR_PIXELS, MNIST_PIXELS, UNUSED, load, remarks, shortened, standardised
from experiments.kit.claim import Claim
from experiments.kit.contender import Contender
from experiments.kit.training import Training
from fedjax_lc import problems
from fedjax_lc.problems import Problem

NUM_CLIENTS = 10
PIXELS = {"mnist": MNIST_PIXELS, "cifar10": CIFAR_PIXELS}
STEPS: Mapping[str, Sequence[float]] = {
    "none": (0.01, 0.03, 0.1, 0.3),
    "adam": (0.0003, 0.001, 0.003, 0.01),
    "oasis": (0.003, 0.01, 0.03, 0.1),
}
ALPHA = {"none": 1.0, "adam": 1e-3, "oasis": 0.1}
CLAIMS = (
    Claim("Adam: global is above local", ("Adam, global",), ("Adam, local",)),
    Claim("OASIS: global is above local", ("OASIS, global",), ("OASIS, local",)),
    Claim("global Adam is above no scaling", ("Adam, global",), ("no scaling",)),
    Claim("global OASIS is above no scaling", ("OASIS, global",), ("no scaling",)),
)


def curve(label: str, rule: str, scaling: str, local_steps: int, batch_size: int, n_warm: int) -> Contender:
    """A curve of SAVIC at its best gamma of four, or more while the best is at an end."""
    changes: dict[str, Any] = {"beta": 0.99, "batch_size": batch_size, "replacement": True, "n_warm": n_warm}
    choices = {"rule": rule, "scaling": scaling, "local_steps": local_steps, "alpha": ALPHA[rule]}
    return Contender("savic", choices=choices, changes=changes, tune={"gamma": STEPS[rule]}, name=label)


def curves(local_steps: int = 5, batch_size: int = 20, n_warm: int = 10) -> tuple[Contender, ...]:
    own = (local_steps, batch_size, n_warm)
    return (
        curve("no scaling", "none", "global", *own),
        curve("Adam, global", "adam", "global", *own),
        curve("Adam, local", "adam", "local_sync", *own),
        curve("OASIS, global", "oasis", "global", *own),
        curve("OASIS, local", "oasis", "local_sync", *own),
    )


def split(name: str, model: Any, share: float, rows: int | None, test_rows: int | None, **options: Any) -> Problem:
    """The training of a network by ten clients, each with this share of its main class."""
    dataset = shortened(load(name), rows, test_rows)
    how = f"main_class:{share}"
    return problems.problem(
        dataset, NUM_CLIENTS, how, model, prepare=standardised(*PIXELS[name]), smooth=UNUSED, **options
    )


def by_main_class(name: str, model: str, share: float, rounds: int = 100) -> Training:
    """Small enough for a CPU: 5 local steps of 20 rows a round, 2,000 test rows."""
    return Training(
        title=f"{name}, main classes of {share:.0%}: scaled local steps, in the style of SAVIC's experiment",
        problem=lambda: split(name, model, share, None, 2000, measured_rows=1000),
        curves=curves(),
        rounds=rounds,
        every=rounds // 20,
        seeds=3,
        tune_rounds=30,
        claims=CLAIMS,
        said=lambda: (
            f"All training and the first 2,000 test images, {model}, 5 local steps of 20 rows a round; train "
            "loss on 1,000 rows; alpha 0.001 for Adam, 0.1 for OASIS, beta 0.99, 10 probes at the first refresh. "
            + remarks(name)
        ),
    )


def full(name: str, model: str, share: float) -> Training:
    """For a GPU: all rows, 500 rounds of 10 local steps of 128 rows."""
    small = by_main_class(name, model, share)
    return dataclasses.replace(
        small,
        problem=lambda: split(name, model, share, None, None, measured_rows=5000, usual_batch=128),
        curves=curves(local_steps=10, batch_size=128),
        rounds=500,
        every=10,
        seeds=3,
        tune_rounds=50,
        said=lambda: f"All images, {model} with group norms, 10 local steps of 128 rows a round. " + remarks(name),
    )

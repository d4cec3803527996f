"""What the deep-learning figures of MCM (arXiv 2102.12528) share: settings of the authors' code, published accuracies.

Twenty clients with contiguous parts of the training images, batches of 128 with replacement, gamma = 0.1, s levels for
each parameter tensor, memory rates 1/(2 (1 + omega)) of each tensor. Unlike there, H starts at the initial model, so
that the first downlink message is not zero. Momentum (of CIFAR-10) is the server's: with all clients taking part, that
is the mean of the authors' buffers, one of each client.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments._networks import (
    CIFAR_PIXELS,
    MNIST_PIXELS,
    UNUSED,
    flip_and_crop,
    in_order,
    load,
    remarks,
    shortened,
    standardised,
)
from experiments.kit.claim import Claim
from experiments.kit.contender import Contender, fields
from experiments.kit.training import Training
from fedjax_lc import compressors, problems
from fedjax_lc.problems import Problem

NUM_CLIENTS, BATCH, GAMMA = 20, 128, 0.1
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "mnist": {"model": "mnist_cnn", "s": 4, "pixels": MNIST_PIXELS, "augment": None, "momentum": None},
    "cifar10": {
        "model": "lenet",
        "s": 16,
        "pixels": CIFAR_PIXELS,
        "augment": flip_and_crop,
        "momentum": 0.9,
    },
}
#: accuracy in per cent after 300 epochs, mean and deviation of two runs; R-MCM's stored curves are MCM's
PAPER = {
    "mnist": {
        "sgd": "99.08 ± .02", "diana": "98.89 ± .02", "artemis": "98.00 ± .17", "dore": "98.03 ± .04",
        "mcm": "98.92 ± .03", "rand_mcm": "as MCM",
    },
    "cifar10": {
        "sgd": "70.47 ± .38", "diana": "65.19 ± .15", "artemis": "55.64 ± .44", "dore": "55.81 ± .75",
        "mcm": "64.87 ± .71", "rand_mcm": "as MCM",
    },
}  # fmt: skip
FEW, ALL = ("sgd", "diana", "artemis", "mcm"), ("sgd", "diana", "artemis", "dore", "mcm", "rand_mcm")
CLAIMS = (
    Claim("SGD is above DIANA and MCM", ("SGD",), ("DIANA", "MCM")),
    Claim("MCM is at most one point below DIANA", ("MCM",), ("DIANA",), margin=-0.01),
    Claim("MCM and DIANA are above Artemis", ("MCM", "DIANA"), ("Artemis",)),
)


def memory_rates(sizes: tuple[int, ...], s: int) -> np.ndarray:
    """(d,) 1/(2 (1 + omega)) of each tensor, for all of its entries."""
    quantiser = compressors.QSGD(s)
    return np.concatenate([np.full(size, 1 / (2 * (1 + float(quantiser.omega(size))))) for size in sizes])


def curve(name: str, dataset: str) -> Contender:
    """A method with memory rates of its own for each parameter tensor; Dore's errors come back times the step size."""
    s, has = SETTINGS[dataset]["s"], fields(name)
    both = dict.fromkeys({"compressor", "downlink"} & has, f"per_block(qsgd:{s},code=elias):layers")
    rates = lambda problem, hp: jnp.asarray(memory_rates(problem.layers, s), problem.dtype)
    changes: dict[str, Any] = {"gamma": GAMMA, "momentum": SETTINGS[dataset]["momentum"], "batch_size": BATCH}
    changes |= {"replacement": True} | dict.fromkeys({"alpha", "alpha_up", "alpha_dwn"} & has, rates)
    changes |= {"c_ef": GAMMA} if "c_ef" in has else {}
    return Contender(name, choices={"convention": "mcm_repo"} | both, changes=changes, paper=PAPER[dataset][name])


def problem(name: str, rows: int | None, measured_rows: int) -> Problem:
    own = SETTINGS[name]
    dataset = in_order(shortened(load(name), rows, None), NUM_CLIENTS)
    prepare = standardised(*own["pixels"])
    return problems.problem(
        dataset, model=own["model"], prepare=prepare, augment=own["augment"], measured_rows=measured_rows, smooth=UNUSED
    )


def deep(name: str, *, rows: int, epochs: int, methods: tuple[str, ...], every: int, seeds: int = 1) -> Training:
    """Methods for so many epochs over the first `rows` training images, recorded after every so many epochs."""
    s, each = SETTINGS[name]["s"], math.ceil(rows // NUM_CLIENTS / BATCH)
    momentum = "" if SETTINGS[name]["momentum"] is None else f", momentum {SETTINGS[name]['momentum']:g} at the server"
    how = (
        f"{epochs} epochs of {each} rounds over the first {rows:,} training images, the paper's 300 over all. Its "
        f"accuracies, mean and deviation of two runs, are told for comparison only. gamma = {GAMMA:g}, "
        f"constant{momentum}, b = {BATCH} with replacement; s = {s} levels for each parameter tensor, memory rates "
        "1/(2 (1 + omega)) of each; smart initialisation of the h_i; H starts at the initial model, not at the first "
        "step's as there, so the first downlink message is not zero. Train loss is on 2,000 training rows of the "
        "central model, without dropout; there it is the mean over minibatches. "
    )
    if epochs < 100:
        how += (
            "H goes the share alpha_dwn of the way to w in a round, about a hundredth for the largest tensors, so that "
            "in so few rounds MCM's downlink still compresses much of what was learnt. "
        )
    return Training(
        title=f"MCM, deep learning on {name}: {epochs} epochs",
        problem=lambda: problem(name, rows, 2000),
        curves=tuple(curve(method, name) for method in methods),
        rounds=epochs * each,
        every=every * each,
        seeds=seeds,
        claims=CLAIMS,
        claims_are="ordering of the paper",
        paper_is="paper's accuracy % (300 epochs)",
        said=lambda: how + remarks(name),
    )

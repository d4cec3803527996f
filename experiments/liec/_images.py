"""Networks trained by eight clients alike, in the setting of LIEC-SGD (arXiv 2402.11857): scaled and blockwise signs.

From the authors' code: step size 0.1, weight decay 0.0005, no momentum, batches of 128 a client, period 32 or 100,
CSER's 8, NEOLITHIC's two messages, one error at the server. Their accuracies are not known to us.
"""

from __future__ import annotations

from typing import Any

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
from experiments.kit.contender import Contender, everywhere
from experiments.kit.training import Training
from experiments.liec._advice import ADVICE
from fedjax_lc import problems
from fedjax_lc.problems import Problem

NUM_CLIENTS, GAMMA, DECAY = 8, 0.1, 5e-4
PIXELS = {"mnist": MNIST_PIXELS, "cifar10": CIFAR_PIXELS}
AUGMENT = {"mnist": None, "cifar10": flip_and_crop}
METHODS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("MEM-SGD", "mem_sgd", {}),
    ("DoubleSqueeze", "double_squeeze", {}),
    ("CSER(8)", "cser", {"period": 8}),
    ("NEOLITHIC(2)", "neolithic", {}),
    ("LIEC(32)", "liec_sgd", {"period": 32}),
    ("LIEC(100)", "liec_sgd", {"period": 100}),
)


def curves(
    batch_size: int, kinds: dict[str, str], names: tuple[str, ...] | None = None, **changes: Any
) -> tuple[Contender, ...]:
    """P-SGD, and each method with each kind of signs, by its words, wherever it compresses."""
    changes = {"gamma": GAMMA, "weight_decay": DECAY, "batch_size": batch_size} | changes
    found = [Contender("sgd", changes=changes, name="P-SGD")]
    for words, compressor in kinds.items():
        for label, method, choices in METHODS:
            if names is None or label in names:
                signs = everywhere(method, f"fcc({compressor}):2" if method == "neolithic" else compressor)
                found.append(Contender(method, choices=choices, changes=changes | signs, name=f"{label}{words}"))
    return tuple(found)


def claims(kinds: dict[str, str]) -> tuple[Claim, ...]:
    """Of each kind of signs: the abstract's, that LIEC trains as well as P-SGD and better than methods of its cost."""
    found = []
    for words in kinds:
        liec, squeeze, mem, cser = (f"{label}{words}" for label in ("LIEC(32)", "DoubleSqueeze", "MEM-SGD", "CSER(8)"))
        found += [
            Claim(f"{liec} is at most one point below P-SGD", (liec,), ("P-SGD",), margin=-0.01),
            Claim(f"{liec} is above {squeeze}", (liec,), (squeeze,)),
            Claim(f"{liec} is at most half a point below {mem}", (liec,), (mem,), margin=-0.005),
            Claim(f"{liec} is above {cser}", (liec,), (cser,)),
        ]
    return tuple(found)


def problem(name: str, model: str, measured_rows: int | None) -> Problem:
    """Rows in the data's order, an eighth for each client, which mixes all classes."""
    dataset = in_order(shortened(load(name), None, None), NUM_CLIENTS)
    prepare, augment = standardised(*PIXELS[name]), AUGMENT[name]
    return problems.problem(
        dataset, model=model, prepare=prepare, augment=augment, measured_rows=measured_rows, smooth=UNUSED
    )


def small(name: str, model: str, block: int, epochs: int = 15, batch_size: int = 128) -> Training:
    """For a CPU: one seed, both kinds of signs."""
    kinds = {", one scale": "sign", ", blocks": f"block_sign:{block}"}
    rows = {"mnist": 60_000, "cifar10": 50_000}[name]
    each = -(-rows // (NUM_CLIENTS * batch_size))
    return Training(
        title=f"LIEC-SGD and its comparison set on {name}: {epochs} epochs",
        problem=lambda: problem(name, model, 2000),
        curves=curves(batch_size, kinds),
        rounds=epochs * each,
        every=each,
        seeds=1,
        claims=claims(kinds),
        claims_are="ordering",
        said=lambda: (
            f"{model}, eight clients with an eighth of the training images each, batches of {batch_size}, {each} "
            f"steps an epoch; gamma = {GAMMA:g}, weight decay {DECAY:g}, no momentum. Scaled signs with one scale, or "
            f"with one for each {block:,} entries. Train loss on 2,000 rows. {remarks(name)} {ADVICE}"
        ),
    )


def full(epochs: int = 20) -> Training:
    """For a GPU: pre-activation ResNet-18 with group norms, batches of 128, ten blocks of signs."""
    kinds, each = {", blocks": "block_sign:1310720"}, 49
    schedule = f"steps:{80 * each},0.1"
    return Training(
        title=f"LIEC-SGD on CIFAR-10, ResNet-18: {epochs} epochs",
        problem=lambda: problem("cifar10", "resnet18", 5000),
        curves=curves(128, kinds, ("DoubleSqueeze", "LIEC(32)"), gamma_schedule=schedule),
        rounds=epochs * each,
        every=each,
        seeds=1,
        claims=(
            Claim("LIEC(32) is at most one point below P-SGD", ("LIEC(32), blocks",), ("P-SGD",), margin=-0.01),
            Claim("LIEC(32) is above DoubleSqueeze", ("LIEC(32), blocks",), ("DoubleSqueeze, blocks",)),
        ),
        said=lambda: (
            f"Group norms, 49 steps of 8 x 128 images an epoch, gamma = {GAMMA:g}, weight decay {DECAY:g}; the paper's "
            "120 epochs, with a tenth of gamma from epoch 80 on, are epochs=120 with gamma_schedule. "
            + remarks("cifar10")
        ),
    )

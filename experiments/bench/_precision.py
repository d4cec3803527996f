"""What rounding a network's products costs in accuracy: trainings on a CPU whose float32 products round their inputs as
TF32 (10 bits, NVIDIA) and bfloat16 (7 bits, TPU) do, beside exact ones.

    python -m experiments.bench._precision

The inputs of every product, forward and backward, are rounded; sums are float32, as on the devices. Networks
default to `high`: it leaves accuracies where exact products put them. Speed is not part of this: no GPU is needed here.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax._src.interpreters import mlir  # the table of lowering rules has no public name
from jax.extend.core.primitives import dot_general_p

import fedjax_lc as fl
from fedjax_lc.results import report
from fedjax_lc.running import programs

BITS = {"exact (highest)": None, "TF32 (high, on NVIDIA also default)": 10, "bfloat16 (default on a TPU)": 7}
TRAININGS = {  # data, model, rounds of FedAvg, client_lr
    "digits, mlp": ("digits", "mlp", 40, 0.1),
    "digits, cnn": ("digits", "cnn", 40, 0.1),
}
SEEDS = 5
TABLE = mlir._platform_specific_lowerings["cpu"]


@contextlib.contextmanager
def rounded(bits: int | None) -> Iterator[None]:
    """Lower float32 products for a CPU with inputs of so many bits; as they are for None."""
    usual, kept = TABLE[dot_general_p], 23 if bits is None else bits

    def product(lhs: Any, rhs: Any, **how: Any) -> Any:
        cut = lambda x: jax.lax.reduce_precision(x, 8, kept) if x.dtype == np.float32 else x
        return dot_general_p.bind(cut(lhs), cut(rhs), **(how | {"precision": (jax.lax.Precision.HIGHEST,) * 2}))

    def rule(context: Any, lhs: Any, rhs: Any, **how: Any) -> Any:
        exact = how["precision"] is not None and jax.lax.Precision.HIGHEST in how["precision"]
        lower = usual.rule if exact else mlir.lower_fun(product, multiple_results=False)
        return lower(context, lhs, rhs, **how)

    if bits is not None:
        TABLE[dot_general_p] = type(usual)(rule=rule, inline=usual.inline)
    programs._COMPILED.clear()
    jax.clear_caches()
    try:
        yield
    finally:
        TABLE[dot_general_p] = usual


def ends(data: str, model: str, rounds: int, client_lr: float) -> np.ndarray:
    """(SEEDS, 2) test accuracy in percent and test loss of FedAvg after the rounds."""
    found = []
    for seed in range(SEEDS):
        dataset = fl.data.load(data, scale="standard")
        problem = fl.problem(dataset, 10, "dirichlet:0.5", model, key=seed, precision="high")
        hp = dataclasses.replace(fl.algorithms.get("fedavg").theory(problem), client_lr=client_lr)
        metrics = fl.run("fedavg", problem, hp, seed, steps=rounds, every=rounds, progress=False).metrics
        found.append((100 * metrics["test_accuracy"][-1], metrics["test_loss"][-1]))
    return np.array(found)


def main() -> None:
    rows = []
    for name, training in TRAININGS.items():
        exact = None
        for kind, bits in BITS.items():
            with rounded(bits):
                each = ends(*training)
            exact = each if exact is None else exact
            mean, error = each.mean(axis=0), each.std(axis=0, ddof=1) / SEEDS**0.5
            rows.append(
                {
                    "training": name,
                    "products": kind,
                    "accuracy, %": f"{mean[0]:.2f} ± {error[0]:.2f}",
                    "test loss": f"{mean[1]:.4f} ± {error[1]:.4f}",
                    "its change, same seed": f"{np.abs(each - exact)[:, 1].max():.1e} at most",
                }
            )
    print(f"python -m experiments.bench._precision; jax {jax.__version__}")
    print(f"FedAvg, 10 clients, dirichlet:0.5, {SEEDS} seeds: mean ± standard error\n")
    print(report.table(rows))


if __name__ == "__main__":
    main()

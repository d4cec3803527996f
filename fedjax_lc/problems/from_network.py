"""`neural`: a federated problem from a network and the clients' rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc import models
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.core.platforms import clients_side_by_side
from fedjax_lc.core.shares import agreed, exchanged, here, of_each, several
from fedjax_lc.core.typing import Key, PyTree, Vec
from fedjax_lc.data.axes import channels_last
from fedjax_lc.data.objects import client_rows
from fedjax_lc.models import Layout
from fedjax_lc.problems.network_losses import Loss, cross_entropy, named, squared
from fedjax_lc.problems.networks import Neural
from fedjax_lc.problems.rows import Table, as_input, some_rows, table_of, test_table
from fedjax_lc.problems.stacking import float_dtype, shares

STATISTICS = ("averaged", "local")
PRECISIONS = ("high", "highest", "default")
ESTIMATE_ROWS, ESTIMATE_STEPS = 64, 12  #: rows and power iterations of the estimate of L


class NeuralOptions(TypedDict, total=False):
    """Further options of `neural`, explained there."""

    prepare: Callable[[jax.Array], jax.Array] | None
    augment: Callable[[Key, jax.Array], jax.Array] | None
    smooth: float | None
    measured_rows: int | None
    norm_statistics: str
    precision: str
    usual_batch: int
    rows_at_once: int
    clients_at_once: int | None
    dtype: Any


_USUAL: NeuralOptions = {
    "prepare": None,
    "augment": None,
    "smooth": None,
    "measured_rows": None,
    "norm_statistics": "averaged",
    "precision": "high",
    "usual_batch": 32,
    "rows_at_once": 512,
    "clients_at_once": None,
    "dtype": "float32",
}


def neural(
    model: Any,
    clients: Sequence[tuple[Any, Any]],
    test: Any = None,
    key: Any = 0,
    *,
    params: PyTree = None,
    classes: int | None = None,
    loss: str | Loss = "cross_entropy",
    l2: float = 0.0,
    weights: Any = None,
    **options: Unpack[NeuralOptions],
) -> Neural:
    """Federated training of a network: f_i(x) = (1/m_i) sum_s loss(model(x, a_is), b_is) + (l2/2) |x|^2.

    Args:
        model: a `flax.linen` module (its `__call__(x, train)` or `__call__(x)`), a `flax.nnx` module, a pair
            (init, apply) of functions, init(key, x) and apply(params, x) or apply(params, key, x), a function
            (params, x) with `params`, or a name of `fl.models.names()`. Flags train, training, is_training,
            deterministic and use_running_average are passed where they are taken. Models of PyTorch and Hugging Face
            are refused.
        clients: list of (features (m_i, ...), targets (m_i, ...)); whole targets 0..C-1 for the cross entropy. Features
            of type uint8 are divided by 255, unless `prepare` says otherwise. Or a list of frames or of data sets of
            PyTorch or Hugging Face, one for each client, as `fl.data.from_object` takes them.
        test: one pair (features, targets) for all, or a list with a pair for each client, some possibly empty; of the
            same kinds as clients.
        key: a PRNG key or a seed for the initial parameters.
        params: initial parameters, as a tree of the model or as `Problem.start` takes them; None to initialise them.
        classes: outputs of a model that is given by name; None for the largest target plus one, or for the number of
            entries of a target with the squared loss.
        loss: cross_entropy (outputs (B, ..., C), mean over positions), squared, or a function (outputs, targets) ->
            (B,).
        l2: weight decay as a part of F, and `strong`.
        weights: as in `fl.problems.logistic_regression`.
        prepare: function from stored features (B, ...) to the model's input, computed on the device.
        augment: function (key, features (B, ...)) -> features, applied to minibatches only.
        smooth: the smoothness constant L in theory's step sizes; None for an estimate, which is no bound: the largest
            eigenvalue of the Hessian at x0 of the loss on some rows.
        measured_rows: number of rows, drawn once, on which F is measured; None for all.
        norm_statistics: statistics with which BatchNorm evaluates: "averaged" over clients (default) or "local"; see
            `Neural.norm_at`.
        precision: precision of float32 products and convolutions on an accelerator (a CPU is exact): "high"
            (default), reduced to ten bits or more (TF32 on NVIDIA, three passes of bfloat16 on a TPU); "highest",
            exact; "default", the platform's fastest (TF32 on NVIDIA, bfloat16 on a TPU). Messages, means and costs are
            exact in every case.
        usual_batch: rows of a local step where hyperparameters give none (32).
        rows_at_once: rows processed at once in full gradients and metrics (512).
        clients_at_once: clients computed side by side; None for all, but 1 on a CPU for networks of more than 10,000
            parameters.
        dtype: "float32" (default) or "float64".

    Raises:
        InputError: the model, shapes or targets do not fit each other.

    Example:
        >>> clients = [(np.random.rand(20, 4), np.arange(20) % 3), (np.random.rand(30, 4), np.arange(30) % 3)]
        >>> problem = neural("mlp:hidden=8", clients)
        >>> problem.n, problem.dim
        (2, 67)
    """
    chosen = _checked(options)
    dtype, prepare, smooth = float_dtype(chosen["dtype"]), chosen["prepare"], chosen["smooth"]
    if not l2 >= 0:
        raise InputError(f"l2 must be 0 or more, got {l2}")
    loss_function = named(loss)
    if isinstance(clients, list) and not all(isinstance(client, tuple | list) for client in clients):
        clients, test = client_rows(clients, test)
    n = len(clients)
    with agreed():
        if several() and not len(here(n)):
            raise InputError(f"{n} clients leave a process without one: ask for fewer devices")
        given = [clients[i] for i in here(n)]
        table, tested = table_of(given, dtype, "client"), test_table(test, n, dtype)
    if isinstance(model, str):
        _check_axes(table.features.shape[1:])
        targets = [table.targets, *([] if tested is None else [tested.targets])]
        model = models.get(model, classes=_outputs_for(targets, loss_function) if classes is None else classes)
    key = jax.random.key(key) if isinstance(key, int | np.integer) else key
    sizes = exchanged(np.array([len(targets) for _, targets in given]), n)
    ready = as_input(table.features[:1], prepare, dtype)
    network, tree, statistics = models.adapt(model, key, ready, params)
    layout = Layout.of(tree)
    dim = sum(layout.sizes)
    problem = Neural(
        table,
        starts=jnp.asarray(np.cumsum(sizes) - sizes, jnp.int32),
        sizes=jnp.asarray(sizes, jnp.int32),
        scales=jnp.asarray(n * shares(weights, sizes), dtype),
        measured=jnp.asarray(_measured(int(sizes.sum()), chosen["measured_rows"]), jnp.int32),
        test=tested,
        statistics=pytree.cast(statistics, dtype),
        strong=jnp.asarray(l2, dtype),
        smooth=jnp.ones(n, dtype),
        smooth_mean=jnp.ones((), dtype),
        x0=layout.ravel(tree, dtype),
        network=network,
        layout=layout,
        loss=loss_function,
        prepare=prepare,
        augment=chosen["augment"],
        longest=int(sizes.max()),
        rows_at_once=chosen["rows_at_once"],
        clients_at_once=chosen["clients_at_once"] or clients_side_by_side(n, dim),
        usual_batch=chosen["usual_batch"],
        norm_statistics=chosen["norm_statistics"],
        even=bool(np.ptp(sizes) == 0),
        precision=chosen["precision"],
    )
    with agreed():
        for rows_of in (table, *([] if tested is None else [tested])):
            _check_outputs(problem, rows_of)
    rows = np.unique(np.linspace(0, sizes.sum() - 1, min(sizes.sum(), ESTIMATE_ROWS)).astype(int))
    few = dataclasses.replace(problem, table=some_rows(table, sizes, rows)) if several() else problem
    L = float(_largest_curvature(few)) + l2 if smooth is None else smooth
    problem = dataclasses.replace(problem, smooth=jnp.full(n, L, dtype), smooth_mean=jnp.asarray(L, dtype))
    return problem.with_rows_apart() if several() else problem


def _checked(options: NeuralOptions) -> NeuralOptions:
    """All options, defaults included, after checks."""
    refuse_unknown("neural", options, NeuralOptions)
    chosen: NeuralOptions = {**_USUAL, **options}
    for name, known in (("norm_statistics", STATISTICS), ("precision", PRECISIONS)):
        if chosen[name] not in known:  # type: ignore[literal-required]
            raise unknown(name, chosen[name], known)  # type: ignore[literal-required]
    for name in ("rows_at_once", "usual_batch", "measured_rows", "clients_at_once"):
        value = chosen[name]  # type: ignore[literal-required]
        if value is not None and (value < 1 or value != int(value)):
            raise InputError(f"{name} must be whole and >= 1, got {value}")
    smooth = chosen["smooth"]
    if smooth is not None and not smooth > 0:
        raise InputError(f"smooth must be above 0, got {smooth}")
    return chosen


def _measured(total: int, rows: int | None) -> np.ndarray:
    """The numbers of the rows on which F is measured."""
    if rows is None or rows >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(0).permutation(total)[:rows])


def _outputs_for(targets: Sequence[jax.Array], loss: Loss) -> int | None:
    """The number of outputs that fits the targets; None for a loss that does not determine it."""
    if loss is squared:
        return math.prod(targets[0].shape[1:])
    if loss is not cross_entropy:
        return None
    largest = max(int(jnp.max(each)) for each in targets if each.size)
    return 1 + int(of_each(largest).max())


def _check_axes(shape: tuple[int, ...]) -> None:
    """Raise InputError for pictures whose channels come first, which the models by name would take for rows."""
    if len(shape) == 3 and not channels_last(shape):
        raise InputError(f"clients' pictures have shape {shape}, channels first: give np.moveaxis(X, 1, -1), or give "
                         "the data to fl.problem, which turns them")  # fmt: skip


def _check_outputs(problem: Neural, table: Table) -> None:
    """Raise InputError unless the model's outputs fit the rows of a table."""
    two, targets = table.features[:2], table.targets
    if two.shape[1:] != problem.table.features.shape[1:]:
        raise InputError(f"test rows have shape {two.shape[1:]}, clients' {problem.table.features.shape[1:]}: all must "
                         "be alike")  # fmt: skip
    outputs = jax.eval_shape(lambda p: p._outputs(p.params(p.x0), two, p.statistics, False, None), problem)
    if not hasattr(outputs, "shape"):
        raise InputError(f"a model must return one array of outputs, got {type(outputs).__name__}")
    if problem.loss is cross_entropy:
        _check_classes(outputs.shape, targets)
    if problem.loss is squared and math.prod(outputs.shape[1:]) != math.prod(targets.shape[1:]):
        raise InputError(f"the model's outputs for one row have shape {outputs.shape[1:]}, and targets "
                         f"{targets.shape[1:]}: the squared loss needs as many of one as of the other")  # fmt: skip
    losses = jax.eval_shape(problem.loss, outputs, targets[:2])
    if losses.shape != two.shape[:1]:
        raise InputError(f"a loss must give one number a row, {two.shape[:1]} of {len(two)} rows, got shape "
                         f"{losses.shape}: leave out its mean over rows")  # fmt: skip


def _check_classes(shape: tuple[int, ...], targets: jax.Array) -> None:
    if not jnp.issubdtype(targets.dtype, jnp.integer) or (targets.size and int(jnp.min(targets)) < 0):
        raise InputError("the cross entropy needs whole targets 0..C-1: map classes with fl.data.load, or use "
                         "loss='squared'")  # fmt: skip
    if shape[1:-1] != targets.shape[1:]:
        raise InputError(f"the model's outputs for one row have shape {shape[1:]}, and targets "
                         f"{targets.shape[1:]}: outputs need these and one axis of classes more")  # fmt: skip
    if targets.size and int(jnp.max(targets)) >= shape[-1]:
        raise InputError(f"a target is {int(jnp.max(targets))}, but the model tells {shape[-1]} classes apart: give it "
                         "more outputs")  # fmt: skip


@jax.jit
def _largest_curvature(problem: Neural) -> jax.Array:
    """The largest absolute eigenvalue of the Hessian of the loss on some rows at x0, by power iteration."""
    total = len(problem.table.targets)
    rows = jnp.asarray(np.unique(np.linspace(0, total - 1, min(total, ESTIMATE_ROWS)).astype(int)))
    weights = jnp.full(rows.shape, 1 / len(rows), problem.dtype)
    slope = jax.grad(lambda x: problem._batch_loss(problem.params(x), rows, weights, None))

    def again(_: Any, both: tuple[Vec, jax.Array]) -> tuple[Vec, jax.Array]:
        v, _ = both
        product = jax.jvp(slope, (problem.x0,), (v,))[1]
        size = jnp.linalg.norm(product)
        return product / jnp.maximum(size, jnp.finfo(problem.dtype).tiny), size

    v = jax.random.normal(jax.random.key(0), (problem.dim,), problem.dtype)
    return jax.lax.fori_loop(0, ESTIMATE_STEPS, again, (v / jnp.linalg.norm(v), jnp.zeros((), problem.dtype)))[1]

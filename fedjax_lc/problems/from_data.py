"""From data to a problem in one call: load data, partition them over clients, choose the loss."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax.sharding import Mesh

from fedjax_lc import data as sets
from fedjax_lc.core.devices import of_clients
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.shares import waiting
from fedjax_lc.problems.base import Problem
from fedjax_lc.problems.from_network import neural
from fedjax_lc.problems.linear import least_squares, logistic_regression
from fedjax_lc.problems.softmax import softmax_regression

Data: TypeAlias = Any  #: a name, a file, a `Dataset`, or what `data.from_object` takes

MAKERS: dict[str, Callable[..., Problem]] = {
    "binary": logistic_regression,
    "multiclass": softmax_regression,
    "regression": least_squares,
}
READING = (*sets.Reading.names(), "labels")  #: options of `problem` that say how data are read
KAPPA = 1e4  #: condition number of convex problems, where neither kappa nor l2 is given
TEST_SHARE = 0.2  #: share of the rows held out for testing a network, where data have no test part


def problem(
    data: Data,
    clients: int | None = None,
    partition: str | None = None,
    model: Any = None,
    *,
    kappa: float | None = None,
    l2: float | None = None,
    dtype: Any = None,
    scale: str | None = None,
    split_seed: int = 0,
    devices: Mesh | None = None,
    **options: Any,
) -> Problem:
    """The federated problem of a data set, partitioned over clients.

    Without a model: logistic regression for two classes, softmax regression for more, least squares for real targets.
    With a model: training of the network with the cross entropy for classes and texts, and the squared loss for real
    targets; images keep their shape. A network is tested on the test part of the data, else on held-out rows; with
    partition "natural" each client is tested on its test rows.

    Args:
        data: a name of `fl.data.names()`, a file or folder (see `fl.data.load`), a `Dataset`, arrays (features (N,
            d), targets (N,)), of which features may be a SciPy sparse matrix; a frame, a data set of PyTorch or Hugging
            Face, or a list with one of these for each client (see `fl.data.from_object`). Convex problems keep large
            sparse data sparse.
        clients: number of clients; None for 10, or for the number of natural clients.
        partition: "iid", "sorted", "dirichlet:0.5", ...; see `fl.data.parse`.
        model: a network as in `fl.problems.neural`: a module or its name, such as "mlp:hidden=64".
        kappa: condition number of a convex problem, which determines l2; 1e4 if l2 is not given either.
        l2: weight of (l2/2) |x|^2, instead of kappa; 0 for a network if not given.
        dtype: float32 or float64; None for JAX's default float, and for float32 with a network.
        scale: scaling of the features, see `fl.data.scalings`; None for "standard" with embedded data, else no scaling.
        split_seed: seed of the partition and of the held-out test rows.
        devices: `fl.devices(clients=4)`: the data wait on the host for `fl.run(..., devices=...)`, which places each
            device's clients there; x_star and f_star are computed on these devices too. For data that no device holds.
        options: target, categories, missing, labels (and allow, n_features), as of `fl.data.load`; further arguments of
            `fl.problems.logistic_regression` (or the other convex problems) or of
            `fl.problems.neural`; with a network also test_share (0.2), the share of held-out rows.

    Raises:
        InputError: the data cannot be loaded or used; the partition does not fit; a text has no model; kappa is given
            with a model; float64 is asked for while JAX's 64-bit mode is off.

    Example:
        >>> convex = problem("breast_cancer", clients=10, partition="dirichlet:0.5", kappa=1e4)
        >>> network = problem("digits", clients=20, partition="dirichlet:0.1", model="mlp:hidden=64", scale="standard")
    """
    reading = {name: options.pop(name) for name in READING if name in options}
    mesh, dataset = of_clients(devices), _loaded(data, scale, reading)
    split: dict[str, Any] = {"clients": clients, "partition": partition, "split_seed": split_seed}
    if model is not None:
        if kappa is not None:
            raise InputError("kappa is for convex problems: give a network's weight decay by l2")
        given = (options if dtype is None else options | {"dtype": dtype}) | {"model": model, "l2": l2 or 0.0}
        with waiting(mesh):
            made = _network(dataset, **split, **given)
    else:
        kappa = KAPPA if kappa is None and l2 is None else kappa
        dtype = jnp.zeros(()).dtype if dtype is None else dtype
        given = options | {"l2": l2, "kappa": kappa, "dtype": dtype}
        with waiting(mesh):
            made = _convex(dataset, **split, **given)
    object.__setattr__(made, "mesh", mesh)
    if isinstance(data, str | os.PathLike):
        remember(made, {"name_or_path": os.fspath(data), "scale": scale or usual_scale(data)} | reading, split | given)
    return made


def remember(made: Problem, data: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Note in a problem's `recipe` how it was made, if plain values say it.

    Args:
        data: arguments of `data.load`.
        arguments: those of `problem`.
    """
    dtype = arguments.get("dtype")
    named = arguments if dtype is None else arguments | {"dtype": jnp.dtype(dtype).name}
    recipe = {"data": data, **{name: value for name, value in named.items() if value is not None}}
    with contextlib.suppress(TypeError, ValueError):
        if json.loads(json.dumps(recipe)) == recipe:
            object.__setattr__(made, "recipe", recipe)


def remade(recipe: Any) -> Problem:
    """The problem of a recipe, as `problem.recipe` has it.

    Raises:
        InputError: it is no recipe, or its data cannot be loaded.
    """
    try:
        given = dict(recipe)
        return problem(sets.load(**given.pop("data")), **given)
    except (TypeError, KeyError) as error:
        raise InputError(f"this is no recipe of a problem ({error})") from None


def _convex(
    dataset: sets.Dataset, clients: int | None, partition: str | None, split_seed: int, **options: Any
) -> Problem:
    if dataset.task not in MAKERS:
        raise InputError(f"{dataset.name} is a text: train a network on it (model char_lstm)")
    parts = sets.partition(dataset, clients, partition, seed=split_seed)
    return MAKERS[dataset.task](sets.splitting.Clients(dataset, parts), **options)


def usual_scale(name: Any) -> str | None:
    """The default scaling of a data set: mean 0 and variance 1 for embedded data, none for others."""
    return "standard" if isinstance(name, str) and name in sets.loading.EMBEDDED else None


def with_test(dataset: sets.Dataset, test_share: float = TEST_SHARE, split_seed: int = 0) -> sets.Dataset:
    """The data set with a test part; if it has none, a share of its rows is held out."""
    return dataset if dataset.test is not None else dataset.split(test_share, seed=split_seed)


def _loaded(data: Data, scale: str | None, reading: dict[str, Any]) -> sets.Dataset:
    if isinstance(data, str | os.PathLike):
        return sets.load(data, scale=scale or usual_scale(data), **reading)
    labels, how = reading.get("labels"), sets.Reading(**{k: v for k, v in reading.items() if k != "labels"})
    if not isinstance(data, sets.Dataset):
        return sets.from_object(data, labels=labels, scale=scale, how=how)
    how.only(data.name)
    data = data if labels is None else data.binary(labels)
    return data if scale is None else data.scaled(scale)


def _network(
    dataset: sets.Dataset,
    clients: int | None,
    partition: str | None,
    model: Any,
    split_seed: int,
    test_share: float = TEST_SHARE,
    **options: Any,
) -> Problem:
    whole = with_test(dataset, test_share, split_seed)
    assert whole.test is not None
    parts = sets.partition(whole, clients, partition, seed=split_seed)
    rows = _Rows(whole, parts)
    test: Any = _as_rows(whole, whole.test.features, whole.test.targets)
    if whole.groups is not None and whole.test.groups is not None and partition in (None, "natural"):
        owners = [whole.groups[part[0]] for part in parts]
        test = [tuple(column[whole.test.groups == owner] for column in test) for owner in owners]
    usual: dict[str, Any] = {"loss": "squared"} if whole.task == "regression" else {"classes": len(whole.classes)}
    return neural(model, rows, test, **(usual | options))


class _Rows(sets.splitting.Clients):
    """The clients' rows as a network takes them."""

    def __getitem__(self, i: Any) -> Any:
        return _as_rows(self.dataset, *super().__getitem__(i))


def _as_rows(dataset: sets.Dataset, features: Any, targets: Any) -> tuple[Any, Any]:
    """Features in the shape of a row, and targets as classes 0..C-1 where there are classes."""
    rows = features.reshape(-1, *dataset.shape) if dataset.shape else features
    return rows, (targets > 0).astype(int) if dataset.task == "binary" else targets

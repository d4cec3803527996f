"""Training of networks: f_i is the mean loss of a model over client i's rows, x the vector of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fedjax_lc import models
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.models import Layout
from fedjax_lc.problems.base import Sampled
from fedjax_lc.problems.network_losses import cross_entropy, fairness, hit_rate
from fedjax_lc.problems.rows import Table, as_input


@pytree.dataclass
class Neural(Sampled):
    """f_i(x) = (1/m_i) sum_s loss(model(x, a_is), b_is) + (l2/2) |x|^2; build it by `neural`.

    The rows of all clients lie in one table, client after client: clients of different sizes need no padding, and a
    cohort copies no rows. `smooth` and `smooth_mean` are one estimate at x0, not a bound.
    """

    table: Table
    starts: jax.Array  # (n,) the first row of each client in the table
    sizes: jax.Array  # (n,) the number of rows of each client
    scales: jax.Array  # (n,) n w_i with the client weights w_i
    measured: jax.Array  # (M,) the rows on which F is measured
    test: Table | None
    statistics: PyTree  # initial statistics of BatchNorm; () if the model has none
    strong: jax.Array
    smooth: jax.Array
    smooth_mean: jax.Array
    x0: Vec
    network: Any = pytree.static()
    layout: Layout = pytree.static()
    loss: Any = pytree.static()
    prepare: Any = pytree.static()
    augment: Any = pytree.static()
    longest: int = pytree.static()  # rows of the largest client
    rows_at_once: int = pytree.static()
    clients_at_once: int = pytree.static()
    usual_batch: int | None = pytree.static()
    norm_statistics: str = pytree.static()
    attached: Vec | None = None
    ids: jax.Array | None = None
    given_f_star: float | None = pytree.static(default=None)
    even: bool = pytree.static(default=False)
    precision: str = pytree.static(default="high")
    per_client: ClassVar[tuple[str, ...]] = ("starts", "sizes", "scales", "smooth")
    solvable: ClassVar[bool] = False

    @property
    def layers(self) -> tuple[int, ...]:
        return self.layout.sizes

    @property
    def scale(self) -> jax.Array:
        return self.scales

    def params(self, x: Vec) -> PyTree:
        """The parameters of the model, as its tree, from the vector x (d,)."""
        return self.layout.unravel(x)

    def predict(self, x: Vec, features: Any) -> jax.Array:
        """The model's outputs for features (B, ...), in evaluation mode.

        Raises:
            InputError: norm_statistics is "local", so that every client has another model.
        """
        if self._has_local_norm:
            raise InputError("with norm_statistics='local' each client has another model: predict by "
                             "'averaged', or use measure")  # fmt: skip
        return self._outputs(self.params(x), jnp.asarray(features), self.norm_at(x), train=False, key=None)

    # --- training ---

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        losses = self._over_rows(lambda x, rows, w: self._batch_loss(self.params(x), rows, w, None), x, ())
        return losses + self.strong / 2 * jnp.sum(x**2, axis=-1)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        slopes = self._over_rows(lambda x, rows, w: self._slope(x, rows, w, None), x, (self.dim,))
        return slopes + self.strong * jnp.atleast_2d(x)

    def batch_grads(self, picks: jax.Array, weights: jax.Array, x: Vec | ClientVecs, key: Key) -> ClientVecs:
        keys = self.client_keys(jax.random.fold_in(key, 1))  # other keys than those that drew the rows
        grads = self._each(self._slope, x, self.starts[:, None] + picks, weights, keys)
        return grads + self.strong * jnp.atleast_2d(x)

    def _slope(self, x: Vec, rows: jax.Array, weights: jax.Array, key: Key | None) -> Vec:
        """(d,) gradient of `_batch_loss`, taken in the tree, then raveled: XLA is slow at gradients of slices of x."""
        with jax.default_matmul_precision(self.precision):
            return self.layout.ravel(jax.grad(self._batch_loss)(self.params(x), rows, weights, key), self.dtype)

    def _batch_loss(self, params: PyTree, rows: jax.Array, weights: jax.Array, key: Key | None) -> Scalar:
        """sum_s weights_s loss_s over rows (b,) of the table; without a key, without dropout and augmentation."""
        features = self.table.features[rows]
        if key is not None and self.augment is not None:
            key, augment_key = jax.random.split(key)
            features = self.augment(augment_key, features)
        train = key is not None or bool(jax.tree.leaves(self.statistics))  # BatchNorm uses the batch's statistics
        with models.only_rows((weights > 0) | ~jnp.any(weights > 0)):  # a piece beyond a client's rows has no valid row
            outputs = self._outputs(params, features, self.statistics, train, jax.random.key(0) if key is None else key)
        return jnp.sum(weights * self.loss(outputs, self.table.targets[rows]))

    def _outputs(
        self, params: PyTree, features: jax.Array, statistics: PyTree, train: bool, key: Key | None
    ) -> jax.Array:
        with jax.default_matmul_precision(self.precision):
            return self.network.apply(params, statistics, self._prepared(features), train=train, key=key)[0]

    def _prepared(self, features: jax.Array) -> jax.Array:
        return as_input(features, self.prepare, self.dtype)

    def _over_rows(self, part: Callable[..., jax.Array], x: Vec | ClientVecs, shape: tuple[int, ...]) -> jax.Array:
        """(n, *shape) sums of `part(x, rows, weights)` over all rows of each client, `rows_at_once` rows at a time."""
        at_once = min(self.rows_at_once, self.longest)

        def one(x: Vec, start: jax.Array, size: jax.Array, scale: jax.Array) -> jax.Array:
            def add(h: jax.Array, total: jax.Array) -> jax.Array:
                place = h * at_once + jnp.arange(at_once)
                weights = jnp.where(place < size, scale / size.astype(self.dtype), 0)
                return total + part(x, start + place % size, weights)

            return jax.lax.fori_loop(0, -(-self.longest // at_once), add, jnp.zeros(shape, self.dtype))

        return self._each(one, x, self.starts, self.sizes, self.scales)

    def _each(self, one: Callable[..., jax.Array], x: Vec | ClientVecs, *data: jax.Array) -> jax.Array:
        """`one(x_i, *data_i)` stacked over clients, `clients_at_once` of them side by side."""
        shared, block = x.ndim == 1, self.clients_at_once
        if block >= self.n:
            return jax.vmap(one, (None if shared else 0, *(0 for _ in data)))(x, *data)
        of_client = (lambda row: one(x, *row)) if shared else (lambda both: one(*both))
        return jax.lax.map(of_client, data if shared else (x, *data), batch_size=None if block == 1 else block)

    # --- measuring ---

    @property
    def metrics(self) -> tuple[str, ...]:
        names: tuple[str, ...] = ("grad_norm", "client_loss")
        if self.loss is cross_entropy:
            names += ("train_accuracy", "client_accuracy", "accuracy_min", "accuracy_std", "accuracy_worst")
            names += ("accuracy",) if self.test is not None else ()
        return names + (("test_loss",) if self.test is not None else ())

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        return tuple(name for name in ("accuracy", "test_loss") if name in self.metrics)

    @property
    def facts(self) -> dict[str, Any]:
        rows = {"rows": len(self.table.targets), "measured_rows": len(self.measured)}
        tested = {"test_rows": 0 if self.test is None else len(self.test.targets)}
        norms = {"norm_statistics": self.norm_statistics} if jax.tree.leaves(self.statistics) else {}
        return {"network": str(self.network), "precision": self.precision, **rows, **tested, **norms}

    def value(self, x: Vec) -> Scalar:
        """F(x) in evaluation mode, on the measured rows; for a cohort, the mean of its `values`."""
        if self.ids is not None:
            return jnp.mean(self.values(x))
        return self.measure(x, ("value",))["value"]

    def measure(self, x: Vec, names: tuple[str, ...]) -> dict[str, Scalar]:
        """The metrics of these names at x (d,); each set of rows is evaluated once.

        value: F. accuracy, test_loss: on the test rows. train_accuracy: on the measured rows. client_loss,
        client_accuracy (n,): on the client's test rows where each client has some, else on its measured rows; NaN
        without rows. accuracy_min, accuracy_std, accuracy_worst: minimum, standard deviation and mean over the worst
        tenth of client_accuracy. grad_norm: the norm of the gradient of F.
        """
        values: dict[str, Scalar] = {}
        tested_by_client = self.test is not None and self.test.owners is not None
        by_client = [name for name in names if name.startswith(("client_", "accuracy_"))]
        norm = self.norm_at(x)
        client_rows: Any = None
        if {"value", "train_accuracy"} & {*names} or (by_client and not tested_by_client):
            owners = jnp.asarray(self.table.owners)[self.measured]
            losses, hits = self._by_row(x, self.table, self.measured, owners, norm)
            weights = (self.scales / self.sizes.astype(self.dtype))[owners]
            mean = lambda rows: jnp.sum(weights * rows) / jnp.sum(weights)
            values |= {"value": mean(losses) + self.strong / 2 * jnp.sum(x**2), "train_accuracy": mean(hits)}
            client_rows = losses, hits, owners
        if self.test is not None and ({"accuracy", "test_loss"} & {*names} or (by_client and tested_by_client)):
            losses, hits = self._by_test_row(x, norm)
            values |= {"accuracy": jnp.mean(hits), "test_loss": jnp.mean(losses)}
            client_rows = (losses, hits, self.test.owners) if tested_by_client else client_rows
        if by_client:
            losses, hits, owners = client_rows
            values |= {"client_loss": self._means_by_client(losses, owners)}
            values |= fairness(self._means_by_client(hits, owners))
        if "grad_norm" in names:
            values |= super().measure(x, ("grad_norm",))
        return {name: values[name] for name in names}

    def norm_at(self, x: Vec) -> PyTree:
        """The statistics with which BatchNorm evaluates the model x.

        Each client computes them from one batch of at most `rows_at_once` of its rows. norm_statistics="averaged" takes
        the mean over clients, "local" keeps those of each client (n, ...). They are computed from x and the data, and
        are not trained, sent or compressed.
        """
        if not jax.tree.leaves(self.statistics):
            return self.statistics
        at_once = min(self.rows_at_once, self.longest)

        def of_client(x: Vec, start: jax.Array, size: jax.Array) -> PyTree:
            place = jnp.arange(at_once)
            rows = jnp.where(size <= at_once, place % size, place * size // at_once)
            features = self._prepared(self.table.features[start + rows])
            with models.only_rows(place < size), jax.default_matmul_precision(self.precision):
                return models.batch_statistics(
                    self.network, self.params(x), self.statistics, features, jax.random.key(0)
                )

        each = self._each(of_client, x, self.starts, self.sizes)
        return each if self.norm_statistics == "local" else jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)

    def _by_test_row(self, x: Vec, norm: PyTree) -> tuple[jax.Array, jax.Array]:
        """(T,) loss and accuracy of each test row; means over clients for one test set and local statistics."""
        test: Any = self.test
        rows = jnp.arange(len(test.targets))
        if not self._has_local_norm or test.owners is not None:
            return self._by_row(x, test, rows, test.owners, norm)
        each = jax.lax.map(lambda i: self._by_row(x, test, rows, jnp.full(rows.shape, i), norm), jnp.arange(self.n))
        return jnp.mean(each[0], axis=0), jnp.mean(each[1], axis=0)

    @property
    def _has_local_norm(self) -> bool:
        return self.norm_statistics == "local" and bool(jax.tree.leaves(self.statistics))

    def _by_row(
        self, x: Vec, table: Table, rows: jax.Array, owners: jax.Array | None, norm: PyTree
    ) -> tuple[jax.Array, jax.Array]:
        """(M,) loss and accuracy, in evaluation mode, of rows (M,) of a table; `owners` (M,) are their clients."""
        params = self.params(x)

        def one(rows: jax.Array, owners: jax.Array | None) -> tuple[jax.Array, jax.Array]:
            features, targets = table.features[rows], table.targets[rows]
            if self._has_local_norm and owners is not None:
                norm_of = lambda i: jax.tree.map(lambda s: s[i], norm)
                alone = lambda row, i: self._outputs(params, row[None], norm_of(i), False, None)[0]
                outputs = jax.vmap(alone)(features, owners)
            else:
                outputs = self._outputs(params, features, norm, train=False, key=None)
            hits = hit_rate(outputs, targets) if self.loss is cross_entropy else jnp.zeros(len(rows))
            return self.loss(outputs, targets), hits.astype(self.dtype)

        at_once, total = self.rows_at_once, len(rows)
        if total <= at_once:
            return one(rows, owners)
        fold = lambda index: jnp.pad(index, (0, -total % at_once), mode="edge").reshape(-1, at_once)
        folded = (fold(rows), None if owners is None else fold(owners))
        both = jax.lax.map(lambda part: one(*part), folded)
        return both[0].ravel()[:total], both[1].ravel()[:total]

    def _means_by_client(self, rows: jax.Array, owners: Any) -> jax.Array:
        total = jax.ops.segment_sum(jnp.stack([rows, jnp.ones_like(rows)]).T, owners, self.n)
        return total[:, 0] / total[:, 1]

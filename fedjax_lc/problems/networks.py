"""Training of networks: f_i is the mean loss of a model over client i's rows, x the vector of its parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc import models
from fedjax_lc.core import pytree
from fedjax_lc.core.devices import by_client, each_device
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.shares import waiting
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.models import Layout
from fedjax_lc.problems import content
from fedjax_lc.problems.base import Sampled
from fedjax_lc.problems.metric_names import by_rows, unknown_metric
from fedjax_lc.problems.network_losses import cross_entropy, fairness, hit_rate
from fedjax_lc.problems.rows import Table, as_input, rows_apart


@pytree.dataclass
class Neural(Sampled):
    """f_i(x) = (1/m_i) sum_s loss(model(x, a_is), b_is) + (l2/2) |x|^2; build it by `neural`.

    The rows of all clients lie in one table, client after client: clients of different sizes need no padding, and a
    cohort copies no rows; over devices each client's rows are apart. `smooth` and `smooth_mean` are one estimate at x0,
    not a bound.
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
    apart: bool = pytree.static(default=False)  # whether the table is (n, longest, ...), see `for_devices`
    per_client: ClassVar[tuple[str, ...]] = ("starts", "sizes", "scales", "smooth")
    solvable: ClassVar[bool] = False

    @property
    def layers(self) -> tuple[int, ...]:
        return self.layout.sizes

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.layout.shapes

    @property
    def scale(self) -> jax.Array:
        return self.scales

    def params(self, x: Vec) -> PyTree:
        """The parameters of the model, as its tree, from the vector x (d,)."""
        return self.layout.unravel(x)

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """The shape of one row of features, as a batch of one."""
        features = self.table.features
        return jax.ShapeDtypeStruct((1, *features.shape[2 if self.apart else 1 :]), features.dtype)

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
        loss = lambda problem, x, rows, w: problem._batch_loss(problem.params(x), rows, w, None)
        losses = self._over_rows(loss, x, ())
        return losses + self.strong / 2 * jnp.sum(x**2, axis=-1)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        slopes = self._over_rows(lambda problem, x, rows, w: problem._slope(x, rows, w, None), x, (self.dim,))
        return slopes + self.strong * jnp.atleast_2d(x)

    def batch_grads(self, picks: jax.Array, weights: jax.Array, x: Vec | ClientVecs, key: Key) -> ClientVecs:
        keys = self.client_keys(jax.random.fold_in(key, 1))  # other keys than those that drew the rows

        def one(problem: Neural, i: jax.Array, x: Vec, picks: jax.Array, weights: jax.Array, key: Key) -> Vec:
            return problem._slope(x, problem.starts[i] + picks, weights, key)

        grads = self._each(one, x, picks, weights, keys)
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
        """(n, *shape) sums of `part(problem, x, rows, weights)` over all rows of each client, `rows_at_once` rows at a
        time."""
        at_once = min(self.rows_at_once, self.longest)

        def one(problem: Neural, i: jax.Array, x: Vec, size: jax.Array, scale: jax.Array) -> jax.Array:
            def add(h: jax.Array, total: jax.Array) -> jax.Array:
                place = h * at_once + jnp.arange(at_once)
                weights = jnp.where(place < size, scale / size.astype(problem.dtype), 0)
                return total + part(problem, x, problem.starts[i] + place % size, weights)

            return jax.lax.fori_loop(0, -(-problem.longest // at_once), add, jnp.zeros(shape, problem.dtype))

        return self._each(one, x, self.sizes, self.scales)

    def _each(self, one: Callable[..., Any], x: Vec | ClientVecs, *data: jax.Array) -> Any:
        """`one(problem, i, x_i, *data_i)` stacked over clients i; the problem is that of the device's clients."""
        if not self.apart:
            return self._side_by_side(one, x, data)
        shared = x.ndim == 1

        def here(rows: Any, common: Any) -> Any:
            (table, x_i, data), (problem, x) = rows, common
            return problem._with_rows(*table)._side_by_side(one, x if shared else x_i, data)

        rows = (self.table[:2], None if shared else x, data)
        return each_device(here, rows, (self._without_rows(), x if shared else None))

    def _side_by_side(self, one: Callable[..., Any], x: Vec | ClientVecs, data: tuple[jax.Array, ...]) -> Any:
        """The same, `clients_at_once` clients side by side."""
        shared, block, rows = x.ndim == 1, self.clients_at_once, (jnp.arange(len(data[0])), *data)
        if block >= len(data[0]):
            each = lambda x, i, *data: one(self, i, x, *data)
            return jax.vmap(each, (None if shared else 0, *(0 for _ in rows)))(x, *rows)
        of_client = lambda x, i, *data: one(self, i, x, *data)
        of_row = (lambda row: of_client(x, *row)) if shared else (lambda both: of_client(*both))
        return jax.lax.map(of_row, rows if shared else (x, *rows), batch_size=None if block == 1 else block)

    # --- over devices ---

    def for_devices(self) -> Neural:
        return self if self.apart else self.with_rows_apart()

    def with_rows_apart(self) -> Neural:
        """Each client's rows apart, (n, longest, ...) with zeros at the end, so that devices can share them."""
        sizes, starts = np.asarray(self.sizes), np.asarray(self.starts)
        owners = np.repeat(np.arange(self.n), sizes)
        places = owners * self.longest + np.arange(len(owners)) - starts[owners]
        measured = places[np.asarray(self.measured)].astype(np.int32)
        return dataclasses.replace(self, table=rows_apart(self.table, sizes), measured=measured, apart=True)

    def content(self) -> dict[str, Any]:
        """What identifies the problem, whether or not rows are apart."""
        laid_out = ("table", "measured", "apart")
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in laid_out}
        starts, measured = np.asarray(self.starts), np.asarray(self.measured)
        if self.apart:
            measured = starts[measured // self.longest] + measured % self.longest
        with waiting(self.mesh):
            data = content.of_rows(self.table[:2], np.asarray(self.sizes), None if self.apart else starts)
        return rest | {"data": data, "measured": measured}

    def _with_rows(self, features: jax.Array, targets: jax.Array) -> Neural:
        """The problem of the clients whose rows these are, (c, longest, ...), in one table."""
        starts = jnp.arange(len(targets)) * self.longest
        features, targets = (column.reshape(-1, *column.shape[2:]) for column in (features, targets))
        return dataclasses.replace(self, table=Table(features, targets, None), starts=starts, apart=False)

    def _without_rows(self) -> Neural:
        return dataclasses.replace(self, table=None)  # type: ignore[arg-type]

    def cohort(self, clients: jax.Array) -> Any:
        chosen = super().cohort(clients)
        if not self.apart:
            return chosen
        features, targets = (by_client(column[clients]) for column in self.table[:2])
        return dataclasses.replace(chosen, table=Table(features, targets, None))

    # --- measuring ---

    @property
    def metrics(self) -> tuple[str, ...]:
        by_client: tuple[str, ...] = ("client_loss",)
        of_rows: tuple[str, ...] = ()
        if self.loss is cross_entropy:
            by_client += ("client_accuracy", "accuracy_min", "accuracy_std", "accuracy_worst")
            of_rows += ("accuracy",)
        names = ["grad_norm", *(by_rows(name, "train") for name in (*of_rows, *by_client))]
        if self.test is not None:
            tested = (*of_rows, "loss", *(by_client if self.test.owners is not None else ()))
            names += [by_rows(name, "test") for name in tested]
        return tuple(names)

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        return tuple(name for name in ("test_accuracy", "test_loss") if name in self.metrics)

    @property
    def client_rows(self) -> dict[str, list[int]]:
        """The numbers of rows on which each client is measured: of its training rows, and of its test rows where each
        client has some."""
        starts, measured = np.asarray(self.starts), np.asarray(self.measured)
        owners = measured // self.longest if self.apart else np.searchsorted(starts, measured, side="right") - 1
        counts = {"train": np.bincount(owners, minlength=self.n).tolist()}
        if self.test is not None and self.test.owners is not None:
            counts["test"] = np.bincount(np.asarray(self.test.owners), minlength=self.n).tolist()
        return counts

    @property
    def facts(self) -> dict[str, Any]:
        rows = {"rows": int(np.sum(np.asarray(self.sizes))), "measured_rows": len(self.measured)}
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

        A name says the rows: train, the measured training rows; test, the test rows. value: F, the training loss with
        its l2 term. train_accuracy, test_accuracy, test_loss: over all of these rows. client_train_loss,
        client_train_accuracy and, where each client has test rows, client_test_loss, client_test_accuracy
        (n,): of each client; NaN without rows. train_accuracy_min, _std, _worst (and those of test): minimum, standard
        deviation and mean over the worst tenth of the clients' accuracies. grad_norm: the norm of the gradient of F.
        """
        values: dict[str, Scalar] = {}
        asked, norm = {*names}, self.norm_at(x)
        of = lambda rows: {name for name in self.metrics if f"{rows}_" in name}
        if asked & ({"value"} | of("train")):
            losses, hits, owners, counted = self._by_measured_row(x, norm)
            weights = counted * (self.scales / self.sizes.astype(self.dtype))[owners]
            mean = lambda rows: jnp.sum(weights * rows) / jnp.sum(weights)
            values |= {"value": mean(losses) + self.strong / 2 * jnp.sum(x**2), "train_accuracy": mean(hits)}
            if asked & of("train") - {"train_accuracy"}:
                values |= self._by_client("train", losses, hits, owners, counted)
        if asked & of("test"):
            losses, hits = self._by_test_row(x, norm)
            values |= {"test_accuracy": jnp.mean(hits), "test_loss": jnp.mean(losses)}
            if asked & of("test") - {"test_accuracy", "test_loss"}:
                values |= self._by_client("test", losses, hits, self.test.owners, jnp.ones_like(hits))  # type: ignore[union-attr]
        if "grad_norm" in names:
            values |= super().measure(x, ("grad_norm",))
        for name in names:
            if name not in values:
                raise unknown_metric(name, ("value", *self.metrics))
        return {name: values[name] for name in names}

    def _by_client(
        self, kind: str, losses: jax.Array, hits: jax.Array, owners: Any, counted: jax.Array
    ) -> dict[str, Scalar]:
        """Metrics by client on rows of a kind, by name."""
        values = {"client_loss": self._means_by_client(losses, owners, counted)}
        values |= fairness(self._means_by_client(hits, owners, counted))
        return {by_rows(name, kind): value for name, value in values.items()}

    def norm_at(self, x: Vec) -> PyTree:
        """The statistics with which BatchNorm evaluates the model x.

        Each client computes them from one batch of at most `rows_at_once` of its rows. norm_statistics="averaged" takes
        the mean over clients, "local" keeps those of each client (n, ...). They are computed from x and the data, and
        are not trained, sent or compressed.
        """
        if not jax.tree.leaves(self.statistics):
            return self.statistics
        at_once = min(self.rows_at_once, self.longest)

        def of_client(problem: Neural, i: jax.Array, x: Vec, size: jax.Array) -> PyTree:
            place = jnp.arange(at_once)
            rows = jnp.where(size <= at_once, place % size, place * size // at_once)
            features = problem._prepared(problem.table.features[problem.starts[i] + rows])
            with models.only_rows(place < size), jax.default_matmul_precision(problem.precision):
                return models.batch_statistics(
                    problem.network, problem.params(x), problem.statistics, features, jax.random.key(0)
                )

        each = self._each(of_client, x, self.sizes)
        return each if self.norm_statistics == "local" else jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)

    def _by_measured_row(self, x: Vec, norm: PyTree) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """(M,) or (n, longest) loss, accuracy and client of rows, and 1 for those that count, 0 for others."""
        if not self.apart:
            owners = jnp.asarray(self.table.owners)[self.measured]
            return *self._by_row(x, self.table, self.measured, owners, norm), owners, jnp.ones(owners.shape, self.dtype)
        local = norm if self._has_local_norm else None

        def here(rows: Any, common: Any) -> tuple[jax.Array, jax.Array]:
            (table, local), (problem, x, norm) = rows, common
            problem, shape = problem._with_rows(*table), table[1].shape[:2]
            places = jnp.arange(shape[0] * shape[1])
            norm = norm if local is None else local
            losses, hits = problem._by_row(x, problem.table, places, places // shape[1], norm)
            return losses.reshape(shape), hits.reshape(shape)

        common = (self._without_rows(), x, norm if local is None else None)
        losses, hits = each_device(here, (self.table[:2], local), common)
        counted = jnp.zeros(losses.size, self.dtype).at[self.measured].set(1).reshape(losses.shape)
        return losses, hits, jnp.broadcast_to(jnp.arange(self.n)[:, None], losses.shape), counted

    def _by_test_row(self, x: Vec, norm: PyTree) -> tuple[jax.Array, jax.Array]:
        """(T,) loss and accuracy of each test row; means over clients for one test set and local statistics."""
        test: Any = self.test
        rows = jnp.arange(len(test.targets))
        if not self._has_local_norm or test.owners is not None:
            here = lambda rows, common: common[0]._by_row(*common[1:3], *rows, common[3])
            return each_device(here, (rows, test.owners), (self._without_rows(), x, test, norm))
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

    def _means_by_client(self, rows: jax.Array, owners: Any, counted: jax.Array) -> jax.Array:
        if owners.ndim == 2:
            return jnp.sum(counted * rows, axis=1) / jnp.sum(counted, axis=1)
        total = jax.ops.segment_sum(jnp.stack([counted * rows, counted]).T, owners, self.n)
        return total[:, 0] / total[:, 1]

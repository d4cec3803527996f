"""The base classes of all problems, and batches of their rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_lc.core import pytree
from fedjax_lc.core.devices import by_client, each_device, on_devices, place
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.lanes import per_lane
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems import starts
from fedjax_lc.problems.draws import below, distinct
from fedjax_lc.problems.optimum import Optimum, minimise, smallest_eigenvalue


class Problem:
    """Base of all problems.

    Subclasses implement `values`, `own_grads` and `stochastic_grads`, and `lane_grads` and `hvps` where they have a
    faster form. Leaves are in the problem's dtype and traced inside jit; `x_star` and `f_star` are float64 on the host.

    Attributes:
        smooth: (n,) the smoothness constants L_i of f_i.
        smooth_mean: () the smoothness constant of F.
        strong: () mu, the strong convexity that the l2 term of F gives.
        x0: (d,) the start.
        given_f_star: the optimal value given by the user, if any.
        attached: (d,) x_star on the device, see `solved`; None otherwise.
        ids: (n,) the clients' numbers in the whole problem, if this is a cohort of it; None otherwise.
        mesh: the devices that clients are placed on, of a problem whose data wait on the host; None otherwise.
        recipe: how `fl.problem` made it, as plain values, if that says it all; None otherwise, and in any copy.
    """

    smooth: jax.Array
    smooth_mean: jax.Array
    strong: jax.Array
    x0: Vec
    given_f_star: float | None
    attached: Vec | None
    ids: jax.Array | None
    per_client: ClassVar[tuple[str, ...]] = ("smooth",)  #: names of leaves whose first axis is the clients
    solvable: ClassVar[bool] = True  #: whether a minimiser can be computed
    recipe: dict[str, Any] | None = None
    mesh: Mesh | None = None
    usual_batch: int | None = None  #: rows of a local step where hyperparameters give none; None for all

    @property
    def n(self) -> int:
        """Number of clients."""
        return self.smooth.shape[0]

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return self.x0.shape[0]

    @property
    def dtype(self) -> Any:
        return self.x0.dtype

    def at(self, t: Scalar) -> Any:
        """The problem of step t, which the compiled loop asks for: this one, as its data do not change (`drifting`)."""
        return self

    def value(self, x: Vec) -> Scalar:
        """F(x), ()."""
        return jnp.mean(self.values(x))

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        """(n,) f_i(x), or f_i(x_i) for x (n, d)."""
        raise NotImplementedError

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `measure` computes besides F."""
        return ("grad_norm", "distance")

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every run records."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """Further facts that identify the problem in a result file, as plain values."""
        return {}

    def measure(self, x: Vec, names: tuple[str, ...]) -> dict[str, Scalar]:
        """The metrics of these names ("value" is F) at the model x (d,)."""
        known: dict[str, Callable[[], Scalar]] = {
            "value": lambda: self.value(x),
            "grad_norm": lambda: jnp.linalg.norm(jnp.mean(self.grads(x), axis=0)),
            "distance": lambda: jnp.linalg.norm(x - self.x_star),
        }
        return {name: known[name]() for name in names}

    def start(self, given: Any, names: Mapping[str, str] | None = None) -> Vec:
        """x (d,) from a vector, weights or a file of either, as `fl.run` takes them for x0.

        Args:
            given: a vector (d,); of a network also a tree of its parameters, a mapping from names to arrays (PyTorch's
                names and layouts are understood), a model of `flax.nnx` or PyTorch; or a file of them (.safetensors,
                .npz, .npy), or the folder of a run that is done.
            names: their modules -> the network's, where names and shapes do not say it.

        Raises:
            InputError: it does not fit.

        Example:
            >>> x0 = problem.start("mnist.safetensors", names={"head": "Dense_1"})
        """
        return starts.start(self, given, names)[0]

    @property
    def layers(self) -> tuple[int, ...]:
        """Sizes of the consecutive layers of x: one for each parameter of a network, otherwise a single one."""
        return (self.dim,)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters that x consists of, in order; of a matrix the last axis is its outputs."""
        return ((self.dim,),)

    def grads(self, x: Vec | ClientVecs) -> ClientVecs:
        """(n, d) gradients of f_i at x (d,), or at row i of x (n, d). Over lanes, `lane_grads` computes them."""
        return _grads(self, x)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        """The result of `grads` for one lane; x as there."""
        raise NotImplementedError

    def lane_grads(self, X: jax.Array) -> jax.Array:
        """(lanes, n, d) gradients of many lanes, X (lanes, d) or (lanes, n, d)."""
        return jax.vmap(self.own_grads)(X)

    def for_lanes(self) -> Any:
        """The same problem, with precomputed arrays that `lane_grads` would otherwise compute at every step."""
        return self

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int, *, replacement: bool = True) -> ClientVecs:
        """(n, d) unbiased gradients from `batch` rows per client, drawn uniformly from its rows (without padding).

        Without replacement no row is drawn twice, and a client with fewer than `batch` rows uses all of them. The rows
        drawn for a client depend only on the key and on the client's number.

        Raises:
            InputError: `batch` rows with replacement are more than the largest client has.
        """
        raise NotImplementedError

    def passes(self, batch: int, *, replacement: bool = True) -> jax.Array:
        """(n,) the cost of such a batch, as a share of the client's full gradient."""
        raise NotImplementedError

    def client_keys(self, key: Key) -> Key:
        """(n,) a key for each client, derived from its number in the whole problem."""
        if self.ids is None:
            return jax.random.split(key, self.n)
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(self.ids)  # the same keys

    def hvps(self, x: Vec | ClientVecs, v: Vec | ClientVecs) -> ClientVecs:
        """(n, d) Hessian of f_i times v."""
        return jax.jvp(self.own_grads, (x,), (v,))[1]

    def cohort(self, clients: jax.Array) -> Any:
        """The problem of these clients, (c,) indices; `smooth_mean` and `strong` remain those of F.

        Only the data of these clients are gathered, so `problem.cohort(clients).grads(x)` costs c clients, not n.
        """
        gathered = {name: by_client(getattr(self, name)[clients]) for name in self.per_client}
        ids = clients if self.ids is None else self.ids[clients]
        return dataclasses.replace(self, **gathered, ids=ids, attached=None, given_f_star=None)  # type: ignore[type-var]

    def hessian(self, x: Any) -> np.ndarray:
        """(d, d) Hessian of F at x (d,), NumPy float64, on the host."""
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            return np.asarray(_hessian(self._exact(), jnp.asarray(x, jnp.float64)))

    def _exact(self) -> Any:
        """The problem in float64, on its devices."""
        return pytree.cast(self if self.mesh is None else self.on(self.mesh), jnp.float64)

    def for_devices(self) -> Any:
        """The same problem in the form in which devices can share its clients."""
        return self

    def on(self, mesh: Mesh) -> Any:
        """The problem with its arrays placed on the devices of a mesh."""
        return place(self.for_devices(), self.n, mesh)

    @property
    def x_star(self) -> Any:
        """(d,) minimiser of F, NumPy float64; NaN if unknown. Inside jit, the copy that `solved` attached."""
        if pytree.is_traced(self.x0):
            if self.attached is None:
                raise InputError("x_star inside jit needs problem.solved(): pass that in place of problem")
            return self.attached
        return self._optimum.x

    @property
    def f_star(self) -> float:
        """min F, float64 on the host: the value given as `f_star=`, else the computed one; NaN if unknown."""
        return self.given_f_star if self.given_f_star is not None else self._optimum.value

    def solved(self) -> Any:
        """The same problem with x_star as a leaf, so that compiled code can measure distances to it."""
        return self.replace(attached=jnp.asarray(self._optimum.x, self.dtype))

    def replace(self, **changes: Any) -> Any:
        """A copy with changed fields that do not alter F, such as x0; a computed optimum is kept."""
        changed = dataclasses.replace(self, **changes)  # type: ignore[type-var]
        if "_optimum" in self.__dict__:
            changed.__dict__["_optimum"] = self._optimum
        object.__setattr__(changed, "mesh", self.mesh)
        return changed

    @functools.cached_property
    def _optimum(self) -> Optimum:
        if not self.solvable:
            return Optimum(np.full(self.dim, np.nan), np.nan, np.nan, False)
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            exact = self._exact()
            optimum = minimise(
                lambda x: float(_value(exact, x)),
                lambda x: np.asarray(_gradient(exact, x)),
                lambda x: np.asarray(_hessian(exact, x)),
                lambda x, v: np.asarray(_hessian_product(exact, x, v)),
                np.asarray(self.x0, np.float64),
            )
        unknown = Optimum(np.full(self.dim, np.nan), np.nan, optimum.grad_norm, False)
        return optimum if optimum.converged else unknown

    @property
    def kappa(self) -> float:
        """Condition number of LoCoDL's split problem: (max L_i - mu/2) / (mu/2) with mu = strong; inf if mu = 0."""
        half = float(self.strong) / 2
        if half == 0:
            return float("inf")
        return (float(np.max(np.asarray(self.smooth, np.float64))) - half) / half

    @functools.cached_property
    def kappa_eff(self) -> float:
        """Condition number at the solution, smooth_mean / lambda_min(Hess F(x_star)), which governs gradient descent
        near it; for d > 3000 to a relative error of about a thousandth."""
        x = self.x_star
        if not np.all(np.isfinite(x)):
            return float("nan")
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            exact = self._exact()
            times = lambda v: np.asarray(_hessian_product(exact, x, v))
            return float(self.smooth_mean) / smallest_eigenvalue(lambda: self.hessian(x), times, self.dim)


class Sampled(Problem):
    """Base of problems whose f_i is a mean over a client's rows, so that a batch of rows gives an unbiased gradient.

    Subclasses implement `batch_grads` and `scale`.

    Attributes:
        sizes: (n,) the number of rows of each client.
        longest: the largest number of rows, or more.
        even: whether all clients have `longest` rows.
    """

    sizes: jax.Array
    longest: int
    even: bool

    @property
    def scale(self) -> jax.Array:
        """(n,) n w_i with the client weights w_i: the factor of the mean over a client's rows."""
        raise NotImplementedError

    def batch_grads(self, picks: jax.Array, weights: jax.Array, x: Vec | ClientVecs, key: Key) -> ClientVecs:
        """(n, d) weighted sums of row gradients: rows `picks` (n, b), numbered within each client, `weights` (n, b).

        key: for randomness in the model, such as dropout.
        """
        raise NotImplementedError

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int, *, replacement: bool = True) -> ClientVecs:
        return self.batch_grads(*self.draw(key, batch, replacement), x, key)

    def passes(self, batch: int, *, replacement: bool = True) -> jax.Array:
        share = self.most_rows(batch, replacement) / self.sizes.astype(self.dtype)
        return share if replacement else jnp.minimum(share, 1)

    def most_rows(self, batch: int, replacement: bool = False) -> int:
        """Rows of the largest client in a batch: `batch`, or all that it has if these are fewer.

        Raises:
            InputError: they are fewer and a row may come twice, which would cost more than the full gradient.
        """
        if replacement and batch > self.longest:
            raise InputError(f"a batch of {batch} rows with replacement is more than the {self.longest} rows of the "
                             "largest client: draw fewer, or without replacement for all rows")  # fmt: skip
        return min(batch, self.longest)

    def draw(self, key: Key, batch: int, replacement: bool) -> tuple[jax.Array, jax.Array]:
        """(n, b) random rows of each client, b = `most_rows`, and weights that make the sum of their gradients
        unbiased."""
        keys, batch = self.client_keys(key), self.most_rows(batch, replacement)
        if replacement:
            picks = jax.vmap(lambda k, m: below(k, jnp.full(batch, m)))(keys, self.sizes)
            return picks, self._weights(jnp.ones(picks.shape, bool))
        drawn = lambda rows, _: jax.vmap(lambda k, m: distinct(k, m, batch))(*rows)
        picks, valid = each_device(drawn, (keys, self.sizes))
        return picks, self._weights(valid)

    def orders(self, key: Key, epochs: int) -> jax.Array:
        """(n, epochs, longest) a random order of each client's rows, for each epoch."""
        longest = self.longest

        def order(key: Key, m: jax.Array) -> jax.Array:
            exists = jnp.arange(longest) < m
            draws = jax.random.bits(key, (epochs, longest), jnp.uint32) >> 1
            return jnp.argsort(jnp.where(exists, draws, jnp.uint32(2**32 - 1)), axis=-1)

        return jax.vmap(order)(self.client_keys(key), self.sizes)

    def turn(self, orders: jax.Array, h: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
        """As `draw`, but the rows of local step h (): the next `batch` rows of the epoch's order, fewer at its end."""
        each, batch = self.turns(batch), self.most_rows(batch)
        each = jnp.broadcast_to(jnp.asarray(each, jnp.int32), self.sizes.shape)
        place = (h % each)[:, None] * batch + jnp.arange(batch)[None]
        epoch = jnp.minimum(h // each, orders.shape[1] - 1)
        row = place % self.sizes[:, None]  # beyond the last row, earlier rows again, with weight 0
        picks = jax.vmap(lambda order, e, p: order[e, p])(orders, epoch, row)
        return picks, self._weights(place < self.sizes[:, None])

    def turns(self, batch: int) -> int | jax.Array:
        """Local steps of one epoch, (n,); a plain number if all clients have equally many rows."""
        return -(-(self.longest if self.even else self.sizes) // self.most_rows(batch))

    def _weights(self, taken: jax.Array) -> jax.Array:
        share = taken.astype(self.dtype)
        return share * (self.scale[:, None] / jnp.sum(share, axis=1, keepdims=True))


#: (problem, x) -> gradients, with the batching rule for lanes
_grads = per_lane(lambda problem, x: problem.own_grads(x), lambda problem, X: problem.lane_grads(X))


@jax.jit
@on_devices
def _value(problem: Problem, x: Vec) -> Scalar:
    return problem.value(x)


@jax.jit
@on_devices
def _gradient(problem: Problem, x: Vec) -> Vec:
    return jnp.mean(problem.grads(x), axis=0)


@jax.jit
@on_devices
def _hessian_product(problem: Problem, x: Vec, v: Vec) -> Vec:
    return jnp.mean(problem.hvps(x, v), axis=0)


@jax.jit
@on_devices
def _hessian(problem: Problem, x: Vec) -> jax.Array:
    """(d, d) Hessian of F, 32 rows at a time to limit memory."""
    product = lambda v: jnp.mean(problem.hvps(x, v), axis=0)
    return jax.lax.map(product, jnp.eye(problem.dim, dtype=x.dtype), batch_size=32)


def arrays(constants: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """The constants as arrays of this dtype, by name."""
    return {name: jnp.asarray(value, dtype) for name, value in constants.items()}

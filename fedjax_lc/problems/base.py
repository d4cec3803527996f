"""The base of all problems, and what they share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.lanes import per_lane
from fedjax_lc.core.platforms import by_platform
from fedjax_lc.core.typing import ClientVecs, Key, Scalar, Vec
from fedjax_lc.problems.optimum import Optimum, minimise, smallest_eigenvalue


class Problem:
    """Base of all problems. Subclasses give `values`, `own_grads`, `stochastic_grads`; `lane_grads` and `hvps` if they
    have a faster form.

    Leaves common to all (in the problem's dtype): `smooth` (n,) the constants L_i, `smooth_mean` () the constant of F,
    `strong` () mu, of F's l2 part, `x0` (d,) the start. Inside jit all of them are traced; `x_star` and `f_star` are
    host float64 there and everywhere else.
    """

    smooth: jax.Array
    smooth_mean: jax.Array
    strong: jax.Array
    x0: Vec
    given_f_star: float | None
    attached: Vec | None
    ids: jax.Array | None
    per_client: ClassVar[tuple[str, ...]] = ("smooth",)  #: leaves whose first axis is the clients
    solvable: ClassVar[bool] = True  #: whether a minimiser can be computed
    usual_batch: int | None = None  #: rows of a local step where a method is not told; None for all

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

    def value(self, x: Vec) -> Scalar:
        """F(x), ()."""
        return jnp.mean(self.values(x))

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        """(n,) f_i(x), or f_i(x_i) for x (n, d)."""
        raise NotImplementedError

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `measure` knows besides F."""
        return ("grad_norm", "distance")

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        """Those that a run records without being asked for them."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """What else identifies the problem in a result file, as plain values."""
        return {}

    def measure(self, x: Vec, names: tuple[str, ...]) -> dict[str, Scalar]:
        """What these names ("value" for F, or of `metrics`) stand for at the model x (d,)."""
        known: dict[str, Callable[[], Scalar]] = {
            "value": lambda: self.value(x),
            "grad_norm": lambda: jnp.linalg.norm(jnp.mean(self.grads(x), axis=0)),
            "distance": lambda: jnp.linalg.norm(x - self.x_star),
        }
        return {name: known[name]() for name in names}

    @property
    def layers(self) -> tuple[int, ...]:
        """Sizes of the consecutive blocks that x is made of: a network's layers; here one."""
        return (self.dim,)

    def grads(self, x: Vec | ClientVecs) -> ClientVecs:
        """(n, d) row i the gradient of f_i, at x (d,) or at its own row of x (n, d); over lanes, `lane_grads`."""
        return _grads(self, x)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        """What `grads` computes for one lane."""
        raise NotImplementedError

    def lane_grads(self, X: jax.Array) -> jax.Array:
        """(lanes, n, d) gradients of many lanes, X (lanes, d) or (lanes, n, d)."""
        return jax.vmap(self.own_grads)(X)

    def for_lanes(self) -> Any:
        """The same problem with whatever `lane_grads` would otherwise compute at every step."""
        return self

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int, *, replacement: bool = True) -> ClientVecs:
        """(n, d) unbiased gradients from `batch` rows per client, uniform over its real rows.

        Without replacement no row comes twice, and a client with fewer rows than that takes all of them. A client's
        rows depend on the key and on its own number alone.
        """
        raise NotImplementedError

    def passes(self, batch: int, *, replacement: bool = True) -> jax.Array:
        """(n,) the share of a client's full gradient that such a batch costs."""
        raise NotImplementedError

    def client_keys(self, key: Key) -> Key:
        """(n,) a key for each client, by its number in the whole problem."""
        if self.ids is None:
            return jax.random.split(key, self.n)
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(self.ids)  # the same keys

    def hvps(self, x: Vec | ClientVecs, v: Vec | ClientVecs) -> ClientVecs:
        """(n, d) Hessian of f_i times v."""
        return jax.jvp(self.own_grads, (x,), (v,))[1]

    def cohort(self, clients: jax.Array) -> Any:
        """The functions f_i of these clients alone, (c,) indices; `smooth_mean` and `strong` stay those of F.

        Only their data are gathered, so `problem.cohort(clients).grads(x)` costs c clients, not n.
        """
        gathered = {name: getattr(self, name)[clients] for name in self.per_client}
        ids = clients if self.ids is None else self.ids[clients]
        return dataclasses.replace(self, **gathered, ids=ids, attached=None, given_f_star=None)  # type: ignore[type-var]

    def hessian(self, x: Any) -> np.ndarray:
        """(d, d) Hessian of F at x (d,), NumPy float64, on the host."""
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            return np.asarray(_hessian(pytree.cast(self, jnp.float64), jnp.asarray(x, jnp.float64)))

    @property
    def x_star(self) -> Any:
        """(d,) minimiser of F, NumPy float64; NaN where no optimum is known. Inside jit, the copy `solved` attached."""
        if pytree.is_traced(self.x0):
            if self.attached is None:
                raise InputError("x_star inside jit needs problem.solved(): pass that in place of problem")
            return self.attached
        return self._optimum.x

    @property
    def f_star(self) -> float:
        """min F, a host float64; the value given as `f_star=` if one was, NaN where no optimum is known."""
        return self.given_f_star if self.given_f_star is not None else self._optimum.value

    def solved(self) -> Any:
        """The same problem with a device copy of x_star, so that compiled code may measure distances to it."""
        return self.replace(attached=jnp.asarray(self._optimum.x, self.dtype))

    def replace(self, **changes: Any) -> Any:
        """A copy with fields changed that leave F alone, such as x0; the optimum is not computed again."""
        changed = dataclasses.replace(self, **changes)  # type: ignore[type-var]
        if "_optimum" in self.__dict__:
            changed.__dict__["_optimum"] = self._optimum
        return changed

    @functools.cached_property
    def _optimum(self) -> Optimum:
        if not self.solvable:
            return Optimum(np.full(self.dim, np.nan), np.nan, np.nan, False)
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            exact = pytree.cast(self, jnp.float64)
            found = minimise(
                lambda x: float(_value(exact, x)),
                lambda x: np.asarray(_gradient(exact, x)),
                lambda x: np.asarray(_hessian(exact, x)),
                lambda x, v: np.asarray(_hessian_product(exact, x, v)),
                np.asarray(self.x0, np.float64),
            )
        return found if found.converged else Optimum(np.full(self.dim, np.nan), np.nan, found.grad_norm, False)

    @property
    def kappa(self) -> float:
        """Nominal condition number of LoCoDL's split problem: (max L_i - mu/2) / (mu/2), mu = strong; inf at 0."""
        half = float(self.strong) / 2
        if half == 0:
            return float("inf")
        return (float(np.max(np.asarray(self.smooth, np.float64))) - half) / half

    @functools.cached_property
    def kappa_eff(self) -> float:
        """Condition number that gradient descent feels near the solution: smooth_mean / lambda_min(Hess F(x_star)), for
        d above 3000 to about a thousandth."""
        x = self.x_star
        if not np.all(np.isfinite(x)):
            return float("nan")
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            exact = pytree.cast(self, jnp.float64)
            times = lambda v: np.asarray(_hessian_product(exact, x, v))
            return float(self.smooth_mean) / smallest_eigenvalue(lambda: self.hessian(x), times, self.dim)


class Sampled(Problem):
    """Base of problems whose f_i is a mean over a client's rows, of which a batch gives an unbiased gradient.

    Subclasses give `batch_grads`, `sizes` (n,) the rows of each client, `longest`, their largest number or more,
    `even`, whether all of them have `longest` rows, and `scale` (n,) n w_i.
    """

    sizes: jax.Array
    longest: int
    even: bool

    @property
    def scale(self) -> jax.Array:
        """(n,) n w_i, by which the mean over a client's rows is multiplied."""
        raise NotImplementedError

    def batch_grads(self, picks: jax.Array, weights: jax.Array, x: Vec | ClientVecs, key: Key) -> ClientVecs:
        """(n, d) sums over rows `picks` (n, b), a client's own numbers, of their gradients times `weights` (n, b).

        key: for what is random in the model itself, such as dropout.
        """
        raise NotImplementedError

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int, *, replacement: bool = True) -> ClientVecs:
        return self.batch_grads(*self.draw(key, batch, replacement), x, key)

    def passes(self, batch: int, *, replacement: bool = True) -> jax.Array:
        share = batch / self.sizes.astype(self.dtype)
        return share if replacement else jnp.minimum(share, 1)

    def draw(self, key: Key, batch: int, replacement: bool) -> tuple[jax.Array, jax.Array]:
        """(n, batch) row numbers, clients by index, and the weights that make their sum an unbiased gradient."""
        keys = self.client_keys(key)
        if replacement:
            picks = jax.vmap(lambda k, m: below(k, jnp.full(batch, m)))(keys, self.sizes)
            return picks, self._weights(jnp.ones(picks.shape, bool))
        picks, valid = jax.vmap(lambda k, m: distinct(k, m, batch))(keys, self.sizes)
        return picks, self._weights(valid)

    def orders(self, key: Key, epochs: int) -> jax.Array:
        """(n, epochs, longest) each client's rows in a random order for each epoch."""
        longest = self.longest

        def order(key: Key, m: jax.Array) -> jax.Array:
            own = jnp.arange(longest) < m
            draws = jax.random.bits(key, (epochs, longest), jnp.uint32) >> 1
            return jnp.argsort(jnp.where(own, draws, jnp.uint32(2**32 - 1)), axis=-1)

        return jax.vmap(order)(self.client_keys(key), self.sizes)

    def turn(self, orders: jax.Array, h: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
        """What `draw` gives, of local step h (): the next `batch` rows of the epoch, fewer at its end."""
        each = jnp.broadcast_to(jnp.asarray(self.turns(batch), jnp.int32), self.sizes.shape)
        place = (h % each)[:, None] * batch + jnp.arange(batch)[None]
        epoch = jnp.minimum(h // each, orders.shape[1] - 1)
        own = place % self.sizes[:, None]  # a client's rows again where there are no more
        picks = jax.vmap(lambda order, e, p: order[e, p])(orders, epoch, own)
        return picks, self._weights(place < self.sizes[:, None])

    def turns(self, batch: int) -> int | jax.Array:
        """Local steps of one epoch, (n,); a plain number where all clients have as many rows."""
        return -(-(self.longest if self.even else self.sizes) // batch)

    def _weights(self, taken: jax.Array) -> jax.Array:
        share = taken.astype(self.dtype)
        return share * (self.scale[:, None] / jnp.sum(share, axis=1, keepdims=True))


#: (problem, x) -> gradients, with the rule for lanes.
_grads = per_lane(lambda problem, x: problem.own_grads(x), lambda problem, X: problem.lane_grads(X))


@jax.jit
def _value(problem: Problem, x: Vec) -> Scalar:
    return problem.value(x)


@jax.jit
def _gradient(problem: Problem, x: Vec) -> Vec:
    return jnp.mean(problem.grads(x), axis=0)


@jax.jit
def _hessian_product(problem: Problem, x: Vec, v: Vec) -> Vec:
    return jnp.mean(problem.hvps(x, v), axis=0)


@jax.jit
def _hessian(problem: Problem, x: Vec) -> jax.Array:
    """(d, d), a few rows at a time so that no more than a few copies of the predictions live at once."""
    return jax.lax.map(lambda v: _hessian_product(problem, x, v), jnp.eye(problem.dim, dtype=x.dtype), batch_size=32)


def arrays(constants: dict[str, Any], dtype: Any) -> dict[str, Any]:
    return {name: jnp.asarray(value, dtype) for name, value in constants.items()}


def below(key: Key, m: jax.Array) -> jax.Array:
    """Uniform whole numbers of 0..m-1, as many as m has: floor(u m / 2^32) of one 32-bit draw u each, so off by at most
    m / 2^32 of themselves; half the random bits of `jax.random.randint`.

    Drawn by jax's loop over rounds, which XLA does not fuse: `compressors.draws.random_bits` would be computed again
    for every entry that is gathered by these numbers.
    """
    u, m = jax.random.bits(key, m.shape, jnp.uint32), m.astype(jnp.uint32)
    low = lambda number: number & 0xFFFF
    middle = (u >> 16) * low(m) + ((low(u) * low(m)) >> 16)
    carry = (low(u) * (m >> 16) + low(middle)) >> 16
    return ((u >> 16) * (m >> 16) + (middle >> 16) + carry).astype(jnp.int32)


def distinct(key: Key, m: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """(batch,) different numbers of 0..m-1, uniform over subsets, and which of them are valid: all, or m if m < batch;
    the others are 0..m-1 again.

    Floyd's algorithm: for j = m - batch, ..., m - 1 take a uniform t <= j, or j where t was taken before. All t are
    drawn at once; t was taken before if an earlier t equals it, or if it is an earlier j that had to be taken. A CPU
    goes through all pairs until nothing changes, once or twice as a rule; on an accelerator, where the end of such a
    loop costs more, each place looks twice as far back at every turn, of which log2(batch) are enough.
    """
    place = jnp.arange(batch)
    j = m - batch + place
    t = below(key, jnp.maximum(j + 1, 1))
    if batch == 1:
        return t, j >= 0  # of m >= 1 rows
    earlier = jnp.tri(batch, k=-1, dtype=bool) & (j >= 0)[None]
    again = jnp.any(earlier & (t[:, None] == t[None]), axis=1)

    def until_nothing_changes(again: jax.Array, t: jax.Array, j: jax.Array) -> jax.Array:
        follows = earlier & (t[:, None] == j[None])

        def spread(both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            _, forced = both
            return forced, again | jnp.any(follows & forced[None], axis=1)

        changing = lambda both: jnp.any(both[0] != both[1])
        return jax.lax.while_loop(changing, spread, spread((again, again)))[1]

    def twice_as_far(again: jax.Array, t: jax.Array, j: jax.Array) -> jax.Array:
        before = t - j[0]  # the place whose j this t is
        before, forced = jnp.where((before >= 0) & (before < place), before, place), again
        for _ in range((batch - 1).bit_length()):
            forced, before = forced | forced[before], before[before]
        return forced

    forced = by_platform(cpu=until_nothing_changes, accelerator=twice_as_far)(again, t, j)
    return jnp.where(j >= 0, jnp.where(forced, j, t), j % m), j >= 0


def some_of(key: Key, share: Scalar, n: int) -> jax.Array:
    """(n,) booleans, each true with probability `share` > 0, independently, given that not all are false.

    One draw, and where it leaves nobody another of the law given that somebody comes: who comes first, i with
    probability (1 - share)^i share / (1 - (1 - share)^n), and each of those behind with probability `share`. Nothing is
    drawn again and again, however small the share.

    Example:
        >>> int(jnp.sum(some_of(jax.random.key(0), 1e-9, 100)))
        1
    """
    key, own = jax.random.split(key)
    drawn = jax.random.bernoulli(own, share, (n,))
    first_key, rest_key = jax.random.split(key)
    log_stay = jnp.log1p(-jnp.asarray(share))
    u = jax.random.uniform(first_key, (), log_stay.dtype)
    early = jnp.log1p(u * jnp.expm1(n * log_stay)) / log_stay
    uniform = -n * log_stay < jnp.finfo(log_stay.dtype).eps  # the law, to rounding
    first = jnp.floor(jnp.where(uniform, u * n, early))
    client = jnp.arange(n, dtype=log_stay.dtype)
    first = jnp.clip(first, 0, n - 1)
    instead = (client == first) | ((client > first) & jax.random.bernoulli(rest_key, share, (n,)))
    return jnp.where(jnp.any(drawn), drawn, instead)

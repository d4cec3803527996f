"""What is minimised: F(x) = (1/n) sum_i f_i(x), one pytree with all clients' data stacked.

Ragged clients are padded to the longest one and masked by row weights of zero, so a client's loss is always
`f_i(x) = sum_s r_is loss(<a_is, x>, b_is) + (l2/2) |x|^2` with r_is = 1/m_i on its own rows. Client weights w_i (say
m_i / N) multiply r_is by n w_i, so that the plain mean over clients is the weighted objective and no method needs to
know.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc import pytree
from fedjax_lc.errors import InputError
from fedjax_lc.lanes import per_lane
from fedjax_lc.losses import Logistic, Softmax, Squared
from fedjax_lc.optimum import Optimum, minimise
from fedjax_lc.stacking import Clients, constants, float_dtype, stack, whole_vectors
from fedjax_lc.typing import ClientVecs, Key, Scalar, Vec

FEW_LANES = {4: 2, 8: 4}  #: by bytes of a number: fewer lanes gain nothing from one product


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
    per_client: ClassVar[tuple[str, ...]] = ("smooth",)  #: leaves whose first axis is the clients

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

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int) -> ClientVecs:
        """(n, d) unbiased gradients from `batch` rows per client, uniform with replacement over its real rows."""
        raise NotImplementedError

    def hvps(self, x: Vec | ClientVecs, v: Vec | ClientVecs) -> ClientVecs:
        """(n, d) Hessian of f_i times v."""
        return jax.jvp(self.own_grads, (x,), (v,))[1]

    def cohort(self, clients: jax.Array) -> Any:
        """The functions f_i of these clients alone, (c,) indices; `smooth_mean` and `strong` stay those of F.

        Only their data are gathered, so `problem.cohort(clients).grads(x)` costs c clients, not n.
        """
        gathered = {name: getattr(self, name)[clients] for name in self.per_client}
        return dataclasses.replace(self, **gathered, attached=None, given_f_star=None)  # type: ignore[type-var]

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
        """Nominal condition number of LoCoDL's split problem: (max L_i - mu/2) / (mu/2), mu = strong."""
        half = float(self.strong) / 2
        return (float(np.max(np.asarray(self.smooth, np.float64))) - half) / half

    @functools.cached_property
    def kappa_eff(self) -> float:
        """Condition number that gradient descent feels near the solution: smooth_mean / lambda_min(Hess F(x_star))."""
        if not np.all(np.isfinite(self.x_star)):
            return float("nan")
        return float(self.smooth_mean) / float(np.linalg.eigvalsh(self.hessian(self.x_star))[0])


@pytree.dataclass
class LinearModel(Problem):
    """Losses of one linear prediction per row: logistic regression and least squares.

    features (n, m, d') with d' >= d and zeros beyond column d (`_whole_vectors`), targets (n, m), rows (n, m) the row
    weights r_is, sizes (n,) the real rows of each client.
    """

    features: jax.Array
    targets: jax.Array
    rows: jax.Array
    sizes: jax.Array
    strong: jax.Array
    smooth: jax.Array
    smooth_mean: jax.Array
    x0: Vec
    attached: Vec | None = None
    turned: jax.Array | None = None  #: (n, d', m) features, their last axes exchanged; see `for_lanes`
    loss: Any = pytree.static(default=Logistic)
    given_f_star: float | None = pytree.static(default=None)
    per_client: ClassVar[tuple[str, ...]] = ("features", "targets", "rows", "sizes", "smooth")

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        losses = jnp.sum(self.rows * self.loss.value(_predict(self.features, x), self.targets), axis=-1)
        return losses + self.strong / 2 * jnp.sum(x**2, axis=-1)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        slopes = self.rows * self.loss.slope(_predict(self.features, x), self.targets)
        return _pull_back(self.features, slopes, self.dim) + self.strong * jnp.atleast_2d(x)

    def lane_grads(self, X: jax.Array) -> jax.Array:
        """Two matrix products per client with the lanes as rows, the fastest layout measured in both precisions; a few
        lanes, whose products are slow, one after the other."""
        if X.shape[0] < FEW_LANES.get(X.dtype.itemsize, 2):
            return jax.lax.map(self.own_grads, X)
        A, wide = self.features, _widen(X, self.features.shape[-1])
        if X.ndim == 2:  # one product for all clients
            z = jnp.swapaxes(jnp.einsum("nmd,ld->nml", A, wide), 1, 2)
        else:
            turned = jnp.swapaxes(A, 1, 2) if self.turned is None else self.turned
            z = jnp.einsum("lnd,ndm->nlm", wide, turned)
        slopes = self.rows[:, None] * self.loss.slope(z, self.targets[:, None])
        pulled = jnp.swapaxes(jnp.einsum("nlm,nmd->nld", slopes, A), 0, 1)[..., : self.dim]
        return pulled + self.strong * (X[:, None] if X.ndim == 2 else X)

    def for_lanes(self) -> LinearModel:
        """With the features turned: XLA's CPU backend would turn them for each product, at the price of a few lanes."""
        return self.replace(turned=jnp.swapaxes(self.features, 1, 2))

    def cohort(self, clients: jax.Array) -> LinearModel:
        return dataclasses.replace(super().cohort(clients), turned=None)

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int) -> ClientVecs:
        picks = _uniform_rows(key, self.sizes, batch)
        A = jnp.take_along_axis(self.features, picks[..., None], axis=1)
        slopes = self.loss.slope(_predict(A, x), jnp.take_along_axis(self.targets, picks, axis=1))
        scale = self.rows[:, :1] * self.sizes[:, None].astype(self.dtype) / batch
        return _pull_back(A, scale * slopes, self.dim) + self.strong * jnp.atleast_2d(x)

    def hvps(self, x: Vec | ClientVecs, v: Vec | ClientVecs) -> ClientVecs:
        bends = self.rows * self.loss.bend(_predict(self.features, x), self.targets)
        products = _pull_back(self.features, bends * _predict(self.features, v), self.dim)
        return products + self.strong * jnp.atleast_2d(v)


def _predict(A: jax.Array, x: Vec | ClientVecs) -> jax.Array:
    """(n, m) products A_i x or A_i x_i, where A (n, m, d') may be wider than x."""
    x = _widen(x, A.shape[-1])
    return A @ x if x.ndim == 1 else jnp.einsum("nmd,nd->nm", A, x)


def _widen(x: jax.Array, width: int) -> jax.Array:
    """x (..., d) with zeros up to (..., width)."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])


def _pull_back(A: jax.Array, s: jax.Array, d: int) -> ClientVecs:
    """(n, d) products A_i^T s_i, where A (n, m, d') may be wider than d."""
    return jnp.einsum("nmd,nm->nd", A, s)[:, :d]


@pytree.dataclass
class SoftmaxModel(Problem):
    """Multinomial regression: x is the matrix W (p, C) raveled row by row, z = a W.

    features (n, m, p), targets (n, m) whole numbers 0..C-1, rows (n, m), sizes (n,).
    """

    features: jax.Array
    targets: jax.Array
    rows: jax.Array
    sizes: jax.Array
    strong: jax.Array
    smooth: jax.Array
    smooth_mean: jax.Array
    x0: Vec
    attached: Vec | None = None
    classes: int = pytree.static(default=2)
    given_f_star: float | None = pytree.static(default=None)
    loss: ClassVar[Any] = Softmax
    per_client: ClassVar[tuple[str, ...]] = ("features", "targets", "rows", "sizes", "smooth")

    def _matrix(self, x: Vec | ClientVecs) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.features.shape[-1], self.classes)

    def _predict(self, x: Vec | ClientVecs) -> jax.Array:
        if x.ndim == 1:
            return self.features @ self._matrix(x)
        return jnp.einsum("nmp,npc->nmc", self.features, self._matrix(x))

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        losses = jnp.sum(self.rows * Softmax.value(self._predict(x), self.targets), axis=-1)
        return losses + self.strong / 2 * jnp.sum(x**2, axis=-1)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        slopes = self.rows[..., None] * Softmax.slope(self._predict(x), self.targets)
        blocks = jnp.einsum("nmp,nmc->npc", self.features, slopes)
        return blocks.reshape(self.n, self.dim) + self.strong * jnp.atleast_2d(x)

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int) -> ClientVecs:
        picks = _uniform_rows(key, self.sizes, batch)
        A = jnp.take_along_axis(self.features, picks[..., None], axis=1)
        W = self._matrix(x)
        z = A @ W if x.ndim == 1 else jnp.einsum("nbp,npc->nbc", A, W)
        slopes = Softmax.slope(z, jnp.take_along_axis(self.targets, picks, axis=1))
        scale = self.rows[:, :1] * self.sizes[:, None].astype(self.dtype) / batch
        blocks = jnp.einsum("nbp,nbc->npc", A, scale[..., None] * slopes)
        return blocks.reshape(self.n, self.dim) + self.strong * jnp.atleast_2d(x)


@pytree.dataclass
class Quadratic(Problem):
    """f_i(x) = x^T Q_i x / 2 - <b_i, x>, with Q (n, d, d) symmetric and b (n, d)."""

    Q: jax.Array
    b: jax.Array
    strong: jax.Array
    smooth: jax.Array
    smooth_mean: jax.Array
    x0: Vec
    attached: Vec | None = None
    given_f_star: float | None = pytree.static(default=None)
    per_client: ClassVar[tuple[str, ...]] = ("Q", "b", "smooth")

    def values(self, x: Vec | ClientVecs) -> jax.Array:
        return jnp.sum((self._times(x) / 2 - self.b) * jnp.atleast_2d(x), axis=-1)

    def _times(self, x: Vec | ClientVecs) -> ClientVecs:
        return self.Q @ x if x.ndim == 1 else jnp.einsum("nde,ne->nd", self.Q, x)

    def own_grads(self, x: Vec | ClientVecs) -> ClientVecs:
        return self._times(x) - self.b

    def lane_grads(self, X: jax.Array) -> jax.Array:
        X = jnp.broadcast_to(X[:, None], (X.shape[0], *self.b.shape)) if X.ndim == 2 else X
        return jnp.swapaxes(jnp.einsum("lne,ned->nld", X, self.Q), 0, 1) - self.b[None]  # Q_i is symmetric

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int) -> ClientVecs:
        """The full gradients: a quadratic has no rows to draw."""
        return self.grads(x)

    def hvps(self, x: Vec | ClientVecs, v: Vec | ClientVecs) -> ClientVecs:
        return self._times(v)


#: (problem, x) -> gradients, with the rule for lanes.
_grads = per_lane(lambda problem, x: problem.own_grads(x), lambda problem, X: problem.lane_grads(X))


def logistic_regression(
    clients: Clients,
    l2: float | None = None,
    *,
    kappa: float | None = None,
    weights: Any = None,
    norm: str = "spectral",
    f_star: float | None = None,
    dtype: Any = None,
) -> LinearModel:
    """f_i(x) = (1/m_i) sum_s log(1 + exp(-b_s <a_s, x>)) + (l2/2) |x|^2.

    Args:
        clients: list of (features (m_i, d), labels +-1 (m_i,)); sizes may differ.
        l2: the strong convexity mu of every f_i; or give `kappa` instead.
        kappa: sets l2 = 2 L_logistic / (kappa - 1), so that LoCoDL's split problem has this condition number.
        weights: None (every client counts the same), "size" (m_i / N), or (n,) numbers; they are normalised to sum 1.
        norm: how the smoothness constants measure A_i^T A_i: "spectral" (exact) or "frobenius" (an upper bound that
            some papers use).
        f_star: overrides the computed optimal value.
        dtype: "float32" or "float64"; JAX's default float if None.

    Raises:
        InputError: shapes, labels or numbers that do not fit, in one line.

    Example:
        >>> clients = [(np.eye(3), np.array([1.0, -1.0, 1.0])), (np.ones((2, 3)), np.array([1.0, -1.0]))]
        >>> problem = logistic_regression(clients, l2=0.1)
        >>> problem.n, problem.dim
        (2, 3)
    """
    for i, (_, labels) in enumerate(clients):
        if not np.all(np.isin(np.asarray(labels), (-1, 1))):
            raise InputError(f"client {i} has labels other than -1 and +1: map them with fl.data.load or by hand")
    return _linear(Logistic, clients, l2, kappa, weights, norm, f_star, dtype)


def least_squares(
    clients: Clients,
    l2: float | None = None,
    *,
    kappa: float | None = None,
    weights: Any = None,
    norm: str = "spectral",
    f_star: float | None = None,
    dtype: Any = None,
) -> LinearModel:
    """f_i(x) = (1/(2 m_i)) sum_s (<a_s, x> - b_s)^2 + (l2/2) |x|^2; arguments as in `logistic_regression`."""
    return _linear(Squared, clients, l2, kappa, weights, norm, f_star, dtype)


def softmax_regression(
    clients: Clients,
    l2: float | None = None,
    *,
    kappa: float | None = None,
    classes: int | None = None,
    weights: Any = None,
    norm: str = "spectral",
    f_star: float | None = None,
    dtype: Any = None,
) -> SoftmaxModel:
    """f_i(W) = (1/m_i) sum_s [log sum_c exp(a_s W_c) - a_s W_{b_s}] + (l2/2) |W|^2.

    Targets are whole numbers 0..C-1; `classes` is C, or the largest target plus one over all clients if None. The
    vector x is W (p, C) raveled row by row, d = p C. Other arguments as in `logistic_regression`.
    """
    A, b, rows, sizes = stack(clients, weights)
    whole = b.astype(np.int32)
    if np.any(whole != b) or np.any(whole < 0):
        raise InputError("softmax targets must be whole numbers 0..C-1: map classes with fl.data.load or by hand")
    C = classes if classes is not None else int(whole.max()) + 1
    if whole.max() >= C:
        raise InputError(f"a target is {whole.max()} but classes={C}: targets must lie in 0..classes-1")
    found = constants(A, rows, Softmax.curvature, l2, kappa, norm)
    kind = float_dtype(dtype)
    return SoftmaxModel(
        jnp.asarray(A, kind),
        jnp.asarray(whole),
        jnp.asarray(rows, kind),
        jnp.asarray(sizes),
        **_arrays(found, kind),
        x0=jnp.zeros(A.shape[-1] * C, kind),
        classes=C,
        given_f_star=f_star,
    )


def quadratic(Q: Any, b: Any, *, f_star: float | None = None, dtype: Any = None) -> Quadratic:
    """f_i(x) = x^T Q_i x / 2 - <b_i, x>.

    Args:
        Q: (n, d, d) symmetric; or (n, d), the diagonals. b: (n, d).
        strong is the smallest eigenvalue over all Q_i, smooth the largest of each.

    Example:
        >>> float(quadratic(np.ones((2, 3)), np.zeros((2, 3))).smooth_mean)
        1.0
    """
    Q, b = np.asarray(Q, np.float64), np.asarray(b, np.float64)
    if Q.ndim == 2:
        Q = np.stack([np.diag(diagonal) for diagonal in Q])
    if Q.ndim != 3 or b.shape != Q.shape[:2] or Q.shape[1] != Q.shape[2]:
        raise InputError(f"quadratic needs Q (n, d, d) and b (n, d), got {Q.shape} and {b.shape}")
    if not (np.all(np.isfinite(Q)) and np.all(np.isfinite(b))):
        raise InputError("quadratic has entries that are not finite: clean Q and b first")
    if not np.allclose(Q, Q.transpose(0, 2, 1), rtol=1e-12, atol=1e-12 * np.abs(Q).max()):
        raise InputError("quadratic needs symmetric Q_i: pass (Q + Q.transpose(0, 2, 1)) / 2")
    eigenvalues = np.linalg.eigvalsh(Q)
    mean_smooth = np.linalg.eigvalsh(Q.mean(0))[-1]
    found = {"strong": max(eigenvalues.min(), 0.0), "smooth": eigenvalues[:, -1], "smooth_mean": mean_smooth}
    kind = float_dtype(dtype)
    return Quadratic(
        jnp.asarray(Q, kind),
        jnp.asarray(b, kind),
        **_arrays(found, kind),
        x0=jnp.zeros(Q.shape[1], kind),
        given_f_star=f_star,
    )


def _linear(
    loss: Any, clients: Clients, l2: float | None, kappa: float | None, weights: Any, norm: str, f_star: Any, dtype: Any
) -> LinearModel:
    A, b, rows, sizes = stack(clients, weights)
    found = constants(A, rows, loss.curvature, l2, kappa, norm)
    kind = float_dtype(dtype)
    return LinearModel(
        jnp.asarray(whole_vectors(A, kind), kind),
        jnp.asarray(b, kind),
        jnp.asarray(rows, kind),
        jnp.asarray(sizes),
        **_arrays(found, kind),
        x0=jnp.zeros(A.shape[-1], kind),
        loss=loss,
        given_f_star=f_star,
    )


def _arrays(constants: dict[str, Any], dtype: Any) -> dict[str, Any]:
    return {name: jnp.asarray(value, dtype) for name, value in constants.items()}


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


def _uniform_rows(key: Key, sizes: jax.Array, batch: int) -> jax.Array:
    """(n, batch) row numbers, uniform with replacement over each client's own rows; clients by index."""
    keys = jax.random.split(key, sizes.shape[0])
    return jax.vmap(lambda k, m: jax.random.randint(k, (batch,), 0, m))(keys, sizes)

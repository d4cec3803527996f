"""Stacking of clients' data: checks, padding, weights, and the smoothness constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fedjax_lc.core import memory, pytree
from fedjax_lc.core.devices import CLIENTS, place, settled
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.shares import agreed, devices_waiting, exchanged, here, of_each, stored_rows, waiting
from fedjax_lc.core.typing import ClientVecs, Key, Vec
from fedjax_lc.data.sparse import as_array, as_csr, is_sparse, real
from fedjax_lc.problems import content, norms
from fedjax_lc.problems.base import Sampled
from fedjax_lc.problems.features import Features, Sparse
from fedjax_lc.problems.layouts import Cut, among, laid_out
from fedjax_lc.problems.ragged_sparse import RaggedSparse
from fedjax_lc.problems.tables import Tables

Clients = Sequence[tuple[Any, Any]]
COPIES = 2  #: float64 copies of all features that the host holds while it stacks them and computes constants
_ROOM = 3 / 8
X64_LINE = 'jax.config.update("jax_enable_x64", True)'


@pytree.dataclass
class RowsProblem(Sampled):
    """Base of problems whose f_i is a weighted sum over rows of data.

    Attributes:
        features: the matrices A_i, in blocks of rows.
        targets: (B, m), a row's as the features lay it out.
        rows: (B, m) the row weights r_is, 0 for padding.
        sizes: (n,) the number of rows of each client, without padding.
    """

    features: Features
    targets: jax.Array
    rows: jax.Array
    sizes: jax.Array
    strong: jax.Array
    smooth: jax.Array
    smooth_mean: jax.Array
    x0: Vec
    attached: Vec | None = None
    ids: jax.Array | None = None
    given_f_star: float | None = pytree.static(default=None)
    even: bool = pytree.static(default=False)
    per_client: ClassVar[tuple[str, ...]] = ("sizes", "smooth")

    @property
    def scale(self) -> jax.Array:
        first = jnp.zeros((self.n, 1), jnp.int32)
        return self.features.picked(self.rows, first)[:, 0] * self.sizes.astype(self.dtype)

    @property
    def longest(self) -> int:  # type: ignore[override]
        return self.features.longest

    def stochastic_grads(self, key: Key, x: Vec | ClientVecs, batch: int, *, replacement: bool = True) -> ClientVecs:
        if not replacement and batch >= self.longest:
            return self.grads(x)
        return super().stochastic_grads(key, x, batch, replacement=replacement)

    def cohort(self, clients: jax.Array) -> Any:
        targets, rows = (self.features.table_of(table, clients) for table in (self.targets, self.rows))
        data = {"features": self.features.of(clients), "targets": targets, "rows": rows}
        return dataclasses.replace(super().cohort(clients), **settled(data, len(clients)))

    def content(self) -> dict[str, Any]:
        """What identifies the problem, however its data are laid out. The last bits of `smooth_mean` depend on how many
        processes add it up."""
        laid_out = ("features", "targets", "rows", "smooth_mean")
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in laid_out}
        with waiting(self.mesh):
            data = content.digests(self.features, self.targets, self.rows, np.asarray(self.sizes))
        kind = (isinstance(self.features, Sparse | RaggedSparse), self.features.width)
        return rest | {"data": data, "kind": kind, "smooth_mean": np.float32(self.smooth_mean)}

    def on(self, mesh: Mesh) -> Any:
        problem, devices = self, mesh.shape[CLIENTS]
        if isinstance(self.features, Tables) and self.features.devices != devices:
            features, turned = among(self.features, np.asarray(self.sizes), devices)
            problem = self.replace(features=features, targets=turned(self.targets), rows=turned(self.rows))
        if isinstance(problem.features, Tables):
            split = lambda leaf: place(leaf, len(leaf), mesh) if leaf.ndim > 1 else leaf
            problem = problem.replace(features=jax.tree.map(split, problem.features))
        data = {name: getattr(problem, name) for name in ("features", "targets", "rows")}
        return place(problem.replace(**place(data, len(problem.targets), mesh)), self.n, mesh)


class Stack(NamedTuple):
    """The data of clients in blocks of rows, padded with zeros, NumPy float64; those that this process holds.

    Attributes:
        features: (B, m, d), or one SciPy CSR array (m_i, d) per client.
        targets: (B, m).
        rows: (B, m) row weights.
        sizes: (n,) rows of each client, of all processes.
        cut: how rows are cut into blocks; None for one block per client.
    """

    features: Any
    targets: np.ndarray
    rows: np.ndarray
    sizes: np.ndarray
    cut: Cut | None

    def laid_out(self, dtype: Any, *, vectors: bool = True) -> Features:
        """The features on the device, see `layouts.laid_out`."""
        return laid_out(self.features, self.sizes, self.cut, dtype, vectors=vectors)

    def stored(self, table: np.ndarray, dtype: Any = None) -> Any:
        """A table of all clients, such as targets."""
        return stored_rows(table, len(self.sizes) if self.cut is None else len(self.cut.owners), dtype)


def stack(
    clients: Clients, weights: Any, form: str = "auto", check: Callable[[int, Any], Any] = lambda i, targets: None
) -> Stack:
    """Check and stack all clients' data; features are kept "dense", "sparse", or ("auto") sparse if one client's are.

    Dense clients whose sizes differ much are cut into small blocks; all others are padded to the largest. Of several
    processes that wait for each other, each asks for its clients alone.

    check: called with each client's number and targets; raises InputError where they cannot be used.
    """
    if not len(clients):
        raise InputError("a problem needs at least one client, got an empty list")
    if form not in ("auto", "dense", "sparse"):
        raise InputError(f"features must be 'auto', 'dense' or 'sparse', got {form!r}")
    numbers = here(len(clients))
    with agreed():
        parts, sparse, d = _checked(clients, numbers, form, check)
    sizes = exchanged(np.array([len(b) for _, b in parts], np.int32), len(clients))
    matrices, devices = [A for A, _ in parts], devices_waiting()
    cut = Cut.of_sparse(matrices, sizes, devices) if sparse else Cut.of(sizes, d, devices)
    into = cut or Cut.padded(sizes)
    targets = into.table([b for _, b in parts])
    weight = len(clients) * shares(weights, sizes)[numbers]
    rows = into.table([np.full(len(b), each / len(b)) for (_, b), each in zip(parts, weight, strict=True)])
    return Stack(matrices if sparse else into.table(matrices, (d,)), targets, rows, sizes, cut)


def _checked(
    clients: Clients, numbers: np.ndarray, form: str, check: Callable[[int, Any], Any]
) -> tuple[list[tuple[Any, np.ndarray]], bool, int]:
    """The features and targets of these clients, whether features are sparse, and their columns."""
    given = [clients[i] for i in numbers]
    for i, (_, b) in zip(numbers, given, strict=True):
        check(i, b)
    like = given or [clients[0]]  # a process whose devices have no client
    sparse = any(is_sparse(A) for A, _ in like) if form == "auto" else form == "sparse"
    if not sparse:
        size = sum(np.size(b) for _, b in given) * np.shape(like[0][0])[-1]
        memory.check(COPIES * 8 * size, "making this problem", "use fewer rows or columns, or features='sparse'")
    convert = as_csr if sparse else as_array
    parts = [(convert(A), real(b, "targets").astype(np.float64)) for A, b in given]
    d = (parts[0][0] if parts else convert(like[0][0])).shape[-1]
    for i, (A, b) in zip(numbers, parts, strict=True):
        _check_client(i, A, b, d)
    return parts, sparse, d


def _check_client(i: int, A: Any, b: np.ndarray, d: int) -> None:
    if A.ndim != 2 or b.shape != A.shape[:1] or A.shape[1] != d:
        raise InputError(f"client {i} must be (features (m, {d}), targets (m,)), got shapes {A.shape} and {b.shape}")
    if not len(b):
        raise InputError(f"client {i} has no rows: drop it, or use fewer clients")
    entries = A.data if is_sparse(A) else A
    if not (np.all(np.isfinite(entries)) and np.all(np.isfinite(b))):
        raise InputError(f"client {i} has features or targets that are not finite: drop or impute those rows first")


def _in_scale(dtype: Any) -> tuple[float, float]:
    return float(np.finfo(dtype).tiny) ** _ROOM, float(np.finfo(dtype).max) ** _ROOM


def check_scale(data: Stack, dtype: Any) -> None:
    """Raise InputError if features or targets are so large or so small that their squares leave the range of `dtype`.

    Smoothness constants, step sizes and condition numbers are made of the squares; range^(3/8) leaves room for sums.
    """
    low, high = _in_scale(dtype)
    widest = _in_scale(np.float64)
    dense = isinstance(data.features, np.ndarray)
    blocks = [data.features] if dense else [part.data for part in data.features]
    for what, entries, least in (("features", blocks, low), ("targets", [data.targets], 0.0)):
        bounds = [float(bound) for block in entries for bound in (block.max(initial=0), -block.min(initial=0))]
        largest = float(of_each(max(bounds, default=0.0)).max())
        if largest > high or 0 < largest < least:
            wider = dtype == np.float32 and widest[0] <= largest <= widest[1]
            advice = " (scale='standard')" * (what == "features") + ", or take dtype float64" * wider
            raise InputError(
                f"the scale of the {what} does not fit {np.dtype(dtype)}: the largest is {largest:.3g}, and its square "
                f"would leave the range unless it is in {least:.0e}..{high:.0e}; rescale them{advice}"
            )


def shares(weights: Any, sizes: np.ndarray) -> np.ndarray:
    """(n,) client weights that sum to one."""
    if weights is None:
        return np.full(len(sizes), 1 / len(sizes))
    raw = sizes.astype(np.float64) if isinstance(weights, str) and weights == "size" else weights
    if isinstance(raw, str):
        raise InputError(f'weights must be None, "size" or one number per client, got {weights!r}')
    raw = np.asarray(raw, np.float64)
    if raw.shape != sizes.shape or not np.all(np.isfinite(raw)) or np.any(raw <= 0):
        raise InputError(f"weights must be {len(sizes)} positive numbers, one per client, got shape {raw.shape}")
    return raw / raw.sum()


def constants(stacked: Stack, curvature: float, l2: float | None, kappa: float | None, norm: str) -> dict[str, Any]:
    """strong, smooth (n,) and smooth_mean of a linear model; `curvature` bounds the loss's second derivative."""
    if norm not in ("spectral", "frobenius"):
        raise InputError(f"norm must be 'spectral' or 'frobenius', got {norm!r}")
    size = norms.spectral if norm == "spectral" else norms.frobenius
    n, cut = len(stacked.sizes), stacked.cut or Cut.padded(stacked.sizes)
    apart = lambda rows: cut.untied(rows, stacked.sizes)
    matrices, whole = norms.weighted(stacked.features, np.sqrt(stacked.rows), apart)
    data = curvature * exchanged(np.array([size(matrix) for matrix in matrices]), n)
    data_mean = curvature * norms.of_all(whole, size) / n
    strong = _l2(l2, kappa, float(data.max()))
    return {"strong": strong, "smooth": data + strong, "smooth_mean": data_mean + strong}


def _l2(l2: float | None, kappa: float | None, data_smooth: float) -> float:
    if (l2 is None) == (kappa is None):
        raise InputError("give one of l2 and kappa: l2=0.01 sets mu itself, kappa=1e4 the condition number")
    if kappa is not None:
        if not kappa > 1:
            raise InputError(f"kappa must be greater than 1, got {kappa:g}")
        return 2 * data_smooth / (kappa - 1)
    if l2 is None or not (np.isfinite(l2) and l2 >= 0):
        raise InputError(f"l2 must be a number >= 0, got {l2}")
    return float(l2)


def float_dtype(dtype: Any) -> Any:
    """float32 or float64 as a NumPy dtype; JAX's default float for None."""
    chosen = np.dtype(dtype) if dtype is not None else np.dtype(jnp.zeros(()).dtype)
    if chosen == np.float64 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined, unused-ignore]
        raise InputError(f"dtype float64 needs JAX's 64-bit mode: put {X64_LINE} before the first array is made")
    if chosen not in (np.float32, np.float64):
        raise InputError(f"dtype must be float32 or float64, got {chosen}")
    return chosen

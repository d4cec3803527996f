"""What a method is: a record of pure functions, found by name."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import math
import numbers
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lc.compressors import Compressor, Scaled, for_layers, parse
from fedjax_lc.compressors import default as default_compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import declaration
from fedjax_lc.core.typing import ClientVecs, Key, PyTree, Scalar, Vec
from fedjax_lc.problems import Problem


class Cost(NamedTuple):
    """What one step cost, each a float32 () and a mean over clients.

    bits_up and bits_down are the bits a client sends and receives, grads its gradient evaluations (1 = one full local
    gradient), rounds the communication rounds.
    """

    bits_up: Scalar
    bits_down: Scalar
    grads: Scalar
    rounds: Scalar

    @classmethod
    def of(cls, bits_up: Scalar = 0, bits_down: Scalar = 0, grads: Scalar = 0, rounds: Scalar = 0) -> Cost:
        """A Cost from numbers; one that has an entry per client is averaged."""
        parts = (bits_up, bits_down, grads, rounds)
        return cls(*(jnp.mean(jnp.asarray(part, jnp.float32)) for part in parts))

    def plus(self, other: Cost) -> Cost:
        """Both costs together."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A method by name. `init`, `step`, `point` and `lyapunov` take hyperparameters as plain numbers or arrays.

    Attributes:
        Hparams: frozen pytree of the method's hyperparameters.
        init: (problem, hp, key) -> state.
        step: (problem, hp, state, key) -> (state, Cost).
        point: (problem, hp, state) -> x (d,), the model to evaluate.
        theory: (problem, **choices) -> Hparams, the paper's step sizes; every choice has a default.
        lyapunov: (problem, hp, state) -> (), or None where no theorem is known.
        rate: (problem, hp) -> the factor by which E lyapunov shrinks per step at least, or None.
        error: (problem, hp, state) -> (d,), the error that compression still owes, in units of gradients, as methods
            with error feedback log it; the metric error_norm is its norm. None where there is none.
        paper: arXiv id and title.
        title: the name as papers write it.
        up, down: what a client sends in a round, and what it receives; in symbols.
        speed: the theorem that is known of it, in short.
        file: where it is written.
    """

    name: str
    title: str
    paper: str
    Hparams: type
    init: Callable[[Problem, Any, Key], PyTree]
    step: Callable[[Problem, Any, PyTree, Key], tuple[PyTree, Cost]]
    point: Callable[[Problem, Any, PyTree], Vec]
    theory: Callable[..., Any]
    lyapunov: Callable[[Problem, Any, PyTree], Scalar] | None = None
    rate: Callable[[Problem, Any], Scalar] | None = None
    error: Callable[[Problem, Any, PyTree], Vec] | None = None
    up: str = ""
    down: str = ""
    speed: str = ""
    file: str = ""

    def check(self, problem: Problem, hp: Any) -> None:
        """Raise InputError where a hyperparameter does not fit the problem or leaves its range.

        A field's range is that of its declaration; of this package's methods, also that of `Hparams.ranges` or the one
        known by its name. Any other number must be finite. `Hparams.validate(problem)` says the rest.
        """
        for field in dataclasses.fields(hp):
            value = getattr(hp, field.name)
            self._check_kind(field, value)
            if isinstance(value, Compressor):
                value.validate(problem.dim)
            elif value is not None and not pytree.is_traced(value) and (allowed := _allowed(hp, field)):
                members = getattr(hp, "cohort_size", None) if allowed is _RANGES.get("s") else None
                _check_range(self.name, field.name, value, allowed, members or problem.n)
        if hasattr(hp, "validate"):
            hp.validate(problem)

    def _check_kind(self, field: dataclasses.Field[Any], value: Any) -> None:
        """Raise InputError for words where a number, a compressor or a truth belongs."""
        if isinstance(field.default, bool) and not isinstance(value, bool | np.bool_):
            raise InputError(f"{self.name} needs {field.name} true or false, got {value!r}")
        if isinstance(value, str) and not field.metadata.get("static"):
            kind = "a compressor, as from fl.compressors.parse" if "Compressor" in str(field.type) else "a number"
            raise InputError(f"{self.name} needs {field.name} as {kind}, got the word {value!r}")


#: a range: its words, or a function of n that says them; and (number, n) -> whether the number fits
Allowed: TypeAlias = "tuple[str | Callable[[int], str], Callable[[float, int], bool]]"

_RANGES: dict[str, Allowed] = {
    "p": ("in (0, 1]", lambda v, n: 0 < v <= 1),
    "gamma": ("> 0", lambda v, n: v > 0),
    "eta": ("> 0", lambda v, n: v > 0),
    "alpha": ("in (0, 1]", lambda v, n: 0 < v <= 1),
    "alpha_up": ("in [0, 1]", lambda v, n: 0 <= v <= 1),
    "alpha_dwn": ("in [0, 1]", lambda v, n: 0 <= v <= 1),
    "c_ef": (">= 0", lambda v, n: v >= 0),
    "decay": (">= 0", lambda v, n: v >= 0),
    "momentum": ("in [0, 1)", lambda v, n: 0 <= v < 1),
    "participation": ("in (0, 1]", lambda v, n: 0 < v <= 1),
    "batch_size": ("whole and >= 1", lambda v, n: v >= 1 and v.is_integer()),
    "average_every": ("whole and >= 1", lambda v, n: v >= 1 and v.is_integer()),
    "reset_every": ("whole and >= 1", lambda v, n: v >= 1 and v.is_integer()),
    "period": ("whole and >= 1", lambda v, n: v >= 1 and v.is_integer()),
    "weight_decay": (">= 0", lambda v, n: v >= 0),
    "groups": ("whole and in 1..n", lambda v, n: 1 <= v <= n and v.is_integer()),
    "client_lr": ("> 0", lambda v, n: v > 0),
    "server_lr": ("> 0", lambda v, n: v > 0),
    "local_steps": ("whole and >= 1", lambda v, n: v >= 1 and v.is_integer()),
    "local_epochs": ("whole and >= 1", lambda v, n: v >= 1 and v.is_integer()),
    "beta": ("in [0, 1)", lambda v, n: 0 <= v < 1),
    "b1": ("in [0, 1)", lambda v, n: 0 <= v < 1),
    "b2": ("in [0, 1)", lambda v, n: 0 <= v < 1),
    "tau": ("> 0", lambda v, n: v > 0),
    "mu": (">= 0", lambda v, n: v >= 0),
    "eps": ("> 0", lambda v, n: v > 0),
    "v0": (">= 0", lambda v, n: v >= 0),
    "cohort_size": ("whole and in 1..n", lambda v, n: 1 <= v <= n and v.is_integer()),
    "s": ("whole and in 2..n", lambda v, n: 2 <= v <= n and v.is_integer()),
}


def _allowed(hp: Any, field: dataclasses.Field[Any]) -> Allowed | None:
    """The range of a field; None where any value may stand."""
    declared, own = declaration(field), getattr(hp, "ranges", {})
    if declared and declared.within:
        return declared.within.words, declared.within.holds
    if field.name in own and not declared:
        return own[field.name]
    if not declared and _of_the_package(type(hp), field.name):
        return _RANGES.get(field.name)
    value = getattr(hp, field.name)
    is_number = isinstance(value, numbers.Real | np.ndarray | jax.Array) and not isinstance(value, bool | np.bool_)
    return ("finite", lambda number, n: True) if is_number else None


def _of_the_package(Hparams: type, name: str) -> bool:
    """Whether one of this package's own classes holds the field: only there names have a meaning."""
    holders = (each for each in Hparams.__mro__ if name in inspect.get_annotations(each))
    return next(holders).__module__.startswith("fedjax_lc.")


def _check_range(method: str, name: str, value: Any, allowed: Allowed, n: int) -> None:
    words, inside = allowed
    text = words(n) if callable(words) else words.replace("..n", f"..{n}")
    try:
        found = np.ravel(np.asarray(value, np.float64)).tolist()
    except (TypeError, ValueError):
        raise InputError(f"{method} needs {name} {text}, got {value!r}") from None
    for number in found:
        if not (math.isfinite(number) and inside(number, n)):
            raise InputError(f"{method} needs {name} {text}, got {number:g}")


_REGISTRY: dict[str, Algorithm] = {}


def register(
    name: str,
    *,
    paper: str,
    Hparams: type,
    init: Callable[..., PyTree],
    step: Callable[..., tuple[PyTree, Cost]],
    point: Callable[..., Vec],
    theory: Callable[..., Any],
    title: str | None = None,
    lyapunov: Callable[..., Scalar] | None = None,
    rate: Callable[..., Scalar] | None = None,
    error: Callable[..., Vec] | None = None,
    up: str = "",
    down: str = "",
    speed: str = "",
) -> Algorithm:
    """Make a method known by name; the last line of its file. Arguments as the attributes of `Algorithm`.

    The same file may register its method again, and so may a notebook's cell.

    Raises:
        InputError: another file has registered that name.
    """
    file = sys._getframe(1).f_code.co_filename
    before = _REGISTRY.get(name)
    if before is not None and before.file != file and Path(before.file).is_file():
        raise InputError(f"method {name} is registered twice, in {before.file} and in {file}: choose another name")
    algorithm = Algorithm(
        name=name,
        title=title or name,
        paper=paper,
        Hparams=Hparams,
        init=_casting(init),
        step=_casting(step),
        point=_casting(point),
        theory=theory,
        lyapunov=lyapunov and _casting(lyapunov),
        rate=rate,
        error=error and _casting(error),
        up=up,
        down=down,
        speed=speed,
        file=file,
    )
    _REGISTRY[name] = algorithm
    return algorithm


def _casting(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(problem, hp, ...)` with hp brought to the problem's dtype."""

    @functools.wraps(function)
    def call(problem: Problem, hp: Any, *rest: Any) -> Any:
        return function(problem, pytree.cast(hp, problem.dtype), *rest)

    return call


@functools.cache
def _load_own() -> None:
    """Load the user's own method files, from the folders that FEDJAX_LC_METHODS names."""
    for folder in filter(None, os.environ.get("FEDJAX_LC_METHODS", "").split(os.pathsep)):
        for path in sorted(Path(folder).glob("*.py")):
            load(path)


def load(path: str | Path) -> None:
    """Run a method's file, so that what it registers is known by name.

    Raises:
        InputError: the file cannot be run, with what went wrong.

    Example:
        >>> load("fedclip.py")
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    name = f"fedjax_lc_methods_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
    except Exception as error:
        raise InputError(f"{path}: {error}") from error


def names() -> list[str]:
    """Names of all registered methods."""
    _load_own()
    return sorted(_REGISTRY)


def get(name: str | Algorithm) -> Algorithm:
    """The method of that name; an Algorithm passes through.

    Raises:
        InputError: an unknown name, with the nearest known one.
    """
    if isinstance(name, Algorithm):
        return name
    _load_own()
    if name not in _REGISTRY:
        raise unknown("method", name, _REGISTRY)
    return _REGISTRY[name]


def choose(compressor: Compressor | str | None, problem: Problem, *, contractive: bool = False) -> Compressor:
    """The compressor given, or the default one for this problem, of the kind the method needs.

    Args:
        compressor: None, its string form, or a Compressor.
        contractive: False asks for an unbiased compressor. True asks for a contractive one; an unbiased Q with
            omega > 0 then enters as Q/(1 + omega), whose delta is 1/(1 + omega).

    Raises:
        InputError: it does not fit the problem's dimension, is biased, or has no contraction constant.
    """
    d = problem.dim
    chosen = default_compressor(d, problem.n, contractive=contractive) if compressor is None else parse(compressor)
    chosen = for_layers(chosen, problem.layers)
    chosen.validate(d)
    omega = float(chosen.omega(d))
    if contractive and 0 < omega < math.inf:
        return Scaled(chosen)
    if contractive and not chosen.delta(d) > 0:
        raise InputError(f"compressor {chosen} has no known contraction: use top_k, sign or any unbiased one")
    if not contractive and omega == math.inf:
        raise InputError(f"compressor {chosen} is biased and this method needs an unbiased one: use rand_k or natural")
    return chosen


def constants(problem: Problem, method: str) -> tuple[float, float]:
    """L = max_i L_i and mu > 0, as host floats.

    Raises:
        InputError: the problem is not strongly convex.
    """
    mu = float(problem.strong)
    if not mu > 0:
        raise InputError(f"{method}'s theory needs a strongly convex problem, got strong = 0: set l2 or kappa")
    return float(jnp.max(problem.smooth)), mu


@pytree.dataclass
class Batches:
    """batch_size: rows per client of a stochastic gradient, None for the full one. replacement: whether a row may come
    twice in a batch."""

    _: dataclasses.KW_ONLY
    batch_size: int | None = pytree.static(default=None)
    replacement: bool = pytree.static(default=False)


def gradients(problem: Problem, hp: Batches, x: Vec | ClientVecs, key: Key) -> tuple[ClientVecs, Scalar]:
    """(n, d) gradients, full or of a batch, at x (d,) or (n, d), and the share of a full gradient that each cost."""
    if hp.batch_size is None:
        return problem.grads(x), 1
    g = problem.stochastic_grads(key, x, hp.batch_size, replacement=hp.replacement)
    return g, problem.passes(hp.batch_size, replacement=hp.replacement)


def tile(x: Vec, n: int) -> jax.Array:
    """(n, d) copies of x (d,)."""
    return jnp.broadcast_to(x, (n, *x.shape))

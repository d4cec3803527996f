"""What a method is: a record of pure functions, known by name."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp

from fedjax_lc.algorithms.frames import schedules
from fedjax_lc.algorithms.frames.rules import modulus, stand_ins, strongly_convex
from fedjax_lc.compressors import Compressor, Scaled, check, for_layers, parse
from fedjax_lc.compressors import default as default_compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.hyperparameters import SCHEDULE, Declaration, declarations, hyperparameter, parameters
from fedjax_lc.core.options import refuse_unknown
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
        return cls(*map(mean_cost, (bits_up, bits_down, grads, rounds)))

    def plus(self, other: Cost) -> Cost:
        """Both costs together."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


#: the float type of the step that is traced, in which costs of clients are added
_sums: contextvars.ContextVar[Any] = contextvars.ContextVar("fedjax_lc_cost_sums", default=jnp.float32)


def mean_cost(each: Scalar, n: int | None = None) -> Scalar:
    """() float32 mean over clients of what each pays, () or (c,); over n clients if c of them pay.

    It is added in the problem's float type: where clients are spread over devices, XLA then sends it in one message
    with the vectors that meet at the server.
    """
    each = jnp.asarray(each, jnp.float32)
    total = jnp.sum(each, dtype=_sums.get())
    return (total / (each.size if n is None else n)).astype(jnp.float32)


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
        rate: (problem, hp) -> the factor by which E lyapunov shrinks per step at least (`covered`), or None.
        error: (problem, hp, state) -> (d,), the error that compression still owes, in units of gradients, as methods
            with error feedback log it; the metric error_norm is its norm. None where there is none.
        models: (problem, hp, state) -> (n, d), the models of all nodes where each has one and nobody has their average,
            as in gossip; the metrics consensus and worst are of them. None elsewhere.
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
    models: Callable[[Problem, Any, PyTree], ClientVecs] | None = None
    up: str = ""
    down: str = ""
    speed: str = ""
    file: str = ""

    @property
    def options(self) -> dict[str, Declaration]:
        """What may be chosen by name: the fields of Hparams, the method's first and its frame's last, then the choices
        of theory that are no fields."""
        fields = sorted(dataclasses.fields(self.Hparams), key=lambda field: field.kw_only is True)
        known = declarations(self.Hparams)
        ordered = {field.name: known[field.name] for field in fields}
        for name, choice in list(parameters(self.theory).items())[1:]:
            field = ordered.get(name, choice)
            ordered[name] = dataclasses.replace(field, types=field.types | choice.types)
        return ordered

    def working_rule(self, problem: Problem, given: Mapping[str, Any] | None = None) -> str | None:
        """One line on which of theory's numbers no theorem gives on this problem, and on what they rest instead; None
        where a theorem gives them all. `given`: choices of theory, and fields whose values do not come from it."""
        given = given or {}
        choices = {name: given[name] for name in parameters(self.theory) if name in given}
        return stand_ins(self.theory, problem, choices, given)

    def check(self, problem: Problem, hp: Any) -> None:
        """Raise InputError where a hyperparameter does not fit the problem or leaves its range.

        A field fits where its declaration says so (`core.hyperparameters`); `Hparams.validate(problem)` says the rest.
        """
        # Fields that a range ends at come before the range.
        for name, declared in sorted(declarations(type(hp)).items(), key=lambda item: bool(item[1].ends)):
            value = getattr(hp, name)
            if isinstance(value, Compressor):
                check(value, problem.dim)
            elif value is not None and not pytree.is_traced(value):
                declared.check(self.name, name, value, hp, problem.n)
                if declared.kind == SCHEDULE:
                    schedules.parse(value)
        if hasattr(hp, "validate"):
            hp.validate(problem)


_REGISTRY: dict[str, Algorithm] = {}


class Extras(TypedDict, total=False):
    """What a method may say besides: see `Algorithm`."""

    title: str
    lyapunov: Callable[..., Scalar] | None
    rate: Callable[..., Scalar] | None
    error: Callable[..., Vec] | None
    models: Callable[..., ClientVecs] | None
    up: str
    down: str
    speed: str


def register(
    name: str,
    *,
    paper: str,
    Hparams: type,
    init: Callable[..., PyTree],
    step: Callable[..., tuple[PyTree, Cost]],
    point: Callable[..., Vec],
    theory: Callable[..., Any],
    **extras: Unpack[Extras],
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
    refuse_unknown("register", extras, Extras)
    lyapunov, error, models = extras.get("lyapunov"), extras.get("error"), extras.get("models")
    rate = extras.get("rate")
    extras |= {"lyapunov": lyapunov and _casting(lyapunov), "error": error and _casting(error)}
    extras |= {"models": models and _casting(models), "rate": rate and _proven(name, rate)}
    algorithm = Algorithm(
        name=name,
        paper=paper,
        Hparams=Hparams,
        init=_casting(init),
        step=_casting(step),
        point=_casting(point),
        theory=theory,
        file=file,
        **({"title": name} | extras),
    )
    _REGISTRY[name] = algorithm
    return algorithm


def _casting(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(problem, hp, ...)` with hp brought to the problem's dtype."""

    @functools.wraps(function)
    def call(problem: Problem, hp: Any, *rest: Any) -> Any:
        token = _sums.set(problem.dtype)
        try:
            return function(problem, pytree.cast(hp, problem.dtype), *rest)
        finally:
            _sums.reset(token)

    return call


def _proven(method: str, rate: Callable[..., Scalar]) -> Callable[..., Scalar]:
    """`rate(problem, hp)`, for problems that its theorem is about."""

    @functools.wraps(rate)
    def call(problem: Problem, hp: Any) -> Scalar:
        if not strongly_convex(problem):
            raise InputError(f"{method}'s rate is of a theorem on strongly convex F: give a convex problem l2 or kappa")
        return rate(problem, hp)

    return call


@functools.cache
def _load_own() -> None:
    """Load the user's method files, from the folders that FEDJAX_LC_METHODS names."""
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
    usual = functools.partial(default_compressor, d, problem.n, contractive=contractive, network=not problem.solvable)
    chosen = for_layers(usual() if compressor is None else parse(compressor), problem.layers)
    check(chosen, d)
    omega = float(chosen.omega(d))
    if contractive and 0 < omega < math.inf:
        return Scaled(chosen)
    if contractive and not chosen.delta(d) > 0:
        raise InputError(f"compressor {chosen} has no known contraction: use top_k, sign or any unbiased one")
    if not contractive and omega == math.inf:
        raise InputError(f"compressor {chosen} is biased and this method needs an unbiased one: use rand_k or natural")
    return chosen


def constants(problem: Problem, method: str) -> tuple[float, float]:
    """L = max_i L_i and mu, as host floats; where F is not known to be strongly convex, mu is a stand-in (`rules`).

    Raises:
        InputError: L is not a number > 0.
    """
    L = float(jnp.max(problem.smooth))
    if not 0 < L < math.inf:
        raise InputError(f"{method}'s theory needs a smoothness constant L > 0, got {L:g}: give smooth= to the problem")
    return L, modulus(problem, L)


def covered(rate: Scalar, *limits: tuple[Scalar, Scalar]) -> Scalar:
    """A theorem's rate where each number is at most its limit, to rounding; else inf, as nothing is proven."""
    return rate if all(float(number) <= float(limit) * (1 + 1e-6) for number, limit in limits) else math.inf


@pytree.dataclass
class Batches:
    """Hyperparameters of stochastic gradients."""

    _: dataclasses.KW_ONLY
    batch_size: int | None = hyperparameter(
        "rows per client of a stochastic gradient; all if None, or if it has fewer",
        "whole [1, inf)",
        default=None,
        static=True,
    )
    replacement: bool = hyperparameter("whether a row may come twice in a batch", default=False)


def gradients(problem: Problem, hp: Batches, x: Vec | ClientVecs, key: Key) -> tuple[ClientVecs, Scalar]:
    """(n, d) gradients, full or of a batch, at x (d,) or (n, d), and the share of a full gradient that each cost."""
    if hp.batch_size is None:
        return problem.grads(x), 1
    return problem.stochastic_grads(key, x, hp.batch_size, replacement=hp.replacement), passes(problem, hp)


def passes(problem: Problem, hp: Batches) -> Scalar:
    """The share of a full gradient that one of a batch costs, () or (n,)."""
    return 1 if hp.batch_size is None else problem.passes(hp.batch_size, replacement=hp.replacement)


def tile(x: Vec, n: int) -> jax.Array:
    """(n, d) copies of x (d,)."""
    return jnp.broadcast_to(x, (n, *x.shape))

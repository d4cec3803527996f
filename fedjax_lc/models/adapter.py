"""Adapters: any model as pure functions of its parameters, and the parameters as one vector."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen, nnx

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.typing import Key, PyTree, Vec
from fedjax_lc.models import weights
from fedjax_lc.models.nnx_models import VALID, split_nnx

#: names of a model's flag for training mode; True for a flag that means evaluation mode
FLAGS = {"train": False, "training": False, "is_training": False, "deterministic": True, "use_running_average": True}
RANDOM = ("key", "rng")  #: names by which a plain function takes a PRNG key
FOREIGN = {"torch": "PyTorch", "transformers": "Hugging Face", "keras": "Keras", "tensorflow": "TensorFlow"}


class Network(Protocol):
    """A model as two pure functions. It must be hashable, as compiled programs depend on it.

    `statistics` are BatchNorm's running averages; () for a model without BatchNorm.
    """

    def init(self, key: Key, x: jax.Array) -> tuple[PyTree, PyTree]:
        """(parameters, statistics) for inputs like x (B, ...)."""

    def apply(
        self, params: PyTree, statistics: PyTree, x: jax.Array, *, train: bool, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        """Outputs (B, ...), and the statistics, which training mode updates. key: for dropout; None without dropout."""


@dataclasses.dataclass(frozen=True)
class Linen:
    """A `flax.linen` module; training mode is passed to those of FLAGS that its `__call__` or its fields have."""

    module: linen.Module

    def init(self, key: Key, x: jax.Array) -> tuple[PyTree, PyTree]:
        module = self._module(False)
        variables = dict(module.init({"params": key, "dropout": key}, x, **self._mode(False)))
        params, statistics = variables.pop("params", {}), variables.pop("batch_stats", ())
        if variables:
            raise InputError(f"the model keeps variables of kind {', '.join(variables)}: only params and batch_stats "
                             "are known here")  # fmt: skip
        if jax.tree.leaves(statistics) and not (self._mode(True) or self._fields(True)):
            raise InputError("the model keeps batch statistics, but its __call__ has no flag for training mode: give "
                             f"it one of {', '.join(FLAGS)}")  # fmt: skip
        return params, statistics

    def apply(
        self, params: PyTree, statistics: PyTree, x: jax.Array, *, train: bool, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        variables = {"params": params} | ({"batch_stats": statistics} if jax.tree.leaves(statistics) else {})
        rngs = None if key is None else {"dropout": key}
        moved: Any = ["batch_stats"] if train and "batch_stats" in variables else False
        out: Any = self._module(train).apply(variables, x, rngs=rngs, mutable=moved, **self._mode(train))
        return (out[0], out[1]["batch_stats"]) if moved else (out, statistics)

    def calls(self, params: PyTree, statistics: PyTree, x: jax.Array) -> dict[str, int]:
        """Modules in the order of their calls, each with the number of channels of the images that it takes flattened
        (1: none); nothing is computed."""
        kernels = {name.rpartition("/")[0] for name in Layout.of(params).names if name.endswith("kernel")}
        seen: dict[str, int] = {}
        channels = x.shape[-1] if x.ndim == 4 else 0

        def noted(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            nonlocal channels
            name, shape = "/".join(context.module.path), jnp.shape(args[0]) if args else ()
            if context.method_name != "__call__" or not shape:
                return call(*args, **kwargs)
            seen.setdefault(name, channels if _is_flat(shape, channels) else 1)
            out = call(*args, **kwargs)
            if len(jnp.shape(out)) == 4:
                channels = out.shape[-1]
            elif name in kernels:
                channels = 0
            return out

        with linen.intercept_methods(noted):
            jax.eval_shape(lambda p, s, x: self.apply(p, s, x, train=False, key=None)[0], params, statistics, x)
        return seen

    def _mode(self, train: bool) -> dict[str, Any]:
        return _flags(type(self.module).__call__, train)

    def _fields(self, train: bool) -> dict[str, Any]:
        """Flags that are fields of the module."""
        fields = {field.name for field in dataclasses.fields(self.module)} - self._mode(train).keys()
        return {name: train != opposite for name, opposite in FLAGS.items() if name in fields}

    def _module(self, train: bool) -> linen.Module:
        fields = self._fields(train)
        return self.module.clone(**fields) if fields else self.module


@dataclasses.dataclass(frozen=True)
class Function:
    """A function (params, x), or (params, key, x), with a function (key, x) that gives its parameters; no statistics.

    It may take a flag among FLAGS, and a key by name.
    """

    function: Callable[..., jax.Array]
    start: Callable[[Key, jax.Array], PyTree] | None = None

    def init(self, key: Key, x: jax.Array) -> tuple[PyTree, PyTree]:
        if self.start is None:
            raise InputError("a plain function says nothing of its parameters: pass params=, or a pair (init, apply)")
        return self.start(key, x), ()

    def apply(
        self, params: PyTree, statistics: PyTree, x: jax.Array, *, train: bool, key: Key | None
    ) -> tuple[jax.Array, PyTree]:
        names, flags = list(inspect.signature(self.function).parameters), _flags(self.function, train)
        key = jax.random.key(0) if key is None else key
        if names[1:2] and names[1] in RANDOM:
            return self.function(params, key, x, **flags), statistics
        return self.function(params, x, **flags, **{name: key for name in RANDOM if name in names}), statistics


def _flags(function: Callable[..., Any], train: bool) -> dict[str, bool]:
    """The flags of training mode that a function takes."""
    known = inspect.signature(function).parameters
    return {name: train != opposite for name, opposite in FLAGS.items() if name in known}


def _is_flat(shape: tuple[int, ...], channels: int) -> bool:
    """Whether inputs of this shape are flattened images of so many channels."""
    return len(shape) == 2 and channels > 1 and shape[1] > channels and shape[1] % channels == 0


def adapt(model: Any, key: Key, x: jax.Array, params: PyTree = None) -> tuple[Network, PyTree, PyTree]:
    """(network, parameters, statistics) of a linen or nnx module, a `Network`, a pair (init, apply), or a function.

    Args:
        x: (B, ...) example inputs, for their shape.
        params: initial parameters, of the model or as `fit` takes them; None for those that the model contains or
            initialises.

    Raises:
        InputError: the model is of another kind, or a function without params; params do not fit.
    """
    if isinstance(model, nnx.Module):
        network, initial, statistics = split_nnx(model, FLAGS)
    else:
        network = _network(model)
        if isinstance(network, Function) and network.start is None and params is not None:
            return network, params, ()
        initial, statistics = network.init(key, x)
    if params is not None:
        layout = Layout.of(initial)
        leaves = fit(network, initial, statistics, x, params).leaves
        initial = jax.tree.unflatten(layout.structure, [jnp.asarray(leaf) for leaf in leaves.values()])
    return network, initial, statistics


def _network(model: Any) -> Any:
    if isinstance(model, linen.Module):
        return Linen(model)
    libraries = [base.__module__.partition(".")[0] for base in type(model).__mro__]
    if library := next((FOREIGN[name] for name in libraries if name in FOREIGN), None):
        raise InputError(f"a model of {library} cannot be trained here ({type(model).__name__}): write the network in "
                         "flax, or as (init, apply), and start it from these weights by x0= or --start")  # fmt: skip
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return Function(model[1], model[0])
    if not hasattr(model, "apply") and callable(model):
        return Function(model)
    if not (hasattr(model, "apply") and hasattr(model, "init")):
        raise InputError("a model must be a flax module, a pair (init, apply) or a function (params, x) with params=, "
                         f"got {model!r}")  # fmt: skip
    return model


def fit(
    network: Network,
    params: PyTree,
    statistics: PyTree,
    x: jax.Array,
    given: Any,
    names: Mapping[str, str] | None = None,
) -> weights.Fitted:
    """Weights in the layout of the network's parameters, which may have the names and layouts of PyTorch.

    Args:
        params, statistics: those of the network, or their shapes.
        x: (B, ...) example inputs.
        given: a tree, a mapping from names to arrays, a `flax.nnx` model or a PyTorch model.
        names: as in `weights.fitted`.

    Raises:
        InputError: they do not fit.
    """
    layout = Layout.of(params)
    given = given.state_dict() if hasattr(given, "state_dict") else given
    given = weights.flat(nnx.state(given, nnx.Param) if isinstance(given, nnx.Module) else given)
    wanted = dict(zip(layout.names, layout.shapes, strict=True))
    calls = network.calls(params, statistics, x) if isinstance(network, Linen) else _supposed_calls(wanted, x)
    return weights.fitted(given, wanted, calls, names, in_order=list(given) != sorted(given))


def _supposed_calls(wanted: Mapping[str, tuple[int, ...]], x: jax.Array) -> dict[str, int]:
    """As `Linen.calls`, of a model whose calls cannot be seen: convolutions first, each kind in the order of names."""
    calls, channels = {}, x.shape[-1] if x.ndim == 4 else 0
    for name, shape in sorted(wanted.items(), key=lambda item: (-len(item[1]), weights.natural(item[0]))):
        if name.endswith("kernel"):
            calls[name.rpartition("/")[0]] = channels if _is_flat((1, *shape[:1]), channels) and len(shape) == 2 else 1
            channels = shape[-1] if len(shape) == 4 else 0
    return calls


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of a tree of parameters in one vector: leaves in order, each raveled row by row."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, params: PyTree) -> Layout:
        """The layout of these parameters.

        Raises:
            InputError: there are no parameters, or one holds whole numbers.
        """
        paths, structure = jax.tree_util.tree_flatten_with_path(params)
        names = tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths)
        if all(name.endswith("/value") for name in names):  # the variables of `flax.nnx`
            names = tuple(name.removesuffix("/value") for name in names)
        if not paths:
            raise InputError("the model has no parameters: there is nothing to train")
        for name, (_, leaf) in zip(names, paths, strict=True):
            if not jnp.issubdtype(kind := jnp.result_type(leaf), jnp.floating):
                raise InputError(f"parameter {name} is of type {kind}: parameters must be real numbers")
        return cls(structure, tuple(jnp.shape(leaf) for _, leaf in paths), names)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of entries of each leaf."""
        return tuple(math.prod(shape) for shape in self.shapes)

    def ravel(self, params: PyTree, dtype: Any) -> Vec:
        """(d,) the parameters as one vector."""
        return jnp.concatenate([jnp.ravel(leaf).astype(dtype) for leaf in jax.tree.leaves(params)])

    def described(self) -> dict[str, list[int]]:
        """Shapes by name, in the order in which x holds the parameters."""
        return {name: list(shape) for name, shape in zip(self.names, self.shapes, strict=True)}

    def unravel(self, x: Vec) -> PyTree:
        """The tree of parameters of the vector x (d,)."""
        leaves, start = [], 0
        for shape, size in zip(self.shapes, self.sizes, strict=True):
            leaves.append(jax.lax.slice(x, (start,), (start + size,)).reshape(shape))
            start += size
        return jax.tree.unflatten(self.structure, leaves)


@contextlib.contextmanager
def only_rows(valid: jax.Array) -> Iterator[None]:
    """Within the block BatchNorm computes its statistics from the rows marked in `valid` (B,)."""

    def masked(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, linen.BatchNorm) and context.method_name == "__call__":
            kwargs = {"mask": valid.reshape(-1, *(1,) * (args[0].ndim - 1))} | kwargs
        return call(*args, **kwargs)

    token = VALID.set(valid)
    try:
        with linen.intercept_methods(masked):
            yield
    finally:
        VALID.reset(token)


def batch_statistics(network: Network, params: PyTree, statistics: PyTree, x: jax.Array, key: Key) -> PyTree:
    """BatchNorm's statistics b of the batch x, whatever its momentum m.

    BatchNorm updates an average a to m a + (1 - m) b; the updates of a = 0 and a = 1 determine m and b.
    """
    starts = (jax.tree.map(make, statistics) for make in (jnp.zeros_like, jnp.ones_like))
    moved = [network.apply(params, start, x, train=True, key=key)[1] for start in starts]
    return jax.tree.map(lambda at_0, at_1: at_0 / (1 - (at_1 - at_0)), *moved)

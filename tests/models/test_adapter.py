"""Models of every kind as pure functions: training mode, random state, statistics of BatchNorm, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from fedjax_lc import models
from fedjax_lc.core.errors import InputError
from fedjax_lc.models.adapter import FLAGS

KEY, X = jax.random.key(0), jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
PARAMS = {"w": jnp.ones((4, 3))}


def outputs(model, params=None, train=False, key=None):
    network, tree, statistics = models.adapt(model, KEY, X, params)
    return network.apply(tree, statistics, X, train=train, key=key)[0]


def scaled(flag):
    """A plain function, linen modules and an nnx module whose outputs are doubled where their flag is true."""
    own = {"linen": linen, "nnx": nnx, "jnp": jnp}
    exec(
        f"def function(params, x, {flag}=False): return x @ params['w'] * (1 + {flag})\n"
        f"def call(self, x, *, {flag}): return x * (1 + {flag})\n"
        f"class Field(linen.Module):\n  {flag}: bool | None = None\n"
        "  @linen.compact\n"
        f"  def __call__(self, x): return x * self.param('p', linen.initializers.ones, ()) * (1 + self.{flag})\n"
        "class Nnx(nnx.Module):\n  def __init__(self): self.p = nnx.Param(jnp.ones(()))\n  __call__ = call\n"
        "class Linen(linen.Module):\n  @linen.compact\n"
        f"  def __call__(self, x, {flag}): return x * self.param('p', linen.initializers.ones, ()) * (1 + {flag})\n",
        own,
    )
    init = lambda key, x: PARAMS
    return [((init, own["function"]), 3), (own["Field"](), X), (own["Nnx"](), X), (own["Linen"](), X)]


@pytest.mark.parametrize("flag", FLAGS)
def test_models_of_every_kind_know_the_flags_of_training(flag):
    for model, _ in scaled(flag):
        network, tree, statistics = models.adapt(model, KEY, X)
        plain, learning = (network.apply(tree, statistics, X, train=train, key=KEY)[0] for train in (False, True))
        once, twice = (learning, plain) if FLAGS[flag] else (plain, learning)
        np.testing.assert_array_equal(twice, 2 * once)


def test_pairs_of_functions():
    """(init, apply), with a key by name or behind the parameters, as in Haiku."""
    init = lambda key, x: {"w": jax.random.normal(key, (x.shape[1], 3))}
    plain = lambda params, x: x @ params["w"]
    keyed = lambda params, rng, x: x @ params["w"] + jax.random.normal(rng, (3,)).reshape(1, 3)
    named = lambda params, x, *, key: keyed(params, key, x)
    expected = X @ jax.random.normal(KEY, (4, 3))
    np.testing.assert_array_equal(outputs((init, plain)), expected)
    noise = jax.random.normal(jax.random.key(5), (3,)).reshape(1, 3)
    for function in (keyed, named):
        np.testing.assert_array_equal(outputs((init, function), key=jax.random.key(5)), expected + noise)
    np.testing.assert_array_equal(outputs((init, plain), {"w": np.zeros((4, 3))}), np.zeros((6, 3)))
    with pytest.raises(InputError, match=r"pass params=, or a pair \(init, apply\)"):
        outputs(plain)
    with pytest.raises(InputError, match=r"w must have shape \(4, 3\), got \(3, 4\): it is transposed"):
        outputs((init, plain), {"w": np.zeros((3, 4))})


class Dropped(nnx.Module):
    def __init__(self, rngs):
        self.drop, self.p = nnx.Dropout(0.5, rngs=rngs), nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return self.drop(x) * self.p


def test_dropout_of_nnx_draws_by_the_key():
    one, two, again = (outputs(Dropped(nnx.Rngs(0)), train=True, key=jax.random.key(k)) for k in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != two)
    assert np.all((one == 0) | (one == 2 * X))
    np.testing.assert_array_equal(outputs(Dropped(nnx.Rngs(0))), X)


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


def test_batchnorm_of_nnx_counts_each_row_once():
    """A batch that is padded by repeating rows has the statistics, outputs and gradients of its real rows."""
    model = Normed(nnx.Rngs(0))
    rows = X.astype(jnp.float32)
    network, params, statistics = models.adapt(model, KEY, rows)
    padded, valid = jnp.concatenate([rows, rows[:3]]), jnp.arange(9) < 6

    def evaluated(params, x):
        out, moved = network.apply(params, statistics, x, train=True, key=None)
        return jnp.sum(out[:6] ** 3), (out[:6], moved)

    slope = jax.grad(evaluated, has_aux=True)
    alone = slope(params, rows)
    with models.only_rows(valid):
        beside = slope(params, padded)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), alone, beside)
    assert np.abs(slope(params, padded)[1][0] - alone[1][0]).max() > 1e-3  # without the mark
    assert type(model.norm) is nnx.BatchNorm


def test_models_of_other_libraries_are_one_line():
    for library, name in (("torch.nn.modules.module", "PyTorch"), ("transformers.modeling_utils", "Hugging Face")):
        model = type("Net", (type("Base", (), {"__module__": library, "__call__": lambda self, x: x}),), {})()
        with pytest.raises(InputError) as caught:
            outputs(model)
        assert str(caught.value) == (
            f"a model of {name} cannot be trained here (Net): write the network in flax, or as (init, apply), and "
            "start it from these weights by x0= or --start"
        )
    with pytest.raises(InputError, match=r"a pair \(init, apply\) or a function"):
        outputs(3)


def test_variables_of_other_kinds_are_refused():
    class Counting(nnx.Module):
        def __init__(self):
            self.p, self.count = nnx.Param(jnp.ones(())), nnx.Variable(jnp.zeros(()))

        def __call__(self, x):
            return x * self.p

    with pytest.raises(InputError, match="keeps variables of kind Variable: only Param, BatchStat and"):
        outputs(Counting())

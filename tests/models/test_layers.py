"""Convolution by both routes and pooling against flax, in values and gradients; the recurrence against flax's LSTM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import fedjax_lc as fl
from fedjax_lc.models import LSTM, Conv, convolution_route, convolutions, max_pool
from fedjax_lc.models.text import recur

ROUTES = ["native", "patches"]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, "float64")


def close(ours, theirs, tolerance=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


def value_and_grads(layer, params, x):
    """The sum of a nonlinear function of the outputs, and its gradients in the parameters and in x."""
    return jax.value_and_grad(lambda p, x: jnp.sum(jnp.sin(layer.apply({"params": p}, x))), (0, 1))(params, x)


def shapes(layer, x):
    return jax.eval_shape(layer.init, jax.random.key(0), x)


def jitted(function, *arguments):
    """Compiled as one program, which is quicker than operation by operation."""
    return jax.jit(function)(*arguments)


@pytest.mark.parametrize("padding", ["SAME", *(pytest.param(p, marks=pytest.mark.slow) for p in ("VALID", 0)), 2])
@pytest.mark.parametrize(("kernel", "strides"), [((3, 3), 1), ((5, 2), 2), ((2, 3), 3), ((1, 1), 2)])
def test_convolution_is_flax_convolution(kernel, strides, padding):
    x, params = normal(0, 3, 8, 7, 2), {"kernel": normal(1, *kernel, 2, 4), "bias": normal(2, 4)}
    theirs = linen.Conv(4, kernel, strides=strides, padding=padding)
    ours = [Conv(4, kernel, strides=strides, padding=padding, route=route) for route in ROUTES]
    found = jitted(lambda p, x: [value_and_grads(layer, p, x) for layer in (*ours, theirs)], params, x)
    close(found[:2], [found[2]] * 2)


@pytest.mark.parametrize("channels", [1, 20])  # more and fewer rows of patches than columns
def test_routes_agree_in_second_derivatives(channels):
    x, kernel, direction = normal(0, 1, 5, 5, channels), normal(1, 3, 3, channels, 2), normal(2, 3, 3, channels, 2)
    found = []
    for route in ROUTES:
        layer = Conv(2, (3, 3), use_bias=False, route=route)
        slope = jax.grad(lambda k, layer=layer: jnp.sum(layer.apply({"params": {"kernel": k}}, x) ** 3))
        found.append(jitted(lambda k, slope=slope: jax.jvp(slope, (k,), (direction,))[1], kernel))
    close(*found)


def test_parameters_start_as_those_of_flax():
    x = jnp.ones((1, 6, 6, 3))
    ours, theirs = (jitted(layer(4, (3, 3)).init, jax.random.key(3), x) for layer in (Conv, linen.Conv))
    kinds = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert kinds(ours) == kinds(theirs)
    close(ours, theirs, 0)
    assert "bias" not in shapes(Conv(4, (3, 3), use_bias=False), x)["params"]


@pytest.mark.parametrize("route", ROUTES)
def test_clients_at_once_are_clients_one_by_one(route):
    layer = Conv(4, (3, 3), route=route)
    x, params = normal(0, 3, 2, 6, 6, 2), {"kernel": normal(1, 3, 3, 3, 2, 4), "bias": normal(2, 3, 4)}
    one = lambda p, x: value_and_grads(layer, p, x)
    together = jitted(jax.vmap(one), params, x)
    alone = [jitted(one, *jax.tree.map(lambda leaf, i=i: leaf[i], (params, x))) for i in range(3)]
    close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


def test_patches_of_clients_are_one_batched_product():
    layer = Conv(4, (3, 3), route="patches")
    params = {"kernel": normal(1, 5, 3, 3, 2, 4), "bias": normal(2, 5, 4)}
    apply = jax.vmap(lambda p, x: layer.apply({"params": p}, x))
    program = str(jax.make_jaxpr(apply)(params, normal(0, 5, 2, 6, 6, 2)))
    assert program.count("dot_general") == 1
    assert "conv_general" not in program


def test_route_is_chosen_from_outside():
    automatic = "patches" if jax.default_backend() == "cpu" else "native"
    x, layer = normal(0, 1, 4, 4, 1), Conv(1, (3, 3))
    params = {"params": {"kernel": normal(1, 3, 3, 1, 1), "bias": normal(2, 1)}}
    programs = {}
    apply = jax.jit(layer.apply)
    for route in ("native", "patches", "auto"):
        with convolutions(route):
            assert convolution_route() == (automatic if route == "auto" else route)
            assert convolution_route("patches") == "patches"
            programs[route] = "stablehlo.convolution" in apply.lower(params, x).as_text()
    assert programs == {"native": True, "patches": False, "auto": automatic == "native"}
    assert convolution_route() == automatic


def test_a_jitted_function_is_traced_again_for_another_route():
    routes = []

    @jax.jit
    def traced(x):
        routes.append(convolution_route())
        return x

    for route in ("native", "patches", "native"):
        with convolutions(route):
            traced(jnp.ones(2))
    assert routes == ["native", "patches"]


@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
@pytest.mark.parametrize(("ours", "theirs"), [(max_pool, linen.max_pool)])
@pytest.mark.parametrize("window", [2, 3])
def test_pooling_is_flax_pooling(ours, theirs, size, window):
    x = normal(0, 2, *size, 3)
    both = [
        jitted(jax.value_and_grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x)))), x)
        for pool in (lambda x: ours(x, window), lambda x: theirs(x, (window, window), (window, window)))
    ]
    close(*both)


def test_largest_entries_of_a_square_share_its_gradient():
    slope = jax.grad(lambda x: jnp.sum(max_pool(x, 2)))(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(slope.ravel(), [0.25] * 4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: shapes(Conv(2, (3, 3), route="fast"), jnp.ones((1, 4, 4, 1))), "'fast'"),
        (lambda: convolution_route("patch"), "did you mean 'patches'"),
        (lambda: shapes(Conv(2, (3, 3)), jnp.ones((1, 64))), r"shape \(1, 64\): reshape"),
        (
            lambda: shapes(Conv(2, (5, 5), padding="VALID"), jnp.ones((1, 8, 4, 1))),
            "5x5 does not fit in 8x4",
        ),
        (lambda: max_pool(jnp.ones((1, 1, 4, 1)), 2), "2x2 does not fit in 1x4"),
    ],
)
def test_misfits_are_told_in_one_line(call, said):
    with pytest.raises(fl.InputError, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_setting_an_unknown_route_is_refused():
    with pytest.raises(fl.InputError, match="unknown route of convolutions 'gpu'"), convolutions("gpu"):
        pass


# --- recurrence ---


def as_flax(params):
    """Parameters of `LSTM` as those of flax's OptimizedLSTMCell, in its order of gates."""
    parts = {name: jnp.split(leaf, 4, axis=-1) for name, leaf in params.items()}
    into = {f"i{gate}": {"kernel": parts["kernel"][j]} for j, gate in enumerate("ifgo")}
    across = {f"h{gate}": {"kernel": parts["recurrent"][j], "bias": parts["bias"][j]} for j, gate in enumerate("ifgo")}
    return into | across


def test_lstm_is_flax_lstm():
    x, hidden = normal(0, 2, 7, 3), 5
    params = {"kernel": normal(1, 3, 20), "recurrent": normal(2, 5, 20), "bias": normal(3, 20)}
    theirs = linen.RNN(linen.OptimizedLSTMCell(hidden, param_dtype="float64"))
    ours, slopes = jitted(lambda p, x: value_and_grads(LSTM(hidden), p, x), params, x)
    value, (of_params, of_x) = jitted(lambda p, x: value_and_grads(theirs, {"cell": as_flax(p)}, x), params, x)
    close(ours, value)
    close((as_flax(slopes[0]), slopes[1]), (of_params["cell"], of_x))


def test_lstm_has_second_derivatives_and_clients():
    """Forward over reverse against a difference of gradients; many clients against one."""
    inputs, recurrent, direction = normal(0, 3, 2, 4, 8), normal(1, 3, 2, 8), normal(2, 2, 8)
    slope = jax.grad(lambda r, a: jnp.sum(jnp.sin(recur(a, r))))
    curved = lambda r, a: jax.jvp(lambda r: slope(r, a), (r,), (direction,))[1]
    together = jitted(jax.vmap(curved), recurrent, inputs)
    h = 1e-5
    ends = [jitted(jax.vmap(slope), recurrent + side * h * direction[None], inputs) for side in (1, -1)]
    close(together, (ends[0] - ends[1]) / (2 * h), 1e-7)
    close(together[1], jitted(curved, recurrent[1], inputs[1]))


def test_lstm_starts_with_an_open_forget_gate():
    params = jitted(LSTM(3).init, jax.random.key(0), jnp.ones((1, 2, 4)))["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(params["bias"], [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    close(params["recurrent"] @ params["recurrent"].T, jnp.eye(3), 1e-6)

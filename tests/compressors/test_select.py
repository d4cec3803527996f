"""Every route of a selection gives one mask, that of NumPy's stable sort, on every platform."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_lc.compressors import parse, select
from fedjax_lc.problems import draws as drawn
from fedjax_lc.problems.draws import distinct, some_of
from tests.lowered import PLATFORMS, lowered, open_loops

ROUTES = {"rank": select._by_rank, "search": select._by_threshold, "sort": select._by_sorting}
SIZES = (1, 2, 3, 24, 25, 40, 123)


@functools.cache
def compiled(route):
    return jax.jit(ROUTES[route])


def expected(keys, k):
    mask = np.zeros(len(keys), bool)
    mask[np.argsort(keys, kind="stable")[: max(0, min(k, len(keys)))]] = True
    return mask


@st.composite
def keys_and_k(draw):
    d = draw(st.sampled_from(SIZES))
    kind = draw(st.sampled_from([np.uint32, np.uint64]))
    top = int(np.iinfo(kind).max)
    few = draw(st.sampled_from([0, 1, 3, top]))  # the smaller, the more keys are equal
    numbers = st.integers(0, few) if draw(st.booleans()) else st.integers(top - few, top)
    keys = draw(st.lists(numbers, min_size=d, max_size=d))
    return np.array(keys, kind), draw(st.sampled_from([0, 1, d // 3, d - 1, d, d + 2]))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(keys_and_k())
def test_all_routes_give_one_mask(case):
    keys, k = case
    for route in ROUTES:
        np.testing.assert_array_equal(compiled(route)(keys, k), expected(keys, k), err_msg=route)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("k", [pytest.param(0, marks=pytest.mark.slow), 1, 7, pytest.param(40, marks=pytest.mark.slow)])
def test_a_known_k_is_a_traced_one(route, k):
    rows = jax.random.bits(jax.random.key(1), (50, 40), jnp.uint32) % 30
    known = jax.jit(jax.vmap(lambda keys: ROUTES[route](keys, k)))(rows)
    own_k = jax.jit(jax.vmap(ROUTES[route]))(rows, jnp.full(50, k))
    np.testing.assert_array_equal(known, own_k)
    np.testing.assert_array_equal(known, [expected(np.asarray(keys), k) for keys in rows])


@pytest.mark.parametrize("d", [24, 25, select.SORT_UP_TO, select.SORT_UP_TO + 1])
def test_the_route_follows_platform_and_size(d):
    """An accelerator sorts up to the limit and searches beyond it; a CPU never sorts."""
    traced = jax.jit(select.smallest).trace(jax.ShapeDtypeStruct((d,), jnp.uint32), 3)
    sorts = {p: "stablehlo.sort" in str(lowered(traced, p)) for p in ("cpu", *PLATFORMS)}
    assert sorts == {"cpu": False} | dict.fromkeys(PLATFORMS, select._FEW < d <= select.SORT_UP_TO)
    assert open_loops(lowered(traced, "cuda")) == (2 if d > select.SORT_UP_TO else 0)


def test_keys_are_made_once():
    """Keys of rounded numbers, computed again for another use, may differ in the last bit: then k would not be k."""
    for d in (10, 40):
        traced = jax.jit(parse("top_k:3")).trace(jax.random.key(0), jax.ShapeDtypeStruct((d,), jnp.float32))
        assert all("optimization_barrier" in str(lowered(traced, p)) for p in ("cpu", *PLATFORMS))


@pytest.mark.parametrize("spec", ["rand_k:7", "rand_k:20%", "top_k:7", "rand_k_unscaled:3", "shared_rand_k:9"])
def test_messages_are_those_of_an_accelerators_route(spec, monkeypatch):
    """Of zeros, of equal entries, and of different ones."""
    compressor, xs = parse(spec), (np.zeros(40), np.ones(40), np.linspace(-1, 1, 40))

    def messages():
        send = jax.jit(lambda key, x: compressor(key, x).value)
        return [send(jax.random.key(4), x) for x in xs]

    here = messages()
    monkeypatch.setattr(select, "by_platform", lambda cpu, accelerator: accelerator)
    np.testing.assert_array_equal(messages(), here)


def test_l1_selection_scales_exactly():
    """Magnitudes near both ends of float32 leave the choice as it is."""
    c, x = parse("l1_select"), jnp.asarray(np.random.default_rng(0).normal(size=30), jnp.float32)
    u = jnp.linspace(0.02, 0.98, 25, dtype=jnp.float32)[:, None]
    chosen = lambda scale: jax.vmap(lambda u: c.apply(x * scale, u).sent)(u)
    for scale in (2.0**-100, 2.0**100):
        np.testing.assert_array_equal(chosen(jnp.float32(scale)), chosen(jnp.float32(1)))


# --- cohorts and batches without replacement ---


def floyd(t, m):
    taken = []
    for j, draw in zip(range(m - len(t), m), t, strict=True):
        taken.append(int(j if int(draw) in taken else draw))
    return taken


@functools.cache
def drawing(batch, route):
    """A program of its own for a route: the one of this platform, or an accelerator's."""
    return jax.jit(jax.vmap(lambda key, m: distinct(key, m, batch)[0], (0, None)))


@functools.partial(jax.jit, static_argnums=2)
def numbers_below(keys, m, batch):
    return jax.vmap(lambda key: drawn.below(key, m - batch + jnp.arange(batch) + 1))(keys)


@pytest.mark.parametrize("batch", [2, 3, 8, 20, 33, drawn.ALL_PAIRS_UP_TO + 20])
@pytest.mark.parametrize("spare", [0, 1, 5, 60])
def test_batches_are_floyds_by_both_routes(batch, spare, monkeypatch):
    m, keys = jnp.int32(batch + spare), jax.random.split(jax.random.key(batch + spare), 60)
    here = np.asarray(drawing(batch, "here")(keys, m))
    monkeypatch.setattr(drawn, "by_platform", lambda cpu, accelerator: accelerator)
    np.testing.assert_array_equal(drawing(batch, "accelerator")(keys, m), here)
    t = numbers_below(keys, m, batch)
    np.testing.assert_array_equal(here, [floyd(np.asarray(row), batch + spare) for row in t])


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_short_clients_by_both_routes(rows, monkeypatch):
    keys = jax.random.split(jax.random.key(rows), 40)
    draw = lambda: jax.jit(jax.vmap(lambda key: distinct(key, jnp.int32(rows), 8)))(keys)
    picks, valid = (np.asarray(part) for part in draw())
    assert all(sorted(p[v]) == list(range(rows)) for p, v in zip(picks, valid, strict=True))
    monkeypatch.setattr(drawn, "by_platform", lambda cpu, accelerator: accelerator)
    for ours, theirs in zip(draw(), (picks, valid), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_large_batches_of_short_clients_are_all_their_rows():
    rows, keys = jnp.array([1, 5, 280, 299]), jax.random.split(jax.random.key(0), 4)
    drawing = jax.jit(jax.vmap(lambda key, m: distinct(key, m, 300)))(keys, rows)
    for m, picks, valid in zip(rows.tolist(), *map(np.asarray, drawing), strict=True):
        assert sorted(picks[valid]) == list(range(m))


def test_a_large_draw_compares_no_pairs():
    batch = drawn.ALL_PAIRS_UP_TO + 1
    program = str(jax.make_jaxpr(lambda key: distinct(key, jnp.int32(10**6), batch))(jax.random.key(0)))
    assert f"[{batch}]" in program
    assert f"[{batch},{batch}]" not in program


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_nobody_waits_for_somebody_to_come(dtype):
    """At any share one draw decides: nothing is repeated, in no lane."""
    draw = lambda share, key: some_of(key, share, 20)
    shares, keys = jnp.array([1e-78, 1e-300, 0.5, 1.0], dtype), jax.random.split(jax.random.key(0), 4)
    assert "while" not in str(jax.make_jaxpr(jax.vmap(draw))(shares, keys))
    assert np.asarray(jax.vmap(draw)(shares, keys)).sum(axis=1)[[0, 1, 3]].tolist() == [1, 1, 20]


@pytest.mark.parametrize(
    ("share", "dtype"),
    [(1e-78, jnp.float64), *((share, jnp.float32) for share in (1e-42, 1e-9, 0.02, 0.4, 1.0))],
)
def test_somebody_comes_by_the_law_given_that(share, dtype):
    """Every subset of k > 0 clients has probability p^k (1 - p)^(n - k) / (1 - (1 - p)^n), to 5 standard errors."""
    n, draws = 4, 200_000
    keys = jax.random.split(jax.random.key(0), draws)
    mask = np.asarray(jax.jit(jax.vmap(lambda key: some_of(key, dtype(share), n)))(keys))
    found = np.bincount(mask @ 2 ** np.arange(n), minlength=2**n) / draws
    members = np.array([bin(s).count("1") for s in range(2**n)])
    weights = np.where(members == 1, 1.0, 0.0) if share < 1e-8 else share**members * (1 - share) ** (n - members)
    law = np.where(members == 0, 0, weights) / weights[1:].sum()
    assert found[0] == 0
    assert np.all(np.abs(found - law) <= 5 * np.sqrt(law * (1 - law) / draws) + 1 / draws)

"""Methods without a server agree with their slow references, fed the same random draws, and have their identities."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc import algorithms, compressors, problems
from fedjax_lc.algorithms.dyna_cold import quantised
from fedjax_lc.algorithms.power_gossip import drawn, orth
from tests.algorithms.shared import KEY, gradient_of_rows, purposes, replay, step_keys, walk
from tests.conftest import make_clients
from tests.contract.test_networks import make
from tests.reference import codec, gossip, graphs, power_gossip
from tests.reference import problems as ref_problems
from tests.reference.bits import BitReader, BitWriter

N, D, STEPS, L2 = 6, 5, 40, 0.5
SIZES = (3, 6, 4, 5, 4, 7)
CLIENTS = [(A, 2 * b + A.sum(axis=1)) for A, b in make_clients(SIZES)]
PROBLEM = problems.least_squares(CLIENTS, l2=L2).replace(x0=jnp.asarray(np.random.default_rng(1).normal(size=D)))
REF = ref_problems.LeastSquares(CLIENTS, L2)
L = float(PROBLEM.smooth.max())
EDGES = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5)]  # of degrees 1 to 3
W = graphs.mixing(N, EDGES)
GRAPH = fl.topology(EDGES, N)
APART = np.random.default_rng(2).normal(size=(N, D))
BATCHES = {"batch_size": 2}


def close(got, want, what="", tol=1e-12):
    """To `tol` of the largest entry."""
    want = np.asarray(want)
    np.testing.assert_allclose(got, want, rtol=0, atol=tol * max(1.0, np.abs(want).max()), err_msg=what)


# --- topologies ---

NAMED = (
    [("ring", n) for n in (1, 2, 3, 7)] + [("torus", n) for n in (4, 6, 7, 9, 12)] + [("hypercube", n) for n in (2, 8)]
)
NAMED += [(name, n) for name in ("path", "star", "complete", "exponential") for n in (1, 2, 5, 16)]


@pytest.mark.parametrize("weights", graphs.WEIGHTS)
@pytest.mark.parametrize(("name", "n"), NAMED)
def test_topologies(name, n, weights):
    pairs = graphs.edges(name, n)
    if weights == "uniform" and len(set(graphs.degrees(n, pairs))) > 1:
        with pytest.raises(fl.InputError, match="regular"):
            fl.topology(name, n, weights=weights)
        return
    for lazy in (False, True):
        ours, W = fl.topology(name, n, weights=weights, lazy=lazy), graphs.mixing(n, pairs, weights, lazy)
        assert ours.edges.tolist() == [list(pair) for pair in pairs]
        assert ours.degrees.tolist() == graphs.degrees(n, pairs)
        close(ours.W, W, tol=1e-14)
        if n > 1:
            for field, want in {"gap": "rho", "beta": "beta", "lmin": "lmin", "kappa_g": "kappa_g"}.items():
                assert getattr(ours, field) == pytest.approx(graphs.spectrum(W)[want], rel=1e-9, abs=1e-13), field


@pytest.mark.parametrize("given", [EDGES, np.array(EDGES)[::-1, ::-1], W])
def test_graphs_of_the_users(given):
    made = fl.topology(given, N)
    assert made.edges.tolist() == [list(pair) for pair in EDGES]
    close(made.W, W, tol=1e-15)
    close(made.mix(jnp.asarray(APART)), gossip.mix(W, APART))
    assert made == fl.topology(given, N)


def test_random_graphs():
    for text in ("erdos_renyi:0.3", "erdos_renyi:0.3,seed=4", "regular:4", "regular:3"):
        made = fl.topology(text, 12)
        pairs = [tuple(pair) for pair in made.edges.tolist()]
        assert pairs == sorted({(min(pair), max(pair)) for pair in pairs})
        assert graphs.connected(12, pairs)
        close(made.W, graphs.mixing(12, pairs), tol=1e-15)
        if text.startswith("regular"):
            assert set(graphs.degrees(12, pairs)) == {int(text[-1])}
    counts = [len(fl.topology(f"erdos_renyi:0.5,seed={seed}", 12).edges) for seed in range(40)]
    assert abs(np.mean(counts) - 33) < 4 * np.sqrt(66 / 4 / 40)


@pytest.mark.parametrize("name", ["hypercube", "exponential"])
def test_one_peer_rounds(name):
    """The links of every round, and that a turn of rounds averages exactly."""
    n = 8
    problem = problems.quadratic(np.array([np.eye(2)] * n), np.zeros((n, 2)))
    hp = algorithms.get("dgd").Hparams(gamma=0.1, topology=f"one_peer_{name}")
    total = np.eye(n)
    for t in range(3):
        links = hp.links(problem, t)
        got = np.asarray(links.mix(jnp.eye(n)))
        close(got, graphs.one_peer(name, n, t), tol=1e-15)
        assert float(links.cost(7.0, 1.0).bits_up) == 7
        total = got @ total
    close(total, np.full((n, n), 1 / n), tol=1e-15)


@pytest.mark.parametrize("text", ["ring", "star", "torus:lazy=true", "erdos_renyi:0.04", "path:weights=laplacian"])
def test_large_sparse_graphs_mix_without_a_matrix(text):
    made = fl.topology(text, 300)
    X = np.random.default_rng(3).normal(size=(300, 2))
    close(jax.jit(made.mix)(X), made.W @ X, tol=1e-14)
    assert "f64[300,300]" not in jax.jit(made.mix).lower(X).compile().as_text()


def rounds(text, n, **hp):
    """The W of 60 rounds, (60, n, n), and who takes part, (60, n)."""
    problem = problems.quadratic(np.array([np.eye(2)] * n), np.zeros((n, 2)))
    hp = algorithms.get("dgd").Hparams(gamma=0.1, topology=text, **hp)

    def one(key):
        links = hp.links(problem, 0, key)
        return links.mix(jnp.eye(n)), links.active

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(step_keys(60)))


def test_matchings_average_pairs():
    W, _ = rounds("matching(erdos_renyi:0.5)", 8)
    close(W, np.swapaxes(W, 1, 2), tol=0)
    close(W.sum(axis=2), np.ones((60, 8)), tol=1e-15)
    assert set(np.unique(W)) == {0.0, 0.5, 1.0}
    close(W @ W, W, tol=1e-15)  # a projection: no node has two partners
    there = fl.topology("erdos_renyi:0.5", 8).W > 0
    assert not np.any(W[:, ~there])
    assert np.all(W.sum(axis=0)[there] > 0)


def test_subgraphs_keep_each_edge_with_its_probability():
    (W, _), whole = rounds("subgraph(torus):0.3", 9), fl.topology("torus", 9)
    close(W, np.swapaxes(W, 1, 2), tol=0)
    close(W.sum(axis=2), np.ones((60, 9)), tol=1e-15)
    i, j = whole.edges.T
    assert set(np.unique(np.round(W[:, i, j], 12))) == {0.0, 0.2}
    kept = np.mean(W[:, i, j] > 0)
    assert abs(kept - 0.3) < 4 * np.sqrt(0.21 / W[:, i, j].size)


def test_who_stays_away_hears_nothing_and_keeps_its_model():
    W, active = rounds("ring", 7, participation=0.5)
    whole = fl.topology("ring", 7).W
    for mixing, there in zip(W, active, strict=True):
        want = np.where(np.outer(there, there), whole, 0.0)
        np.fill_diagonal(want, 0.0)
        close(mixing, want + np.diag(1 - want.sum(axis=1)), tol=1e-15)
    assert 0.4 < active.mean() < 0.65


# --- agreement ---


def parsed(hp):
    return {name: compressors.parse(value) if name == "compressor" else value for name, value in hp.items()}


def hparams(name, **hp):
    return algorithms.get(name).Hparams(**{"topology": GRAPH} | parsed(hp))


def started(name, hp, x0=None):
    """Our first state; nodes start apart where x0 is (n, d)."""
    state = algorithms.get(name).init(PROBLEM, hp, jax.random.fold_in(KEY, 2**32 - 1))
    return state if x0 is None else state._replace(x=jnp.asarray(x0))


gradient = functools.partial(gradient_of_rows, PROBLEM, REF, CLIENTS)


#: what our fields are called in the references
SYMBOLS = {"D": "d", "H": "h", "Hw": "hw", "Z": "z"}


class Wires:
    """How our step and the reference's iteration belong together.

    count: keys of a step, the first of its batches; slots: (which key, steps later) of the reference's messages.
    later: steps after which our gradients are those of the reference's iteration t, and our fields `lagging` its own.
    ahead: our first steps that are the reference's start.
    """

    def __init__(self, fields, count=2, slots=((1, 0),), later=0, lagging=(), ahead=0):
        self.fields, self.count, self.slots = ("x", *fields), count, slots
        self.later, self.lagging, self.ahead = later, lagging, ahead

    def draws(self, hp):
        """(gradients, compress) of the reference."""
        keys = purposes(STEPS + 1, self.count) if self.count > 1 else step_keys(STEPS + 1)[:, None]
        after = lambda which, steps: jnp.roll(keys[:, which], -steps - self.ahead, axis=0)
        grad = gradient(hp, after(0, self.later))
        if not hasattr(hp, "compressor"):
            return grad, half
        return grad, replay(hp.compressor, jnp.stack([after(*slot) for slot in self.slots], axis=1), N)


def half(t, i, slot, v):
    return np.where(v >= 0, 0.5, -0.5)


def both(name, wires, **given):
    """(our states, costs and points; the reference's states); nodes start apart, unless their copies start at x0."""
    hp = hparams(name, **given)
    x0 = np.asarray(PROBLEM.x0) if given.get("start") == "x0" else APART
    mine = walk(name, PROBLEM, hp, STEPS, state=started(name, hp, np.broadcast_to(x0, (N, D))))
    told = {field.name: getattr(hp, field.name) for field in dataclasses.fields(hp)}
    told |= {"order": {"paper": "dgd"}.get(hp.form, hp.form)} if hasattr(hp, "form") else {}
    told |= {start: given["start"] for start in ("xh", "phi") if "start" in given}
    told |= {"gamma": hp.mu} if name == "def_atc" else {}
    if name == "dyna_cold":
        told["floor"] = 8 * 2.0**-52 * hp.s0
    grad, compress = wires.draws(hp)
    bits = float(hp.compressor(KEY, PROBLEM.x0).bits) if hasattr(hp, "compressor") else D
    length = lambda slot, d: 32 * d if slot == "dense" else bits
    return mine, gossip.run(name, grad, W, told, x0, STEPS - wires.ahead, compress, length, hp.count)


def agree(mine, theirs, wires):
    states, costs, points = mine
    for field in (*wires.fields, *wires.lagging):
        got, want = getattr(states, field)[wires.ahead :], np.array([s[SYMBOLS.get(field, field)] for s in theirs])
        assert np.ptp(want[1:] - want[:-1]) > 0
        if field in wires.lagging:
            got, want = got[1:], want[:-1]
        close(got, want, field)
    close(points[wires.ahead :], [state["point"] for state in theirs], "point")
    for way in ("bits_up", "bits_down"):
        sent = getattr(costs, way).astype(float)
        first = theirs[0][way] - sent[wires.ahead]  # what the reference sends in its start
        np.testing.assert_allclose(np.cumsum(sent)[wires.ahead :] + first, [state[way] for state in theirs], rtol=1e-6)
        assert np.sum(sent[: wires.ahead]) == 0


ALONE, AHEAD = Wires((), count=1), Wires(("D", "H", "Hw"), ahead=1)
COLD, TRACKED = Wires(("D", "xh", "xhw"), ahead=1), Wires((), later=1, lagging=("y", "g"))
BEER = Wires(("h",), count=3, slots=((2, 0), (1, 1)), later=1, lagging=("v", "gh", "g"))
LEAD = {"eta": 0.4 / L, "gamma": 0.3, "alpha": 0.4, "compressor": "unbiased"}
ONE = {"eta": 0.4 / L, "gamma": 0.2, "compressor": "contractive"}
SCALED = {"eta": 0.4 / L, "gamma": 0.25, "sigma": 0.98, "s0": 8.0}
DAMPED = {"mu": 0.2 / L, "zeta": 0.4, "cg": 0.3, "compressor": "contractive"}
CONTRACTIVE = {"gamma": 0.3 / L, "cg": 0.3, "compressor": "contractive"}
#: case -> (how it belongs to the reference, hyperparameters); compressors are those of VARIANTS
CASES = {
    "dgd": (Wires(()), {"gamma": 0.3 / L}),
    "dgd, dgd": (Wires(()), {"gamma": 0.3 / L, "order": "dgd"}),
    "dgd, cta": (Wires(()), {"gamma": 0.3 / L, "order": "cta"}),
    "diging": (TRACKED, {"gamma": 0.1 / L}),
    "diging, atc": (TRACKED, {"gamma": 0.1 / L, "form": "atc"}),
    "extra": (ALONE, {"gamma": 0.2 / L}),
    "nids": (ALONE, {"gamma": 0.5 / L}),
    "choco_sgd": (Wires(("xh",)), CONTRACTIVE),
    "choco_sgd, old": (Wires(("xh",)), CONTRACTIVE | {"order": "old", "start": "x0"}),
    "deep_squeeze": (Wires(("e",)), CONTRACTIVE | {"cg": 0.1}),
    "def_atc": (Wires(("phi", "z")), DAMPED),
    "def_atc, unscaled": (Wires(("phi", "z")), DAMPED | {"scaled": False, "start": "x0"}),
    "beer": (BEER, {"eta": 0.1 / L, "cg": 0.2, "compressor": "contractive"}),
    "lead": (AHEAD, LEAD),
    "lead, none": (Wires(("D", "H", "Hw")), LEAD | {"init": "none"}),
    "cold": (COLD, ONE),
    "cold, none": (Wires(("D", "xh", "xhw")), ONE | {"init": "none"}),
    "dyna_cold": (Wires(("D", "xh", "xhw", "s"), count=1, ahead=1), SCALED),
}  # fmt: skip
VARIANTS = {
    "full": {"contractive": "top_k:2", "unbiased": "rand_k:2", "count": "per_node"},
    "batches": {"contractive": "rand_k_unscaled:2", "unbiased": "qsgd:2", "batch_size": 2},
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", CASES)
def test_agreement(case):
    """The default of a method's choices with batches, the others with all rows."""
    variant = "full" if "," in case else "batches"
    wires, hp = CASES[case]
    hp = hp | VARIANTS[variant]
    kinds = {kind: hp.pop(kind) for kind in ("contractive", "unbiased")}
    if "compressor" in hp:
        hp["compressor"] = kinds[hp["compressor"]]
    agree(*both(case.partition(",")[0], wires, **hp), wires)


@pytest.mark.parametrize(
    ("order", "changes"),
    [("atc", {"participation": 0.5}), ("dgd", {"topology": "subgraph(ring):0.5"}), ("cta", {"participation": 0.5})],
)
def test_agreement_of_dgd_over_a_graph_that_changes(order, changes):
    """Who stays away takes no gradient step."""
    hp = hparams("dgd", gamma=0.3 / L, order=order, **changes)
    keys = purposes(STEPS, 2)

    def one(key):
        links = hp.links(PROBLEM, 0, key)
        return links.mix(jnp.eye(N)), jnp.ones(N) if links.active is None else links.active

    mixing, there = map(np.asarray, jax.jit(jax.vmap(one))(keys[:, 1]))
    mine = walk("dgd", PROBLEM, hp, STEPS, state=started("dgd", hp, APART))
    grad = lambda t, i, x: there[t, i] * REF.grad(i, x)
    theirs = gossip.run("dgd", grad, lambda t: mixing[t], {"gamma": 0.3 / L, "order": order}, APART, STEPS)
    close(mine[0].x, [state["x"] for state in theirs])
    np.testing.assert_allclose(np.cumsum(mine[1].bits_up), [state["bits_up"] for state in theirs], rtol=1e-6)
    close(mine[1].grads, there.mean(axis=1), tol=1e-6)


# --- LESSBIT ---


@pytest.mark.parametrize("option", ["A", "B", "C", "D"])
def test_lessbit(option):
    """In D, all nodes take their full gradients anew at once."""
    batches = BATCHES if option in ("C", "D") else {}
    given = {"option": option, "eta": 0.3 / L, "theta": 0.3, "alpha": 0.4, "compressor": "rand_k:2"}
    hp = hparams("lessbit", p=0.4, **given, **batches)
    state = started("lessbit", hp, APART)
    if option == "D":
        full = state.full._replace(w=jnp.asarray(APART), g=PROBLEM.grads(jnp.asarray(APART)))
        state = state._replace(full=full)
    states, costs, points = walk("lessbit", PROBLEM, hp, STEPS, state=state)
    keys = purposes(STEPS, 2)
    batch_keys, coin_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys[:, 0]), 1, 0)
    grad = gradient(hp, batch_keys)
    heads = np.asarray(jax.vmap(lambda key: jax.random.bernoulli(key, 0.4))(coin_keys))
    told = given | {
        "argmin": lambda i, z: np.linalg.solve(REF.hess(i, None), z - REF.grad(i, np.zeros(D))),
        "part": grad,
        "full": lambda i, x: REF.grad(i, x),
        "coin": lambda t, i: heads[t],
    }
    theirs = gossip.run("lessbit", grad, W, told, APART, STEPS, replay(hp.compressor, keys[:, 1:], N))
    fields = {"x": states.x, "z": states.z, "h": states.h, "hw": states.hw}
    if option == "D":
        fields["w"] = states.full.w
        close(states.full.g, [[REF.grad(i, w) for i, w in enumerate(W)] for W in states.full.w])
        assert 1 < heads.sum() < STEPS - 5
        before = np.concatenate([[True], heads[:-1]])
        passes = np.mean([min(2, size) / size for size in SIZES])
        np.testing.assert_allclose(costs.grads, 2 * passes + before, rtol=1e-6)
    for field, got in {**fields, "point": points}.items():
        close(got, [state[field] for state in theirs], field)


# --- PowerGossip ---


def powered(hp, x0, steps):
    """The reference's states, with our first sides, or those that our key of every inner iteration draws."""
    shape = (D, 1) if hp.matrix == "layers" else (3, 2)
    state, grad = started("power_gossip", hp), gradient(hp, purposes(steps, 2)[:, 0])
    fresh = None
    if not hp.warm:
        keys = jnp.repeat(purposes(steps, 2)[:, 1], hp.inner)
        keys = jax.vmap(jax.random.fold_in)(keys, jnp.tile(jnp.arange(hp.inner), steps))
        every = jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: drawn(PROBLEM, hp, key)))(keys))

        def fresh(c, e, place):
            p, q = every
            return p[place][hp.inner + c - 1, e], q[place][hp.inner + c - 1, e]

    told = {name: getattr(hp, name) for name in ("gamma", "rank", "inner", "diffusion", "order")}
    sides = lambda e, place: (np.asarray(state.p[0][e]), np.asarray(state.q[0][e]))
    return power_gossip.run(grad, W, told, x0, steps, [shape], sides, fresh)


@pytest.mark.parametrize(
    "given",
    [
        {"matrix": "square"},
        {"matrix": "square", "rank": 2, "inner": 2, "order": "atc", "batch_size": 2},
        {"matrix": "square", "inner": 2, "warm": False, "diffusion": 0.7},
        {"matrix": "layers"},
    ],
    ids=str,
)
def test_power_gossip(given):
    hp = hparams("power_gossip", gamma=0.2 / L, **given)
    steps = STEPS if hp.warm else 8
    states, costs, points = walk("power_gossip", PROBLEM, hp, steps, state=started("power_gossip", hp, APART))
    theirs = powered(hp, APART, steps)
    close(states.x, [state["x"] for state in theirs])
    close(points, [state["point"] for state in theirs])
    for way in ("bits_up", "bits_down"):
        np.testing.assert_allclose(np.cumsum(getattr(costs, way)), [state[way] for state in theirs], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sides_stay_orthonormal(dtype):
    """Where columns depend on those before them, too: else an edge would move by more than the difference."""
    rng = np.random.default_rng(5)
    low = rng.normal(size=(300, 6, 1)) * rng.normal(size=(300, 1, 3))
    row = np.zeros((1, 6, 3))
    row[0, 1] = [1.0, 2.0, 3.0]
    for sides in (low, row, 0 * row, np.ones((1, 6, 3)), 1e-30 * rng.normal(size=(5, 6, 3))):
        made = np.asarray(jax.jit(orth)(jnp.asarray(sides, dtype)), float)
        close(np.swapaxes(made, 1, 2) @ made, np.broadcast_to(np.eye(3), (len(sides), 3, 3)), tol=2e-6)


# --- messages ---


@pytest.mark.parametrize("bits", [1, 3])
def test_messages_of_dyna_cold_take_their_bits(bits):
    """The cells are written and read as whole numbers of `bits` bits; the scale is known to both ends."""
    s, sent = 0.75, np.random.default_rng(7).uniform(-1.2, 1.2, size=D)
    value = s * np.asarray(quantised(jnp.asarray(sent), bits))
    assert np.all(np.abs(sent - value / s)[np.abs(sent) <= 1] <= 0.5**bits)
    writer = BitWriter()
    for entry in value:
        writer.write(round((entry / s + 1) * 2 ** (bits - 1) - 0.5), bits)
    data, length = writer.finish()
    reader = BitReader(data, length)
    close([s * ((reader.read(bits) + 0.5) / 2 ** (bits - 1) - 1) for _ in range(D)], value, tol=1e-15)
    hp = hparams("dyna_cold", **{**SCALED, "init": "none"}, bits=bits)
    costs = walk("dyna_cold", PROBLEM, hp, 2)[1]
    np.testing.assert_allclose(costs.bits_up, length * np.mean(graphs.degrees(N, EDGES)))


@pytest.mark.parametrize("name", ["choco_sgd", "deep_squeeze", "cold", "lead"])
def test_messages_to_neighbours_are_those_of_an_encoder(name):
    """Each of the k entries with its index, as the encoder of sparse vectors writes them, once for each neighbour."""
    one = {"compressor": "rand_k_unscaled:2" if name != "lead" else "rand_k:2"}
    hp = hparams(
        name,
        **(LEAD | {"init": "none"} if name == "lead" else ONE | {"init": "none"} if name == "cold" else CONTRACTIVE)
        | one,
    )
    sent = np.asarray(hp.compressor(KEY, PROBLEM.x0).value, np.float32)
    _, length = codec.encode({"kind": "sparse", "k": 2, "index": "log2"}, sent)
    costs = walk(name, PROBLEM, hp, 2)[1]
    np.testing.assert_allclose(costs.bits_up, length * np.mean(graphs.degrees(N, EDGES)), rtol=1e-6)
    np.testing.assert_array_equal(costs.bits_up, costs.bits_down)


@pytest.mark.slow
def test_power_gossip_of_a_network():
    """All its parameters are matrices, vectors with one column."""
    net = make(sizes=(6, 9, 5, 7)).replace(x0=jnp.asarray(np.random.default_rng(9).normal(size=27) / 2))
    shapes, W = [(3, 1), (4, 3), (3, 1), (3, 3)], graphs.graph("path", 4)
    hp = algorithms.get("power_gossip").Hparams(gamma=0.3, rank=2, topology="path")
    first = algorithms.get("power_gossip").init(net, hp, jax.random.fold_in(KEY, 2**32 - 1))
    apart = np.random.default_rng(10).normal(size=(4, 27)) / 2
    grads = jax.jit(lambda i, x: net.grads(x)[i])
    sides = lambda e, place: (np.asarray(first.p[place][e]), np.asarray(first.q[place][e]))
    told = {"gamma": 0.3, "rank": 2}
    theirs = power_gossip.run(lambda t, i, x: np.asarray(grads(i, x)), W, told, apart, 8, shapes, sides)
    states, costs, _ = walk("power_gossip", net, hp, 8, state=first._replace(x=jnp.asarray(apart)))
    close(states.x, [state["x"] for state in theirs])
    np.testing.assert_allclose(np.cumsum(costs.bits_up), [state["bits_up"] for state in theirs], rtol=1e-6)

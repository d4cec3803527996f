"""The reference loops: one-step bounds by enumeration, identities between methods."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from . import (
    compressed_scaffnew,
    diana,
    gd,
    locodl,
    masks,
    problems,
    scaffnew,
    tamuna,
)
from . import enumerate as outcomes_of
from .cases import (
    KAPPA,
    MU,
    PROBLEM,
    X0,
    D,
    N,
    coins,
    compress_with,
    heterogeneous_quadratic,
)

# One-step bounds, expectations enumerated.


def tiny(n, d, rng):
    return heterogeneous_quadratic(n, d, float(rng.uniform(3, 60)), seed=int(rng.integers(1000)))


def random_locodl_hp(rng, problem, omega, n):
    omega_av = omega / n
    rho = rng.uniform(0.05, 0.999) * 2 / (1 + omega_av)
    chi = rng.uniform(0.2, 1.0) * (2 * rho - rho**2 * (1 + omega_av))
    L = max(problem.smooth) - MU / 2
    return {
        "gamma": rng.uniform(0.02, 1.0) * 2 / L,
        "rho": rho,
        "chi": chi,
        "p": rng.uniform(0.1, 1),
        "omega": omega,
    }


LOCODL_CASES = {
    "identity": (outcomes_of.identity, lambda d: 0.0, (2, 3, 4), (3, 4, 5)),
    "rand_1": (lambda x: outcomes_of.rand_k(x, 1), lambda d: d - 1.0, (2, 3, 4), (3, 4, 5)),
    "rand_2": (lambda x: outcomes_of.rand_k(x, 2), lambda d: d / 2 - 1.0, (2, 3), (3, 4, 5)),
    "natural": (outcomes_of.natural, lambda d: 1 / 8, (2, 3), (3, 4)),
    "l1_select": (outcomes_of.l1_select, lambda d: d - 1.0, (2, 3, 4), (3, 4, 5)),
    "rand_1_natural": (
        lambda x: outcomes_of.rand_k_natural(x, 1),
        lambda d: 9 * d / 8 - 1,
        (2, 3),
        (3, 4, 5),
    ),
}


@pytest.mark.parametrize("name", LOCODL_CASES)
def test_locodl_one_step_bound(name):
    """E Psi+ <= tau Psi for every state with mean(u) + v = 0; at rho, chi on the edge the bound is tight."""
    enumerate_all, omega_of, clients, dims = LOCODL_CASES[name]
    rng, ratios = np.random.default_rng(11), []
    for trial in range(12):
        n, d = int(rng.choice(clients)), int(rng.choice(dims))
        problem = tiny(n, d, rng)
        hp = random_locodl_hp(rng, problem, omega_of(d), n)
        x_star, U = problem.optimum(), rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-1, 2)
        X = x_star + rng.normal(size=(n, d)) * (trial % 3)
        state = {"X": X, "U": U, "y": x_star + rng.normal(size=d), "v": -U.mean(axis=0)}
        grads = [problem.grad(i, x_star) for i in range(n)]

        def psi(state, hp=hp, x_star=x_star, grads=grads):
            return locodl.lyapunov(hp, state, x_star, grads, MU)

        x_hat, y_hat = locodl.local(problem.grad, n, hp, MU, state)
        expected = (1 - hp["p"]) * psi(state | {"X": x_hat, "y": y_hat})
        for D_values, q in outcomes_of.joint([enumerate_all(x_hat[i] - y_hat) for i in range(n)]):
            new = locodl.talk(n, hp, x_hat, y_hat, U, state["v"], lambda i, slot, v, D=D_values: D[i])
            expected += hp["p"] * q * psi(new)
        ratios.append(expected / psi(state) / locodl.rate(hp, max(problem.smooth), MU))
    assert max(ratios) <= 1 + 1e-10
    assert max(ratios) > 0.5


def test_scaffnew_one_step_bound():
    rng = np.random.default_rng(12)
    for _ in range(20):
        n, problem = 3, tiny(3, 4, rng)
        L = max(problem.smooth)
        hp = {"gamma": rng.uniform(0.02, 1) * 2 / L, "p": rng.uniform(0.1, 1)}
        x_star, H = problem.optimum(), rng.normal(size=(3, 4)) * 30
        state = {"X": rng.normal(size=(3, 4)), "H": H - H.mean(axis=0), "server": np.zeros(4)}
        grads = [problem.grad(i, x_star) for i in range(n)]
        expected = 0.0
        for coin, q in ((True, hp["p"]), (False, 1 - hp["p"])):
            new = scaffnew.step(problem.grad, n, hp, state, coin)
            expected += q * scaffnew.lyapunov(hp, new, x_star, grads)
        bound = scaffnew.rate(hp, L, MU) * scaffnew.lyapunov(hp, state, x_star, grads)
        assert expected <= bound * (1 + 1e-10)


@pytest.mark.parametrize(("n", "d", "s"), [(4, 3, 2), (4, 3, 3), (5, 3, 2), (5, 2, 2), (5, 1, 2), (5, 1, 4)])
def test_compressed_scaffnew_one_step_bound(n, d, s):
    """All n! permutations; s d >= n and s d < n."""
    rng = np.random.default_rng(13)
    all_masks = [masks.mask(d, n, s, list(order)) for order in permutations(range(n))]
    for _ in range(3):
        problem = heterogeneous_quadratic(n, max(d, 2), 20.0, seed=int(rng.integers(1000)))
        if d == 1:
            scalars = [(np.array([[float(h)]]), rng.normal(size=1)) for h in rng.uniform(0, 19, n)]
            problem = problems.Quadratic(scalars, l2=MU)
        L, chi = max(problem.smooth), rng.uniform(0.3, 1) * n * (s - 1) / (s * (n - 1))
        hp = {"gamma": rng.uniform(0.02, 1) * 2 / L, "p": rng.uniform(0.1, 1), "s": s, "chi": chi}
        x_star, H = problem.optimum(), rng.normal(size=(n, d)) * 20
        state = {"X": rng.normal(size=(n, d)), "H": H - H.mean(axis=0), "server": np.zeros(d)}
        grads = [problem.grad(i, x_star) for i in range(n)]

        def psi(new, hp=hp, x_star=x_star, grads=grads):
            return compressed_scaffnew.lyapunov(hp, new, x_star, grads)

        still = compressed_scaffnew.step(problem.grad, n, hp, state, False, None)
        expected = (1 - hp["p"]) * psi(still)
        for q in all_masks:
            new = compressed_scaffnew.step(problem.grad, n, hp, state, True, lambda q=q: q)
            np.testing.assert_allclose(new["H"].sum(axis=0), 0, atol=1e-11)
            expected += hp["p"] * psi(new) / len(all_masks)
        assert expected <= compressed_scaffnew.rate(hp, L, MU, n) * psi(state) * (1 + 1e-10)


def test_diana_one_step_bound():
    rng = np.random.default_rng(14)
    for _ in range(20):
        n, d = int(rng.choice([2, 3])), int(rng.choice([3, 4]))
        problem = tiny(n, d, rng)
        omega, x_star = d - 1.0, problem.optimum()
        hp = diana.theory(max(problem.smooth), omega, n)
        H = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-1, 2)
        state = {"x": x_star + rng.normal(size=d), "H": H, "h": H.mean(axis=0)}
        grads = [problem.grad(i, x_star) for i in range(n)]
        sent = [outcomes_of.rand_k(problem.grad(i, state["x"]) - H[i], 1) for i in range(n)]
        expected = 0.0
        for D_values, q in outcomes_of.joint(sent):
            new = diana.step(problem.grad, n, hp, state, lambda i, slot, v, D=D_values: D[i])
            expected += q * diana.lyapunov(hp, n, omega, new, x_star, grads)
        bound = diana.rate(hp, MU) * diana.lyapunov(hp, n, omega, state, x_star, grads)
        assert expected <= bound * (1 + 1e-10)


# Identities.


def test_locodl_without_compression_at_p_one_is_gd_of_half_the_step():
    hp = {"gamma": 0.05, "rho": 1.0, "chi": 1.0, "p": 1.0, "omega": 0.0}
    x0 = np.arange(D, dtype=float)
    lifted = locodl.run(PROBLEM.grad, N, hp, MU, x0, 50, lambda t: True, compress_with("identity"))
    plain = gd.run(PROBLEM.grad, N, {"gamma": 0.025}, x0, 50)
    for left, right in zip(lifted, plain, strict=True):
        np.testing.assert_allclose(left["point"], right["point"], rtol=1e-12, atol=1e-12)


def test_locodl_without_compression_is_scaffnew_on_twice_the_clients():
    hp = {"gamma": 0.05, "rho": 1.0, "chi": 1.0, "p": 0.3, "omega": 0.0}

    def split_grad(i, x):
        return PROBLEM.grad(i, x) - MU / 2 * x if i < N else MU / 2 * x

    lifted = locodl.run(PROBLEM.grad, N, hp, MU, X0, 200, coins(0.3), compress_with("identity"))
    doubled = scaffnew.run(split_grad, 2 * N, {"gamma": 0.05, "p": 0.3}, X0, 200, coins(0.3))
    for left, right in zip(lifted, doubled, strict=True):
        np.testing.assert_allclose(left["X"], right["X"][:N], atol=1e-12)
        np.testing.assert_allclose(left["U"], right["H"][:N], atol=1e-12)
        for j in range(N, 2 * N):
            np.testing.assert_allclose(left["y"], right["X"][j], atol=1e-12)
            np.testing.assert_allclose(left["v"], right["H"][j], atol=1e-12)


def test_locodl_consensus_point_moves_only_by_the_compression_error():
    rng = np.random.default_rng(15)
    for _ in range(20):
        x_hat, y_hat, values = rng.normal(size=(N, D)), rng.normal(size=D), rng.normal(size=(N, D))
        rho = rng.uniform(0, 1)
        hp = {"gamma": 0.1, "rho": rho, "chi": 0.5, "p": 0.5, "omega": 1.0}
        new = locodl.talk(N, hp, x_hat, y_hat, 0 * x_hat, 0 * y_hat, lambda i, slot, v, D=values: D[i])
        z_hat = (x_hat.sum(axis=0) + N * y_hat) / (2 * N)
        d_bar = values.sum(axis=0) / (2 * N)
        z_new = z_hat + rho * (d_bar - 0.5 * (x_hat - y_hat).mean(axis=0))
        np.testing.assert_allclose(locodl.point(new), z_new, atol=1e-13)
        np.testing.assert_allclose(new["U"].mean(axis=0) + new["v"], 0, atol=1e-13)


def test_locodl_in_rounds_of_geometric_length_is_the_coin_form():
    hp = locodl.theory(KAPPA, MU, 0.0, 0.0) | {"rho": 0.7, "chi": 0.9}
    draw = compress_with("natural")
    memory = {}

    def compress(t, i, slot, v):
        memory[t, i] = draw(t, i, slot, v) - v
        return v + memory[t, i]

    pattern = [3, 1, 5, 2, 7]
    flips = [step == length for length in pattern for step in range(1, length + 1)]
    by_coin = locodl.run(PROBLEM.grad, N, hp, MU, X0 + 1, len(flips), lambda t: flips[t], compress)
    state, t = locodl.init(N, X0 + 1), -1
    for length in pattern:
        t += length
        state = locodl.geometric_round(PROBLEM.grad, N, hp, MU, state, length, lambda i, slot, v, t=t: v + memory[t, i])
        for name, array in state.items():
            np.testing.assert_allclose(array, by_coin[t][name], rtol=1e-11, atol=1e-11)


def test_tamuna_with_everybody_is_compressed_scaffnew():
    hp = compressed_scaffnew.theory(KAPPA, MU, N, D)
    assert tamuna.theory(KAPPA, MU, N, D, N) == hp
    rng = np.random.default_rng(16)
    lengths, orders = rng.geometric(0.4, 40), [rng.permutation(N) for _ in range(40)]
    rounds = tamuna.run(
        PROBLEM.grad,
        N,
        hp,
        X0,
        40,
        cohort=lambda t: range(N),
        local_steps=lambda t: lengths[t],
        mask=lambda t: masks.mask(D, N, hp["s"], orders[t]),
    )
    ends = np.cumsum(lengths) - 1
    drawn = iter(orders)
    steps = compressed_scaffnew.run(
        PROBLEM.grad,
        N,
        hp,
        X0,
        int(ends[-1]) + 1,
        coin=lambda t: t in ends,
        mask=lambda t: masks.mask(D, N, hp["s"], next(drawn)),
    )
    for t, end in enumerate(ends):
        np.testing.assert_allclose(rounds[t]["x"], steps[end]["point"], atol=1e-12)
        np.testing.assert_allclose(rounds[t]["H"], steps[end]["H"], atol=1e-12)


@pytest.mark.parametrize(
    ("d", "n", "s"), [(3, 5, 2), (3, 5, 5), (4, 4, 3), (2, 6, 3), (2, 6, 2), (1, 6, 2), (7, 3, 2), (3, 6, 2)]
)
def test_mask_rows_sum_to_s_for_every_permutation(d, n, s):
    assert np.all(masks.template(d, n, s).sum(axis=1) == s)
    for order in permutations(range(n)):
        q = masks.mask(d, n, s, list(order))
        assert np.all(q.sum(axis=1) == s)
        assert set(np.unique(q)) <= {0, 1}
    if s * d < n:
        assert np.array_equal(np.sort(q.sum(axis=0))[::-1], [1] * (s * d) + [0] * (n - s * d))
    else:
        assert q.sum(axis=0).max() == -(-s * d // n)
        assert q.sum(axis=0).min() == s * d // n

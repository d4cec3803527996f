"""Every compressor as a plain function of (x, explicit randomness), coordinate by coordinate.

`u` holds uniforms in [0, 1), one per coordinate unless said: round up (or keep) iff u < probability.
`subset` is a boolean mask with k ones, drawn uniformly among all such masks.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaincinv


def identity(x):
    return x.copy()


def zero(x):
    return 0.0 * x


def rand_k(x, subset):
    """(d/k) x_S."""
    return np.where(subset, x * (len(x) / np.sum(subset)), 0.0).astype(x.dtype)


def rand_k_unscaled(x, subset):
    return np.where(subset, x, 0.0).astype(x.dtype)


def top_k_subset(x, k):
    """The k largest |x_j|, the lowest index first among equals."""
    order = sorted(range(len(x)), key=lambda j: (-abs(x[j]), j))
    subset = np.zeros(len(x), dtype=bool)
    subset[order[:k]] = True
    return subset


def top_k(x, k):
    return rand_k_unscaled(x, top_k_subset(x, k))


def bernoulli(x, u, p):
    """One uniform for the whole vector."""
    return x / p if u < p else 0.0 * x


def bernoulli_coordinates(x, u, p):
    return np.array([x[j] / p if u[j] < p else 0.0 for j in range(len(x))], dtype=x.dtype)


def norm(x, q):
    """l_q norm, guarded against overflow by the largest entry."""
    largest = float(np.max(np.abs(x)))
    if largest == 0.0 or q == math.inf:
        return largest
    return largest * float(np.sum((np.abs(x, dtype=float) / largest) ** q)) ** (1.0 / q)


def qsgd(x, u, s, q=2):
    """nrm sgn(x) (floor(l) + Be(frac l))/s with l = s|x|/nrm clipped to s."""
    nrm = norm(x, q)
    if nrm == 0.0:
        return 0.0 * x
    out = []
    for j in range(len(x)):
        level = min(s * abs(x[j]) / nrm, s)
        low = math.floor(level)
        rounded = low + (1 if u[j] < level - low else 0)
        out.append(nrm * np.sign(x[j]) * rounded / s)
    return np.array(out, dtype=x.dtype)


def terngrad(x, u):
    return qsgd(x, u, 1, math.inf)


def natural_entry(x, u):
    """2^e <= |x| < 2^(e+1); frexp gives |x| = fraction 2^exponent with 1/2 <= fraction < 1."""
    if x == 0:
        return 0.0
    fraction, exponent = math.frexp(abs(x))
    low = math.ldexp(1.0, exponent - 1)
    up = u < 2.0 * fraction - 1.0
    return math.copysign(2.0 * low if up else low, x)


def natural(x, u):
    return np.array([natural_entry(x[j], u[j]) for j in range(len(x))], dtype=x.dtype)


def natural_dithering(x, u, s, q=2):
    """Random rounding of |x|/||x||_q between neighbours among 0, 2^(1-s), ..., 1/2, 1."""
    nrm = norm(x, q)
    if nrm == 0.0:
        return 0.0 * x
    levels = [0.0] + [2.0 ** (-j) for j in reversed(range(s))]
    out = []
    for j in range(len(x)):
        t = min(abs(x[j]) / nrm, 1.0)
        low = max(level for level in levels if level <= t)
        high = min([level for level in levels if level > t], default=low)
        up = high > low and u[j] < (t - low) / (high - low)
        out.append(nrm * np.sign(x[j]) * (high if up else low))
    return np.array(out, dtype=x.dtype)


def scaled_sign(x):
    """(||x||_1/d) sgn(x) with sgn(0) = +1."""
    scale = norm(x, 1) / len(x)
    return np.array([scale if value >= 0 else -scale for value in x], dtype=x.dtype)


def per_block(x, size, compressor):
    """`compressor(block, b)` on consecutive blocks of `size`, the last one shorter."""
    blocks = [x[start : start + size] for start in range(0, len(x), size)]
    return np.concatenate([compressor(block, b) for b, block in enumerate(blocks)])


def block_sign(x, size):
    return per_block(x, size, lambda block, b: scaled_sign(block))


def l1_index(x, u):
    """The index i with cumulative |x| before i <= u ||x||_1 < cumulative |x| up to and with i."""
    total, target = 0.0, u * float(np.sum(np.abs(x)))
    for i in range(len(x)):
        total += abs(x[i])
        if target < total:
            return i
    return int(np.max(np.nonzero(x)[0], initial=0))


def l1_select(x, u):
    """Unbiased: ||x||_1 sgn(x_i) e_i; one uniform for the whole vector."""
    out, i = 0.0 * x, l1_index(x, u)
    out[i] = norm(x, 1) * np.sign(x[i])
    return out


def l1_select_biased(x, u):
    out, i = 0.0 * x, l1_index(x, u)
    out[i] = x[i]
    return out


def threshold(x, tau):
    return np.array([value if abs(value) > tau else 0.0 for value in x], dtype=x.dtype)


def fit_threshold(values, ratio, fit):
    """SIDCo's threshold for the share `ratio` of positive `values`: exponential, pareto or gamma tail."""
    m = float(np.mean(values))
    if fit == "exponential":
        return -m * math.log(ratio)
    if fit == "pareto":
        v = float(np.var(values, ddof=1))
        k, a = (m**2 / v - 1) / 2, m / 2 * (m**2 / v + 1)
        return a * (1 - ratio**k) / k if k != 0 else -a * math.log(ratio)
    s = math.log(m) - float(np.mean(np.log(values)))
    shape = (3 - s + math.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    return m / shape * float(gammaincinv(shape, 1 - ratio))


def sidco_threshold(x, ratio, stages=1, fit="exponential", first=0.25):
    """Stages 2.. fit the exceedances less their minimum (exponential, else Pareto)."""
    values = np.abs(x)
    if stages == 1 or ratio >= first:
        return fit_threshold(values, ratio, fit)
    later = "exponential" if fit == "exponential" else "pareto"
    tau = fit_threshold(values, first, fit)
    for _ in range(stages - 1):
        exceeding = values[values > tau]
        if len(exceeding) == 0:
            return tau
        low = exceeding.min()
        tau = fit_threshold(exceeding - low, (ratio / first) ** (1 / (stages - 1)), later) + low
    return tau


def low_rank_factors(x, a, b, r):
    """Factors (a, r) and (b, r) of the best rank-r approximation of x.reshape(a, b)."""
    left, singular, right = np.linalg.svd(x.reshape(a, b), full_matrices=False)
    return left[:, :r] * singular[:r], right[:r].T


def low_rank(x, a, b, r):
    left, right = low_rank_factors(x, a, b, r)
    return (left @ right.T).ravel()


def power_sgd(matrices, query):
    """One step of the paper's form: (a, b) matrices of n clients, query (b, r) -> (P Q^T, new query)."""
    left = sum(matrix @ query for matrix in matrices) / len(matrices)
    left, _ = np.linalg.qr(left)
    query = sum(matrix.T @ left for matrix in matrices) / len(matrices)
    return left @ query.T, query


def shared_rand_k(X, subset):
    """One subset for all clients: X (n, d) -> (n, d)."""
    return np.array([rand_k(row, subset) for row in X])


def perm_k(X, permutation):
    """Worker i keeps coordinates permutation[i b .. (i+1) b), b = d/n after padding, times n.

    `permutation` has the padded length, the next multiple of n; coordinates >= d are padding.
    """
    n, d = X.shape
    block = len(permutation) // n
    out = np.zeros_like(X)
    for i in range(n):
        for j in permutation[i * block : (i + 1) * block]:
            if j < d:
                out[i, j] = n * X[i, j]
    return out


def compose(outer, inner, x):
    """outer(inner(x)), each already holding its own randomness."""
    return outer(inner(x))


def on_support(x, subset, compressor):
    """`compressor` acts on the kept entries only."""
    out = 0.0 * x
    out[subset] = compressor(x[subset])
    return out


def induced(x, contractive, unbiased):
    """C(x) + Q(x - C(x))."""
    first = contractive(x)
    return first + unbiased(x - first)


def fcc(x, compressors):
    """s = 0; one s += C_r(x - s) for each compressor of the list."""
    s = 0.0 * x
    for compressor in compressors:
        s = s + compressor(x - s)
    return s


def contractive_form(value, omega):
    """Q(x)/(1 + omega), for an unbiased Q inside error feedback."""
    return value / (1 + omega)


# Constants of the catalogue, from plain numbers.


def omega_rand_k(d, k):
    return d / k - 1


def omega_qsgd(d, s, q=2):
    if q == 2:
        return min(d / s**2, math.sqrt(d) / s)
    return min(d / (4 * s**2), (1 + math.sqrt(d)) / (2 * s))


def omega_terngrad(d):
    return (math.sqrt(d) - 1) / 2


def omega_natural_dithering(d, s, q=2):
    a = d ** (1 / min(q, 2)) / 2 ** (s - 1)
    return 1 / 8 + a * min(1, a)


def omega_compose(first, second):
    return (1 + first) * (1 + second) - 1

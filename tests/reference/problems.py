"""Problems as Python loops over ragged clients: f_i, gradients, Hessians, constants, Newton optimum.

Every f_i carries (l2/2)|x|^2; F = sum_i weights_i f_i, weights 1/n unless given (they sum to one).
"""

from __future__ import annotations

import numpy as np


class Problem:
    """Subclasses give `client_value`, `client_grad`, `client_hess` and `client_curvature`, all without l2."""

    def __init__(self, clients, l2, dim, weights=None):
        self.clients, self.l2, self.dim, self.n = clients, float(l2), dim, len(clients)
        self.weights = [1.0 / self.n] * self.n if weights is None else list(weights)

    def f(self, i, x):
        return self.client_value(i, x) + 0.5 * self.l2 * float(x @ x)

    def grad(self, i, x):
        return self.client_grad(i, x) + self.l2 * x

    def hess(self, i, x):
        return self.client_hess(i, x) + self.l2 * np.eye(self.dim)

    def value(self, x):
        total = 0.0
        for i in range(self.n):
            total += self.weights[i] * self.f(i, x)
        return total

    def full_grad(self, x):
        total = np.zeros(self.dim)
        for i in range(self.n):
            total = total + self.weights[i] * self.grad(i, x)
        return total

    def full_hess(self, x):
        total = np.zeros((self.dim, self.dim))
        for i in range(self.n):
            total = total + self.weights[i] * self.hess(i, x)
        return total

    @property
    def smooth(self):
        """(n,) smoothness constants L_i, largest eigenvalues taken exactly."""
        return np.array([np.linalg.eigvalsh(self.client_curvature(i))[-1] + self.l2 for i in range(self.n)])

    @property
    def smooth_mean(self):
        """Smoothness constant of F from the weighted mean of the clients' curvature bounds."""
        mean = sum(self.weights[i] * self.client_curvature(i) for i in range(self.n))
        return float(np.linalg.eigvalsh(mean)[-1] + self.l2)

    def optimum(self, tol=1e-15, steps=200):
        """Damped Newton from 0; stops at |grad F| <= tol (1 + |grad F(0)|) or when it no longer falls."""
        x = np.zeros(self.dim)
        scale = 1.0 + np.linalg.norm(self.full_grad(x))
        for _ in range(steps):
            grad = self.full_grad(x)
            if np.linalg.norm(grad) <= tol * scale:
                break
            direction = np.linalg.solve(self.full_hess(x), grad)
            step = 1.0
            while self.value(x - step * direction) > self.value(x) and step > 1e-8:
                step *= 0.5
            step = 1.0 if step <= 1e-8 else step
            if np.linalg.norm(self.full_grad(x - step * direction)) >= np.linalg.norm(grad):
                break
            x = x - step * direction
        return x


class LogisticRegression(Problem):
    """f_i(x) = (1/m_i) sum_s log(1 + exp(-b_s <a_s, x>)) + (l2/2)|x|^2, labels b_s = +-1."""

    def __init__(self, clients, l2, weights=None):
        super().__init__(clients, l2, clients[0][0].shape[1], weights)

    def client_value(self, i, x):
        features, labels = self.clients[i]
        total = 0.0
        for a, b in zip(features, labels, strict=True):
            total += np.logaddexp(0.0, -b * (a @ x))
        return total / len(labels)

    def client_grad(self, i, x):
        features, labels = self.clients[i]
        total = np.zeros(self.dim)
        for a, b in zip(features, labels, strict=True):
            total = total - b * sigmoid(-b * (a @ x)) * a
        return total / len(labels)

    def client_hess(self, i, x):
        features, labels = self.clients[i]
        total = np.zeros((self.dim, self.dim))
        for a, b in zip(features, labels, strict=True):
            q = sigmoid(b * (a @ x))
            total = total + q * (1.0 - q) * np.outer(a, a)
        return total / len(labels)

    def client_curvature(self, i):
        features, labels = self.clients[i]
        return features.T @ features / (4.0 * len(labels))


class LeastSquares(Problem):
    """f_i(x) = (1/(2 m_i)) |A_i x - b_i|^2 + (l2/2)|x|^2."""

    def __init__(self, clients, l2, weights=None):
        super().__init__(clients, l2, clients[0][0].shape[1], weights)

    def client_value(self, i, x):
        features, targets = self.clients[i]
        total = 0.0
        for a, b in zip(features, targets, strict=True):
            total += 0.5 * (a @ x - b) ** 2
        return total / len(targets)

    def client_grad(self, i, x):
        features, targets = self.clients[i]
        total = np.zeros(self.dim)
        for a, b in zip(features, targets, strict=True):
            total = total + (a @ x - b) * a
        return total / len(targets)

    def client_hess(self, i, x):
        return self.client_curvature(i)

    def client_curvature(self, i):
        features, targets = self.clients[i]
        return features.T @ features / len(targets)


class Quadratic(Problem):
    """f_i(x) = (1/2) x^T H_i x - <b_i, x> + (l2/2)|x|^2; clients is a list of (H_i, b_i), H_i symmetric."""

    def __init__(self, clients, l2=0.0, weights=None):
        super().__init__(clients, l2, len(clients[0][1]), weights)

    def client_value(self, i, x):
        matrix, b = self.clients[i]
        return float(0.5 * x @ matrix @ x - b @ x)

    def client_grad(self, i, x):
        matrix, b = self.clients[i]
        return matrix @ x - b

    def client_hess(self, i, x):
        return self.clients[i][0]

    def client_curvature(self, i):
        return self.clients[i][0]


class SoftmaxRegression(Problem):
    """f_i(W) = (1/m_i) sum_s [log sum_c exp(<a_s, W_c>) - <a_s, W_{y_s}>] + (l2/2)|W|^2.

    The parameter x is W (d, C) raveled row-major: W = x.reshape(d, C). Labels are 0..C-1.
    """

    def __init__(self, clients, num_classes, l2, weights=None):
        self.num_features, self.num_classes = clients[0][0].shape[1], num_classes
        super().__init__(clients, l2, self.num_features * num_classes, weights)

    def scores(self, a, x):
        return a @ x.reshape(self.num_features, self.num_classes)

    def client_value(self, i, x):
        features, labels = self.clients[i]
        total = 0.0
        for a, label in zip(features, labels, strict=True):
            scores = self.scores(a, x)
            total += scores.max() + np.log(np.sum(np.exp(scores - scores.max()))) - scores[label]
        return float(total / len(labels))

    def client_grad(self, i, x):
        features, labels = self.clients[i]
        total = np.zeros((self.num_features, self.num_classes))
        for a, label in zip(features, labels, strict=True):
            residual = softmax(self.scores(a, x))
            residual[label] -= 1.0
            total = total + np.outer(a, residual)
        return total.ravel() / len(labels)

    def client_hess(self, i, x):
        features, labels = self.clients[i]
        total = np.zeros((self.dim, self.dim))
        for a in features:
            q = softmax(self.scores(a, x))
            total = total + np.kron(np.outer(a, a), np.diag(q) - np.outer(q, q))
        return total / len(labels)

    def client_curvature(self, i):
        """diag(q) - q q^T <= (1/2) I for every probability vector q."""
        features, labels = self.clients[i]
        return np.kron(features.T @ features / (2.0 * len(labels)), np.eye(self.num_classes))


def sigmoid(z):
    if z >= 0:
        return 1.0 / (1.0 + np.exp(-z))
    return np.exp(z) / (1.0 + np.exp(z))


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()

"""FedAvg on the EMNIST network as people write it without this package: PyTorch, `torch.func`, google/fedjax.

A rival is made of the data and gives a function (layers, picks) -> layers: from the parameters `layers` on, one round
for each of `picks`, which are the numbers (c,) of the clients that take part and the order (c, m) of each one's rows.
A round is one pass over these rows in full batches, by plain gradient steps and without dropout, then the mean of the
models.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lc.models import EmnistCNN

Layers = list[tuple[np.ndarray, np.ndarray]]  #: kernel and bias of each layer, as `flax.linen` has them
Picks = Iterable[tuple[np.ndarray, np.ndarray]]
Rounds = Callable[[Layers, Picks], Layers]


class Work(NamedTuple):
    """The clients' data, and how each trains."""

    X: np.ndarray  # (n, m, side, side, 1) float32
    Y: np.ndarray  # (n, m) whole numbers
    batch: int
    lr: float


def draws(work: Work, cohort: int, rounds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random picks."""
    rng, (n, m) = np.random.default_rng(0), work.Y.shape
    for _ in range(rounds):
        yield rng.choice(n, cohort, replace=False), rng.permuted(np.tile(np.arange(m), (cohort, 1)), axis=1)


# --- PyTorch ---


def torch_loop(work: Work, channels_last: bool = False) -> Rounds:
    """A loop over clients, each with a copy of the model and its own `torch.optim.SGD`."""
    import torch

    X, Y = _torch_data(work)

    def trained(net: Any, images: Any, labels: Any, order: np.ndarray) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=work.lr)
        for rows in torch.from_numpy(order).split(work.batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
        return [parameter.data for parameter in net.parameters()]

    def rounds(layers: Layers, picks: Picks) -> Layers:
        net = torch_net(layers)
        if channels_last:
            net = net.to(memory_format=torch.channels_last)
        for ids, orders in picks:
            models = [trained(copy.deepcopy(net), X[i], Y[i], order) for i, order in zip(ids, orders, strict=True)]
            for parameter, own in zip(net.parameters(), zip(*models, strict=True), strict=True):
                parameter.data = sum(own) / len(ids)
        return from_torch([parameter.detach().numpy() for parameter in net.parameters()])

    return rounds


def torch_vmap(work: Work) -> Rounds:
    """All clients at once, by `torch.func.vmap` of `torch.func.grad`."""
    import torch
    from torch.func import functional_call, grad, vmap

    X, Y = _torch_data(work)

    def rounds(layers: Layers, picks: Picks) -> Layers:
        net = torch_net(layers)
        x = {name: parameter.detach() for name, parameter in net.named_parameters()}
        loss = lambda x, images, labels: torch.nn.functional.cross_entropy(functional_call(net, x, (images,)), labels)
        gradients = vmap(grad(loss))
        for ids, orders in picks:
            own = {name: value.expand(len(ids), *value.shape) for name, value in x.items()}
            clients = torch.from_numpy(ids)[:, None]
            for rows in torch.from_numpy(orders).split(work.batch, dim=1):
                slopes = gradients(own, X[clients, rows], Y[clients, rows])
                own = {name: value - work.lr * slopes[name] for name, value in own.items()}
            x = {name: value.mean(dim=0) for name, value in own.items()}
        return from_torch([value.numpy() for value in x.values()])

    return rounds


def torch_net(layers: Layers) -> Any:
    """The EMNIST network without dropout; images (B, 1, side, side)."""
    import torch
    from torch import nn

    wide, deep, hidden, classes = (kernel.shape[-1] for kernel, _ in layers)
    net = nn.Sequential(
        nn.Conv2d(1, wide, 3),
        nn.ReLU(),
        nn.Conv2d(wide, deep, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(layers[2][0].shape[0], hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
    for parameter, value in zip(net.parameters(), to_torch(layers), strict=True):
        parameter.data = torch.from_numpy(np.array(value))
    return net


def to_torch(layers: Layers) -> list[np.ndarray]:
    """Kernels with outputs first, and channels before places; the first dense layer's inputs likewise."""
    (k1, b1), (k2, b2), (k3, b3), (k4, b4) = layers
    side = math.isqrt(k3.shape[0] // k2.shape[-1])
    k3 = k3.reshape(side, side, k2.shape[-1], -1).transpose(3, 2, 0, 1).reshape(k3.shape[::-1])
    return [k1.transpose(3, 2, 0, 1), b1, k2.transpose(3, 2, 0, 1), b2, k3, b3, k4.T, b4]


def from_torch(values: list[np.ndarray]) -> Layers:
    """What `to_torch` makes of these layers, undone."""
    k1, b1, k2, b2, k3, b3, k4, b4 = values
    side = math.isqrt(k3.shape[1] // len(k2))
    k3 = k3.reshape(-1, len(k2), side, side).transpose(2, 3, 1, 0).reshape(k3.shape[::-1])
    return [(k1.transpose(2, 3, 1, 0), b1), (k2.transpose(2, 3, 1, 0), b2), (k3, b3), (k4.T, b4)]


def _torch_data(work: Work) -> tuple[Any, Any]:
    import torch

    return torch.from_numpy(work.X).permute(0, 1, 4, 2, 3).contiguous(), torch.from_numpy(work.Y).long()


# --- google/fedjax ---


def fedjax_rounds(work: Work) -> Rounds:
    """Its FedAvg with its EMNIST network; `jax.tree_map`, which it calls and jax has no more, is put back for it."""
    if not hasattr(jax, "tree_map"):
        jax.tree_map = jax.tree.map  # type: ignore[attr-defined]
    import fedjax
    import haiku
    from fedjax.models.emnist import ConvDropoutModule

    network = haiku.transform(lambda batch: ConvDropoutModule(EmnistCNN().classes)(batch["x"], False))
    loss = lambda batch, outputs: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], outputs)
    model = fedjax.create_model_from_haiku(network, {"x": work.X[0, :1], "y": work.Y[0, :1]}, loss)
    batches = fedjax.ShuffleRepeatBatchHParams(batch_size=work.batch, skip_shuffle=True)  # picks are in random order
    method = fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(model), fedjax.optimizers.sgd(work.lr), fedjax.optimizers.sgd(1.0), batches
    )
    names = list(model.init(jax.random.PRNGKey(0)))

    def rounds(layers: Layers, picks: Picks) -> Layers:
        params = {name: {"w": kernel, "b": bias} for name, (kernel, bias) in zip(names, layers, strict=True)}
        state = method.init(jax.device_put(params))
        for ids, orders in picks:
            keys = jax.random.split(jax.random.PRNGKey(0), len(ids))
            rows = [{"x": work.X[i][order], "y": work.Y[i][order]} for i, order in zip(ids, orders, strict=True)]
            clients = [
                (str(i).encode(), fedjax.ClientDataset(own), key) for i, own, key in zip(ids, rows, keys, strict=True)
            ]
            state, _ = method.apply(state, clients)
        jax.block_until_ready(state.params)
        return [(np.asarray(state.params[name]["w"]), np.asarray(state.params[name]["b"])) for name in names]

    return rounds

"""FedAvg on the EMNIST network as people write it in PyTorch, as in `neural_rivals`, on a device of choice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.bench.neural_rivals import Layers, Picks, Rounds, Work, from_torch, torch_net


def device() -> str:
    """The GPU where PyTorch has one.

    Raises:
        ImportError: no PyTorch.
    """
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def loop(work: Work, device: str) -> Rounds:
    """A loop over clients, each with a copy of the model and its own `torch.optim.SGD`."""
    import torch

    X, Y = _data(work, device)

    def trained(net: Any, images: Any, labels: Any, order: Any) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=work.lr)
        for rows in order.split(work.batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
        return [parameter.data for parameter in net.parameters()]

    def rounds(layers: Layers, picks: Picks) -> Layers:
        net = torch_net(layers).to(device)
        for ids, orders in picks:
            own = zip(ids, torch.from_numpy(orders).to(device), strict=True)
            models = [trained(copy.deepcopy(net), X[i], Y[i], order) for i, order in own]
            for parameter, all_ in zip(net.parameters(), zip(*models, strict=True), strict=True):
                parameter.data = sum(all_) / len(ids)
        return from_torch(_numpy(net.parameters()))

    return rounds


def vmapped(work: Work, device: str) -> Rounds:
    """All clients at once, by `torch.func.vmap` of `torch.func.grad`."""
    import torch
    from torch.func import functional_call, grad, vmap

    X, Y = _data(work, device)

    def rounds(layers: Layers, picks: Picks) -> Layers:
        net = torch_net(layers).to(device)
        x = {name: parameter.detach() for name, parameter in net.named_parameters()}
        loss = lambda x, images, labels: torch.nn.functional.cross_entropy(functional_call(net, x, (images,)), labels)
        gradients = vmap(grad(loss))
        for ids, orders in picks:
            own = {name: value.expand(len(ids), *value.shape) for name, value in x.items()}
            clients = torch.from_numpy(ids).to(device)[:, None]
            for rows in torch.from_numpy(orders).to(device).split(work.batch, dim=1):
                slopes = gradients(own, X[clients, rows], Y[clients, rows])
                own = {name: value - work.lr * slopes[name] for name, value in own.items()}
            x = {name: value.mean(dim=0) for name, value in own.items()}
        return from_torch(_numpy(x.values()))

    return rounds


RIVALS: dict[str, Callable[[Work, str], Rounds]] = {"PyTorch loop": loop, "torch.func.vmap": vmapped}


def _data(work: Work, device: str) -> tuple[Any, Any]:
    import torch

    X = torch.from_numpy(work.X).permute(0, 1, 4, 2, 3).contiguous()
    return X.to(device), torch.from_numpy(work.Y).long().to(device)


def _numpy(values: Any) -> list[np.ndarray]:
    return [value.detach().cpu().numpy() for value in values]

"""Parts `sweep` and `networks` of `fedjax-lc bench gpu`: a thousand configurations, and rounds of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from experiments.bench import gpu_torch, neural_rivals, sweep_tuned
from experiments.bench.gpu_common import Given, Told, judged, missing, raced
from experiments.bench.harness import Contestant, Target, ratio
from experiments.bench.neural_parts import EMNIST, Ours, hparams, layers, problem_of, work_of
from experiments.bench.workloads import Size, w1
from fedjax_lc import models
from fedjax_lc.core.errors import InputError
from fedjax_lc.problems import LinearModel

# --- sweep: a thousand configurations ---

IN_THE_LOOP = {"float32": 6, "float64": 9}  #: the most seconds
A5A = Size(rows=22, dim=123)  #: of a client when 288 share its rows


class LikeA5A:
    """Stands in for the recipe where its data are not: random data of its shape."""

    title = "LoCoDL, random data of a5a's shape"

    def __init__(self, clients: int) -> None:
        self.size = A5A._replace(clients=clients)

    def problem(self) -> LinearModel:
        """In float64 where that is on."""
        return w1(self.size, jnp.zeros(()).dtype.name).problem


def thousand(given: Given, dtype: str) -> dict[str, Any]:
    sizes, recipe = given.sizes, LikeA5A(given.sizes.sweep_clients)
    found: Any = recipe
    if sizes.sweep_clients == Given().sizes.sweep_clients:
        try:
            found = sweep_tuned.recipe(sweep_tuned.WIDE)
        except InputError:
            found = recipe
    facts = sweep_tuned.thousand(found, dtype, given.progress, sizes.configurations, sizes.sweep_steps)
    return facts | {"dtype": dtype}


def tell_thousand(found: Mapping[str, Any]) -> Told:
    told, dtype = sweep_tuned.tell_thousand(found), found["dtype"]
    whole = found["steps"] == Given().sizes.sweep_steps  # targets are for all steps
    what = f"(sweep) {found['lanes']} configurations, {dtype}, s in the loop"
    target = Target(what, IN_THE_LOOP[dtype], found["seconds"]) if whole else None
    rows = [row | judged(target) for row in told.rows]
    return Told([rows], told.notes, [target] if target else [])


# --- networks: rounds of W2 ---

TORCH_TURNS = 3
AUTO = "chosen by itself"
MOST_MS = {"some": 4.5, "all": 32.0}  #: a round of a cohort, and of all clients


def cohorts(given: Given) -> dict[str, int | None]:
    """By words: clients in a round, None for all."""
    sizes = given.sizes.network
    return {f"{sizes.cohort} of {sizes.clients}": sizes.cohort, f"all {sizes.clients}": None}


def networks(given: Given) -> dict[str, Any]:
    """Contestants are named "way | clients"."""
    work = work_of(EMNIST, given.sizes.network.clients, given.sizes.network)
    problem = problem_of(EMNIST, work)
    rounds, all_ = given.sizes.network.rounds, cohorts(given)
    makers: dict[str, Callable[[], Contestant]] = {}
    for route in ("auto", *given.sizes.routes):
        for words, cohort in all_.items():
            way = AUTO if route == "auto" else route
            makers[f"{way} | {words}"] = partial(_ours, problem, work, cohort, rounds, route)
    for precision in given.sizes.precisions if hasattr(problem, "precision") else ():
        own = dataclasses.replace(problem, precision=precision)
        makers[f"precision {precision} | {list(all_)[-1]}"] = partial(_ours, own, work, None, rounds)
    about = {"cohorts": list(all_), "parameters": problem.dim, "chosen": _chosen(problem)}
    return raced(makers, given, "networks") | about


def _chosen(problem: Any) -> str:
    words = [f"route {models.convolution_route()}", f"clients side by side: {problem.clients_at_once}"]
    return ", ".join([*words, f"precision {problem.precision}"] if hasattr(problem, "precision") else words)


def _ours(problem: Any, work: Any, cohort: int | None, rounds: int, route: str = "auto") -> Contestant:
    with models.convolutions(route):
        return Ours("fedavg", problem, hparams("fedavg", problem, work, cohort), rounds).contestant


def torch_rivals(given: Given) -> dict[str, Any]:
    """The same rounds in PyTorch, in a process where JAX keeps off the device."""
    sizes = given.sizes.network
    work = work_of(EMNIST, sizes.clients, sizes)
    problem = problem_of(EMNIST, work)
    start, makers = layers(problem, problem.x0), dict[str, Callable[[], Contestant]]()
    given = given._replace(repeats=min(given.repeats, TORCH_TURNS))

    def contestant(rival: Callable[..., neural_rivals.Rounds], cohort: int | None) -> Contestant:
        rounds = rival(work, gpu_torch.device())
        draws = partial(neural_rivals.draws, work, cohort or sizes.clients, rounds=1)
        return Contestant(1, lambda: rounds(start, draws()))

    for name, rival in gpu_torch.RIVALS.items():
        for words, cohort in cohorts(given).items():
            makers[f"{name} | {words}"] = partial(contestant, rival, cohort)
    return raced(makers, given, "PyTorch") | {"cohorts": list(cohorts(given)), "device": _torch_device()}


def _torch_device() -> str:
    try:
        return gpu_torch.device()
    except ImportError:
        return "none"


def tell_networks(found: Mapping[str, Any]) -> Told:
    """Of ours or of PyTorch's."""
    rows, targets, chosen = [], list[Target](), found.get("chosen")
    for way in dict.fromkeys(name.partition(" | ")[0] for name in found["rows"]):
        cells, verdicts = {}, []
        for words, most in zip(found["cohorts"], MOST_MS.values(), strict=True):
            row = found["rows"].get(f"{way} | {words}")
            target = Target(f"(networks) {words}, ms a round", most, row["ms"]) if row and way == AUTO else None
            targets += [target] if target else []
            cells[f"{words}, ms a round"] = f"{row['ms']:.2f}" if row else "-"
            cells[f"{words}, over chosen"] = _over(found, f"{way} | {words}", f"{AUTO} | {words}")
            verdicts.append(judged(target))
        both = {key: " and ".join(dict.fromkeys(each[key] for each in verdicts)) for key in verdicts[0]}
        rows.append({"network": way, **cells, **both})
    notes = [f"W2, {found['parameters']:,} parameters, float32; by itself: {chosen}"] if chosen else []
    notes += [f"PyTorch runs on {found['device']}, in a process of its own"] if "device" in found else []
    return Told([rows] if rows else [], [*notes, *missing(found)], targets)


def _over(found: Mapping[str, Any], name: str, base: str) -> str:
    both = name in found["rows"] and base in found["rows"]
    return str(ratio(found["rows"], name, base)) if both else "-"

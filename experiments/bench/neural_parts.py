"""Parts (i) to (iii) of `fedjax-lc bench neural`: each is measured in a child process and told by the parent.

A contestant's block is some rounds after the last ones; ours are one compiled scan over them. Both clocks are read: the
wall's, and the processor's, which does not see what else runs. A processor's speed drifts from turn to turn, so ratios
are taken within each turn: their median is judged, their range is shown.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.util
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import harness
from experiments.bench import neural_rivals as rivals
from experiments.bench.harness import Contestant, Ratio, Told, late_notes, ratio, seconds
from experiments.bench.neural_rivals import Layers, Work
from fedjax_lc import algorithms, models, problems
from fedjax_lc.algorithms.frames.local import begin
from fedjax_lc.core import pytree
from fedjax_lc.problems.networks import Neural
from fedjax_lc.running.programs import compile_count, compile_once

OURS, DROPOUT = "FedAvg", "FedAvg, dropout on"
LOOP, LAST, VMAP, FEDJAX = "PyTorch loop", "PyTorch loop, channels last", "torch.func.vmap", "fedjax"
RIVALS: dict[str, tuple[str, Callable[[Work], rivals.Rounds]]] = {
    LOOP: ("torch", rivals.torch_loop),
    LAST: ("torch", functools.partial(rivals.torch_loop, channels_last=True)),
    VMAP: ("torch", rivals.torch_vmap),
    FEDJAX: ("fedjax", rivals.fedjax_rounds),
}
INSTALL = {"torch": "pip install 'fedjax_lc[bench]'", "fedjax": "pip install fedjax"}
SLOWEST, FASTER = 1.1, 1.5  #: the most of ours over the PyTorch loop, the least of fedjax over ours
ALIKE = 1e-4  #: the most by which parameters may differ from ours after the rounds of a block
EMNIST, MNIST = "emnist_cnn", "mnist_cnn"
CLASSES = {EMNIST: 62, MNIST: 10}
LR = 0.03
ROUTE_TURNS = 3


class Sizes(NamedTuple):
    """W2's shape, of the other parts likewise, and how much of it one timed block does."""

    clients: int = 100
    cohort: int = 10
    rows: int = 100
    batch: int = 20
    side: int = 28
    rounds: int = 2
    others: tuple[str, ...] = ("scaffold", "fedadam", "savic")  #: (i), more methods of ours
    small: int = 100  #: (ii), clients
    at_once: tuple[int, ...] = (1, 2, 10)  #: (iii), clients side by side, of `cohort`
    product: int = 8192  #: (ii) on a GPU, side of the matrices whose product stands for its peak

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Sizes:
        """From JSON."""
        known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        return cls(**known)


# --- the work, and ours ---


def work_of(model: str, clients: int, sizes: Sizes) -> Work:
    """Random images and targets."""
    rng, shape = np.random.default_rng(0), (clients, sizes.rows)
    images = rng.random((*shape, sizes.side, sizes.side, 1), dtype=np.float32)
    return Work(images, rng.integers(CLASSES[model], size=shape), sizes.batch, LR)


def problem_of(model: str, work: Work, *, dropout: bool = False, clients_at_once: int | None = None) -> Neural:
    """The network on that work; its L is such that FedAvg's step size is the work's."""
    module: Any = models.get(model, classes=CLASSES[model])
    options: Any = {"smooth": 1 / work.lr, "clients_at_once": clients_at_once}
    clients = list(zip(work.X, work.Y, strict=True))
    if dropout:
        return problems.neural(module, clients, **options)
    params = module.init(jax.random.key(0), work.X[0, :1])["params"]
    evaluating = lambda params, x: module.apply({"params": params}, x)  # in this mode nothing is dropped
    return problems.neural(evaluating, clients, params=params, **options)


def hparams(method: str, problem: Neural, work: Work, cohort: int | None) -> Any:
    """One epoch in batches, theory's step sizes, as arrays."""
    hp = algorithms.get(method).theory(problem)
    hp = dataclasses.replace(hp, batch_size=work.batch, local_epochs=1, cohort_size=cohort)
    return pytree.cast(hp, problem.dtype)


@functools.cache
def program(method: str, rounds: int) -> Callable[..., Any]:
    """(problem, hp, state, key) -> the state after so many rounds; one function each, as programs are kept by it."""
    step = algorithms.get(method).step

    def scan(problem: Neural, hp: Any, state: Any, key: jax.Array) -> Any:
        one = lambda state, t: (step(problem, hp, state, jax.random.fold_in(key, t))[0], None)
        return jax.lax.scan(one, state, jnp.arange(rounds))[0]

    return scan


class Ours:
    """Rounds of a method, compiled; every call of `run` goes on from the state it left."""

    def __init__(self, method: str, problem: Neural, hp: Any, rounds: int) -> None:
        self.key = jax.random.key(0)
        self.problem, self.hp = problem, hp
        self.state = jax.tree.map(jnp.copy, algorithms.get(method).init(problem, hp, self.key))
        arguments = (problem, hp, self.state, self.key)
        self.compiled, self.compile_s = compile_once(program(method, rounds), arguments)
        self.contestant = Contestant(rounds, self.run)

    def run(self) -> None:
        self.state = jax.block_until_ready(self.compiled(self.problem, self.hp, self.state, self.key))


def raced(entries: Mapping[str, Contestant], repeats: int, title: str, progress: bool) -> dict[str, Any]:
    """Per clock and contestant, ms per round of each turn; and how many programs were compiled late."""
    clock, warm = harness.Clock(), compile_count()
    with harness.bar(repeats * len(entries), title, progress) as bar:
        wall = harness.race(entries, repeats, bar.update, clock)
    cpu = {
        name: [1e3 * spent / contestant.rounds for spent in clock.cpu[place :: len(entries)]]
        for place, (name, contestant) in enumerate(entries.items())
    }
    rows = lambda found: {name: {"turns_ms": turns} for name, turns in found.items()}
    return {"wall": rows(wall), "cpu": rows(cpu), "compiled_late": compile_count() - warm}


def _cells(found: Mapping[str, Any], name: str, base: str, title: str) -> dict[str, str]:
    """A contestant's times, and their ratio to those of `base`."""
    medians = {clock: statistics.median(found[clock][name]["turns_ms"]) for clock in ("wall", "cpu")}
    return {
        "wall s": f"{medians['wall'] / 1e3:.4f}",
        "CPU s": f"{medians['cpu'] / 1e3:.4f}",
        f"it / {title}, wall [turns]": str(ratio(found["wall"], name, base)),
        "CPU [turns]": str(ratio(found["cpu"], name, base)),
    }


# --- (i) against others ---


def against(sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    work = work_of(EMNIST, sizes.clients, sizes)
    problem = problem_of(EMNIST, work)
    fedavg = Ours("fedavg", problem, hparams("fedavg", problem, work, sizes.cohort), sizes.rounds)
    others, skipped, gaps = _rivals(work, fedavg, sizes)
    ours = {OURS: fedavg} | {
        algorithms.get(method).title: Ours(method, problem, hparams(method, problem, work, sizes.cohort), sizes.rounds)
        for method in sizes.others
    }
    dropping = problem_of(EMNIST, work, dropout=True)
    ours[DROPOUT] = Ours("fedavg", dropping, hparams("fedavg", dropping, work, sizes.cohort), sizes.rounds)
    entries = {name: each.contestant for name, each in ours.items()} | others
    return {
        **raced(entries, repeats, "(i)", progress),
        "compile_s": {name: each.compile_s for name, each in ours.items()},
        "parameters": problem.dim,
        "skipped": skipped,
        "gaps": gaps,
    }


def _rivals(work: Work, fedavg: Ours, sizes: Sizes) -> tuple[dict[str, Contestant], list[str], dict[str, float]]:
    """Contestants, why others are missing, and by how much parameters differ from ours after the same rounds.

    Raises:
        AssertionError: a rival's parameters are not ours.
    """
    start, picks = layers(fedavg.problem, fedavg.problem.x0), _picks(fedavg, sizes.rounds)
    fedavg.run()
    end = layers(fedavg.problem, fedavg.state.x)
    entries, skipped, gaps = dict[str, Contestant](), list[str](), dict[str, float]()
    for name, (package, make) in RIVALS.items():
        if importlib.util.find_spec(package) is None:
            skipped.append(f"{name} is left out: it needs {package}, {INSTALL[package]}")
            continue
        try:
            rounds = make(work)
            gaps[name] = gap(rounds(start, picks), end)
        except Exception as error:
            if package == "torch":
                raise
            skipped.append(_broken(name, package, error))
            continue
        assert gaps[name] <= ALIKE, f"{name} is no rival: its parameters differ from ours by {gaps[name]:.1e}"
        entries[name] = Contestant(sizes.rounds, functools.partial(_again, rounds, start, work, sizes))
    return entries, skipped, gaps


def _again(rounds: rivals.Rounds, start: Layers, work: Work, sizes: Sizes) -> None:
    rounds(start, rivals.draws(work, sizes.cohort, sizes.rounds))


def _broken(name: str, package: str, error: Exception) -> str:
    versions = f"{package} {importlib.metadata.version(package)} with jax {jax.__version__}"
    reason = (str(error).splitlines() or [""])[0]
    return f"{name} is left out: {versions} fails with {type(error).__name__}: {reason}"


def _picks(ours: Ours, rounds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Who takes part in our first rounds, and the order of their rows."""
    keys = [jax.random.fold_in(ours.key, t) for t in range(rounds)]
    opened = [begin(ours.problem, ours.hp, jnp.int32(t), key) for t, key in enumerate(keys)]
    return [(np.array(round.ids), np.array(round.orders[:, 0])) for round in opened]


def layers(problem: Neural, x: Any) -> Layers:
    """The EMNIST network's, of parameters x (d,)."""
    tree = problem.params(x)
    chosen = (tree[name] for name in ("Conv_0", "Conv_1", "Dense_0", "Dense_1"))
    return [(np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for layer in chosen]


def gap(one: Layers, other: Layers) -> float:
    """The largest difference of two networks' parameters."""
    pairs = [(a, b) for mine, yours in zip(one, other, strict=True) for a, b in zip(mine, yours, strict=True)]
    return max(float(np.max(np.abs(a - b))) for a, b in pairs)


def tell_against(found: Mapping[str, Any]) -> Told:
    rows = [
        {
            "contestant": name,
            **_cells(found, name, OURS, OURS),
            "compile s": f"{found['compile_s'][name]:.1f}" if name in found["compile_s"] else "-",
        }
        for name in found["wall"]
    ]
    gaps = ", ".join(f"{name} {value:.0e}" for name, value in found["gaps"].items())
    notes = [f"{found['parameters']:,} parameters; the first {len(found['compile_s'])} rows are ours"]
    notes += [f"parameters differ from ours after the same rounds by at most: {gaps}"] if gaps else []
    judged = []
    for clock in ("wall", "cpu"):
        if LOOP in found["wall"]:
            judged.append(ratio(found[clock], OURS, LOOP).target(f"(i) ours / {LOOP}, {clock} s", SLOWEST))
        if FEDJAX in found["wall"]:
            judged.append(ratio(found[clock], FEDJAX, OURS).target(f"(i) {FEDJAX} / ours, {clock} s", None, FASTER))
    unsure = [note for _, notes in judged for note in notes]
    return Told(rows, [*notes, *found["skipped"], *late_notes(found), *unsure], [target for target, _ in judged])


# --- (ii) many small clients ---


def small(sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    work = work_of(MNIST, sizes.small, sizes)
    entries, compile_s = dict[str, Contestant](), dict[str, float]()
    for at_once in (sizes.small, 1):
        problem = problem_of(MNIST, work, clients_at_once=at_once)
        ours = Ours("fedavg", problem, hparams("fedavg", problem, work, None), sizes.rounds)
        entries[str(at_once)], compile_s[str(at_once)] = ours.contestant, ours.compile_s
    found = raced(entries, repeats, "(ii)", progress) | {"compile_s": compile_s, "clients": sizes.small}
    found |= {"parameters": problem.dim, "flops": flops(problem, work)}
    on_gpu = jax.default_backend() == "gpu"
    return found | {"peak_gflops": product_gflops(sizes.product) if on_gpu else None}


def flops(problem: Neural, work: Work) -> float:
    """Of a round in which all clients take part, as XLA counts those of one batch's gradient."""
    one = problem.cohort(jnp.arange(1))
    picks, weights = jnp.zeros((1, work.batch), jnp.int32), jnp.ones((1, work.batch), problem.dtype)
    with models.convolutions("native"):
        lowered = jax.jit(type(one).batch_grads).lower(one, picks, weights, one.x0, jax.random.key(0))
    counted: Any = lowered.cost_analysis()
    return float(counted["flops"]) * problem.n * -(-work.Y.shape[1] // work.batch)


def product_gflops(side: int, times: int = 10) -> float:
    """The rate of a product of square matrices, the best of some times."""
    A = jnp.ones((side, side), jnp.float32)
    product = jax.jit(lambda A: A @ A)
    spent = [seconds(lambda: product(A).block_until_ready()) for _ in range(times + 1)]
    return 2 * side**3 / min(spent[1:]) / 1e9


def tell_small(found: Mapping[str, Any]) -> Told:
    rate = lambda name: found["flops"] / statistics.median(found["wall"][name]["turns_ms"]) / 1e6
    base = str(found["clients"])
    rows = [
        {
            "clients side by side": name,
            **_cells(found, name, base, "all"),
            "compile s": f"{found['compile_s'][name]:.1f}",
            "GFLOP/s": f"{rate(name):.1f}",
        }
        for name in found["wall"]
    ]
    notes = [f"the MNIST network, {found['parameters']:,} parameters; {base} clients"]
    if peak := found["peak_gflops"]:
        notes.append(f"all side by side: {100 * rate(base) / peak:.1f}% of the {peak:,.0f} GFLOP/s of a large product")
    return Told(rows, [*notes, *late_notes(found)], [])


# --- (iii) what is chosen by itself ---


def routes(sizes: Sizes, repeats: int, progress: bool) -> dict[str, Any]:
    found = {}
    for model in CLASSES:
        work = work_of(model, sizes.cohort, sizes)
        entries = {
            f"{route}, {at_once}": _routed(model, work, route, at_once)
            for route in ("patches", "native")
            for at_once in sizes.at_once
        }
        chosen = f"{models.convolution_route()}, {problem_of(model, work).clients_at_once}"
        found[model] = raced(entries, min(repeats, ROUTE_TURNS), f"(iii) {model}", progress) | {"chosen": chosen}
    return {"models": found}


def _routed(model: str, work: Work, route: str, at_once: int) -> Contestant:
    """One local step of all clients; the program does not know how many there will be, so its loop stays."""
    problem = problem_of(model, work, clients_at_once=at_once)
    hp = dataclasses.replace(hparams("fedavg", problem, work, None), local_epochs=None, local_steps=jnp.int32(1))
    with models.convolutions(route):
        return Ours("fedavg", problem, hp, 1).contestant


def tell_routes(found: Mapping[str, Any]) -> Told:
    rows, notes = [], []
    for model, own in found["models"].items():
        median = lambda name, own=own: statistics.median(own["cpu"][name]["turns_ms"])
        best = min(own["cpu"], key=median)
        rows += [
            {"network": model, "route, clients side by side": name, **_cells(own, name, best, "best")}
            for name in own["cpu"]
        ]
        notes += [f"{model}: {_choice(own, best)}", *late_notes(own)]
    return Told(rows, [*notes, "one local step of all clients; the best by CPU seconds"], [])


def _choice(own: Mapping[str, Any], best: str) -> str:
    chosen = own["chosen"]
    if chosen not in own["cpu"]:
        return f"best is {best}; chosen by itself, {chosen}, which was not measured"
    over: Ratio = ratio(own["cpu"], chosen, best)
    return f"best is {best}; chosen by itself, {chosen}, CPU {over} of it"

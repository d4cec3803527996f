"""`tune`: configurations race at equal budgets, and only the better ones go on to a larger one."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from jax.sharding import Mesh

from fedjax_lc import algorithms
from fedjax_lc.algorithms import Algorithm
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.files import check_same, replacing
from fedjax_lc.core.lock import locked
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.core.paths import read_json
from fedjax_lc.core.progress import say
from fedjax_lc.problems import Problem
from fedjax_lc.results.columns import METRICS, column, is_accuracy
from fedjax_lc.results.ledger import COSTS
from fedjax_lc.results.storage import is_table
from fedjax_lc.results.table import Table
from fedjax_lc.running import loop
from fedjax_lc.running.options import Options, task
from fedjax_lc.sweeping.grid import Grid, sample
from fedjax_lc.sweeping.start import Start
from fedjax_lc.sweeping.store import STATES
from fedjax_lc.sweeping.sweep import sweep

DRAWS = 27  #: configurations that are drawn by default
STEPS = 100_000  #: of a lane at most, by default: its budget should end it
MOST_RUNGS = 4  #: budgets by default, so that the first is not too small to tell anything


class TuneOptions(TypedDict, total=False):
    """Options of `fl.tune`, explained there."""

    steps: int
    every: int
    rel_gap: float | None
    x0: Any
    measure: Sequence[str] | Mapping[str, loop.Metric]
    rungs: int | None
    sampler: str
    masked: Sequence[str]
    block_size: int | None
    memory: int | None
    devices: Mesh | Sequence[Any] | int | None
    progress: bool
    checkpoint_every: float | str | None
    other_code: bool


def tune(
    method: str | Algorithm,
    problem: Problem,
    space: Any,
    *,
    budget: Mapping[str, float],
    num: int | None = None,
    seed: int = 0,
    halving: float = 3,
    metric: str | None = None,
    seeds: int | Sequence[int] = 1,
    out: str | Path | None = None,
    **options: Unpack[TuneOptions],
) -> Table:
    """Search hyperparameters by successive halving: random search, or a grid, whose laggards are given up early.

    All configurations run until they have spent the first, smallest budget; the best of them, a share 1/halving, go on
    from there to the next one, which is `halving` times larger, and so on up to `budget`. Configurations are lanes, as
    in `fl.sweep`: when one has spent its budget, the next takes its slot, and a program is compiled once, not once for
    each budget. A configuration that goes on is, bit for bit, what it is with the whole budget at once (rungs=1); where
    so few go on that a smaller block repays compiling, to rounding.

    Args:
        method: a name of `fl.algorithms.names()`, or an Algorithm.
        space: name -> axis, from which `num` configurations are drawn around the method's theory, as `fl.sample` does;
            or configurations: `fl.grid(...)`, `fl.sample(...)`, a list of hyperparameters.
        budget: what each configuration may cost at most, as in {"bits_up": 1e7}: bits_up, bits_down, rounds, grads.
        num: how many configurations are drawn; default: 27.
        seed: of the draw. Together with `seeds` it determines all results.
        halving: the ratio of successive budgets, and of the numbers of configurations that have them.
        metric: what is compared, by its median over seeds: a cost to `rel_gap` (by default the first of `budget`), or
            without one the last accuracy, value (of F) or another metric (default: test_accuracy if there is one, else
            value). Where the gap is not yet reached, the last F decides.
        seeds: as in `fl.sweep`; all seeds of a configuration go on or none.
        out: folder of the table, with one of each budget in its rungs/. The same call goes on there.
        rungs: number of budgets, 1 for random search; default: until one configuration is left, at most 4.
        sampler: of a draw: random, sobol, halton or latin.
        options: steps (at most 100,000 by default), every, rel_gap, x0, measure, masked, block_size, memory, devices,
            progress, checkpoint_every and other_code, as in `fl.sweep`.

    Returns:
        The Table of all lanes, those that were given up with the status "dropped" and the records of their smaller
        budget. config["tuning"] says the budgets, how many configurations had each, and what all lanes cost together.

    Raises:
        InputError: an argument cannot be used, or `out` holds something else; raised before any work starts.

    Example:
        >>> space = {"gamma": "theory*loguniform:0.1:10", "p": "loguniform:0.01:0.5", "compressor": "rand_k:3; natural"}
        >>> table = fl.tune("locodl", problem, space, num=81, budget={"bits_up": 1e6}, rel_gap=1e-6)
        >>> table.best("bits_up")
    """
    refuse_unknown("tune", options, TuneOptions)
    algorithm, rungs, sampler = algorithms.get(method), options.pop("rungs", None), options.pop("sampler", "random")
    rel_gap, budget = loop.plain_limits(options.get("rel_gap"), budget)
    options["steps"] = options.get("steps", STEPS)
    if not budget:
        raise InputError("tune needs a budget that all configurations share: give one, as in budget={'bits_up': 1e7}")
    known = task("tune", algorithm, problem, _loop(options)).metrics.names
    metric = _metric(metric, rel_gap, next(iter(budget)), ["value", *map(column, known[1:])])
    if not isinstance(space, Mapping) and num is not None:
        raise InputError("num is for a space to draw from, and the configurations are given: leave it out")
    if isinstance(space, Mapping):
        base = functools.partial(algorithm.theory, problem)
        space = sample(base, DRAWS if num is None else num, method=sampler, seed=seed, **space)
    grid = Grid.of(space)
    race = _Race(len(grid), budget, halving, rungs)
    facts = {"halving": halving, "metric": metric, "budgets": race.budgets}
    with contextlib.ExitStack() as stack:
        if out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedjax_lc-tune-")))
        else:
            folder = Path(out)
            _begin(folder, facts, stack)
        table = race.run(folder / "rungs", metric, algorithm, problem, grid, seeds=seeds, **options)
        if out is not None and not (table.lanes["status"] == "interrupted").any() and not is_table(folder):
            table.save(folder)
    return table


def _loop(options: Mapping[str, Any]) -> Any:
    return {name: options[name] for name in Options.__annotations__ if name in options}


def _metric(metric: str | None, rel_gap: float | None, cost: str, known: Sequence[str]) -> str:
    """What is compared.

    Raises:
        InputError: it is not known, or is a cost and there is no target.
    """
    if metric is None:
        return cost if rel_gap is not None else "test_accuracy" if "test_accuracy" in known else "value"
    if metric in METRICS and rel_gap is None:
        raise InputError(f"metric {metric} is a cost to a target: give rel_gap, or compare by value")
    if metric not in (*METRICS, *known):
        raise unknown("metric", metric, (*METRICS, *known))
    return metric


def _begin(folder: Path, facts: dict[str, Any], stack: contextlib.ExitStack) -> None:
    """Lock the folder until the stack ends, and keep there what determines who goes on.

    Raises:
        InputError: it holds another tune, or another table.
    """
    with contextlib.suppress(InputError) if is_table(folder) else contextlib.nullcontext():
        stack.enter_context(locked(folder))  # one that is done is only read
    path = folder / "tuning.json"
    if path.exists():
        check_same(folder, "tune", read_json(path), facts, "choose another out")
    elif is_table(folder) or (folder / "config.json").exists():
        raise InputError(f"{folder} holds something else than a tune: choose another folder")
    else:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n")


class _Race:
    """The budgets, smallest first, and how many configurations have each."""

    def __init__(self, configurations: int, budget: Mapping[str, float], halving: float, rungs: int | None) -> None:
        if not isinstance(halving, int | float) or not 1 < halving < math.inf:
            raise InputError(f"halving must be a number > 1, got {halving}: for one budget only give rungs=1")
        if rungs is not None and (isinstance(rungs, bool) or not isinstance(rungs, int) or rungs < 1):
            raise InputError(f"rungs must be a whole number >= 1, got {rungs}")
        levels = min(MOST_RUNGS, 1 + int(math.log(configurations, halving) + 1e-9)) if rungs is None else rungs
        shares = [halving ** (rung + 1 - levels) for rung in range(levels)]
        self.budgets = [{name: share * limit for name, limit in budget.items()} for share in shares]
        self.counts = [max(1, int(configurations / halving**rung + 1e-9)) for rung in range(levels)]

    def run(
        self,
        folder: Path,
        metric: str,
        algorithm: Algorithm,
        problem: Problem,
        grid: Grid,
        **options: Any,
    ) -> Table:
        """The table of all lanes; `folder` holds those of the budgets."""
        tell = say if options.get("progress", True) else (lambda line: None)
        whole: Table | None = None
        start: Start | None = None
        for rung, (budget, count) in enumerate(zip(self.budgets, self.counts, strict=True)):
            words = ", ".join(f"{name} {limit:.3g}" for name, limit in budget.items())
            tell(f"budget {rung + 1} of {len(self.budgets)} ({words}): {count} configurations")
            here = folder / str(rung)
            table = sweep(algorithm, problem, grid, budget=budget, out=here, start=start, rung=True, **options)
            whole = table if whole is None else _entered(whole, table)
            ahead = self._ahead(whole, metric, rung) if _done(table) else None
            if ahead is None:
                break
            whole, lanes = ahead
            if rung:
                _forget(folder / str(rung - 1))
            if not lanes:  # all that would go on have arrived
                break
            rows = lanes if start is None else [start.lanes.index(lane) for lane in lanes]
            begun = is_table(folder / str(rung + 1))
            start = Start.of(table, here, rows, grows="budget", states=not begun)
        assert whole is not None
        if _done(whole):
            for rung in range(len(self.budgets)):
                _forget(folder / str(rung))
        return self._told(whole, metric)

    def _ahead(self, whole: Table, metric: str, rung: int) -> tuple[Table, list[int]] | None:
        """The table with those given up that do not go on to the next budget, and the lanes that do; None after the
        last budget."""
        if rung + 1 == len(self.budgets):
            return None
        chosen = np.isin(whole.lanes["config"], _ranked(whole, metric)[: self.counts[rung + 1]])
        made = whole.records.groupby("lane")["step"].last().reindex(whole.lanes.index, fill_value=0)
        spent = ((whole.lanes["status"] == "finished") & (made < whole.config["steps"])).to_numpy()
        lanes = whole.lanes.copy()
        lanes.loc[spent & ~chosen, "status"] = "dropped"
        return Table(lanes, whole.records, whole.config), np.flatnonzero(spent & chosen).tolist()

    def _told(self, table: Table, metric: str) -> Table:
        """The table with what the tune did in its config."""
        last = table.records.groupby("lane")[list(COSTS)].last()
        facts = {
            "metric": metric,
            "budgets": self.budgets,
            "configurations": self.counts,
            "spent": {name: float(last[name].sum()) for name in COSTS},
        }
        of_rung = ("identity", "blocks", "extended")
        config = {name: fact for name, fact in table.config.items() if name not in of_rung}
        return Table(table.lanes, table.records, config | {"budget": self.budgets[-1], "tuning": facts})


def _done(table: Table) -> bool:
    return not (table.lanes["status"] == "interrupted").any()


def _forget(folder: Path) -> None:
    """Remove the last states of a budget's lanes, from which no more go on."""
    for path in folder.glob(f"{STATES}-*.safetensors"):
        path.unlink(missing_ok=True)


def _entered(whole: Table, part: Table) -> Table:
    """The table of all lanes with the results of those that went on."""
    import pandas as pd

    numbers = np.array(part.config["extended"]["lanes"])
    lanes = pd.concat([whole.lanes.drop(index=numbers), part.lanes.set_axis(numbers)]).sort_index()
    before = whole.records[~whole.records["lane"].isin(numbers)]
    records = pd.concat([before, part.records.assign(lane=numbers[part.records["lane"]])])
    return Table(lanes, records.sort_values(["lane", "step"], kind="stable"), whole.config)


def _ranked(table: Table, metric: str) -> np.ndarray:
    """The numbers of configurations that were not given up, best first."""
    best = table.best(metric, by="config")
    cost = best["median"].to_numpy() * (-1 if is_accuracy(metric) else 1)
    last = table.records.groupby("lane")["value"].last().reindex(table.lanes.index).to_numpy(copy=True)
    out = table.lanes["status"].isin(("diverged", "dropped")).to_numpy()
    last[out | np.isnan(last)] = np.inf
    ends = np.array([np.median(last[table.lanes["config"] == config]) for config in best["config"]])
    return best["config"].to_numpy()[np.lexsort((best["config"], np.where(np.isfinite(cost), 0.0, ends), cost))]

"""`fedjax-lc tune`: random or grid search for one method or several, whose laggards are given up early."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Self

from fedjax_lc.cli import sweep
from fedjax_lc.cli.config import SweepConfig
from fedjax_lc.cli.options import Option
from fedjax_lc.core.errors import InputError

EPILOG = """\
A --grid is as of fedjax-lc sweep; uniform:LO:HI and loguniform:LO:HI are ranges to draw from.
All configurations have the first, smallest budget; the best third (--halving 3) goes on to three
times as much, and so on to --budget. What is best is decided by the cost to --rel-gap, or without
one by the last accuracy or F (--metric).

Example:
  fedjax-lc tune locodl diana --grid 'gamma=theory*loguniform:0.1:10' --grid 'locodl.p=loguniform:0.01:0.5' \\
      --grid 'compressor=rand_k:3|natural; natural' --sample 81 --budget bits_up=1e6 --rel-gap 1e-6 --out tuned"""
#: options of a sweep, not of a tune
NO_OPTIONS = ("track", "shard", "engine", "address", "workers", "cpus_per_task", "gpus_per_task")
STEPS = (100_000, 1_000)  #: of a lane at most by default: convex problems, networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneConfig(SweepConfig):
    """What `fedjax-lc tune` is asked for: a sweep on this machine, and a race."""

    sample: Annotated[
        int | None,
        Option(
            "draw this many configurations (default: 27 where an axis is a range, else all points)",
            "grid", metavar="NUM", within="whole [1, inf)",
        ),
    ] = None  # fmt: skip
    halving: Annotated[
        float, Option("ratio of successive budgets, and of the configurations that have them", within="(1, inf)")
    ] = 3.0
    rungs: Annotated[
        int | None,
        Option("number of budgets; 1: no race (default: 4, or fewer where one is left)", within="whole [1, inf)"),
    ] = None
    metric: Annotated[
        str | None,
        Option("what is best: bits_up, rounds, ... to --rel-gap; test_accuracy, value, ... at the budget"),
    ] = None
    steps: Annotated[
        int | None,
        Option("steps at most (default: 100,000; of a network 1,000)", within="whole [1, 4294967295]"),
    ] = None
    budget: Annotated[
        dict[str, Any],
        Option("what a lane may cost: bits_up, bits_down, rounds or grads; may be repeated", metavar="COST=LIMIT"),
    ] = dataclasses.field(default_factory=dict)
    track: list[str] = dataclasses.field(default_factory=list)  # NO_OPTIONS
    shard: str | None = None
    engine: str = "local"
    address: str = "auto"
    workers: int | None = None
    cpus_per_task: float = 1.0
    gpus_per_task: float = 0.0

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """As of a sweep; drawn if an axis is a range."""
        from fedjax_lc.sweeping.tune import DRAWS

        config = super().of(options)
        if not config.budget:
            raise InputError("tune needs a budget that all configurations share: add --budget, as in bits_up=1e7")
        drawn = config.sample is None and any("uniform:" in str(axis) for axis in config.grid.values())
        return dataclasses.replace(config, sample=DRAWS) if drawn else config

    def filled(self) -> Self:
        steps = STEPS[self.model is not None] if self.steps is None else self.steps
        return dataclasses.replace(super().filled(), steps=steps)

    def loop(self) -> dict[str, Any]:
        return {name: option for name, option in super().loop().items() if name not in NO_OPTIONS}

    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in super().settings().items() if name not in NO_OPTIONS}


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    sweep.add_of_methods(
        commands,
        "tune",
        TuneConfig,
        _tune,
        help="search hyperparameters at an equal budget, laggards given up early",
        description="Draw configurations (or take all points of a grid), and let the better ones go on to larger and "
        "larger budgets, side by side in one compiled program; then compare the methods' best.",
        epilog=EPILOG,
    )


def _tune(options: argparse.Namespace) -> int:
    from fedjax_lc.running import cache

    config = TuneConfig.of(options)
    tables = sweep.each_method(config, "tune", _one)
    if tables is None:
        return 130
    print(cache.summary())
    for table in tables:
        print(_race(table))
    metric = tables[0].config["tuning"]["metric"]
    sweep.show(sweep.joined(tables), config.rel_gap, config.out, metric)
    if not config.quiet:
        print(sweep.whats_next(config.out, tables, "tune"))
    return 0


def _one(config: TuneConfig, algorithm: Any, problem: Any, grid: Any, options: dict[str, Any]) -> Any:
    """One method's table."""
    from fedjax_lc.sweeping.tune import tune

    return tune(
        algorithm, problem, grid, budget=config.budget, halving=config.halving, rungs=config.rungs,
        metric=config.metric, **options,
    )  # fmt: skip


def _race(table: Any) -> str:
    """How many configurations had each budget, and what all of them cost together."""
    facts = table.config["tuning"]
    cost, limit = next(iter(facts["budgets"][-1].items()))
    counts = ", then ".join(map(str, facts["configurations"]))
    alone = facts["configurations"][0] * len(table.config["seeds"]) * limit
    return (f"{next(iter(table.config['methods']))}: {counts} configurations; all lanes together cost "
            f"{facts['spent'][cost]:.3g} {cost}, of {alone:.3g} without a race")  # fmt: skip

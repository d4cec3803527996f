"""Trainings of networks: each method at its best setting of equal budget, then several seeds of all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.kit.claim import Measured, Statistics, check
from experiments.kit.contender import Contender
from experiments.kit.recipe import Recipe, plain
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.problems import Problem
from fedjax_lc.results.table import Table
from fedjax_lc.results.trace import Trace
from fedjax_lc.sweeping.grid import Grid, grid
from fedjax_lc.sweeping.sweep import sweep

#: what is told of the last record: its words, and whether more of it is better
TOLD = {"accuracy": ("accuracy", True), "value": ("train loss", False), "test_loss": ("test loss", False)}
PANELS = {"accuracy": "accuracy on the test set", "value": "train loss"}
BITS = "bits to the accuracy"
ACROSS = {"rounds": "communication rounds", "bits": "bits per client, up + down"}


class Done(NamedTuple):
    """What was tried of each curve, and the tables of the winners."""

    tried: dict[str, dict[str, Any]]
    tables: dict[str, Table]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Recipe):
    """Methods that train one network for `rounds` rounds, recorded every `every`.

    Runs with something to tune try all of it for `tune_rounds` rounds on one seed that is used for nothing else; the
    best has the least `criterion` (value: train loss; test_loss) or the most (accuracy) at the end, and what diverges
    loses. While the best is the least or largest of several numbers, not all whole, the next one beyond it is tried
    too, at most `extensions` times. The winners run with `seeds` other seeds, lanes side by side. Seeds draw cohorts,
    batches and messages; split and initial parameters are those of the problem.

    paper_is: the head of the column of published accuracies. block_size: lanes side by side, as in `fl.sweep`.
    reach: an accuracy; claims can be about BITS, those of a client until the first record there. note: more small print
    of the picture.

    Raises:
        InputError: an unknown criterion or series, a claim about no curve, two curves of one label, or no seed.

    Example:
        >>> curves = (Contender("fedavg", changes={"batch_size": 20}, tune={"client_lr": [0.03, 0.1]}),)
        >>> recipe = Training(title="digits", problem=make, curves=curves, rounds=50, every=5, tune_rounds=20)
        >>> recipe.make(Path("out"), "digits")
    """

    rounds: int
    every: int
    seeds: int = 3
    tune_rounds: int = 0
    extensions: int = 4
    criterion: str = "value"
    claims_are: str = "ordering"
    paper_is: str = "paper"
    block_size: int | None = None
    reach: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        for series in (self.criterion, *(claim.statistic for claim in self.claims if claim.statistic)):
            if series not in TOLD and (series != BITS or self.reach is None or series == self.criterion):
                raise unknown("series", series, TOLD)
        check(self.curves, self.claims)
        if self.seeds < 1:
            raise InputError(f"a training needs one seed or more, got seeds={self.seeds}")
        if any(run.tune for run in self.curves) and self.tune_rounds < 1:
            raise InputError("runs with something to tune need tune_rounds, 1 or more")

    # --- running ---

    def measure(self, problem: Problem, progress: bool = True, parts: Path | None = None) -> Done:
        tried = {run.label: self.tune(run, problem, progress) for run in self.curves}
        best = {label: found["settings"] for label, found in tried.items()}
        return Done(tried, {run.label: self.train(run, problem, best[run.label], progress) for run in self.curves})

    def tune(self, run: Contender, problem: Problem, progress: bool = True) -> dict[str, Any]:
        """`settings` of the best; how many were tried, how many of them diverged, and which settings of the best lie at
        an end of what was tried."""
        axes = {name: list(values) for name, values in run.tune.items()}
        new = run.grid(problem)
        if len(new) == 1:
            only = {name: values[0] for name, values in axes.items()}
            return {"tried": 1, "diverged": 0, "settings": only, "ends": []}
        settings, scores = list[Mapping[str, Any]](), list[float]()
        for _ in range(1 + self.extensions):
            settings, scores = settings + list(new.settings), scores + self._scores(run, problem, new, progress)
            best = settings[int(np.argmin(scores))]
            ends = [name for name, values in axes.items() if _at_an_end(best[name], values)]
            further = ((name, _beyond(best[name], axes[name])) for name in ends)
            name, value = next(((name, value) for name, value in further if value), ("", None))
            if value is None:
                break
            new = grid(run.hparams(problem), **{**axes, name: [value]})
            axes[name].append(value)
        diverged = scores.count(math.inf)
        return {"tried": len(settings), "diverged": diverged, "settings": dict(best), "ends": ends}

    def _scores(self, run: Contender, problem: Problem, tried: Grid, progress: bool) -> list[float]:
        """The criterion at the end of every configuration, the less the better; inf of what diverged."""
        table = self._sweep(run, problem, tried, [self.seeds], self.tune_rounds, self.tune_rounds, progress)
        last = table.records.groupby("lane").last()[self.criterion]
        ended = last[(table.lanes["status"] != "diverged").loc[last.index]]
        sign = -1 if TOLD[self.criterion][1] else 1
        return (sign * ended).reindex(range(len(tried))).fillna(math.inf).tolist()

    def train(self, run: Contender, problem: Problem, settings: Mapping[str, Any], progress: bool = True) -> Table:
        """All seeds of one curve."""
        hp = grid(run.hparams(problem), **{name: [value] for name, value in settings.items()}).hparams[0]
        return self._sweep(run, problem, hp, range(self.seeds), self.rounds, self.every, progress)

    def _sweep(
        self,
        run: Contender,
        problem: Problem,
        hparams: Any,
        seeds: Sequence[int],
        steps: int,
        every: int,
        progress: bool,
    ) -> Table:
        table = sweep(
            run.method,
            problem,
            hparams,
            seeds=seeds,
            steps=steps,
            every=every,
            block_size=self.block_size,
            progress=progress,
        )
        if (table.lanes["status"] == "interrupted").any():
            raise KeyboardInterrupt  # half a figure must not replace a whole one
        return table

    # --- telling ---

    def facts(self, problem: Problem, done: Done) -> dict[str, Any]:
        return {
            "clients": problem.n,
            "dim": problem.dim,
            "rounds": self.rounds,
            "every": self.every,
            "seeds": self.seeds,
            "tune_rounds": self.tune_rounds,
            "criterion": self.criterion,
            "paper_is": self.paper_is,
            "said": self.remarks(),
            "runs": {run.label: self._ended(run, done.tried[run.label], done.tables[run.label]) for run in self.curves},
        }

    def statistics(self, facts: Mapping[str, Any], done: Any = None) -> Statistics:
        """Accuracy and losses, and bits to an accuracy."""
        signs = {name: -1 if more else 1 for name, (_, more) in TOLD.items()}
        signs |= {} if self.reach is None else {BITS: 1}
        return {
            name: {label: Measured.of(ended.get(name), sign) for label, ended in facts["runs"].items()}
            for name, sign in signs.items()
        }

    def _ended(self, run: Contender, tried: Mapping[str, Any], table: Table) -> dict[str, Any]:
        last = table.records.groupby("lane").last()
        diverged = int((table.lanes["status"] == "diverged").sum())
        own = table.config["methods"][run.method]["hyperparameters"]
        means = {name: mean_and_error(last[name]) if name in last and not diverged else None for name in TOLD}
        return {
            "method": run.method,
            "hyperparameters": {name: plain(table.lanes[name].iloc[0]) for name in own},
            "tuning": {name: tried[name] for name in ("tried", "diverged", "settings", "ends")},
            **means,
            **({} if self.reach is None else {BITS: mean_and_error(bits_to(table, self.reach))}),
            "paper": run.paper,
            "diverged": diverged,
            **{name: float(last[name].mean()) if len(last) else None for name in ("bits_up", "bits_down", "grads")},
            "seconds": float(table.lanes["seconds"].mean()),
        }

    def traces(self, facts: Mapping[str, Any], done: Done) -> dict[str, list[Trace]]:
        return {label: table.traces(0) for label, table in done.tables.items()}

    def pictures(self, facts: Mapping[str, Any], done: Done) -> dict[str, Any]:
        """Accuracy (where it is measured) and train loss, against rounds and against bits both ways."""
        from fedjax_lc.plot.style import new_figure, scale_ticks, write, write_legend

        tables = done.tables
        rows = [name for name in PANELS if all(name in table.records for table in tables.values())]
        figure = new_figure(10, 3.5 * len(rows) + 0.12 * len(tables) + 0.4)
        panels = figure.subplots(len(rows), 2, squeeze=False)
        for name, pair in zip(rows, panels, strict=True):
            for axes, (x, x_words) in zip(pair, ACROSS.items(), strict=True):
                for place, table in enumerate(tables.values()):
                    _draw(axes, curve(table, x, name), place)
                axes.set(xscale="log" if x == "bits" else "linear", yscale="log" if name == "value" else "linear")
                scale_ticks(axes.xaxis, *axes.get_xlim())
                scale_ticks(axes.yaxis, *axes.get_ylim())
                axes.grid(True, color="0.9", linewidth=0.7)
                write(axes, x_words, PANELS[name], "", "")
        spread = f"mean of {self.seeds} seeds and its standard error" if self.seeds > 1 else "one seed"
        first, y_words = panels[0, 0], PANELS[rows[0]]
        note = "\n".join(filter(None, [f"{_facts_line(facts)}; {spread}", self.note]))
        write(first, ACROSS["rounds"], y_words, self.title, note)
        write_legend(figure, first.get_legend_handles_labels()[0], list(tables))
        return {"": figure}

    def body(self, facts: Mapping[str, Any], done: Any = None) -> list[Any]:
        caption = " ".join(filter(None, [self._caption(facts), facts["said"]]))
        return [caption, [_row(label, ended, facts) for label, ended in facts["runs"].items()], self.held(facts)]

    def _caption(self, facts: Mapping[str, Any]) -> str:
        seeds = f"Mean of {self.seeds} seeds and its standard error" if self.seeds > 1 else "One seed"
        tried = sorted({found["tuning"]["tried"] for found in facts["runs"].values()})
        text = f"{_facts_line(facts)}. {seeds} after {self.rounds} rounds. Bits are per client."
        text += "" if self.reach is None else f" The accuracy to be reached is {100 * self.reach:g} %."
        if tried[-1] > 1:
            text += (
                f" Settings were chosen by {TOLD[self.criterion][0]} after {self.tune_rounds} rounds of another seed, "
                f"{' or '.join(map(str, tried))} of them for each curve, more where the best was at an end; * marks "
                "one that still is."
            )
        if held := facts["claims"]:
            text += (
                f" {len(held)} orderings are told below; undecided: the difference is within two standard errors."
                if self.seeds > 1
                else " Orderings are those of one seed."
            )
        return text


def mean_and_error(values: Any) -> dict[str, float | None] | None:
    """Mean over seeds and its standard error, None of one seed; None where a value is not finite."""
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        return None
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(values.mean()), "error": error}


def curve(table: Table, x: str, y: str) -> np.ndarray:
    """(4, records) of a table of seeds: x (rounds, or bits both ways), mean of y, and mean less and plus a standard
    error; as far as all seeds have records."""
    records = table.records.assign(bits=table.records["bits_up"] + table.records["bits_down"])
    by_step = records.groupby("step")
    full = by_step["lane"].count() == len(table)
    mean, count = by_step[y].mean()[full].to_numpy(), len(table)
    error = by_step[y].std()[full].to_numpy() / math.sqrt(count) if count > 1 else np.zeros(len(mean))
    return np.array([by_step[x].mean()[full].to_numpy(), mean, mean - error, mean + error])


def bits_to(table: Table, accuracy: float) -> np.ndarray:
    """(lanes,) bits both ways to the first record with at least that accuracy; inf where there is none."""
    hits = table.records[table.records["accuracy"] >= accuracy].groupby("lane").first()
    return (hits["bits_up"] + hits["bits_down"]).reindex(range(len(table))).fillna(math.inf).to_numpy()


def _draw(axes: Any, found: np.ndarray, place: int) -> None:
    from fedjax_lc.plot.style import COLOURS, look

    x, mean, low, high = found
    axes.fill_between(x, low, high, color=COLOURS[place % len(COLOURS)], alpha=0.2, linewidth=0)
    (line,) = axes.plot(x, mean, label=str(place), **look(place))
    line.set_markevery(max(1, len(x) // 8))


def _at_an_end(value: Any, values: Sequence[Any]) -> bool:
    """Whether a number is the least or the largest of several tried."""
    numbers = [v for v in values if isinstance(v, int | float)]
    return len(values) > 1 and len(numbers) == len(values) and value in (min(numbers), max(numbers))


def _beyond(value: float, values: Sequence[float]) -> float | None:
    """What to try beyond an end, as far from it as the next one is, in ratio; None of whole numbers, or of zero."""
    if min(values) <= 0 or all(isinstance(v, int) for v in values):
        return None
    numbers = sorted(values)
    near = numbers[1] if value == numbers[0] else numbers[-2]
    return float(f"{value * value / near:.2g}")


def _row(label: str, found: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    tuning, everyone = found["tuning"], facts["runs"].values()
    row = {"method": label}
    if any(other["tuning"]["tried"] > 1 for other in everyone):
        chosen = (
            f"{name} {_short(value)}{'*' * (name in tuning['ends'])}" for name, value in tuning["settings"].items()
        )
        row["chosen"] = ", ".join(chosen) or "-"
    if any(other["accuracy"] for other in everyone):
        row["accuracy %"] = _plus_minus(found["accuracy"], 100, 2)
    if any(other["paper"] for other in everyone):
        row[facts["paper_is"]] = found["paper"] or "-"
    row |= {"train loss": _plus_minus(found["value"], 1, 4)}
    if any(other["test_loss"] for other in everyone):
        row["test loss"] = _plus_minus(found["test_loss"], 1, 4)
    if BITS in found:
        row[BITS] = "-" if found[BITS] is None else f"{found[BITS]['mean']:.3g}"
    for name in ("bits_up", "bits_down"):
        row[name.replace("_", " ")] = "-" if found[name] is None else f"{found[name]:.3g}"
    return row | {"seconds": f"{found['seconds']:.0f}"}


def _plus_minus(found: Mapping[str, float] | None, times: float, digits: int) -> str:
    if found is None:
        return "diverged"
    error = "" if found["error"] is None else f" ± {times * found['error']:.{digits}f}"
    return f"{times * found['mean']:.{digits}f}{error}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _facts_line(facts: Mapping[str, Any]) -> str:
    return f"n = {facts['clients']} clients, d = {facts['dim']:,} parameters"

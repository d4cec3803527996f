"""`extend`: more steps of a run that is done, or of chosen lanes of a sweep that is done."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

from jax.sharding import Mesh

from fedjax_lc import algorithms
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.options import refuse_unknown
from fedjax_lc.core.progress import say
from fedjax_lc.problems import Problem
from fedjax_lc.results.storage import is_table
from fedjax_lc.results.table import Table
from fedjax_lc.results.trace import Trace
from fedjax_lc.running import extend as runs
from fedjax_lc.running import loop
from fedjax_lc.sweeping.start import Start
from fedjax_lc.sweeping.store import read_config
from fedjax_lc.sweeping.sweep import sweep

#: entries of a sweep's identity that are taken from there
KINDS: dict[str, Any] = {"method": str, "steps": int, "every": int, "rel_gap": float | int | None, "budget": dict,
                         "seeds": list, "masked": list, "metrics": list}  # fmt: skip


class ExtendOptions(TypedDict, total=False):
    """Options of `fl.extend`, explained there."""

    problem: Problem | None
    hp: Any
    x0: Any
    measure: Sequence[str] | Mapping[str, loop.Metric] | None
    on_chunk: Callable[[Trace], Any] | None
    progress: bool
    checkpoint_every: float | str | None
    other_code: bool
    devices: Mesh | None


@overload
def extend(out: str | Path, steps: int, *, lanes: None = None, **options: Unpack[ExtendOptions]) -> Trace: ...
@overload
def extend(
    out: str | Path,
    steps: int,
    *,
    lanes: Sequence[int],
    into: str | Path | None = None,
    **options: Unpack[ExtendOptions],
) -> Table: ...
def extend(
    out: str | Path,
    steps: int,
    *,
    lanes: Sequence[int] | None = None,
    into: str | Path | None = None,
    **options: Unpack[ExtendOptions],
) -> Trace | Table:
    """Continue a run that is done, or chosen lanes of a sweep that is done, by more steps.

    The trace of a run is, bit for bit, that of one run of the total length. Lanes of a sweep go on in blocks of the
    same size, and are bit for bit those of a sweep of the total length with that block_size. Where so few lanes of a
    large block go on that a smaller one repays compiling it, they are those lanes to rounding.

    What the folder cannot make again must be given as it was given to `fl.run` or `fl.sweep`; anything else than that
    is refused. An extension that was interrupted goes on when the same call is made again.

    Args:
        out: the folder of `fl.run(..., out=...)`, of `fl.sweep(..., out=...)`, or of the command line's --out.
        steps: how many more, cut to a multiple of `every`.
        lanes: of a sweep: the numbers of the lanes that go on, each of which made all of its steps; of a table of
            lanes that went on before, the numbers of its rows.
        into: of a sweep: the folder of the longer lanes' table; default: extended-TOTAL in `out`. What `out` holds
            stays as it is.
        problem: that of the run or sweep. Of a run it may be left out where `fl.problem` made it from the name of a
            data set (or a file) and plain options, or the command line did.
        hp: the hyperparameters of the run, or `hparams` of the sweep. Those of a run may be left out if they consist of
            numbers, words and compressors; those of a sweep if they are the theory's.
        x0: the start, if one was given.
        measure: further metrics, if one of them is a function.
        on_chunk: as in `fl.run`; not for lanes.
        progress, checkpoint_every, other_code, devices: as in `fl.run` and `fl.sweep`.

    Returns:
        The Trace of the run, or the Table of the chosen lanes in the order of their numbers, from row 0 on; its
        config["extended"] has those numbers, which are those of the first sweep.

    Raises:
        InputError: the run or sweep was not finished; it or one of the lanes ended before its last step (it reached its
            target, spent its budget or diverged); an argument is missing, or is not that of the run or sweep.

    Example:
        >>> fl.run("diana", fl.problem("a9a", clients=20), steps=10_000, out="runs/a")
        >>> trace = fl.extend("runs/a", steps=10_000)
        >>> table = fl.sweep("diana", problem, grid, seeds=8, steps=10_000, out="sweeps/a")
        >>> longer = fl.extend("sweeps/a", steps=10_000, lanes=[3, 17], problem=problem, hp=grid)
    """
    refuse_unknown("extend", options, ExtendOptions)
    path = Path(out)
    swept = is_table(path)
    if swept and lanes is None:
        raise InputError(f"{path} holds a sweep: say which of its lanes go on, by lanes= (--lanes or --best)")
    if not swept and (lanes is not None or into is not None):
        raise InputError(f"{path} holds no sweep that is done: lanes and into are for the out of one")
    if lanes is None:
        return runs.extend(out, steps, **options)
    return _lanes(path, steps, lanes, into, **options)


def _lanes(
    path: Path,
    steps: int,
    lanes: Sequence[int],
    into: str | Path | None,
    *,
    problem: Problem | None = None,
    hp: Any = None,
    x0: Any = None,
    measure: Sequence[str] | Mapping[str, loop.Metric] | None = None,
    on_chunk: Callable[[Trace], Any] | None = None,
    **options: Any,
) -> Table:
    """The table of lanes that go on."""
    if on_chunk is not None:
        raise InputError("on_chunk is for a run: lanes of a sweep have none")
    if problem is None:
        raise InputError(f"{path} does not say how its problem was made: give problem=")
    start = _start(path, lanes)
    facts = start.identity
    if measure is None:
        measure = runs.metrics(path, facts["metrics"], algorithms.get(facts["method"]), problem)
    same = {name: facts[name] for name in ("every", "rel_gap", "budget", "seeds", "masked")}
    records, every, notes = loop.whole_records(steps, facts["every"])
    for note in notes:
        say(f"note: {note}")
    total = start.steps + records * every
    out = path / f"extended-{total}" if into is None else into
    return sweep(facts["method"], problem, hp, out=out, steps=total, x0=x0, measure=measure, start=start,
                 **same, **options)  # fmt: skip


def _start(path: Path, lanes: Sequence[int]) -> Start:
    """The lanes of a finished sweep's folder, with their last states.

    Raises:
        InputError: there is no such lane, or one cannot go on.
    """
    table = Table.load(path)
    identity, *_ = read_config(path)
    if not all(isinstance(identity.get(name, ...), kind) for name, kind in KINDS.items()):
        raise InputError(f"{path}/config.json is damaged: restore it, or sweep anew elsewhere")
    try:
        numbers = tuple(sorted({operator.index(lane) for lane in lanes}))
    except TypeError:
        raise InputError(f"lanes must be a list of lanes' numbers, got {lanes!r:.80}") from None
    if not numbers or numbers[0] < 0 or numbers[-1] >= len(table):
        raise InputError(f"lanes must be some of 0 to {len(table) - 1}, got {', '.join(map(str, numbers)) or 'none'}")
    status = table.lanes["status"].to_numpy()
    made = table.records.groupby("lane")["step"].last().reindex(table.lanes.index, fill_value=0).to_numpy()
    for lane in numbers:
        why = {"target": "reached its target", "diverged": "diverged"}.get(status[lane], "spent its budget")
        if status[lane] != "finished" or made[lane] < identity["steps"]:
            raise InputError(
                f"lane {lane} of {path} {why} at step {made[lane]}: with more steps it would end there too"
            )
    return Start.of(table, path, numbers)

"""The three files of a table (lanes, records, config), and merging the contents of several tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import replacing
from fedjax_lc.core.paths import read_json
from fedjax_lc.results.columns import HEAD, STATUSES, TAIL

if TYPE_CHECKING:
    import pandas as pd

Parts: TypeAlias = "tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]"  #: lanes, records, config


def write(folder: Path, table: Parts, names: Sequence[str]) -> None:
    """Write config.json, records.parquet and, last, lanes.parquet, each under a temporary name that is then renamed.

    An earlier lanes.parquet is removed first, so that a folder with lanes.parquet holds a complete table. `names` are
    the columns of lanes that may mix numbers with None or words.
    """
    lanes, records, config = table
    objects = [name for name in names if lanes[name].dtype == object]
    lanes = lanes.assign(**{name: list(map(json.dumps, lanes[name])) for name in objects})
    with replacing(folder / "config.json") as path:
        (folder / "lanes.parquet").unlink(missing_ok=True)
        path.write_text(json.dumps(config | {"objects": objects}, indent=2) + "\n")
    for name, frame in (("records", records), ("lanes", lanes)):
        with replacing(folder / f"{name}.parquet") as path:
            frame.to_parquet(path, index=False)


def is_table(folder: Path) -> bool:
    """Whether the folder holds a complete table."""
    return (folder / "lanes.parquet").exists()


def tables_in(folder: Path) -> list[Path]:
    """The direct subfolders that hold complete tables, in name order.

    Raises:
        InputError: there are none.
    """
    folders = sorted(path for path in folder.glob("*") if is_table(path))
    if not folders:
        raise InputError(f"{folder} and its subfolders hold no table: expected lanes.parquet as Table.save writes it")
    return folders


def read(folder: Path) -> Parts:
    """Read a table that `write` wrote.

    Raises:
        InputError: a file is missing or damaged.
    """
    import pandas as pd

    try:
        config = read_json(folder / "config.json")
        lanes, records = (pd.read_parquet(folder / f"{name}.parquet") for name in ("lanes", "records"))
        for name in config.pop("objects"):
            lanes[name] = pd.Series([json.loads(cell) for cell in lanes[name]], dtype=object)
        _check(lanes, records, config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(folder, error) from None
    return lanes, records, config


def _check(lanes: pd.DataFrame, records: pd.DataFrame, config: dict[str, Any]) -> None:
    """Raise TypeError where a value has a kind that `write` never writes: anyone may have edited the files."""
    gap, merged = config.get("rel_gap"), [facts.get("merged", []) for facts in config["methods"].values()]
    fit = gap is None or (_is_number(gap) and gap > 0)
    problem = config.get("problem", {})
    fit &= isinstance(problem, dict) and problem.get("dtype", "float64") in ("float32", "float64")
    fit &= config.get("steps") is None or _is_number(config["steps"])
    fit &= all(isinstance(each, list) for each in merged)
    for facts in config["methods"].values():
        named = [*facts["settings"], *facts["hyperparameters"]]
        fit &= isinstance(facts["settings"], list) and isinstance(facts["hyperparameters"], list)
        fit &= all(isinstance(name, str) and name in lanes for name in named)
        for labels in facts["axes"].values():
            fit &= isinstance(labels, list) and all(isinstance(label, str | int | float) for label in labels)
    numeric = [*(lanes[name] for name in (*HEAD[1:], *TAIL[1:])), *(records[name] for name in records)]
    fit &= all(column.dtype.kind in "iufb" for column in numeric) and set(lanes["status"]) <= {*STATUSES}
    if not (fit and all(isinstance(method, str) for method in lanes["method"])):
        raise TypeError


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def damaged(folder: Path, error: Exception) -> InputError:
    """The error for a table that cannot be read."""
    return InputError(f"the table in {folder} is damaged ({type(error).__name__}): sweep again, or restore its "
                      "config.json, lanes.parquet and records.parquet")  # fmt: skip


def joined(tables: Sequence[Parts]) -> Parts:
    """The contents of several tables as one: lanes renumbered, configurations of a method numbered on, one config."""
    import pandas as pd

    lanes, records, first, highest = [], [], 0, pd.Series(dtype=np.int64)
    for rows, series, _ in tables:
        offset = rows["method"].map(highest + 1).fillna(0).astype(np.int64)
        lanes.append(rows.assign(config=rows["config"] + offset))
        records.append(series.assign(lane=series["lane"] + first))
        first, highest = first + len(rows), pd.concat(lanes).groupby("method")["config"].max()
    config = _one_config([config for *_, config in tables])
    return pd.concat(lanes, ignore_index=True), pd.concat(records), config


def _one_config(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One config of several, as explained in `Table.merge`."""
    texts = [{key: json.dumps(fact, sort_keys=True) for key, fact in config.items()} for config in configs]
    agreed = {key for key in texts[0] if len({text.get(key) for text in texts}) == 1}
    shared = {key: fact for key, fact in configs[0].items() if key in agreed}
    for key in ("steps", "rel_gap"):
        shared[key] = max((config[key] for config in configs if config.get(key) is not None), default=None)
    methods: dict[str, Any] = {}
    for config in configs:
        different = {key: fact for key, fact in config.items() if key not in agreed and key != "methods"}
        for name, facts in config["methods"].items():
            if name not in methods:
                methods[name] = different | facts
                continue
            for key in ("settings", "hyperparameters"):
                methods[name][key] = list(dict.fromkeys([*methods[name][key], *facts[key]]))
            methods[name] |= {"axes": {}, "merged": [*methods[name].get("merged", ()), different]}
    return shared | {"methods": methods}

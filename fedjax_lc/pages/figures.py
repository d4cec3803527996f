"""The facts of a figure, as `fedjax-lc figure` writes them, as what a page can show: pictures, tables, lines."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.paths import read_json
from fedjax_lc.pages.words import pairs, text

MADE = ("seconds", "versions", "device", "command", "written")  #: how a figure was made
MOST_PICTURE = 400_000  #: bytes of a picture that a page takes in
FEWEST = 3  #: numbers by label that make a table, not facts
DEEPEST = 3  #: levels of a table's entries that become columns


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a recipe.

    Attributes:
        facts: names and texts.
        claims: heads, then a row for each claim; empty without claims.
        notes: what its caption says.
        blocks: what has numbers by label: {"name", "kind": "table", "columns", "rows"} with a row a label, or
            {"name", "kind": "lines", "x", "measures", "series": {label: {"x": [...], measure: [...]}}}.
        pictures: names and data URIs of the pictures beside the file.
    """

    title: str
    facts: list[list[str]]
    claims: list[list[str]]
    notes: list[str]
    blocks: list[dict[str, Any]]
    pictures: list[dict[str, str]]
    made: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Figure:
        """Read NAME.json, and the pictures NAME.png and NAME-....png beside it.

        Raises:
            InputError: it cannot be read, or is no figure's.
        """
        try:
            facts = read_json(path)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as JSON ({type(error).__name__}): give the .json that fedjax-lc "
                             "figure writes, or a folder of results") from None  # fmt: skip
        if not (isinstance(facts, dict) and isinstance(facts.get("title"), str)):
            raise InputError(
                f"{path} is not a figure's: expected an object with a title, as fedjax-lc figure writes it"
            )
        rest = {name: value for name, value in facts.items() if name not in ("title", "claims", "said", *MADE)}
        blocks = {name: _block(name, _with_x(value, rest)) for name, value in rest.items()}
        chosen = {name: value for name, value in rest.items() if blocks[name] is None}
        versions = facts.get("versions")
        of_versions = ", ".join(f"{n} {v}" for n, v in versions.items()) if isinstance(versions, dict) else versions
        made = {"file": str(path), "versions": of_versions}
        made |= {name: facts.get(name) for name in ("device", "written", "seconds")}
        return cls(
            title=facts["title"],
            facts=pairs(chosen),
            claims=_claims(facts.get("claims")),
            notes=[facts["said"]] if isinstance(facts.get("said"), str) and facts["said"] else [],
            blocks=[block for block in blocks.values() if block is not None],
            pictures=_pictures(path),
            made=[{"command": str(facts.get("command") or ""), "facts": pairs(made), "chosen": [], "notes": []}],
        )


def _claims(claims: Any) -> list[list[str]]:
    """Heads, and a row for each claim."""
    if not isinstance(claims, dict) or not claims:
        return []
    held = {claim: verdict if isinstance(verdict, dict) else {"here": verdict} for claim, verdict in claims.items()}
    heads = dict.fromkeys(head for verdicts in held.values() for head in verdicts)
    rows = [[claim, *(text(verdicts.get(head)) for head in heads)] for claim, verdicts in held.items()]
    return [["claim", *heads], *rows]


def _with_x(value: Any, facts: Mapping[str, Any]) -> Any:
    """Lists of numbers by label as points over the fact that is a list of as many numbers, if there is one."""
    lists: list[Any] = [*value.values()] if isinstance(value, dict) and value else [None]
    if not all(isinstance(each, list) and each and all(map(_is_number, each)) for each in lists):
        return value
    fits = [name for name, fact in facts.items()
            if isinstance(fact, list) and all(map(_is_number, fact)) and {len(fact)} == {*map(len, lists)}]  # fmt: skip
    if not fits:
        return value
    return {
        label: [{fits[0]: x, "value": y} for x, y in zip(facts[fits[0]], each, strict=True)]
        for label, each in value.items()
    }


def _block(name: str, value: Any) -> dict[str, Any] | None:
    """Numbers by label as a table or as lines; None for anything else."""
    if not isinstance(value, dict) or not value:
        return None
    lines = {label: _line(each) for label, each in value.items()}
    if any(line is not None for line in lines.values()) and all(
        line is not None or value[label] in (None, [], {}) for label, line in lines.items()
    ):
        there = {label: line for label, line in lines.items() if line is not None}
        x = next(iter(there.values()))[0]
        columns = dict.fromkeys(measure for _, series in there.values() for measure in series if measure != "x")
        series = {label: series for label, (_, series) in there.items()}
        return {"name": name, "kind": "lines", "x": x, "measures": [*columns], "series": series}
    if not all(isinstance(each, dict) for each in value.values()):
        numbers = [each for each in value.values() if _is_number(each)]
        if len(numbers) >= FEWEST and all(_is_number(each) or each is None for each in value.values()):
            rows = [{"label": label, name: each} for label, each in value.items()]
            return {"name": name, "kind": "table", "columns": [name], "rows": rows}
        return None
    rows = [{"label": label} | _flat(each) for label, each in value.items()]
    chosen = {column for each in value.values() for column in _flat(each.get("hyperparameters") or {})}
    columns = dict.fromkeys(
        column for row in rows for column in row if any(each.get(column) not in (None, "") for each in rows)
    )
    columns.pop("label")
    columns = dict.fromkeys(sorted(columns, key=lambda column: column in chosen))  # what came out, then what was chosen
    return {"name": name, "kind": "table", "columns": [*columns], "rows": rows}


def _line(value: Any) -> tuple[str, dict[str, list[float | None]]] | None:
    """Points as the name of x and columns: of [{x, measure, ...}], or of {"x": number or {measure, ...}}."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and len(each) > 1 for each in value):
        x = next(iter(value[0]))
        rows = [{"x": each.get(x), **{name: entry for name, entry in each.items() if name != x}} for each in value]
    elif isinstance(value, dict) and len(value) > 1 and all(_as_number(key) is not None for key in value):
        x, rows = "", [{"x": _as_number(key), **(each if isinstance(each, dict) else {"value": each})}
                       for key, each in value.items()]  # fmt: skip
    else:
        return None
    names = dict.fromkeys(name for row in rows for name, entry in row.items() if _is_number(entry))
    if "x" not in names or len(names) < 2:
        return None
    return x, {name: [row.get(name) if _is_number(row.get(name)) else None for row in rows] for name in names}


def _flat(value: Mapping[str, Any], before: str = "", depth: int = 1) -> dict[str, Any]:
    """Entries of entries as columns of one row, such as "accuracy mean"; what is no number or word as a text."""
    row: dict[str, Any] = {}
    for name, entry in value.items():
        column = f"{before} {name}".strip()
        if isinstance(entry, dict) and depth < DEEPEST and entry:
            row |= _flat(entry, "" if name == "hyperparameters" else column, depth + 1)
        else:
            row[column] = entry if _is_number(entry) or isinstance(entry, str | None) else text(entry)
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _as_number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if _is_number(number) else None


def _pictures(path: Path) -> list[dict[str, str]]:
    """The pictures of a figure; those of another whose name begins with its name are not among them."""
    others = {each.stem for each in path.parent.glob("*.json")} - {path.stem}
    pictures = []
    for picture in sorted(path.parent.glob("*.png"), key=lambda each: each.stem):
        ending = picture.stem.removeprefix(path.stem)
        of_other = any(picture.stem.startswith(stem) and len(stem) > len(path.stem) for stem in others)
        named = picture.stem.startswith(path.stem) and (not ending or ending.startswith("-"))
        if named and not of_other and picture.stat().st_size <= MOST_PICTURE:
            data = base64.b64encode(picture.read_bytes()).decode("ascii")
            pictures.append({"name": picture.stem, "source": f"data:image/png;base64,{data}"})
    return pictures

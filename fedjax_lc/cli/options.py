"""What several commands share: help, the problem that is asked for, the price of indices."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedjax_lc.cli import toml
from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.hyperparameters import Range
from fedjax_lc.core.paths import NEEDS, is_name
from fedjax_lc.core.progress import say

if TYPE_CHECKING:
    from fedjax_lc.cli.config import Config

CLIENTS = 10  #: of data that do not come split, by default


class Help(argparse.HelpFormatter):
    """Shows a default only where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        plain = action.default in (None, False, argparse.SUPPRESS) or action.default == [] or "default" in text
        return text if plain else f"{text} (default: %(default)s)"


def add_cache(parser: Any) -> None:
    """The option that leaves the cache of compiled programs alone."""
    words = "compile everything now, keep nothing (FEDJAX_LC_CACHE: a folder for compiled programs and data, or off)"
    parser.add_argument("--no-cache", action="store_true", help=words)


def reader(field: spec.Field, kind: Callable[[Any], Any] = lambda value: value) -> Callable[[str], Any]:
    """The type of an option for argparse: text is read as the field has it, and then made this kind."""

    def read(text: str) -> Any:
        try:
            return kind(field.value("", text))
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error).strip()) from None

    return read


NAME = spec.Field((str,), fits=is_name, words=f"a path, which {NEEDS}")
PATH = reader(NAME, Path)  #: the type of files and folders


@dataclasses.dataclass(frozen=True)
class Option:
    """A field that is an option.

    Attributes:
        text: its help.
        group: its group in help.
        metavar: what help calls its value.
        choices: the words to choose from; empty: any value of its type.
        within: the range of a number, as in `core.hyperparameters.Range`.
        aside: whether it decides no number, so that results do not keep it.
    """

    text: str
    group: str = "run"
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    within: str = ""
    aside: bool = False

    def field(self, kind: type) -> spec.Field:
        """What a value of this type may be."""
        if kind is Path:
            return NAME
        if self.within:
            within = Range.parse(self.within)
            return spec.Field((kind,), fits=lambda number: within.holds(number, 0), words=within.words())
        return spec.Field((kind,), fits=lambda word: word in (self.choices or (word,)), words=" or ".join(self.choices))

    def argument(self, kind: type, default: Any) -> dict[str, Any]:
        """How argparse adds it."""
        text = self.text
        if default not in (None, False, dataclasses.MISSING) and "default" not in text:
            text += f" (default: {default})"
        about: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        if kind is bool:
            return about | {"action": "store_true"}
        about |= {"metavar": self.metavar or "|".join(self.choices) or None}
        return about | ({"action": "append"} if kind in (list, dict) else {"type": reader(self.field(kind), kind)})

    def typed(self, path: str, key: str, value: Any, kind: type) -> Any:
        """The value of a key of a TOML file as the option has it."""
        if kind is dict:
            return toml.flat(path, key, value)
        if kind is list:
            return [str(each) for each in (value if isinstance(value, list) else [value])]
        field = self.field(kind)
        if isinstance(value, list | dict) or isinstance(value, bool) != (kind is bool):
            raise field.refused(f"{path}: {key}", value)
        return kind(field.value(f"{path}: {key}", str(value)))


def add_size(parser: Any) -> None:
    """The option of a picture's size."""
    words = "for a paper: as wide as a column (3.35 inches) or a page (7 inches), with letters of 7 to 8 points"
    parser.add_argument("--size", choices=("column", "page"), help=words)


def terminal_width() -> int | None:
    """Characters of a line of the terminal; None where nothing is printed on one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None


def add_target(parser: Any) -> None:
    """The option of the relative gap at which the methods of a sweep are compared."""
    target = Option("the target (default: the sweep's, or what all methods reach)", within="(0, inf)")
    parser.add_argument("--rel-gap", type=reader(target.field(float)), help=target.text)


def make_problem(config: Config, download: bool = True, mesh: Any = None) -> tuple[Any, Callable[[], Any]]:
    """The problem that the data options ask for, for the devices of a mesh, and a function that draws the picture of
    its partition where that is asked for, once results may be written. Notes on the data go to stderr."""
    import jax

    from fedjax_lc import data, problems
    from fedjax_lc.problems.from_data import remember, usual_scale, with_test

    network = config.model is not None
    source = config.source(config.scale or usual_scale(config.data))
    dataset = data.load(**source, download=download)
    for note in dataset.notes:
        say(f"note: {note}")
    if network:
        dataset = with_test(dataset, config.test_share, config.split_seed)
    if network and config.kappa is not None:
        raise InputError("--kappa is for convex problems: give a network's weight decay by --l2")
    if not network and config.dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    chosen: dict[str, Any] = {"kappa": config.kappa}
    if network:
        chosen = {"model": config.model, "test_share": config.test_share, "measured_rows": config.measured_rows}
        chosen |= {} if config.precision is None else {"precision": config.precision}
    chosen |= {"clients": config.clients, "partition": config.partition, "split_seed": config.split_seed}
    weights = None if config.weights == "equal" else "size"
    made = problems.problem(dataset, l2=config.l2, weights=weights, dtype=config.dtype, devices=mesh, **chosen)
    remember(made, source, chosen | {"l2": config.l2, "weights": weights, "dtype": config.dtype})
    if not config.report:
        return made, lambda: None
    parts = data.partition(dataset, config.clients, config.partition, seed=config.split_seed)
    report = data.PartitionReport.of(dataset, parts)
    print(report.table())
    return made, lambda: None if config.out is None else report.plot(config.out / "clients.png")


def hidden_choices(config: Config, problem: Any) -> str | None:
    """A line on what defaults decide that results depend on; None where all of it is given."""
    split = config.clients is None and config.partition is None and problem.n != CLIENTS  # the data come split
    chosen = {
        "kappa = 1e4 (--kappa, --l2)": config.model is None and config.kappa is None and config.l2 is None,
        f"{problem.n} clients (--clients)": config.clients is None and not split,
        "equal clients, rows dealt at random (--partition)": config.partition is None and not split,
    }
    named = [words for words, is_default in chosen.items() if is_default]
    return f"note: by default {', '.join(named)}" if named else None


def priced(hp: Any, index_bits: str | None) -> Any:
    """Hyperparameters whose compressors price indices by that convention (None: as they are)."""
    from fedjax_lc import compressors

    if index_bits is None:
        return hp
    kept = {name: value for name, value in vars(hp).items() if isinstance(value, compressors.Compressor)}
    return dataclasses.replace(hp, **{name: compressors.with_index(c, index_bits) for name, c in kept.items()})


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().partition("\n")[0]

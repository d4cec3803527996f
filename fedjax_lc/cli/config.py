"""What `run` and `sweep` are asked for: one dataclass each, whose fields are the options.

A field declares its type, its default, its help and its group once. From it come the option of the command line
(`add`, `of`), the key of a TOML file (`SweepConfig.read`) and the setting that results keep (`settings`), which says
whether a folder holds the same experiment (`check_folder`).
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from fedjax_lc.cli import axes, toml
from fedjax_lc.cli.options import Option, add_cache
from fedjax_lc.cli.source import Source
from fedjax_lc.core import files, spec
from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.core.paths import user_path

GROUPS = ("data", "network", "grid", "run", "devices")  #: of options, in the order of help
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
FORMS = {"grid": "gamma=log:0.01:1:5", "budget": "bits_up=1e7"}  #: options NAME=VALUE, with an example each


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Source):
    """What both commands take."""

    clients: Annotated[
        int | None,
        Option("number of clients (default: 10, or as the data comes split)", "data", within="whole [1, inf)"),
    ] = None
    partition: Annotated[
        str | None, Option("iid, sorted, shards:2, dirichlet:0.5, ... (fedjax-lc list partitions)", "data")
    ] = None
    report: Annotated[bool, Option("print sizes and label shares; with --out also a picture", "data", aside=True)] = (
        False
    )
    weights: Annotated[
        str,
        Option(
            "what each client counts in F (by size: local gradients are scaled by it, on top of --client-weights)",
            "data",
            choices=("equal", "size"),
        ),
    ] = "equal"
    split_seed: Annotated[int, Option("seed of the partition", "data", within="whole [0, inf)")] = 0
    kappa: Annotated[float | None, Option("condition number of the regularised problem (default: 1e4)", "data")] = None
    l2: Annotated[float | None, Option("the regulariser's weight, instead of --kappa (of a network: 0)", "data")] = None
    dtype: Annotated[
        str | None,
        Option("numbers of the run (default: float64; of a network float32)", "data", choices=("float32", "float64")),
    ] = None
    model: Annotated[
        str | None, Option("train this network (fedjax-lc list models), as in cnn or mlp:hidden=64x64", "network")
    ] = None
    test_share: Annotated[
        float, Option("tested on this share of data without a test set", "network", within="(0, 1)")
    ] = 0.2
    measured_rows: Annotated[
        int | None,
        Option("measure the training loss on so many rows (default: all)", "network", within="whole [1, inf)"),
    ] = None
    precision: Annotated[
        str | None,
        Option(
            "of a network's float32 products on a GPU or TPU: high (TF32), highest (exact) or default (the platform's "
            "fastest); convex problems are always exact (default: high)",
            "network",
        ),
    ] = None
    steps: Annotated[
        int | None, Option("steps at most (default: 10,000; of a network 100)", within="whole [1, 4294967295]")
    ] = None
    every: Annotated[
        int | None,
        Option("steps from one record to the next (default: 10; of a network 1)", within="whole [1, 4294967295]"),
    ] = None
    start: Annotated[
        str | None,
        Option("begin at these weights: a .safetensors, .npz or .npy, or the --out of a run", metavar="FILE"),
    ] = None
    start_names: Annotated[
        str | None, Option("how the network calls the layers of --start, as in fc1=Dense_0,fc2=Dense_1", "network")
    ] = None
    rel_gap: Annotated[float | None, Option("stop at this relative gap", within="(0, inf)")] = None
    measure: Annotated[list[str], Option("also record grad_norm, distance or lyapunov")] = dataclasses.field(
        default_factory=list
    )
    index_bits: Annotated[str | None, Option("price of indices: log2, binom, int32 or none (default: log2)")] = None
    track: Annotated[
        list[str],
        Option("also log every record to csv, tensorboard, wandb:PROJECT or mlflow; may be repeated", aside=True),
    ] = dataclasses.field(default_factory=list)
    out: Path | None = None
    other_code: Annotated[
        bool, Option("keep what other code of a method or other versions computed in --out, and go on", aside=True)
    ] = False
    checkpoint_every: Annotated[
        str | None,
        Option("minutes from one checkpoint to the next, or steps:1000 (default: 1, or what costs 1%%)", aside=True),
    ] = None
    quiet: Annotated[bool, Option("no progress bar", aside=True)] = False

    @classmethod
    def add(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options to a parser, whose result then holds those that were given, and no defaults."""
        options = _options(cls)
        usual = {field.name: field.default for field in dataclasses.fields(cls)}
        groups = {declared.group for _, declared in options.values()}
        places = {name: parser.add_argument_group(name) for name in GROUPS if name in groups}
        for name, (kind, declared) in options.items():
            places[declared.group].add_argument(f"--{_dashed(name)}", **declared.argument(kind, usual[name]))
        add_cache(places["run"])

    @classmethod
    def field(cls, name: str) -> spec.Field:
        """What the value of an option may be."""
        kind, declared = _options(cls)[name]
        return declared.field(kind)

    def checked(self) -> Self:
        """The same; an error for an option that would be without effect."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        if self.data_dir is not None and not user_path(self.data_dir, "--data-dir ").is_dir():
            raise InputError(f"--data-dir {self.data_dir}: no such folder")
        for name, (_, declared) in _options(type(self)).items():
            if declared.group == "network" and self.model is None and getattr(self, name) != usual[name]:
                raise InputError(f"--{_dashed(name)} is for networks: add --model, or leave it out")
        return self

    def filled(self) -> Self:
        """With the defaults that depend on whether there is a network."""
        usual = {"steps": (10_000, 100), "every": (10, 1), "dtype": ("float64", "float32")}
        missing: dict[str, Any] = {
            name: pair[self.model is not None] for name, pair in usual.items() if getattr(self, name) is None
        }
        return dataclasses.replace(self, **missing)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain values."""
        aside = {name for name, (_, declared) in _options(type(self)).items() if declared.aside}
        return {name: value for name, value in vars(self).items() if name not in aside}

    def loop(self) -> dict[str, Any]:
        """Options of `fl.run` and `fl.sweep`."""
        shared = ("steps", "every", "rel_gap", "measure", "track")
        return {name: getattr(self, name) for name in shared} | {"progress": not self.quiet}

    def x0(self, problem: Any) -> Any:
        """The start, of a problem; None for that of the problem."""
        return None if self.start is None else problem.start(self.start, axes.renamed(self.start_names))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """What `fedjax-lc run` is asked for."""

    method: str
    hyperparameters: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: as the command line has them
    seed: Annotated[int, Option("seed of the run")] = 0
    measure: Annotated[
        list[str],
        Option(
            "also record grad_norm, distance or lyapunov; worst without a server; of a network train_accuracy, "
            "train_accuracy_worst, ..., or clients: losses and accuracies of each client"
        ),
    ] = dataclasses.field(default_factory=list)
    out: Annotated[
        Path | None,
        Option("folder of the results and, while it runs, of checkpoints; the same command goes on there", aside=True),
    ] = None
    keep_best: Annotated[
        str | None, Option("keep the model where this metric is best, as best.safetensors", metavar="METRIC")
    ] = None
    restart: Annotated[bool, Option("begin anew; the old folder is kept as OUT.1, ...", aside=True)] = False
    devices: Annotated[
        str | None,
        Option("spread the clients over so many devices, as in clients=4 (default: one device)", "devices", aside=True),
    ] = None
    distributed: Annotated[
        bool,
        Option("one of several processes, over all of whose devices clients are spread", "devices", aside=True),
    ] = False
    coordinator: Annotated[
        str | None,
        Option(
            "where process 0 listens; this and the next two are known under SLURM, Open MPI and Kubernetes",
            "devices",
            metavar="ADDRESS:PORT",
            aside=True,
        ),
    ] = None
    processes: Annotated[int | None, Option("how many processes there are", "devices", aside=True)] = None
    process: Annotated[int | None, Option("the number of this one, from 0", "devices", aside=True)] = None
    x: Annotated[str, Option("the picture's x-axis: bits_up, rounds, step, grads, total_bits", aside=True)] = "bits_up"
    theory: Annotated[
        bool, Option("draw the Lyapunov function and its proven bound (see list methods --long)", aside=True)
    ] = False

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """The configuration of a command line, which has hyperparameters as hp_NAME."""
        hp = {name[3:]: text for name, text in vars(options).items() if name.startswith("hp_") and text is not None}
        config = cls(method=options.method, hyperparameters=hp, **_given(cls, options)).checked().filled()
        if config.theory and "lyapunov" not in config.measure:
            config = dataclasses.replace(config, measure=[*config.measure, "lyapunov"])
        return config

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], **more: Any) -> Self:
        """The configuration with these settings, as results keep them.

        Raises:
            TypeError: they are no settings.
        """
        hp = {name[3:]: text for name, text in settings.items() if name.startswith("hp_")}
        rest = {name: value for name, value in settings.items() if not name.startswith("hp_")}
        return cls(hyperparameters=hp, **rest, **more)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain values; hyperparameters as hp_NAME."""
        settings = super().settings()
        return settings | {f"hp_{name}": text for name, text in settings.pop("hyperparameters").items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig(Config):
    """What `fedjax-lc sweep` is asked for."""

    methods: list[str]
    grid: Annotated[dict[str, Any], Option("one axis; may be repeated", "grid", metavar="NAME=VALUES")] = (
        dataclasses.field(default_factory=dict)
    )
    sample: Annotated[
        int | None,
        Option("this many samples of the axes instead of all points", "grid", metavar="NUM", within="whole [1, inf)"),
    ] = None
    sample_method: Annotated[str, Option("random, sobol, halton or latin", "grid", metavar="KIND")] = "random"
    sample_seed: Annotated[int, Option("seed of the samples", "grid", metavar="SEED", within="whole [0, inf)")] = 0
    seeds: Annotated[
        int, Option("seeds 0 to NUM - 1 of every configuration", "grid", metavar="NUM", within="whole [1, inf)")
    ] = 1
    rel_gap: Annotated[
        float | None, Option("stop at this relative gap; methods are compared there", within="(0, inf)")
    ] = None
    budget: Annotated[
        dict[str, Any],
        Option("stop a lane at this cost: bits_up, bits_down, rounds or grads; may be repeated", metavar="COST=LIMIT"),
    ] = dataclasses.field(default_factory=dict)
    masked: Annotated[
        list[str],
        Option(
            "local_steps: lanes of different numbers of them side by side, not one number after the other",
            metavar="NAME",
        ),
    ] = dataclasses.field(default_factory=list)
    block_size: Annotated[
        int | None,
        Option(
            "lanes side by side (default: what memory holds); decides the last bits of float32",
            within="whole [1, inf)",
            aside=True,
        ),
    ] = None
    memory: Annotated[
        str | None, Option("what the lanes side by side may take, as in 2GB (default: a share of it all)", aside=True)
    ] = None
    engine: Annotated[
        str, Option("where parts run: in this process, or on a Ray cluster", choices=("local", "ray"), aside=True)
    ] = "local"
    address: Annotated[str, Option("of the Ray cluster; local: one of this machine only", aside=True)] = "auto"
    workers: Annotated[
        int | None, Option("Ray workers at a time (default: as many as there is room for)", aside=True)
    ] = None
    cpus_per_task: Annotated[float, Option("CPUs that a Ray worker reserves", aside=True)] = 1.0
    gpus_per_task: Annotated[float, Option("GPUs that a Ray worker reserves", aside=True)] = 0.0
    shard: Annotated[
        str | None,
        Option("run only this share of the lanes, for fedjax-lc merge", metavar="I/N", aside=True),
    ] = None
    out: Annotated[
        Path | None, Option("folder for a table per method and plot.png; finished parts are reused", aside=True)
    ] = None
    quiet: Annotated[bool, Option("no plan and no progress bar", aside=True)] = False

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """The configuration of a file, if the methods name one, under that of the command line.

        Raises:
            InputError: what cannot be read, or is not there.
        """
        given = _given(cls, options)
        given |= {name: axes.pairs(name, given[name], form) for name, form in FORMS.items() if name in given}
        paths = [word for word in options.methods if word.endswith(".toml")]
        if len(paths) > 1:
            raise InputError(f"one .toml file at a time, got {' and '.join(paths)}")
        file = cls.read(paths[0]) if paths else {"methods": []}
        methods = [word for word in options.methods if word not in paths] or file["methods"]
        if not methods:
            raise InputError(f'{paths[0]} names no methods: add methods = ["locodl"], or give them before it')
        left_out = {*file["methods"]} - {*methods}
        kept = {name: axis for name, axis in file.get("grid", {}).items() if name.partition(".")[0] not in left_out}
        grid = kept | given.get("grid", {})
        budget = file.get("budget", {}) | given.get("budget", {})
        lists = {"methods": methods, "grid": grid, "budget": axes.limits(budget)}
        config = cls(**file | given | lists).checked().filled()
        if config.sample is not None and not grid:
            raise InputError("--sample draws from axes, and there is none: add --grid, as in 'gamma=loguniform:0.01:1'")
        return config

    @classmethod
    def read(cls, path: str) -> dict[str, Any]:
        """The methods of a file, which may be none, and the options that it says, by name.

        Raises:
            InputError: a file that cannot be read, a key that is not known, a value of another kind.
        """
        known = _options(cls)
        said: dict[str, Any] = {"methods": []}
        for key, value in toml.load(path).items():
            name = key.replace("-", "_")
            if name == "methods":
                said[name] = [str(word) for word in (value if isinstance(value, list) else [value])]
            elif name in known:
                kind, declared = known[name]
                said[name] = declared.typed(path, key, value, kind)
            else:
                raise unknown(f"key in {path}", key, {"methods", *map(_dashed, known)})
        return said

    def of_method(self, method: str, grid: dict[str, Any]) -> Self:
        """The part of one method, which sweeps these axes."""
        return dataclasses.replace(self, methods=[method], grid=grid)

    def bytes(self) -> int | None:
        """The memory: 2GB, 512MiB, 1e9, ... as a number.

        Raises:
            InputError: no such size.
        """
        if self.memory is None:
            return None
        match = re.fullmatch(r"([\d.]+(?:e\+?\d+)?)\s*([kmgt]i?)?b?", self.memory.strip().lower())
        try:
            return spec.whole(str(int(float(match[1]) * UNITS[match[2] or ""])))  # type: ignore[index]
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"--memory must be a size such as 2GB, 512MiB or 1e9, got {self.memory!r}") from None


def check_folder(folder: Path, what: str, before: Mapping[str, Any], now: Config) -> None:
    """Raise InputError if the settings `before`, which a folder's results keep, are not those of `now`."""
    before, after = ({_shown(name, now): value for name, value in each.items()} for each in (before, now.settings()))
    files.check_same(folder, what, before, after, "choose another --out")


def _shown(name: str, config: Config) -> str:
    """The option of a setting; that of a hyperparameter has hp- before it where its name is another option's."""
    field = name.removeprefix("hp_")
    return _dashed(name if field in _options(type(config)) else field)


def _options(cls: type[Config]) -> dict[str, tuple[type, Option]]:
    """The options by name: the type beside None, and what is declared."""
    declared = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if typing.get_origin(hint) is Annotated:
            of, option = typing.get_args(hint)
            kind = typing.get_args(of)[0] if isinstance(of, types.UnionType) else of
            declared[name] = (typing.get_origin(kind) or kind, option)
    return declared


def _given(cls: type[Config], options: argparse.Namespace) -> dict[str, Any]:
    """The options that a command line gives."""
    return {name: getattr(options, name) for name in _options(cls) if name in options}


def _dashed(name: str) -> str:
    return name.replace("_", "-")

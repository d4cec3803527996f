"""`fedjax-lc extend`: more steps of a run that is done."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_lc.cli.config import RunConfig
from fedjax_lc.cli.options import Help, add_cache, make_problem
from fedjax_lc.cli.run import hparams, show
from fedjax_lc.core.errors import InputError


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "extend",
        help="continue a run that is done",
        description="Continue a run that is done by more steps: the results are, bit for bit, those of one run of the "
        "total length. An extension that was interrupted goes on with the same command.",
        epilog="Example: fedjax-lc extend out --steps 100000",
        formatter_class=Help,
    )
    parser.set_defaults(command=_extend)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --out of a run")
    parser.add_argument("--steps", type=int, required=True, metavar="MORE", help="how many more")
    parser.add_argument("--checkpoint-every", metavar="MINUTES", help="as of run")
    parser.add_argument("--other-code", action="store_true", help="as of run")
    parser.add_argument("--x", default="bits_up", help="as of run")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_cache(parser)


def _extend(options: argparse.Namespace) -> int:
    from fedjax_lc import algorithms
    from fedjax_lc.running import folder as folders
    from fedjax_lc.running.extend import extend

    kept = folders.read(options.folder)
    if kept is None:
        raise InputError(f"{options.folder} holds no run: expected the --out of a run that is done")
    more = {"out": options.folder, "x": options.x, "quiet": options.quiet}
    try:
        config = RunConfig.from_settings(kept["settings"], **more)
        algorithm = algorithms.get(config.method)
    except KeyError:
        raise InputError(f"{options.folder} holds a run that Python began: extend it by fl.extend") from None
    except (TypeError, AttributeError):
        raise InputError(f"{options.folder}/config.json is damaged: restore it, or run anew elsewhere") from None
    problem = make_problem(config)
    hp = hparams(algorithm, problem, config)
    trace = extend(
        options.folder, options.steps, problem=problem, hp=hp, measure=config.measure,
        progress=not options.quiet, checkpoint_every=options.checkpoint_every, other_code=options.other_code,
    )  # fmt: skip
    return show(config, algorithm, problem, hp, trace)

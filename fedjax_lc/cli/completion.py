"""`fedjax-lc completion`: a script with which a shell completes commands, options and names."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from fedjax_lc.cli.options import PATH, Help
from fedjax_lc.core.errors import InputError

SHELLS = ("bash", "zsh")


def add(commands: Any, arguments: Sequence[str]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "completion",
        help="a script that completes commands, options and names in a shell",
        description="Print a script for a shell (pip install 'fedjax_lc[completion]').",
        epilog="Example: fedjax-lc completion bash > ~/.local/share/bash-completion/completions/fedjax-lc",
        formatter_class=Help,
    )
    parser.set_defaults(command=_completion)
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def _completion(options: argparse.Namespace) -> int:
    from fedjax_lc.cli import _parser

    try:
        import shtab
    except ImportError:
        raise InputError("completion needs shtab: pip install 'fedjax_lc[completion]'") from None
    parser = _parser([])
    _name_choices(parser, {"file": shtab.FILE, "folder": shtab.DIRECTORY})
    print(shtab.complete(parser, options.shell))
    return 0


def _name_choices(parser: argparse.ArgumentParser, paths: dict[str, Any]) -> None:
    """Give every argument the names or the kind of path that complete it, which its checks do not need."""
    known = _names()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _name_choices(command, paths)
        elif action.choices is None and action.dest in known:
            with contextlib.suppress(InputError):  # figures, where there is no clone
                action.choices = known[action.dest]()
        elif action.choices is None and _is_path(action):
            action.complete = paths["folder" if action.dest == "folder" else "file"]  # type: ignore[attr-defined]


def _names() -> dict[str, Callable[[], list[str]]]:
    """The names that complete an argument, by where argparse keeps it."""
    from fedjax_lc import algorithms, data, models
    from fedjax_lc.cli import lists, repository

    return {
        "method": algorithms.names,
        "methods": algorithms.names,
        "what": lambda: [*lists._LISTS],
        "data": lambda: [*data.loading.described()],
        "partition": data.partitions.names,
        "model": models.names,
        "names": lambda: repository.load("kit.catalogue").names(),
    }


def _is_path(action: argparse.Action) -> bool:
    """Whether the value is a file or a folder."""
    return action.type is PATH or action.dest in ("out", "data_dir")

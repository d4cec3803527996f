"""The command line: `fedjax-lc run | extend | sweep | best | plot | list | figure | bench | doctor`, a module each."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fedjax_lc.cli import bench, doctor, extend, figure, lists, results, run, sweep
from fedjax_lc.core.errors import InputError
from fedjax_lc.running import cache, signals

COMMANDS = (run, extend, sweep, results, lists, figure, bench, doctor)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did its job, 2 with one line on stderr for bad input, 130 after Ctrl-C, 143 after SIGTERM,
    141 where the reader of its output has gone."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = _parser(arguments)
        options = parser.parse_args(arguments)
        with signals.raising(), cache.kept(not getattr(options, "no_cache", True)):  # for commands that have the option
            status = int(options.command(options) or 0)
        sys.stdout.flush()
        return status
    except InputError as error:
        print(f"fedjax-lc: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("fedjax-lc: interrupted", file=sys.stderr)
        return 130
    except signals.Terminated as ended:
        if not ended.held:  # else what was held up has said it
            print("fedjax-lc: terminated", file=sys.stderr)
        return 143


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="fedjax-lc", description="Federated and communication-efficient optimisation in JAX.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands, arguments)
    return parser

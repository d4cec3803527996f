"""The command line: `fedjax-lc run | extend | sweep | tune | merge | best | plot | report | export | ...`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from fedjax_lc.core.errors import InputError, one_line
from fedjax_lc.running import signals

GREETING = """\
fedjax-lc simulates federated learning and counts every bit that is sent. Three commands to try:

  fedjax-lc run locodl --rel-gap 1e-6                    one method on a small data set
  fedjax-lc sweep locodl diana --grid 'gamma=theory*log:0.25:4:5' --rel-gap 1e-4
                                                         several methods, each at its best step size
  fedjax-lc list                                         methods; fedjax-lc list data, compressors, ...

fedjax-lc --help names all commands, fedjax-lc run locodl --help all options of one."""


class _Parser(argparse.ArgumentParser):
    """An argument parser, of a command or of all, whose errors are one line.

    Attributes:
        hint: what to do about a word that is no option, given it and the options read; None where nothing is known.
    """

    hint: Callable[[str, argparse.Namespace], str | None] = staticmethod(lambda word, options: None)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but that a word that is no option is an error."""
        options, strange = super().parse_known_args(args, namespace)
        if strange:
            word = strange[0].partition("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.8)
            hint = self.hint(word.lstrip("-"), options) or (f"did you mean {near[0]}?" if near else None)
            self.error(f"unrecognized arguments: {' '.join(strange)}" + (f"; {hint}" if hint else ""))
        return options, strange


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it did its job, 2 with one line on stderr for bad input, 130 after Ctrl-C, 143 after SIGTERM,
    141 where the reader of its output has gone."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    out, err = _Outlet(sys.stdout), _Outlet(sys.stderr)
    out.plain = True  # no bar is drawn there
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = _status(arguments)
        finally:  # argparse exits by itself after --help
            out.flush()
    return 141 if status == 0 and (out.closed_early or err.closed_early) else status


def _status(arguments: Sequence[str]) -> int:
    """The exit code of a command; what a person did wrong, or this machine cannot do, is one line on stderr."""
    try:
        return _run(arguments)
    except InputError as error:
        return _refused(str(error), 2)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return _refused(f"{named}{error.strerror or type(error).__name__}", 2)
    except MemoryError as error:
        return _refused(f"this needs more memory than there is: {error or 'ask for less'}", 2)
    except KeyboardInterrupt:
        return _refused("interrupted", 130)
    except signals.Terminated as ended:  # where it was held up, that has been said
        return 143 if ended.held else _refused("terminated", 143)
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # as XLA says it of every device
            raise
        return _refused("the device ran out of memory: ask for less", 2)


def _refused(message: str, status: int) -> int:
    print(f"fedjax-lc: {one_line(message)}", file=sys.stderr)
    return status


def _run(arguments: Sequence[str]) -> int:
    """The command's result. All that takes long to import is imported here, where Ctrl-C is one line."""
    from fedjax_lc.running import cache

    if valueless := [word for word in arguments if word.startswith("--") and word.endswith("=--")]:
        raise InputError(f"argument {valueless[0][:-3]}: expected a value, got '--'")  # argparse would drop it
    options = _parser(arguments).parse_args(arguments)
    with signals.raising(), cache.kept(not getattr(options, "no_cache", True)):  # for commands that have the option
        return int(options.command(options) or 0)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    from fedjax_lc.cli import (
        bench,
        completion,
        doctor,
        export,
        extend,
        figure,
        lists,
        merge,
        report,
        results,
        run,
        sweep,
        tune,
    )

    parser = _Parser(
        prog="fedjax-lc",
        description="Federated and communication-efficient optimisation in JAX.",
        epilog="FEDJAX_LC_METHODS names folders of methods of your own: commands run every .py file in them, so "
        "name only folders that you trust.",
    )
    commands = parser.add_subparsers(metavar="COMMAND")
    parser.set_defaults(command=_greet)
    for command in (
        run, extend, sweep, tune, merge, results, report, export, lists, figure, bench, doctor, completion
    ):  # fmt: skip
        command.add(commands, arguments)
    return parser


def _greet(options: argparse.Namespace) -> int:
    """What to try first, where no command is named."""
    print(GREETING)
    return 0


class _Outlet:
    """A stream that goes on without its reader: files are written to the end when `| head` has seen enough.

    Attributes:
        closed_early: whether the reader has gone.
        plain: whether what is not printable, such as an escape code in a name, is spelled out.
    """

    def __init__(self, stream: Any) -> None:
        self.stream, self.closed_early, self.plain = stream, False, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if self.plain and not text.isprintable():
            text = "".join(each if each in "\n\t" else one_line(each) for each in text)
        with self._until_closed():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._until_closed():
            self.stream.flush()

    @contextlib.contextmanager
    def _until_closed(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.closed_early = True
            with contextlib.suppress(OSError, ValueError):  # what is still in the buffer goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

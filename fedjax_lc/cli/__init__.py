"""The command line: `fedjax-lc run | extend | sweep | merge | best | plot | report | list | figure | bench | ...`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from fedjax_lc.core.errors import InputError, one_line
from fedjax_lc.running import signals


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


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
    from fedjax_lc.cli import bench, doctor, extend, figure, lists, merge, report, results, run, sweep

    parser = _Parser(
        prog="fedjax-lc",
        description="Federated and communication-efficient optimisation in JAX.",
        epilog="FEDJAX_LC_METHODS names folders of methods of your own: commands run every .py file in them, so "
        "name only folders that you trust.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (run, extend, sweep, merge, results, report, lists, figure, bench, doctor):
        command.add(commands, arguments)
    return parser


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

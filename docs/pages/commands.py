"""The page of the command line: what each command says of itself."""

from __future__ import annotations

import contextlib
import io
import os

from fedjax_lc import cli

COMMANDS = (
    "run locodl", "extend", "sweep", "tune", "merge", "best", "plot", "report", "export", "list", "figure", "bench",
    "doctor", "completion",
)  # fmt: skip


def pages() -> dict[str, str]:
    """One page with the help of every command."""
    sections = [f"## {name.split()[0]}\n\n```text\n{said(name)}\n```\n" for name in COMMANDS]
    intro = (
        "# Command line\n\nWhat `fedjax-lc COMMAND --help` prints. The help of `run METHOD` ends with the method's own "
        "hyperparameters, here those of LoCoDL.\n\n"
    )
    return {"commands": intro + "\n".join(sections)}


def said(command: str) -> str:
    """The help of a command, at a width of 100."""
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "100"
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            cli.main([*command.split(), "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return out.getvalue().rstrip()

"""Docstrings are plain text: a page's markup must not take their |x|, x_ and * for its own."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

_CODE = re.compile(r"(`[^`]+`)")
_FIELD = re.compile(r"\w+(, \w+)*: \S")


def rst(text: str) -> str:
    """The text as reStructuredText in which nothing is markup but `code`."""
    return _outside_code(text, lambda piece: re.sub(r"([\\*|])|(_)(?!\w)", r"\\\g<0>", piece), "``")


def markdown(text: str) -> str:
    """The text as Markdown in which nothing is markup but `code` and indented blocks, which become blocks of code."""
    return "\n\n".join(map(_block, re.split(r"\n\s*\n", text)))


def cell(text: str) -> str:
    """The text as one cell of a Markdown table."""
    return " ".join(markdown(text).split()).replace("|", "\\|")


def docstring(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape the lines of a docstring that autodoc has read, in place; examples stay as they are."""
    blocks = [list(block) for block in _paragraphs(lines)]
    lines[:] = "\n\n".join(_paragraph(block) for block in blocks).split("\n")


def dashes(app: Any, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Set the dashes between a parameter and what is said of it, in place."""
    lines[:] = [line.replace("** -- ", "** – ") for line in lines]


def _paragraphs(lines: list[str]) -> list[list[str]]:
    """The lines between blank ones."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        blocks[-1].append(line) if line.strip() else blocks.append([])
    return [block for block in blocks if block]


def _paragraph(block: list[str]) -> str:
    if block[0].lstrip().startswith(">>>"):
        return "\n".join(block)
    if len(block) > 1 and all(_FIELD.match(line) or line.startswith(" ") for line in block):
        return "\n".join(  # fields without a heading such as Args
            rst(line).replace(": ", ":** ", 1).join(("* **", "")) if _FIELD.match(line) else f"  {rst(line.strip())}"
            for line in block
        )
    example = next((place for place, line in enumerate(block) if line.lstrip().startswith(">>>")), len(block))
    return "\n".join([*rst("\n".join(block[:example])).split("\n"), *block[example:]])


def _block(block: str) -> str:
    head, *rest = block.split("\n")
    if rest and head.endswith(":") and all(line.startswith("    ") for line in rest):
        return f"{_escaped(head)}\n\n{_section(textwrap.dedent(chr(10).join(rest)))}"
    if block and all(line.startswith("    ") for line in block.splitlines()):
        return f"```text\n{textwrap.dedent(block)}\n```"
    return _escaped(block)


def _section(text: str) -> str:
    """What is indented below a heading such as Attributes or Example."""
    if text.startswith(">>>"):
        return f"```pycon\n{text}\n```"
    return "\n".join(
        f"- {_escaped(line)}" if _FIELD.match(line) else f"  {_escaped(line.strip())}" for line in text.split("\n")
    )


def _escaped(text: str) -> str:
    return _outside_code(text, lambda piece: re.sub(r"[\\*<\[\]$#~{}]|(?<!\w)_|_(?!\w)", r"\\\g<0>", piece), "`")


def _outside_code(text: str, escape: Callable[[str], str], tick: str) -> str:
    pieces = _CODE.split(text)
    return "".join(
        f"{tick}{' '.join(piece[1:-1].split())}{tick}" if _CODE.fullmatch(piece) else escape(piece) for piece in pieces
    )

"""Tables for papers: Markdown, and LaTeX for the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fedjax_lc.results import report

POWER = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e([+-])0*(\d+)(?![\w.])")  #: 1.234e+05
TEXT = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", "<": r"\textless{}",
    ">": r"\textgreater{}",
}  # fmt: skip


def table(rows: Sequence[dict[str, Any]], style: str) -> str:
    """Rows with equal keys as a table, in "markdown" or "latex".

    Example:
        >>> print(table([{"method": "LoCoDL", "bits": "1.2e+05"}], "latex"))
    """
    if style == "markdown":
        return report.table(rows, style="github")
    columns = "".join("r" if report.is_numeric(rows, name) else "l" for name in rows[0])
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _line(rows[0]), r"\midrule"]
    return "\n".join([*lines, *(_line(row.values()) for row in rows), r"\bottomrule", r"\end{tabular}"])


def _line(cells: Any) -> str:
    return " & ".join(map(latex, cells)) + r" \\"


def latex(cell: Any) -> str:
    """A cell in LaTeX: letters with a meaning there are spelled out, and 1.2e+05 is a power of ten.

    >>> latex("rand_k:2|natural, 1.2e+05")
    'rand\\\\_k:2\\\\textbar{}natural, $1.2 \\\\cdot 10^{5}$'
    """
    text, end, parts = str(cell), 0, []
    for power in POWER.finditer(text):
        parts.append(_spelled(text[end : power.start()]))
        parts.append(rf"${power[1]} \cdot 10^{{{power[2].replace('+', '')}{power[3]}}}$")
        end = power.end()
    return "".join([*parts, _spelled(text[end:])])


def _spelled(text: str) -> str:
    return "".join(TEXT.get(letter, letter) for letter in text)

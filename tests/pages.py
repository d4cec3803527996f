"""The code of the documentation's pages, as the tests run it: Python in one namespace a page, commands one by one.

A block runs, unless a comment on the line before it says `<!-- not run: why -->` (code of another library) or
`<!-- parsed only: why -->` (commands whose machine or data are not here).
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = ("_build", "methods", "compressors", "figures", "notebooks", "source")  #: folders of made pages
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0].removesuffix(".md") not in MADE)
PAGES = [path for path in PAGES if path.name not in ("commands.md", "changelog.md")]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<how>not run|parsed only): (?P<why>.*?) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```", re.M | re.S
)
_INDENTED = re.compile(r"(?:^\n|\A)(?P<code>(?:^ {4}fedjax-lc .*\n)+)", re.M)
README = ROOT / "README.md"
LONG = ("doctor", "figure", "bench")  #: commands that are only parsed: their files are tested elsewhere
_FEW = ("--steps", "4", "--every", "2")
SHORT = {"run": _FEW, "sweep": _FEW, "tune": (*_FEW, "--sample", "3"), "extend": ("--steps", "4")}
GAP = 0.5  #: in place of any target
VARIABLES = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "8", "I": "1"}


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: its kind (python, bash, console, ...) and how it is treated (run, parsed only, not run)."""

    kind: str
    code: str
    how: str

    def commands(self) -> list[list[str]]:
        """The arguments of each call of fedjax-lc; other commands are left out."""
        text = re.sub(r"\$\{?(\w+)\}?", lambda match: VARIABLES.get(match[1], match[0]), self.code.replace("\\\n", " "))
        calls = [shlex.split(line, comments=True) for line in text.splitlines()]
        words = [call[1:] if call[:1] == ["srun"] else call for call in calls]
        return [[word for word in call[1:] if word != "--help"] for call in words if call[:1] == ["fedjax-lc"]]


def blocks(path: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = path.read_text()
    known = [Block(match["kind"], match["code"], match["how"] or "run") for match in _BLOCK.finditer(text)]
    return known + [Block("bash", match["code"], "parsed only") for match in _INDENTED.finditer(text)]


def shortened(arguments: list[str]) -> list[str]:
    """The same command, small: few steps, a gap that is soon reached. Of an option given twice, the last counts."""
    gap = ("--rel-gap", str(GAP)) if "--rel-gap" in arguments else ()
    return [*(smaller(each) for each in arguments), *SHORT.get(arguments[0], ()), *gap]


def smaller(model: Any) -> Any:
    """A network that compiles soon, in place of a convolutional one."""
    return "mlp:hidden=8" if model == "cnn" else model

"""The way from runs to a page: what all recipes of figures share."""

from __future__ import annotations

import abc
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from experiments.kit.claim import Claim, Statistics
from experiments.kit.contender import Contender
from fedjax_lc import data, plot, problems
from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import check_writable, replacing
from fedjax_lc.pages.page import report as write_page
from fedjax_lc.problems import Problem
from fedjax_lc.results import report
from fedjax_lc.results.provenance import environment
from fedjax_lc.results.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BYTES = 150_000  #: of a .png
COLOURS = 64  #: of a .png that would be larger


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(abc.ABC):
    """A figure: methods on one problem, told as a table, a picture, and which claims hold.

    claims_are: the head of the column of claims. said: what else the caption should say; a function is called after
    the problem was made.
    """

    title: str
    problem: Callable[[], Problem]
    curves: Sequence[Contender]
    claims: Sequence[Claim] = ()
    claims_are: str = "claim of the paper"
    said: str | Callable[[], str] = ""

    def make(self, folder: Path, name: str, progress: bool = True, picture: str = "png", page: bool = False) -> str:
        """Run, and write NAME.md, NAME.json and the pictures, .png (or `picture`), into `folder`; with `page` also
        NAME.html, a report of the curves and of these files.

        Returns:
            The page for the terminal.
        """
        check_writable(folder / f"{name}.md")
        parts, started, problem = folder / f"{name}.parts", time.perf_counter(), self.problem()
        done = self.measure(problem, progress, parts)
        facts = {"title": self.title, "seconds": round(time.perf_counter() - started, 1), **self.facts(problem, done)}
        facts |= {"claims": self.verdicts(facts, done), **environment()}
        for ending, figure in self.pictures(facts, done).items():
            save(figure, folder / f"{name}{ending}.{picture}")
        contents = {"json": json.dumps(facts, indent=1) + "\n", "md": self.page(facts, done, "github")}
        for suffix, content in contents.items():
            with replacing(folder / f"{name}.{suffix}") as path:
                path.write_text(content)
        if page:
            write_page(
                {**self.traces(facts, done), "": folder / f"{name}.json"}, folder / f"{name}.html", title=self.title
            )
        shutil.rmtree(parts, ignore_errors=True)
        return self.page(facts, done, "simple")

    @abc.abstractmethod
    def measure(self, problem: Problem, progress: bool, parts: Path) -> Any:
        """Run everything. `parts` is a folder for what is done, should something end this before its time."""

    @abc.abstractmethod
    def facts(self, problem: Problem, done: Any) -> dict[str, Any]:
        """What the result file says."""

    @abc.abstractmethod
    def statistics(self, facts: Mapping[str, Any], done: Any) -> Statistics:
        """The numbers that claims are about."""

    @abc.abstractmethod
    def pictures(self, facts: Mapping[str, Any], done: Any) -> dict[str, Figure]:
        """By the ending of their names."""

    def traces(self, facts: Mapping[str, Any], done: Any) -> Mapping[str, Trace | Sequence[Trace]]:
        """The traces of each curve, one per seed, for a report; none where a figure is not about curves."""
        return {}

    @abc.abstractmethod
    def body(self, facts: Mapping[str, Any], done: Any) -> list[str | Sequence[Mapping[str, Any]]]:
        """Paragraphs, and rows of tables, of the page."""

    def verdicts(self, facts: Mapping[str, Any], done: Any) -> dict[str, Any]:
        """Whether each claim holds."""
        return {claim.text: claim.verdict(self.statistics(facts, done)) for claim in self.claims}

    def held(self, facts: Mapping[str, Any]) -> list[dict[str, str]]:
        """Rows of the table of claims."""
        return [
            {self.claims_are: text} | (verdict if isinstance(verdict, dict) else {"here": verdict})
            for text, verdict in facts["claims"].items()
        ]

    def remarks(self) -> str:
        return (self.said() if callable(self.said) else self.said).strip()

    def took(self, facts: Mapping[str, Any]) -> str:
        """How long it took, in words."""
        return f"{facts['seconds']:.0f} s"

    def page(self, facts: Mapping[str, Any], done: Any, style: str) -> str:
        """Title, body, and how it was made; `style` as in `report.table`."""
        versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
        parts: list[str | Sequence[Mapping[str, Any]]] = [
            f"# {facts['title']}",
            *self.body(facts, done),
            f"Made in {self.took(facts)} by `{facts['command']}` on {facts['device']}; {versions}.",
        ]
        table = lambda rows: report.table([dict(row) for row in rows], style=style)
        return "\n\n".join(part if isinstance(part, str) else table(part) for part in parts if part) + "\n"


def save(figure: Figure, path: Path) -> None:
    """Write a picture; a .png of at most MOST_BYTES."""
    plot.save(figure, path)
    if path.suffix == ".png":
        shrink(path)


def shrink(path: Path) -> None:
    """Write a .png of more than MOST_BYTES again, in fewer colours, and smaller where that is not enough."""
    from PIL import Image

    with Image.open(path) as image:
        whole = image.convert("RGB")
    for share in (1.0, 0.75, 0.5, 0.25):
        if path.stat().st_size <= MOST_BYTES:
            return
        size = (round(share * whole.width), round(share * whole.height))
        few = whole.resize(size).quantize(COLOURS, dither=Image.Dither.NONE)
        with replacing(path) as temporary:
            few.save(temporary, format="png", optimize=True)


def make_problem(dataset: data.Dataset, *arguments: Any, **options: Any) -> Problem:
    """As `fl.problem`, in float64: JAX's 64-bit mode is switched on, before other arrays are made."""
    jax.config.update("jax_enable_x64", True)
    return problems.problem(dataset, *arguments, dtype="float64", **options)


def problem_facts(problem: Problem) -> dict[str, Any]:
    """A problem's shape, condition numbers and optimum, as result files have them."""
    return {
        "clients": problem.n,
        "dim": problem.dim,
        "kappa": problem.kappa,
        "kappa_eff": problem.kappa_eff,
        "f_star": problem.f_star,
    }


def kappa_line(facts: Mapping[str, Any]) -> str:
    """A problem's shape and condition numbers in words."""
    return f"{shape(facts)}, nominal kappa {facts['kappa']:.3g}, effective kappa {facts['kappa_eff']:.3g}"


def shape(facts: Mapping[str, Any]) -> str:
    """Numbers of clients and of parameters in words."""
    return f"n = {facts['clients']}, d = {facts['dim']}"


def check_seeds(seeds: int) -> None:
    """Raise InputError where seeds show no spread."""
    if seeds < 2:
        raise InputError(f"a spread over seeds needs two of them at least, got seeds={seeds}")


def finite(number: float) -> float | None:
    """As JSON has it."""
    return float(number) if abs(number) < float("inf") else None


def plain(value: Any) -> Any:
    """A NumPy scalar as a Python one."""
    return value.item() if hasattr(value, "item") else value

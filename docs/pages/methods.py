"""A page for each method, made from its file and from what it registers."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fedjax_lc as fl
from docs.pages.escaping import cell, markdown
from docs.pages.links import ROOT, hidden, page_of
from fedjax_lc.cli import lists
from fedjax_lc.compressors import Compressor
from fedjax_lc.problems import Problem

STEPS = 100  #: steps over which costs are averaged
SHOWN = 6  #: figures that a page names at most


def pages() -> dict[str, str]:
    """The page of each method of the package, and the table of all."""
    names = [name for name in fl.algorithms.names() if Path(fl.algorithms.get(name).file).is_relative_to(ROOT)]
    return {"methods/index": index(names)} | {f"methods/{name}": page(name) for name in names}


@functools.cache
def example() -> Problem:
    """The problem whose numbers the pages give: the command line's default."""
    return fl.problem("breast_cancer", clients=10, kappa=1e4)


def index(names: list[str]) -> str:
    """The table of methods."""
    rows = [
        f"| [{method.title}]({name}.md) | {cell(method.up)} | {cell(method.down)} | {cell(method.speed or '-')} | "
        f"{'yes' if method.rate else '-'} |"
        for name, method in ((name, fl.algorithms.get(name)) for name in names)
    ]
    return (
        f"# Methods\n\n{len(names)} methods, one file each; [a new one](../guide/new_method.md) is one file more. C "
        'are compressors; "recalled" marks what was not checked against the paper\'s text, "ours" what we derived. '
        "Where *proven* says yes, `fedjax-lc run METHOD --theory` draws the bound beside what was measured.\n\n"
        "| method | up | down | known rate | proven |\n|---|---|---|---|---|\n" + "\n".join([*rows, "", hidden(names)])
    )


@functools.cache
def page(name: str) -> str:
    """The page of one method."""
    method = fl.algorithms.get(name)
    tree = ast.parse(Path(method.file).read_text())
    path = str(Path(method.file).relative_to(ROOT))
    hp = method.theory(example())
    return (
        "\n\n".join(
            [
                f"# {method.title}",
                f"`{name}` · {_paper(method.paper)} · [{Path(path).name}](../{page_of(path)}.md)",
                markdown(ast.get_docstring(tree) or ""),
                f"```bash\nfedjax-lc run {name} --steps 1000 --out runs/{name}\n```",
                "## The step",
                f"```python\n{box(method)}\n```",
                "## Symbols",
                symbols(method, hp),
                "## Theory",
                *theory(method),
                "## Costs",
                costs(method, hp),
                *figures(method),
            ]
        )
        + "\n"
    )


def box(method: Any) -> str:
    """The code of the step: State and `step`, with the functions of the file that it calls.

    Of a method that is put together from frames, the file's own part of it.
    """
    text = Path(method.file).read_text()
    nodes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    step = inspect.unwrap(method.step)
    if step.__code__.co_filename != method.file or step.__name__ not in nodes:
        _, *after = (
            node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Expr)
        )
        return "\n\n\n".join(_code(text, node) for node in after if getattr(node, "name", "") != "theory")
    wanted, open_names = {"State"} & nodes.keys(), [step.__name__]
    while open_names:
        wanted.add(name := open_names.pop())
        used = {node.id for node in ast.walk(nodes[name]) if isinstance(node, ast.Name)} & nodes.keys()
        open_names += [each for each in used if each not in wanted and isinstance(nodes[each], ast.FunctionDef)]
    return "\n\n\n".join(_code(text, node) for name, node in nodes.items() if name in wanted)


def symbols(method: Any, hp: Any) -> str:
    """Tables of the hyperparameters: the method's, then those of its frame that have defaults."""
    fields = {field.name: field for field in dataclasses.fields(method.Hparams)}
    rows: list[str] = []
    shared: list[str] = []
    for name, declared in method.options.items():
        field = fields.get(name)
        if field is None:
            rows.append(f"| `{name}` | a choice of the theory below | {cell(declared.words())} | |")
            continue
        row = f"| `{name}` | {cell(declared.doc)} | {cell(declared.words())} | {cell(shown(getattr(hp, name)))} |"
        (shared if field.kw_only else rows).append(row)
    head = "| symbol | meaning | values | by theory, in the example |\n|---|---|---|---|\n"
    text = (
        head + "\n".join(rows) + "\n\nThe example is the command line's default problem, breast_cancer over 10 clients."
    )
    if shared:
        text += "\n\n### Options of its family\n\n" + head.replace("by theory, in the example", "default")
        text += "\n".join(shared)
    return text


def shown(value: Any) -> str:
    """A hyperparameter's value as text."""
    if isinstance(value, Compressor) or value is None or isinstance(value, str | bool):
        return "-" if value is None else str(value)
    if isinstance(value, int | float | np.ndarray | jax.Array) and np.ndim(value) == 0:
        return f"{float(value):.4g}"
    return type(value).__name__ if np.ndim(value) else str(value)


def theory(method: Any) -> list[str]:
    """What is known, whether it is proven here, and the code that chooses the hyperparameters."""
    known = cell(method.speed) if method.speed else "No rate is stated."
    if method.rate:
        known += (
            f"\n\nThe Lyapunov function and its rate are in the file, and a test holds runs against them: "
            f"`fedjax-lc run {method.name} --theory --out out` draws both."
        )
    else:
        known += "\n\nNo bound of it is drawn: the file has no Lyapunov function with a rate."
    code = _without_docstring(textwrap.dedent(inspect.getsource(inspect.unwrap(method.theory))))
    said = [markdown(inspect.getdoc(method.theory) or "")] if inspect.getdoc(method.theory) else []
    return [known, *said, f"```python\n{code.rstrip()}\n```"]


def costs(method: Any, hp: Any) -> str:
    """What travels and what is kept, and the mean costs of the first steps on the example."""
    each = _measured(method, hp)
    rounds = max(each["rounds"], 1e-9)
    d = example().dim
    per_round = (
        f"{each['bits_up'] / rounds:,.0f} up and {each['bits_down'] / rounds:,.0f} down" if each["rounds"] else "-"
    )
    rows = {
        "a client sends": cell(method.up),
        "a client receives": cell(method.down),
        "arrays (n, d) in the state": str(lists._client_arrays(method)),
        "bits of a client in a round": f"{per_round} (a vector of d = {d} floats: {32 * d:,})",
        "rounds in a step": f"{each['rounds']:.3g}",
        "gradients of a client in a step": f"{each['grads']:.3g}",
    }
    lines = "\n".join(f"| {what} | {value} |" for what, value in rows.items())
    return f"| | |\n|---|---|\n{lines}\n\nNumbers are means of the first {STEPS} steps on the example, seed 0."


def figures(method: Any) -> list[str]:
    """The first figure that shows the method, and links to others."""
    known = appearances(method.name)
    if not known:
        return []
    first, *others = known
    up, name = f"../../{first}.png", page_of(f"{first}.md")
    text = f"![{method.title} in the figure {name.removeprefix('figures/')}]({up})\n\n[What it shows](../{name}.md)."
    if others:
        linked = ", ".join(_figure_link(path) for path in others[:SHOWN])
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        text += f" Also in {linked}{more}."
    return ["## Figures", text]


@functools.cache
def _results() -> Mapping[str, str]:
    """The facts of each committed figure that has a picture, by its path without ending."""
    paths = sorted((ROOT / "experiments").rglob("figures/*.json"))
    return {
        str(path.relative_to(ROOT).with_suffix("")): path.read_text()
        for path in paths
        if path.with_suffix(".png").exists() and path.with_suffix(".md").exists()
    }


def appearances(name: str) -> list[str]:
    """Figures that show the method: those of its paper's folder, then those whose facts name it; the demo last."""
    title = fl.algorithms.get(name).title
    titles = {fl.algorithms.get(each).title for each in fl.algorithms.names()}
    short = title.removesuffix("-SGD")
    spelled = {title} | ({short} if short not in titles else set())
    pattern = re.compile(rf'"(?:{"|".join(map(re.escape, spelled))})(?=["\s,(])')
    own = [path for path in _results() if re.match(rf"{path.split('/')[1]}(_|$)", name)]
    named = [path for path, facts in _results().items() if pattern.search(facts)]
    ordered = dict.fromkeys([*own, *(path for path in named if "/demo" not in path), *named])
    return list(ordered)


def _figure_link(path: str) -> str:
    page = page_of(f"{path}.md")
    return f"[{page.removeprefix('figures/')}](../{page}.md)"


def _paper(paper: str) -> str:
    identifier, _, title = paper.partition(" ")
    identifier = identifier.rstrip(":,")
    linked = re.fullmatch(r"\d{4}\.\d{4,5}", identifier)
    return f"[arXiv {identifier}](https://arxiv.org/abs/{identifier}) {cell(title)}" if linked else cell(paper)


def _measured(method: Any, hp: Any) -> dict[str, float]:
    """The mean cost of the first steps on the example."""
    problem = example()

    @jax.jit
    def total(problem: Problem, hp: Any) -> Any:
        key = jax.random.key(0)
        state = method.init(problem, hp, jax.random.fold_in(key, 2**32 - 1))
        walk: Callable[..., Any] = lambda state, t: method.step(problem, hp, state, jax.random.fold_in(key, t))
        _, cost = jax.lax.scan(walk, state, jnp.arange(STEPS))
        return jax.tree.map(lambda each: jnp.mean(jnp.broadcast_to(each, (STEPS,))), cost)

    return {name: float(value) for name, value in total(problem, hp)._asdict().items()}


def _without_docstring(code: str) -> str:
    body = ast.parse(code).body[0].body  # type: ignore[attr-defined]
    if len(body) > 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        lines = code.splitlines()
        return "\n".join([*lines[: body[0].lineno - 1], *lines[body[0].end_lineno :]])
    return code


def _code(text: str, node: Any) -> str:
    lines = text.splitlines()
    start = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    return "\n".join(lines[start - 1 : node.end_lineno])

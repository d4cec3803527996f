"""A page for each compressor: its constants, its price, and a picture of what it does to a vector."""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import MISSING
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from docs.pages.escaping import markdown
from docs.pages.links import ROOT, hidden, page_of
from fedjax_lc.compressors import Compressor, parse
from fedjax_lc.compressors.base import argument_fields, inner_fields
from fedjax_lc.compressors.parse import REGISTRY

D, DRAWS = 24, 400
EXAMPLES = {
    "bernoulli": "bernoulli:0.5,per=entry",
    "block_sign": "block_sign:6",
    "compensated": "compensated(sign):1,rows=4",
    "dithering": "dithering:4",
    "fcc": "fcc(top_k:3):2",
    "induced": "induced(top_k:3;rand_k:6)",
    "low_rank": "low_rank:1,rows=4",
    "natural_dithering": "natural_dithering:4",
    "per_block": "per_block(sign):8x16",
    "perm_k": "perm_k:4",
    "qsgd": "qsgd:4",
    "rand_k": "rand_k:6",
    "rand_k_unscaled": "rand_k_unscaled:6",
    "scaled": "scaled(rand_k:6)",
    "shared_rand_k": "shared_rand_k:6",
    "sidco": "sidco:0.2",
    "threshold": "threshold:0.2",
    "top_energy": "top_energy:0.9",
    "top_k": "top_k:6",
    "top_per_bit": "top_per_bit:100",
    "top_power_law": "top_power_law:2",
    "top_price": "top_price:6",
}  #: of those that need arguments; the others are their name


def pages(pictures: Path) -> dict[str, str]:
    """The page of each compressor and the table of all; their pictures are written to a folder."""
    pictures.mkdir(parents=True, exist_ok=True)
    for name in REGISTRY:
        draw(name, pictures / f"{name}.svg")
    return {"compressors/index": index()} | {f"compressors/{name}": page(name) for name in REGISTRY}


def example(name: str) -> Compressor:
    """The compressor that stands for a name on its page, for D entries."""
    return parse(EXAMPLES.get(name, name))


def vector() -> np.ndarray:
    """(D,) the vector that is compressed on all pages: float32, of entries large and small."""
    return (np.random.default_rng(4).normal(size=D) * np.geomspace(2, 0.1, D)).astype(np.float32)


@functools.cache
def messages(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The values (DRAWS, D) and bits (DRAWS,) of messages of the vector; one message where all are alike."""
    c, keys = example(name), jax.random.split(jax.random.key(0), DRAWS)

    def message(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        sent = c(key, jnp.asarray(vector()))
        return sent.value, jnp.asarray(sent.bits, jnp.float32)

    values, prices = jax.jit(jax.vmap(message))(keys[:1] if c.deterministic else keys)
    return np.asarray(values), np.asarray(prices)


def draw(name: str, path: Path) -> None:
    """The picture: the vector, one message of it, and the mean of many where messages are random."""
    from matplotlib.figure import Figure

    x, (values, _) = vector(), messages(name)
    rows = [("x", x), (f"C(x): {bits(name)} bits of {32 * D}", values[0])]
    if len(values) > 1:
        rows.append((f"mean of {DRAWS} messages, and x as dots", values.mean(axis=0)))
    figure = Figure(figsize=(7, 1.25 * len(rows) + 0.2), layout="constrained")
    axes = figure.subplots(len(rows), 1, sharex=True)
    for axis, (title, values) in zip(axes, rows, strict=True):
        axis.bar(range(D), values, width=0.7, color="#0072b2")
        axis.axhline(0, color="#888888", linewidth=0.6)
        if title != "x":
            axis.plot(range(D), x, ".", color="#d55e00", markersize=4)
        axis.set_title(title, fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.set_xticks([])
    figure.savefig(path, metadata={"Date": None})


def index() -> str:
    """The table of compressors."""
    rows = []
    for name in sorted(REGISTRY):
        c = example(name)
        what = " ".join(markdown((inspect.getdoc(REGISTRY[name]) or "").split("\n\n")[0]).split()).replace("|", "\\|")
        rows.append(f"| [{name}]({name}.md) | {what} | {kind(c)} | {bits(name)} |")
    return (
        "# Compressors\n\nA compressor is a function of a key and a vector that knows its variance and its price; "
        "`a|b` applies a first. [How to write one](../guide/new_compressor.md). Bits are those of the message in the "
        f"picture on its page, of a vector of {D} floats ({32 * D} bits).\n\n"
        "| name | what it does | class | bits |\n|---|---|---|---|\n" + "\n".join([*rows, "", hidden(sorted(REGISTRY))])
    )


def page(name: str) -> str:
    """The page of one compressor."""
    cls, c = REGISTRY[name], example(name)
    path = str(Path(inspect.getfile(cls)).relative_to(ROOT))
    return (
        "\n\n".join(
            [
                f"# {name}",
                f"`{c}` · [{Path(path).name}](../{page_of(path)}.md)",
                markdown(inspect.getdoc(cls) or ""),
                f"![what {c} does to a vector]({name}.svg)",
                f"*The vector x ({D} entries), and what the receiver decodes; orange dots are x.*",
                "## Arguments",
                arguments(cls),
                "## Variance and price",
                constants(name),
                "```python\nimport fedjax_lc as fl\n\n"
                f'c = fl.compressors.parse("{c}")\nprint(c.omega({D}), c.delta({D}))\n```',
            ]
        )
        + "\n"
    )


def kind(c: Compressor) -> str:
    """Whether it is unbiased, contractive or neither, for D entries."""
    if float(c.omega(D)) < math.inf:
        return "unbiased"
    return "contractive" if float(c.delta(D)) > 0 else "no worst case"


def bits(name: str) -> str:
    """The bits of the message in the picture."""
    return f"{messages(name)[1][0]:,.0f}"


def arguments(cls: type[Compressor]) -> str:
    """A table of what is written in parentheses and behind the colon."""
    rows = [f"| `{name}` | a compressor, in parentheses |" for name in inner_fields(cls)]
    for field in argument_fields(cls):
        default = "needed" if field.default is MISSING else f"`{field.default}`"
        rows += [f"| `{field.name}` | {default} |"]
    return "| argument | default |\n|---|---|\n" + "\n".join(rows) if rows else "None."


def constants(name: str) -> str:
    """The certified constants for D entries, and the bits of the message in the picture."""
    c = example(name)
    rows = [
        ("class", kind(c)),
        (f"omega, d = {D}", _number(c.omega(D))),
        (f"delta, d = {D}", _number(c.delta(D))),
        (f"omega_av of 10 clients, d = {D}", _number(c.omega_av(D, 10))),
        ("bits of the message above", f"{bits(name)} of {32 * D}"),
    ]
    lines = "\n".join(f"| {what} | {value} |" for what, value in rows)
    meaning = (
        r"$\mathbb{E}\,C(x) = x$ and $\mathbb{E}\|C(x) - x\|^2 \le \omega \|x\|^2$ where it is unbiased; "
        r"$\mathbb{E}\|C(x) - x\|^2 \le (1 - \delta) \|x\|^2$ where it contracts; "
        r"$\mathbb{E}\|(1/n) \sum_i (C_i(x_i) - x_i)\|^2 \le (\omega_{av}/n) \sum_i \|x_i\|^2$ of the mean "
        "over clients. How indices are priced is told in [Conventions](../conventions.md)."
    )
    return f"| | |\n|---|---|\n{lines}\n\n{meaning}"


def _number(value: object) -> str:
    number = float(value)  # type: ignore[arg-type]
    return "none" if number == math.inf else f"{number:.4g}"

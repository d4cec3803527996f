"""Hypothesis strategies for what the command line is handed: words, files and saved settings."""

from __future__ import annotations

import argparse
import functools
import json

from hypothesis import strategies as st

from fedjax_lc import cli

HOSTILE = (
    "", " ", "-1", "0", "1e400", "-inf", "nan", "inf", "3e10", "0.5", "1e-320", "2147483648", "4294967296",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 400, "9" * 5000, "None", "true",
    "~nosuchuser/x", "/nosuch/x", "x" * 300, "a\nb", "\x1b[31mred", "\udcff", "a\0b", "--", "%s%(prog)s", "{}",
    "[]", "é", "１", "(" * 50, ")" * 3, "a;b|c:d=e,f", "|".join(["natural"] * 2000), "natural|" * 3,
    "x".join(["9"] * 3000),
)  # fmt: skip
NUMBERS = ("1", "2", "0.1", "1e-3", "10")
COMPRESSORS = (
    "natural",
    "rand_k:2",
    "top_k:10%",
    "rand_k:1|natural",
    "induced(top_k:1;rand_k:1)",
    "per_block(sign):layers",
)
VALID = {
    "data": ("breast_cancer", "iris", "synthetic_logistic:num_clients=3,rows=5,dim=4"),
    "target": ("label", "0"),
    "categories": ("onehot", "codes"),
    "missing": ("mean", "drop"),
    "allow": ("zero", "qid"),
    "scale": ("standard", "none", "unit"),
    "clients": ("2", "5"),
    "partition": ("iid", "sorted", "shards:2", "dirichlet:0.5", "power_law:1.5", "natural", "main_class:0.5"),
    "weights": ("equal", "size"),
    "dtype": ("float32", "float64"),
    "measure": ("grad_norm", "distance", "lyapunov"),
    "index-bits": ("log2", "binom", "int32", "none"),
    "grid": (
        "gamma=0.1,0.2",
        "gamma=theory*log:0.25:4:3",
        "compressor=natural; rand_k:1",
        "gamma=uniform:0.1:1",
        "p=0.1",
    ),
    "sample": ("1", "4"),
    "sample-method": ("random", "sobol", "halton", "latin"),
    "budget": ("bits_up=1e7", "rounds=3"),
    "memory": ("1GB", "512MiB"),
    "masked": ("local_steps",),
    "x": ("bits_up", "rounds", "step"),
    "y": ("rel_gap", "value"),
    "by": ("method", "method,compressor"),
    "metric": ("bits_up", "value", "rounds"),
    "kind": ("best", "heatmap", "sensitivity"),
    "compressor": COMPRESSORS,
    "downlink": COMPRESSORS,
    "model": ("linear", "mlp:hidden=4"),
}  #: values that fit, by option; of all others they are numbers
SLOW = {"model"}  #: options whose good values take long: they are drawn rarely


@functools.cache
def parser(*words: str) -> argparse.ArgumentParser:
    """The parser of a command; of `run` with the options of the method named."""
    top = cli._parser(words)
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return commands.choices[words[0]]


def options(*words: str) -> list[str]:
    """The names of the options of a command that take a value, as it declares them."""
    actions = parser(*words)._actions
    return [a.option_strings[-1][2:] for a in actions if a.option_strings and a.nargs is None]


def flags(*words: str) -> list[str]:
    """Its options without a value, but --help."""
    return [
        a.option_strings[-1] for a in parser(*words)._actions if a.option_strings and a.nargs == 0 and a.dest != "help"
    ]


def nests(word: str) -> st.SearchStrategy[str]:
    """The word as it is, in the small language around it, or amid letters of it."""
    around = (
        "{}", "rand_k:{}", "rand_k:k={}", "induced({};natural)", "{}|natural", "dirichlet:{}", "shards:{}",
        "cosine:{}", "mlp:hidden={}", "synthetic_logistic:dim={}", "synthetic_fedprox:seed={}", "gamma={}",
        "gamma=linear:0:1:{}", "gamma=log:{}:1:3", "gamma=theory*{}", "compressor={}", "batch_size={}",
        "bits_up={}", "steps:{}", "clusters:{}",
    )  # fmt: skip
    return st.sampled_from(around).map(lambda frame: frame.replace("{}", word))


LANGUAGE = st.text("abkorndtpsuim_:,;=|()%*.0123456789x- ", max_size=25)
BAD = st.one_of(
    st.sampled_from(HOSTILE), st.sampled_from(HOSTILE + NUMBERS).flatmap(nests), LANGUAGE, st.text(max_size=12)
)


def value(option: str) -> st.SearchStrategy[str]:
    """A value of an option: one that fits, or another."""
    good = st.sampled_from(VALID.get(option, NUMBERS))
    return BAD if option in SLOW else st.one_of(good, BAD)


@st.composite
def vectors(draw: st.DrawFn, *words: str) -> list[str]:
    """The words of a command line that begins with these: its own options, with values good and bad."""
    known = options(*words)
    chosen = draw(st.lists(st.sampled_from(known), max_size=4)) if known else []
    line = list(words)
    for name in chosen:
        text = draw(value(name))
        line += [f"--{name}={text}"] if draw(st.booleans()) else [f"--{name}", text]
    line += draw(st.lists(st.sampled_from(flags(*words)), max_size=1)) if flags(*words) else []
    if draw(st.integers(0, 9)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(BAD))
    return line


METHODS = ("gd", "sgd", "locodl", "fedavg", "diana", "ef21", "qsgd", "savic")


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Words of any command that reads words alone."""
    command = draw(st.sampled_from(("run", "run", "run", "sweep", "sweep", "list", "figure", "extend", "best", "plot")))
    if command in ("run", "sweep"):
        return draw(vectors(command, draw(st.sampled_from(METHODS))))
    return [*draw(vectors(command)), draw(BAD)]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(HOSTILE[:30]), st.just(10**400)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(("a", "gd", "axes", "value")), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def edited(draw: st.DrawFn, content: str) -> str:
    """JSON text with a value somewhere replaced or left out, or cut off, or nested without end."""
    way = draw(st.integers(0, 9))
    if way == 0:
        return content[: draw(st.integers(0, len(content)))]
    if way == 1:
        return draw(
            st.sampled_from(("", "{}", "[]", "null", "3", '"x"', "[" * 100_000, '{"a":' * 50_000, "\ufeff{}", "\0"))
        )
    tree = json.loads(content)
    here, place = {"": tree}, ""
    for _ in range(draw(st.integers(1, 4))):  # step by step into it
        inside = here[place]
        if isinstance(inside, dict | list) and inside:
            keys = sorted(inside) if isinstance(inside, dict) else range(len(inside))
            here, place = inside, draw(st.sampled_from(list(keys)))
    if draw(st.booleans()) and isinstance(here, dict) and place:
        del here[place]
    else:
        here[place] = draw(JSON)
    return json.dumps(tree)


KEYS = (
    "methods", "grid", "seeds", "steps", "budget", "out", "l2", "labels", "measure", "data", "clients",
    "partition", "rel-gap", "quiet", "memory", "weights", "sample", "nosuch", "model", "scale", "index-bits",
    "masked", "block_size",
)  # fmt: skip
PLAIN = (
    "[]", "[[]]", "{}", "true", "inf", "-nan", "1979-05-27", "07:32:00", "0", "-3", "1e400", "9" * 30,
    "9" * 5000, '""', '"a\\u0000b"', '"\\u001b[31m"', '"gd"', '["gd", 3]', "[0.1, 0.2]", "{gamma = 0.1}",
    "{gamma = [1, 2]}", '{gamma = "theory*1,2"}', "{gamma = [[1]]}", "{gamma = {a = 1}}", "{compressor = 3}",
    '{compressor = ["natural", 3]}', "{bits_up = inf}", "{bits_up = [1]}", "{rounds = 3}",
    "{gamma = 1979-05-27}", "[" * 3000, "[" * 500 + "]" * 500, "{gamma = " + "9" * 400 + "}",
)  # fmt: skip


@st.composite
def toml_texts(draw: st.DrawFn) -> str:
    """TOML whose keys are those of a sweep, and whose values have all kinds."""
    lines = ['methods = ["gd"]'] if draw(st.booleans()) else []
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))
    lines += [f"{key} = {draw(st.sampled_from(PLAIN))}" for key in keys]
    if draw(st.integers(0, 9)) == 0:
        lines.append(
            draw(st.sampled_from(("[grid" + ".a" * 3000 + "]", "x", "[", "\0", '"a" = "b', "a" * 5000 + " = 1")))
        )
    return "\n".join(lines) + "\n"

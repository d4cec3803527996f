"""A method's own fields: declared once, named as its author likes, on the command line beside options of `run`."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedjax_lc as fl
from fedjax_lc.algorithms.frames import base
from fedjax_lc.cli import _parser, main
from fedjax_lc.cli.run import _read
from fedjax_lc.core import pytree
from fedjax_lc.core.hyperparameters import Range, declarations, hyperparameter
from fedjax_lc.core.typing import Scalar

METHOD = '''"""Overshooting gradient descent: x+ = x - scale alpha mean_i C(grad f_i(x))."""

from typing import NamedTuple

import jax.numpy as jnp

from fedjax_lc.algorithms import Cost, choose, constants, hyperparameter, register
from fedjax_lc.compressors import Compressor
from fedjax_lc.core import pytree
from fedjax_lc.core.typing import Scalar, Vec


@pytree.dataclass
class Hparams:
    scale: Scalar = hyperparameter("step size, e.g. 1/L", "(0, inf)")
    compressor: Compressor = hyperparameter("of the uplink, unbiased")
    alpha: Scalar = hyperparameter("how far a step overshoots", "[1, 2]", default=1.5)
    seed: Scalar = hyperparameter("added to nothing", default=0.0)
    s: Scalar = 0.5


class State(NamedTuple):
    x: Vec


def init(problem, hp, key):
    return State(problem.x0)


def step(problem, hp, state, key):
    message = hp.compressor.joint(key, problem.grads(state.x))
    x = state.x - hp.scale * hp.alpha * jnp.mean(message.value, axis=0)
    return State(x), Cost.of(message.bits, 32 * problem.dim, grads=1, rounds=1)


def point(problem, hp, state):
    return state.x


def theory(problem, compressor=None):
    compressor, (L, _) = choose(compressor, problem), constants(problem, "overshoot")
    return Hparams(1 / (2 * L * (1 + compressor.omega_av(problem.dim, problem.n))), compressor)


register("overshoot", paper="none", Hparams=Hparams, init=init, step=step, point=point, theory=theory)
'''
WRONG = {  #: of each kind of field, values that no method takes
    "number": [np.nan, np.inf, "fast", np.array([0.1, np.nan])],
    "whole number": [0.5, 0, "all"],
    "truth": ["no", 2],
    "choice": ["no_such_choice"],
    "compressor": ["rand_k"],
    "schedule": ["cosin:10", 3],
    "per client": [0, 1.5, "all", np.array([1, 0])],
    "array": ["D"],
    "word": ["no_such_word"],
    "topology": ["rign", 3],
}
ROOT = Path(__file__).parents[1]
STEPS = ["--steps", "60", "--every", "20", "--quiet"]


@pytree.dataclass
class Fields:
    C: fl.compressors.Compressor = hyperparameter("of the uplink")
    rows: int | None = hyperparameter("rows of a batch", "whole [1, inf)", static=True)
    way: str = hyperparameter("which way", ("none", "3"))
    vectors: int = hyperparameter("so many vectors", (1, 2))
    flag: bool = hyperparameter("whether it is so", default=False)
    plain: Scalar = 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("methods")
    (path / "overshoot.py").write_text(METHOD)
    return path


@pytest.fixture
def overshoot(folder):
    base.load(folder / "overshoot.py")
    yield fl.algorithms.get("overshoot")
    del base._REGISTRY["overshoot"]


def started(folder, program, *arguments):
    settings = {"FEDJAX_LC_METHODS": str(folder), "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, *program, *arguments], env=os.environ | settings, cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip


def test_it_is_known_by_its_folder(folder):
    done = started(folder, ["-m", "fedjax_lc.cli"], "run", "overshoot", "--s", "inf", *STEPS)
    assert (done.returncode, done.stderr) == (2, "fedjax-lc: overshoot needs s finite, got inf\n")


@pytest.mark.usefixtures("overshoot")
def test_help_tells_every_sentence_and_every_clash(capsys):
    words = helped(capsys, "overshoot")
    for sentence in ("step size, e.g. 1/L", "how far a step overshoots", "of the uplink, unbiased", "added to nothing"):
        assert sentence in words
    assert "--hp-scale VALUE" in words
    assert "--hp-seed VALUE" in words
    assert "--scale is an option of run itself" in words
    assert "--alpha VALUE" in words


@pytest.mark.usefixtures("overshoot")
def test_it_runs_and_its_options_are_its_own(capsys):
    assert main(["run", "overshoot", "--hp-scale", "0.01", "--alpha", "1.25", "--seed", "3", *STEPS]) == 0
    words = capsys.readouterr().out
    assert "scale=0.01" in words
    assert "alpha=1.25" in words


@pytest.mark.usefixtures("overshoot")
def test_it_is_swept():
    axes = ["--grid", "scale=theory*0.5, 1", "--grid", "alpha=1, 1.5, 2", "--grid", "seed=0, 1"]
    assert main(["sweep", "overshoot", *axes, "--steps", "40", "--every", "20", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--alpha", "2.5"], "overshoot needs alpha in [1, 2], got 2.5"),
        (["--hp-scale", "0"], "overshoot needs scale > 0, got 0"),
    ],
)
@pytest.mark.usefixtures("overshoot")
def test_out_of_its_own_range_is_one_line(refused, option, words):
    assert refused("run", "overshoot", *option, *STEPS) == words


@pytest.mark.slow
def test_it_passes_the_contract(folder):
    suite = ["tests/contract/test_algorithms.py", "-k", "overshoot", "-p", "no:cacheprovider", "-n", "0"]
    done = started(folder, ["-m", "pytest"], *suite)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 5


def test_names_mean_nothing_in_a_method_of_ones_own(overshoot, problem):
    hp = overshoot.theory(problem)
    overshoot.check(problem, hp)  # alpha above 1, s = 0.5
    overshoot.check(problem, dataclasses.replace(hp, s=-7.25, alpha=np.float64(2)))
    with pytest.raises(fl.InputError, match=r"needs s finite, got nan"):
        overshoot.check(problem, dataclasses.replace(hp, s=float("nan")))


def test_names_keep_their_ranges_in_the_packages_methods(problem):
    diana = fl.algorithms.get("diana")
    with pytest.raises(fl.InputError, match=r"needs alpha in \(0, 1\], got 1.5"):
        diana.check(problem, dataclasses.replace(diana.theory(problem), alpha=1.5))


@pytest.mark.parametrize("name", fl.algorithms.names())
def test_every_field_has_a_sentence_a_kind_and_a_range(name, problem):
    method = fl.algorithms.get(name)
    hp = method.theory(problem)
    method.check(problem, hp)
    for field, declared in declarations(method.Hparams).items():
        assert re.fullmatch(r"\S.+[^.\s]", declared.doc), field  # one line, without a full stop
        for value in WRONG[declared.kind]:
            with pytest.raises(fl.InputError) as caught:
                method.check(problem, dataclasses.replace(hp, **{field: value}))
            assert field in str(caught.value) or "schedule" in str(caught.value)


@pytest.mark.parametrize("name", fl.algorithms.names())
def test_help_has_every_sentence(name, capsys):
    with pytest.raises(SystemExit):
        _parser(["run", name]).parse_args(["run", name, "--help"])
    words = "".join(capsys.readouterr().out.split())
    for field, declared in declarations(fl.algorithms.get(name).Hparams).items():
        assert f"{declared.doc}{declared.words() and f' ({declared.words()})'}".replace(" ", "") in words, field


def helped(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["run", *arguments, "--help"])
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("choices", "shown"),
    [({}, "rand_k:3|natural on breast_cancer"), ({"compressor": "rand_k:1"}, "from theory")],
)
def test_help_shows_what_theory_gives_for_the_data(choices, shown, capsys):
    given = [word for name, value in choices.items() for word in (f"--{name}", value)]
    words = helped(capsys, "diana", "--kappa", "50", *given)
    problem = fl.problem("breast_cancer", kappa=50, dtype="float64")
    gamma = fl.algorithms.get("diana").theory(problem, **choices).gamma
    assert f"step size (> 0); theory: {gamma:.6g} on breast_cancer" in words
    assert shown in words
    assert "twice in a batch (true or false); default: False" in words
    assert "a choice of its theory; default: paper" in words


@pytest.mark.parametrize("aside", [["--model", "mlp"], ["--data", "no_such_set"], ["--no-such-option"]])
def test_help_without_values_at_hand(aside, capsys):
    assert "step size (> 0); from theory" in helped(capsys, "diana", *aside)


def test_the_list_of_hyperparameters(capsys):
    assert main(["list", "hyperparameters"]) == 0
    rows = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert ["tamuna", "s", "whole number", "whole and in 2..cohort_size", "theory's"] in [row[:5] for row in rows]
    assert ["fedavg", "local_steps", "per client", "whole and >= 1, or one for each client", "10"] in [
        row[:5] for row in rows
    ]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("natural", "C", fl.compressors.parse("natural")),
        ("2", "rows", 2),
        ("None", "rows", None),
        ("none", "way", "none"),
        ("3", "way", "3"),
        ("2", "vectors", 2),
        ("true", "flag", True),
        ("0.5", "plain", 0.5),
        ("fast", "plain", "fast"),
    ],
)
def test_what_a_word_of_the_command_line_stands_for(text, field, value):
    found = _read(text, declarations(Fields)[field])
    assert found == value
    assert type(found) is type(value)


def test_kinds_come_from_types_and_ranges():
    kinds = {name: declared.kind for name, declared in declarations(Fields).items()}
    assert kinds == {
        "C": "compressor", "rows": "whole number", "way": "choice", "vectors": "choice", "flag": "truth",
        "plain": "number",
    }  # fmt: skip
    static = {field.name for field in dataclasses.fields(Fields) if field.metadata.get("static")}
    assert static == {"rows", "way", "vectors", "flag"}


def test_a_type_that_cannot_be_looked_up_says_nothing():
    Unknown = dataclasses.make_dataclass("Unknown", [("a", "Nowhere"), ("b", "int", 1)])
    assert [declared.kind for declared in declarations(Unknown).values()] == ["number", "number"]


def test_a_range_may_end_at_a_field_but_not_at_a_word(problem):
    tamuna = fl.algorithms.get("tamuna")
    hp = dataclasses.replace(tamuna.theory(problem), cohort_size=3, s=3)
    tamuna.check(problem, hp)
    with pytest.raises(fl.InputError, match=r"tamuna needs s whole and in 2\.\.3, got 4"):
        tamuna.check(problem, dataclasses.replace(hp, s=4))
    Wrong = dataclasses.make_dataclass("Wrong", [("a", float, hyperparameter("of a", "[0, size]"))])
    with pytest.raises(fl.InputError, match="the range of a ends at size: it is neither n nor a field"):
        declarations(Wrong)


def test_a_name_is_registered_once(folder, overshoot, tmp_path):
    base.load(folder / "overshoot.py")  # the same file again
    (tmp_path / "mine.py").write_text(METHOD.replace('register("overshoot"', 'register("gd"'))
    before = fl.algorithms.get("gd")
    with pytest.raises(fl.InputError, match=r"method gd is registered twice, in .*gd\.py and in .*mine\.py: choose"):
        base.load(tmp_path / "mine.py")
    assert fl.algorithms.get("gd") is before


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("(0, 1]", [1e-9, 1], [0, 1.01, -1, np.nan, np.inf]),
        ("[0, inf)", [0, 1e300], [-1e-9, np.inf]),
        ("whole [1, n]", [1, 2.0, 4], [0, 1.5, 5]),
    ],
)
def test_ranges(text, inside, outside):
    found = Range.parse(text)
    assert all(found.holds(number, 4) for number in inside)
    assert not any(found.holds(number, 4) for number in outside)


def test_words_of_ranges():
    assert Range.parse("whole [1, n]").words(4) == "whole and in 1..4"
    assert Range.parse("(0, 1]").words(4) == "in (0, 1]"


@pytest.mark.parametrize("text", ["", "0..1", "[1e, 1]", "[0, 1", "> 0"])
def test_a_range_that_cannot_be_read(text):
    with pytest.raises(fl.InputError, match="a range is written as in"):
        Range.parse(text)

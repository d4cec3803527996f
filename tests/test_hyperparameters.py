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
from fedjax_lc.core.hyperparameters import Range

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
ROOT = Path(__file__).parents[1]
STEPS = ["--steps", "60", "--every", "20", "--quiet"]


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


def command(folder, *arguments):
    return started(folder, ["-m", "fedjax_lc.cli"], *arguments)


def test_help_tells_every_sentence_and_every_clash(folder):
    done = command(folder, "run", "overshoot", "--help")
    words = " ".join(done.stdout.split())
    for sentence in ("step size, e.g. 1/L", "how far a step overshoots", "of the uplink, unbiased", "added to nothing"):
        assert sentence in words
    assert "--hp-scale VALUE" in words
    assert "--hp-seed VALUE" in words
    assert "--scale is an option of run itself" in words
    assert "--alpha VALUE" in words


def test_it_runs_and_its_options_are_its_own(folder):
    done = command(folder, "run", "overshoot", "--hp-scale", "0.01", "--alpha", "1.25", "--seed", "3", *STEPS)
    assert done.returncode == 0, done.stderr
    assert "scale=0.01" in done.stdout
    assert "alpha=1.25" in done.stdout


def test_it_is_swept(folder):
    axes = ["--grid", "scale=theory*0.5, 1", "--grid", "alpha=1, 1.5, 2", "--grid", "seed=0, 1"]
    done = command(folder, "sweep", "overshoot", *axes, "--steps", "40", "--every", "20", "--quiet")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--alpha", "2.5"], "overshoot needs alpha in [1, 2], got 2.5"),
        (["--hp-scale", "0"], "overshoot needs scale > 0, got 0"),
        (["--s", "inf"], "overshoot needs s finite, got inf"),
    ],
)
def test_out_of_its_own_range_is_one_line(folder, option, words):
    done = command(folder, "run", "overshoot", *option, *STEPS)
    assert done.returncode == 2
    assert done.stderr == f"fedjax-lc: {words}\n"


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

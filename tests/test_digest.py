"""Digests: the same content has the same one, in any place and process; other numbers, code or constants another."""

import dataclasses
import functools
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lc as fl
from fedjax_lc.core.digest import digest, digest_apart
from fedjax_lc.core.pytree import dataclass as tree

FACTOR = 2.0


def helper(t):
    return FACTOR * t


def closing_over(value):
    return lambda t: t * value


def nested(power):
    def outer(t):
        def inner(s):
            return s**3 if power else s**2

        return inner(t)

    return outer


@tree
class Point:
    x: float
    f: object = dataclasses.field(default=None, metadata={"static": True})


class Plain:
    def __init__(self, x):
        self.x = x

    def __call__(self, t):
        return self.x * t


DIFFERENT = {
    "a number and another": (1.0, 2.0),
    "a number and a whole one": (1.0, 1),
    "signed zeros": (0.0, -0.0),
    "types of arrays": (np.ones(2), np.ones(2, np.float32)),
    "shapes": (np.ones((2, 1)), np.ones((1, 2))),
    "the last bit": (np.ones(3), np.nextafter(np.ones(3), 2)),
    "objects in arrays": (np.array([1, "a"], object), np.array([1, "b"], object)),
    "arrays deep inside": ({"a": [np.ones(500)]}, {"a": [np.zeros(500)]}),
    "keys": (jax.random.key(0), jax.random.key(1)),
    "lambdas": (lambda t: t + 1, lambda t: t + 2),
    "operations": (lambda t: t + 1, lambda t: t - 1),
    "closed-over values": (closing_over(1), closing_over(2)),
    "closed-over arrays": (closing_over(np.ones(3)), closing_over(np.zeros(3))),
    "closed-over functions": (closing_over(lambda: 1), closing_over(lambda: 2)),
    "defaults": (lambda t, a=1: a * t, lambda t, a=2: a * t),
    "keyword defaults": (lambda t, *, a=1: a * t, lambda t, *, a=2: a * t),
    "arguments of partial": (functools.partial(helper, 1), functools.partial(helper, 2)),
    "optax schedules of one kind": (optax.cosine_decay_schedule(1.0, 100), optax.cosine_decay_schedule(1.0, 200)),
    "optax schedules": (optax.linear_schedule(1.0, 0.0, 9), optax.constant_schedule(1.0)),
    "joined optax schedules": tuple(
        optax.join_schedules([optax.constant_schedule(a), optax.constant_schedule(1.0)], [5]) for a in (1.0, 2.0)
    ),
    "compiled functions": (jax.jit(lambda t: t + 1), jax.jit(lambda t: t + 2)),
    "bound objects": (Plain(1).__call__, Plain(2).__call__),
    "callable objects": (Plain(1), Plain(2)),
    "functions of a library": (jnp.sin, jnp.cos),
    "compressors": (fl.compressors.parse("rand_k:1"), fl.compressors.parse("rand_k:2")),
    "fields": (Point(1.0), Point(2.0)),
    "functions in fields": (Point(1.0, closing_over(1)), Point(1.0, closing_over(2))),
    "optimisers": (optax.sgd(0.1), optax.sgd(0.2)),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_other_content_has_another_digest(one, other):
    assert digest(one) != digest(other)
    assert digest(one) == digest(one)


def test_the_same_content_written_again_is_the_same():
    for one, other in (
        (lambda t: t / 3 + FACTOR, lambda t: t / 3 + FACTOR),
        (nested(True), nested(True)),
        (closing_over(np.arange(3)), closing_over(np.arange(3))),
        (optax.cosine_decay_schedule(1.0, 100), optax.cosine_decay_schedule(1.0, 100)),
        (jax.jit(lambda t: t in {"a", "b", "c"}), jax.jit(lambda t: t in {"a", "b", "c"})),
        (Plain(np.ones(2)), Plain(np.ones(2))),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([a := np.ones(2), a], [np.ones(2), np.ones(2)]),
        (jnp.ones(3), np.ones(3)),
    ):
        assert digest(one) == digest(other)


def test_nested_code_and_named_globals_count(monkeypatch):
    one, other = (lambda t: (lambda s: s + 1)(t)), (lambda t: (lambda s: s + 2)(t))
    assert digest(one) != digest(other)
    before = digest(lambda t: helper(t))
    assert before != digest(helper)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert digest(lambda t: helper(t)) != before


def test_a_function_that_calls_itself_ends():
    def fall(t):
        return fall(t - 1) if t else 0

    def fell(t):
        return fell(t - 1) if t else 1

    assert digest(fall) != digest(fell)


def test_pickling_an_instance_changes_nothing():
    """It leaves a note in the class."""
    before = digest(Plain), digest(Point)
    pickle.dumps([Plain(1), Point(1.0)])
    assert "__slotnames__" in vars(Plain)
    assert (digest(Plain), digest(Point)) == before


def test_functions_apart_from_numbers():
    one, other = Point(1.0, lambda t: t + 1), Point(1.0, lambda t: t + 2)
    (rest, functions), (same, others) = digest_apart([one]), digest_apart([other])
    assert rest == same
    assert functions.keys() == others.keys() == {"f", "Point"}
    assert functions["f"] != others["f"]
    assert functions["Point"] == others["Point"]
    assert digest_apart([one, other])[1]["f"] != digest_apart([other, one])[1]["f"]
    assert digest_apart([Point(2.0, lambda t: t + 1)])[0] != rest
    assert digest_apart([one], known=[Point])[1].keys() == {"f"}


SCRIPT = """
import dataclasses
import numpy as np, optax, jax, jax.numpy as jnp
import fedjax_lc as fl
from fedjax_lc.core.digest import digest
{blank}
class Mine:
    words = frozenset({{"a", "b", "c"}})
    def f(self, t):
        return t in {{"x", "y", "z"}}
def g(t):
    return g(t) + jnp.sin(t) * np.pi
rng = np.random.default_rng(0)
problem = fl.problem((rng.normal(size=(20, 3)), np.sign(rng.normal(size=20))), clients=2, dtype="float32", kappa=10)
alg = fl.algorithms.get("fedavg")
hp = dataclasses.replace(alg.theory(problem), client_schedule=optax.cosine_decay_schedule(1.0, 100))
print(digest(Mine, Mine().f, g, problem, alg, hp, lambda t: {{"a", "b"}}, optax.adam(optax.linear_schedule(1, 0, 5))))
"""


@pytest.mark.slow
def test_processes_agree(tmp_path):
    """Whatever seeds their sets and dictionaries, and wherever the code lies in its file."""
    digests = set()
    for number in range(2):
        script = tmp_path / f"script{number}.py"
        script.write_text(textwrap.dedent(SCRIPT.format(blank="\n" * number)))
        ran = subprocess.run(
            [sys.executable, script], env={"PYTHONHASHSEED": str(number), "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(ran.stdout)
    assert len(digests) == 1

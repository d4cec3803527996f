"""Frozen dataclasses as pytrees: what is a leaf, what is structure, and when two structures are the same."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_lc import algorithms, compressors
from fedjax_lc.core import pytree


@pytree.dataclass
class One:
    a: float
    b: int = pytree.static(default=1)
    c: float = 2.0


@pytree.dataclass
class Other:
    a: float
    b: int = pytree.static(default=1)
    c: float = 2.0


def test_numbers_are_leaves_and_static_fields_structure():
    assert jax.tree.leaves(One(0.5, b=3, c=0.25)) == [0.5, 0.25]
    assert jax.tree.map(lambda leaf: 2 * leaf, One(0.5, b=3, c=0.25)) == One(1.0, b=3, c=0.5)
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(One(0.5))] == [".a", ".c"]
    assert jax.tree.structure(One(0.5)) == jax.tree.structure(One(0.75))
    assert jax.tree.structure(One(0.5)) != jax.tree.structure(One(0.5, b=2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        One(0.5).a = 1.0


@pytree.dataclass
class Counting:
    a: float
    steps: int = pytree.count(default=10)
    c: float = 2.0


def test_a_count_is_structure_where_it_is_a_plain_number():
    assert jax.tree.leaves(Counting(0.5, steps=3)) == [0.5, 2.0]
    assert jax.tree.structure(Counting(0.5, steps=3)) == jax.tree.structure(Counting(0.5, steps=np.int64(3)))
    assert jax.tree.structure(Counting(0.5, steps=3)) != jax.tree.structure(Counting(0.5, steps=4))
    assert jax.tree.map(lambda leaf: 2 * leaf, Counting(0.5, steps=3)) == Counting(1.0, steps=3, c=4.0)


def test_a_count_is_a_leaf_where_it_is_an_array():
    tree = Counting(0.5, steps=jnp.array(3))
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)] == [
        ".a",
        ".steps",
        ".c",
    ]
    assert int(jax.jit(lambda tree: tree.steps + 1)(tree)) == 4
    assert jax.jit(lambda tree: jnp.zeros(tree.steps))(Counting(0.5, steps=3)).shape == (3,)


def test_opened_counts_of_all_sizes_have_one_structure():
    few, many = (pytree.opened(Counting(0.5, steps=steps)) for steps in (3, 4))
    assert jax.tree.structure(few) == jax.tree.structure(many)
    assert [int(leaf) for leaf in jax.tree.leaves(many)] == [0, 4, 2]


def test_a_jitted_function_tells_classes_with_the_same_fields_apart():
    assert jax.tree.structure(One(0.5)) != jax.tree.structure(Other(0.5))
    with pytest.raises(ValueError, match="different types"):
        jax.tree.map(lambda a, b: a, One(0.5), Other(0.5))
    traced = []
    note = jax.jit(lambda tree: traced.append(type(tree)) or jnp.zeros(()))
    for tree in (One(0.5), Other(0.5), One(0.75), Other(0.75)):
        note(tree)
    assert traced == [One, Other]


def test_all_compressors_and_hyperparameters_have_structures_of_their_own():
    kinds = [kind for kind in vars(compressors).values() if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    kinds += dict.fromkeys(algorithms.get(name).Hparams for name in algorithms.names())
    assert len(kinds) > 40
    for one, other in itertools.combinations(kinds, 2):
        assert jax.tree.structure(_filled(one)) != jax.tree.structure(_filled(other)), (one, other)


def _filled(kind):
    """An object of `kind` with every field 0, whatever __init__ says."""
    tree = object.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(tree, field.name, 0)
    return tree

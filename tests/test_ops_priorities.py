"""The tree of sums against plain arrays."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlete.ops.priorities import WIDTH, sequence_priority, tree_find, tree_init, tree_set

change, search = jax.jit(tree_set), jax.jit(tree_find)


def find(tree, uniform):
    """The leaves that are found; the priorities that come with them are theirs."""
    leaf, priority = search(tree, uniform)
    np.testing.assert_array_equal(priority, np.ravel(tree[0])[leaf])
    return np.asarray(leaf)


def tree_of(priorities):
    priorities = np.asarray(priorities, np.float32)
    return change(tree_init(len(priorities)), np.arange(len(priorities)), priorities)


def test_each_leaf_is_found_over_its_own_part_of_the_line():
    tree = tree_of([1, 0, 2, 1])  # ends at 1/4, 1/4, 3/4 and 1
    found = find(tree, np.array([0, 0.24, 0.25, 0.5, 0.74, 0.75, 0.99, 1], np.float32))
    np.testing.assert_array_equal(found, [0, 0, 2, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(tree[0][0, :5], [1, 0, 2, 1, 0])


def test_a_tree_of_nothing_finds_leaf_0():
    np.testing.assert_array_equal(find(tree_init(40_000), np.array([0, 0.3, 1], np.float32)), 0)


@pytest.mark.parametrize(("leaves", "levels"), [(1, 1), (32, 1), (33, 2), (1024, 2), (1_000_000, 4)])
def test_levels_grow_with_the_logarithm_of_the_leaves(leaves, levels):
    tree = tree_init(leaves)
    assert len(tree) == levels
    assert tree[0].size - WIDTH < leaves <= tree[0].size
    assert tree[-1].shape == (1, WIDTH)


changes = st.lists(
    st.tuples(st.integers(0, 1199), st.sampled_from([0.0, 1e-4, 0.5, 1.0, 3.7, 1e4])), min_size=8, max_size=8
)


@settings(max_examples=25, deadline=None)
@given(rounds=st.lists(changes, min_size=1, max_size=5))
def test_after_any_changes_it_holds_the_last_ones_and_their_sums(rounds):
    tree, plain = tree_init(1200), np.zeros(1216, np.float32)
    for named in rounds:
        leaf, priority = np.array([leaf for leaf, _ in named]), np.array([new for _, new in named], np.float32)
        tree = change(tree, leaf, priority)
        found = np.ravel(tree[0])[leaf]
        for i, one in enumerate(leaf):  # of several priorities for one leaf, one holds
            assert found[i] in priority[leaf == one]
        plain[leaf] = found
    np.testing.assert_array_equal(np.ravel(tree[0]), plain)
    for lower, upper in itertools.pairwise(tree):
        sums = np.asarray(lower, np.float64).sum(axis=1)
        np.testing.assert_allclose(np.ravel(upper)[: len(sums)], sums, rtol=1e-6)
        assert not np.ravel(upper)[len(sums) :].any()
    np.testing.assert_allclose(np.sum(tree[-1]), plain.sum(dtype=np.float64), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), share=st.sampled_from([0.01, 0.5, 1.0]), spread=st.sampled_from([0.0, 1.0, 4.0]))
def test_it_finds_the_leaf_under_a_place_but_for_rounding(seed, share, spread):
    random = np.random.default_rng(seed)
    plain = (random.random(1200) < share) * np.exp(spread * random.normal(size=1200)).astype(np.float32)
    plain[random.integers(1200)] = 1.0  # at least one
    uniform = random.random(64).astype(np.float32)
    leaf = find(tree_of(plain), uniform)
    ends = np.cumsum(plain, dtype=np.float64)
    assert (plain[leaf] > 0).all()
    assert (ends[leaf] - plain[leaf] <= (uniform + 1e-6) * ends[-1]).all()
    assert ((uniform - 1e-6) * ends[-1] <= ends[leaf]).all()


def test_leaves_come_as_often_as_their_priorities_say():
    random = np.random.default_rng(0)
    plain = random.integers(0, 5, 2000).astype(np.float32)
    drawn = find(tree_of(plain), random.random(400_000).astype(np.float32))
    count = np.bincount(drawn, minlength=2000)
    expected = 400_000 * plain / plain.sum()
    assert not count[plain == 0].any()
    there = plain > 0
    statistic = ((count - expected)[there] ** 2 / expected[there]).sum()
    freedom = there.sum() - 1
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)  # chi-square is nearly normal by now


@pytest.mark.parametrize("kind", ["sparse", "uneven", "one at the end"])
def test_a_million_leaves_never_give_one_without_priority(kind):
    random = np.random.default_rng(1)
    plain = np.zeros(1_000_000, np.float32)
    if kind == "sparse":
        plain[random.choice(1_000_000, 1000, replace=False)] = random.random(1000).astype(np.float32) + 1e-6
    elif kind == "uneven":
        plain = (random.random(1_000_000) < 0.5) * np.exp(6 * random.normal(size=1_000_000)).astype(np.float32)
    else:
        plain[-1] = 1e-6
    uniform = np.concatenate([random.random(200_000).astype(np.float32), np.float32([0, 1, 1 - 2**-24, 2**-30])])
    leaf = find(tree_of(plain), uniform)
    assert (plain[leaf] > 0).all()


def test_a_trees_sums_do_not_depend_on_how_many_leaves_are_set_at_once():
    plain = np.random.default_rng(2).random(1200).astype(np.float32)
    one_by_one = tree_init(1200)
    for leaf in range(1200):
        one_by_one = change(one_by_one, np.array([leaf]), plain[leaf : leaf + 1])
    for a, b in zip(one_by_one, tree_of(plain), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mapping_equals_looping():
    plain = np.random.default_rng(3).random((3, 40)).astype(np.float32)
    uniform = np.random.default_rng(4).random((3, 7)).astype(np.float32)
    leaves = jnp.broadcast_to(jnp.arange(40), (3, 40))
    trees = jax.vmap(lambda leaf, priority: tree_set(tree_init(40), leaf, priority))(leaves, plain)
    found, _ = jax.jit(jax.vmap(tree_find))(trees, uniform)
    for i in range(3):
        np.testing.assert_array_equal(found[i], find(tree_of(plain[i]), uniform[i]))


def test_a_sequences_priority_is_mostly_its_largest_error():
    error = np.array([[1.0, 0.0], [-3.0, 0.0], [2.0, 0.5]], np.float32)  # two sequences of three steps
    expected = [0.9 * 3 + 0.1 * 2, 0.9 * 0.5 + 0.1 * 0.5 / 3]
    np.testing.assert_allclose(jax.jit(sequence_priority)(error, 0.9), expected, rtol=1e-6)
    np.testing.assert_allclose(sequence_priority(error, 0.0), [2, 0.5 / 3], rtol=1e-6)

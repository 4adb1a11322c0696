"""The library's generator: bits as a fair coin's, keys as if unrelated, the same mapped as looped."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.random import unwrap, wrap

NUMBER = 1 << 18
SEEDS = np.arange(NUMBER, dtype=np.uint32)
SOURCES = {
    "one key, many counters": jax.jit(lambda key: jax.random.bits(key, (NUMBER,))),
    "many seeds, one counter": jax.jit(
        lambda key: jax.vmap(lambda i: jax.random.bits(wrap(jnp.stack([unwrap(key)[0], i])), ()))(SEEDS)
    ),
    "split keys, first word": jax.jit(lambda key: unwrap(jax.random.split(key, NUMBER))[:, 0]),
    "split keys, second word": jax.jit(lambda key: unwrap(jax.random.split(key, NUMBER))[:, 1]),
    "draws of split keys": jax.jit(
        lambda key: jax.vmap(lambda child: jax.random.bits(child, (4,)))(jax.random.split(key, NUMBER // 4)).ravel()
    ),
    "folded in numbers": jax.jit(lambda key: jax.vmap(lambda i: unwrap(jax.random.fold_in(key, i))[1])(SEEDS)),
}


def key_of(low, high=0):
    return wrap(np.array([high, low], np.uint32))


@pytest.fixture(scope="module", params=SOURCES)
def words(request):
    """`[keys, NUMBER]` words of a source, from small keys such as users give and a large one."""
    draw = SOURCES[request.param]
    return np.stack([np.asarray(draw(key_of(*data)), np.uint32) for data in [(0, 0), (1, 0), (987654321, 123456789)]])


def deviations(counts):
    """How far a chi-square statistic over equally likely cells is from its mean, in its standard deviations."""
    expected = counts.sum(axis=-1, keepdims=True) / counts.shape[-1]
    freedom = counts.shape[-1] - 1
    return (((counts - expected) ** 2 / expected).sum(axis=-1) - freedom) / np.sqrt(2 * freedom)


def test_each_of_the_32_bits_is_a_fair_coin(words):
    share = np.stack([((words >> bit) & 1).mean(axis=1) for bit in range(32)])
    assert np.abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(NUMBER)


def test_bytes_are_uniform(words):
    lanes = words.view(np.uint8).reshape(len(words), NUMBER, 4)
    counts = np.stack([np.bincount(lanes[i, :, lane], minlength=256) for i in range(len(words)) for lane in range(4)])
    assert np.abs(deviations(counts)).max() < 5


def test_a_word_says_nothing_about_the_next(words):
    for shift in (0, 26):  # the lowest and the highest six bits
        digits = ((words >> shift) & 63).astype(int)
        counts = np.stack([np.bincount(row[:-1] * 64 + row[1:], minlength=4096) for row in digits])
        assert np.abs(deviations(counts)).max() < 5


def test_words_hardly_repeat(words):
    for row in words:
        # Of 2^18 words out of 2^32, 8 pairs are expected to be equal.
        assert NUMBER - len(np.unique(row)) < 30


def test_neighbouring_seeds_and_split_keys_are_uncorrelated():
    @jax.jit
    def streams(key):
        keys = jax.random.split(key, 3)
        return jax.vmap(lambda child: jax.random.uniform(child, (NUMBER,)))(keys)

    families = [streams(key_of(seed)) for seed in (0, 1, 2)]
    correlation = np.corrcoef(np.concatenate(families)) - np.eye(9)
    assert np.abs(correlation).max() < 5 / np.sqrt(NUMBER)


def test_children_do_not_depend_on_how_many_were_born():
    @jax.jit
    def families(key):
        return [unwrap(jax.random.split(key, count)) for count in (10, 5, (2, 3))]

    ten, five, grid = families(key_of(3))
    np.testing.assert_array_equal(ten[:5], five)
    np.testing.assert_array_equal(ten[:6], grid.reshape(6, 2))


def test_a_key_its_children_and_what_is_folded_in_are_all_different():
    @jax.jit
    def family(key):
        folded = jax.vmap(lambda number: unwrap(jax.random.fold_in(key, number)))(SEEDS[:100])
        return jnp.concatenate([unwrap(key)[None], unwrap(jax.random.split(key, 100)), folded])

    assert len(np.unique(family(key_of(3)), axis=0)) == 201


def test_seeds_give_keys_of_their_own_and_data_survives_wrapping():
    data = np.array([[1, 2], [3, 4]], np.uint32)
    np.testing.assert_array_equal(unwrap(wrap(data)), data)
    assert unwrap(wrap(data)).dtype == np.uint32


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: jax.random.bits(key, (3,)),
        lambda key: jax.random.normal(key, (3,)),
        lambda key: unwrap(jax.random.split(key, 3)),
        lambda key: unwrap(jax.random.fold_in(key, 5)),
    ],
)
def test_mapped_equals_looped(draw):
    keys = wrap(np.array([[0, 0], [0, 1], [7, 9]], np.uint32))
    mapped = jax.jit(jax.vmap(draw))(keys)
    single = jax.jit(draw)
    np.testing.assert_array_equal(mapped, np.stack([single(keys[i]) for i in range(3)]))


def test_normal_numbers_are_standard_normal_and_uniform_ones_uniform():
    @jax.jit
    def draw(key):
        return jax.random.normal(key, (NUMBER,)), jax.random.uniform(key, (NUMBER,))

    normal, uniform = map(np.asarray, draw(key_of(4)))
    assert normal.mean() == pytest.approx(0, abs=5 / np.sqrt(NUMBER))
    assert normal.std() == pytest.approx(1, abs=5 / np.sqrt(2 * NUMBER))
    assert (np.abs(normal) < 1).mean() == pytest.approx(0.682689, abs=5 * 0.47 / np.sqrt(NUMBER))
    assert ((normal**3).mean(), (normal**4).mean()) == pytest.approx((0, 3), abs=0.1)
    assert 0 <= uniform.min() < uniform.max() < 1
    assert np.abs(deviations(np.bincount((uniform * 100).astype(int), minlength=100))) < 5


def test_what_a_key_draws_is_unrelated_to_the_keys_of_its_children():
    """Both count from 0 under the same key: without a salt the children's first words would be the draws."""

    @jax.jit
    def words_of(key):
        folded = jax.vmap(lambda number: unwrap(jax.random.fold_in(key, number)))(SEEDS[:1000])
        return jax.random.bits(key, (1000,)), unwrap(jax.random.split(key, 1000)), folded

    drawn, children, folded = words_of(key_of(3))
    for keys in (children, folded):
        assert not np.isin(drawn, keys).any()
    assert not np.isin(children, folded).any()

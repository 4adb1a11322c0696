"""Running moments: those of all that was seen, in whatever pieces."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlete.ops.moments import MOST_SAMPLES, Moments, initial_moments, standardize, update_moments

QUICK = {"xla_backend_optimization_level": 0}
take_in = jax.jit(update_moments, compiler_options=QUICK)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    number=st.integers(1, 6),
    offset=st.sampled_from([0.0, 1e3, -1e4]),
    scale=st.sampled_from([1e-2, 1.0, 1e3]),
)
def test_moments_are_numpys_over_all_that_was_seen(seed, number, offset, scale):
    batches = np.random.default_rng(seed).normal(offset, scale, (number, 4, 2, 3)).astype(np.float32)
    moments = initial_moments(jnp.zeros(3))
    for batch in batches:
        moments = take_in(moments, batch)
    everything = batches.reshape(-1, 3).astype(float)
    assert moments.count == len(everything)
    rounding = np.spacing(np.float32(abs(offset) + scale))
    np.testing.assert_allclose(moments.mean, everything.mean(axis=0), rtol=1e-5, atol=8 * rounding)
    np.testing.assert_allclose(np.sqrt(moments.variance), everything.std(axis=0), rtol=1e-3, atol=8 * rounding)


def test_before_anything_was_seen_nothing_is_changed():
    moments = initial_moments(jnp.zeros(2))
    np.testing.assert_allclose(standardize(np.array([3.0, -4.0]), moments.mean, moments.variance, 10.0), [3, -4])


def test_old_samples_fade_once_float32_could_no_longer_count():
    full = Moments(jnp.float32(MOST_SAMPLES), jnp.zeros(1), jnp.ones(1))
    after = take_in(full, np.ones((4, 2, 1), np.float32))
    assert after.count == MOST_SAMPLES
    assert after.mean[0] == pytest.approx(8 / MOST_SAMPLES, rel=1e-3)


def test_standardizing_divides_by_the_deviation_and_clips():
    found = standardize(jnp.array([3.0, -1.0, 100.0, -100.0]), jnp.float32(1.0), jnp.float32(4.0), 5.0)
    np.testing.assert_allclose(found, [1.0, -1.0, 5.0, -5.0], rtol=1e-5)


def test_empty_places_are_no_samples():
    rng = np.random.default_rng(0)
    batch = rng.normal(3.0, 2.0, (5, 4, 2)).astype(np.float32)
    valid = rng.random((5, 4)) < 0.6
    moments = initial_moments(jnp.zeros(2))
    for part in (slice(0, 2), slice(2, 5)):
        spoiled = np.where(valid[part][..., None], batch[part], 1e6).astype(np.float32)
        moments = update_moments(moments, spoiled, jnp.asarray(valid[part], jnp.float32))
    seen = batch[valid]
    assert float(moments.count) == len(seen)
    np.testing.assert_allclose(moments.mean, seen.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, seen.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("seen", [0, 1])
def test_of_empty_places_alone_nothing_is_learned(seen):
    before = initial_moments(jnp.zeros(2))
    for _ in range(seen):
        before = update_moments(before, np.arange(12, dtype=np.float32).reshape(2, 3, 2))
    after = update_moments(before, np.full((2, 3, 2), 7.0, np.float32), jnp.zeros((2, 3)))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)

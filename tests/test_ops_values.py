"""Action values against numbers worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.values import (
    batched_index,
    dueling,
    huber,
    periodic_update,
    polyak_update,
    signed_hyperbolic,
    signed_parabolic,
)

VALUES = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


def test_the_value_of_each_rows_action():
    np.testing.assert_array_equal(jax.jit(batched_index)(VALUES, np.array([2, 0])), [3, 4])


def test_the_value_of_an_action_may_be_a_distribution():
    atoms = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(jax.jit(batched_index)(atoms, np.array([1, 2])), [[2, 3], [10, 11]])


def test_only_the_action_taken_has_a_gradient_and_no_scatter_is_needed_for_it():
    def total(values):
        return jnp.sum(jnp.array([1.0, 10.0]) * batched_index(values, np.array([2, 0])))

    np.testing.assert_array_equal(jax.jit(jax.grad(total))(VALUES), [[0, 0, 1], [10, 0, 0]])
    assert "scatter" not in str(jax.make_jaxpr(jax.grad(total))(VALUES))


def test_a_value_that_is_not_finite_does_not_spoil_another_action():
    values = np.array([[np.inf, 2.0, np.nan]], np.float32)
    assert batched_index(values, np.array([1]))[0] == 2


def test_dueling_streams_keep_the_value_as_the_mean():
    # Advantages 1, 2, 6 with mean 3: 10 + (-2, -1, 3).
    value, advantage = np.array([[10.0]], np.float32), np.array([[1.0, 2.0, 6.0]], np.float32)
    np.testing.assert_allclose(jax.jit(dueling)(value, advantage), [[8, 9, 13]])
    np.testing.assert_allclose(dueling(value, advantage + 100.0), [[8, 9, 13]], rtol=1e-5)
    atoms = dueling(np.zeros((1, 1, 2), np.float32), np.array([[[1.0, 0.0], [3.0, 4.0]]], np.float32))
    np.testing.assert_allclose(atoms, [[[-1, -2], [1, 2]]])


@pytest.mark.parametrize(
    ("error", "delta", "loss", "slope"),
    [
        (0.5, 1.0, 0.125, 0.5),
        (-0.5, 1.0, 0.125, -0.5),
        (3.0, 1.0, 2.5, 1.0),  # 1 * (3 - 0.5)
        (-3.0, 2.0, 4.0, -2.0),  # 2 * (3 - 1)
        (0.0, 1.0, 0.0, 0.0),
    ],
)
def test_huber_is_square_within_delta_and_linear_beyond(error, delta, loss, slope):
    found, gradient = jax.jit(jax.value_and_grad(huber))(jnp.float32(error), delta)
    assert found == pytest.approx(loss)
    assert gradient == pytest.approx(slope)


TARGET, ONLINE = {"w": np.array([0.0, 8.0])}, {"w": np.array([4.0, 0.0])}


@pytest.mark.parametrize(("tau", "expected"), [(0.0, [0, 8]), (0.25, [1, 6]), (1.0, [4, 0])])
def test_tracking_moves_by_tau(tau, expected):
    np.testing.assert_allclose(jax.jit(polyak_update)(TARGET, ONLINE, tau)["w"], expected)


def synced(frequency, taken, steps):
    """Timesteps since the last sync, and whether the target moved, after each of so many updates."""
    since, found = 0.0, []
    for _ in range(steps):
        target, since = jax.jit(periodic_update)(TARGET, ONLINE, 0.5, since + taken, frequency)
        found.append((float(since), bool(target["w"][0] != 0)))
        np.testing.assert_allclose(target["w"], [2, 4] if found[-1][1] else [0, 8])
    return found


def test_a_target_is_updated_once_its_timesteps_are_sampled():
    assert synced(8.0, 4.0, 4) == [(4, False), (0, True), (4, False), (0, True)]


def test_timesteps_beyond_the_frequency_count_for_the_next_time():
    assert synced(5.0, 3.0, 5) == [(3, False), (1, True), (4, False), (2, True), (0, True)]


def test_a_frequency_of_0_is_at_every_update():
    assert [moved for _, moved in synced(0.0, 4.0, 3)] == [True] * 3


def test_mapped_over_seeds_each_has_its_own_time():
    target, since = jax.jit(jax.vmap(periodic_update, in_axes=(None, None, None, 0, None)))(
        TARGET, ONLINE, 0.5, np.array([3.0, 9.0], np.float32), 8.0
    )
    np.testing.assert_allclose(target["w"], [[0, 8], [2, 4]])
    np.testing.assert_allclose(since, [3, 1])


@pytest.mark.parametrize(
    ("value", "epsilon", "rescaled"),
    [
        (0.0, 0.001, 0.0),
        (3.0, 0.001, 1.003),  # sqrt(4) - 1, and 0.001 of 3
        (-8.0, 0.001, -2.008),
        (99.0, 0.01, 9.99),
        (24.0, 0.0, 4.0),
    ],
)
def test_rescaled_values_grow_as_the_root(value, epsilon, rescaled):
    assert jax.jit(signed_hyperbolic)(jnp.float32(value), epsilon) == pytest.approx(rescaled, rel=1e-6)
    assert jax.jit(signed_parabolic)(jnp.float32(rescaled), epsilon) == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_rescaling_is_undone_over_the_whole_range_of_returns():
    positive = np.logspace(-4, 5, 40)
    values = np.concatenate([-positive[::-1], [0.0], positive]).astype(np.float32)
    there = jax.vmap(lambda value: signed_hyperbolic(value, 1e-3))(values)
    assert (np.diff(there) > 0).all() and (np.abs(there) <= np.abs(values)).all()
    np.testing.assert_allclose(jax.jit(signed_parabolic)(there, 1e-3), values, rtol=1e-4, atol=1e-6)

"""What soft critics learn from: both ways an episode ends, the entropy's part, and a batch cut into smaller ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.core import Spec, Transition
from athlete.ops.td import soft_critic_batches
from athlete.spaces import Box

SPEC = Spec(Box(-9, 9, (2,)), Box(-1, 1, (1,)))


def window(reward, terminated, truncated, action_shape=(1,), extras=None):
    """Windows of two steps, `[2, B]`; the observation that step t of row i leads to is (t + 1, i)."""
    reward = np.asarray(reward, np.float32)
    steps, rows = np.meshgrid(*map(np.arange, reward.shape), indexing="ij")
    obs = np.stack([steps, rows], axis=-1).astype(np.float32)
    flags = [np.asarray(flag, bool) for flag in (terminated, truncated)]
    action = np.full((*reward.shape, *action_shape), 0.25, np.float32)
    moved = obs + np.float32([1, 0])
    return Transition(obs, np.zeros(reward.shape, bool), action, reward, moved, *flags, (), extras or {})


def act(obs):
    """The action is half the row's number, its log probability the step that was reached."""
    return obs[:, 1:] / 2, -obs[:, 0]


@jax.jit
def samples(batch, alpha=0.0, gamma=0.5):
    return soft_critic_batches(batch, SPEC, act, alpha, gamma, 1)


def test_a_terminated_step_is_not_bootstrapped_and_a_truncated_one_is_from_where_it_led():
    # Rows: terminated at the first step, truncated at the first step, going on, terminated at the second.
    batch = window(
        [[1.0, 1.0, 1.0, 1.0], [9.0, 9.0, 2.0, 2.0]],
        [[1, 0, 0, 0], [0, 0, 0, 1]],
        [[0, 1, 0, 0], [0, 0, 0, 0]],
    )
    found = samples(batch)
    np.testing.assert_allclose(found.discount[0], [0.0, 0.5, 0.25, 0.0])
    np.testing.assert_allclose(found.reward[0], [1.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(found.inputs[0], [[0, 0, 0.25], [0, 1, 0.25], [0, 2, 0.25], [0, 3, 0.25]])
    np.testing.assert_allclose(found.next_inputs[0, :3], [[1, 0, 0], [1, 1, 0.5], [2, 2, 1]])
    np.testing.assert_allclose(found.weight, np.ones((1, 4)))


def test_the_entropy_after_the_last_step_is_rewarded_where_there_is_an_after():
    # Entropies (minus the log probability) are 1 after the first step and 2 after the second.
    batch = window([[1.0, 1.0, 1.0], [9.0, 9.0, 2.0]], [[1, 0, 0], [0, 0, 0]], [[0, 1, 0], [0, 0, 0]])
    found = samples(batch, alpha=10.0)
    np.testing.assert_allclose(found.reward[0], [1.0, 1.0 + 0.5 * 10 * 1, 2.0 + 0.25 * 10 * 2])


def test_a_batch_is_cut_into_batches_with_their_weights():
    never = np.zeros((2, 6), bool)
    weight = np.arange(6, dtype=np.float32)[None]
    batch = window(np.ones((2, 6)), never, never, extras={"weight": weight})
    found = soft_critic_batches(batch, SPEC, act, 0.0, 0.5, 3)
    assert found.inputs.shape == (3, 2, 3)
    np.testing.assert_allclose(found.inputs[:, :, 1], [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_allclose(found.weight, [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_actions_of_any_rank_are_flat(shape):
    size = int(np.prod(shape))
    never = np.zeros((2, 4), bool)
    batch = window(np.ones((2, 4)), never, never, action_shape=shape)
    found = soft_critic_batches(batch, SPEC, lambda obs: (jnp.zeros((4, size)), jnp.zeros(4)), 0.0, 0.5, 1)
    assert found.inputs.shape == found.next_inputs.shape == (1, 4, 2 + size)

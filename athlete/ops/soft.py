"""What the critics of soft actor-critics learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Transition
from athlete.ops.features import features
from athlete.ops.returns import at_step, n_step_return
from athlete.spaces import Space


class SoftSamples(NamedTuple):
    """Batches `[number, B, ...]` whose targets are reward + discount * value(next_inputs)."""

    inputs: Array  # features of the observation, and the action
    next_inputs: Array  # the same of where n steps led
    reward: Array  # of n steps, and the discounted entropy after them
    discount: Array  # gamma^n; 0 where the last step terminated
    weight: Array  # 1 unless replay is prioritised


def soft_samples(
    batch: Transition,
    obs_space: Space,
    act: Callable[[Array], tuple[Array, Array]],
    alpha: Array,
    gamma: Array,
    number: int,
) -> SoftSamples:
    """A batch `[T, number * B, ...]` of Box actions as `number` batches, the first rows first.

    `act` gives actions and their log probabilities for features `[number * B, n]`: all at once, since the policy stands
    still while the critics learn. The target is that of Haarnoja et al. 2018 (arXiv:1812.05905, equations 2 and 3) with
    n = T steps and without the entropies between them.
    """
    steps = n_step_return(batch, gamma)
    obs = features(obs_space, jax.tree.map(lambda leaf: leaf[0], batch.obs))
    next_obs = features(obs_space, at_step(batch.next_obs, steps.last))
    next_action, log_prob = act(next_obs)
    samples = SoftSamples(
        jnp.concatenate([obs, batch.action[0].reshape(next_action.shape)], axis=-1),
        jnp.concatenate([next_obs, next_action], axis=-1),
        steps.return_ - steps.discount * alpha * log_prob,
        steps.discount,
        batch.extras["weight"][0] if "weight" in batch.extras else jnp.ones_like(log_prob),
    )
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), samples)

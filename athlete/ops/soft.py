"""What the critics of soft actor-critics learn from that are updated several times for each update of the actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Spec, Transition
from athlete.ops.td import n_step_transition


class SoftSamples(NamedTuple):
    """Batches `[number, B, ...]` whose targets are reward + discount * value(next_inputs)."""

    inputs: Array  # features of the observation, and the action
    next_inputs: Array  # the same of where n steps led
    reward: Array  # of n steps, and the discounted entropy after them
    discount: Array  # gamma^n; 0 where the last step terminated
    weight: Array  # 1 unless replay is prioritised


def soft_samples(
    batch: Transition,
    spec: Spec,
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
    step = n_step_transition(batch, spec, gamma)
    next_action, log_prob = act(step.next_obs)
    samples = SoftSamples(
        jnp.concatenate([step.obs, step.action.reshape(next_action.shape)], axis=-1),
        jnp.concatenate([step.next_obs, next_action], axis=-1),
        step.reward - step.discount * alpha * log_prob,
        step.discount,
        step.weight,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), samples)

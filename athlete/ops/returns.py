"""Targets built from rewards and values along time, `[T, B]`, right for both ways an episode ends."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array


def generalized_advantages(
    reward: Array, value: Array, next_value: Array, terminated: Array, truncated: Array, gamma: Array, lambda_: Array
) -> Array:
    """Generalised advantage estimates, `[T, B]` (Schulman et al. 2016, arXiv:1506.02438, equations 11 and 16).

    delta_t = r_t + gamma (1 - terminated_t) V(next_obs_t) - V(obs_t)
    A_t     = delta_t + gamma lambda (1 - terminated_t or truncated_t) A_{t+1}

    `next_value` is the value of where the step led, so a truncated episode is bootstrapped and a terminated one is
    not; neither lets advantages flow in from the episode that follows. A_T is 0: the last step bootstraps alone.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = jnp.where(terminated | truncated, 0.0, gamma * lambda_)

    def backwards(advantage, step):
        delta_t, decay_t = step
        advantage = delta_t + decay_t * advantage
        return advantage, advantage

    return jax.lax.scan(backwards, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)[1]


def discounted_sums(reward: Array, first: Array, gamma: Array) -> Array:
    """Rewards summed so far in each episode, `[T, B]`: G_t = r_t + gamma (1 - first_t) G_{t-1}, with G_{-1} = 0."""
    decay = jnp.where(first, 0.0, gamma)

    def forwards(total, step):
        reward_t, decay_t = step
        total = reward_t + decay_t * total
        return total, total

    return jax.lax.scan(forwards, jnp.zeros_like(reward[0]), (reward, decay))[1]

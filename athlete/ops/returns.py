"""Targets built from rewards and values along time, `[T, B]`, right for both ways an episode ends."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Transition, Tree


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


def lambda_returns(
    reward: Array, next_value: Array, terminated: Array, truncated: Array, gamma: Array, lambda_: Array
) -> Array:
    """Lambda-returns, `[T, B]` (Sutton & Barto 2018, equation 12.18).

    G_t = r_t + gamma ((1 - lambda) V(next_obs_t) + lambda G_{t+1})

    `next_value` is the value of where the step led: with that of the best action they are Peng's Q(lambda). A truncated
    episode ends in it, a terminated one in nothing, and neither lets returns flow in from the episode that follows.
    G_T is the last `next_value`: the last step bootstraps alone.
    """
    over = terminated | truncated
    weight = jnp.where(over, gamma, gamma * (1.0 - lambda_))
    now = reward + jnp.where(terminated, 0.0, weight * next_value)
    decay = jnp.where(over, 0.0, gamma * lambda_)

    def backwards(return_, step):
        now_t, decay_t = step
        return_ = now_t + decay_t * return_
        return return_, return_

    return jax.lax.scan(backwards, next_value[-1], (now, decay), reverse=True)[1]


def discounted_sums(reward: Array, first: Array, gamma: Array, before: Array, weight: Array | None = None) -> Array:
    """Rewards summed so far in each episode, `[T, B]`: G_t = r_t + gamma (1 - first_t) G_{t-1}.

    `before` `[B]` is G_{-1}, what was summed in the trajectory before this one. Where `weight` `[T, B]` is 0 there is
    no step, and the sum stands still.
    """
    decay = jnp.where(first, 0.0, gamma)
    if weight is not None:
        reward, decay = jnp.where(weight > 0.0, reward, 0.0), jnp.where(weight > 0.0, decay, 1.0)

    def forwards(total, step):
        reward_t, decay_t = step
        total = reward_t + decay_t * total
        return total, total

    return jax.lax.scan(forwards, before, (reward, decay))[1]


class NStep(NamedTuple):
    """What an n-step target is made of, `[B]` each: y = return_ + discount * value(next_obs of step `last`)."""

    return_: Array  # discounted rewards up to and with step `last`
    discount: Array  # gamma to the number of these steps; 0 where the last one terminated
    last: Array  # int32, the step after which the target is bootstrapped


def n_step_return(batch: Transition, gamma: Array) -> NStep:
    """The first n steps of a return, n = T, for windows `[T, B]` (Sutton & Barto 2018, equation 7.1).

    A window may run across the end of an episode; the sum stops with the step that ended it. A terminated step is not
    bootstrapped, a truncated one is, from where it led; so is one that another episode follows without an end, as
    where a training went on in new environments. The discount counts the steps that were summed.
    """
    reward, terminated = batch.reward, batch.terminated
    over = (terminated | batch.truncated)[:-1] | batch.first[1:]
    # One for steps up to and with the first end: nothing ended before them.
    counts = jnp.cumprod(jnp.concatenate([jnp.ones_like(reward[:1]), 1.0 - over.astype(reward.dtype)]), axis=0)
    powers = gamma ** jnp.arange(reward.shape[0], dtype=reward.dtype)
    return_ = jnp.sum(counts * powers[:, None] * reward, axis=0)
    steps = jnp.sum(counts, axis=0)
    last = steps.astype(jnp.int32) - 1
    dead = jnp.any(terminated & (counts > 0.0), axis=0)
    return NStep(return_, jnp.where(dead, 0.0, gamma**steps), last)


def at_step(tree: Tree, step: Array) -> Tree:
    """Leaves `[T, B, ...]` at one step of each row, `step` `[B]`: `[B, ...]`."""
    rows = jnp.arange(step.shape[0])
    return jax.tree.map(lambda leaf: leaf[0] if leaf.shape[0] == 1 else leaf[step, rows], tree)

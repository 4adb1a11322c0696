"""Running normalisation of observations and rewards around any agent."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Spec, Transition, Tree, hyper
from athlete.ops.returns import discounted_sums
from athlete.spaces import ACTION_MASK, has_mask, zeros

MOST_SAMPLES = 1e7  # beyond, old samples fade: a float32 count stands still at 1.7e7


class Moments(NamedTuple):
    """Count, mean and variance of what was seen, each leaf in the shape of one observation."""

    count: Array
    mean: Tree
    variance: Tree


class NormalizeState(NamedTuple):
    agent: Tree
    obs: Moments  # of the float leaves
    returns: Moments


class NormalizeView(NamedTuple):
    agent: Tree
    obs: Moments


def initial_moments(example: Tree) -> Moments:
    """Of nothing seen: mean 0, variance 1."""
    return Moments(jnp.zeros(()), jax.tree.map(jnp.zeros_like, example), jax.tree.map(jnp.ones_like, example))


def update_moments(moments: Moments, batch: Tree) -> Moments:
    """Take in a batch `[T, B, ...]` (Chan et al. 1979, the parallel form of Welford's algorithm)."""
    leaves = jax.tree.leaves(batch)
    if not leaves:
        return moments
    size = leaves[0].shape[0] * leaves[0].shape[1]
    total = moments.count + size

    def mean_of(mean: Array, leaf: Array) -> Array:
        return mean + (jnp.mean(leaf, axis=(0, 1)) - mean) * size / total

    def variance_of(variance: Array, mean: Array, leaf: Array) -> Array:
        shift = jnp.mean(leaf, axis=(0, 1)) - mean
        squares = variance * moments.count + jnp.var(leaf, axis=(0, 1)) * size
        return (squares + shift * shift * moments.count * size / total) / total

    mean = jax.tree.map(mean_of, moments.mean, batch)
    variance = jax.tree.map(variance_of, moments.variance, moments.mean, batch)
    return Moments(jnp.minimum(total, MOST_SAMPLES), mean, variance)


def standardize(leaf: Array, mean: Array, variance: Array, clip: float) -> Array:
    """(leaf - mean) / std, within [-clip, clip]."""
    return jnp.clip((leaf - mean) / jnp.sqrt(variance + 1e-8), -clip, clip)


@hyper
class Normalize(Agent):
    """RLlib's `MeanStdFilter` and the reward scaling of OpenAI's PPO code, for any agent.

    Observations: float leaves are standardised with their running mean and standard deviation; integer leaves
    (Discrete, images) pass. An update uses the moments that acted, and learns new ones after: probabilities of
    actions stay comparable. Rewards are divided by the running standard deviation of the discounted return so
    far, which is counted within each trajectory: an estimate from below where trajectories are shorter than
    1 / (1 - gamma) steps.
    """

    agent: Agent
    gamma: float = 0.99
    obs_clip: float = 10.0
    reward_clip: float = 10.0
    observations: bool = True
    rewards: bool = True

    @property
    def memory(self) -> Memory:  # type: ignore[override]
        return self.agent.memory

    @property
    def updates(self) -> int:  # type: ignore[override]
        return self.agent.updates

    @property
    def num_steps_sampled_before_learning_starts(self) -> int:  # type: ignore[override]
        return self.agent.num_steps_sampled_before_learning_starts

    @property
    def random_timesteps(self) -> int:  # type: ignore[override]
        return self.agent.random_timesteps

    @property
    def spec(self) -> Spec:  # type: ignore[override]
        return self.agent.spec

    def bind(self, spec: Spec) -> Normalize:
        return dataclasses.replace(self, agent=self.agent.bind(spec))

    def init(self, key: Key) -> NormalizeState:
        example = jax.tree.map(jnp.asarray, zeros(self.spec.obs))
        return NormalizeState(
            self.agent.init(key), initial_moments(self._floats(example)), initial_moments(jnp.zeros(()))
        )

    def view(self, state: NormalizeState, progress: Array) -> NormalizeView:
        return NormalizeView(self.agent.view(state.agent, progress), state.obs)

    def start(self, view: NormalizeView, rows: int, key: Key) -> Tree:
        return self.agent.start(view.agent, rows, key)

    def act(self, view: NormalizeView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        return self.agent.act(view.agent, carry, self._standard_obs(view.obs, obs), first, key, explore)

    def update(self, state: NormalizeState, batch: Transition, key: Key, progress: Array) -> tuple:
        returns = state.returns
        reward = batch.reward
        if self.rewards:
            returns = update_moments(returns, discounted_sums(reward, batch.first, self.gamma))
            scaled = reward / jnp.sqrt(returns.variance + 1e-8)
            reward = jnp.clip(scaled, -self.reward_clip, self.reward_clip)
        normal = batch._replace(
            obs=self._standard_obs(state.obs, batch.obs),
            next_obs=self._standard_obs(state.obs, batch.next_obs),
            reward=reward,
        )
        agent, metrics = self.agent.update(state.agent, normal, key, progress)
        obs = update_moments(state.obs, self._floats(batch.obs)) if self.observations else state.obs
        return NormalizeState(agent, obs, returns), metrics

    def _floats(self, obs: Tree) -> Tree:
        """The leaves to standardise, as a list."""
        obs = self._with_flags(obs)
        return [leaf for leaf in jax.tree.leaves(obs) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def _with_flags(self, obs: Tree) -> Tree:
        """A mask of actions as bool, whatever its space: it is not to be standardised."""
        return obs | {ACTION_MASK: obs[ACTION_MASK] > 0} if has_mask(self.spec.obs) else obs

    def _standard_obs(self, moments: Moments, obs: Tree) -> Tree:
        if not self.observations:
            return obs
        obs = self._with_flags(obs)
        leaves, structure = jax.tree.flatten(obs)
        known = iter(zip(moments.mean, moments.variance, strict=True))
        standard = [
            standardize(leaf, *next(known), self.obs_clip) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
            for leaf in leaves
        ]
        return jax.tree.unflatten(structure, standard)

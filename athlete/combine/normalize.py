"""Running normalisation of observations and rewards around any agent."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.combine.around import Around
from athlete.core import Agent, Array, Key, Transition, Tree, hyper
from athlete.ops.moments import Moments, initial_moments, standardize, update_moments
from athlete.ops.returns import discounted_sums
from athlete.spaces import ACTION_MASK, has_mask, zeros


class NormalizeState(NamedTuple):
    agent: Tree
    obs: Moments  # of the float leaves
    returns: Moments


class NormalizeView(NamedTuple):
    agent: Tree
    obs: Moments


@hyper
class Normalize(Around):
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

    def observe(self, state: NormalizeState, trajectory: Transition) -> NormalizeState:
        return state._replace(agent=self.agent.observe(state.agent, self._standard(state.obs, trajectory)))

    def update(self, state: NormalizeState, batch: Transition, key: Key, progress: Array) -> tuple:
        returns = state.returns
        reward = batch.reward
        if self.rewards:
            returns = update_moments(returns, discounted_sums(reward, batch.first, self.gamma))
            scaled = reward / jnp.sqrt(returns.variance + 1e-8)
            reward = jnp.clip(scaled, -self.reward_clip, self.reward_clip)
        normal = self._standard(state.obs, batch)._replace(reward=reward)
        agent, metrics = self.agent.update(state.agent, normal, key, progress)
        obs = update_moments(state.obs, self._floats(batch.obs)) if self.observations else state.obs
        return NormalizeState(agent, obs, returns), metrics

    def _standard(self, moments: Moments, batch: Transition) -> Transition:
        obs, next_obs = (self._standard_obs(moments, obs) for obs in (batch.obs, batch.next_obs))
        return batch._replace(obs=obs, next_obs=next_obs)

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

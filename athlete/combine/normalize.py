"""Running normalisation of observations and rewards around any agent."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from athlete.combine.wrapper import AgentWrapper
from athlete.core import Agent, Array, Key, Transition, Tree, hyper
from athlete.ops.moments import Moments, initial_moments, standardize, update_moments
from athlete.ops.returns import discounted_sums
from athlete.ops.statistics import valid_steps
from athlete.spaces import ACTION_MASK, Space, has_mask, zeros


class NormalizeState(NamedTuple):
    agent: Tree
    acting: Moments  # of the float leaves of observations, as what acts was last given them
    obs: Moments  # of all observations that were visited, each counted once
    returns: Moments


class NormalizeView(NamedTuple):
    agent: Tree
    obs: Moments


class NormalizeAccumulators(NamedTuple):
    agent: Tree
    return_: Array  # [B], discounted, of the running episode so far


@hyper
class Normalize(AgentWrapper):
    """RLlib's `MeanStdFilter` and the reward scaling of OpenAI's PPO code, for any agent.

    Observations: float leaves are standardised with their running mean and standard deviation; integer leaves
    (Discrete, images) pass. Every observation that is acted on counts once, whatever is learned from. What acts is
    given the new moments at each update. Where an agent learns from its latest steps, the update itself still uses
    the moments that acted: probabilities of actions stay comparable. From a memory it uses the new ones.

    Rewards are divided by the running standard deviation of the discounted return so far,
    G_t = r_t + gamma G_{t-1}, which goes on from one trajectory to the next and begins anew with each episode.
    """

    agent: Agent
    gamma: float = 0.99
    obs_clip: float = 10.0
    reward_clip: float = 10.0
    observations: bool = True
    rewards: bool = True

    def init(self, key: Key) -> NormalizeState:
        example = jax.tree.map(jnp.asarray, zeros(self.spec.obs))
        obs = initial_moments(self._floats(example))
        return NormalizeState(self.agent.init(key), obs, obs, initial_moments(jnp.zeros(())))

    def view(self, state: NormalizeState, progress: Array) -> NormalizeView:
        return NormalizeView(self.agent.view(state.agent, progress), state.acting)

    def start(self, view: NormalizeView, rows: int, key: Key) -> Tree:
        return self.agent.start(view.agent, rows, key)

    def act(self, view: NormalizeView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        return self.agent.act(view.agent, carry, self._standard_obs(view.obs, obs), first, key, explore)

    def distribution(self, view: NormalizeView, carry: Tree, obs: Tree, first: Array) -> Any:
        return self.agent.distribution(view.agent, carry, self._standard_obs(view.obs, obs), first)

    def accumulators(self, rows: int) -> NormalizeAccumulators:
        return NormalizeAccumulators(self.agent.accumulators(rows), jnp.zeros(rows))

    def observe(
        self, state: NormalizeState, accumulators: NormalizeAccumulators, trajectory: Transition
    ) -> tuple[NormalizeState, NormalizeAccumulators]:
        obs, returns, (inside, return_) = state.obs, state.returns, accumulators
        weight = valid_steps(trajectory)
        if self.observations:
            obs = update_moments(obs, self._floats(trajectory.obs), weight)
        if self.rewards:
            sums = discounted_sums(trajectory.reward, trajectory.first, self.gamma, return_, weight)
            returns, return_ = update_moments(returns, sums, weight), sums[-1]
        agent, inside = self.agent.observe(state.agent, inside, self._standard(state.acting, trajectory))
        return NormalizeState(agent, state.acting, obs, returns), NormalizeAccumulators(inside, return_)

    def td_errors(self, view: NormalizeView, trajectory: Transition) -> Array:
        """Of rewards as they are: what they are divided by belongs to the learner."""
        return self.agent.td_errors(view.agent, self._standard(view.obs, trajectory))

    def update(self, state: NormalizeState, batch: Transition, key: Key, progress: Array) -> tuple:
        batch = self._standard(state.obs if self.memory.keeps else state.acting, batch)
        if self.rewards:
            scaled = batch.reward / jnp.sqrt(state.returns.variance + 1e-8)
            batch = batch._replace(reward=jnp.clip(scaled, -self.reward_clip, self.reward_clip))
        agent, metrics = self.agent.update(state.agent, batch, key, progress)
        return state._replace(agent=agent, acting=state.obs), metrics

    def _standard(self, moments: Moments, batch: Transition) -> Transition:
        obs, next_obs = (self._standard_obs(moments, obs) for obs in (batch.obs, batch.next_obs))
        return batch._replace(obs=obs, next_obs=next_obs)

    def _floats(self, obs: Tree) -> Tree:
        """The leaves to standardise, as a list."""
        obs = self._with_flags(obs)
        return [leaf for leaf in jax.tree.leaves(obs) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def _with_flags(self, obs: Tree) -> Tree:
        """Masks of actions as bool, whatever their space: they are not to be standardised."""
        if self.spec.groups:
            return obs | {"obs": {name: _flagged(group.obs, obs["obs"][name]) for name, group in self.spec.groups}}
        return _flagged(self.spec.obs, obs)

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


def _flagged(space: Space, obs: Tree) -> Tree:
    return obs | {ACTION_MASK: obs[ACTION_MASK] > 0} if has_mask(space) else obs

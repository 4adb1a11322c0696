"""Clipping and scaling of rewards around any agent."""

from __future__ import annotations

import jax.numpy as jnp

from athlete.combine.wrapper import AgentWrapper
from athlete.core import Agent, Array, Key, Transition, Tree, hyper


@hyper
class Rewards(AgentWrapper):
    """The agent learns from `scale` times the clipped reward, as RLlib's `clip_rewards` clips it.

    Its sign where `sign` is set (as for Atari's games in Mnih et al. 2015); else within [-clip, clip], where `clip` is
    set. What the loops report of episodes is not changed.
    """

    agent: Agent
    scale: float = 1.0
    clip: float | None = None
    sign: bool = False

    def observe(self, state: Tree, accumulators: Tree, trajectory: Transition) -> tuple[Tree, Tree]:
        return self.agent.observe(state, accumulators, self._changed(trajectory))

    def td_errors(self, view: Tree, trajectory: Transition) -> Array:
        return self.agent.td_errors(view, self._changed(trajectory))

    def update(self, state: Tree, batch: Transition, key: Key, progress: Array) -> tuple:
        return self.agent.update(state, self._changed(batch), key, progress)

    def _changed(self, batch: Transition) -> Transition:
        reward = batch.reward
        if self.sign:
            reward = jnp.sign(reward)
        elif self.clip is not None:
            reward = jnp.clip(reward, -self.clip, self.clip)
        return batch._replace(reward=self.scale * reward)

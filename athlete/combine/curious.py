"""An exploration bonus around any agent."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from athlete.bonuses.bonus import Bonus
from athlete.combine.wrapper import AgentWrapper
from athlete.core import Agent, Array, Key, Spec, Transition, Tree, hyper
from athlete.ops.statistics import valid_steps, weighted_mean


class CuriousState(NamedTuple):
    agent: Tree
    bonus: Tree


class CuriousAccumulators(NamedTuple):
    agent: Tree
    bonus: Tree


@hyper
class Curious(AgentWrapper):
    """The agent learns from the environment's rewards and its own for what is new, added up; it acts as ever.

    Bonuses are those of the moment of learning: a replayed step is rewarded for how new it is now, not for how new it
    once was. What the loops report of episodes is the environment's alone.
    """

    agent: Agent
    bonus: Bonus

    def bind(self, spec: Spec) -> Curious:
        return dataclasses.replace(self, agent=self.agent.bind(spec), bonus=self.bonus.bind(spec))

    def init(self, key: Key) -> CuriousState:
        agent_key, bonus_key = jax.random.split(key)
        return CuriousState(self.agent.init(agent_key), self.bonus.init(bonus_key))

    def view(self, state: CuriousState, progress: Array) -> Tree:
        return self.agent.view(state.agent, progress)

    def accumulators(self, rows: int) -> CuriousAccumulators:
        return CuriousAccumulators(self.agent.accumulators(rows), self.bonus.accumulators(rows))

    def observe(
        self, state: CuriousState, accumulators: CuriousAccumulators, trajectory: Transition
    ) -> tuple[CuriousState, CuriousAccumulators]:
        bonus, of_bonus = self.bonus.observe(state.bonus, accumulators.bonus, trajectory)
        # For statistics of rewards; where the agent has none, the compiler leaves the sum out.
        rewarded = trajectory._replace(reward=trajectory.reward + self.bonus.reward(bonus, trajectory))
        agent, of_agent = self.agent.observe(state.agent, accumulators.agent, rewarded)
        return CuriousState(agent, bonus), CuriousAccumulators(of_agent, of_bonus)

    def update(self, state: CuriousState, batch: Transition, key: Key, progress: Array) -> tuple:
        # Before learning: what the batch itself teaches makes it less new only the next time.
        intrinsic = self.bonus.reward(state.bonus, batch)
        bonus, measured = self.bonus.update(state.bonus, batch, jax.random.fold_in(key, 1))
        agent, metrics = self.agent.update(state.agent, batch._replace(reward=batch.reward + intrinsic), key, progress)
        return CuriousState(agent, bonus), metrics | measured | {
            "intrinsic_reward_mean": weighted_mean(intrinsic, valid_steps(batch))
        }

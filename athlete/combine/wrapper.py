"""What combinators have in common: they are agents around an agent."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from athlete.core import Agent, Array, Key, Memory, Played, Simulator, Spec, Transition, Tree


def with_memory(agent: Agent, memory: Memory) -> Agent:
    """The same agent, inside all that is around it, with another memory."""
    if isinstance(agent, AgentWrapper):
        return dataclasses.replace(agent, agent=with_memory(agent.agent, memory))  # type: ignore[type-var]
    return dataclasses.replace(agent, memory=memory)  # type: ignore[type-var]


def with_simulator(agent: Agent, simulator: Simulator) -> Agent:
    """The same agent, inside all that is around it, with what it searches in."""
    if isinstance(agent, AgentWrapper):
        return dataclasses.replace(agent, agent=with_simulator(agent.agent, simulator))  # type: ignore[type-var]
    return agent.searching_in(simulator)  # type: ignore[attr-defined, no-any-return]


class AgentWrapper(Agent):
    """An agent that does all as the `agent` inside does, and holds its state. Subclasses are `@hyper` classes."""

    agent: Agent

    @property
    def searches(self) -> bool:  # type: ignore[override]
        return self.agent.searches

    @property
    def plans(self) -> bool:  # type: ignore[override]
        return self.agent.plans

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

    def bind(self, spec: Spec) -> Self:
        return dataclasses.replace(self, agent=self.agent.bind(spec))  # type: ignore[type-var]

    def init(self, key: Key) -> Tree:
        return self.agent.init(key)

    def view(self, state: Tree, progress: Array) -> Tree:
        return self.agent.view(state, progress)

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        return self.agent.start(view, rows, key)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        return self.agent.act(view, carry, obs, first, key, explore)

    def distribution(self, view: Tree, carry: Tree, obs: Tree, first: Array) -> Any:
        return self.agent.distribution(view, carry, obs, first)

    def seen(self, obs: Tree) -> tuple[Spec, Tree]:
        return self.agent.seen(obs)

    def accumulators(self, rows: int) -> Tree:
        return self.agent.accumulators(rows)

    def observe(self, state: Tree, accumulators: Tree, trajectory: Transition) -> tuple[Tree, Tree]:
        return self.agent.observe(state, accumulators, trajectory)

    def td_errors(self, view: Tree, trajectory: Transition) -> Array:
        return self.agent.td_errors(view, trajectory)

    def update(self, state: Tree, batch: Transition, key: Key, progress: Array) -> tuple[Tree, dict[str, Array]]:
        return self.agent.update(state, batch, key, progress)

    @property
    def policy_episodes(self) -> int:
        """Of an `Evolution` inside."""
        return self.agent.policy_episodes  # type: ignore[attr-defined]

    def ask(self, state: Tree, key: Key, progress: Array) -> tuple[Array, Tree]:
        return self.agent.ask(state, key, progress)  # type: ignore[attr-defined]

    def members(self, state: Tree, population: Array) -> Tree:
        return self.agent.members(state, population)  # type: ignore[attr-defined]

    def tell(self, state: Tree, drawn: Tree, played: Played, progress: Array) -> tuple[Tree, dict[str, Array]]:
        return self.agent.tell(state, drawn, played, progress)  # type: ignore[attr-defined]

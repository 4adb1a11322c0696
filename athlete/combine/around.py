"""What combinators have in common: they are agents around an agent."""

from __future__ import annotations

import dataclasses
from typing import Self

from athlete.core import Agent, Memory, Spec


class Around(Agent):
    """An agent whose memory, updates and spaces are those of the `agent` inside. Subclasses are `@hyper` classes."""

    agent: Agent

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

"""One CartPole for each agent."""

from __future__ import annotations

from typing import Any

from athlete.env.games.classic.cartpole import CartPole
from athlete.env.registry import EnvContext, create
from athlete.env.wrappers.copies import Copies
from athlete.env.wrappers.time_limit import TimeLimit


def multi_agent_cartpole(num_agents: int = 2, max_episode_steps: int = 500, **physics: Any) -> Copies:
    """CartPoles as RLlib's `MultiAgentCartPole` has them; `physics` are fields of `CartPole`."""
    return Copies(TimeLimit(create(CartPole, EnvContext(physics)), max_episode_steps), num_agents)

"""Environments with many agents outside JAX: which form one has, and rows made of it.

No JAX at the top, since worker processes import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from athlete.env.adapters.agent_rows import AgentsRow, grouped
from athlete.env.adapters.buffers import Buffers
from athlete.env.adapters.gymnasium import to_gymnasium_space
from athlete.env.adapters.making import RowMaker, Shown
from athlete.env.adapters.multi_agent_env import Agents, DictAgents
from athlete.env.adapters.pettingzoo import AecAgents, ParallelAgents
from athlete.env.registry import EnvContext, create, resolve
from athlete.spaces import ACTION_MASK

_FORMS: dict[str, type] = {"MultiAgentEnv": DictAgents, "ParallelEnv": ParallelAgents, "AECEnv": AecAgents}


def agents_form(env: Any) -> type | None:
    """What adapts an environment, or a class of them, with many agents; None for one that is none.

    RLlib's and PettingZoo's are known by the names of their classes, so that neither package is imported, and others
    by what they have.
    """
    ancestry = (env if isinstance(env, type) else type(env)).__mro__
    named = next((_FORMS[ancestor.__name__] for ancestor in ancestry if ancestor.__name__ in _FORMS), None)
    if named is not None:
        return named
    if hasattr(env, "possible_agents") and callable(getattr(env, "observation_space", None)):
        return AecAgents if hasattr(env, "last") else ParallelAgents
    return DictAgents if any(hasattr(env, name) for name in ("possible_agents", "get_agent_ids")) else None


def make_agents(env: Any, context: EnvContext) -> Agents:
    """An environment with many agents from whatever names it, adapted.

    Raises:
        ValueError: what was made has not many agents, or does not say which, or `env_config` does not fit.
    """
    resolved = resolve(env)
    is_maker = isinstance(resolved, type) or (callable(resolved) and not hasattr(resolved, "step"))
    made = create(resolved, context) if is_maker else resolved
    form = agents_form(made)
    if form is None:
        raise ValueError(f"environment {env!r} gave {made!r}; expected one with many agents, of RLlib or PettingZoo")
    return form(made)


def ungrouped(env: Any) -> Any:
    """The agents themselves, where `env` shows groups of them as agents: Athlete's `with_agent_groups` or RLlib's."""
    return env.env if type(env).__name__ in ("GroupedAgents", "GroupAgentsWrapper") else env


def make_ungrouped(maker: Any, env_config: EnvContext) -> Any:
    """What `maker` makes, with the agents themselves in the place of groups."""
    return ungrouped(create(resolve(maker), env_config))


@dataclass
class AgentsMaker(RowMaker):
    """`RowMaker` of environments with many agents."""

    def make(self) -> Agents:
        return make_agents(self.env, EnvContext(self.env_config, *self._place(), self.num_workers))

    def shown(self, env: Agents) -> Shown:
        from athlete.core import Group  # imports JAX, which workers do not need
        from athlete.env.multi_agent import joint_spec

        groups = grouped(env, _telling_masks(env))
        taken = {group.name: Group(len(group.agents), group.obs, group.own_action) for group in groups}
        spec = joint_spec(taken, always_acting=False)
        return Shown(spec.obs, to_gymnasium_space(spec.action), groups)

    def require_like(self, env: Agents, buffers: Buffers) -> None:
        told = {agent for group in buffers.groups if group.mask_size for agent in group.agents}
        groups = grouped(env, told)
        if groups != buffers.groups:
            raise ValueError(
                f"row {self.index} has the agents {groups}, and the first row {buffers.groups}; rows learn side by "
                "side and must have the same"
            )

    def row(self, env: Agents, buffers: Buffers) -> AgentsRow:  # type: ignore[override]
        return AgentsRow(env, self.index, buffers)

    def tell_created(self, env: Agents) -> None:
        super().tell_created(env.env)


def _telling_masks(env: Agents) -> set[Any]:
    """Whose `info` has a mask of actions. Resets the environment."""
    try:
        _, infos = env.reset(None)
    except Exception:  # which the first reset of the rows comes across and tells in full
        return set()
    return {agent for agent, info in infos.items() if isinstance(info, Mapping) and ACTION_MASK in info}

"""From the policies of a configuration and the agents of an environment to a team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from athlete.algorithms import get_config_class
from athlete.algorithms.catalog import require_served
from athlete.algorithms.fixed import Heuristic, RandomPolicy
from athlete.combine.seating import Seats
from athlete.combine.team import Member, Team
from athlete.core import Agent, Group, Spec, agent_ids
from athlete.log import logger
from athlete.settings.config import AlgorithmConfig
from athlete.settings.multi_agent import mapping_of, require_space

DEFAULT_POLICY = "default_policy"


def policies_of(config: AlgorithmConfig, spec: Spec, ids: Sequence[str]) -> tuple[dict[str, dict], dict[str, str]]:
    """The policies that are meant, and which of them acts for each agent of `ids`.

    Where none are named, one is shared by all agents; where these have unlike spaces, each group of like ones has one
    of its own, under the name of the group.
    """
    policies, mapping = config.policies, config.policy_mapping_fn
    if policies is None and len(spec.groups) > 1 and mapping is None:
        policies = {name: {} for name, _ in spec.groups}
        starts = iter(ids)
        mapping = {next(starts): name for name, group in spec.groups for _ in range(group.size)}
        logger.info("multi_agent: agents with like spaces share a policy: %s", ", ".join(policies))
    elif policies is None:
        policies = {DEFAULT_POLICY: {}}
    return policies, mapping_of(mapping, ids, list(policies))


def make_team(config: AlgorithmConfig, spec: Spec, length: int, ids: Sequence[str] = ()) -> Team:
    """The team that the settings `multi_agent(...)` describe, for the agents of `spec.groups`, named `ids`.

    `length` steps of each environment make a trajectory.

    Raises ValueError where policies and agents do not go together.
    """
    ids = ids or agent_ids(spec.groups)
    policies, mapping = policies_of(config, spec, ids)
    trained = trained_policies(config, policies)
    configs = {
        name: _config_of(config, name, policy).sized(
            config.num_envs_per_worker * max(_number(mapping, name), 1), config.num_rollout_workers, length
        )
        for name, policy in policies.items()
        if name in trained or not _is_fixed(policy)
    }
    for name, own_config in configs.items():
        _require_whole_sequences(name, own_config, length)
    # Progress is one number for all: schedules end where they say only if all are shares of the same horizon.
    horizon = max([config.horizon(), *(own.horizon() for own in configs.values())])
    members = []
    for name, policy in policies.items():
        seats = _seats(spec, ids, mapping, name)
        if not seats.taken:
            logger.warning("multi_agent: no agent is mapped to the policy %r: it does nothing", name)
            continue
        own = _spec_of(spec, ids, mapping, name, policy)
        if name in configs:
            agent = _trained_agent(configs[name].with_horizon(horizon), own)
        else:
            agent = _fixed_agent(policy["algorithm"], own)
        members.append(Member(name, agent, seats, trained=name in trained))
    return Team(tuple(members)).bind(spec)


def horizon_of(config: AlgorithmConfig, team: Team) -> float:
    """The timesteps at which the progress of a team is 1."""
    own = [
        _config_of(config, member.name, (config.policies or {}).get(member.name, {})).horizon()
        for member in team.members
        if not isinstance(member.agent, Heuristic | RandomPolicy)
    ]
    return max([config.horizon(), *own])


def columns_of(agent: Agent) -> dict[str, list[int]]:
    """Where in the rewards `[agents]` those of each policy's agents stand; nothing for an agent that is no team."""
    if not isinstance(agent, Team):
        return {}
    starts, total = {}, 0
    for name, group in agent.spec.groups:
        starts[name], total = total, total + group.size
    return {
        member.name: [starts[group] + i for group, numbers in member.seats.taken for i in numbers]
        for member in agent.members
    }


def mapping_to_save(agent: Agent, ids: Sequence[str]) -> dict[str, str] | None:
    """Which policy acts for each agent, for files; None for an agent that is no team."""
    ids = ids or agent_ids(agent.spec.groups)
    return {ids[i]: name for name, columns in columns_of(agent).items() for i in columns} or None


def trained_policies(config: AlgorithmConfig, policies: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """The names of the policies that learn. Raises ValueError for one that there is not, or that cannot."""
    wanted = config.policies_to_train
    able = [name for name, policy in policies.items() if not _is_fixed(policy)]
    if wanted is None:
        return frozenset(able)
    if callable(wanted):
        wanted = [name for name in policies if wanted(name, None)]
    for name in wanted:
        if name not in policies:
            raise ValueError(
                f"multi_agent(policies_to_train={list(wanted)!r}): there is no policy {name!r}; there are "
                f"{', '.join(policies)}"
            )
        if name not in able:
            raise ValueError(f"multi_agent(policies_to_train={list(wanted)!r}): the policy {name!r} cannot learn")
    return frozenset(wanted)


def _is_fixed(policy: Mapping[str, Any]) -> bool:
    algorithm = policy.get("algorithm")
    return callable(algorithm) or algorithm in ("random", "past")


def _number(mapping: Mapping[str, str], name: str) -> int:
    return sum(policy == name for policy in mapping.values())


def _config_of(config: AlgorithmConfig, name: str, policy: Mapping[str, Any]) -> AlgorithmConfig:
    """The settings of one policy: those of the whole, or the defaults of another algorithm, with its own."""
    algorithm, changes = policy.get("algorithm"), policy.get("config") or {}
    try:
        if algorithm is None or algorithm == config.algorithm_name:
            return config.copy().update_from_dict(changes)
        return get_config_class(algorithm)().update_from_dict(changes)
    except ValueError as error:
        raise ValueError(f"multi_agent: policies[{name!r}]: {error}") from error


def _require_whole_sequences(name: str, config: AlgorithmConfig, length: int) -> None:
    if config.fragment_length() != length:
        raise ValueError(
            f"multi_agent: policies[{name!r}] learns from sequences of {config.sequence_length()} steps, and "
            f"rollout_fragment_length is {length} for all; make it a multiple"
        )


def _seats(spec: Spec, ids: Sequence[str], mapping: Mapping[str, str], name: str) -> Seats:
    taken, start = [], 0
    for group, (size, *_) in spec.groups:
        numbers = tuple(i for i in range(size) if mapping[ids[start + i]] == name)
        if numbers:
            taken.append((group, numbers))
        start += size
    return Seats(tuple(taken))


def _spec_of(spec: Spec, ids: Sequence[str], mapping: Mapping[str, str], name: str, policy: Mapping[str, Any]) -> Spec:
    groups: list[Group] = [group for _, group in spec.groups for _ in range(group.size)]
    own = {agent: group for agent, group in zip(ids, groups, strict=True) if mapping[agent] == name}
    obs = require_space(
        name, "observation", policy.get("observation_space"), {agent: group.obs for agent, group in own.items()}
    )
    action = require_space(
        name, "action", policy.get("action_space"), {agent: group.action for agent, group in own.items()}
    )
    return Spec(obs, action)


def _trained_agent(config: AlgorithmConfig, spec: Spec) -> Agent:
    require_served(config.algorithm_name, spec.action)
    return config.make_agent(spec)


def _fixed_agent(algorithm: Any, spec: Spec) -> Agent:
    agent = RandomPolicy() if algorithm == "random" else Heuristic(function=algorithm)
    return agent.bind(spec)

"""From the policies of a configuration and the agents of an environment to a team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from athlete.algorithms import get_config_class
from athlete.algorithms.catalog import require_served
from athlete.algorithms.fixed import AlwaysSame, Fixed, Heuristic, RandomPolicy
from athlete.combine.past import PastSelves
from athlete.combine.seating import Seats
from athlete.combine.team import Member, Team
from athlete.core import Agent, Group, MetaLearner, Spec, agent_ids
from athlete.env.games.multi_agent.players import beat_last
from athlete.log import logger
from athlete.settings.config import AlgorithmConfig
from athlete.settings.families import EvolutionConfig
from athlete.settings.multi_agent import Past, mapping_of, never_learns, require_space

DEFAULT_POLICY = "default_policy"


def policies_of(config: AlgorithmConfig, spec: Spec, ids: Sequence[Any]) -> tuple[dict[str, dict], dict[Any, str]]:
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


def make_team(config: AlgorithmConfig, spec: Spec, length: int, ids: Sequence[Any] = ()) -> Team:
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
        if not never_learns(policy)
    }
    for name, own_config in configs.items():
        _require_whole_sequences(name, own_config, length)
    # Progress is one number for all: schedules end where they say only if all are shares of the same horizon.
    horizon = max([config.horizon(), *(own.horizon() for own in configs.values())])
    seated = {name: seats for name in policies if (seats := seats_of(spec, ids, mapping, name)).taken}
    for name in policies:
        if name not in seated:
            logger.warning("multi_agent: no agent is mapped to the policy %r: it does nothing", name)
    specs = {name: _spec_of(spec, ids, mapping, name, policies[name]) for name in seated}
    configs = {name: own.with_horizon(horizon) for name, own in configs.items()}
    agents = _agents_of(policies, configs, specs)
    for name in seated:
        if name not in agents:
            agents[name] = _past_selves(name, Past(**policies[name]["config"]), agents, specs, seated[name].agents)
    members = [Member(name, agents[name], seats, trained=name in trained) for name, seats in seated.items()]
    return Team(tuple(members)).bind(spec)


def _agents_of(
    policies: Mapping[str, Mapping[str, Any]], configs: Mapping[str, AlgorithmConfig], specs: Mapping[str, Spec]
) -> dict[str, Agent]:
    """The agents of all policies with `specs` but for past selves, which stand around others."""
    agents: dict[str, Agent] = {}
    for name, spec in specs.items():
        if name in configs:
            if isinstance(own := configs[name], EvolutionConfig):
                raise ValueError(
                    f"multi_agent: policies[{name!r}]: {own.algorithm_name} learns from whole episodes of one agent; "
                    "policies of many learn from their steps"
                )
            if own.agent_class is not None and issubclass(own.agent_class, MetaLearner):
                raise ValueError(
                    f"multi_agent: policies[{name!r}]: {own.algorithm_name} learns in tasks of one agent; policies of "
                    "many learn from their steps"
                )
            require_served(configs[name].algorithm_name, spec.action)
            agents[name] = configs[name].make_agent(spec)
        elif policies[name]["algorithm"] != "past":
            agents[name] = make_heuristic(policies[name]["algorithm"]).bind(spec)
    return agents


def agent_for(config: AlgorithmConfig, spec: Spec, length: int, ids: Sequence[Any] = ()) -> Agent:
    """The agent of an environment's one agent, of all its agents together, or a team of policies for them."""
    assert config.agent_class is not None
    if not spec.groups:
        if config.policies is not None:
            raise ValueError(
                f"multi_agent(policies={list(config.policies)}): the environment has one agent; take one of many, such "
                "as make_multi_agent makes of it"
            )
        require_served(config.algorithm_name, spec.action)
        return config.make_agent(spec)
    if config.agent_class.joint:
        if config.policies is not None:
            logger.info("%s learns for all agents together: policies are left out", config.algorithm_name)
        return config.make_agent(spec)
    return make_team(config, spec, length, ids)


def horizon_of(config: AlgorithmConfig, agent: Agent) -> float:
    """The timesteps at which the progress of a training is 1; of a team the longest of its policies'."""
    members = agent.members if isinstance(agent, Team) else ()
    own = [
        _config_of(config, member.name, policy).horizon()
        for member in members
        if not never_learns(policy := (config.policies or {}).get(member.name, {}))
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


def keeps_memory(agent: Agent) -> bool:
    """Whether an agent, or a policy of a team, learns from a replay memory."""
    members = agent.members if isinstance(agent, Team) else ()
    return agent.memory.keeps or any(member.trained and member.agent.memory.keeps for member in members)


def mapping_to_save(agent: Agent, ids: Sequence[Any]) -> dict[str, str] | None:
    """Which policy acts for each agent, for files; None for an agent that is no team."""
    ids = ids or agent_ids(agent.spec.groups)
    return {str(ids[i]): name for name, columns in columns_of(agent).items() for i in columns} or None


def trained_policies(config: AlgorithmConfig, policies: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """The names of the policies that learn. Raises ValueError for one that there is not, or that cannot."""
    wanted = config.policies_to_train
    able = [name for name, policy in policies.items() if not never_learns(policy)]
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


def _number(mapping: Mapping[Any, str], name: str) -> int:
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


def seats_of(spec: Spec, ids: Sequence[Any], mapping: Mapping[Any, str], name: str) -> Seats:
    taken, start = [], 0
    for group, (size, *_) in spec.groups:
        numbers = tuple(i for i in range(size) if mapping[ids[start + i]] == name)
        if numbers:
            taken.append((group, numbers))
        start += size
    return Seats(tuple(taken))


def _spec_of(spec: Spec, ids: Sequence[Any], mapping: Mapping[Any, str], name: str, policy: Mapping[str, Any]) -> Spec:
    groups: list[Group] = [group for _, group in spec.groups for _ in range(group.size)]
    own = {agent: group for agent, group in zip(ids, groups, strict=True) if mapping[agent] == name}
    obs = require_space(
        name, "observation", policy.get("observation_space"), {agent: group.obs for agent, group in own.items()}
    )
    action = require_space(
        name, "action", policy.get("action_space"), {agent: group.action for agent, group in own.items()}
    )
    return Spec(obs, action)


def make_heuristic(heuristic: Any) -> Agent:
    """The agent, not bound yet, of a function, a class that is an agent or a name in `settings.multi_agent.HEURISTICS`.

    Raises ValueError for anything else.
    """
    if heuristic in ("random", "RandomPolicy"):
        return RandomPolicy()
    if heuristic == "AlwaysSameHeuristic":
        return AlwaysSame()
    if heuristic == "BeatLastHeuristic":
        return Heuristic(function=beat_last)
    if isinstance(heuristic, type) and issubclass(heuristic, Fixed):
        return heuristic()
    if not callable(heuristic):
        raise ValueError(
            f"{heuristic!r} is no heuristic; expected a function (observations, key) -> actions, or a name"
        )
    return Heuristic(function=heuristic)


def _past_selves(
    name: str, past: Past, agents: Mapping[str, Agent], specs: Mapping[str, Spec], seats: int
) -> PastSelves:
    """Past selves of one of the `agents`, for so many `seats` in each environment."""
    if past.of not in agents:
        there = ", ".join(map(repr, agents)) or "none"
        raise ValueError(
            f"multi_agent: policies[{name!r}] is Past({past.of!r}), and {past.of!r} is no policy that acts here; "
            f"there are {there}"
        )
    if specs[name] != specs[past.of]:
        raise ValueError(
            f"multi_agent: policies[{name!r}] is Past({past.of!r}), and its agents have other spaces: {specs[name]} "
            f"and {specs[past.of]}"
        )
    return PastSelves(agents[past.of], past.of, past.size, past.every, Fraction(past.present), seats)

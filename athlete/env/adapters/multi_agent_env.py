"""RLlib's form of environments with many agents: dictionaries by agent id.

No JAX, since worker processes import it, and no Gymnasium.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from athlete.env.adapters.buffers import MisfitError
from athlete.env.adapters.conversion import to_space
from athlete.env.registry import EnvContext, create, is_jax_env
from athlete.spaces import Tuple

ALL = "__all__"  # the entry of flags that speaks of all agents
COMMON = "__common__"  # the entry of infos that speaks of all agents
_CUT = "TimeLimit.truncated"
GROUP_REWARDS = "_group_rewards"  # in the infos of groups, as RLlib calls them
GROUP_INFO = "_group_info"

AgentId = Any
AgentDict = dict[AgentId, Any]


class MultiAgentEnv:
    """An environment with many agents, in RLlib's form: what is written for RLlib 2.x runs as it is.

    `reset(*, seed=None, options=None)` gives `(observations, infos)`, `step(actions)` gives `(observations, rewards,
    terminateds, truncateds, infos)`: dictionaries by agent id. The form of before, `reset()` that gives observations
    and `step` that gives `(observations, rewards, dones, infos)`, is understood too.

    Who is in the observations, and has not ended, acts next: where turns are taken that is one agent. Rewards reach
    anyone at any step. An agent whose flag is true has ended: it is shown its last observation with it, and does not
    come back in this episode. `"__all__"` in the flags ends the episode for all.

    Attributes:
        possible_agents: the ids of all agents that may ever be there; RLlib's `_agent_ids` or `get_agent_ids()` serve
            as well.
        observation_space, action_space: one space for every agent, or a Dict of them by agent id; `observation_spaces`
            and `action_spaces`, dictionaries by agent id, and methods `get_observation_space(agent)` and
            `get_action_space(agent)` serve as well.
    """

    possible_agents: Sequence[AgentId] = ()
    observation_space: Any = None
    action_space: Any = None
    metadata: dict[str, Any] = {}  # noqa: RUF012  (Gymnasium's name and type)
    render_mode: str | None = None
    _np_random: np.random.Generator | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode: `(observations, infos)`. `super().reset(seed=seed)` seeds `np_random`."""
        if seed is not None:
            self._np_random = np.random.default_rng(seed)

    def step(self, action_dict: AgentDict) -> Any:
        """Take a step with the actions of those who were asked: five dictionaries by agent id."""
        raise NotImplementedError

    def render(self) -> Any:
        """A picture, uint8 `[H, W, 3]`."""
        raise NotImplementedError(
            f"{type(self).__name__} draws nothing: give it a method render() that returns a picture"
        )

    def close(self) -> None:
        """Release what is held."""

    @property
    def np_random(self) -> np.random.Generator:
        """Random numbers to draw from."""
        if self._np_random is None:
            self._np_random = np.random.default_rng()
        return self._np_random

    def with_agent_groups(
        self, groups: Mapping[AgentId, Sequence[AgentId]], obs_space: Any = None, act_space: Any = None
    ) -> GroupedAgents:
        """The same with groups of agents in the place of agents, see `GroupedAgents`."""
        return GroupedAgents(self, groups, obs_space, act_space)


class Told(NamedTuple):
    """What a step told, by agent id; the flags may speak of `"__all__"`."""

    observations: AgentDict
    rewards: AgentDict
    terminateds: AgentDict
    truncateds: AgentDict
    infos: AgentDict


class Agents(Protocol):
    """Environments with many agents of whatever make, as rows step them."""

    env: Any  # the user's own
    ids: tuple[AgentId, ...]  # of all agents that may ever be there
    spaces: Mapping[AgentId, tuple[Any, Any]]  # observation and action space of each
    metadata: Mapping[str, Any]
    render_mode: str | None

    def reset(self, seed: int | None) -> tuple[AgentDict, AgentDict]:
        """Start an episode: `(observations, infos)` of who acts first."""
        ...

    def step(self, actions: AgentDict) -> Told:
        """Take a step with the actions of those who were asked. Raises MisfitError."""
        ...

    def close(self) -> None: ...


class DictAgents:
    """An environment in RLlib's form, of today or before, as `Agents`.

    Raises:
        ValueError: the agents' ids or a space of one of them are not to be found.
    """

    def __init__(self, env: Any):
        self.env = env
        self.ids = _agent_ids(env)
        obs_spaces, action_spaces = (_spaces(env, kind, self.ids) for kind in ("observation", "action"))
        self.spaces = {agent: (obs_spaces[agent], action_spaces[agent]) for agent in self.ids}
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self.render_mode = getattr(env, "render_mode", None)
        self._takes_seed = takes_seed(env)

    def reset(self, seed: int | None) -> tuple[AgentDict, AgentDict]:
        if seed is not None and not self._takes_seed and hasattr(self.env, "seed"):
            self.env.seed(seed)
        result = self.env.reset(seed=seed) if self._takes_seed else self.env.reset()
        obs, infos = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        return require_dict(obs, "observations"), require_dict(infos, "infos")

    def step(self, actions: AgentDict) -> Told:
        result = self.env.step(actions)
        count = len(result) if isinstance(result, tuple | list) else None
        if count == 4:
            obs, rewards, dones, infos = map(require_dict, result, ("observations", "rewards", "dones", "infos"))
            return Told(obs, rewards, *_parted(dones, infos), infos)
        if count != 5:
            came = f"{count} values" if count is not None else f"a {type(result).__name__}"
            raise MisfitError(
                f"step returned {came}; expected five dictionaries by agent id: observations, rewards, terminateds, "
                "truncateds, infos"
            )
        return Told(*map(require_dict, result, Told._fields))

    def close(self) -> None:
        if hasattr(self.env, "close"):
            self.env.close()

    def __repr__(self) -> str:
        return repr(self.env)


def takes_seed(env: Any) -> bool:
    """Whether `reset` of an environment takes a seed."""
    parameters = inspect.signature(env.reset).parameters.values()
    return any(parameter.name == "seed" or parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)


def require_dict(value: Any, name: str) -> Any:
    """`value`, which is a dictionary. Raises MisfitError."""
    if not isinstance(value, dict | Mapping):  # a dict is what comes nearly always, and faster to see
        raise MisfitError(f"{name} are of type {type(value).__name__}; expected a dict by agent id")
    return value


def _parted(dones: AgentDict, infos: AgentDict) -> tuple[AgentDict, AgentDict]:
    """The old `dones` as terminateds and truncateds: cut off is where `info["TimeLimit.truncated"]` says so.

    The episode of all is where `infos["__common__"]` does; if it says nothing, where that of some agent was and no
    agent's ends otherwise.
    """
    told = {agent: info[_CUT] for agent, info in infos.items() if isinstance(info, Mapping) and _CUT in info}
    cut = {agent for agent, is_cut in told.items() if is_cut}
    died = any(done and agent not in cut for agent, done in dones.items() if agent != ALL)
    cut -= {ALL}
    if told.get(COMMON, bool(cut) and not died):
        cut |= {ALL}
    terminateds = {agent: bool(done) and agent not in cut for agent, done in dones.items()}
    return terminateds, {agent: bool(done) and agent in cut for agent, done in dones.items()}


def _agent_ids(env: Any) -> tuple[AgentId, ...]:
    """The ids of all agents, in an order that no set and no process changes."""
    ask = getattr(env, "get_agent_ids", None)
    places = [getattr(env, "possible_agents", None), ask() if callable(ask) else None]
    places += [getattr(env, name, None) for name in ("_agent_ids", "observation_spaces")]
    entries = [getattr(getattr(env, f"{kind}_space", None), "spaces", None) for kind in ("observation", "action")]
    if isinstance(entries[0], Mapping) and isinstance(entries[1], Mapping) and set(entries[0]) == set(entries[1]):
        places.append(entries[0])
    found = next((place for place in [*places, getattr(env, "agents", None)] if place), ())
    ids = tuple(sorted(found, key=natural_order) if isinstance(found, set | frozenset) else found)
    if not ids:
        raise ValueError(
            f"{type(env).__name__} does not say which agents there are: set self.possible_agents in __init__ to the "
            "list of the ids of all that may ever be there"
        )
    told = [str(agent) for agent in ids]
    if len(set(told)) < len(told):
        raise ValueError(f"{type(env).__name__} has the agents {told}; each needs an id of its own")
    return ids


def natural_order(agent: AgentId) -> list[tuple[int, int, str]]:
    """What ids are sorted by: `walker_2` comes before `walker_10`."""
    parts = re.split(r"(\d+)", str(agent))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def _spaces(env: Any, kind: str, ids: tuple[AgentId, ...]) -> Mapping[AgentId, Any]:
    """The observation or action space of each agent, wherever the environment has it."""
    name = f"{type(env).__name__}.{kind}_space"
    ask = getattr(env, f"get_{kind}_space", None)
    if callable(ask):
        return {agent: ask(agent) for agent in ids}
    space = getattr(env, f"{kind}_space", None)
    by_agent = getattr(env, f"{kind}_spaces", None) or getattr(space, "spaces", space)
    if isinstance(by_agent, Mapping) and any(agent in by_agent for agent in ids):
        if missing := [agent for agent in ids if agent not in by_agent]:
            raise ValueError(f"{name} has the agents {list(by_agent)} and no entry for {missing[0]!r}")
        return by_agent
    if space is None or (isinstance(space, Mapping) and not hasattr(space, "spaces")):
        raise ValueError(
            f"{name} is {space!r}; set it in __init__ to a space of gymnasium.spaces for every agent, or to a Dict of "
            "them by agent id"
        )
    return dict.fromkeys(ids, space)


class GroupedAgents(MultiAgentEnv):
    """`env` with groups of agents seen as agents: RLlib's `with_agent_groups`.

    A group's observation and action are tuples in the order of its agents, who are all there at once; its reward is
    the sum of theirs, and `infos[group]["_group_rewards"]` has each one's. It has ended when all of them have. Agents
    of no group stay what they are.

    Args:
        env: one in RLlib's form.
        groups: the ids of each group's agents: `{"team": ["walker_0", "walker_1"]}`.
        obs_space, act_space: a Tuple for every group, or a Dict by group; by default Tuples of the agents' spaces.
    """

    def __init__(
        self, env: Any, groups: Mapping[AgentId, Sequence[AgentId]], obs_space: Any = None, act_space: Any = None
    ):
        self.env, self._agents = env, DictAgents(env)
        self.groups = {name: tuple(agents) for name, agents in groups.items()}
        members = [agent for agents in self.groups.values() for agent in agents]
        for agent in members:
            if members.count(agent) > 1 or agent not in self._agents.ids:
                wrong = "is in two places" if members.count(agent) > 1 else f"is not one of {list(self._agents.ids)}"
                raise ValueError(f"with_agent_groups({dict(groups)}): the agent {agent!r} {wrong}")
        self._group_of = {agent: name for name, agents in self.groups.items() for agent in agents}
        alone = [agent for agent in self._agents.ids if agent not in self._group_of]
        self.possible_agents = [*self.groups, *alone]
        self.metadata, self.render_mode = self._agents.metadata, self._agents.render_mode
        self.observation_spaces = self._spaces(0, obs_space, alone)
        self.action_spaces = self._spaces(1, act_space, alone)

    def _spaces(self, which: int, given: Any, alone: Sequence[AgentId]) -> dict[AgentId, Any]:
        by_group = getattr(given, "spaces", given)
        own = {agent: spaces[which] for agent, spaces in self._agents.spaces.items()}
        found = {}
        for name, agents in self.groups.items():
            if given is None:
                found[name] = Tuple(tuple(to_space(own[agent], repr(agent), exact=True) for agent in agents))
            else:
                found[name] = by_group[name] if isinstance(by_group, Mapping) and name in by_group else given
        return {**found, **{agent: own[agent] for agent in alone}}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, infos = self._agents.reset(seed)
        return self._grouped(obs), self._grouped_infos(infos)

    def step(self, action_dict: AgentDict) -> Any:
        actions: dict[AgentId, Any] = {}
        for name, action in action_dict.items():
            actions.update(zip(self.groups[name], action, strict=True) if name in self.groups else [(name, action)])
        told = self._agents.step(actions)
        return self._grouped(told.observations), *self._grouped_step(told)

    def _grouped_step(self, told: Told) -> tuple[dict, dict, dict, dict]:
        """Rewards, flags and infos with groups in the place of their agents."""
        rewards, terminateds, truncateds = (self._of_others(part) for part in told[1:4])
        infos = self._grouped_infos(told.infos)
        for name, agents in self.groups.items():
            if any(agent in told.rewards for agent in agents):
                own = [told.rewards.get(agent, 0.0) for agent in agents]
                rewards[name] = sum(own)
                infos.setdefault(name, {})[GROUP_REWARDS] = own
            cut = [bool(told.truncateds.get(agent, False)) for agent in agents]
            ended = all(cut[i] or told.terminateds.get(agent, False) for i, agent in enumerate(agents))
            terminateds[name], truncateds[name] = ended and not any(cut), ended and any(cut)
        return rewards, terminateds, truncateds, infos

    def _of_others(self, by_agent: AgentDict) -> dict[AgentId, Any]:
        """The entries of agents of no group, and of all."""
        return {agent: value for agent, value in by_agent.items() if agent not in self._group_of}

    def _grouped_infos(self, infos: AgentDict) -> dict[AgentId, Any]:
        grouped = self._of_others(infos)
        for name, agents in self.groups.items():
            if there := [infos[agent] for agent in agents if agent in infos]:
                grouped[name] = {GROUP_INFO: there}
        return grouped

    def _grouped(self, obs: AgentDict) -> dict[AgentId, Any]:
        grouped = self._of_others(obs)
        for name, agents in self.groups.items():
            there = [agent for agent in agents if agent in obs]
            if there and len(there) < len(agents):
                missing = next(agent for agent in agents if agent not in obs)
                raise MisfitError(
                    f"the group {name!r} has no observation of its agent {missing!r}; all agents of a group are there "
                    "at once"
                )
            if there:
                grouped[name] = tuple(obs[agent] for agent in agents)
        return grouped

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self._agents.close()


def make_multi_agent(env: Any, num_agents: int | None = None) -> Any:
    """A `MultiAgentEnv` class of copies of an environment of one agent, which know nothing of each other: RLlib's.

    Args:
        env: an id, a class or a factory of one agent's environment. Of a JAX environment, or a class of them, the
            copies are compiled (`athlete.env.wrappers.copies.Copies`).
        num_agents: how many copies there are, where `env_config["num_agents"]` does not say so; 1 without either.

    The agents are called 0, 1, ..., compiled ones `agent_0`, `agent_1`, ... The other entries of `env_config` are what
    each copy is made with.

    Raises:
        ValueError: an environment that is made already, of which there are no copies; where one is made, also a number
            of agents below 1, or a factory that gives the same environment again.
    """
    default = 1 if num_agents is None else num_agents
    if is_jax_env(env):
        return functools.partial(_compiled_copies, env, default)
    if hasattr(env, "step") and not isinstance(env, type):
        raise ValueError(f"make_multi_agent({env!r}): it is one environment; give its id, its class or a factory")

    class MultiEnv(DictCopies):
        def __init__(self, config: Mapping[str, Any] | None = None):
            arguments = dict(config or {})
            number = arguments.pop("num_agents", default)
            super().__init__(env, number, arguments)

    name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    MultiEnv.__name__ = MultiEnv.__qualname__ = f"MultiAgent{name}"
    return MultiEnv


def _compiled_copies(env: Any, default: int, env_config: Mapping[str, Any] | None = None) -> Any:
    from athlete.env.wrappers.copies import Copies  # imports JAX

    arguments = dict(env_config or {})
    number = arguments.pop("num_agents", default)
    return Copies(create(env, EnvContext(arguments)) if isinstance(env, type) else env, number)


class DictCopies(MultiAgentEnv):
    """`num_agents` copies of an environment of one agent, made with `env_config`, for the agents 0, 1, ...

    An agent's life ends with the episode of its copy, and the episode of all with the last of them.
    """

    def __init__(self, env: Any, num_agents: int, env_config: Mapping[str, Any]):
        from athlete.env.adapters.gymnasium import make_todays  # imports Gymnasium

        if num_agents < 1:
            raise ValueError(f"make_multi_agent({env!r}) with num_agents={num_agents}: expected at least 1")
        self.envs = [make_todays(env, env_config) for _ in range(num_agents)]
        if len({id(getattr(made, "unwrapped", made)) for made in self.envs}) < num_agents:
            raise ValueError(
                f"make_multi_agent({env!r}): the factory gave one environment twice; make a new one each time"
            )
        self.possible_agents = list(range(num_agents))
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space
        self.metadata, self.render_mode = self.envs[0].metadata, self.envs[0].render_mode
        self._playing: set[int] = set()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._playing = set(self.possible_agents)
        begun = [env.reset(seed=None if seed is None else seed + i, options=options) for i, env in enumerate(self.envs)]
        return {i: obs for i, (obs, _) in enumerate(begun)}, {i: info for i, (_, info) in enumerate(begun)}

    def step(self, action_dict: AgentDict) -> Any:
        told = Told({}, {}, {}, {}, {})
        for i, action in action_dict.items():
            for entries, entry in zip(told, self.envs[i].step(action), strict=True):
                entries[i] = entry
        self._playing -= {i for i in action_dict if told.terminateds[i] or told.truncateds[i]}
        is_cut = any(told.truncateds.values())
        told.terminateds[ALL], told.truncateds[ALL] = not self._playing and not is_cut, not self._playing and is_cut
        return tuple(told)

    def render(self) -> Any:
        """The copies' pictures side by side."""
        return np.concatenate([env.render() for env in self.envs], axis=1)

    def close(self) -> None:
        for env in self.envs:
            env.close()

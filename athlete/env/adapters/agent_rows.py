"""Rows of environments with many agents: dictionaries by agent id become arrays, or an error that names the agent.

No JAX here, since worker processes import it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from athlete.env.adapters.buffers import Buffers, Members, MisfitError, Writer, as_flag, as_reward, mapped
from athlete.env.adapters.conversion import to_space
from athlete.env.adapters.gymnasium import to_gymnasium_space
from athlete.env.adapters.multi_agent_env import ALL, AgentDict, AgentId, Agents
from athlete.env.adapters.rows import Info, per_row
from athlete.env.masks import OBSERVATIONS, joined_mask, lift, lift_space, mask_path
from athlete.env.membership import sample_legal
from athlete.env.randomness import seed_spaces
from athlete.log import logger
from athlete.spaces import ACTION_MASK, Dict, Discrete, MultiBinary, MultiDiscrete, Space, has_mask, value_counts

# The bits beside the observations of `athlete.env.multi_agent.joint_spec`.
FLAGS = ACTING, TERMINATED, TRUNCATED = "acting", "terminated", "truncated"


def grouped(env: Agents, telling_masks: Collection[AgentId] = ()) -> tuple[Members, ...]:
    """Agents with equal spaces together, named after their ids without numbers and sorted by name.

    Where `info["action_mask"]` of one of `telling_masks` has the legal actions, it becomes a part of the observations
    of all agents with its spaces.

    Raises:
        ValueError: names the agent whose space is none, or of a kind that agents cannot serve.
    """
    found: dict[tuple[Space, Space], list[AgentId]] = {}
    for agent in env.ids:
        obs, action = env.spaces[agent]
        pair = to_space(obs, f"observation_space of {agent!r}"), to_space(action, f"action_space of {agent!r}", True)
        found.setdefault(pair, []).append(agent)
    names = _names(list(found.values()))
    groups = []
    for name, ((obs, own_action), agents) in zip(names, found.items(), strict=True):
        action = to_space(env.spaces[agents[0]][1])
        group = Members(name, tuple(agents), obs, action, own_action)
        groups.append(_showing_mask(group, any(agent in telling_masks for agent in agents)))
    return tuple(sorted(groups, key=lambda group: group.name))


def _showing_mask(group: Members, told_in_info: bool) -> Members:
    """The same with a mask of actions where policies read it, if there is one."""
    if has_mask(group.obs):
        return group
    if path := mask_path(group.obs, group.action):
        assert isinstance(group.obs, Dict)
        return group._replace(obs=lift_space(group.obs, path), mask_path=path)
    if told_in_info and isinstance(group.action, Discrete | MultiDiscrete):
        size = sum(value_counts(group.action))
        shown = Dict({OBSERVATIONS: group.obs, ACTION_MASK: MultiBinary((size,))})
        return group._replace(obs=shown, mask_size=size)
    return group


def _names(groups: Sequence[Sequence[AgentId]]) -> list[str]:
    """A name for each group, none twice: what its ids are called without their numbers."""
    stems = [list(dict.fromkeys(_stem(agent) for agent in agents)) for agents in groups]
    names = ["_".join(found) if len(found) < 4 else "agents" for found in stems]
    twice = [names.count(name) > 1 for name in names]
    names = [str(groups[i][0]) if twice[i] else name for i, name in enumerate(names)]
    return names if len(set(names)) == len(names) else [str(agents[0]) for agents in groups]


def _stem(agent: AgentId) -> str:
    return str(agent).rstrip("0123456789").rstrip("_- ") or "agent"


class _Place(NamedTuple):
    """Where one agent's part of a row is written."""

    column: int
    write: Writer
    group: Members
    number: int


class AgentsRow:
    """One environment with many agents, whose answers are written into a row of buffers.

    What it tells has to hold together; where it does not, MisfitError names the agent and what was expected.
    """

    def __init__(self, env: Agents, index: int, buffers: Buffers):
        self.env, self.index = env, index
        self._buffers, groups = buffers, buffers.groups
        self._split = {group.name: _splitter(group.own_action) for group in groups}
        self._places = {
            seat.agent: _Place(i, buffers.seat_writer(seat), seat.group, seat.number)
            for i, seat in enumerate(buffers.seats)
        }
        self._reward = buffers.reward[index]
        self._bits = {name: {group.name: buffers.obs[name][group.name][index] for group in groups} for name in FLAGS}
        self._has_ends = False  # whether the bits of the last step tell of somebody's end
        self.acting: list[AgentId] = []  # who is asked now
        self._met: set[AgentId] = set()  # who was shown anything in this episode
        self._gone: set[AgentId] = set()  # who ended in it
        self.is_over = True

    def reset(self, seed: int | None) -> Info:
        self._buffers.under_way[self.index] = True
        if seed is not None:
            self._seed(seed)
        obs, infos = self.env.reset(seed)
        self._buffers.under_way[self.index] = False
        mapped(self._blank, self._buffers.obs)
        self.acting, self._has_ends = [], False
        self._met, self._gone, self.is_over = set(), set(), False
        self._show(obs, infos, set(), False)
        return infos

    def _seed(self, seed: int) -> None:
        seed_spaces(self.env.env, seed)
        for i, space in enumerate({id(space): space for pair in self.env.spaces.values() for space in pair}.values()):
            if callable(getattr(space, "seed", None)):
                space.seed(seed + i)

    def _blank(self, leaf: np.ndarray) -> None:
        leaf[self.index] = 0

    def step(self, action: Mapping[str, Any]) -> Info:
        """Take a step with actions `{group: [n, ...]}`, of which those of agents that are not acting mean nothing."""
        return self.take(self._taken(action))

    def take(self, actions: AgentDict) -> Info:
        """Take a step with the actions of all who are `acting`, by agent id."""
        if self.is_over:
            raise MisfitError("a step was asked for where the episode is over for all agents; expected a reset")
        self._buffers.under_way[self.index] = True
        obs, rewards, terminateds, truncateds, infos = self.env.step(actions)
        self._buffers.under_way[self.index] = False
        self._pay(rewards)
        over, cut = _flag_of_all(terminateds, TERMINATED), _flag_of_all(truncateds, TRUNCATED)
        ended, left = self._ended(terminateds, TERMINATED), self._ended(truncateds, TRUNCATED)
        self.is_over = over or cut
        self._show(obs, infos, ended | left, self.is_over)
        if self._has_ends:
            self._mark((), TERMINATED)
            self._mark((), TRUNCATED)
        self._has_ends = bool(ended or left)
        if self._has_ends:
            self._end(ended & self._met, (left - ended) & self._met, obs)
        self._buffers.terminated[self.index], self._buffers.truncated[self.index] = over, cut
        return infos

    def random_action(self, agent: AgentId, generator: np.random.Generator) -> Any:
        """A random action of an agent that is acting, among those that are legal. ValueError where none is."""
        place = self._places[agent]
        mask = None
        if has_mask(place.group.obs):
            mask = self._buffers.obs["obs"][place.group.name][ACTION_MASK][self.index, place.number] > 0
        return sample_legal(place.group.own_action, mask, generator)

    def _taken(self, action: Mapping[str, Any]) -> dict[AgentId, Any]:
        """The actions of those who are asked, each in the form of its own space."""
        split: dict[str, Sequence[Any]] = {}
        actions = {}
        for agent in self.acting:
            place = self._places[agent]
            name = place.group.name
            if name not in split:
                split[name] = self._split[name](action[name])
            actions[agent] = split[name][place.number]
        return actions

    def _pay(self, rewards: AgentDict) -> None:
        if len(rewards) < len(self._places):
            self._reward[:] = 0.0
        for agent, reward in rewards.items():
            if agent not in self._places:
                raise self._unknown(agent, "a reward")
            value = reward if isinstance(reward, float) else as_reward(reward, f"the reward of {agent!r}")
            if value and agent in self._gone:
                raise MisfitError(
                    f"there is a reward of {value:g} for the agent {agent!r}, which has ended before in this episode; "
                    "expected rewards until an agent's last step, and none or 0 later"
                )
            self._reward[self._places[agent].column] = value

    def _ended(self, flags: AgentDict, name: str) -> set[AgentId]:
        """Who ends with this step, of those who have not ended before."""
        ended = set()
        for agent, flag in flags.items():
            if flag is False or agent == ALL:
                continue
            if agent not in self._places:
                raise self._unknown(agent, f"a flag {name}")
            if as_flag(flag, f"{name} of {agent!r}") and agent not in self._gone:
                ended.add(agent)
        return ended

    def _show(self, obs: AgentDict, infos: AgentDict, ending: set[AgentId], is_over: bool) -> None:
        acting = []
        for agent, seen in obs.items():
            place = self._places.get(agent)
            if place is None:
                raise self._unknown(agent, "an observation")
            if agent in self._gone:
                raise MisfitError(
                    f"there is an observation of the agent {agent!r}, which has ended before in this episode; an id "
                    "does not come back before the next reset: give who joins an id of its own"
                )
            if seen is None:
                raise MisfitError(f"the observation of {agent!r} is None; expected an element of {place.group.obs}")
            place.write(self.index, self._shown(agent, seen, infos, place.group, agent in ending or is_over))
            self._met.add(agent)
            if agent not in ending and not is_over:
                acting.append(agent)
        if acting != self.acting:
            self.acting = acting
            self._mark(acting, ACTING)

    def _mark(self, agents: Collection[AgentId], name: str) -> None:
        """Set the bits `name` of these agents, and of no others."""
        for bits in self._bits[name].values():
            bits[:] = 0
        for agent in agents:
            place = self._places[agent]
            self._bits[name][place.group.name][place.number] = 1

    def _shown(self, agent: AgentId, seen: Any, infos: AgentDict, group: Members, ends: bool) -> Any:
        """An observation as policies see it, with its mask where they read it."""
        if group.mask_path is not None:
            return lift(seen, group.mask_path)
        if not group.mask_size:
            return seen
        info = infos.get(agent) or {}
        if ACTION_MASK not in info:
            if ends:
                return {OBSERVATIONS: seen, ACTION_MASK: np.zeros(group.mask_size, np.int8)}
            raise MisfitError(
                f"the info of {agent!r} has no {ACTION_MASK!r}, which it had before; there is {list(info)}"
            )
        told = f"info[{ACTION_MASK!r}] of {agent!r} is a mask"
        return {OBSERVATIONS: seen, ACTION_MASK: joined_mask(info[ACTION_MASK], group.mask_size, told)}

    def _end(self, ended: set[AgentId], left: set[AgentId], obs: AgentDict) -> None:
        """Note whose life ended, or was cut off, with this step."""
        self._mark(ended, TERMINATED)
        self._mark(left, TRUNCATED)
        for agent in left:
            if agent not in obs and not self.is_over:
                raise MisfitError(
                    f"the agent {agent!r} is truncated and its last observation is missing, from which its value goes "
                    "on; expected it beside the flag (or terminated, where nothing goes on)"
                )
        self._gone |= ended | left
        if len(self._gone) == len(self._places) and not self.is_over:
            last = ", ".join(repr(agent) for agent in self._places if agent in ended | left)
            raise MisfitError(
                f"all agents have ended, with this step {last}, and nothing says that the episode is over; expected "
                f"terminateds[{ALL!r}] or truncateds[{ALL!r}] to be True"
            )

    def _unknown(self, agent: AgentId, what: str) -> MisfitError:
        return MisfitError(
            f"there is {what} for {agent!r}, which is none of the possible agents {list(self._places)}; name all that "
            "may ever join in possible_agents"
        )

    def close(self) -> None:
        try:
            self.env.close()
        except Exception:
            logger.warning("row %d: its environment failed to close:\n%s", self.index, traceback.format_exc())


def _splitter(space: Space) -> Callable[[Any], Sequence[Any]]:
    """What takes actions `[n, ...]` apart into those of the agents."""
    if isinstance(space, Discrete):
        return np.ndarray.tolist  # Python's own numbers are the fastest to look at
    return per_row(to_gymnasium_space(space))


def _flag_of_all(flags: AgentDict, name: str) -> bool:
    flag = flags.get(ALL, False)
    return flag if type(flag) is bool else as_flag(flag, f"{name} of {ALL!r}")

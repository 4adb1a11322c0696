"""Environments of many agents in plain Python: they keep a diary of what each agent lived through."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from athlete.env import MultiAgentEnv

IDS = ("b_0", "a_0", "a_1", "a_2", "b_1", "a_3", "a_10")
CONTINUOUS = Box(-2.0, 2.0, (2,))
MIXED = Dict({"kind": Discrete(4), "number": Box(-10.0, 10.0, (2,))})


class Diary:
    """What agents lived through: `[agent, obs, action, reward, next_obs, terminated, truncated]`, in order of ends."""

    def __init__(self) -> None:
        self.entries: list[list[Any]] = []
        self.waiting: dict[str, list[Any]] = {}  # agent -> [obs, action, reward so far]
        self.shown: dict[str, Any] = {}

    def begins(self) -> None:
        """An episode begins; one that was given up before its end is forgotten."""
        self.waiting, self.shown = {}, {}

    def asks(self, agent: str, obs: Any) -> None:
        self.shows(agent, obs)
        if agent in self.waiting:
            self.closes(agent, False, False)
        self.waiting[agent] = [obs, None, 0.0]

    def shows(self, agent: str, obs: Any) -> None:
        self.shown[agent] = obs

    def closes(self, agent: str, terminated: bool, truncated: bool) -> None:
        if agent in self.waiting:
            obs, action, reward = self.waiting.pop(agent)
            self.entries.append([agent, obs, action, reward, self.shown[agent], terminated, truncated])


class DictRoster(MultiAgentEnv):
    """Agents join, leave, are asked at random and paid at any time. An id that has left does not come back."""

    def __init__(self, config: Any = None):
        self.possible_agents = list(IDS)
        self.observation_space = Dict({agent: Box(-1e3, 1e3, (3,)) if agent[0] == "a" else MIXED for agent in IDS})
        self.action_space = Dict({agent: Discrete(3) if agent[0] == "a" else CONTINUOUS for agent in IDS})
        self.diary = Diary()
        self.limit = (config or {}).get("limit", 15)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        self.diary.begins()
        self.here = {agent for agent in IDS if self.np_random.random() < 0.5}
        self.yet_to_come = set(IDS) - self.here
        return self._ask(), {}

    def _look(self, agent: str) -> Any:
        if agent[0] == "a":
            return self.np_random.normal(size=3).astype(np.float32)
        number = self.np_random.uniform(-9, 9, 2).astype(np.float32)
        return {"kind": int(self.np_random.integers(4)), "number": number}

    def _ask(self) -> dict[str, Any]:
        obs = {agent: self._look(agent) for agent in IDS if agent in self.here and self.np_random.random() < 0.6}
        for agent, seen in obs.items():
            self.diary.asks(agent, seen)
        return obs

    def step(self, action_dict: dict[str, Any]) -> Any:
        draw = self.np_random.random
        self.steps += 1
        for agent, action in action_dict.items():
            self.diary.waiting[agent][1] = action
        rewards = {agent: float(self.np_random.integers(8)) for agent in IDS if agent in self.here and draw() < 0.5}
        for agent, reward in rewards.items():
            if agent in self.diary.waiting:
                self.diary.waiting[agent][2] += reward
        met = [agent for agent in IDS if agent in self.here and agent in self.diary.shown]
        dead = [agent for agent in met if draw() < 0.1]
        gone = [agent for agent in met if agent not in dead and draw() < 0.05]
        self.here -= {*dead, *gone}
        joined = {agent for agent in IDS if agent in self.yet_to_come and draw() < 0.2}
        self.here, self.yet_to_come = self.here | joined, self.yet_to_come - joined
        over = draw() < 0.05 or not (self.here or self.yet_to_come)
        cut = self.steps >= self.limit and not over
        last = {agent: self._look(agent) for agent in (*dead, *gone) if agent in gone or draw() < 0.5}
        for agent, seen in last.items():
            self.diary.shows(agent, seen)
        for agent in (*dead, *gone):
            self.diary.closes(agent, agent in dead, agent in gone)
        if over or cut:
            for agent in list(self.diary.waiting):
                self.diary.closes(agent, over, cut)
        asked = {} if over or cut else self._ask()
        terminateds = {**dict.fromkeys(dead, True), "__all__": over}
        return {**last, **asked}, rewards, terminateds, {**dict.fromkeys(gone, True), "__all__": cut}, {}


class OldRoster:
    """The same in RLlib's form of before: three dictionaries and infos; ids in a set; no base class."""

    def __init__(self, config: Any = None):
        self._env = DictRoster(config)
        self._agent_ids = set(IDS)
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space

    def get_agent_ids(self) -> set[str]:
        return self._agent_ids

    @property
    def diary(self) -> Diary:
        return self._env.diary

    def seed(self, seed: int) -> None:
        self._env._np_random = np.random.default_rng(seed)

    def reset(self) -> Any:
        return self._env.reset()[0]

    def step(self, action_dict: dict[str, Any]) -> Any:
        obs, rewards, terminateds, truncateds, infos = self._env.step(action_dict)
        agents = {**terminateds, **truncateds}
        dones = {agent: terminateds.get(agent, False) or truncateds.get(agent, False) for agent in agents}
        cut = {agent: {"TimeLimit.truncated": True} for agent, flag in truncateds.items() if flag}
        infos = {**cut, "__common__": {"TimeLimit.truncated": truncateds["__all__"]}}
        return obs, rewards, dones, infos


class TurnRoster:
    """Turns in PettingZoo's form (AEC), with rewards to anyone at any step, deaths out of turn and last turns.

    Written as the base class of PettingZoo's has it, which is not needed.
    """

    metadata: dict[str, Any] = {"name": "turns"}  # noqa: RUF012
    render_mode = None

    def __init__(self, limit: int = 25):
        self.possible_agents = ["red_1", "red_2", "blue", "red_11"]
        self.limit, self.diary = limit, Diary()

    def observation_space(self, agent: str) -> Any:
        return Box(-1e3, 1e3, (3,)) if agent != "blue" else MIXED

    def action_space(self, agent: str) -> Any:
        return Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        if seed is not None or not hasattr(self, "random"):
            self.random = np.random.default_rng(seed)
        self.agents = self.possible_agents[:]
        self.rewards, self._cumulative_rewards = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos: dict[str, Any] = {agent: {} for agent in self.agents}
        self.diary.begins()
        self.steps = 0
        self._select(self.agents[int(self.random.integers(4))])

    def _select(self, agent: str) -> None:
        self.agent_selection = agent
        if agent == "blue":
            number = self.random.uniform(-9, 9, 2).astype(np.float32)
            self._seen: Any = {"kind": int(self.random.integers(4)), "number": number}
        else:
            self._seen = self.random.normal(size=3).astype(np.float32)
        self.diary.shows(agent, self._seen)
        ended = self.terminations[agent], self.truncations[agent]
        if any(ended):
            self.diary.closes(agent, *ended)
        else:
            self.diary.asks(agent, self._seen)

    def last(self) -> Any:
        agent = self.agent_selection
        ended = self.terminations[agent], self.truncations[agent]
        return self._seen, self._cumulative_rewards[agent], *ended, self.infos[agent]

    def step(self, action: Any) -> None:
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            assert action is None
            self.agents.remove(agent)
        else:
            self._act(agent, action)
        if self.agents:
            self._select(self.agents[int(self.random.integers(len(self.agents)))])

    def _act(self, agent: str, action: Any) -> None:
        self.steps += 1
        self._cumulative_rewards[agent] = 0.0
        self.diary.waiting[agent][1] = action
        for other in self.agents:
            self.rewards[other] = float(self.random.integers(8)) if self.random.random() < 0.5 else 0.0
            self._cumulative_rewards[other] += self.rewards[other]
            if other in self.diary.waiting:
                self.diary.waiting[other][2] += self.rewards[other]
            if self.steps >= self.limit:
                self.truncations[other] = not self.terminations[other]
            elif self.random.random() < 0.05:
                self.terminations[other] = not self.truncations[other]
            elif self.random.random() < 0.02:
                self.truncations[other] = not self.terminations[other]


class ParallelRoster:
    """PettingZoo's parallel form: all who are there act; some join, some leave, and the list of who is there is one."""

    metadata: dict[str, Any] = {"name": "parallel"}  # noqa: RUF012
    render_mode = None

    def __init__(self, limit: int = 12):
        self.possible_agents = [f"walker_{i}" for i in range(4)]
        self.limit, self.diary = limit, Diary()

    def observation_space(self, agent: str) -> Any:
        return Box(-1e3, 1e3, (3,))

    def action_space(self, agent: str) -> Any:
        return CONTINUOUS

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None or not hasattr(self, "random"):
            self.random = np.random.default_rng(seed)
        self.diary.begins()
        self.agents, self.steps = self.possible_agents[:2], 0
        self.yet_to_come = self.possible_agents[2:]
        return self._ask(), {agent: {} for agent in self.agents}

    def _ask(self) -> dict[str, Any]:
        obs = {agent: self.random.normal(size=3).astype(np.float32) for agent in self.agents}
        for agent, seen in obs.items():
            self.diary.asks(agent, seen)
        return obs

    def step(self, actions: dict[str, Any]) -> Any:
        self.steps += 1
        there = list(self.agents)
        assert set(actions) == set(there)
        rewards = {agent: float(self.random.integers(8)) for agent in there}
        for agent in there:
            self.diary.waiting[agent][1] = actions[agent]
            self.diary.waiting[agent][2] += rewards[agent]
        terminations = {agent: bool(self.random.random() < 0.15) for agent in there}
        truncations = {agent: self.steps >= self.limit and not terminations[agent] for agent in there}
        last = {}
        for agent in there:
            if terminations[agent] or truncations[agent]:
                last[agent] = self.random.normal(size=3).astype(np.float32)
                self.diary.shows(agent, last[agent])
                self.diary.closes(agent, terminations[agent], truncations[agent])
                self.agents.remove(agent)  # in place, as mpe2 does it
        if self.agents and self.yet_to_come and self.random.random() < 0.3:
            self.agents.append(self.yet_to_come.pop())
        return {**last, **self._ask()}, rewards, terminations, truncations, {agent: {} for agent in there}

    def close(self) -> None:
        pass


class Scripted(MultiAgentEnv):
    """Two agents `red` and `blue` who see two numbers; `answers[step]` replaces parts of what a sound step tells."""

    def __init__(self, config: Any = None):
        self.answers = (config or {}).get("answers", {})
        self.ids = self.possible_agents = ["red", "blue"]
        self.observation_space, self.action_space = Box(-1.0, 1.0, (2,)), Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return {agent: np.zeros(2, np.float32) for agent in self.ids}, {}

    def step(self, action_dict: dict[str, Any]) -> Any:
        self.steps += 1
        told = {
            "obs": {agent: np.zeros(2, np.float32) for agent in action_dict},
            "rewards": dict.fromkeys(action_dict, 1.0),
            "terminateds": {"__all__": False},
            "truncateds": {"__all__": False},
            "infos": {},
        }
        told |= self.answers.get(self.steps, {})
        return tuple(told.values())


class Telling(Scripted):
    """Tells in its infos whether its process has imported JAX."""

    def step(self, action_dict: dict[str, Any]) -> Any:
        return *super().step(action_dict)[:4], {"red": {"jax": "jax" in sys.modules}}


class ScriptedParallel:
    """The same of PettingZoo's parallel form; `agents` in an answer is who is left."""

    metadata: dict[str, Any] = {"name": "scripted"}  # noqa: RUF012
    render_mode = None

    def __init__(self, answers: dict[int, dict[str, Any]] | None = None):
        self.answers = answers or {}
        self.possible_agents = ["red", "blue"]

    def observation_space(self, agent: str) -> Any:
        return Box(-1.0, 1.0, (2,))

    def action_space(self, agent: str) -> Any:
        return Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.steps, self.agents = 0, self.possible_agents[:]
        return {agent: np.zeros(2, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        self.steps += 1
        told: dict[str, Any] = {
            "obs": {agent: np.zeros(2, np.float32) for agent in actions},
            "rewards": dict.fromkeys(actions, 1.0),
            "terminations": dict.fromkeys(actions, False),
            "truncations": dict.fromkeys(actions, False),
            "infos": {},
        }
        answer = dict(self.answers.get(self.steps, {}))
        self.agents[:] = answer.pop("agents", list(self.agents))
        return tuple((told | answer).values())

"""PettingZoo's environments, parallel ones and those of turns (AEC), in RLlib's form of dictionaries by agent id.

The only module that imports pettingzoo, and only to make an environment from a name. No JAX, since worker processes
import it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from athlete.env.adapters.buffers import MisfitError
from athlete.env.adapters.multi_agent_env import ALL, AgentDict, AgentId, Told, require_dict
from athlete.env.registry import PETTINGZOO, EnvContext, create

_STEP = ("observations", "rewards", "terminations", "truncations", "infos")


def make_pettingzoo(name: str, env_config: Mapping[str, Any]) -> Any:
    """The environment of a name.

    That is `"pettingzoo:mpe2.simple_spread_v3"`, a module, also within PettingZoo's own package, or
    `"pettingzoo:classic/connect_four-v3"`, an id of its registries, which it has from 1.27 on.

    Raises:
        ValueError: PettingZoo or the module is not installed; `env_config` does not fit.
    """
    try:
        import pettingzoo
    except ModuleNotFoundError as error:
        raise ValueError(f"environment {name!r} needs the package pettingzoo: pip install pettingzoo") from error
    path = name.removeprefix(PETTINGZOO)
    for form in ("parallel", "aec"):
        if path in getattr(pettingzoo, f"{form}_registry", ()):
            return pettingzoo.make(form, path, **env_config)
    for module in (path, f"{pettingzoo.__name__}.{path}"):
        try:
            return make_of_module(importlib.import_module(module), env_config)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise ValueError(f"environment {name!r} needs the package {error.name!r}: pip install it") from error
    near = difflib.get_close_matches(path.rpartition(".")[2], _neighbours(path), n=1)
    known = f"such a name is {PETTINGZOO}mpe2.simple_spread_v3, with the package mpe2"
    hint = f"did you mean {near[0]!r}?" if near else known
    raise ValueError(f"environment {name!r}: there is no module {path!r}, nor one of PettingZoo's own; {hint}")


def _neighbours(path: str) -> list[str]:
    """The modules that lie beside one that there is not."""
    for package in (path.rpartition(".")[0], f"pettingzoo.{path.rpartition('.')[0]}"):
        if package in sys.modules:
            return [module.name for module in pkgutil.iter_modules(sys.modules[package].__path__)]
    return []


def make_of_module(module: ModuleType, env_config: Mapping[str, Any]) -> Any:
    """The environment of a module of PettingZoo's form: its `parallel_env` or, if it has none, its `env`.

    Raises:
        ValueError: it has neither; `env_config` does not fit.
    """
    maker = getattr(module, "parallel_env", None) or getattr(module, "env", None)
    if not callable(maker):
        raise ValueError(f"{module.__name__} has no parallel_env and no env, which make an environment of PettingZoo's")
    return create(maker, EnvContext(env_config))


class _PettingZooAgents:
    """What both forms have in common."""

    def __init__(self, env: Any):
        self.env = env
        self.ids: tuple[AgentId, ...] = tuple(getattr(env, "possible_agents", ()))
        if not self.ids:
            raise ValueError(f"{env} has no possible_agents; set them in __init__ to all that may ever be there")
        self.spaces = {agent: (env.observation_space(agent), env.action_space(agent)) for agent in self.ids}
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self.render_mode = getattr(env, "render_mode", None)

    def close(self) -> None:
        if hasattr(self.env, "close"):
            self.env.close()

    def __repr__(self) -> str:
        return str(self.env)


class ParallelAgents(_PettingZooAgents):
    """A parallel environment of PettingZoo's as `Agents`: all who are there act at every step."""

    def reset(self, seed: int | None) -> tuple[AgentDict, AgentDict]:
        result = self.env.reset(seed=seed)
        obs, infos = result if isinstance(result, tuple) else (result, {})
        obs, infos = require_dict(obs, "observations"), require_dict(infos, "infos")
        self._require_seen(list(self.env.agents), obs, "reset")
        return obs, infos

    def step(self, actions: AgentDict) -> Told:
        there = list(self.env.agents)  # a copy: some environments empty the list itself
        if not there:
            raise MisfitError("a step was asked for where env.agents is empty; expected a reset")
        result = self.env.step(actions)
        if not isinstance(result, tuple) or len(result) != 5:
            came = f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
            raise MisfitError(f"step returned {came}; expected five dictionaries by agent id: {', '.join(_STEP)}")
        obs, rewards, terminations, truncations, infos = map(require_dict, result, _STEP)
        ended = [agent for agent in there if terminations.get(agent) or truncations.get(agent)]
        staying = [agent for agent in self.env.agents if agent not in ended]
        for agent in there:
            if agent not in staying and agent not in ended:
                raise MisfitError(
                    f"the agent {agent!r} is gone from env.agents, and neither terminations nor truncations say that "
                    "it ended; expected one of them to be True"
                )
        self._require_seen(staying, obs, "step")
        if staying:
            return Told(obs, rewards, terminations, truncations, infos)
        is_cut = any(truncations.get(agent) for agent in there)
        return Told(obs, rewards, {**terminations, ALL: not is_cut}, {**truncations, ALL: is_cut}, infos)

    def _require_seen(self, agents: list[AgentId], obs: AgentDict, call: str) -> None:
        for agent in agents:
            if agent not in obs:
                raise MisfitError(
                    f"{call} gave no observation for {agent!r}, which is in env.agents; expected one for each agent "
                    "that is there"
                )


class AecAgents(_PettingZooAgents):
    """An environment of PettingZoo's where turns are taken (AEC) as `Agents`: `agent_selection` acts.

    An agent's reward is what `last()` tells at its turn: all that it got since the one before, so that each is told
    once. Who has ended gets its turn too, in which it is told of the end; no step of the library's is taken by it.
    """

    def reset(self, seed: int | None) -> tuple[AgentDict, AgentDict]:
        self.env.reset(seed=seed)
        if not self.env.agents:
            raise MisfitError("reset left env.agents empty; expected the agents that are there")
        told = self._turn()
        return told.observations, {**self.env.infos, **told.infos}

    def step(self, actions: AgentDict) -> Told:
        if not self.env.agents:
            raise MisfitError("a step was asked for where env.agents is empty; expected a reset")
        self.env.step(actions[self.env.agent_selection])
        return self._turn()

    def _turn(self) -> Told:
        """What is told up to the turn of the next agent that is asked for an action."""
        told = Told({}, {}, {}, {}, {})
        while self.env.agents:
            agent = self.env.agent_selection
            obs, reward, terminated, truncated, info = self.env.last()
            ends = terminated or truncated
            if obs is not None or not ends:
                told.observations[agent] = obs
            told.rewards[agent], told.infos[agent] = reward, info
            if not ends:
                break
            told.terminateds[agent], told.truncateds[agent] = terminated, truncated
            self.env.step(None)
            if agent in self.env.agents:
                raise MisfitError(
                    f"the agent {agent!r} has ended and is still in env.agents after step(None); expected it to be "
                    "taken out (self._was_dead_step)"
                )
        is_cut = any(told.truncateds.values())
        told.terminateds[ALL] = not self.env.agents and not is_cut
        told.truncateds[ALL] = not self.env.agents and is_cut
        return told

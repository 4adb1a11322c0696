"""What `check_env` does with an environment of many agents outside JAX: play it, and look at what each is told."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from athlete.env.adapters.agent_rows import AgentsRow
from athlete.env.adapters.agents import AgentsMaker
from athlete.env.adapters.buffers import Buffers, MisfitError
from athlete.env.adapters.conversion import to_space
from athlete.env.adapters.multi_agent_env import AgentDict, Agents, Told
from athlete.env.membership import first_difference, violation
from athlete.env.randomness import global_generators_kept, seed_global_generators
from athlete.log import logger
from athlete.spaces import Space

EPISODES = 3
MAX_STEPS = 300  # in all episodes together
MOST_IDLE = 20  # steps in a row in which nobody is asked for an action
REPEATED = 20  # steps of the first episode that are played again from the same seed


def check_agents(env: Any) -> None:
    """Return silently if an environment with many agents keeps its promises; else raise ValueError with what to mend.

    As `check_env`, which calls it; the errors name the agent and the step. `env` is an instance, and stays open.
    """
    maker = AgentsMaker(env, {}, index=0, num_workers=0, num_envs_per_worker=1)
    agents = maker.make()
    shown = maker.shown(agents)
    with global_generators_kept():
        _Game(agents, Buffers(shown.space, 1, groups=shown.agents)).play()


class _Step(NamedTuple):
    """What was done, and what was told then."""

    actions: AgentDict | None  # None for a reset
    told: dict[str, Any]


class _Game:
    """A few episodes with random legal actions."""

    def __init__(self, agents: Agents, buffers: Buffers):
        self.env = agents
        self.name = type(getattr(agents.env, "unwrapped", agents.env)).__name__
        self.witness = _Witness(agents)
        self.row = AgentsRow(self.witness, 0, buffers)
        self.own_spaces: dict[Any, Space] = {
            agent: to_space(agents.spaces[agent][0], f"observation_space of {agent!r}", exact=True)
            for agent in agents.ids
        }
        self.generator = np.random.default_rng(0)
        self.steps = 0  # in all episodes together

    def play(self) -> None:
        seed_global_generators(0)
        first = self._play_episode(1)
        for episode in range(2, EPISODES + 1):
            self._play_episode(episode)
        if difference := self._difference_on_repeat(first[: REPEATED + 1]):
            logger.warning(
                "%s: two episodes from reset(seed=0) with the same actions differ: %s. Draw from a generator that "
                "reset(seed=seed) seeds, and keep nothing from the episode before; else no run can be repeated",
                self.name,
                difference,
            )

    def _play_episode(self, episode: int) -> list[_Step]:
        """What was done and told, from the reset to the end of the episode or of the check."""
        seed = 0 if episode == 1 else None
        self._judged("reset()" if seed is None else f"reset(seed={seed})", self.row.reset, seed)
        played = [_Step(None, copy.deepcopy(self.witness.told))]
        step = idle = 0
        while not self.row.is_over and self.steps < MAX_STEPS:
            self.steps, step = self.steps + 1, step + 1
            idle = 0 if self.row.acting else idle + 1
            where = f"in step {step} of episode {episode}"
            if idle == MOST_IDLE:
                raise ValueError(
                    f"{self.name}: for {idle} steps, the last {where}, no agent was asked for an action: none of those "
                    "in the observations goes on. Show somebody an observation, or end the episode with '__all__'"
                )
            actions = {agent: self._action(agent, where) for agent in self.row.acting}
            taken = copy.deepcopy(actions)
            self._judged(f"step({actions!r}), {where},", self.row.take, actions)
            played.append(_Step(taken, copy.deepcopy(self.witness.told)))
        return played

    def _action(self, agent: Any, where: str) -> Any:
        try:
            return self.row.random_action(agent, self.generator)
        except ValueError as error:
            raise ValueError(f"{self.name}: {where} {agent!r} is to act, and {error}") from None

    def _judged(self, call: str, function: Callable[[Any], Any], argument: Any) -> None:
        """Make a call of the row; ValueError with the whole story where it fails, or what it told is wrong."""
        try:
            function(argument)
        except MisfitError as error:
            raise ValueError(f"{self.name}.{call} is wrong: {error}") from error
        except Exception as error:
            raise ValueError(f"{self.name}.{call} raised {type(error).__name__}: {error}") from error
        if sentence := self._wrong(self.witness.told):
            raise ValueError(f"{self.name}.{call} is wrong: {sentence}")

    def _wrong(self, told: dict[str, Any]) -> str:
        """What training would take, but should not have to; the row has looked at all else."""
        for agent, obs in told["observations"].items():
            if wrong := violation(self.own_spaces[agent], obs, f"observation[{agent!r}]"):
                return wrong
        for agent, reward in told.get("rewards", {}).items():
            if not np.isfinite(reward):
                return f"the reward of {agent!r} is {reward}; expected a finite number"
        for name in ("terminateds", "truncateds"):
            for agent, flag in told.get(name, {}).items():
                if not isinstance(flag, bool | np.bool_):
                    return f"{name}[{agent!r}] is {flag!r} of type {type(flag).__name__}; expected a bool"
        for agent, info in told["infos"].items():
            if not isinstance(info, Mapping):
                return f"the info of {agent!r} is of type {type(info).__name__}; expected a dict"
        return ""

    def _difference_on_repeat(self, played: list[_Step]) -> str:
        """Where the steps come out otherwise when they are taken again from the same seed; empty if nowhere."""
        seed_global_generators(0)
        for number, step in enumerate(played):
            where = f"step {number}" if number else "the reset"
            try:
                self.row.reset(0) if step.actions is None else self.row.take(step.actions)
            except Exception as error:
                return f"the second time {where} raised {type(error).__name__}: {error}"
            for name in step.told:
                before, after = step.told[name], self.witness.told[name]
                if name == "infos":
                    continue
                if list(before) != list(after):
                    return f"{name} of {where} are of {list(before)} the first time and of {list(after)} the second"
                if path := first_difference(before, after, name):
                    return f"{path[0]} of {where} is {path[1]!r} the first time and {path[2]!r} the second"
        return ""


class _Witness:
    """`agents`, remembering what they told last."""

    def __init__(self, agents: Agents):
        self.env, self.ids, self.spaces = agents.env, agents.ids, agents.spaces
        self.metadata, self.render_mode = agents.metadata, agents.render_mode
        self._agents = agents
        self.told: dict[str, Any] = {}

    def reset(self, seed: int | None) -> tuple[AgentDict, AgentDict]:
        obs, infos = self._agents.reset(seed)
        self.told = {"observations": obs, "infos": infos}
        return obs, infos

    def step(self, actions: AgentDict) -> Told:
        told = self._agents.step(actions)
        self.told = told._asdict()
        return told

    def close(self) -> None:
        self._agents.close()

"""Episodes as hooks see them: a source that follows the rows of another and calls the user's code."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from athlete.core import Array, Key, Source, SourceWrapper, Step, Tree, agent_ids
from athlete.log import logger
from athlete.spaces import Space, to_environment

_numbers = itertools.count(1)


class Seat(NamedTuple):
    """Where one of many agents stands in what all of them see, do and get."""

    group: str
    number: int  # within the group
    column: int  # of the rewards
    action_space: Space


def seats_of(source: Source) -> dict[Any, Seat]:
    """Each agent's seat, by the environment's own id; none where there is one agent."""
    groups = source.spec.groups
    places = [(name, i, group.action) for name, group in groups for i in range(group.size)]
    ids = source.agent_ids or agent_ids(groups)
    return {
        agent: Seat(name, i, column, space)
        for column, (agent, (name, i, space)) in enumerate(zip(ids, places, strict=True))
    }


class Episode:
    """A running episode, RLlib's. Where there is one agent, `agent_id` arguments are for its users.

    Of many agents the methods tell of the one whose id is given, or else of all: observations and actions by group,
    and the sum of the rewards.

    `user_data` is the hooks' own; of `custom_metrics` (numbers) and `hist_data` (lists of numbers) results tell.
    """

    def __init__(self, row: int, action_space: Space, obs: Tree, seats: Mapping[Any, Seat] | None = None):
        self.episode_id = next(_numbers)
        self.env_id = row
        self.length = 0
        self.total_reward = 0.0
        self.user_data: dict[str, Any] = {}
        self.custom_metrics: dict[str, float] = {}
        self.hist_data: dict[str, list[float]] = {}
        self._action_space = action_space
        self._obs, self._action = obs, None
        self._reward: Array = np.float32(0.0)
        self._info: Mapping[Any, Any] = {}
        self._seats = seats or {}

    def add_step(self, action: Tree, reward: Array, obs: Tree, info: Mapping[Any, Any]) -> None:
        """One step more, with its canonical action; the reward is `[agents]` where there are many."""
        self.length += 1
        self.total_reward += float(np.sum(reward))
        self._action, self._reward, self._obs, self._info = action, reward, obs, info

    def get_agents(self) -> list[Any]:
        """The ids of many agents."""
        return list(self._seats)

    def last_observation_for(self, agent_id: Any = None) -> Tree:
        """What the environment showed last, as the agent got it."""
        if (seat := self._seats.get(agent_id)) is None:
            return self._obs
        return _row(self._obs["obs"][seat.group], seat.number)

    def last_info_for(self, agent_id: Any = None) -> Mapping[Any, Any]:
        """The `info` of the last step; `{}` before the first."""
        return self._info if agent_id not in self._seats else self._info.get(agent_id, {})

    def last_reward_for(self, agent_id: Any = None) -> float:
        """The reward of the last step; 0 before the first."""
        if (seat := self._seats.get(agent_id)) is None or self._action is None:
            return float(np.sum(self._reward))
        return float(self._reward[seat.column])

    def last_action_for(self, agent_id: Any = None) -> Tree:
        """What the environment was given last; None before the first step."""
        if self._action is None:
            return None
        if (seat := self._seats.get(agent_id)) is None:
            return to_environment(self._action_space, self._action)
        return to_environment(seat.action_space, _row(self._action[seat.group], seat.number))


class Told(NamedTuple):
    """What a finished episode leaves for the results."""

    custom_metrics: dict[str, float]
    hist_data: dict[str, list[float]]
    row: int = 0


def told_of(info: Mapping[str, np.ndarray]) -> tuple[Told, ...]:
    """What finished episodes leave of whose last `info` these are the entries, `[episodes]` each."""
    columns = [values.tolist() for values in info.values()]
    return tuple(Told(dict(zip(info, row, strict=True)), {}) for row in zip(*columns, strict=True))


class Place(NamedTuple):
    """What RLlib calls `worker`: where environments step."""

    base_env: Source

    @property
    def env(self) -> Any:
        """The first row's environment, where it lives in this process; else None."""
        found = self.base_env.environments()
        return found[0] if found else None


class WatchedSource(SourceWrapper):
    """The rows of `source`, each step of which is told to `callbacks`.

    Args:
        hooks: which of the callbacks' methods to call; without those of episodes and samples, none.
        policies: what hooks get under that name.
        info_metrics: entries of `info` that become custom metrics where an episode ends; True for all scalars.
        length: steps that make a sample, for `on_sample_end`.
        first_only: tell each row's first episode after a `reset` only, as an evaluation counts them; again where its
            environment failed.
    """

    def __init__(
        self,
        source: Source,
        callbacks: Any,
        hooks: frozenset[str],
        policies: Any,
        info_metrics: Sequence[str] | Literal[True] = (),
        length: int = 0,
        first_only: bool = False,
    ):
        super().__init__(source)
        self._seats = seats_of(source)
        # Users' code belongs to their own thread.
        self.any_thread = source.any_thread and not hooks
        self._callbacks, self._hooks, self._policies = callbacks, hooks, policies
        self._info_metrics, self._length, self._first_only = info_metrics, length, first_only
        self.place = Place(self)
        self._episodes: list[Episode | None] = [None] * self.rows
        self._lasting: list[list[Episode]] = [[] for _ in range(self.rows)]
        self._sample: list[dict[str, Tree]] = []
        self._told: list[Told] = []
        self._missed = self._unstarted = False
        self._again = np.zeros(self.rows, bool)  # whose episode broke off and is played once more
        self._obs: Tree = ()

    def get_sub_environments(self) -> list[Any]:
        """The rows' environments where they live in this process, RLlib's `base_env.get_sub_environments()`."""
        return self.source.environments()

    def take(self) -> list[Told]:
        """What episodes have left since the last call."""
        told, self._told = self._told, []
        return told

    def take_episodes(self) -> list[list[Episode]]:
        """Of each row the episodes that had steps since the last call, in their order."""
        lasting = self._lasting
        self._lasting = [[] for _ in range(self.rows)]
        return lasting

    def reset(self, key: Key) -> Tree:
        self._obs = self.source.reset(key)
        self._sample.clear()
        self.take_episodes()
        self._unstarted = True  # until the first step: hooks may ask for what is not built yet
        return self._obs

    def step(self, action: Tree, key: Key) -> Step:
        if self._unstarted:
            self._unstarted = False
            for row in range(self.rows):
                self._start(row)
        step = self.source.step(action, key)
        action = self.source.taken_of(action)
        before, self._obs = self._obs, step.obs
        done = step.terminated | step.truncated
        for row, episode in enumerate(self._episodes):
            if episode is not None and (not self._lasting[row] or self._lasting[row][-1] is not episode):
                self._lasting[row].append(episode)
            self._again[row] = episode is not None and self.faulty is not None and self.faulty[row]
            if self._again[row]:
                self._episodes[row] = episode = None  # it has no end that could be told
            if episode is not None:
                taken = _row(action, row)
                episode.add_step(taken, step.reward[row], _row(step.obs, row), step.info[row])
                self._call("on_episode_step", episode)
                if done[row]:
                    self._end(row, episode)
        if "on_sample_end" in self._hooks:
            self._add_to_sample(before, action, step)
        return step

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        self._obs = self.source.reset_where(done, obs, key)
        begun = done & self._again if self._first_only else done
        for row in np.flatnonzero(begun).tolist():
            self._start(row)
        return self._obs

    def _start(self, row: int) -> None:
        episode = Episode(row, self.spec.action, _row(self._obs, row), self._seats)
        self._episodes[row] = episode
        self._call("on_episode_start", episode)

    def _end(self, row: int, episode: Episode) -> None:
        self._episodes[row] = None
        self._keep_info(episode)
        self._call("on_episode_end", episode)
        custom = {name: _number(value, name, "custom_metrics") for name, value in episode.custom_metrics.items()}
        hist = {name: _numbers_of(values, name) for name, values in episode.hist_data.items()}
        self._told.append(Told(custom, hist, row))

    def _keep_info(self, episode: Episode) -> None:
        """The scalars of the last `info` that were asked for, as custom metrics."""
        info = episode.last_info_for()
        wanted = self._info_metrics
        if isinstance(wanted, bool):
            episode.custom_metrics |= {name: _float(value) for name, value in info.items() if is_scalar(value)}
            return
        for name in wanted:
            if is_scalar(info.get(name)):
                episode.custom_metrics[name] = _float(info[name])
            elif not self._missed:
                self._missed = True
                logger.warning(
                    "reporting(info_metrics=%r): the info at the end of an episode has no number %r; there is %s",
                    list(wanted),
                    name,
                    ", ".join(sorted(map(str, info))) or "nothing",
                )

    def _call(self, hook: str, episode: Episode) -> None:
        if hook in self._hooks:
            getattr(self._callbacks, hook)(
                worker=self.place,
                base_env=self,
                policies=self._policies,
                episode=episode,
                env_index=episode.env_id,
            )

    def _add_to_sample(self, before: Tree, action: Tree, step: Step) -> None:
        self._sample.append(
            {
                "obs": before,
                "actions": action,
                "rewards": step.reward,
                "new_obs": step.obs,
                "terminateds": step.terminated,
                "truncateds": step.truncated,
            }
        )
        if len(self._sample) == self._length:
            samples = {name: _stacked([part[name] for part in self._sample]) for name in self._sample[0]}
            self._sample.clear()
            self._callbacks.on_sample_end(worker=self.place, samples=samples)


def is_scalar(value: Any) -> bool:
    """Whether an entry of `info` is one number: booleans and arrays of one number are."""
    if isinstance(value, numbers.Real | np.bool_):
        return True
    return isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "biuf"


def _float(value: Any) -> float:
    return float(value.item() if isinstance(value, np.ndarray) else value)


def _number(value: Any, name: str, where: str) -> float:
    if not is_scalar(value):
        raise ValueError(f"episode.{where}[{name!r}]: expected a number, got {type(value).__name__} {value!r}")
    return _float(value)


def _numbers_of(values: Any, name: str) -> list[float]:
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
        raise ValueError(
            f"episode.hist_data[{name!r}]: expected a list of numbers, got {type(values).__name__} {values!r}"
        )
    return [_number(value, name, "hist_data") for value in values]


def _row(tree: Tree, row: int) -> Tree:
    if isinstance(tree, tuple):
        return tuple(_row(part, row) for part in tree)
    if isinstance(tree, dict):
        return {name: _row(part, row) for name, part in tree.items()}
    return tree[row]


def _stacked(trees: Sequence[Tree]) -> Tree:
    first = trees[0]
    if isinstance(first, tuple):
        return tuple(_stacked(parts) for parts in zip(*trees, strict=True))
    if isinstance(first, dict):
        return {name: _stacked([tree[name] for tree in trees]) for name in first}
    return np.stack(trees)

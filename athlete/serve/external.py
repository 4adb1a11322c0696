"""Environments that call: a simulator plays, and a training that steps rows of environments learns from it.

Each row waits where a client has to speak next. So a training sees an ordinary environment of Gymnasium, and a client
sees RLlib's commands: start_episode, get_action, log_action, log_returns, end_episode.
"""

from __future__ import annotations

import queue
import threading
import uuid
from typing import Any, NamedTuple

import jax
import numpy as np

from athlete.acting import row_of
from athlete.env.adapters.gymnasium import GymnasiumEnv, to_space
from athlete.env.wrappers.logged_actions import LOGGED_ACTION
from athlete.log import logger
from athlete.spaces import Space


class CommandError(ValueError):
    """A command that cannot be done; the message says what to change."""


class Told(NamedTuple):
    """What a client says to the row that waits for it."""

    observation: Any
    reward: float  # since the last observation
    ends: bool
    truncated: bool = False
    action: Any = None  # what it does at the observation, if it chose that itself


class Episode:
    """An episode between its client and its row."""

    def __init__(self, name: str):
        self.name = name
        self.told: queue.Queue[Told] = queue.Queue()  # to the row
        self.actions: queue.Queue[Any] = queue.Queue()  # to the client
        self.reward = 0.0
        self.last: Any = None  # the last observation
        self.logged: Any = None  # what the client does there, if it chose that itself
        self.lock = threading.Lock()


class Exchange:
    """Where clients and rows meet. Commands may come from any thread. The spaces are Gymnasium's."""

    def __init__(self, observation_space: Any, action_space: Any, idle_timeout_s: float):
        self.observation_space, self.action_space = observation_space, action_space
        self.idle_timeout_s = idle_timeout_s
        self.closed = threading.Event()
        self._space: Space = to_space(observation_space, "observation_space")
        self._action_space: Space = to_space(action_space, "action_space")
        self._told = threading.Event()
        self._refusal: str | None = None  # of logged actions
        self._episodes: dict[str, Episode] = {}
        self._begun: queue.Queue[Episode] = queue.Queue()

    # What clients say ---------------------------------------------------------------------------------------------

    def start_episode(self, episode_id: str | None = None) -> str:
        """Begin an episode and return its name."""
        name = episode_id if episode_id is not None else uuid.uuid4().hex
        if not isinstance(name, str) or not 0 < len(name) <= 200:
            raise CommandError(f"episode_id: expected a text of at most 200 letters, got {name!r}")
        if name in self._episodes:
            raise CommandError(f"episode_id: {name!r} is being played already; give each episode a name of its own")
        episode = self._episodes[name] = Episode(name)
        self._begun.put(episode)
        return name

    def get_action(self, episode_id: str, observation: Any) -> Any:
        """What the policy does at an observation. Waits until a row of the training takes the episode up."""
        return self._ask(episode_id, observation)

    def log_action(self, episode_id: str, observation: Any, action: Any) -> None:
        """Say what the client does at an observation, instead of `get_action`. Waits for the training as that does."""
        self._episode(episode_id)
        taken = self._checked(self._action_space, action, "action", bounded=True)
        while not self._told.wait(timeout=1.0):
            self._require_open(episode_id)
        if self._refusal is not None:
            raise CommandError(self._refusal)
        self._ask(episode_id, observation, taken)

    def _ask(self, episode_id: str, observation: Any, action: Any = None) -> Any:
        """The policy's action at an observation, where the client takes `action` if there is one."""
        episode = self._episode(episode_id)
        seen = self._checked(self._space, observation, "observation")
        if not episode.lock.acquire(blocking=False):
            raise CommandError(f"episode {episode_id!r} waits for an action already; ask one after the other")
        try:
            episode.told.put(Told(seen, self._taken(episode), ends=False, action=action))
            while True:
                try:
                    return episode.actions.get(timeout=1.0)
                except queue.Empty:
                    self._require_open(episode_id)
        finally:
            episode.lock.release()

    def _require_open(self, name: str) -> None:
        if self.closed.is_set() or name not in self._episodes:
            raise CommandError("the training has ended, or has given up this episode") from None

    def log_returns(self, episode_id: str, reward: float) -> None:
        """Add to the reward of the step that the last action began."""
        if not isinstance(reward, int | float) or not np.isfinite(reward):
            raise CommandError(f"reward: expected a finite number, got {reward!r}")
        self._episode(episode_id).reward += float(reward)

    def end_episode(self, episode_id: str, observation: Any, truncated: bool = False) -> None:
        """End an episode with its last observation; `truncated` where it was only cut and would have gone on."""
        if not isinstance(truncated, bool):
            raise CommandError(f"truncated: expected true or false, got {truncated!r}")
        episode = self._episode(episode_id)
        seen = self._checked(self._space, observation, "observation")
        del self._episodes[episode_id]
        episode.told.put(Told(seen, self._taken(episode), ends=True, truncated=truncated))

    def _episode(self, name: str) -> Episode:
        try:
            return self._episodes[name]
        except (KeyError, TypeError):
            raise CommandError(
                f"there is no episode {name!r}; start_episode gives a name, end_episode ends it"
            ) from None

    def _checked(self, space: Space, element: Any, where: str, bounded: bool = False) -> Any:
        try:
            row = row_of(space, element, where, bounded)
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(str(error)) from error
        return jax.tree.map(lambda leaf: leaf[0], row)

    def _taken(self, episode: Episode) -> float:
        reward, episode.reward = episode.reward, 0.0
        return reward

    # What rows do -------------------------------------------------------------------------------------------------

    def tell_clients(self, refusal: str | None) -> None:
        """Say why actions that clients log are not learned from, None where they are: until then `log_action` waits."""
        self._refusal = refusal
        self._told.set()

    def next_episode(self) -> tuple[Episode, Any]:
        """The next episode that nobody plays yet, and its first observation. Waits for a client."""
        while True:
            episode = self._begun.get()
            told = self._next(episode)
            if told is None:
                self._give_up_silent(episode)
            elif not told.ends:
                return episode, told.observation

    def step(self, episode: Episode, action: Any) -> Told:
        """Hand out an action and wait for where it led; an episode whose client falls silent is cut."""
        episode.actions.put(action)
        told = self._next(episode)
        if told is None:
            self._give_up_silent(episode)
            return Told(episode.last, self._taken(episode), ends=True, truncated=True)
        return told

    def _give_up_silent(self, episode: Episode) -> None:
        logger.warning(
            "episode %s: its client has said nothing for %g s; it is cut off here", episode.name, self.idle_timeout_s
        )
        self.give_up(episode)

    def give_up(self, episode: Episode) -> None:
        """Forget an episode; its client is told when it speaks next."""
        self._episodes.pop(episode.name, None)

    def _next(self, episode: Episode) -> Told | None:
        try:
            told = episode.told.get(timeout=self.idle_timeout_s)
        except queue.Empty:
            return None
        episode.last, episode.logged = told.observation, told.action
        return told


class ExternalEnv(GymnasiumEnv):
    """One row of a training whose episodes clients play."""

    def __init__(self, exchange: Exchange):
        self.exchange = exchange
        self.observation_space, self.action_space = exchange.observation_space, exchange.action_space
        self._episode: Episode | None = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if self._episode is not None:  # the training begins anew in the middle of an episode
            self.exchange.give_up(self._episode)
        self._episode, observation = self.exchange.next_episode()
        return observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self._episode is not None
        info = {} if self._episode.logged is None else {LOGGED_ACTION: self._episode.logged}
        told = self.exchange.step(self._episode, action)
        if told.ends:
            self._episode = None
        return told.observation, told.reward, told.ends and not told.truncated, told.truncated, info

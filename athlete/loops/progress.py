"""What an advance of a training brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from athlete.core import Agent, Array, Episodes


class Progress(NamedTuple):
    """What some iterations brought: timesteps sampled and learned from, mean metrics, finished episodes `[n]`, seconds
    by part.
    """

    timesteps: int
    learned: int
    metrics: dict[str, float]
    returns: np.ndarray
    lengths: np.ndarray
    seconds: dict[str, float]


def joined(parts: list[Progress]) -> Progress:
    """Several advances as one."""
    if len(parts) == 1:
        return parts[0]
    metrics = {name: float(np.mean([part.metrics[name] for part in parts])) for name in parts[0].metrics}
    seconds = {name: sum(part.seconds[name] for part in parts) for name in parts[0].seconds}
    returns, lengths = (
        np.concatenate(field) for field in zip(*((part.returns, part.lengths) for part in parts), strict=True)
    )
    sampled, learned = sum(part.timesteps for part in parts), sum(part.learned for part in parts)
    return Progress(sampled, learned, metrics, returns, lengths, seconds)


def finished(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the episodes that ended, in the order in which they did: `[n]` each."""
    done = np.asarray(episodes.done).reshape(-1)
    return np.asarray(episodes.return_).reshape(-1)[done], np.asarray(episodes.length).reshape(-1)[done]


def learned_from(agent: Agent, timesteps: int, learning_iterations: int) -> int:
    """Timesteps in all batches of iterations in which `timesteps` were sampled."""
    if not agent.memory.keeps:
        return timesteps
    return agent.updates * learning_iterations * agent.memory.batch_size


class Taken:
    """What hosted iterations brought, gathered until it is told: those before an interrupt are told after it."""

    def __init__(self, seconds: Sequence[str]) -> None:
        self.iterations = 0
        self.episodes: list[Episodes] = []  # [B] or [T, B] each
        self.seconds = dict.fromkeys(seconds, 0.0)
        self._names: tuple[str, ...] = ()
        self._values: list[Array] = []

    def learn(self, names: tuple[str, ...], values: Array) -> None:
        """Keep the metrics `[names]` of an iteration that learned."""
        self._names = names
        self._values.append(values)

    def progress(self, agent: Agent, batch: int) -> Progress:
        """All of it, where an iteration samples `batch` timesteps."""
        timesteps = self.iterations * batch
        means = np.array(self._values, np.float64).mean(axis=0).tolist() if self._values else []
        metrics = dict(zip(self._names, means, strict=True))
        returns, lengths = map(np.concatenate, zip(*map(finished, self.episodes), strict=True))
        learned = learned_from(agent, timesteps, len(self._values))
        return Progress(timesteps, learned, metrics, returns, lengths, self.seconds)

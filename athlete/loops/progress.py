"""What an advance of a training brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from athlete.core import AGENT_STEPS, Agent, Array, Episodes, Tree
from athlete.loops.episodes import Told
from athlete.loops.learn import Report
from athlete.ops.finite import first_nonfinite


class Progress(NamedTuple):
    """What some iterations brought: timesteps sampled and learned from, mean metrics, finished episodes, seconds by
    part. `returns` are `[n]`, or `[n, agents]` of many agents; `lengths` are `[n]`.
    """

    timesteps: int
    learned: int
    metrics: dict[str, float]
    returns: np.ndarray
    lengths: np.ndarray
    seconds: dict[str, float]
    info: Mapping[str, np.ndarray] = MappingProxyType({})  # `[n]` of each of `Env.info_metrics` where episodes ended
    told: Sequence[Told] = ()  # what hooks and entries of info left of episodes that were watched
    fault: str | None = None  # the first metric or leaf of the learner's state that holds NaN or infinity
    lags: Sequence[int] = ()  # of trajectories of workers: learning iterations since their policy was the newest
    agent_steps: Mapping[str, int] = MappingProxyType({})  # of each of several policies: actions that it was asked for
    dropped: int = 0  # trajectories of workers that were too old to be learned from


def joined(parts: list[Progress]) -> Progress:
    """Several advances as one."""
    if len(parts) == 1:
        return parts[0]
    # Hooks report some metrics now and then, and not all policies learn from the start.
    names = dict.fromkeys(name for part in parts for name in part.metrics)
    metrics = {name: float(np.mean([part.metrics[name] for part in parts if name in part.metrics])) for name in names}
    seconds = {name: sum(part.seconds[name] for part in parts) for name in parts[0].seconds}
    returns, lengths = (
        np.concatenate(field) for field in zip(*((part.returns, part.lengths) for part in parts), strict=True)
    )
    sampled, learned = sum(part.timesteps for part in parts), sum(part.learned for part in parts)
    fault = next((part.fault for part in parts if part.fault), None)
    info = {name: np.concatenate([part.info[name] for part in parts]) for name in parts[0].info}
    told = [one for part in parts for one in part.told]
    steps = {name: sum(part.agent_steps.get(name, 0) for part in parts) for name in parts[-1].agent_steps}
    lags = [lag for part in parts for lag in part.lags]
    dropped = sum(part.dropped for part in parts)
    return Progress(sampled, learned, metrics, returns, lengths, seconds, info, told, fault, lags, steps, dropped)


def finished(parts: Sequence[Episodes]) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[n]`, or `[n, agents]`, and lengths `[n]` of the episodes that ended, in the order in which they did."""
    done, returns, lengths = (
        np.concatenate(field, axis=None)
        for field in ([part.done for part in parts], [part.return_ for part in parts], [part.length for part in parts])
    )
    agents = parts[0].return_.shape[parts[0].done.ndim :]
    return returns.reshape(-1, *agents)[done], lengths[done]


def learned_from(agent: Agent, timesteps: int, learning_iterations: int) -> int:
    """Timesteps in all batches of iterations in which `timesteps` were sampled."""
    if not agent.memory.keeps:
        return timesteps
    return agent.updates * learning_iterations * agent.memory.batch_size


Tables = Mapping[tuple[str, ...], np.ndarray]  # metrics `[iterations, names]` by their names, not all from the start


def means(tables: Tables) -> dict[str, float]:
    """Of each metric the mean over the iterations that had it."""
    columns = _columns(tables)
    return {name: float(columns[name].mean()) for name in columns if not name.endswith(f"/{AGENT_STEPS}")}


def agent_steps(tables: Tables) -> dict[str, int]:
    """Of each of several policies the actions that it was asked for, which its metric of that name counts."""
    columns = _columns(tables)
    end = f"/{AGENT_STEPS}"
    return {name.removesuffix(end): int(columns[name].sum()) for name in columns if name.endswith(end)}


def _columns(tables: Tables) -> dict[str, np.ndarray]:
    """Each metric over all iterations that had it."""
    columns: dict[str, list[np.ndarray]] = {}
    for names, table in tables.items():
        for name, column in zip(names, table.T, strict=True):
            columns.setdefault(name, []).append(column)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def find_fault(tables: Tables, state: Tree | None) -> str | None:
    """The first metric or leaf that holds NaN or infinity.

    `state` is the learner's, None where a program has found it finite.
    """
    for names, table in tables.items():
        sound = np.isfinite(table)
        if not sound.all():
            iteration, column = np.argwhere(~sound)[0].tolist()
            within = f" in learning iteration {iteration + 1} of {len(table)}" if len(table) > 1 else ""
            return f"the metric {names[column]!r} was {table[iteration, column]}{within}"
    leaf = first_nonfinite(state) if state is not None else None
    return None if leaf is None else f"{leaf!r} of the learner's state"


class Taken:
    """What hosted iterations brought, gathered until it is told: those before an interrupt are told after it."""

    def __init__(self, seconds: Sequence[str] = ("env_step", "inference", "learn")) -> None:
        self.iterations = 0
        self.episodes: list[Episodes] = []  # [B] or [T, B] each
        self.seconds = dict.fromkeys(seconds, 0.0)
        self.reported: dict[str, list[float]] = {}  # metrics that come not every time
        self.told: list[Told] = []  # of episodes that were watched elsewhere
        self.lags: list[int] = []
        self.dropped = 0
        self.finite = True  # all of the learner's state, whenever that was looked at
        self._values: dict[tuple[str, ...], list[Array]] = {}

    def learn(self, names: tuple[str, ...], values: Array) -> None:
        """Keep the metrics `[names]` of an iteration that learned."""
        self._values.setdefault(names, []).append(values)

    def take(self, report: Report, seconds: Mapping[str, float]) -> None:
        """Keep what an iteration tells that learned from a whole trajectory, or only took it in."""
        self.iterations += 1
        if report.metrics:
            self.learn(tuple(report.metrics), list(report.metrics.values()))
        self.episodes.append(report.episodes)
        self.finite &= bool(report.finite)
        for name, part in seconds.items():
            self.seconds[name] += part

    def progress(self, agent: Agent, batch: int, state: Tree) -> Progress:
        """All of it, where an iteration samples `batch` timesteps; `state` is the learner's now."""
        timesteps = self.iterations * batch
        tables = {
            names: np.array(values, np.float64).reshape(len(values), len(names))
            for names, values in self._values.items()
        }
        metrics = means(tables) | {name: float(np.mean(numbers)) for name, numbers in self.reported.items()}
        returns, lengths = finished(self.episodes)
        learned = learned_from(agent, timesteps, sum(map(len, tables.values())))
        fault = find_fault(tables, None if self.finite else state)
        steps = agent_steps(tables)
        return Progress(
            timesteps,
            learned,
            metrics,
            returns,
            lengths,
            self.seconds,
            told=self.told,
            fault=fault,
            lags=self.lags,
            agent_steps=steps,
            dropped=self.dropped,
        )

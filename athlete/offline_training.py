"""From recorded data and a configuration to the training that learns from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from athlete.combine.wrapper import with_memory
from athlete.core import Agent, Memory, Spec, Transition
from athlete.env.world import World
from athlete.env.wrappers.previous import Previous, previous_of
from athlete.log import logger
from athlete.loops.collect import spec_of
from athlete.loops.offline import OfflineTraining
from athlete.loops.output import EpisodeOutput
from athlete.loops.refill import Feed, Refill, rechunked
from athlete.memory.mixed import mixed
from athlete.memory.recorded import Recorded, recorded
from athlete.memory.replay import Replay
from athlete.memory.room import require_room
from athlete.offline.dataset import DataError, DataSet, as_data, check_fit, joined, observation_space_of, spaces_of
from athlete.offline.files import PIECES, is_on_disk, read_data, stream_data, write_data
from athlete.offline.streamed import Streamed
from athlete.settings.config import AlgorithmConfig
from athlete.settings.recorded import SAMPLER, given_spaces, shares_of
from athlete.spaces import to_environment
from athlete.teams import agent_for, horizon_of

MOST_CHUNKS = 64  # of which a memory that is filled anew is made up


def start_offline(
    config: AlgorithmConfig, world: World, key: np.ndarray, begins: bool, devices: int
) -> OfflineTraining:
    """The training of `config` on its recorded data. Its spaces are those of `world`, where there is one.

    Raises DataError, naming file and row, for data that cannot be read, and for those that do not fit the spaces.
    """
    shares, capacity = shares_of(config.input_, config.input_config), config.input_config.get("capacity")
    sets = [_opened(config, source, capacity, share) for source, share in shares.items()]
    previous = previous_of(config)
    seen = [data.extremes if isinstance(data, Streamed) else data for data in sets]
    spec = _spec_of(world) if world.exists else previous.spec(_spec_of_data(config, seen))
    agent = agent_for(config, spec, config.fragment_length())
    gamma = float(config.gamma) if config.agent_class is not None and config.agent_class.learns_returns else None
    reading = Reading(previous, spec, gamma)
    horizon = horizon_of(config, agent)
    if capacity is not None and any(isinstance(data, Streamed) for data in sets):
        memory, steps = _refilled(config, agent, reading, sets, capacity, int(key[1]))
        return OfflineTraining(agent, memory, steps, horizon, key, begins, devices)
    read = [reading.of(data) for data in seen]
    filled = memory_of(agent.memory, [sampled for _, sampled in read], list(shares.values()))
    observed = [each for each, _ in read]
    return OfflineTraining(agent, filled, lambda: [_concatenated(observed)], horizon, key, begins, devices)


class Reading(NamedTuple):
    """How data become steps of a training."""

    previous: Previous
    spec: Spec
    gamma: float | None  # where the agent learns from steps that lead to the ends of their episodes

    def of(self, data: DataSet, doubts: bool = True) -> tuple[Transition, Transition]:
        """The steps `[N, 1, ...]` that the agent observes, and those that it learns from.

        Raises DataError, naming file and row, for what does not fit the spaces.
        """
        data = shown(data, self.previous, self.spec)
        steps = data.transitions(self.spec, doubts)
        return steps, steps if self.gamma is None else data.to_ends(steps, self.gamma)

    def require_fit(self, streamed: Streamed) -> Transition:
        """An example of its steps, `[...]`. Raises DataError, naming file and row, where one does not fit."""
        try:
            steps = self.of(streamed.extremes)[1]
        except DataError:
            for number in range(len(streamed.pieces)):
                self.of(streamed.read(number), doubts=False)
            raise
        return jax.tree.map(lambda leaf: leaf[0, 0], steps)


def _refilled(
    config: AlgorithmConfig, agent: Agent, reading: Reading, sets: list[DataSet | Streamed], capacity: int, seed: int
) -> tuple[Refill, Callable[[], Iterator[Transition]]]:
    """A memory of `capacity` steps that `sets` go through, and all steps, for the agent to observe.

    An iteration of `train()` draws as many steps as then are replaced: each is drawn about once while it is in memory.
    Where an iteration draws more than the memory holds, all of it is replaced, and where it draws very few, the next
    ones wait for several iterations.
    """
    shares = list(shares_of(config.input_, config.input_config).values())
    sized = shares_of_batch(agent.memory, shares)
    batch = sum(replay.batch_size for replay in sized)
    updates = max(1, -(-config.min_sample_timesteps_per_iteration // batch))
    number = min(-(-capacity // (updates * batch)), MOST_CHUNKS)
    every = updates * max(1, capacity // (updates * batch * number))
    parts: list[Recorded | Feed] = []
    for source, (replay, data) in enumerate(zip(sized, sets, strict=True)):
        if not isinstance(data, Streamed):
            parts.append(recorded(replay, reading.of(data)[1]))
            continue
        length = max(1, int(capacity * shares[source]) // number)
        room = Replay(capacity=length * number, window=replay.window)
        logger.info(require_room(room, reading.require_fit(data), 1))
        parts.append(Feed(replay, length, number, _chunks(reading, data, source, length)))

    def all_steps() -> Iterator[Transition]:
        for source, data in enumerate(sets):
            pieces = map(data.read, data.order((seed, source), 0)) if isinstance(data, Streamed) else [data]
            steps = (reading.of(piece, doubts=False)[0] for piece in pieces)
            yield from rechunked(steps, max(1, capacity // PIECES))

    return Refill(parts, every, seed), all_steps


def _chunks(reading: Reading, data: Streamed, source: int, length: int) -> Callable[[int, int], Iterator[Transition]]:
    """From a seed and a number to that chunk of `length` steps, and those after it: `Feed.chunks`."""

    def chunks(seed: int, number: int) -> Iterator[Transition]:
        def pieces() -> Iterator[Transition]:
            for piece, left_out in data.from_step((seed, source), number * length):
                steps = reading.of(data.read(piece), doubts=False)[1]
                yield jax.tree.map(lambda leaf, start=left_out: leaf[start:], steps)

        return rechunked(pieces(), length)

    return chunks


def with_recorded(config: AlgorithmConfig, agent: Agent, spec: Spec) -> Agent:
    """The agent whose batches are in part of recorded data, where `input_` gives them a share beside the sampler."""
    shares = shares_of(config.input_, config.input_config)
    if SAMPLER not in shares:
        return agent
    if type(agent.memory) is not Replay:
        raise ValueError(
            f"{config.algorithm_name}: replay_buffer_config has the type {config.replay_buffer_config.get('type')!r}, "
            "and beside recorded data steps are drawn uniformly; take 'ReplayBuffer'"
        )
    sources = {source: share for source, share in shares.items() if source != SAMPLER}
    sets = [shown(_read(config, source), previous_of(config), spec).transitions(spec) for source in sources]
    return with_memory(agent, memory_of(agent.memory, sets, list(sources.values()), shares[SAMPLER]))


def output_of(config: AlgorithmConfig, spec: Spec) -> EpisodeOutput | None:
    """What writes all that is collected into the folder of `offline_data(output=...)`; None where there is none."""
    if config.output is None:
        return None
    if spec.groups:
        raise ValueError(
            f"{config.algorithm_name}: output={config.output!r}: data of one agent are written, not of many"
        )
    folder, ending = Path(config.output).expanduser(), config.output_config.get("format", "safetensors")

    def write(steps: Transition) -> None:
        number = len(list(folder.glob("output-*")))
        path = folder / f"output-{number:06d}.{ending}"
        write_data(as_data(steps, spec, str(path)), path)

    return EpisodeOutput(config.rows(), spec.action, write, config.output_max_file_size)


def memory_of(replay: Any, sets: list[Any], shares: list[float], own_share: float = 0.0) -> Memory:
    """What samples batches as `replay` does from recorded steps `[N, 1, ...]`, from each of the `sets` its share.

    With an `own_share` the first part of a batch is of `replay` itself, which what is collected goes to.
    """
    sized = shares_of_batch(replay, [own_share, *shares] if own_share else shares)
    own, others = (sized[:1], sized[1:]) if own_share else ([], sized)
    return mixed([*own, *map(recorded, others, sets)])


def shares_of_batch(replay: Any, shares: list[float]) -> list[Any]:
    """What samples as `replay` does, but each its share of a batch."""
    windows = replay.batch_size // replay.sequence
    counts = _apportioned(windows, shares)
    if 0 in counts:
        raise ValueError(
            f"offline_data(input_=...): a share of {min(shares):.3g} is less than one of the {windows} samples of "
            "a batch; make train_batch_size larger"
        )
    return [dataclasses.replace(replay, batch_size=count * replay.sequence) for count in counts]


def shown(data: DataSet, previous: Previous, spec: Spec) -> DataSet:
    """The data with observations that also show what led to them, as an environment of the spaces `spec` shows them."""
    if not any(previous):
        return data
    check_fit(data, Spec(previous.parted_space(spec.obs), spec.action))
    taken = to_environment(spec.action, data.action) if data.normalized else data.action
    after = previous.show(spec.action, data.next_obs, taken, data.reward)
    first = data.first[:, None]
    before = [np.where(first, np.float32(0), np.roll(part, 1, axis=0)) for part in previous.parted(after)[1]]
    return data.with_observations(previous.joined(data.obs, before), after, spec.obs)


def _apportioned(number: int, shares: list[float]) -> list[int]:
    """`number` in parts that are in proportion to the shares; what rounding leaves goes to the largest remainders."""
    exact = [number * share for share in shares]
    counts = [int(part) for part in exact]
    for i in sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])[: number - sum(counts)]:
        counts[i] += 1
    return counts


def _opened(config: AlgorithmConfig, source: Any, capacity: int | None, share: float) -> DataSet | Streamed:
    """The data of a source: in memory, unless they are on disk and have more steps than its share of `capacity`."""
    files = list(source) if isinstance(source, tuple) else source
    if capacity is None or not is_on_disk(files):
        return _read(config, source)
    most = int(capacity * share)
    data = stream_data(files, most, config.input_config, config.actions_in_input_normalized)
    if len(data) <= most:
        return _read(config, source)
    parts = len(data.pieces)
    logger.info("%s: %d steps, read in %d parts, of which %d steps are in memory", data.name, len(data), parts, most)
    return data


def _concatenated(parts: list[Transition]) -> Transition:
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _read(config: AlgorithmConfig, source: Any) -> DataSet:
    files = list(source) if isinstance(source, tuple) else source
    data = read_data(files, config.input_config, config.actions_in_input_normalized)
    logger.info("%s: %d steps of %d episodes", data.parts[0].name, len(data), len(data.ends))
    return data


def _spec_of_data(config: AlgorithmConfig, sets: list[DataSet]) -> Spec:
    """The spaces that are given, else those that the data tell."""
    obs, action = given_spaces(config)
    if obs is not None and action is not None:
        return Spec(obs, action)
    told = spaces_of(joined(sets)) if action is None else Spec(observation_space_of(joined(sets)), action)
    return Spec(told.obs if obs is None else obs, told.action)


def _spec_of(world: World) -> Spec:
    """The spaces of an environment that is not stepped."""
    if world.env is not None:
        return spec_of(world.env)
    source = world.source()
    if not world.is_instance:
        source.close()
    return source.spec

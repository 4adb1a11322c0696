"""From recorded data and a configuration to the training that learns from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

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
from athlete.memory.mixed import Mixed
from athlete.memory.recorded import recorded
from athlete.memory.replay import Replay
from athlete.offline.dataset import DataSet, as_data, check_fit, joined, observation_space_of, spaces_of
from athlete.offline.files import read_data, write_data
from athlete.settings.config import AlgorithmConfig
from athlete.settings.recorded import SAMPLER, given_spaces, shares_of
from athlete.spaces import to_environment
from athlete.teams import agent_for, horizon_of


def start_offline(
    config: AlgorithmConfig, world: World, key: np.ndarray, begins: bool, devices: int
) -> OfflineTraining:
    """The training of `config` on its recorded data. Its spaces are those of `world`, where there is one.

    Raises DataError, naming file and row, for data that cannot be read, and for those that do not fit the spaces.
    """
    shares = shares_of(config.input_, config.input_config)
    sets, previous = {source: _read(config, source) for source in shares}, previous_of(config)
    spec = _spec_of(world) if world.exists else previous.spec(_spec_of_data(config, list(sets.values())))
    sets = {source: shown(data, previous, spec) for source, data in sets.items()}
    agent = agent_for(config, spec, config.fragment_length())
    steps = [data.transitions(spec) for data in sets.values()]
    sampled = steps
    if config.agent_class is not None and config.agent_class.learns_returns:
        gamma = float(config.gamma)
        sampled = [data.to_ends(each, gamma) for data, each in zip(sets.values(), steps, strict=True)]
    memory = memory_of(agent.memory, sampled, list(shares.values()))
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *steps)
    return OfflineTraining(agent, memory, whole, horizon_of(config, agent), key, begins, devices)


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
    windows = replay.batch_size // replay.sequence
    all_shares = [own_share, *shares] if own_share else shares
    counts = _apportioned(windows, all_shares)
    if 0 in counts:
        raise ValueError(
            f"offline_data(input_=...): a share of {min(all_shares):.3g} is less than one of the {windows} samples of "
            "a batch; make train_batch_size larger"
        )
    sized = [dataclasses.replace(replay, batch_size=count * replay.sequence) for count in counts]
    own, others = (sized[:1], sized[1:]) if own_share else ([], sized)
    parts = [*own, *map(recorded, others, sets)]
    return parts[0] if len(parts) == 1 else Mixed(tuple(parts))


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

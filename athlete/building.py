"""What `build()` does: a configuration's environments, found and checked, and the training that is made on them."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from athlete.callbacks import BATCH_HOOKS
from athlete.cluster import Request, is_near
from athlete.combine.team import Team
from athlete.combine.wrapper import with_memory, with_simulator
from athlete.core import Agent, Evolution, MetaLearner, Simulator, Source, Spec
from athlete.env.games.multi_agent.players import random_legal
from athlete.env.goals import goals_of
from athlete.env.supervision import Supervision
from athlete.env.world import World, env_name, find_world, no_world
from athlete.env.wrappers.frame_stack import require_stack
from athlete.env.wrappers.info_metrics import with_info_metrics
from athlete.env.wrappers.previous import previous_of
from athlete.env.wrappers.turns import Against, Turns
from athlete.hooks import Hooks
from athlete.log import logger
from athlete.loops.asynchronous import AsynchronousTraining
from athlete.loops.collect import spec_of
from athlete.loops.evaluation_workers import EvaluationWorker, EvaluationWorkers, Sharing
from athlete.loops.generations import (
    CompiledWaves,
    GenerationTraining,
    HostedWaves,
    Waves,
    WorkedWaves,
    members_shapes,
)
from athlete.loops.learn import transition_shapes
from athlete.loops.meta import MetaTraining, Sizes, tasks_of
from athlete.loops.output import OutputSource
from athlete.loops.train import CompiledTraining, HostedTraining, Training
from athlete.loops.worked import WorkedTraining
from athlete.loops.workers import Collector, Worker, Workers
from athlete.memory.hindsight import Hindsight
from athlete.memory.room import require_room, require_room_for_batch, require_room_for_population, store_bytes
from athlete.offline_training import output_of, start_offline, with_recorded
from athlete.ray_workers import RayWorkers
from athlete.settings.config import AlgorithmConfig
from athlete.settings.devices import most_that_fit, wanted_devices
from athlete.settings.families import EvolutionConfig, ReplayConfig
from athlete.spaces import zeros
from athlete.teams import agent_for, horizon_of
from athlete.worker_processes import ProcessWorkers, make_evaluated, make_source


def training_world(config: AlgorithmConfig) -> World:
    """The environment that is trained on, checked before training comes across what is wrong with it."""
    if config.env is None and config.is_offline():
        return no_world()
    return _find_world(config, config.env, config.env_config)


def evaluation_world(config: AlgorithmConfig, training: World) -> World:
    """The environment of evaluations: that of training unless `evaluation_config` says otherwise."""
    changes = config.evaluation_config
    if not ({"env", "env_config"} & set(changes)):
        if isinstance(training.env, Turns):  # in which nobody loses to anybody else
            logger.info("evaluations of %s are against random moves; evaluation_config says otherwise", training.name)
            return training._replace(env=Against(training.env.game, random_legal))
        return training
    env_config = _with_changes(config.env_config, changes.get("env_config", {}))
    return _find_world(config, changes.get("env", config.env), env_config)


def _with_changes(entries: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`entries` with `changes`. Dictionaries in both merge entry by entry, however deep, as in RLlib's evaluations."""
    result = dict(entries)
    for name, value in changes.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = _with_changes(old, value) if both else value  # type: ignore[arg-type]
    return result


def _find_world(config: AlgorithmConfig, env: Any, env_config: Mapping[str, Any]) -> World:
    """The environment as the network sees it."""
    world = find_world(env, env_config, config.backend, config.preprocessor_pref)
    if config.shuffle_seats:
        world = world.with_shuffled_seats()
    assert config.agent_class is not None
    if config.agent_class.joint:
        world = world.acting_together()
    if config.agent_class.simulates:
        world = world.simulated()
    world = world.showing(previous_of(config))
    return world if config.disable_env_checking else world.checked()


def start_training(
    config: AlgorithmConfig, world: World, hooks: Hooks, seed: int, begins: bool, devices: int = 1
) -> Training:
    """The training of `config` in `world`, spread over `devices`; one that does not begin makes no arrays until it is
    restored.
    """
    world.tell_clients(_why_no_logged_actions(config))
    key = np.array([0, seed & 0xFFFFFFFF], np.uint32)
    if config.is_offline():
        return start_offline(config, world, key, begins, devices)
    if isinstance(config, EvolutionConfig):
        return _start_generations(config, world, hooks, key, begins)
    assert config.agent_class is not None
    if issubclass(config.agent_class, MetaLearner):
        return _start_meta(config, world, key, begins)
    if world.env is not None:
        return _start_compiled(config, world, key, begins, devices)
    if is_in_ray(config) or (config.workers_act and (config.num_rollout_workers or "workers_act" in config.chosen())):
        return _start_worked(config, world, hooks, key, begins, devices)
    if config.num_rollout_workers:
        processes, each = config.num_rollout_workers, config.num_envs_per_worker
        logger.info("%d worker processes with %d environments each", processes, each)
    source = world.source(
        num_workers=config.num_rollout_workers,
        num_envs_per_worker=config.num_envs_per_worker,
        supervision=supervision(config, hooks),
        seed=seed & 0xFFFFFFFF,
    )
    try:
        if (output := output_of(config, source.spec)) is not None:
            source = OutputSource(source, output)
        training = _start_hosted(config, world, source, hooks, key, begins, devices)
        training.output = output
        return training
    except BaseException:
        source.close()
        raise


def _why_no_logged_actions(config: AlgorithmConfig) -> str | None:
    """Why a training does not learn from actions that clients chose themselves; None where it does."""
    if isinstance(config, ReplayConfig) and not config.is_offline():
        return None
    what = "recorded data" if config.is_offline() else "its own actions only"
    return f"{config.algorithm_name} learns from {what}; use get_action"


def _start_generations(
    config: EvolutionConfig, world: World, hooks: Hooks, key: np.ndarray, begins: bool
) -> GenerationTraining:
    """A population that plays whole episodes: all at once where the environment is compiled, else in waves of rows."""
    if unheard := hooks.hosted & {*BATCH_HOOKS, "on_sample_end"}:
        names = ", ".join(sorted(unheard))
        raise ValueError(f"callbacks: {config.algorithm_name} plays whole episodes, without the batches of {names}")
    workers, each, watched = config.num_rollout_workers, config.num_envs_per_worker, supervision(config, hooks)
    if world.env is not None:
        agent = _evolution(config, spec_of(world.env))
        waves: Waves = CompiledWaves(with_info_metrics(world.env, config.info_metrics))
    elif workers and why_not_in_workers(world, hooks) is None:
        world, sharing = world.portable(), Sharing(workers * each, each, 1)
        one = world.source()
        one.close()
        agent = _evolution(config, one.spec)
        makes = functools.partial(make_evaluated, world, sharing, watched, config.info_metrics)
        plays = functools.partial(EvaluationWorker, agent, jax.tree.map(lambda _: 0, members_shapes(agent)), makes)
        waves = WorkedWaves(
            EvaluationWorkers(make_workers(config, plays, workers, each, watched), sharing), workers * each
        )
    else:
        source = world.source(
            num_workers=workers, num_envs_per_worker=each, seeded_resets=True, supervision=watched, seed=0
        )
        agent, waves = _evolution(config, source.spec), HostedWaves(hooks.watch_evaluation(source))
    try:
        if begins:
            require_room_for_population(members_shapes(agent), config.members_setting)
        return GenerationTraining(agent, waves, horizon_of(config, agent), key, begins)
    except BaseException:
        waves.close()
        raise


def _start_meta(config: AlgorithmConfig, world: World, key: np.ndarray, begins: bool) -> MetaTraining:
    """Tasks side by side, which are one compiled environment with other numbers."""
    title = config.algorithm_name
    if world.env is None:
        raise ValueError(
            f"{title}: tasks are fields of a compiled environment, and {config.env!r} runs in Python; make it one in "
            "JAX (athlete.core.Env)"
        )
    spec = spec_of(world.env)
    if spec.groups:
        raise ValueError(f"{title} learns for one agent, and this environment has many")
    try:
        tasks = tasks_of(world.env, config.tasks)
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from None
    agent = agent_for(config, spec, 1)
    if not isinstance(agent, MetaLearner):
        raise ValueError(
            f"{title}: what stands around an agent, such as a filter of observations, a bonus or other rewards, is the "
            "same in all tasks and does not adapt; leave it out"
        )
    sizes = Sizes(tasks, config.num_envs_per_worker, config.fragment_length())
    return MetaTraining(agent, world.env, sizes, config.horizon(), key, begins)


def _evolution(config: EvolutionConfig, spec: Spec) -> Evolution:
    if spec.groups:
        raise ValueError(f"{config.algorithm_name} learns for one agent, and this environment has many")
    return cast(Evolution, agent_for(config, spec, 1))


def _start_compiled(
    config: AlgorithmConfig, world: World, key: np.ndarray, begins: bool, devices: int
) -> CompiledTraining:
    assert world.env is not None
    spec = spec_of(world.env)
    length = _fragment_length(config, spec)
    agent = _make_agent(config, world, spec, begins, length)
    if (axis := getattr(agent.memory, "stack_axis", None)) is not None:
        require_stack(world.env, axis)
    if config.get("sample_async") and "sample_async" in config.chosen():
        logger.info("sample_async=True: environment and updates are one program here; nothing waits")
    env = with_info_metrics(world.env, config.info_metrics)
    horizon = horizon_of(config, agent)
    training = CompiledTraining(agent, env, config.rows(), length, horizon, key, begins=begins, devices=devices)
    training.output = output_of(config, spec)
    return training


def _start_hosted(
    config: AlgorithmConfig, world: World, source: Source, hooks: Hooks, key: np.ndarray, begins: bool, devices: int
) -> HostedTraining:
    length = _fragment_length(config, source.spec)
    # Of workers that act, "sample_async" is how they are waited for, and here are none.
    asynchronous = not config.workers_act and bool(_sample_async(config, source.spec))
    agent = _make_agent(config, world, source.spec, begins, length, getattr(source, "agent_ids", ()))
    watched, batch_hooks = hooks.watch_training(source, length), hooks.of_batches(agent)
    horizon = horizon_of(config, agent)
    return HostedTraining(agent, watched, length, horizon, key, asynchronous, batch_hooks, begins, devices)


def _start_worked(
    config: AlgorithmConfig, world: World, hooks: Hooks, key: np.ndarray, begins: bool, devices: int
) -> Training:
    """Workers that act by themselves, and the training that learns from what they collect."""
    _require_workable(config, world, hooks)
    world = world.portable()
    one = world.source()
    one.close()
    count, each = config.num_rollout_workers, config.num_envs_per_worker
    length, fragments, asynchronous = _fragment_length(config, one.spec), count, _sample_async(config, one.spec)
    as_they_come = asynchronous is True
    if as_they_come:
        length, fragments = _batch_of_fragments(config, length)
    batched = config.sized(each, fragments, length) if as_they_come else config
    if isinstance(batched, ReplayConfig) and as_they_come and config.sequence_length() > 1:
        batched = batched.with_trajectories_apart()
    batched.validate()
    if as_they_come and config.max_policy_lag is not None and config.max_policy_lag < config.broadcast_interval - 1:
        raise ValueError(
            f"rollouts(max_policy_lag={config.max_policy_lag}): workers get a policy every broadcast_interval="
            f"{config.broadcast_interval} iterations, and so have older ones; make it {config.broadcast_interval - 1} "
            "or more"
        )
    agent = _make_agent(batched, world, one.spec, begins, length, one.agent_ids)
    watched = supervision(config, hooks)
    makes = functools.partial(make_source, world, count, each, watched, int(key[1]), config.info_metrics)
    collects = functools.partial(Collector, agent, makes, length, as_they_come)
    workers = make_workers(config, collects, count, each, watched)
    told = "as they come" if as_they_come else "one policy behind" if asynchronous else "in step"
    where = "in a Ray cluster" if is_in_ray(config) else "in processes"
    logger.info("%d workers with %d environments each, which act by themselves %s, %s", count, each, where, told)
    horizon = horizon_of(batched, agent)
    try:
        if as_they_come:
            in_flight, interval = config.max_requests_in_flight_per_sampler_worker, config.broadcast_interval
            pace = fragments, in_flight, interval, config.max_policy_lag
            return AsynchronousTraining(agent, workers, each, length, horizon, key, begins, pace, devices)
        lagged = asynchronous == "lagged"
        training = WorkedTraining(agent, workers, config.rows(), length, horizon, key, begins, lagged, devices)
        training.output = output_of(config, one.spec)
        return training
    except BaseException:
        workers.close()
        raise


def make_workers(
    config: AlgorithmConfig, make: Callable[[int], Worker], count: int, rows: int, watched: Supervision
) -> Workers:
    """`count` workers of `rows` rows each, made of what `make` gives, where `resources(ray=...)` says."""
    if is_in_ray(config):
        return RayWorkers(make, count, rows, watched, (config.ray, _request(config)))
    return ProcessWorkers(make, count, rows, watched)


def is_in_ray(config: AlgorithmConfig) -> bool:
    """Whether workers are to be actors of a Ray cluster."""
    return bool(config.num_rollout_workers) and bool(config.ray) and (config.ray != "auto" or is_near())


def _request(config: AlgorithmConfig) -> Request:
    """What a worker holds of a cluster."""
    resources = {name: float(amount) for name, amount in config.custom_resources_per_worker.items()}
    return Request(float(config.num_cpus_per_worker), 0.0, resources, config.placement_strategy)


def _batch_of_fragments(config: AlgorithmConfig, length: int) -> tuple[int, int]:
    """The length of trajectories that are learned from as they come, and how many of them make a batch: of half of the
    workers, unless lengths are given that make it other ones.
    """
    sequence, count = config.sequence_length(), config.num_rollout_workers
    half = max(1, count // 2)
    if "replay_buffer_config" in config:
        return length, half
    batch, given = math.ceil(config.train_batch_size / config.num_envs_per_worker), config.rollout_fragment_length
    least = sequence if given == "auto" else math.ceil(given / sequence) * sequence
    fragments = half if given == "auto" else min(count, math.ceil(batch / least))
    return math.ceil(batch / (fragments * least)) * least, fragments


def _require_workable(config: AlgorithmConfig, world: World, hooks: Hooks) -> None:
    """Raise ValueError for what cannot be where workers act by themselves."""
    wrong = why_not_in_workers(world, hooks)
    if not config.num_rollout_workers:
        wrong = "needs workers: set num_rollout_workers to 1 or more"
    if wrong is not None:
        raise ValueError(f"rollouts(workers_act=True): it {wrong}")


def why_not_in_workers(world: World, hooks: Hooks) -> str | None:
    """Why workers cannot act in environments of `world`, as the end of a sentence; None where they can."""
    if world.pooled:
        return "is for environments that are stepped one by one, and EnvPool's are not; leave backend='envpool' out"
    if world.is_instance:
        return f"makes environments in processes, and {world.name} is one instance; pass its class or a factory"
    if hooks.hosted - {"on_sub_environment_created"}:
        names = ", ".join(sorted(hooks.hosted))
        return f"steps environments where {names} cannot be called; leave it out, or these callbacks"
    return None


def _fragment_length(config: AlgorithmConfig, spec: Spec) -> int:
    """How many steps each environment takes an iteration."""
    if not spec.groups or config.count_steps_by == "env_steps":
        return config.fragment_length()
    (agents,) = spec.reward_shape
    least = -(-config.fragment_length() // agents)
    # What has a memory rounds it up to whole sequences.
    return config.sized(config.num_envs_per_worker, config.num_rollout_workers, least).fragment_length()


def _sample_async(config: AlgorithmConfig, spec: Spec) -> bool | str:
    """Whether learning waits for collecting: "lagged" of many policies where the default is True, which needs one."""
    assert config.agent_class is not None
    how = config.get("sample_async", False)
    if how is not True or not spec.groups or config.agent_class.joint:
        return how
    if "sample_async" in config.chosen():
        raise ValueError(
            "rollouts(sample_async=True) does not fit many agents, whose policies learn when all have their steps; set "
            "it to 'lagged' or False"
        )
    logger.info("sample_async='lagged': policies of many agents learn when all have their steps")
    return "lagged"


def _make_agent(
    config: AlgorithmConfig, world: World, spec: Spec, begins: bool, length: int, ids: Sequence[str] = ()
) -> Agent:
    agent = with_world(agent_for(config, spec, length, ids), world)
    if begins:
        require_memory_room(config, agent)
    return with_recorded(config, agent, spec)


def with_world(agent: Agent, world: World) -> Agent:
    """The agent, with what it needs of the environment itself: who judges goals, or what it searches in."""
    if not agent.simulates:
        return with_goals(agent, world)
    if not isinstance(world.env, Simulator):
        raise ValueError(
            f"AlphaZero plays both sides of {world.name} itself: leave the opponent out of env_config, and give it in "
            "evaluation_config={'env_config': ...}"
        )
    return with_simulator(agent, world.env)


def with_goals(agent: Agent, world: World) -> Agent:
    """The agent, with who judges goals where its memory needs that: `world`'s environment.

    Raises ValueError where that has no goals.
    """
    members = agent.members if isinstance(agent, Team) else ()
    if any(isinstance(member.agent.memory, Hindsight) for member in members):
        raise ValueError(f"hindsight is for one agent, and {world.name} has many; take 'ReplayBuffer'")
    if not isinstance(agent.memory, Hindsight):
        return agent
    env = world.env if world.env is not None else world.make_one()
    goals = goals_of(env, agent.spec.obs, world.name)
    return with_memory(agent, dataclasses.replace(agent.memory, goals=goals))


def require_memory_room(config: AlgorithmConfig, agent: Agent) -> None:
    """Say how much memory the replay takes, and refuse where there is not so much, or not for a batch."""
    collected = config.rows() * _fragment_length(config, agent.spec)
    learned = config.train_batch_size if agent.memory.keeps else 0  # at once, from memory
    require_room_for_batch(max(collected, learned), zeros(agent.spec.obs, (1,)))
    if agent.memory.keeps:
        logger.info(require_room(agent.memory, transition_shapes(agent), config.rows()))
    for member in agent.members if isinstance(agent, Team) else ():
        own = member.agent
        if member.trained and own.memory.keeps:
            room = require_room(own.memory, transition_shapes(own), config.rows() * member.seats.agents)
            logger.info("policy %s: %s", member.name, room)


def memory_bytes(config: AlgorithmConfig) -> int:
    """The size of the replay memories of a training, once they are full: nearly all of its checkpoints."""
    world = training_world(config)
    if world.env is not None:
        spec, ids = spec_of(world.env), ()
    else:
        source = world.source()
        source.close()
        spec, ids = source.spec, source.agent_ids
    agent = agent_for(config, spec, _fragment_length(config, spec), ids)
    agent = with_world(agent, world) if agent.simulates else agent
    rows = config.rows()
    if not isinstance(agent, Team):
        return store_bytes(agent.memory, transition_shapes(agent), rows)
    own = [(member.agent, rows * member.seats.agents) for member in agent.members if member.trained]
    return sum(store_bytes(agent.memory, transition_shapes(agent), each) for agent, each in own)


def supervision(config: AlgorithmConfig, hooks: Hooks) -> Supervision:
    """How long environments may take, and what happens to those that fail."""
    return Supervision(
        config.env_timeout,
        config.restart_failed_sub_environments,
        config.recreate_failed_workers or (is_in_ray(config) and "recreate_failed_workers" not in config.chosen()),
        config.max_num_worker_restarts,
        hooks.created,
    )


def devices_of(config: AlgorithmConfig) -> int:
    """How many devices a training is spread over. Raises ValueError where JAX does not see so many."""
    gpus, devices = config.num_gpus, jax.devices()
    if gpus and gpus > (found := sum(device.platform == "gpu" for device in devices)):
        raise ValueError(
            f"resources(num_gpus={gpus}): JAX sees {found} GPUs here; install a JAX for your GPU "
            "(`pip install -U 'jax[cuda12]'`), or leave num_gpus out; `athlete doctor` shows the devices"
        )
    number = wanted_devices(config) or most_that_fit(config, len(devices))
    if number > len(devices):
        raise ValueError(
            f"learners(num_learners={number}): JAX sees {len(devices)} of kind {devices[0].platform!r} here; make it "
            "smaller, or 'auto'. On a CPU devices can be virtual: XLA_FLAGS=--xla_force_host_platform_device_count="
            f"{number} in the environment, before JAX starts"
        )
    processes = jax.process_count()
    if number % processes:
        raise ValueError(
            f"learners(num_learners={number}): {processes} processes train together, with {len(devices)} devices; make "
            f"it a multiple of {processes}"
        )
    if number > 1:
        logger.info("environments and minibatches are shared out among %d devices (%s)", number, devices[0].platform)
    return number


def own_folder(config: AlgorithmConfig) -> Path:
    """The folder that `logdir` names, else one for this training alone in `$ATHLETE_RESULTS_DIR`, else in
    `~/athlete_results`; it is not made.
    """
    if config.logdir:
        return Path(config.logdir).expanduser().absolute()
    root = os.environ.get("ATHLETE_RESULTS_DIR")
    base = Path(root) if root else Path.home() / "athlete_results"
    name = f"{config.algorithm_name}_{env_name(config.env)}"
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    return (base / f"{name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.urandom(3).hex()}").absolute()

"""Trainings that are mapped: which configurations can be, and how their algorithms become one population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from athlete.algorithm import Algorithm
from athlete.building import training_world
from athlete.core import MetaLearner
from athlete.env.world import World
from athlete.loops.collect import spec_of
from athlete.loops.train import CompiledTraining, join
from athlete.settings.config import AlgorithmConfig
from athlete.settings.devices import wanted_devices
from athlete.settings.families import EvolutionConfig
from athlete.teams import agent_for


def require_mappable(configs: Mapping[str, AlgorithmConfig]) -> None:
    """Raise ValueError unless the trainings of `configs`, by name, are one program with other numbers.

    Nothing is compiled for it, and no environment is stepped.
    """
    worlds: dict[str, World] = {}
    first, *others = configs
    forms = {}
    for name, config in configs.items():
        key = repr((config.env, config.env_config))
        worlds[key] = worlds.get(key) or training_world(config)
        forms[name] = _form(name, config, worlds[key])
    for name in others:
        if forms[name] != forms[first]:
            raise ValueError(
                f"tune.run(mapped=True): {_differing(configs[first], configs[name])} shape the program, so that {name} "
                f"is another than {first}; only numbers in it may differ, such as lr and gamma, and the seed"
            )


def _form(name: str, config: AlgorithmConfig, world: World) -> Any:
    """What two trainings must have in common to be mapped."""
    why = None
    if config.is_offline() or world.env is None:
        why = "its environment is not compiled (`athlete check` says why)"
    elif isinstance(config, EvolutionConfig):
        why = "its population is what is mapped already"
    elif config.agent_class is not None and issubclass(config.agent_class, MetaLearner):
        why = "its tasks are what is mapped already"
    elif config.min_time_s_per_iteration:
        why = "min_time_s_per_iteration ends the iterations of each at another time; leave it out"
    elif wanted_devices(config) not in (None, 1):
        why = "it is spread over several devices; leave num_learners out"
    elif config.output is not None:
        why = "what it collects is not written; leave output out"
    if why is not None:
        raise ValueError(f"tune.run(mapped=True): {name} cannot be mapped: {why}")
    assert world.env is not None
    spec, length = spec_of(world.env), config.fragment_length()
    agent = agent_for(config, spec, length)
    shapes = [getattr(leaf, "shape", ()) for leaf in jax.tree.leaves((agent, world.env))]
    sizes = config.rows(), length, config.min_sample_timesteps_per_iteration
    return jax.tree.structure((agent, world.env)), shapes, sizes


def _differing(one: AlgorithmConfig, other: AlgorithmConfig) -> str:
    """The settings that two configurations do not have in common: `minibatch_size=64 and 128`."""
    values = one.to_dict(), other.to_dict()
    return ", ".join(
        f"{name}={value!r} and {values[1][name]!r}"
        for name, value in values[0].items()
        if name != "seed" and values[1][name] != value
    )


def join_algorithms(algorithms: Sequence[Algorithm]) -> None:
    """Train them as one program from now on: each `train()` is a step of all, which the others find done."""
    trainings = [algorithm._training for algorithm in algorithms]
    join([training for training in trainings if isinstance(training, CompiledTraining)])

"""The table of settings that every algorithm has, and the checks of their values and of those of agents' fields."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from athlete.callbacks import DefaultCallbacks
from athlete.core.ranges import Range
from athlete.models.dense import ACTIVATIONS
from athlete.offline.spaces import is_space
from athlete.settings.checks import SCHEDULE_FORM, is_count, is_number, is_schedule
from athlete.settings.multi_agent import is_mapping_of_agents
from athlete.settings.recorded import is_input
from athlete.spaces import Space


class Setting(NamedTuple):
    """A setting that every algorithm has: its section, its default, and which values may be."""

    section: str
    default: Any
    kind: str  # what `check_setting` knows it by


SETTINGS: dict[str, Setting] = {
    "env": Setting("environment", None, "any"),
    "env_config": Setting("environment", {}, "dict"),
    "backend": Setting("environment", "auto", "auto|jax|gymnasium|envpool"),
    "observation_space": Setting("environment", None, "space or None"),
    "action_space": Setting("environment", None, "space or None"),
    "disable_env_checking": Setting("environment", False, "bool"),
    "normalize_rewards": Setting("environment", False, "bool"),
    "clip_rewards": Setting("environment", None, "clip or None"),
    "reward_scale": Setting("environment", 1.0, "positive number"),
    "num_rollout_workers": Setting("rollouts", 0, "count"),
    "workers_act": Setting("rollouts", False, "bool"),
    "num_envs_per_worker": Setting("rollouts", 8, "positive count"),
    "rollout_fragment_length": Setting("rollouts", "auto", "positive count or auto"),
    "env_timeout": Setting("rollouts", 600.0, "positive number or None"),  # longer than any takes, shorter than a night
    "preprocessor_pref": Setting("rollouts", "deepmind", "deepmind|rllib or None"),
    "observation_filter": Setting("rollouts", "NoFilter", "NoFilter|MeanStdFilter"),
    "observation_fn": Setting("rollouts", None, "observation function or None"),
    "train_batch_size": Setting("training", 2048, "positive count"),
    "model": Setting("training", {}, "dict"),
    "lr_schedule": Setting("training", None, "schedule or None"),
    "entropy_coeff_schedule": Setting("training", None, "schedule or None"),
    "exploration_config": Setting("exploration", {}, "dict"),
    "policies": Setting("multi_agent", None, "policies or None"),
    "policy_mapping_fn": Setting("multi_agent", None, "mapping of agents or None"),
    "policies_to_train": Setting("multi_agent", None, "names or function or None"),
    "count_steps_by": Setting("multi_agent", "env_steps", "env_steps|agent_steps"),
    "shuffle_seats": Setting("multi_agent", False, "bool"),
    "input_": Setting("offline_data", "sampler", "data"),
    "input_config": Setting("offline_data", {}, "dict"),
    "actions_in_input_normalized": Setting("offline_data", False, "bool"),
    "output": Setting("offline_data", None, "folder or None"),
    "output_config": Setting("offline_data", {}, "dict"),
    "output_max_file_size": Setting("offline_data", 64 * 1024 * 1024, "positive count"),
    "num_gpus": Setting("resources", 0, "number"),
    "num_learners": Setting("learners", 0, "count or auto"),
    "coordinator_address": Setting("learners", None, "address or None"),
    "num_processes": Setting("learners", None, "positive count or None"),
    "process_id": Setting("learners", None, "count or None"),
    "ray": Setting("resources", False, "cluster"),
    "num_cpus_per_worker": Setting("resources", 1, "number"),
    "custom_resources_per_worker": Setting("resources", {}, "dict of amounts"),
    "placement_strategy": Setting("resources", "PACK", "PACK|SPREAD|STRICT_PACK|STRICT_SPREAD"),
    "evaluation_interval": Setting("evaluation", None, "count or None"),
    "evaluation_duration": Setting("evaluation", 10, "positive count or auto"),
    "evaluation_duration_unit": Setting("evaluation", "episodes", "episodes|timesteps"),
    "evaluation_num_workers": Setting("evaluation", 0, "count"),
    "evaluation_parallel_to_training": Setting("evaluation", False, "bool"),
    "evaluation_config": Setting("evaluation", {}, "dict"),
    "custom_evaluation_function": Setting("evaluation", None, "function or None"),
    "off_policy_estimation_methods": Setting("evaluation", {}, "dict"),
    "seed": Setting("debugging", None, "count or None"),
    "log_level": Setting("debugging", "INFO", "DEBUG|INFO|WARN|WARNING|ERROR"),
    "on_nonfinite": Setting("debugging", "error", "error|warn"),
    "metrics_num_episodes_for_smoothing": Setting("reporting", 100, "positive count"),
    "info_metrics": Setting("reporting", [], "names or bool"),
    "min_time_s_per_iteration": Setting("reporting", None, "number or None"),
    "min_sample_timesteps_per_iteration": Setting("reporting", 0, "count"),
    "checkpoint_freq": Setting("checkpointing", 0, "count"),
    "keep_checkpoints_num": Setting("checkpointing", None, "positive count or None"),
    "checkpoint_score_attr": Setting("checkpointing", None, "result or None"),
    "logdir": Setting("reporting", None, "folder or None"),
    "monitor": Setting("reporting", False, "bool"),
    "restart_failed_sub_environments": Setting("fault_tolerance", False, "bool"),
    "recreate_failed_workers": Setting("fault_tolerance", False, "bool"),
    "max_num_worker_restarts": Setting("fault_tolerance", 1000, "count"),
    "callbacks": Setting("callbacks", None, "callbacks or None"),
}

# Settings that most agents have as fields: those of `AlgorithmConfig` itself, which has no agent.
GENERAL: dict[str, Setting] = {
    "gamma": Setting("training", 0.99, "number"),
    "lr": Setting("training", 1e-3, "number or schedule"),
    "grad_clip": Setting("training", None, "positive number or None"),
}

EVALUATION_CHANGES = (
    "explore",
    "env",
    "env_config",
    "input",
    "policies",
    "policy_mapping_fn",
)  # what evaluation_config may change


def _is_callbacks(value: Any) -> bool:
    return issubclass(value if isinstance(value, type) else type(value), DefaultCallbacks)


def _is_activation(value: Any) -> bool:
    return isinstance(value, str) and value in ACTIVATIONS


def _is_names_or_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return True
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _is_positive(value: Any) -> bool:
    return is_number(value) and 0 < value < math.inf


def _is_observation_function(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 2 and callable(value[0]) and isinstance(value[1], Space)
    return callable(value)


_VALUE_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "any": (lambda value: True, "anything"),
    "dict": (lambda value: isinstance(value, Mapping), "a dictionary"),
    "callbacks": (_is_callbacks, "a subclass of athlete.callbacks.DefaultCallbacks or an instance of one"),
    "observation function": (
        _is_observation_function,
        "a function from an observation to what the agent sees, or a pair of it and its athlete.spaces.Space",
    ),
    "function": (callable, "a function"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "space": (is_space, "a space of gymnasium.spaces or athlete.spaces"),
    "data": (
        is_input,
        "'sampler', files, columns as a dictionary of arrays, or a dictionary from files to their shares of a batch",
    ),
    "policies": (
        lambda value: isinstance(value, Mapping | list | tuple | set),
        "a dictionary from names to PolicySpecs, or a list of names",
    ),
    "mapping of agents": (is_mapping_of_agents, "a function from an agent's name to a policy's, or a dictionary"),
    "names or function": (
        lambda value: callable(value) or isinstance(value, list | tuple | set),
        "a list of policies' names, or a function that says of each whether it is trained",
    ),
    "names or bool": (_is_names_or_bool, "a list of names, True for all or False for none"),
    "folder": (
        lambda value: value is False or (isinstance(value, str) and value != ""),
        "a folder's path, or False for no record",
    ),
    "bool or lagged": (lambda value: isinstance(value, bool) or value == "lagged", "True, False or 'lagged'"),
    "cluster": (
        lambda value: isinstance(value, bool) or (isinstance(value, str) and value != ""),
        "True, 'auto', the address of a cluster such as 'ray://host:10001', or False",
    ),
    "dict of amounts": (
        lambda value: isinstance(value, Mapping) and all(map(_is_positive, value.values())),
        "a dictionary from resources' names to amounts above 0",
    ),
    "result": (lambda value: isinstance(value, str) and value != "", "the name of a result"),
    "last or bool": (lambda value: isinstance(value, bool) or value == "last", "True, False or 'last'"),
    "bool or auto": (lambda value: isinstance(value, bool) or value == "auto", "True, False or 'auto'"),
    "clip": (lambda value: isinstance(value, bool) or _is_positive(value), "True, False or a number above 0"),
    "positive number": (_is_positive, "a finite number above 0"),
    "number": (lambda value: is_number(value) and 0 <= value < math.inf, "a finite number of at least 0"),
    "number or schedule": (lambda value: is_number(value) or is_schedule(value), f"a number or {SCHEDULE_FORM}"),
    "count": (is_count, "a whole number of at least 0"),
    "address": (
        lambda value: isinstance(value, str) and ":" in value,
        "the address of the first process, such as '10.0.0.1:1234'",
    ),
    "positive count": (lambda value: is_count(value) and value > 0, "a whole number of at least 1"),
    "count or auto": (lambda value: value == "auto" or is_count(value), "a whole number of at least 0, or 'auto'"),
    "positive count or auto": (
        lambda value: value == "auto" or (is_count(value) and value > 0),
        "a whole number of at least 1, or 'auto'",
    ),
    "schedule": (is_schedule, SCHEDULE_FORM),
    "activation": (_is_activation, "the name of an activation such as 'relu'"),
    "layers": (
        lambda value: isinstance(value, list | tuple) and all(is_count(size) and size > 0 for size in value),
        "a list of layer sizes such as [64, 64]",
    ),
}


def check_setting(kind: str, value: Any) -> str | None:
    """None if `value` is of `kind`, else what was expected."""
    if kind.endswith(" or None"):
        if value is None:
            return None
        expected = check_setting(kind.removesuffix(" or None"), value)
        return None if expected is None else f"{expected}, or None"
    if kind in _VALUE_CHECKS:
        test, expected = _VALUE_CHECKS[kind]
        return None if test(value) else expected
    choices = kind.split("|")
    return None if value in choices else f"one of {', '.join(map(repr, choices))}"


def check_field(hint: Any, value: Any) -> str | None:
    """None if `value` fits an agent's field of annotation `hint`, else what was expected."""
    parts, names = list(_parts(hint)), type_names(hint)
    if value is None:
        return None if "NoneType" in names else "a value, not None"
    bounds = next((part for part in parts if isinstance(part, Range)), Range())
    if "Optimizer" in names:
        is_one = hasattr(value, "init") and hasattr(value, "update")
        return None if is_one else "an optax transformation such as optax.adamw(1.0)"
    if "Schedule" in names and is_schedule(value):
        return None if all(number in bounds for _, number in value) else f"values {bounds}"
    if "float" in names:
        scheduled = f" or a schedule {SCHEDULE_FORM}" if "Schedule" in names else ""
        return None if is_number(value) and value in bounds else f"a number {bounds}{scheduled}"
    if "bool" in names:
        return None if isinstance(value, bool) else "True or False"
    if choices := [part for part in parts if isinstance(part, str)]:  # of a Literal
        return None if value in choices else f"one of {', '.join(map(repr, choices))}"
    if "int" in names:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole and value in bounds else f"a whole number {bounds}"
    return None


def type_names(hint: Any) -> set[str]:
    """What an annotation names: `float | None` is float and NoneType."""
    return {getattr(part, "__name__", "") for part in _parts(hint)}


def _parts(hint: Any) -> Iterator[Any]:
    """What an annotation is made of: the types, the choices and the ranges in it."""
    inner = (*typing.get_args(hint), *getattr(hint, "__metadata__", ()))
    if not inner or isinstance(hint, Range):
        yield hint
    for part in dict.fromkeys(inner):
        yield from _parts(part)


def is_search(value: Any) -> bool:
    """Whether `value` is or holds a place of a search, which `tune.run` fills in: `tune.uniform(0, 1)`, a grid."""
    if isinstance(value, Mapping):
        return set(value) == {"grid_search"} or any(is_search(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(is_search(part) for part in value)
    return type(value).__module__ == "athlete.tune.space"


def section_names() -> list[str]:
    return sorted({setting.section for setting in SETTINGS.values()})

"""What a file may ask for: whoever reads one gets no more processes, rows, memory or time of it unless they say so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

LARGEST: dict[str, float] = {
    **dict.fromkeys(("num_rollout_workers", "evaluation_num_workers"), 32),
    "num_envs_per_worker": 4096,
    **dict.fromkeys(("num_learners", "num_gpus"), 4096),
    "rollout_fragment_length": 100_000,
    **dict.fromkeys(("train_batch_size", "minibatch_size", "min_sample_timesteps_per_iteration"), 10_000_000),
    "num_steps_sampled_before_learning_starts": 10_000_000,
    "min_time_s_per_iteration": 3600,
    "evaluation_duration": 100_000,
    "metrics_num_episodes_for_smoothing": 1_000_000,
    **dict.fromkeys(("num_epochs", "training_intensity", "num_atoms", "num_quantiles", "n_step"), 10_000),
    **dict.fromkeys(("conjugate_gradient_steps", "line_search_steps", "policy_delay", "num_critics"), 1000),
    "capacity": 10_000_000,  # timesteps of a replay memory
    "max_seq_len": 10_000,
    **dict.fromkeys(("batch_size_B", "batch_length_T", "horizon_H", "training_ratio", "num_bins"), 10_000),
    **dict.fromkeys(("plan_horizon", "iterations"), 1000),
    **dict.fromkeys(("num_samples", "num_policy_samples", "latent", "units"), 100_000),
    **dict.fromkeys(("episodes_per_batch", "num_rollouts", "rollouts_used", "popsize"), 100_000),
    "report_length": 10_000,
    # Of networks: each head, unit and layer is traced on its own.
    **dict.fromkeys(("attention_num_transformer_units", "attention_num_heads"), 100),
    "replay_burn_in": 10_000,
    "random_timesteps": 10_000_000,
    # Of `env_config`: what makes observations and states of built-in environments large.
    "size": 2000,
    "repeat_delay": 10_000,
    "num_bits": 10_000,
    "num_agents": 1000,
}
MOST_ENTRIES = 100  # of one list, such as layers and the points of a schedule: each is compiled on its own
WIDEST_LAYER = 65_536
MOST_TIMESTEPS = 10_000_000  # of all rows in one iteration
# Of experiments, which a cluster may be meant for: RLlib's own have so many.
LARGEST_EXPERIMENT = LARGEST | dict.fromkeys(("num_rollout_workers", "evaluation_num_workers"), 128)
_MODELS = {"model", "policy_model_config", "q_model_config"}
_SEARCHES = {"grid_search", "choice", "sample_from"}


def excess(config: Mapping[str, Any], largest: Mapping[str, float] = LARGEST) -> tuple[str, str] | None:
    """The setting, under our names, that asks for more than a file may, and what it asks for; None where none does.

    `config` is as in a file: JSON, searches among it.
    """
    for name, value in config.items():
        if name == "ray" and isinstance(value, str) and value not in ("auto", "local"):
            return name, f"a connection to the cluster at {value!r}, which a file may not name"
        for place, limit in _excesses(str(name), value, largest):
            return str(name), f"{place}, more than the {limit:,} that a file may ask for"
    rows, steps = (_largest(config.get(name)) for name in ("num_envs_per_worker", "rollout_fragment_length"))
    timesteps = max(1, _largest(config.get("num_rollout_workers"))) * rows * steps
    if timesteps > MOST_TIMESTEPS:
        asked = f"{timesteps:,.0f} timesteps of all environments in one iteration"
        return "rollout_fragment_length", f"{asked}, more than the {MOST_TIMESTEPS:,} that a file may ask for"
    return None


def _largest(value: Any) -> float:
    """The largest number in a setting; 0 where there is none."""
    if isinstance(value, Mapping | list | tuple):
        return max(map(_largest, value.values() if isinstance(value, Mapping) else value), default=0)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _excesses(name: str, value: Any, largest: Mapping[str, float], depth: int = 8) -> Iterator[tuple[str, float]]:
    """What in a setting is larger than allowed, each with the limit. Names of entries follow a dot: `model.hiddens`."""
    last = name.rpartition(".")[2]
    if depth == 0:
        yield "dictionaries within one another", 8
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key in _SEARCHES and isinstance(part, list | tuple):  # any number of values, one at a time
                for choice in part:
                    yield from _excesses(name, choice, largest, depth - 1)
            else:
                yield from _excesses(name if key in _SEARCHES else f"{name}.{key}", part, largest, depth - 1)
    elif isinstance(value, list | tuple):
        if len(value) > MOST_ENTRIES and "env_config" not in name:
            yield f"{len(value):,} entries of {name}", MOST_ENTRIES
        for part in value:
            yield from _excesses(name, part, largest, depth - 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        is_width = "hiddens" in last or not _MODELS.isdisjoint(name.split("."))
        otherwise = WIDEST_LAYER if is_width else 2**63 if isinstance(value, int) else math.inf
        limit = largest.get(last, otherwise)
        if not abs(value) <= limit:
            yield f"{name}={value}", limit

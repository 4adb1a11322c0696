"""`replay_buffer_config`: RLlib's memories and their settings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from athlete.settings.checks import is_schedule, require_count, require_known, require_number

# Names of memories -> their kind. RLlib's multi-agent ones are the same with one agent; HerReplayBuffer is what
# Stable-Baselines3 calls hindsight.
MEMORIES = {
    "ReplayBuffer": "uniform",
    "EpisodeReplayBuffer": "uniform",
    "MultiAgentReplayBuffer": "uniform",
    "PrioritizedReplayBuffer": "prioritized",
    "PrioritizedEpisodeReplayBuffer": "prioritized",
    "MultiAgentPrioritizedReplayBuffer": "prioritized",
    "HindsightReplayBuffer": "hindsight",
    "HerReplayBuffer": "hindsight",
}
UNIFORM_MEMORIES = tuple(name for name, kind in MEMORIES.items() if kind != "prioritized")
GOAL_STRATEGIES = ("future", "final", "episode")
MEMORY_SETTINGS: dict[str, Any] = {
    "type": "ReplayBuffer",
    "capacity": 50_000,  # timesteps
    "prioritized_replay_alpha": 0.6,
    "prioritized_replay_beta": 0.4,  # a number or a schedule
    "prioritized_replay_eps": 1e-6,
    "final_prioritized_replay_beta": None,  # where beta goes on a line; None: it stays
    "prioritized_replay_beta_annealing_timesteps": 20_000,  # how long that takes
    "worker_side_prioritization": False,  # new steps have the TD errors of what acted; else the largest priority
    "stack_axis": None,  # the axis of observations that is a stack of frames: each frame is then stored once
    "n_sampled_goal": 4,  # of hindsight: samples with a goal that was reached, for each with the one that was wanted
    "goal_selection_strategy": "future",  # after which steps of the episode that goal was reached
    "replay_burn_in": 0,  # timesteps before each sequence that only bring the recurrent state up to date
}
# RLlib's keys with values that say what is so in any case: sequences of max_seq_len begin at every timestep.
SAME_MEMORIES = (
    ("storage_unit", "timesteps"),
    ("storage_unit", "sequences"),
    ("replay_sequence_length", -1),
    ("replay_mode", "independent"),
    ("_enable_replay_buffer_api", True),
    ("copy_info_dict", False),
)
MEMORY_SPELLINGS = {
    "alpha": "prioritized_replay_alpha",
    "beta": "prioritized_replay_beta",
    "capacity_ts": "capacity",
}


def checked_memory(given: Mapping[str, Any], title: str, types: tuple[str, ...]) -> dict[str, Any]:
    """`replay_buffer_config` over its defaults. Raises ValueError for names and values that cannot be."""
    settings = {**MEMORY_SETTINGS}
    for name, value in given.items():
        known = MEMORY_SPELLINGS.get(name, name)
        if (known, value) in SAME_MEMORIES:
            continue
        require_known(known, settings, f"replay_buffer_config={{{name!r}: {value!r}}}")
        settings[known] = value
    where = "replay_buffer_config"
    kind = settings["type"] = memory_name(settings["type"])
    if kind not in types:
        near = [] if kind in tuple(MEMORIES) else difflib.get_close_matches(str(kind), types, n=1)
        raise ValueError(f"{where}={{'type': {kind!r}}}: {title} learns from {', '.join(near or types)}")
    require_count(settings, "capacity", 1, where)
    require_count(settings, "replay_burn_in", 0, where)
    require_count(settings, "n_sampled_goal", 0, where)
    if (strategy := settings["goal_selection_strategy"]) not in GOAL_STRATEGIES:
        raise ValueError(
            f"{where}={{'goal_selection_strategy': {strategy!r}}}: expected one of {', '.join(GOAL_STRATEGIES)}"
        )
    axis = settings["stack_axis"]
    if axis is not None and (not isinstance(axis, int) or isinstance(axis, bool)):
        raise ValueError(
            f"{where}={{'stack_axis': {axis!r}}}: expected the number of an axis, such as 0 or -1, or None"
        )
    if not isinstance(rates := settings["worker_side_prioritization"], bool):
        raise ValueError(f"{where}={{'worker_side_prioritization': {rates!r}}}: expected True or False")
    require_number(settings, "prioritized_replay_alpha", where)
    require_number(settings, "prioritized_replay_eps", where)
    if not is_schedule(settings["prioritized_replay_beta"]):
        require_number(settings, "prioritized_replay_beta", where)
    if settings["final_prioritized_replay_beta"] is not None:
        require_number(settings, "final_prioritized_replay_beta", where)
        require_count(settings, "prioritized_replay_beta_annealing_timesteps", 1, where)
        length, end = (
            settings["prioritized_replay_beta_annealing_timesteps"],
            settings["final_prioritized_replay_beta"],
        )
        settings["prioritized_replay_beta"] = [[0, settings["prioritized_replay_beta"]], [length, end]]
    return settings


def memory_name(given: Any) -> Any:
    """The name of a memory that is given by name, by class path (`ray.rllib.utils.replay_buffers...`) or as a class."""
    return given.rpartition(".")[2] if isinstance(given, str) else getattr(given, "__name__", given)

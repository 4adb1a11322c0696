"""Where RLlib put settings in its eras, and what it wrote in them: into the places and words that they have here."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from athlete.log import logger
from athlete.models.catalog import registered_model
from athlete.settings.checks import require_known
from athlete.settings.rllib_names import SEQUENCE_MODEL, SPELLINGS

EVALUATION = 10  # episodes or timesteps, where nothing is said
MEMORY = "replay_buffer_config"
WARM_UP = "num_steps_sampled_before_learning_starts"

# Setting that stood for itself -> the entry of replay_buffer_config that it is.
INTO_MEMORY: dict[str, str] = {
    "buffer_size": "capacity",
    "burn_in": "replay_burn_in",
    "prioritized_replay_alpha": "prioritized_replay_alpha",
    "prioritized_replay_beta": "prioritized_replay_beta",
    "prioritized_replay_eps": "prioritized_replay_eps",
    "final_prioritized_replay_beta": "final_prioritized_replay_beta",
    "prioritized_replay_beta_annealing_timesteps": "prioritized_replay_beta_annealing_timesteps",
}

# Entry of replay_buffer_config -> the setting that it is.
OUT_OF_MEMORY: dict[str, str] = {
    "learning_starts": WARM_UP,
    "min_size_for_sampling": WARM_UP,
    WARM_UP: WARM_UP,
    "zero_init_states": "zero_init_states",
}

# RLlib's older names of learning rates, in `optimization`.
OPTIMIZATION = {
    "actor_learning_rate": "actor_lr",
    "critic_learning_rate": "critic_lr",
    "entropy_learning_rate": "alpha_lr",
}

MODELS = ("model", "policy_model_config", "q_model_config")
MODEL_SPELLINGS = {"hidden_layer_sizes": "fcnet_hiddens", "hidden_activation": "fcnet_activation"}

# Settings of `model` that mean nothing here -> what is so instead.
MODEL_IGNORED: dict[str, str] = {
    **dict.fromkeys(
        ("dim", "grayscale", "zero_mean", "framestack"),
        "pictures of Atari are 84 by 84 in grey, four of them stacked; env_config changes that",
    ),
    **dict.fromkeys(("_use_default_native_models", "_time_major", "_disable_action_flattening"), "there is one API"),
}

# What RLlib's dictionaries have under "multiagent" -> the setting that it is.
MULTI_AGENT = dict.fromkeys(("policies", "policy_mapping_fn", "policies_to_train", "count_steps_by"))
MULTI_AGENT_IGNORED = ("policy_map_capacity", "policy_map_cache", "observation_fn", "policy_states_are_swappable")

# PyYAML reads `1e-4` as a string: YAML 1.1 wants a point and a sign, `1.0e-4`.
_NUMBER = re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)[eE][-+]?\d+")


# Networks of RLlib's that files name by their class -> the settings that make the same here.
MODELS_OF_RLLIB: dict[str, dict[str, Any]] = {
    "DenseModel": {"fcnet_hiddens": [256, 256, 256], "fcnet_activation": "relu"},  # of its AlphaZero
}


def translated(settings: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """Settings as RLlib's users of any year write them, in the places and words of here; others as they are.

    `known` are the names of the settings that the configuration has: what it lacks stays where it was, for the error.
    """
    found: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    elsewhere: dict[str, Any] = {}  # what an entry of a dictionary says; a setting by its own name goes before it
    for name, value in settings.items():
        place, value = SPELLINGS.get(name, name), numbers(value)
        if place == "evaluation_config" and hasattr(value, "chosen"):
            value = value.chosen()
        if name in INTO_MEMORY and MEMORY in known:
            memory[INTO_MEMORY[name]] = value
        elif name == "prioritized_replay" and MEMORY in known and isinstance(value, bool):
            memory["type"] = "PrioritizedReplayBuffer" if value else "ReplayBuffer"
        elif place == MEMORY and MEMORY in known and _is_plain(value):
            outside = {
                entry: setting for entry, setting in OUT_OF_MEMORY.items() if entry in value and setting in known
            }
            elsewhere |= {setting: value[entry] for entry, setting in outside.items()}
            memory |= {entry: part for entry, part in value.items() if entry not in outside}
            found.setdefault(name, memory)
        elif name == "multiagent" and _is_plain(value):
            for part, entry in value.items():
                if part in MULTI_AGENT_IGNORED:
                    logger.info(
                        "multiagent={%r: %r}: all policies stay in memory, and see their own agents", part, entry
                    )
                    continue
                require_known(part, MULTI_AGENT, f"multiagent={{{part!r}: ...}}")
                found[part] = entry
        elif name in SEQUENCE_MODEL and "max_ep_len" in known:
            elsewhere |= _of_sequence_model(name, value)
        elif name == "optimization" and isinstance(value, Mapping) and "actor_lr" in known:
            for part, rate in value.items():
                require_known(part, OPTIMIZATION, f"optimization={{{part!r}: {rate!r}}}")
                found[OPTIMIZATION[part]] = rate
        elif place in MODELS and _is_plain(value):
            found[name] = _translated_model(value)
        else:
            found[name] = None if name == "target_entropy" and value == "auto" else value
    if memory and not any(SPELLINGS.get(name, name) == MEMORY for name in found):
        found[MEMORY] = memory
    given = {SPELLINGS.get(name, name) for name in found}
    return found | {name: value for name, value in elsewhere.items() if name not in given}


def _of_sequence_model(name: str, value: Any) -> dict[str, Any]:
    """What an entry of RLlib's DT is here, whose windows are drawn from all of the data."""
    if name == "optimizer" and isinstance(value, Mapping):
        for part in value:
            require_known(part, dict.fromkeys(("weight_decay", "betas")), f"optimizer={{{part!r}: ...}}")
        return {"weight_decay": value["weight_decay"]} if "weight_decay" in value else {}
    return {"max_ep_len": value} if name == "horizon" and value is not None else {}


def _is_plain(value: Any) -> bool:
    """Whether `value` is a dictionary of settings, and no place of a search."""
    return isinstance(value, Mapping) and "grid_search" not in value


def _translated_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    for name in MODEL_IGNORED.keys() & settings.keys():
        logger.info("model={%r: %r}: %s", name, settings[name], MODEL_IGNORED[name])
    kept = {MODEL_SPELLINGS.get(name, name): value for name, value in settings.items() if name not in MODEL_IGNORED}
    if (layers := MODELS_OF_RLLIB.get(str(kept.get("custom_model")).rpartition(".")[2])) and _is_of_rllib(kept):
        del kept["custom_model"]
        kept = {**layers, **kept}
    if isinstance(kept.get("custom_model"), str):
        kept["custom_model"] = registered_model(kept["custom_model"], kept.pop("custom_model_config", None) or {})
    if isinstance(kept.get("conv_filters"), list | tuple):
        kept["conv_filters"] = [_square(layer) for layer in kept["conv_filters"]]
    return kept


def _is_of_rllib(settings: Mapping[str, Any]) -> bool:
    return str(settings["custom_model"]).startswith("ray.rllib.")


def _square(layer: Any) -> Any:
    """`[filters, [size, size], stride]` as `[filters, size, stride]`; all else as it is."""
    match layer:
        case [filters, [height, width], stride] if height == width:
            return [filters, height, stride]
    return layer


def numbers(value: Any) -> Any:
    """`value` with strings that are numbers in scientific notation as such, also in dictionaries and lists."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {name: numbers(part) for name, part in value.items()} if type(value) is dict else value
    return type(value)(map(numbers, value)) if type(value) in (list, tuple) else value

"""RLlib's example environments under their class paths, served by compiled environments of ours.

A path such as `ray.rllib.examples.env.stateless_cartpole.StatelessCartPole` is what files and scripts of RLlib say; the
class's name decides, whatever the module is called in RLlib's version. RLlib is not needed.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import Env


def _as_it_is(config: dict[str, Any]) -> dict[str, Any]:
    return config


def _transformed_action_pendulum(config: dict[str, Any]) -> dict[str, Any]:
    """`low` and `high` as a space."""
    from athlete.spaces import Box

    low, high = float(config.pop("low", -1.0)), float(config.pop("high", 1.0))
    if not low < high:
        raise ValueError(f"TransformedActionPendulum: low={low} is not below high={high}")
    return {**config, "actions": Box(low, high, (1,))}


def _cartpole_crashing(config: dict[str, Any]) -> dict[str, Any]:
    """Without what a compiled environment cannot do: wait when it is made, crash in a reset, crash in some workers."""
    passed_over = ("p_crash_reset", "init_time_s", "init_time_s_min", "init_time_s_max", "crash_on_worker_indices")
    kept = {name: value for name, value in config.items() if name not in passed_over}
    return {**kept, "crash_after_n_steps": kept.get("crash_after_n_steps") or 0}


def _repeat_after_me(config: dict[str, Any]) -> dict[str, Any]:
    if config.pop("continuous", False):
        raise ValueError("RepeatAfterMeEnv: continuous=True has no counterpart here; its tokens are 0 and 1")
    return config


def _random_env(config: dict[str, Any]) -> dict[str, Any]:
    """RLlib's names. Spaces may be Gymnasium's."""
    from athlete.env.adapters.conversion import to_space

    spaces = {"observation_space": "obs", "action_space": "actions", "reward_space": "rewards"}
    fields = {ours: to_space(config[name], name) for name, ours in spaces.items() if name in config}
    p_done = config.get("p_done", config.get("p_terminated", 0.1))
    return {**fields, "p_done": float(p_done), "max_episode_len": config.get("max_episode_len") or 0}


def _large_random_env(config: dict[str, Any]) -> dict[str, Any]:
    """Observations of 5000 numbers."""
    from athlete.spaces import Box

    return {"obs": Box(-1.0, 1.0, (5000,)), **_random_env(config)}


def _large_continuous_random_env(config: dict[str, Any]) -> dict[str, Any]:
    """The same with five continuous actions."""
    from athlete.spaces import Box

    return {"actions": Box(-1.0, 1.0, (5,)), **_large_random_env(config)}


class Example(NamedTuple):
    """What serves one class: module below `athlete.env.games`, class, time limit in steps (None: its own), and how its
    `env_config` becomes the fields of ours.
    """

    module: str
    name: str
    limit: int | None = None
    fields: Callable[[dict[str, Any]], dict[str, Any]] = _as_it_is


EXAMPLES: dict[str, Example] = {
    "StatelessCartPole": Example("partial.stateless_cartpole", "StatelessCartPole", 500),
    "StatelessPendulum": Example("partial.stateless_pendulum", "StatelessPendulum", 200),
    "RepeatAfterMeEnv": Example("partial.repeat", "RepeatAfterMe", None, _repeat_after_me),
    "RepeatInitialObsEnv": Example("partial.repeat", "RepeatInitialObs"),
    "CartPoleSparseRewards": Example("rllib.cartpole_sparse_rewards", "CartPoleSparseRewards"),
    "CartPoleCrashing": Example("rllib.cartpole_crashing", "CartPoleCrashing", None, _cartpole_crashing),
    "TransformedActionPendulum": Example(
        "rllib.transformed_action_pendulum", "TransformedActionPendulum", 200, _transformed_action_pendulum
    ),
    "CartPoleMassEnv": Example("classic.cartpole", "CartPole", 500),  # its fields are the masses
    "PendulumMassEnv": Example("classic.pendulum", "Pendulum", 200),
    "CartPoleWrapper": Example("classic.cartpole", "CartPole", 500),
    "PendulumWrapper": Example("classic.pendulum", "Pendulum", 200),
    "RandomEnv": Example("rllib.random_env", "RandomEnv", None, _random_env),
    "RandomLargeObsSpaceEnv": Example("rllib.random_env", "RandomEnv", None, _large_random_env),
    "RandomLargeObsSpaceEnvContActions": Example("rllib.random_env", "RandomEnv", None, _large_continuous_random_env),
}
SEVERAL_AGENTS = re.compile(r"MultiAgent\w*|TwoStepGame\w*|RockPaperScissors\w*|\w*Grouped\w*|CooperativePong\w*")


def is_known(path: str) -> bool:
    """Whether `make_example` knows the class of `path`: serves it, or says what it lacks for it."""
    name = path.rpartition(".")[2]
    return name in EXAMPLES or SEVERAL_AGENTS.fullmatch(name) is not None


def make_example(path: str, env_config: Mapping[str, Any] | None = None) -> Env:
    """The environment that serves the class of `path`, with its time limit.

    `env_config` is RLlib's, which may stand in an entry `config` or `env_config` of its own, as files that give it to a
    class by the name of its argument have it. `max_episode_steps` changes the time limit (-1: none).

    Raises:
        ValueError: `env_config` has an entry that the environment does not have, or several agents play it.
    """
    name = path.rpartition(".")[2]
    if SEVERAL_AGENTS.fullmatch(name):
        raise ValueError(
            f"environment {path!r}: {name} is played by several agents, which Athlete does not train yet; "
            f"of RLlib's examples it has {', '.join(EXAMPLES)}"
        )
    example = EXAMPLES[name]
    config = dict(env_config or {})
    for nested in ("config", "env_config"):
        if isinstance(config.get(nested), Mapping):
            config |= config.pop(nested)
    limit = config.pop("max_episode_steps", example.limit)
    module = importlib.import_module(f"athlete.env.games.{example.module}")
    env = create(getattr(module, example.name), EnvContext(example.fields(config)))
    if limit in (None, -1):
        return env
    from athlete.env.wrappers.time_limit import TimeLimit

    return TimeLimit(env, limit)

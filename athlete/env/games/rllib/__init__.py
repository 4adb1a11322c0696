"""RLlib's example environments under their class paths, served by compiled environments of ours.

A path such as `ray.rllib.examples.env.stateless_cartpole.StatelessCartPole` is what files and scripts of RLlib say; the
class's name decides, whatever the module is called in RLlib's version. RLlib is not needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import Env, MultiEnv


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


def _two_step_game(config: dict[str, Any]) -> dict[str, Any]:
    """Without what RLlib's MADDPG needs there: actions as logits."""
    return {name: value for name, value in config.items() if name != "actions_are_logits"}


def _rock_paper_scissors(config: dict[str, Any]) -> dict[str, Any]:
    """What the setting was called in older versions."""
    return {"sheldon_cooper_mode" if name == "sheldon_cooper" else name: value for name, value in config.items()}


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
    "LinearDiscreteEnv": Example("bandits.linear", "LinearBandit"),
    "WheelBanditEnv": Example("bandits.wheel", "WheelBandit"),
    "SimpleContextualBandit": Example("bandits.contextual", "ContextualBandit"),
    "ParametricRecSys": Example("recommenders", "make_parametric"),
    "InterestEvolutionRecSimEnv": Example("recommenders", "make_interest_evolution"),
    "LongTermSatisfactionRecSimEnv": Example("recommenders", "make_long_term_satisfaction"),
    "TwoStepGame": Example("multi_agent.two_step_game", "TwoStepGame", None, _two_step_game),
    "TwoStepGameWithGroupedAgents": Example("multi_agent.two_step_game", "grouped_two_step_game", None, _two_step_game),
    "RockPaperScissors": Example("multi_agent.rock_paper_scissors", "RockPaperScissors", None, _rock_paper_scissors),
}
# Of which `num_agents` copies are the environment of as many agents.
COPIES: dict[str, Example] = {
    "MultiAgentCartPole": Example("classic.cartpole", "CartPole", 500),
    "MultiAgentStatelessCartPole": EXAMPLES["StatelessCartPole"],
    "MultiAgentCartPoleCrashing": EXAMPLES["CartPoleCrashing"],
    "MultiAgentPendulum": Example("classic.pendulum", "Pendulum", 200),
    "MultiAgentMountainCar": Example("classic.mountain_car_continuous", "MountainCarContinuous", 999),
}


def is_known(path: str) -> bool:
    """Whether `make_example` serves the class of `path`."""
    name = path.rpartition(".")[2]
    return name in EXAMPLES or name in COPIES


def make_example(path: str, env_config: Mapping[str, Any] | None = None) -> Env | MultiEnv:
    """The environment that serves the class of `path`, with its time limit.

    `env_config` is RLlib's, which may stand in an entry `config` or `env_config` of its own, as files that give it to a
    class by the name of its argument have it. `max_episode_steps` changes the time limit (-1: none).

    Raises:
        ValueError: `env_config` has an entry that the environment does not have.
    """
    name = path.rpartition(".")[2]
    config = dict(env_config or {})
    for nested in ("config", "env_config"):
        if isinstance(config.get(nested), Mapping):
            config |= config.pop(nested)
    if name in EXAMPLES:
        return _make(EXAMPLES[name], config)
    from athlete.env.wrappers.copies import Copies

    number = config.pop("num_agents", 1)
    return Copies(_make(COPIES[name], config), number)


def _make(example: Example, config: dict[str, Any]) -> Any:
    limit = config.pop("max_episode_steps", example.limit)
    module = importlib.import_module(f"athlete.env.games.{example.module}")
    env = create(getattr(module, example.name), EnvContext(example.fields(config)))
    if limit in (None, -1):
        return env
    from athlete.core import MultiEnv
    from athlete.env.wrappers.multi_time_limit import MultiTimeLimit
    from athlete.env.wrappers.time_limit import TimeLimit

    return MultiTimeLimit(env, limit) if isinstance(env, MultiEnv) else TimeLimit(env, limit)

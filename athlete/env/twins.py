"""Which Gymnasium ids have a compiled twin, and why a made environment has none.

Classic ids are found without importing Gymnasium, and the list of ids without JAX: both would cost start-up time.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from athlete.env.registry import BUILT_IN, resolve

if TYPE_CHECKING:
    from athlete.core import Env

_IGNORED = {"render_mode", "disable_env_checker"}  # arguments of `gymnasium.make` that change no step


@dataclass(frozen=True)
class Registration:
    """What Gymnasium registers under an id, as far as it decides about steps."""

    entry_point: str
    max_episode_steps: int | None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassicTwin:
    """A class in `athlete.env.games.classic`, and the arguments of `gymnasium.make` that are its fields, with types."""

    module: str
    name: str
    registration: Registration
    arguments: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


def _classic(module: str, name: str, entry_point: str, limit: int, **arguments: Callable[[Any], Any]) -> ClassicTwin:
    registration = Registration(f"gymnasium.envs.classic_control.{entry_point}", limit)
    return ClassicTwin(f"athlete.env.games.classic.{module}", name, registration, arguments)


def _toy(entry_point: str, limit: int | None, **kwargs: Any) -> Registration:
    return Registration(f"gymnasium.envs.toy_text.{entry_point}", limit, kwargs)


_CARTPOLE = ("cartpole", "CartPole", "cartpole:CartPoleEnv")
_CAR = ("mountain_car", "MountainCar", "mountain_car:MountainCarEnv")
_CONTINUOUS_CAR = (
    "mountain_car_continuous",
    "MountainCarContinuous",
    "continuous_mountain_car:Continuous_MountainCarEnv",
)
CLASSIC = {
    "CartPole-v0": _classic(*_CARTPOLE, 200, sutton_barto_reward=bool),
    "CartPole-v1": _classic(*_CARTPOLE, 500, sutton_barto_reward=bool),
    "Acrobot-v1": _classic("acrobot", "Acrobot", "acrobot:AcrobotEnv", 500),
    "MountainCar-v0": _classic(*_CAR, 200, goal_velocity=float),
    "MountainCarContinuous-v0": _classic(*_CONTINUOUS_CAR, 999, goal_velocity=float),
    "Pendulum-v1": _classic("pendulum", "Pendulum", "pendulum:PendulumEnv", 200, g=float),
}
TABULAR = {
    "FrozenLake-v1": _toy("frozen_lake:FrozenLakeEnv", 100, map_name="4x4"),
    "FrozenLake8x8-v1": _toy("frozen_lake:FrozenLakeEnv", 200, map_name="8x8"),
    "CliffWalking-v0": _toy("cliffwalking:CliffWalkingEnv", None),
    "CliffWalking-v1": _toy("cliffwalking:CliffWalkingEnv", None),
    "CliffWalkingSlippery-v1": _toy("cliffwalking:CliffWalkingEnv", None, is_slippery=True),
    "Taxi-v3": _toy("taxi:TaxiEnv", 200),
    "Taxi-v4": _toy("taxi:TaxiEnv", 200),
}


def twin_ids() -> list[str]:
    """The Gymnasium ids that run compiled, sorted. Which of them exist depends on Gymnasium's version."""
    return sorted([*CLASSIC, *TABULAR])


def find_twin(env_id: str, env_config: Mapping[str, Any] | None = None) -> tuple[Env | None, str]:
    """The compiled twin of what `gymnasium.make(env_id, **env_config)` would make, time limit included.

    Our own ids (`BUILT_IN`), such as MinAtar's, which Gymnasium knows only with that package, are found as well.

    Returns:
        The twin and the sentence that says so; or None and the sentence that says why it runs on Gymnasium.

    Raises:
        ValueError: `env_config` does not fit, where the id is our own or its table has to be read from Gymnasium.
    """
    config = dict(env_config or {})
    if env_id in BUILT_IN:
        module, _ = BUILT_IN[env_id]
        return resolve(env_id)(config), f"{env_id} runs compiled ({module}); Gymnasium itself has no such id"
    if env_id not in CLASSIC and env_id not in TABULAR:
        return None, f"{env_id} has no compiled twin; it runs on Gymnasium"
    limit = config.pop("max_episode_steps", None)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or (limit < 1 and limit != -1)):
        return _none(env_id, f"max_episode_steps={limit!r}")
    if env_id in CLASSIC:
        return _find_classic(env_id, CLASSIC[env_id], config, limit)
    return _find_tabular(env_id, TABULAR[env_id], config, limit)


def _find_classic(env_id: str, twin: ClassicTwin, config: dict[str, Any], limit: int | None) -> tuple[Env | None, str]:
    if _is_altered(env_id, twin.registration):
        return _none(env_id, "what is registered under this id here")
    fields = {}
    for name, value in config.items():
        if name in _IGNORED:
            continue
        if name not in twin.arguments:
            return _none(env_id, f"argument {name!r}")
        try:
            fields[name] = twin.arguments[name](value)
        except (TypeError, ValueError):
            return _none(env_id, f"{name}={value!r}")
    env = getattr(importlib.import_module(twin.module), twin.name)(**fields)
    return _limited(env, twin.registration.max_episode_steps if limit is None else limit), _runs(env_id, twin.module)


def _find_tabular(
    env_id: str, registration: Registration, config: dict[str, Any], limit: int | None
) -> tuple[Env | None, str]:
    from athlete.env.adapters.gymnasium import make_gymnasium

    arguments = {name: value for name, value in config.items() if name not in _IGNORED}
    if _is_altered(env_id, registration):
        return _none(env_id, "what is registered under this id here")
    if arguments.get("fickle_passenger"):
        return _none(env_id, "fickle_passenger=True, which its transition table does not contain")
    if arguments.get("map_name", "") is None and arguments.get("desc") is None:
        return _none(env_id, "map_name=None, which draws a new map for every environment")
    made = make_gymnasium(env_id, arguments)
    table: Any = made.unwrapped
    from athlete.env.games.tabular import from_table

    env = from_table(table.P, table.initial_state_distrib)
    made.close()
    module = "athlete.env.games.tabular, on the transition table of Gymnasium's"
    return _limited(env, registration.max_episode_steps if limit is None else limit), _runs(env_id, module)


def _limited(env: Env, limit: int | None) -> Env:
    from athlete.env.wrappers.time_limit import TimeLimit

    return env if limit is None or limit == -1 else TimeLimit(env, limit)


def _runs(env_id: str, module: str) -> str:
    return f"{env_id} runs compiled ({module}); environment(..., backend='gymnasium') turns that off"


def _none(env_id: str, reason: str) -> tuple[None, str]:
    return None, f"{env_id} has no compiled twin for {reason}; it runs on Gymnasium"


def _is_altered(env_id: str, stock: Registration) -> bool:
    """Whether this process registered something else under the id. Only one that has imported Gymnasium can have."""
    registration = sys.modules.get("gymnasium.envs.registration")
    if registration is None:
        return False
    spec = registration.registry.get(env_id)
    return spec is None or (spec.entry_point, spec.kwargs, spec.max_episode_steps, spec.additional_wrappers) != (
        stock.entry_point,
        dict(stock.kwargs),
        stock.max_episode_steps,
        (),
    )

"""Gymnasium's environments: made from whatever names them, adapted if old.

The only module that imports gymnasium. It does not import JAX, because worker processes import it: the `Source` that
the loops see is `athlete.env.adapters.source.GymnasiumSource`.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator, registry
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import (
    AtariPreprocessing,
    FilterObservation,
    FrameStackObservation,
    TimeLimit,
    TransformObservation,
)

from athlete.env.adapters.conversion import has_fixed_shape, to_space
from athlete.env.adapters.old_gym import todays_reset, todays_step
from athlete.env.masks import (
    METHOD,
    OBSERVATIONS,
    Path,
    joined_mask,
    lift,
    lift_space,
    mask_method,
    mask_path,
    say_masks_are_read,
    told_path,
)
from athlete.env.registry import BUILT_IN, EnvContext, create, is_jax_env, misfit, registered_names, resolve
from athlete.spaces import ACTION_MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple, has_mask

__all__ = [
    "ActionMaskObservation",
    "GymnasiumEnv",
    "OldGymAdapter",
    "find_spec",
    "make_gymnasium",
    "require_no_autoreset",
    "to_gymnasium_space",
    "to_space",
]

logger = logging.getLogger("athlete")

GymnasiumEnv = gymnasium.Env  # for environments of ours in its form


def to_gymnasium_space(space: Space) -> gymnasium.Space:
    """The inverse of `to_space`."""
    match space:
        case Box():
            return gymnasium.spaces.Box(space.low, space.high, space.shape, space.dtype)  # type: ignore[arg-type]
        case Discrete():
            return gymnasium.spaces.Discrete(space.n, start=space.start)
        case MultiDiscrete():
            return gymnasium.spaces.MultiDiscrete(np.array(space.nvec), start=space.lowest.astype(np.int64))
        case MultiBinary():
            return gymnasium.spaces.MultiBinary(space.size if len(space.size) > 1 else space.size[0])
        case Tuple():
            return gymnasium.spaces.Tuple([to_gymnasium_space(part) for part in space.spaces])
        case Dict():
            return gymnasium.spaces.Dict({name: to_gymnasium_space(part) for name, part in space.items})
        case OneOf():
            return gymnasium.spaces.OneOf([to_gymnasium_space(part) for part in space.spaces])
    raise ValueError(f"{space!r} has no counterpart in Gymnasium")


def find_spec(env_id: str) -> EnvSpec:
    """Gymnasium's specification of an id. `"package:Id-v0"` imports the package first, which registers its ids.

    Raises:
        ValueError: the package or the id does not exist; the nearest ids are named.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"environment {env_id!r}: there is no module {error.name!r}; install the package that provides it"
            ) from error
    if name in registry:
        if inspect.isfunction(registry[name].entry_point) and (reason := why_missing(name)):
            raise ValueError(f"environment {env_id!r}: {reason}")
        return registry[name]
    near = difflib.get_close_matches(name, [*registered_names(), *BUILT_IN, *registry], n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}? If" if near else "if"
    raise ValueError(
        f"environment {env_id!r}: no Gymnasium id and no name given to register_env; {hint} "
        f"a package registers it, name the package as well: 'package:{name}'"
    )


def why_missing(env_id: str) -> str | None:
    """Why an id that Gymnasium lists cannot be made here, such as a package that is not installed; None if it can."""
    spec = registry[env_id]
    try:
        if isinstance(spec.entry_point, str):
            load_env_creator(spec.entry_point)
        elif inspect.isfunction(spec.entry_point):  # the ids that Gymnasium has given up: functions that raise
            spec.entry_point(**spec.kwargs)
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        return " ".join(str(error).split())
    return None


def named_spec(env: Any) -> Any:
    """The specification of an id, all else as it is; one that other processes can use as well.

    There `"__main__:MyEnv"` would name another main module, so that is looked up here.
    """
    spec = find_spec(env) if isinstance(env, str) else env
    if isinstance(spec, EnvSpec) and isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
        spec = copy.copy(spec)
        spec.entry_point = load_env_creator(str(spec.entry_point))  # type: ignore[assignment]
    return spec


def make_gymnasium(
    env: Any,
    env_config: Mapping[str, Any] | None = None,
    *,
    worker_index: int = 0,
    vector_index: int = 0,
    num_workers: int = 0,
    adapt: bool = True,
) -> gymnasium.Env:
    """One Gymnasium environment from whatever names it.

    Args:
        env: an id (`"CartPole-v1"`, `"ale_py:ALE/Pong-v5"`; `env_config` becomes the arguments of `gymnasium.make`), a
            name given to `register_env`, a path `"package.module.Class"`, a class, a factory or an instance.
        env_config: what the environment is made with; classes and factories get it as `registry.create` says.
        worker_index, vector_index, num_workers: for the `EnvContext` that classes and factories get.
        adapt: put environments of the old Gym API behind `OldGymAdapter`, masks of actions into the observation, and
            leave out entries of a Dict observation that have no fixed shape; a log line says so.

    Raises:
        ValueError: no such id, name or path; `env_config` does not fit; what was made is no Gymnasium environment.
    """
    env = resolve(env)
    if isinstance(env, str):
        env = find_spec(env)
    if isinstance(env, EnvSpec):
        made = _make_from_spec(env, dict(env_config or {}), adapt)
        return _as_agents_see_it(made) if adapt else made
    is_maker = isinstance(env, type) or (callable(env) and not hasattr(env, "step"))
    if is_maker and not is_jax_env(env):
        made = create(env, EnvContext(env_config, worker_index, vector_index, num_workers))
    else:
        made = env
    if is_jax_env(made):
        raise ValueError(f"{made!r} is a JAX environment (athlete.core.Env), not one of Gymnasium")
    if isinstance(made, VectorEnv):
        raise ValueError(
            f"{made!r} is a vector environment; Athlete makes the rows: give environment(...) the id, the class or a "
            "factory of one, and rollouts(num_envs_per_worker=...) their number"
        )
    if not (hasattr(made, "reset") and hasattr(made, "step")):
        raise ValueError(f"environment {env!r} gave {made!r}, which has no reset and step; expected a gymnasium.Env")
    if not adapt:
        return made
    is_todays = isinstance(made, gymnasium.Env) and _is_todays(made.reset)
    return _as_agents_see_it(made if is_todays else OldGymAdapter(made))


def make_todays(env: Any, env_config: Mapping[str, Any] | None = None) -> gymnasium.Env:
    """`make_gymnasium`, with `reset` and `step` that answer in today's form whatever the environment's answer in."""
    made = make_gymnasium(env, env_config)
    return made if isinstance(made, OldGymAdapter) else OldGymAdapter(made)


def _as_agents_see_it(env: gymnasium.Env) -> gymnasium.Env:
    """The environment without what agents cannot see, and with its mask of actions where they read it."""
    return _showing_mask(_without_shapeless(env))


_left_out: set[tuple[str, str]] = set()  # the environments and entries that were already spoken of


def _without_shapeless(env: gymnasium.Env) -> gymnasium.Env:
    """The environment without entries of its Dict observation that hold no numbers, such as MiniGrid's mission."""
    entries = getattr(env.observation_space, "spaces", None)
    if not isinstance(entries, Mapping):
        return env
    kept = [name for name, part in entries.items() if has_fixed_shape(part)]
    if not kept or len(kept) == len(entries):
        return env
    name = type(env.unwrapped).__name__
    for entry in set(entries) - set(kept):
        if (name, entry) not in _left_out:
            _left_out.add((name, entry))
            kind = type(entries[entry]).__name__
            logger.info("%s: observation[%r] is a %s without a fixed shape; it is left out", name, entry, kind)
    return FilterObservation(env, kept)


def _make_from_spec(spec: EnvSpec, env_config: dict[str, Any], adapt: bool) -> gymnasium.Env:
    if spec.entry_point is None:
        raise ValueError(f"environment {spec.id!r} is registered in Gymnasium without an entry point")
    creator: Any = spec.entry_point if callable(spec.entry_point) else load_env_creator(spec.entry_point)
    arguments = {**spec.kwargs, **env_config}
    limit = arguments.pop("max_episode_steps", spec.max_episode_steps)
    arguments.pop("disable_env_checker", None)
    signature = inspect.signature(creator)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(misfit(spec.id, signature, env_config)) from error
    if isinstance(creator, type) and not (issubclass(creator, gymnasium.Env) and _is_todays(creator.reset)):
        env = creator(**arguments)  # gymnasium.make refuses these, or wraps them in what cannot step them
        if not adapt:
            return env
        env = OldGymAdapter(env)
        return TimeLimit(env, limit) if limit else env
    # `check_env` has looked already; Gymnasium's own checker would cost a call in every step.
    return gymnasium.make(spec, **{"disable_env_checker": True, **env_config})


# What `env_config` may say about the preprocessing: arguments of AtariPreprocessing, and how many frames are stacked.
_ATARI_PREPROCESSING = ("noop_max", "frame_skip", "screen_size", "terminal_on_life_loss", "grayscale_obs")


def require_atari() -> None:
    """Register ale-py's ids. Raises ValueError with what to install where it or OpenCV, which shrinks, is missing."""
    try:
        import ale_py
        import cv2  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"Atari needs the package {error.name}: pip install ale-py opencv-python-headless") from error
    gymnasium.register_envs(ale_py)


_AS_IT_IS = "rollouts(preprocessor_pref=None) takes the game without preprocessing"
_ATARI_REFUSED = {
    "frameskip": f"its preprocessing skips frames: set frame_skip; or {_AS_IT_IS}",
    "obs_type": f"its preprocessing makes the pictures: set grayscale_obs; or {_AS_IT_IS}",
    "frame_stack": "the number of frames is stack_size",
}


def make_atari(env_id: str, env_config: Mapping[str, Any]) -> gymnasium.Env:
    """A game of Atari as Mnih et al. (2015, doi:10.1038/nature14236) showed it to their network.

    Up to 30 random no-ops at the start, every action for 4 frames, the maximum of the last two, grey and shrunk to 84
    by 84, the last 4 such pictures stacked: uint8 `[84, 84, 4]`. Rewards are not clipped, and a life lost ends no
    episode unless `env_config` says `terminal_on_life_loss`. Every fourth action is repeated at random (sticky actions,
    Machado et al. 2018, arXiv:1709.06009), as ids that end in `-v5` have it, unless `repeat_action_probability` says 0.

    `env_config` holds arguments of Gymnasium's AtariPreprocessing, `stack_size`, and what `gymnasium.make` takes.

    Raises ValueError for entries that the preprocessing sets itself.
    """
    require_atari()
    config = dict(env_config)
    for entry, instead in _ATARI_REFUSED.items():
        if entry in config:
            raise ValueError(f"env_config={{{entry!r}: {config[entry]!r}}} of {env_id!r}: {instead}")
    chosen = {name: config.pop(name) for name in _ATARI_PREPROCESSING if name in config}
    stack_size = config.pop("stack_size", 4)
    env = AtariPreprocessing(_make_from_spec(find_spec(env_id), {**config, "frameskip": 1}, adapt=False), **chosen)
    stacked = FrameStackObservation(env, stack_size)
    shape = _frames_last(np.empty(stacked.observation_space.shape or ())).shape
    return TransformObservation(stacked, _frames_last, gymnasium.spaces.Box(0, 255, shape, np.uint8))


def _frames_last(frames: np.ndarray) -> np.ndarray:
    """Pictures `[frames, H, W]` or `[frames, H, W, colours]` as one of `[H, W, channels]`."""
    moved = np.moveaxis(frames, 0, 2)
    return np.ascontiguousarray(moved.reshape(*moved.shape[:2], -1))


def _is_todays(reset: Callable[..., Any]) -> bool:
    """Whether a method `reset` takes what Gymnasium's wrappers pass on."""
    parameters = inspect.signature(reset).parameters.values()
    takes_all = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    return takes_all or {"seed", "options"} <= {parameter.name for parameter in parameters}


def make_partly_shown(env_id: str, shown: tuple[int, ...], env_config: Mapping[str, Any]) -> gymnasium.Env:
    """The environment of an id, of whose observations `[n]` the entries `shown` are seen."""
    env = gymnasium.make(env_id, **env_config)
    space = env.observation_space
    assert isinstance(space, gymnasium.spaces.Box)
    places = list(shown)
    seen = gymnasium.spaces.Box(space.low[places], space.high[places], dtype=space.dtype.type)
    return gymnasium.wrappers.TransformObservation(env, lambda obs: obs[places], seen)


class OldGymAdapter(gymnasium.Env):
    """An environment of the old Gym API (`reset` gives an observation, `step` four values) as one of Gymnasium.

    `done` becomes `truncated` where `info["TimeLimit.truncated"]` is true, else `terminated`. Results that have
    today's form already pass as they are, so any object with `reset`, `step` and the two spaces can be wrapped.

    Raises:
        ValueError: `observation_space` or `action_space` is missing or is no space.
    """

    def __init__(self, env: Any):
        self.env = env
        self.observation_space = _todays_space(env, "observation_space")
        self.action_space = _todays_space(env, "action_space")
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self.spec = getattr(env, "spec", None)
        self._render_takes_mode = (
            "mode" in inspect.signature(env.render).parameters if hasattr(env, "render") else False
        )
        self.render_mode = getattr(env, "render_mode", "rgb_array" if self._render_takes_mode else None)
        self._reset_arguments = set(inspect.signature(env.reset).parameters)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        arguments = {"seed": seed, "options": options}
        accepted = {name: value for name, value in arguments.items() if name in self._reset_arguments}
        if seed is not None and "seed" not in accepted and hasattr(self.env, "seed"):
            self.env.seed(seed)
        return todays_reset(self.env, self.env.reset(**accepted))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return todays_step(self.env, self.env.step(action))

    @property
    def unwrapped(self) -> Any:
        return getattr(self.env, "unwrapped", self.env)

    def render(self) -> Any:
        return self.env.render(mode=self.render_mode) if self._render_takes_mode else self.env.render()

    def close(self) -> None:
        if hasattr(self.env, "close"):
            self.env.close()


def _todays_space(env: Any, attribute: str) -> gymnasium.Space:
    space = getattr(env, attribute, None)
    if space is None:
        raise ValueError(f"{type(env).__name__} has no {attribute}; set it in __init__ to a space of gymnasium.spaces")
    return space if isinstance(space, gymnasium.Space) else to_gymnasium_space(to_space(space, attribute, exact=True))


class ActionMaskObservation(gymnasium.Wrapper):
    """Puts the mask that tells legal actions where agents see it: into the observation.

    Observations become `{"observations": what the environment shows, "action_mask": zeros and ones}`, RLlib's form. For
    MultiDiscrete actions a tuple of masks, as `MultiDiscrete.sample(mask=...)` takes it, is joined to one row.

    Args:
        told_by: "info" for `info["action_mask"]`, Gymnasium's way, or "method" for a method `action_masks()`,
            sb3-contrib's.

    Raises:
        ValueError: the actions are neither Discrete nor MultiDiscrete; a `reset`, or a `step` that does not terminate
            the episode, gives no `info["action_mask"]`; there is no method; a mask of another size.
    """

    def __init__(self, env: gymnasium.Env, told_by: str = "info"):
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete):
            raise ValueError(
                f"ActionMaskObservation({env}): masks are for Discrete and MultiDiscrete actions, not {space}"
            )
        self._method = mask_method(env) if told_by == "method" else None
        if told_by == "method" and self._method is None:
            raise ValueError(f"ActionMaskObservation({env}, 'method'): it has no method {METHOD}()")
        self._size = int(space.n if isinstance(space, gymnasium.spaces.Discrete) else space.nvec.sum())
        self.observation_space = gymnasium.spaces.Dict(
            {OBSERVATIONS: env.observation_space, ACTION_MASK: gymnasium.spaces.MultiBinary(self._size)}
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = todays_reset(self.env, self.env.reset(seed=seed, options=options))
        return self._with_mask(obs, info, "reset", False), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = todays_step(self.env, self.env.step(action))
        return self._with_mask(obs, info, "step", terminated), reward, terminated, truncated, info

    def _with_mask(self, obs: Any, info: dict[str, Any], call: str, terminated: bool) -> dict[str, Any]:
        if terminated and (self._method is not None or ACTION_MASK not in info):
            mask = np.zeros(self._size, np.int8)  # nothing is done any more
        elif self._method is not None:
            mask = joined_mask(self._method(), self._size, f"{METHOD}() of {self.env} gave a mask")
        elif ACTION_MASK in info:
            told = f"{call} of {self.env} gave an info[{ACTION_MASK!r}]"
            mask = joined_mask(info[ACTION_MASK], self._size, told)
        else:
            raise ValueError(f"{call} of {self.env} gave no info[{ACTION_MASK!r}]; there is {list(info)}")
        return {OBSERVATIONS: obs, ACTION_MASK: mask}


class LiftedMask(gymnasium.Wrapper):
    """Observations whose mask at `path` stands in their entry `action_mask`."""

    def __init__(self, env: gymnasium.Env, path: Path, space: Dict):
        super().__init__(env)
        self._path = path
        self.observation_space = to_gymnasium_space(lift_space(space, path))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = todays_reset(self.env, self.env.reset(seed=seed, options=options))
        return lift(obs, self._path), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, *rest = todays_step(self.env, self.env.step(action))
        return lift(obs, self._path), *rest  # type: ignore[return-value]


def _showing_mask(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with its mask of actions where agents read it, if it tells one in its spaces or by a method."""
    if not isinstance(env.action_space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete):
        return env
    try:
        space = to_space(env.observation_space, exact=True)
    except ValueError:  # which is told where the space is needed
        return env
    if has_mask(space):
        return env
    if path := mask_path(space, to_space(env.action_space)):
        assert isinstance(space, Dict)
        say_masks_are_read(type(env.unwrapped).__name__, told_path(path))
        return LiftedMask(env, path, space)
    if mask_method(env) is not None:
        say_masks_are_read(type(env.unwrapped).__name__, f"{METHOD}()")
        return ActionMaskObservation(env, "method")
    return env


def tells_mask_in_info(env: gymnasium.Env) -> bool:
    """Whether legal actions of an environment are told in `info["action_mask"]` and nowhere else. Resets it."""
    if not isinstance(env.action_space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete):
        return False
    if ACTION_MASK in getattr(env.observation_space, "spaces", ()):
        return False
    return ACTION_MASK in todays_reset(env, env.reset())[1]


def make_with_mask_of_info(maker: Any, env_config: Mapping[str, Any]) -> gymnasium.Env:
    """What `maker` makes, with `info["action_mask"]` in its observations."""
    context = env_config if isinstance(env_config, EnvContext) else EnvContext(env_config)
    env = make_gymnasium(
        maker,
        context,
        worker_index=context.worker_index,
        vector_index=context.vector_index,
        num_workers=context.num_workers,
    )
    return ActionMaskObservation(env)


def require_no_autoreset(vector: VectorEnv) -> None:
    """Raise ValueError if a ready-made vector environment resets rows by itself."""
    mode = vector.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.DISABLED, AutoresetMode.DISABLED.value):
        raise ValueError(
            f"{vector!r} resets rows by itself (metadata['autoreset_mode'] is {mode}), which hides the last "
            "observation of an episode. Make it with autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED, or pass "
            "the id, the class or a factory of one row"
        )


def draw_cartpole(physics: np.ndarray) -> np.ndarray:
    """Gymnasium's picture of a CartPole in the state `physics` `[4]`, uint8 `[400, 600, 3]`."""
    canvas = _cartpole_canvas()
    canvas.state = physics
    return canvas.render()


@functools.cache
def _cartpole_canvas() -> Any:
    from gymnasium.envs.classic_control import CartPoleEnv

    canvas = CartPoleEnv(render_mode="rgb_array")
    canvas.reset()
    return canvas

"""Gymnasium's environments: made from whatever names them, adapted if old, lined up as rows of a vector.

The only module that imports gymnasium. It does not import JAX, because worker processes import it: the `Source` that
the loops see is `athlete.env.adapters.source.GymnasiumSource`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator, registry
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TimeLimit, TransformObservation

from athlete.env.adapters.conversion import to_space
from athlete.env.errors import EnvError
from athlete.env.registry import BUILT_IN, EnvContext, create, is_jax_env, misfit, registered_names, resolve
from athlete.spaces import ACTION_MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple

__all__ = [
    "FAILURE",
    "ActionMaskObservation",
    "OldGymAdapter",
    "find_spec",
    "make_gymnasium",
    "make_vector",
    "to_gymnasium_space",
    "to_space",
]

logger = logging.getLogger("athlete")

FAILURE = "athlete_failure"  # the entry of a vector's info that tells of a failed row: see Row
_told: set[str] = set()  # the old environments that were already spoken of


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
        return registry[name]
    near = difflib.get_close_matches(name, [*registered_names(), *BUILT_IN, *registry], n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(
        f"environment {env_id!r}: no Gymnasium id and no name given to register_env; {hint}"
        f"If a package registers it, name the package as well: 'package:{name}'"
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
        adapt: put environments of the old Gym API behind `OldGymAdapter`, which says so in a log line.

    Raises:
        ValueError: no such id, name or path; `env_config` does not fit; what was made is no Gymnasium environment.
    """
    env = resolve(env)
    if isinstance(env, str):
        env = find_spec(env)
    if isinstance(env, EnvSpec):
        return _make_from_spec(env, dict(env_config or {}), adapt)
    is_maker = isinstance(env, type) or (callable(env) and not hasattr(env, "step"))
    if is_maker and not is_jax_env(env):
        made = create(env, EnvContext(env_config, worker_index, vector_index, num_workers))
    else:
        made = env
    if is_jax_env(made):
        raise ValueError(f"{made!r} is a JAX environment (athlete.core.Env), not one of Gymnasium")
    if isinstance(made, VectorEnv):
        raise ValueError(
            f"{made!r} is a vector environment; give one that is a single row, or pass it as it is to GymnasiumSource"
        )
    if not (hasattr(made, "reset") and hasattr(made, "step")):
        raise ValueError(f"environment {env!r} gave {made!r}, which has no reset and step; expected a gymnasium.Env")
    if adapt and not (isinstance(made, gymnasium.Env) and _takes_seed(made.reset)):
        return OldGymAdapter(made)
    return made


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
    if isinstance(creator, type) and not (issubclass(creator, gymnasium.Env) and _takes_seed(creator.reset)):
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


def _takes_seed(reset: Callable[..., Any]) -> bool:
    parameters = inspect.signature(reset).parameters.values()
    return any(parameter.name == "seed" or parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)


def is_reset_result(result: Any) -> bool:
    """Whether `reset` answered in today's form, `(observation, info)`."""
    return isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)


class OldGymAdapter(gymnasium.Env):
    """An environment of the old Gym API (`reset` gives an observation, `step` four values) as one of Gymnasium.

    `done` becomes `truncated` where `info["TimeLimit.truncated"]` is true, else `terminated`. Results that have
    today's form already pass as they are, so any object with `reset`, `step` and the two spaces can be wrapped.

    Raises:
        ValueError: `observation_space` or `action_space` is missing or is no space.
    """

    def __init__(self, env: Any):
        self.env = env
        name = type(env).__name__
        self.observation_space = _todays_space(env, "observation_space")
        self.action_space = _todays_space(env, "action_space")
        self.metadata = dict(getattr(env, "metadata", None) or {})
        self._render_takes_mode = (
            "mode" in inspect.signature(env.render).parameters if hasattr(env, "render") else False
        )
        self.render_mode = getattr(env, "render_mode", "rgb_array" if self._render_takes_mode else None)
        self._reset_arguments = set(inspect.signature(env.reset).parameters)
        if name not in _told:
            _told.add(name)
            logger.warning(
                "%s follows the old Gym API; it runs through an adapter: done becomes truncated where "
                "info['TimeLimit.truncated'] is true, else terminated",
                name,
            )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        arguments = {"seed": seed, "options": options}
        accepted = {name: value for name, value in arguments.items() if name in self._reset_arguments}
        if seed is not None and "seed" not in accepted and hasattr(self.env, "seed"):
            self.env.seed(seed)
        result = self.env.reset(**accepted)
        return result if is_reset_result(result) else (result, {})

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        if len(result) != 4:
            return result
        obs, reward, done, info = result
        truncated = bool(done) and bool(info.get("TimeLimit.truncated", False))
        return obs, reward, bool(done) and not truncated, truncated, info

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
    """Puts `info["action_mask"]`, which tells legal actions, where agents see it: into the observation.

    Observations become `{"observations": what the environment shows, "action_mask": zeros and ones}`, RLlib's form. For
    MultiDiscrete actions a tuple of masks, as `MultiDiscrete.sample(mask=...)` takes it, is joined to one row.

    Raises:
        ValueError: the actions are neither Discrete nor MultiDiscrete; a `reset`, or a `step` that does not terminate
            the episode, gives no `info["action_mask"]`.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete):
            raise ValueError(
                f"ActionMaskObservation({env}): masks are for Discrete and MultiDiscrete actions, not {space}"
            )
        self._size = int(space.n if isinstance(space, gymnasium.spaces.Discrete) else space.nvec.sum())
        self.observation_space = gymnasium.spaces.Dict(
            {"observations": env.observation_space, ACTION_MASK: gymnasium.spaces.MultiBinary(self._size)}
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(obs, info, "reset"), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated and ACTION_MASK not in info:
            info = {**info, ACTION_MASK: np.zeros(self._size, np.int8)}
        return self._with_mask(obs, info, "step"), reward, terminated, truncated, info

    def _with_mask(self, obs: Any, info: dict[str, Any], call: str) -> dict[str, Any]:
        if ACTION_MASK not in info:
            raise ValueError(f"{call} of {self.env} gave no info[{ACTION_MASK!r}]; there is {list(info)}")
        mask = info[ACTION_MASK]
        joined = np.concatenate(list(map(np.ravel, mask))) if isinstance(mask, tuple) else np.ravel(mask)
        if joined.size != self._size:
            raise ValueError(
                f"{call} of {self.env} gave an info[{ACTION_MASK!r}] of {joined.size} entries; "
                f"{self.env.action_space} needs {self._size}"
            )
        return {"observations": obs, ACTION_MASK: (joined > 0).astype(np.int8)}


class Row(gymnasium.Env):
    """One row of a vector. An exception inside comes out as a text in `info`, with all that is needed to repeat it.

    Raising through a vector environment loses the row, and between processes the traceback too; exceptions that
    cannot be pickled hang there. What a failed step returns besides its `info[FAILURE]` means nothing.
    """

    def __init__(self, env: gymnasium.Env | None, index: int, spaces: tuple[gymnasium.Space, ...], failure: str = ""):
        self.env: Any = env
        self.observation_space, self.action_space = spaces
        self.metadata = env.metadata if env else {}
        self.render_mode = env.render_mode if env else None
        self._index = index
        self._failure = failure
        self._seed: int | None = None
        self._resets = 0  # since the seed
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self._failure:
            return self.observation_space.sample(), {FAILURE: self._failure}
        self._steps = 0
        self._resets = 0 if seed is not None else self._resets + 1
        self._seed = seed if seed is not None else self._seed
        try:
            result = self.env.reset(seed=seed, options=options)
            if not is_reset_result(result):
                self.env = OldGymAdapter(self.env)
                return result, {}
            return result
        except Exception as error:
            return self.observation_space.sample(), {FAILURE: self._describe(error, "reset")}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._steps += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
            return obs, reward, terminated, truncated, info
        except Exception as error:
            failure = self._describe(error, f"step({action!r})")
            return self.observation_space.sample(), 0.0, False, False, {FAILURE: failure}

    def _describe(self, error: Exception, call: str) -> str:
        own = error.__traceback__.tb_next if error.__traceback__ else None  # without the frame of this class
        text = "".join(traceback.format_exception(type(error), error, own or error.__traceback__))
        return text + describe_row(self._index, self._seed, self._resets, self._steps, call)

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        try:
            if self.env is not None:
                self.env.close()
        except Exception:
            logger.warning("row %d: its environment failed to close:\n%s", self._index, traceback.format_exc())

    def get_wrapper_attr(self, name: str) -> Any:
        return self.env.get_wrapper_attr(name)

    def set_wrapper_attr(self, name: str, value: Any, *, force: bool = True) -> bool:
        return self.env.set_wrapper_attr(name, value, force=force)

    @property
    def unwrapped(self) -> gymnasium.Env:
        return self.env.unwrapped


def describe_row(index: int, seed: int | None, resets: int, steps: int, call: str) -> str:
    """Where in its life a row was: the end of every message of `EnvError`."""
    seeded = "never seeded" if seed is None else f"seeded with {seed}"
    later = f", {resets} episode{'s' if resets > 1 else ''} later" if resets else ""
    return f"This was row {index}, {seeded}{later}, in step {steps} of its episode, in {call}"


@dataclass
class RowMaker:
    """Makes one row, here or in a worker process, where it is sent to by cloudpickle."""

    env: Any  # resolved: an EnvSpec, a class, a factory or an instance
    env_config: dict[str, Any]
    index: int
    num_workers: int
    num_envs_per_worker: int
    spaces: list[gymnasium.Space]  # shared by all makers, filled by the first row made in the parent
    parent: int  # process id

    def __call__(self) -> Row:
        in_worker = os.getpid() != self.parent
        if in_worker:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the environment is closed
            logger.setLevel(logging.ERROR)  # the parent made the same environment and said what there is to say
        worker, vector_index = divmod(self.index, self.num_envs_per_worker)
        try:
            env = make_gymnasium(
                self.env,
                self.env_config,
                worker_index=worker + 1 if self.num_workers else 0,
                vector_index=vector_index,
                num_workers=self.num_workers,
            )
        except Exception:
            if not in_worker:
                raise
            failure = traceback.format_exc() + f"This was row {self.index}, while its environment was being made"
            return Row(None, self.index, tuple(self.spaces), failure)
        if not self.spaces:
            self.spaces[:] = [env.observation_space, env.action_space]
        return Row(env, self.index, (env.observation_space, env.action_space))


class SingleVector:
    """One row as a vector environment, without what a vector costs: buffers, spaces and loops over rows.

    The everyday case of agents with a replay memory, where the environment's own step is as short as this overhead.
    """

    num_envs = 1

    def __init__(self, row: Row):
        self.row = row
        self.single_observation_space, self.single_action_space = row.observation_space, row.action_space
        self.closed = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        obs, info = self.row.reset(seed=seed)
        return _with_row_axis(obs), _failures(info)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.row.step(_without_row_axis(actions))
        return _with_row_axis(obs), np.array([reward]), np.array([terminated]), np.array([truncated]), _failures(info)

    def close(self) -> None:
        self.closed = True
        self.row.close()

    def __repr__(self) -> str:
        return f"SingleVector({self.row.env})"


def _with_row_axis(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _with_row_axis(part) for name, part in tree.items()}
    return tuple(map(_with_row_axis, tree)) if isinstance(tree, tuple) else np.asarray(tree)[None]


def _without_row_axis(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _without_row_axis(part) for name, part in tree.items()}
    return tuple(map(_without_row_axis, tree)) if isinstance(tree, tuple) else tree[0]


def _holds_one_of(space: gymnasium.Space) -> bool:
    """Whether elements of the space change their form, so that an axis of rows cannot be put before them."""
    if isinstance(space, gymnasium.spaces.OneOf):
        return True
    parts = getattr(space, "spaces", ())
    return any(map(_holds_one_of, parts.values() if isinstance(parts, Mapping) else parts))


def _failures(info: dict[str, Any]) -> dict[str, Any]:
    return {FAILURE: [info[FAILURE]]} if FAILURE in info else info


def make_vector(
    env: Any, env_config: Mapping[str, Any] | None, num_workers: int, num_envs_per_worker: int
) -> VectorEnv | SingleVector:
    """Gymnasium's vector environment with `max(num_workers, 1) * num_envs_per_worker` rows that never reset themselves.

    Without workers the rows run in this process one after another, else each in a process of its own, which sends
    its observations over shared memory. Both return buffers that the next call overwrites.

    Raises:
        ValueError: as `make_gymnasium`; an instance for more than one row; something that cannot be sent to processes.
        EnvError: a worker process died while it made its environment.
    """
    rows = max(num_workers, 1) * num_envs_per_worker
    env = resolve(env)
    if isinstance(env, str):
        env = find_spec(env)
    if hasattr(env, "step") and not isinstance(env, type) and (rows > 1 or num_workers):
        raise ValueError(
            f"{env!r} is one instance, but {rows} rows in {num_workers} worker processes were asked for; "
            "pass its class, its id or a factory"
        )
    spaces: list[gymnasium.Space] = []
    makers = [
        RowMaker(env, dict(env_config or {}), row, num_workers, num_envs_per_worker, spaces, os.getpid())
        for row in range(rows)
    ]
    if not num_workers and rows == 1:
        row = makers[0]()
        if not _holds_one_of(row.observation_space):
            return SingleVector(row)
        row.close()
    if not num_workers:
        return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)
    _require_picklable(makers[0])
    # A fork of this process could hang once JAX runs threads; a fork of a clean server cannot. It has Gymnasium
    # loaded, so that a worker starts in milliseconds. Only Linux forks safely after system libraries are loaded.
    method = "forkserver" if sys.platform == "linux" else "spawn"
    if method == "forkserver":
        multiprocessing.get_context(method).set_forkserver_preload([__name__])
    try:
        with _main_left_out():
            return AsyncVectorEnv(
                makers, shared_memory=True, copy=False, context=method, autoreset_mode=AutoresetMode.DISABLED
            )
    except (EOFError, ConnectionError) as error:
        raise EnvError(
            f"a worker process of {env!r} died while it made its environment; what it printed is above"
        ) from error


def require_no_autoreset(vector: VectorEnv) -> None:
    """Raise ValueError if a ready-made vector environment resets rows by itself."""
    mode = vector.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.DISABLED, AutoresetMode.DISABLED.value):
        raise ValueError(
            f"{vector!r} resets rows by itself (metadata['autoreset_mode'] is {mode}), which hides the last "
            "observation of an episode. Make it with autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED, or pass "
            "the id, the class or a factory of one row"
        )


def _require_picklable(maker: RowMaker) -> None:
    import cloudpickle  # a dependency of Gymnasium, for this

    try:
        cloudpickle.dumps(maker)
    except Exception as error:
        raise ValueError(
            f"{maker.env!r} with env_config={maker.env_config!r} cannot be sent to worker processes ({error}); "
            "make what cannot be pickled inside the environment, or train without workers (num_rollout_workers=0)"
        ) from error


@contextlib.contextmanager
def _main_left_out() -> Iterator[None]:
    """Let processes start without running the user's script again, which multiprocessing would do in each of them.

    Nothing of it is missed: cloudpickle sends what is defined there by value. So no `if __name__ == "__main__"` is
    needed, and workers do not import what the script imports (JAX, half a second and 100 MB each).
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    try:
        main.__spec__ = None
        vars(main).pop("__file__", None)
        yield
    finally:
        vars(main).update(hidden)


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

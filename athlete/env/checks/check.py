"""`check_env`: play an environment for a few episodes and say precisely what is wrong with it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from athlete.env.adapters.buffers import Buffers, MisfitError, as_flag, as_reward
from athlete.env.adapters.conversion import to_space
from athlete.env.masks import told_mask, warn_of_unread_masks
from athlete.env.membership import first_difference, sample_legal, violation
from athlete.env.randomness import global_generators_kept, seed_global_generators, seed_spaces
from athlete.env.registry import EnvContext, create, is_jax_env, resolve
from athlete.log import logger
from athlete.spaces import ACTION_MASK, Space, has_mask

EPISODES = 3
MAX_STEPS = 300  # in all episodes together: enough to see most ends, short enough for slow simulators
REPEATED = 20  # steps of the first episode that are played again from the same seed


def check_env(env: Any, env_config: Mapping[str, Any] | None = None, *, adapt: bool = False) -> None:
    """Return silently if the environment keeps its promises; else raise ValueError with what to mend.

    Resets it with a seed, plays up to three episodes (300 steps at most) with random actions from a seeded generator,
    and looks at everything that comes back. Then the first steps are played again from the same seed; where they
    differ, a warning says at what. What `check_env` has made itself it closes; an instance that it was given it leaves
    open and reset. The global random generators are left as they were.

    Args:
        env: a Gymnasium id, a registered name, a class, a factory or an instance; also JAX environments
            (`athlete.core.Env` and `MultiEnv`), and those with many agents of RLlib's form or PettingZoo's. Where there
            are many the errors name the agent and the step.
        env_config: what the environment is made with.
        adapt: judge an environment as training sees it: one of the old Gym API through its adapter, and numbers of
            other types (an observation in float64 or a list, 1 for True) as training converts them, with a line. Else
            both are refused.

    Raises:
        ValueError: names the method, what came and what was expected: a space missing or unusable, an observation
            outside its space (entry, value and bound), of wrong shape or dtype, NaN or infinite, a reward that is no
            finite number, a flag that is no bool, an info that is no dictionary, four values from `step`, `reset`
            without info or without `seed`, an exception inside (chained, so that its traceback is shown).
    """
    is_instance = hasattr(env, "step") and not isinstance(env, type)
    made = env if is_instance else _make(env, env_config)
    if is_jax_env(made):
        _check_compiled(made)
        return
    from athlete.env.adapters.agents import agents_form  # imports Gymnasium, which JAX environments do not need

    try:
        if agents_form(made) is not None:
            from athlete.env.checks.check_agents import check_agents

            check_agents(made)
            return
        checked = _adapted(made) if adapt else made
        with global_generators_kept():
            _check_gymnasium(checked, adapt)
            if is_instance:
                checked.reset()
    finally:
        if not is_instance and hasattr(made, "close"):
            made.close()


def _check_compiled(env: Any) -> None:
    """Of one agent or of many."""
    # These import JAX.
    from athlete.core import MultiEnv
    from athlete.env.checks.check_jax import check_jax_env
    from athlete.env.checks.check_multi_agent import check_multi_env
    from athlete.env.multi_agent import JointEnv

    agents = env.env if isinstance(env, JointEnv) else env
    if isinstance(agents, MultiEnv):
        check_multi_env(agents)
    else:
        check_jax_env(env)


def _make(env: Any, env_config: Mapping[str, Any] | None) -> Any:
    maker = resolve(env)
    try:
        if callable(maker):
            made = create(maker, EnvContext(env_config))
        else:
            from athlete.env.adapters.gymnasium import (
                make_gymnasium,  # imports Gymnasium, which JAX environments do not need
            )

            made = make_gymnasium(maker, env_config, adapt=False)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"making {env!r} raised {type(error).__name__}: {error}") from error
    if not is_jax_env(made) and not (hasattr(made, "reset") and hasattr(made, "step")):
        raise ValueError(f"making {env!r} gave {made!r}; expected an environment with reset and step")
    return made


def _adapted(env: Any) -> Any:
    """The environment as training sees it: what is of the old Gym API behind an adapter."""
    from athlete.env.adapters.gymnasium import make_todays

    return make_todays(env)


def _check_gymnasium(env: Any, adapt: bool) -> None:
    for method in ("reset", "step"):
        if not callable(getattr(env, method, None)):
            raise ValueError(f"{_name(env)} has no {method}; expected the methods reset and step of gymnasium.Env")
    if not adapt:
        _check_takes_seed(env)
    obs_space = _space(env, "observation_space")
    action_space = _space(env, "action_space")
    warn_of_unread_masks(_name(env), obs_space, action_space)
    generator = np.random.default_rng(0)
    steps, masked_steps = 0, 0
    played: list[_Step] = []  # the first of the first episode
    told_at_reset = False
    border = _Border(_name(env), obs_space) if adapt else None
    _seed(env)
    for episode in range(EPISODES):
        obs, info = _check_reset(env, obs_space, {"seed": 0} if episode == 0 else {}, border)
        if episode == 0:
            told_at_reset = ACTION_MASK in info
            played.append(_Step(None, {"observation": copy.deepcopy(obs)}))
        is_over, step = False, 0
        while not is_over and steps < MAX_STEPS:
            steps, step = steps + 1, step + 1
            action = sample_legal(action_space, told_mask(env, obs_space, action_space, obs, info), generator)
            taken = copy.deepcopy(action)
            result, info = _check_step(env, obs_space, action, f"in step {step} of episode {episode + 1}", border)
            masked_steps += ACTION_MASK in info
            obs, is_over = result["observation"], bool(result["terminated"] or result["truncated"])
            if episode == 0 and step <= REPEATED:
                played.append(_Step(taken, copy.deepcopy(result)))
    if masked_steps and not told_at_reset and not has_mask(obs_space):
        logger.warning(
            "%s tells legal actions in info[%r] of its steps and not of its resets, and nobody reads it: give it at "
            "both",
            _name(env),
            ACTION_MASK,
        )
    if difference := _difference_on_repeat(env, played):
        logger.warning(
            "%s: two episodes from reset(seed=0) with the same actions differ: %s. Draw from self.np_random, which "
            "super().reset(seed=seed) seeds, and keep nothing from the episode before; else no run can be repeated",
            _name(env),
            difference,
        )


class _Border:
    """Makes of an environment's answers what training makes of them, and says so once; leaves what does not fit."""

    def __init__(self, name: str, space: Space):
        self._name, self._space = name, space
        self._buffers = Buffers(space, 1)
        self._told = False

    def convert(self, obs: Any, *rest: Any) -> tuple[Any, ...]:
        """An observation, or it and a reward and two flags, in the types that they are promised to have."""
        sentence, fitting = violation(self._space, obs, "observation"), obs
        try:
            if sentence:
                self._buffers.write_obs(0, obs)
                fitting = self._buffers.obs_of(0)
            reward = [as_reward(value) for value in rest[:1]]
            flags = [as_flag(value, "the flag") for value in rest[1:]]
        except MisfitError:
            return obs, *rest
        if sentence and not violation(self._space, fitting, "observation") and not self._told:
            self._told = True
            logger.info("%s: %s; it is converted", self._name, sentence)
        return fitting, *reward, *flags


class _Step(NamedTuple):
    action: Any  # None for a reset
    result: dict[str, Any]


def _seed(env: Any) -> None:
    """Seed what training seeds besides `reset`."""
    seed_global_generators(0)
    seed_spaces(env, 0)


def _difference_on_repeat(env: Any, played: list[_Step]) -> str:
    """Where the steps come out otherwise when they are taken again from the same seed; empty if nowhere."""
    _seed(env)
    for number, step in enumerate(played):
        where = f"step {number}" if number else "the reset"
        try:
            result = env.reset(seed=0)[:1] if step.action is None else env.step(step.action)[:4]
        except Exception as error:
            return f"the second time {where} raised {type(error).__name__}: {error}"
        for (name, before), after in zip(step.result.items(), result, strict=True):
            if path := first_difference(before, after, name):
                return f"{path[0]} of {where} is {path[1]!r} the first time and {path[2]!r} the second"
    return ""


def _space(env: Any, attribute: str) -> Space:
    name = f"{_name(env)}.{attribute}"
    if getattr(env, attribute, None) is None:
        raise ValueError(f"{name} is missing; set it in __init__ to a space of gymnasium.spaces")
    return to_space(getattr(env, attribute), name, exact=True)


def _check_takes_seed(env: Any) -> None:
    own_reset = getattr(env, "unwrapped", env).reset
    parameters = inspect.signature(own_reset).parameters.values()
    if not any(parameter.name == "seed" or parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        raise ValueError(
            f"{_name(env)}.reset{inspect.signature(own_reset)} takes no seed; expected "
            f"reset(self, *, seed=None, options=None), which returns {_TODAYS_RESET}. {_OLD_API}"
        )


def _check_reset(env: Any, space: Space, arguments: dict[str, Any], border: _Border | None) -> tuple[Any, Any]:
    """The first observation and its info."""
    method = f"{_name(env)}.reset({', '.join(f'{name}={value}' for name, value in arguments.items())})"
    result = _call(method, env.reset, **arguments)
    if isinstance(result, tuple) and len(result) == 2 and not isinstance(result[1], Mapping):
        if violation(space, result, "observation"):
            raise ValueError(f"{method} returned an info of type {type(result[1]).__name__}; expected a dict")
        result = None
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"{method} returned only an observation, without info; expected {_TODAYS_RESET}. {_OLD_API}")
    obs, info = result
    if border is not None:
        (obs,) = border.convert(obs)
    _refuse(method, violation(space, obs, "observation"))
    return obs, info


def _check_step(env: Any, space: Space, action: Any, when: str, border: _Border | None) -> tuple[dict[str, Any], Any]:
    """One step: what came of it, by name, and its info."""
    method = f"{_name(env)}.step({action!r}), {when},"
    result = _call(method, env.step, action)
    if not isinstance(result, tuple) or len(result) != 5:
        count = f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
        old = f" {_OLD_API}" if isinstance(result, tuple) and len(result) == 4 else ""
        raise ValueError(
            f"{method} returned {count}; expected five: observation, reward, terminated, truncated, info.{old}"
        )
    obs, reward, terminated, truncated, info = result
    if border is not None:
        obs, reward, terminated, truncated = border.convert(obs, reward, terminated, truncated)
    _refuse(method, violation(space, obs, "observation"))
    _refuse(method, _reward_violation(reward))
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            raise ValueError(f"{method} returned {name}={flag!r} of type {type(flag).__name__}; expected a bool")
    if not isinstance(info, Mapping):
        raise ValueError(f"{method} returned an info of type {type(info).__name__}; expected a dict")
    return {"observation": obs, "reward": reward, "terminated": terminated, "truncated": truncated}, info


_TODAYS_RESET = "(observation, info)"
_OLD_API = (
    "This is the old Gym API: return today's form, or wrap the environment in "
    "athlete.env.adapters.gymnasium.OldGymAdapter (training does so by itself)"
)


def _reward_violation(reward: Any) -> str:
    is_number = isinstance(reward, int | float | np.number | np.bool_)
    is_scalar_array = isinstance(reward, np.ndarray) and reward.shape == () and reward.dtype.kind in "iufb"
    if not is_number and not is_scalar_array:
        shape = f" of shape {reward.shape}" if hasattr(reward, "shape") else ""
        return f"the reward is {reward!r} of type {type(reward).__name__}{shape}; expected a number"
    return "" if np.isfinite(reward) else f"the reward is {reward}; expected a finite number"


def _refuse(method: str, sentence: str) -> None:
    if sentence:
        raise ValueError(f"{method} is wrong: {sentence}")


def _call(method: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except Exception as error:
        raise ValueError(f"{method} raised {type(error).__name__}: {error}") from error


def _name(env: Any) -> str:
    return type(getattr(env, "unwrapped", env)).__name__

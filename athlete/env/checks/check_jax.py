"""What `check_env` does with a JAX environment: trace it, then play it compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Env, Step, Tree
from athlete.env.masks import warn_of_unread_masks
from athlete.env.membership import sample, violation
from athlete.ops.random import wrap
from athlete.spaces import Dict, Space, Tuple, zeros

STEPS = 100


def check_jax_env(env: Env) -> None:
    """Return silently if the environment keeps the contract of `athlete.core.Env`; else raise ValueError.

    Shapes, dtypes and the state's structure are found by tracing, without running anything. Then 100 steps with random
    actions are compiled and played, with a reset after each end, and their observations and rewards looked at.
    """
    name = type(env).__name__
    obs_space, action_space = _space(env, "observation_space"), _space(env, "action_space")
    warn_of_unread_masks(name, obs_space, action_space)
    if any(leaf is env for leaf in jax.tree_util.tree_leaves(env)):
        raise ValueError(f"{name} is not known to JAX; decorate the class with @athlete.core.hyper")
    key = wrap(np.zeros(2, np.uint32))  # of the kind that environments get from the loops
    generator = np.random.default_rng(0)
    actions = [as_agents_give(action_space, sample(action_space, generator)) for _ in range(STEPS)]

    started = trace(f"{name}.reset(key)", env.reset, key)
    if not isinstance(started, tuple) or len(started) != 2:
        raise ValueError(f"{name}.reset(key) returned {told(started)}; expected (state, observation)")
    state, obs = started
    refuse(f"{name}.reset(key)", structure_violation(zeros(obs_space), obs, "observation"))

    method = f"{name}.step(state, action, key)"
    stepped = trace(method, env.step, state, actions[0], key)
    if not isinstance(stepped, tuple) or len(stepped) != 2 or not isinstance(stepped[1], Step):
        raise ValueError(f"{method} returned {told(stepped)}; expected (state, athlete.core.Step)")
    next_state, step = stepped
    refuse(method, structure_violation(state, next_state, "state"))
    refuse(method, structure_violation(zeros(obs_space), step.obs, "observation"))
    scalars = {"reward": np.float32(0), "terminated": np.bool_(False), "truncated": np.bool_(False)}
    for field, scalar in scalars.items():
        refuse(method, structure_violation(scalar, getattr(step, field), field))
    _check_values(env, obs_space, actions, key)


def _check_values(env: Env, obs_space: Space, actions: list[Tree], key: Any) -> None:
    name = type(env).__name__

    def one_step(state: Tree, inputs: tuple) -> tuple[Tree, tuple]:
        action, step_key = inputs
        reset_key, step_key = jax.random.split(step_key)
        next_state, step = env.step(state, action, step_key)
        fresh, first_obs = env.reset(reset_key)
        done = step.terminated | step.truncated
        next_state = jax.tree_util.tree_map(lambda new, old: jnp.where(done, new, old), fresh, next_state)
        return next_state, (first_obs, step.obs, step.reward)

    stacked = jax.tree_util.tree_map(lambda *leaves: np.stack(leaves), *actions)
    keys = jax.random.split(key, STEPS)
    played = jax.jit(lambda state: jax.lax.scan(one_step, state, (stacked, keys)))(env.reset(key)[0])
    first_obs, obs, rewards = jax.device_get(played[1])
    for t in range(STEPS):
        refuse(f"{name}.reset(key)", violation(obs_space, at(first_obs, t), "observation"))
        refuse(f"{name}.step(state, action, key) at step {t + 1}", violation(obs_space, at(obs, t), "observation"))
        if not np.isfinite(rewards[t]):
            raise ValueError(f"{name}.step at step {t + 1} gave the reward {rewards[t]}; expected a finite number")


def _space(env: Env, attribute: str) -> Space:
    name = f"{type(env).__name__}.{attribute}"
    try:
        space = getattr(env, attribute)
    except NotImplementedError:
        raise ValueError(f"{name} is missing; write a property that returns a space of athlete.spaces") from None
    if not isinstance(space, Space):
        raise ValueError(f"{name} is {space!r} ({type(space).__name__}); expected a space of athlete.spaces")
    return space


def trace(method: str, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:
        raise ValueError(f"{method} raised {type(error).__name__} under jax.jit: {error}") from error


def structure_violation(expected: Tree, came: Tree, name: str) -> str:
    """Where two trees differ in structure, shapes or dtypes, as a sentence; empty if nowhere."""
    paths, structure = jax.tree_util.tree_flatten_with_path(expected)
    leaves, came_structure = jax.tree_util.tree_flatten(came)
    # Structures of some packages print the addresses of what they hold, and others are equal only in print.
    if came_structure not in (structure,) and str(structure) != str(came_structure):
        return f"{name} has the structure {came_structure}; expected {structure}"
    for (path, leaf), other in zip(paths, leaves, strict=True):
        shape, dtype = np.shape(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype)
        if np.shape(other) != shape or other.dtype != dtype:
            entry = name + jax.tree_util.keystr(path)
            return f"{entry} is {other.dtype} of shape {np.shape(other)}; expected {dtype} of shape {shape}"
    return ""


def as_agents_give(space: Space, action: Tree) -> Tree:
    if isinstance(space, Tuple):
        return tuple(as_agents_give(part, entry) for part, entry in zip(space.spaces, action, strict=True))
    if isinstance(space, Dict):
        return {name: as_agents_give(part, action[name]) for name, part in space.items}
    return np.asarray(action, space.dtype)


def at(tree: Tree, t: int) -> Tree:
    return jax.tree_util.tree_map(lambda leaf: leaf[t], tree)


def refuse(method: str, sentence: str) -> None:
    if sentence:
        raise ValueError(f"{method} is wrong: {sentence}")


def told(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"

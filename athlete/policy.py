"""A policy as users act with it: one observation in, what `env.step` takes out."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from athlete.core import ActingCarry, Agent, Tree
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.loops.host import act
from athlete.ops.finite import NonFiniteError, first_nonfinite
from athlete.ops.masks import without_action
from athlete.ops.random import wrap
from athlete.spaces import (
    ACTION_MASK,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Space,
    Tuple,
    has_mask,
    to_environment,
    zeros,
)


@functools.partial(jax.jit, static_argnames=("rows",), compiler_options=COMPILER_OPTIONS)
def _start(agent: Agent, view: Tree, key: Any, rows: int) -> Tree:
    return agent.start(view, rows, wrap(key))


class Policy:
    """A snapshot of the acting side: network, normalisers and the spaces they fit."""

    def __init__(self, agent: Agent, view: Tree, seed: int):
        self.agent, self.view = agent, view
        self._generator = np.random.default_rng(seed)

    @functools.cached_property
    def _initial_state(self) -> Tree:
        return _start(self.agent, self.view, np.zeros(2, np.uint32), 1)

    def get_initial_state(self) -> Tree:
        """The recurrent state at the start of an episode; without arrays for a network without memory."""
        return self._initial_state

    def is_recurrent(self) -> bool:
        """Whether the network has memory."""
        state = self._initial_state
        return bool(jax.tree.leaves(state.model if isinstance(state, ActingCarry) else state))

    def is_start(self, state: Tree) -> bool:
        """Whether `state` is that of an episode's start, or none, which means the same."""
        if _is_none(state):
            return True
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(self._initial_state), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)

    def require_finite(self) -> None:
        """Raise NonFiniteError where its numbers are none."""
        if self._fault is not None:
            raise NonFiniteError(
                f"the policy's {self._fault!r} holds NaN or infinity: its training fell apart; restore an earlier "
                "checkpoint"
            )

    @functools.cached_property
    def _fault(self) -> str | None:
        return first_nonfinite(self.view)

    def act_one(
        self, observation: Any, state: Tree = None, *, explore: bool = False, first: bool | None = None
    ) -> tuple:
        """`(action, new state)` for one observation; `state` None, or `first`, begins an episode."""
        self.require_finite()
        spec = self.agent.spec
        assert spec is not None
        obs = _row(spec.obs, observation, "observation")
        if has_mask(spec.obs) and without_action(spec, obs).any():
            raise ValueError(f"observation[{ACTION_MASK!r}]: {observation[ACTION_MASK]} leaves no legal action")
        begins = _is_none(state) if first is None else first
        state = self._initial_state if _is_none(state) else state
        key = self._generator.integers(0, 2**32, 2, np.uint32)
        action, state, _ = act(self.agent, self.view, state, obs, np.array([begins]), key, explore=explore)
        action = jax.tree.map(lambda leaf: leaf[0], jax.device_get(action))
        return _as_gymnasium(spec.action, to_environment(spec.action, action)), state


def _is_none(state: Tree) -> bool:
    return state is None or (isinstance(state, list | tuple) and not state)  # RLlib's users give [] for none


def _row(space: Space, observation: Any, where: str) -> Any:
    """An observation as one row `[1, ...]`. Raises ValueError, naming the entry, where it does not fit the space."""
    if isinstance(space, Tuple):
        if not isinstance(observation, tuple | list) or len(observation) != len(space.spaces):
            raise ValueError(f"{where}: expected a tuple of {len(space.spaces)} entries, got {observation!r}")
        return tuple(_row(part, observation[i], f"{where}[{i}]") for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        if not hasattr(observation, "keys") or not {name for name, _ in space.items} <= set(observation.keys()):
            raise ValueError(f"{where}: expected the entries {[name for name, _ in space.items]}, got {observation!r}")
        return {name: _row(part, observation[name], f"{where}[{name!r}]") for name, part in space.items}
    if isinstance(space, OneOf):
        numbers = range(len(space.spaces))
        if not isinstance(observation, tuple | list) or len(observation) != 2 or observation[0] not in numbers:
            raise ValueError(f"{where}: expected (number of the chosen space, its element), got {observation!r}")
        choice, chosen = observation
        rows = [zeros(part, (1,)) for part in space.spaces]
        rows[choice] = _row(space.spaces[choice], chosen, f"{where}[1]")
        return np.array([choice], np.int32), *rows
    try:
        array = np.asarray(observation, space.dtype)
        kept = array.dtype.kind == "f" or np.array_equal(array, observation)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {observation!r} is no element of {space}") from error
    if not kept:  # cut to a whole number, or wrapped around
        raise ValueError(f"{where}: {observation!r} is no element of {space}")
    if array.shape != space.shape:
        raise ValueError(
            f"{where}: expected shape {space.shape} of {space}, got {array.shape}; "
            "compute_actions takes many observations, this one"
        )
    if isinstance(space, Discrete | MultiDiscrete):
        start = np.asarray(space.start) if isinstance(space, Discrete) else space.lowest
        count = np.asarray(space.n if isinstance(space, Discrete) else space.nvec)
        if not ((array >= start) & (array < start + count)).all():
            raise ValueError(f"{where}: {array} is outside {space}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{where}: {array} is not finite")
    return array[None]


def _as_gymnasium(space: Space, action: Any) -> Any:
    """An action in the types that Gymnasium's spaces contain: integers for Discrete, arrays of the space's dtype."""
    if isinstance(space, Tuple):
        return tuple(_as_gymnasium(part, action[i]) for i, part in enumerate(space.spaces))
    if isinstance(space, Dict):
        return {name: _as_gymnasium(part, action[name]) for name, part in space.items}
    if isinstance(space, Discrete):
        return int(action)
    if isinstance(space, MultiDiscrete):
        return np.asarray(action, np.int64)
    if isinstance(space, MultiBinary):
        return np.asarray(action, np.int8)
    assert isinstance(space, Box)
    # Rounding in float32 may leave the bounds by one unit in the last place.
    return np.asarray(np.clip(np.asarray(action, space.dtype), space.low, space.high))

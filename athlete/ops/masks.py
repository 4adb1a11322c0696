"""Which actions are legal: the entry `action_mask` of a Dict observation, as RLlib and PettingZoo have it.

Whatever chooses or values actions reads the mask from the observation itself, so that it stays with it on every way:
through memory, workers and evaluation. Forbidden actions get a value so low that none is ever chosen and their
probability is 0 (Huang & Ontanon 2020, arXiv:2006.14171, equation 9).
"""

from __future__ import annotations

from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Spec, Tree
from athlete.spaces import (
    ACTION_MASK,
    SIMULATOR_STATE,
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Space,
    by_entry,
    has_mask,
    value_counts,
)

HIDDEN = (ACTION_MASK, SIMULATOR_STATE)  # entries of observations that are for who chooses, and not for networks
FORBIDDEN = -1e30  # finite: probabilities of 0 times it are 0, not NaN


def observed_space(space: Space) -> Space:
    """What there is to see: of a Dict all but `HIDDEN` entries, without the Dict where one is left."""
    if not _hides(space):
        return space
    rest = {name: part for name, part in space.items if name not in HIDDEN}
    return next(iter(rest.values())) if len(rest) == 1 else Dict(rest)


def observed(space: Space, obs: Tree) -> Tree:
    """An observation of `space` as one of `observed_space(space)`."""
    if not _hides(space):
        return obs
    rest = {name: part for name, part in obs.items() if name not in HIDDEN}
    return next(iter(rest.values())) if len(rest) == 1 else rest


def _hides(space: Space) -> TypeGuard[Dict]:
    return isinstance(space, Dict) and any(name in HIDDEN for name, _ in space.items)


def check_mask(spec: Spec) -> None:
    """Raise ValueError unless the observations have no mask, or one that fits the actions."""
    if not has_mask(spec.obs):
        return
    name, mask = f"observation_space[{ACTION_MASK!r}]", dict(spec.obs.items)[ACTION_MASK]
    if not isinstance(spec.action, Discrete | MultiDiscrete):
        raise ValueError(
            f"{name} is {mask}, but masks are for Discrete and MultiDiscrete actions, and these are {spec.action}; "
            "give the entry another name if it is no mask, or wrap the environment"
        )
    expected = (sum(value_counts(spec.action)),)
    if not isinstance(mask, Box | MultiBinary) or mask.shape != expected:
        raise ValueError(
            f"{name} is {mask}, and the actions are {spec.action}: the mask must be a Box or MultiBinary of shape "
            f"{expected}, with a 1 for each legal value of each action"
        )


def action_mask(spec: Spec, obs: Tree) -> Array | None:
    """Which actions are legal at observations `[..., ]`: bool `[..., n]`, or None where no mask comes with them.

    For MultiDiscrete the values of all its entries in a row, `n = sum(nvec)`. Where no action is legal, as in many an
    observation that ends an episode, all count as legal.
    """
    if not has_mask(spec.obs):
        return None
    legal = by_entry(spec.action, jnp.asarray(obs[ACTION_MASK]) > 0)
    return jnp.concatenate([part | ~jnp.any(part, axis=-1, keepdims=True) for part in legal], axis=-1)


def masked(values: Array, mask: Array | None) -> Array:
    """Values or logits `[..., n]`, `FORBIDDEN` where `mask` is false; untouched where there is no mask."""
    return values if mask is None else jnp.where(mask, values, FORBIDDEN)


def random_legal(spec: Spec, mask: Array, key: Key) -> Array:
    """Canonical actions that `mask` `[..., n]` allows, each as likely as any other."""
    legal = by_entry(spec.action, mask)
    keys = jax.random.split(key, len(legal))
    drawn = [jax.random.categorical(keys[i], masked(jnp.zeros(part.shape), part)) for i, part in enumerate(legal)]
    return jnp.stack(drawn, axis=-1).astype(jnp.int32).reshape((*mask.shape[:-1], *spec.action.shape))


def without_action(spec: Spec, obs: Tree) -> np.ndarray:
    """In which rows of observations `[B, ...]` an entry of the action has no legal value: bool `[B]`, in NumPy."""
    legal = by_entry(spec.action, np.asarray(obs[ACTION_MASK]) > 0)
    return np.any([~part.any(axis=-1) for part in legal], axis=0)

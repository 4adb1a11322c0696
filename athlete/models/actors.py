"""Networks that act: a deterministic policy over a Box of continuous actions, and a random one that clones well."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Model, Spec, Tree
from athlete.distributions import Categorical, DiagonalGaussian, continuous_size, output_size
from athlete.models.forward import forward
from athlete.ops.masks import masked
from athlete.spaces import Box, Discrete, Space

LOG_STD_RANGE = (-5.0, 2.0)  # of policies that clone


def init_actor(model: Model, key: Key, obs_space: Space, action_space: Box) -> Tree:
    """Parameters of an actor whose first actions are near 0, where tanh is not saturated."""
    return model.init(key, obs_space, {"action": (int(np.prod(action_space.shape)), 0.01)})


def actor_action(model: Model, actor: Tree, obs: Array) -> Array:
    """Flat canonical actions `[B, m]`, squashed into [-1, 1], for features `obs` `[B, n]`."""
    return jnp.tanh(forward(model, actor, obs)["action"])


def init_cloning_actor(model: Model, key: Key, spec: Spec) -> Tree:
    """Parameters of a random policy over Discrete or continuous actions: `{"network": ..., "log_std": [m]}`."""
    free = continuous_size(spec.action)
    actor = {"network": model.init(key, spec.obs, {"policy": (output_size(spec.action) - free, 0.01)})}
    return actor | {"log_std": jnp.zeros(free)} if free else actor


def cloning_policy(model: Model, actor: Tree, spec: Spec, obs: Array, mask: Array | None) -> Any:
    """Its distribution over flat canonical actions at features `[B, n]`, of those that `mask` allows.

    Of continuous ones a normal one around a mean in [-1, 1], one standard deviation for each entry: actions at their
    bounds, of which data are full, have no density under a squashed one.
    """
    outputs = forward(model, actor["network"], obs)["policy"]
    if isinstance(spec.action, Discrete):
        return Categorical(masked(outputs, mask))
    mean = jnp.tanh(outputs)
    return DiagonalGaussian(mean, jnp.broadcast_to(jnp.clip(actor["log_std"], *LOG_STD_RANGE), mean.shape))


def within_bounds(spec: Spec, action: Array) -> Array:
    """Flat canonical actions, continuous ones cut to [-1, 1]."""
    return action if isinstance(spec.action, Discrete) else jnp.clip(action, -1.0, 1.0)

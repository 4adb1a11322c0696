"""An environment whose observations show its state, so that a search can go on from there: RLlib's `get_state`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Simulator, Step, Tree, hyper
from athlete.env.masks import OBSERVATIONS
from athlete.ops.random import wrap
from athlete.spaces import SIMULATOR_STATE, Box, Dict, Space

NUMBERS = np.iinfo(np.int32)


@hyper
class ExposedState(Simulator):
    """`env` with its state as the entry `simulator_state` of observations, which networks do not see.

    Observations that are no Dict become its entry `observations`. The state is int32, bit by bit.
    """

    env: Env

    @property
    def observation_space(self) -> Space:
        size = sum(leaf.size for leaf in jax.tree.leaves(self._form))
        shown = self.env.observation_space
        parts = dict(shown.items) if isinstance(shown, Dict) else {OBSERVATIONS: shown}
        return Dict({**parts, SIMULATOR_STATE: Box(NUMBERS.min, NUMBERS.max, (size,), np.int32)})

    @property
    def action_space(self) -> Space:
        return self.env.action_space

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        state, obs = self.env.reset(key)
        return state, self._shown(state, obs)

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, Step]:
        state, step = self.env.step(state, action, key)
        return state, step._replace(obs=self._shown(state, step.obs))

    def state_of(self, obs: Tree) -> Tree:
        leaves, form = jax.tree.flatten(self._form)
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        parts = jnp.split(obs[SIMULATOR_STATE], ends)
        return jax.tree.unflatten(form, [_from_bits(part, leaf) for part, leaf in zip(parts, leaves, strict=True)])

    def render(self, state: Tree) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state)  # type: ignore[attr-defined]

    @property
    def _form(self) -> Tree:
        """Shapes and dtypes of the state."""
        return jax.eval_shape(lambda: self.env.reset(wrap(np.zeros(2, np.uint32)))[0])

    def _shown(self, state: Tree, obs: Tree) -> Tree:
        bits = jnp.concatenate([_to_bits(leaf) for leaf in jax.tree.leaves(state)])
        parts = obs if isinstance(self.env.observation_space, Dict) else {OBSERVATIONS: obs}
        return {**parts, SIMULATOR_STATE: bits}


def _to_bits(leaf: Array) -> Array:
    """Numbers of up to 32 bits as int32 `[size]`."""
    flat = jnp.ravel(leaf)
    return jax.lax.bitcast_convert_type(flat, jnp.int32) if flat.dtype.itemsize == 4 else flat.astype(jnp.int32)


def _from_bits(bits: Array, like: Array) -> Array:
    """The inverse of `_to_bits`, with the shape and dtype of `like`."""
    four = np.dtype(like.dtype).itemsize == 4
    leaf = jax.lax.bitcast_convert_type(bits, like.dtype) if four else bits.astype(like.dtype)
    return leaf.reshape(like.shape)

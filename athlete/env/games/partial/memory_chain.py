"""Remember a bit over a chain of steps: bsuite's memory experiments (Osband et al. 2020, arXiv:1908.03568)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, hyper
from athlete.spaces import Box, Discrete


class MemoryChainState(NamedTuple):
    context: Array  # int32 [num_bits]: what is to be remembered, 0 or 1 each
    query: Array  # int32: which bit is asked for
    steps: Array  # int32: taken in this episode


@hyper
class MemoryChain(Env):
    """The first observation shows bits as -1 or +1; the action of the last step must be the bit that is asked for.

    An observation `[num_bits + 2]` is the time that is left (1 at the start, falling by `1 / memory_length`), the
    number of the bit asked for (shown in the last step before the answer, else 0), and the bits (zeros once the time
    is below 1). As in bsuite, what reset shows is shown once more after the first step, and an episode has
    `memory_length + 1` steps. The last one's reward is +1 or -1, all others 0: the best return is 1, guessing gives 0.

    Raises:
        ValueError: `memory_length` or `num_bits` is below 1.
    """

    memory_length: int = 10  # steps
    num_bits: int = 1

    def __post_init__(self) -> None:
        if self.memory_length < 1:
            raise ValueError(f"MemoryChain(memory_length={self.memory_length}): expected at least 1 step")
        if self.num_bits < 1:
            raise ValueError(f"MemoryChain(num_bits={self.num_bits}): expected at least 1 bit")

    @property
    def observation_space(self) -> Box:
        bits = np.ones(self.num_bits, np.float32)
        return Box(np.array([0, 0, *-bits], np.float32), np.array([1, max(1, self.num_bits - 1), *bits], np.float32))

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: Key) -> tuple[MemoryChainState, Array]:
        context_key, query_key = jax.random.split(key)
        context = jax.random.bernoulli(context_key, shape=(self.num_bits,)).astype(jnp.int32)
        query = jax.random.randint(query_key, (), 0, self.num_bits)
        state = MemoryChainState(context, query, jnp.int32(0))
        return state, self._show(state, jnp.int32(0))

    def step(self, state: MemoryChainState, action: Array, key: Key) -> tuple[MemoryChainState, Step]:
        ended = state.steps >= self.memory_length
        right = jnp.where(action == state.context[state.query], 1.0, -1.0)
        obs = self._show(state, state.steps)
        state = state._replace(steps=state.steps + 1)
        return state, Step(obs, jnp.where(ended, right, 0.0), ended, jnp.asarray(False), {})

    def _show(self, state: MemoryChainState, time: Array) -> Array:
        left = (self.memory_length - time) / self.memory_length  # never below 0 by rounding
        query = jnp.where(time == self.memory_length - 1, state.query, 0).astype(jnp.float32)
        bits = jnp.where(time == 0, 2.0 * state.context - 1.0, 0.0)
        return jnp.concatenate([jnp.stack([left, query]), bits]).astype(jnp.float32)

"""Flipping bits (Andrychowicz et al. 2017, arXiv:1707.01495, section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.spaces import Dict, Discrete, MultiBinary, Space


class BitFlipState(NamedTuple):
    bits: Array  # int8 [bits]
    goal: Array  # int8 [bits]


@hyper
class BitFlip(Env):
    """Flip one of n bits a step until they are those of the goal. Both are drawn uniformly for every episode.

    Each step costs 1, but the one that reaches the goal, which ends the episode. Without hindsight there is nothing to
    learn from: random flips come across one of 2^n goals in n steps about n times in 2^n.

    Raises:
        ValueError: `bits` is below 1.
    """

    bits: int = 14

    def __post_init__(self) -> None:
        if self.bits < 1:
            raise ValueError(f"BitFlip(bits={self.bits}): expected at least 1")

    @property
    def observation_space(self) -> Space:
        bits = MultiBinary((self.bits,))
        return Dict({"observation": bits, "achieved_goal": bits, "desired_goal": bits})

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.bits)

    def reset(self, key: Key) -> tuple[BitFlipState, Tree]:
        bits, goal = jax.random.bernoulli(key, 0.5, (2, self.bits)).astype(jnp.int8)
        state = BitFlipState(bits, goal)
        return state, _observe(state)

    def step(self, state: BitFlipState, action: Array, key: Key) -> tuple[BitFlipState, Step]:
        flipped = jnp.where(jnp.arange(self.bits) == action, 1 - state.bits, state.bits)
        state = state._replace(bits=flipped)
        reached = self.compute_terminated(flipped, state.goal, {})
        info = {"is_success": reached.astype(jnp.float32)}
        reward = self.compute_reward(flipped, state.goal, {})
        return state, Step(_observe(state), reward, reached, jnp.asarray(False), info)

    def compute_reward(self, achieved_goal: Array, desired_goal: Array, info: Tree) -> Array:
        """0 where all bits agree, else -1."""
        return jnp.where(self.compute_terminated(achieved_goal, desired_goal, info), 0.0, -1.0)

    def compute_terminated(self, achieved_goal: Array, desired_goal: Array, info: Tree) -> Array:
        """Whether all bits agree."""
        return jnp.all(achieved_goal == desired_goal)


def _observe(state: BitFlipState) -> Tree:
    return {"observation": state.bits, "achieved_goal": state.bits, "desired_goal": state.goal}

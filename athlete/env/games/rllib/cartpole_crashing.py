"""CartPole that breaks down, as RLlib's `CartPoleCrashing`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, hyper
from athlete.env.games.classic.cartpole import CartPole, CartPoleState
from athlete.spaces import Discrete, Space


class CartPoleCrashingState(NamedTuple):
    cartpole: CartPoleState
    steps: Array  # int32: taken in this episode


@hyper
class CartPoleCrashing(Env):
    """CartPole without a time limit whose episodes break off: with probability `p_crash` in a step, and after
    `crash_after_n_steps` steps where that is not 0.

    RLlib's raises an exception there. A compiled environment cannot, so a crash is here what
    `restart_failed_sub_environments` makes of one: the episode is cut (truncated, so that values are bootstrapped) and
    a new one begins. For the same reason the reset does not crash.
    """

    p_crash: float = 0.005
    crash_after_n_steps: int = 0  # 0: never for that reason
    cartpole: Env = CartPole()

    @property
    def observation_space(self) -> Space:
        return self.cartpole.observation_space

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: Key) -> tuple[CartPoleCrashingState, Array]:
        cartpole, obs = self.cartpole.reset(key)
        return CartPoleCrashingState(cartpole, jnp.int32(0)), obs

    def step(self, state: CartPoleCrashingState, action: Array, key: Key) -> tuple[CartPoleCrashingState, Step]:
        cartpole, step = self.cartpole.step(state.cartpole, action, key)
        steps = state.steps + 1
        crashed = jax.random.bernoulli(key, self.p_crash)
        if self.crash_after_n_steps:
            crashed |= steps >= self.crash_after_n_steps
        return CartPoleCrashingState(cartpole, steps), step._replace(truncated=crashed)

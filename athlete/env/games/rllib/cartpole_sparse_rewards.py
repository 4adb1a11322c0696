"""CartPole that pays at the end, as RLlib's `CartPoleSparseRewards`."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.env.games.classic.cartpole import CartPole, CartPoleState
from athlete.spaces import ACTION_MASK, Dict, Discrete, MultiBinary, Space


class CartPoleSparseRewardsState(NamedTuple):
    cartpole: CartPoleState
    steps: Array  # int32: taken in this episode


@hyper
class CartPoleSparseRewards(Env):
    """CartPole-v1 whose whole return is the reward of the last step, 0 before; an episode is cut after 500 steps.

    Observations are `{"obs": CartPole's [4], "action_mask": [2]}`, and the mask is always open: what RLlib's tree
    search asks for. The time limit is part of the environment, since the return is due where it cuts.
    """

    cartpole: Env = CartPole()
    max_episode_steps: int = 500

    @property
    def observation_space(self) -> Space:
        return Dict({"obs": self.cartpole.observation_space, ACTION_MASK: MultiBinary((2,))})

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def reset(self, key: Key) -> tuple[CartPoleSparseRewardsState, Tree]:
        cartpole, obs = self.cartpole.reset(key)
        return CartPoleSparseRewardsState(cartpole, jnp.int32(0)), _masked(obs)

    def step(
        self, state: CartPoleSparseRewardsState, action: Array, key: Key
    ) -> tuple[CartPoleSparseRewardsState, Step]:
        cartpole, step = self.cartpole.step(state.cartpole, action, key)
        steps = state.steps + 1
        truncated = steps >= self.max_episode_steps
        reward = jnp.where(step.terminated | truncated, steps.astype(jnp.float32), 0.0)
        step = step._replace(obs=_masked(step.obs), reward=reward, truncated=truncated)
        return CartPoleSparseRewardsState(cartpole, steps), step


def _masked(obs: Array) -> Tree:
    return {"obs": obs, ACTION_MASK: jnp.ones(2, jnp.int8)}

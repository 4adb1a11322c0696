"""Two contexts and three arms, as RLlib's `SimpleContextualBandit`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, hyper
from athlete.env.games.bandits.linear import BanditState, paid
from athlete.spaces import Box, Discrete


@hyper
class ContextualBandit(Env):
    """The context c is 1 or -1, seen as [c, -c]. Arm 0 pays 10 c, arm 1 nothing, arm 2 -10 c: the best is always 10.

    An episode has one step, and nothing is noisy.
    """

    info_metrics = ("regret",)

    @property
    def observation_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)

    def reset(self, key: Key) -> tuple[BanditState, Array]:
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        context = jnp.stack([sign, -sign])
        return BanditState(context), context

    def step(self, state: BanditState, action: Array, key: Key) -> tuple[BanditState, Step]:
        context_key, noise_key = jax.random.split(key)
        expected = 10.0 * state.context[0] * jnp.array([1.0, 0.0, -1.0])
        step = paid(expected, action, 0.0, noise_key)
        state, context = self.reset(context_key)
        return state, step._replace(obs=context)

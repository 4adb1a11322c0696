"""The wheel bandit (Riquelme et al. 2018, arXiv:1802.09127, section 5.4), as RLlib's `WheelBanditEnv`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, hyper
from athlete.env.games.bandits.linear import BanditState, paid
from athlete.spaces import Box, Discrete


@hyper
class WheelBandit(Env):
    """The context is a point of the unit disc, drawn uniformly. Arm 0 pays `mu_1`, the others `mu_2`.

    But where the point is `delta` or more away from the centre, the arm of its quadrant, 1 to 4 against the clock, pays
    `mu_3`. All with normal noise of `std`; `info["regret"]` is without it. An episode has one step. The rarer the rim
    (the larger `delta`), the more it takes to find out.
    """

    delta: float = 0.5
    mu_1: float = 1.2
    mu_2: float = 1.0
    mu_3: float = 50.0
    std: float = 0.01

    info_metrics = ("regret",)

    @property
    def observation_space(self) -> Box:
        return Box(-1.0, 1.0, (2,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(5)

    def reset(self, key: Key) -> tuple[BanditState, Array]:
        square, angle = jax.random.uniform(key, (2,), maxval=jnp.array([1.0, 2.0 * math.pi]))
        context = jnp.sqrt(square) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return BanditState(context), context

    def expected(self, context: Array) -> Array:
        """What each arm pays on average at a point, `[5]`."""
        x, y = context
        quadrant = jnp.where(x > 0.0, jnp.where(y > 0.0, 1, 4), jnp.where(y > 0.0, 2, 3))
        arms = jnp.arange(5)
        pays = jnp.where(arms == 0, self.mu_1, self.mu_2)
        return jnp.where((arms == quadrant) & (jnp.linalg.norm(context) >= self.delta), self.mu_3, pays)

    def step(self, state: BanditState, action: Array, key: Key) -> tuple[BanditState, Step]:
        context_key, noise_key = jax.random.split(key)
        step = paid(self.expected(state.context), action, self.std, noise_key)
        state, context = self.reset(context_key)
        return state, step._replace(obs=context)

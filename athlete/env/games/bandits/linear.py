"""Arms that pay linearly in what is seen, as RLlib's `LinearDiscreteEnv`, and items whose features are seen."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.spaces import Box, Dict, Discrete, Space

SCALE = 1.0 / 3.0  # standard deviation of each entry of a context
BOUND = 10.0  # of the space of contexts: thirty deviations away


class BanditState(NamedTuple):
    context: Array  # what is seen now


@hyper
class LinearBandit(Env):
    """The context is `feature_dim` numbers of N(0, 1/9), and arm a pays theta_a' context and noise.

    The thetas are unit vectors, drawn once from `theta_seed`: every row and episode has the same. An episode has one
    step; `info["regret"]` is without noise.
    """

    feature_dim: int = 8
    num_actions: int = 4
    reward_noise_std: float = 0.01
    theta_seed: int = 0

    info_metrics = ("regret",)

    @property
    def observation_space(self) -> Box:
        return Box(-BOUND, BOUND, (self.feature_dim,))

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.num_actions)

    @property
    def thetas(self) -> np.ndarray:
        """What each arm pays for, `[arms, feature_dim]`."""
        return _unit_vectors(self.theta_seed, self.num_actions, self.feature_dim)

    def reset(self, key: Key) -> tuple[BanditState, Array]:
        context = SCALE * jax.random.normal(key, (self.feature_dim,))
        return BanditState(context), context

    def step(self, state: BanditState, action: Array, key: Key) -> tuple[BanditState, Step]:
        context_key, noise_key = jax.random.split(key)
        step = paid(jnp.asarray(self.thetas) @ state.context, action, self.reward_noise_std, noise_key)
        state, context = self.reset(context_key)
        return state, step._replace(obs=context)


@hyper
class ItemBandit(Env):
    """Each of `num_items` has features, `feature_dim` numbers of N(0, 1/9), that are other ones in every episode.

    An item pays theta' features and noise, for one theta, a unit vector that is drawn from `theta_seed`. Observations
    are `{"item": [num_items, feature_dim]}`: what RLlib's bandits take for arms with features of their own.
    """

    feature_dim: int = 8
    num_items: int = 10
    reward_noise_std: float = 0.01
    theta_seed: int = 0

    info_metrics = ("regret",)

    @property
    def observation_space(self) -> Space:
        return Dict({"item": Box(-BOUND, BOUND, (self.num_items, self.feature_dim))})

    @property
    def action_space(self) -> Discrete:
        return Discrete(self.num_items)

    @property
    def theta(self) -> np.ndarray:
        """What items pay for, `[feature_dim]`."""
        return _unit_vectors(self.theta_seed, 1, self.feature_dim)[0]

    def reset(self, key: Key) -> tuple[BanditState, Tree]:
        items = SCALE * jax.random.normal(key, (self.num_items, self.feature_dim))
        return BanditState(items), {"item": items}

    def step(self, state: BanditState, action: Array, key: Key) -> tuple[BanditState, Step]:
        item_key, noise_key = jax.random.split(key)
        step = paid(state.context @ jnp.asarray(self.theta), action, self.reward_noise_std, noise_key)
        state, items = self.reset(item_key)
        return state, step._replace(obs=items)


def paid(expected: Array, action: Array, noise: Array, key: Key) -> Step:
    """The step of an episode of one: `expected` `[arms]` is what each arm pays on average. Its observation is ()."""
    reward = expected[action] + noise * jax.random.normal(key)
    over, never = jnp.asarray(True), jnp.asarray(False)
    return Step((), reward, over, never, {"regret": jnp.max(expected) - expected[action]})


def _unit_vectors(seed: int, number: int, size: int) -> np.ndarray:
    """float32 `[number, size]`, the directions of points of a cube."""
    drawn = np.random.default_rng(seed).uniform(-1, 1, (number, size))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

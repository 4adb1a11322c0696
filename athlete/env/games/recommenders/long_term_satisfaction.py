"""RecSim's long-term satisfaction (Ie et al. 2019, arXiv:1909.04847), as RLlib's `LongTermSatisfactionRecSimEnv`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.env.games.recommenders.slates import observation_space, response
from athlete.spaces import Box, Dict, MultiDiscrete


class SatisfactionState(NamedTuple):
    exposure: Array  # to what is good for the user, discounted: satisfaction is its sigmoid
    budget: Array  # steps that are left
    clickbait: Array  # [n], of the candidates: 0 is kale, 1 is chocolate
    response: Tree


@hyper
class LongTermSatisfaction(Env):
    """Chocolate is eaten with more pleasure than kale now, and spoils the appetite. The reward is the engagement.

    The user always takes the first of a slate, with an engagement whose logarithm is normal: its mean is between
    `kale_mean` and `choc_mean`, times a satisfaction that falls with chocolate and grows with kale. Satisfaction is not
    seen: `user` is a zero. An episode has `time_budget` steps.
    """

    num_candidates: int = 10
    slate_size: int = 2
    resample_documents: bool = True  # new candidates at every step; else those of the episode's start
    time_budget: float = 60.0  # steps
    memory_discount: float = 0.7  # of the exposure, at each step
    sensitivity: float = 0.01  # of satisfaction to the exposure
    innovation_stddev: float = 0.05
    choc_mean: float = 5.0
    choc_stddev: float = 1.0
    kale_mean: float = 4.0
    kale_stddev: float = 1.0

    @property
    def observation_space(self) -> Dict:
        user, doc = Box(0.0, 1.0, (1,)), Box(0.0, 1.0, (self.num_candidates, 1))
        return observation_space(user, doc, self.slate_size, "engagement")

    @property
    def action_space(self) -> MultiDiscrete:
        return MultiDiscrete((self.num_candidates,) * self.slate_size)

    def reset(self, key: Key) -> tuple[SatisfactionState, Tree]:
        user_key, documents_key = jax.random.split(key)
        exposure = (jax.random.uniform(user_key) - 0.5) / (1.0 - self.memory_discount)
        seen = response(jnp.int32(self.slate_size), self.slate_size, "engagement", jnp.zeros(()))
        state = SatisfactionState(exposure, jnp.float32(self.time_budget), self._documents(documents_key), seen)
        return state, _shown(state)

    def step(self, state: SatisfactionState, action: Array, key: Key) -> tuple[SatisfactionState, Step]:
        engagement_key, innovation_key, documents_key = jax.random.split(key, 3)
        chocolate = state.clickbait[action[0]]
        mean = chocolate * self.choc_mean + (1.0 - chocolate) * self.kale_mean
        stddev = chocolate * self.choc_stddev + (1.0 - chocolate) * self.kale_stddev
        satisfaction = jax.nn.sigmoid(self.sensitivity * state.exposure)
        engagement = jnp.exp(mean * satisfaction + stddev * jax.random.normal(engagement_key))
        innovation = self.innovation_stddev * jax.random.normal(innovation_key)
        exposure = self.memory_discount * state.exposure - 2.0 * (chocolate - 0.5) + innovation
        documents = self._documents(documents_key) if self.resample_documents else state.clickbait
        seen = response(jnp.int32(0), self.slate_size, "engagement", engagement)
        state = SatisfactionState(exposure, state.budget - 1.0, documents, seen)
        return state, Step(_shown(state), engagement, state.budget <= 0.0, jnp.asarray(False), {})

    def _documents(self, key: Key) -> Array:
        return jax.random.uniform(key, (self.num_candidates,))


def _shown(state: SatisfactionState) -> Tree:
    return {"user": jnp.zeros(1), "doc": state.clickbait[:, None], "response": state.response}

"""Count-based exploration (Tang et al. 2017, "#Exploration", arXiv:1611.04717).

The reward of a step is eta / sqrt(n(phi(s'))) (equation 1, where eta is beta), n the number of visits to observations
with the code phi. A code is the sign of each of `hash_bits` random projections (SimHash, equation 2), so that distant
observations have distant codes and near ones share theirs. Small and one-hot observations, such as those of a finite
environment, nearly always have codes of their own.

Departures: the observation reached is counted rather than the one acted in; the code is the index of its counter, with
no second hash; no features are learned.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.bonuses.bonus import Bonus
from athlete.core import Array, Key, Spec, Transition, Tree, hyper
from athlete.ops.features import feature_size, features
from athlete.ops.statistics import valid_steps


class CountsState(NamedTuple):
    projection: Array  # [features, hash_bits], random and fixed
    visits: Array  # int32 [2 ** hash_bits]


@hyper
class Counts(Bonus):
    """A reward of `eta / sqrt(visits)` for the observation that a step leads to."""

    eta: float = 0.1  # the reward of a first visit
    hash_bits: int = 18  # there are 2 ** hash_bits counters
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Counts:
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> CountsState:
        projection = jax.random.normal(key, (feature_size(self.spec.obs), self.hash_bits))
        return CountsState(projection, jnp.zeros(2**self.hash_bits, jnp.int32))

    def observe(self, state: CountsState, accumulators: Tree, trajectory: Transition) -> tuple[CountsState, Tree]:
        weight = valid_steps(trajectory)
        count = 1 if weight is None else (weight > 0.0).astype(jnp.int32)
        visits = state.visits.at[self._code(state, trajectory.next_obs)].add(count)
        return state._replace(visits=visits), accumulators

    def reward(self, state: CountsState, batch: Transition) -> Array:
        visits = state.visits[self._code(state, batch.next_obs)]  # at least 1 each: what is learned from was observed
        return self.eta / jnp.sqrt(visits.astype(jnp.float32))

    def _code(self, state: CountsState, obs: Tree) -> Array:
        """Codes `[T, B]` of observations `[T, B, ...]`, as numbers."""
        signs = features(self.spec.obs, obs) @ state.projection > 0
        return jnp.sum(signs << jnp.arange(self.hash_bits), axis=-1)

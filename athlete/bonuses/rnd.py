"""Random network distillation (Burda et al. 2019, arXiv:1810.12894).

A predictor learns the outputs of a random network that never changes. Its squared error at the observation reached is
the intrinsic reward (section 2.2): large where it has not been yet. Observations are standardised by their running
moments and clipped to [-5, 5], rewards divided by the running standard deviation of their discounted return (2.4).

Departures:

- the reward is added to the environment's, so that one value serves both: its returns end with the episode and have
  the agent's gamma, where the paper has a second value whose returns go on (2.3);
- predictor and random network have the same layers, where the paper's predictor has two more;
- the error is a mean over the outputs instead of a sum, which the division takes out again;
- from a replay memory the predictor learns what is replayed.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.bonuses.bonus import Bonus, fit
from athlete.core import Array, Key, Model, Spec, Transition, Tree, hyper
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import feature_size, features
from athlete.ops.gradient import AdamState, adam_init
from athlete.ops.moments import Moments, initial_moments, standardize, update_moments
from athlete.ops.returns import discounted_sums
from athlete.ops.statistics import valid_steps, weighted_mean
from athlete.ops.tree import merge_time

CLIP = 5.0  # of standardised observations


class RNDState(NamedTuple):
    target: Tree  # the random network's parameters
    predictor: Tree
    optimizer: AdamState
    obs: Moments  # of features of all observations reached
    returns: Moments  # of intrinsic rewards


@hyper
class RND(Bonus):
    """A reward of `eta` times the normalised error of a predictor of a random network."""

    eta: float = 1.0
    lr: float = 1e-4
    minibatch_size: int = 128  # timesteps of one step of Adam; smaller batches are learned from at once
    gamma: float = 0.99  # of the returns that rewards are divided by the standard deviation of
    feature_dim: int = 64  # outputs of the random network
    model: Model = MLP((64, 64), "relu")
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> RND:
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> RNDState:
        target_key, predictor_key = jax.random.split(key)
        heads = {"embedding": (self.feature_dim, 1.0)}
        target, predictor = (self.model.init(part, self.spec.obs, heads) for part in (target_key, predictor_key))
        obs = initial_moments(jnp.zeros(feature_size(self.spec.obs)))
        return RNDState(target, predictor, adam_init(predictor), obs, initial_moments(jnp.zeros(())))

    def accumulators(self, rows: int) -> Array:
        """The discounted return so far, `[B]`."""
        return jnp.zeros(rows)

    def observe(self, state: RNDState, accumulators: Array, trajectory: Transition) -> tuple[RNDState, Array]:
        weight = valid_steps(trajectory)
        state = state._replace(obs=update_moments(state.obs, features(self.spec.obs, trajectory.next_obs), weight))
        error = self._errors(state, trajectory)
        # As if an episode never ended, as in the paper: arriving somewhere new is no less new after a death.
        sums = discounted_sums(error, jnp.zeros_like(trajectory.first), self.gamma, accumulators, weight)
        return state._replace(returns=update_moments(state.returns, sums, weight)), sums[-1]

    def reward(self, state: RNDState, batch: Transition) -> Array:
        error = self._errors(state, batch)
        return self.eta * error / jnp.sqrt(state.returns.variance + 1e-8)

    def update(self, state: RNDState, batch: Transition, key: Key) -> tuple[RNDState, dict[str, Array]]:
        seen = self._seen(state, batch)

        def loss_of(predictor: Tree, samples: tuple[Array, Array, Array | None]) -> tuple[Array, dict[str, Array]]:
            *pair, weight = samples
            loss = weighted_mean(self._error(predictor, *pair), weight)
            return loss, {"predictor_loss": loss}

        weight = valid_steps(batch)
        samples = (seen, self._embedding(state.target, seen), None if weight is None else weight.reshape(-1))
        learned = fit(loss_of, state.predictor, state.optimizer, samples, self.minibatch_size, self.lr, key)
        predictor, optimizer, metrics = learned
        return state._replace(predictor=predictor, optimizer=optimizer), metrics

    def _errors(self, state: RNDState, batch: Transition) -> Array:
        """The predictor's errors `[T, B]` where steps led."""
        seen = self._seen(state, batch)
        return self._error(state.predictor, seen, self._embedding(state.target, seen)).reshape(batch.reward.shape)

    def _error(self, predictor: Tree, seen: Array, target: Array) -> Array:
        """Mean squared errors `[N]` for observations `[N, ...]` whose embeddings are `target` `[N, feature_dim]`."""
        return jnp.mean(jnp.square(self._embedding(predictor, seen) - target), axis=-1)

    def _seen(self, state: RNDState, batch: Transition) -> Array:
        """Where steps led, standardised: `[T * B, ...]`."""
        seen = merge_time(features(self.spec.obs, batch.next_obs))
        return standardize(seen, state.obs.mean, state.obs.variance, CLIP)

    def _embedding(self, params: Tree, seen: Array) -> Array:
        return forward(self.model, params, seen)["embedding"]

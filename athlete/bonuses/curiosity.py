"""The intrinsic curiosity module (Pathak et al. 2017, arXiv:1705.05363).

Features phi of observations are learned by an inverse model, which tells the action from the features before and after
it (equations 2 and 3). A forward model predicts the features after an action (4), and half the squared error of that
is its loss (5) and, times eta, the intrinsic reward (6). Both losses are minimised together, the inverse one weighed
with 1 - beta and the forward one with beta (7); the agent's own loss stands apart.

Departures: the inverse model's loss is the negative log likelihood of the action, for any space that has a
distribution, and with a unit standard deviation where it is continuous.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.bonuses.bonus import Bonus, fit
from athlete.core import Array, Key, Model, Spec, Transition, Tree, hyper
from athlete.distributions import Distribution, continuous_size, distribution, flat_action, output_size
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import action_features, feature_size, features
from athlete.ops.gradient import AdamState, adam_init
from athlete.ops.statistics import valid_steps, weighted_mean
from athlete.ops.tree import merge_time
from athlete.spaces import Box


class CuriosityState(NamedTuple):
    params: Tree  # of "features", "inverse" and "forward"
    optimizer: AdamState


class Samples(NamedTuple):
    """Steps `[N, ...]` to learn from."""

    obs: Array  # features
    next_obs: Array
    action: Tree  # as the distribution of the inverse model takes it
    inputs: Array  # the action as features
    weight: Array | None  # of each step; None where all count the same


@hyper
class Curiosity(Bonus):
    """A reward of `eta` times the error of predicting what an action leads to, in features that actions change."""

    eta: float = 1.0
    beta: float = 0.2  # the forward model's share of the loss
    lr: float = 1e-3
    minibatch_size: int = 128  # timesteps of one step of Adam; smaller batches are learned from at once
    feature_dim: int = 64
    features_model: Model = MLP((64,), "relu")
    inverse_model: Model = MLP((64,), "relu")
    forward_model: Model = MLP((64,), "relu")
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Curiosity:
        output_size(spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> CuriosityState:
        features_key, inverse_key, forward_key = jax.random.split(key, 3)
        logits = output_size(self.spec.action) - continuous_size(self.spec.action)
        heads = {"features": (self.feature_dim, 1.0)}
        pair, step = self._vectors(2 * self.feature_dim), self._vectors(self.feature_dim + self._action_size())
        params = {
            "features": self.features_model.init(features_key, self.spec.obs, heads),
            "inverse": self.inverse_model.init(inverse_key, pair, {"action": (logits, 0.01)}),
            "forward": self.forward_model.init(forward_key, step, heads),
        }
        return CuriosityState(params, adam_init(params))

    def reward(self, state: CuriosityState, batch: Transition) -> Array:
        samples = self._samples(batch)
        error = self._forward_error(state.params, samples, *self._phi(state.params, samples))
        return self.eta * error.reshape(batch.reward.shape)

    def update(self, state: CuriosityState, batch: Transition, key: Key) -> tuple[CuriosityState, dict[str, Array]]:
        def loss_of(params: Tree, samples: Samples) -> tuple[Array, dict[str, Array]]:
            phi, next_phi = self._phi(params, samples)
            heads = forward(self.inverse_model, params["inverse"], jnp.concatenate([phi, next_phi], axis=-1))
            inverse = -weighted_mean(self._actions(heads).log_prob(samples.action), samples.weight)
            error = weighted_mean(self._forward_error(params, samples, phi, next_phi), samples.weight)
            return (1.0 - self.beta) * inverse + self.beta * error, {"inverse_loss": inverse, "forward_loss": error}

        samples = self._samples(batch)
        learned = fit(loss_of, state.params, state.optimizer, samples, self.minibatch_size, self.lr, key)
        params, optimizer, metrics = learned
        return CuriosityState(params, optimizer), metrics

    def _samples(self, batch: Transition) -> Samples:
        action = merge_time(flat_action(self.spec.action, batch.action))
        inputs = action_features(self.spec.action, merge_time(batch.action))
        before, after = (merge_time(features(self.spec.obs, obs)) for obs in (batch.obs, batch.next_obs))
        weight = valid_steps(batch)
        return Samples(before, after, action, inputs, None if weight is None else weight.reshape(-1))

    def _phi(self, params: Tree, samples: Samples) -> tuple[Array, Array]:
        """Learned features `[N, n]` of the observations before and after each action."""
        phi, next_phi = (
            forward(self.features_model, params["features"], obs)["features"] for obs in (samples.obs, samples.next_obs)
        )
        return phi, next_phi

    def _forward_error(self, params: Tree, samples: Samples, phi: Array, next_phi: Array) -> Array:
        """Half the squared error `[N]` of the features that are predicted after each action (equation 5)."""
        step = jnp.concatenate([phi, samples.inputs], axis=-1)
        predicted = forward(self.forward_model, params["forward"], step)["features"]
        return 0.5 * jnp.sum(jnp.square(predicted - next_phi), axis=-1)

    def _actions(self, heads: dict[str, Array]) -> Distribution:
        """The distribution of the action `[N]` that the inverse model tells."""
        outputs = heads["action"]
        log_std = jnp.zeros((outputs.shape[0], continuous_size(self.spec.action)))
        return distribution(self.spec.action, jnp.concatenate([outputs, log_std], axis=-1))

    def _action_size(self) -> int:
        return feature_size(self.spec.action)

    def _vectors(self, size: int) -> Box:
        return Box(-np.inf, np.inf, (size,))

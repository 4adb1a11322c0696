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

from athlete.bonuses.bonus import Bonus
from athlete.core import Array, Key, Model, Spec, Transition, Tree, hyper
from athlete.distributions import Distribution, continuous_size, distribution, flat_action, output_size
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import action_features, feature_size, features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.tree import fold
from athlete.spaces import Box


class CuriosityState(NamedTuple):
    params: Tree  # of "features", "inverse" and "forward"
    optimizer: AdamState


@hyper
class Curiosity(Bonus):
    """A reward of `eta` times the error of predicting what an action leads to, in features that actions change."""

    eta: float = 1.0
    beta: float = 0.2  # the forward model's share of the loss
    lr: float = 1e-3
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
        error = self._forward_error(state.params, batch, *self._phi(state.params, batch))
        return self.eta * error.reshape(batch.reward.shape)

    def update(self, state: CuriosityState, batch: Transition) -> tuple[CuriosityState, dict[str, Array]]:
        flat = fold(flat_action(self.spec.action, batch.action))

        def loss_of(params: Tree) -> tuple[Array, tuple[Array, Array]]:
            phi, next_phi = self._phi(params, batch)
            pair = jnp.concatenate([phi, next_phi], axis=-1)
            inverse = -jnp.mean(self._actions(forward(self.inverse_model, params["inverse"], pair)).log_prob(flat))
            error = jnp.mean(self._forward_error(params, batch, phi, next_phi))
            return (1.0 - self.beta) * inverse + self.beta * error, (inverse, error)

        (_, (inverse, error)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        params, optimizer, _ = adam(state.params, gradients, state.optimizer, self.lr)
        return CuriosityState(params, optimizer), {"inverse_loss": inverse, "forward_loss": error}

    def _phi(self, params: Tree, batch: Transition) -> tuple[Array, Array]:
        """Learned features `[T B, n]` of the observations before and after each action."""
        before, after = (fold(features(self.spec.obs, obs)) for obs in (batch.obs, batch.next_obs))
        phi, next_phi = (forward(self.features_model, params["features"], seen)["features"] for seen in (before, after))
        return phi, next_phi

    def _forward_error(self, params: Tree, batch: Transition, phi: Array, next_phi: Array) -> Array:
        """Half the squared error `[T B]` of the features that are predicted after each action (equation 5)."""
        action = action_features(self.spec.action, fold(batch.action))
        predicted = forward(self.forward_model, params["forward"], jnp.concatenate([phi, action], axis=-1))["features"]
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

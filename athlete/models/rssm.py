"""The recurrent state-space model of Dreamer (Hafner et al. 2019, arXiv:1811.04551; with categorical variables 2021,
arXiv:2010.02193): what comes next, in a state of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Tree, hyper
from athlete.models.dense import Layer, dense, hidden_layers, init_layers, layer_norm, with_layer_norm
from athlete.models.mlp import MLP
from athlete.ops.features import feature_vector

UNIMIX = 0.01  # of every categorical distribution, how much is uniform: none of its logarithms runs away


class Latent(NamedTuple):
    """The state of the model, leaves `[..., n]`."""

    deter: Array  # h: all that was, as a recurrent network remembers it
    stoch: Array  # z: what of it could not be foreseen, one-hot by group, flat

    @property
    def features(self) -> Array:
        """Both side by side, `[..., deter + groups * classes]`: what everything else reads."""
        return jnp.concatenate(self, axis=-1)


@hyper
class RSSM:
    """Sizes of the model, whose parts `recur`, `posterior` and `prior` are in equation 3 of arXiv:2301.04104v1."""

    deter: int = 256  # units of h
    groups: int = 32  # categorical variables of z
    classes: int = 32  # values of each
    units: int = 256  # of hidden layers
    layers: int = 1  # of networks that read states

    @property
    def size(self) -> int:
        """How many numbers `Latent.features` has."""
        return self.deter + self.groups * self.classes

    @property
    def reader(self) -> MLP:
        """The form of networks that read states: normalised layers with SiLU."""
        return MLP((self.units,) * self.layers, "silu", layer_norm=True)

    def init(self, key: Key, embed: int, actions: int) -> Tree:
        """Parameters for observations of `embed` numbers and actions of `actions`."""
        cell_key, prior_key, posterior_key = jax.random.split(key, 3)
        stoch, one = self.groups * self.classes, MLP((self.units,), "silu", layer_norm=True)
        sizes = [Layer(stoch + actions, self.units, 1.0), Layer(self.deter + self.units, 3 * self.deter, 1.0)]
        inputs, gates = with_layer_norm(init_layers(cell_key, sizes))
        return {
            "input": inputs,
            "gates": gates,
            "prior": one.init(prior_key, feature_vector(self.deter), {"logits": (stoch, 1.0)}),
            "posterior": one.init(posterior_key, feature_vector(self.deter + embed), {"logits": (stoch, 1.0)}),
        }

    def start(self, rows: int) -> Latent:
        """Before the first observation: zeros."""
        return Latent(jnp.zeros((rows, self.deter)), jnp.zeros((rows, self.groups * self.classes)))

    def recur(self, params: Tree, latent: Latent, action: Array) -> Array:
        """h after an action, both `[B, n]`: a gated recurrent unit with one normalisation for its three gates."""
        x = hidden_layers([params["input"]], jnp.concatenate([latent.stoch, action], axis=-1), jax.nn.silu)
        gates = layer_norm(params["gates"], dense(params["gates"], jnp.concatenate([latent.deter, x], axis=-1)))
        reset, candidate, update = jnp.split(gates, 3, axis=-1)
        update = jax.nn.sigmoid(update - 1.0)  # at first most of h stays
        return update * jnp.tanh(jax.nn.sigmoid(reset) * candidate) + (1.0 - update) * latent.deter

    def prior(self, params: Tree, deter: Array) -> Array:
        """Log-probabilities `[..., groups, classes]` of z as they are foreseen."""
        return self._log_probs(params["prior"], deter)

    def posterior(self, params: Tree, deter: Array, embed: Array) -> Array:
        """Log-probabilities `[..., groups, classes]` of z once the observation, `embed` `[..., n]`, was seen."""
        return self._log_probs(params["posterior"], jnp.concatenate([deter, embed], axis=-1))

    def observe(self, params: Tree, latent: Latent, action: Array, embed: Array, key: Key) -> tuple[Latent, Array]:
        """The state after an action and what was then seen, and the log-probabilities that its z was drawn by."""
        deter = self.recur(params, latent, action)
        posterior = self.posterior(params, deter, embed)
        return Latent(deter, draw(posterior, key)), posterior

    def imagine(self, params: Tree, latent: Latent, action: Array, key: Key) -> Latent:
        """A state that may come after an action."""
        deter = self.recur(params, latent, action)
        return Latent(deter, draw(self.prior(params, deter), key))

    def _log_probs(self, params: Tree, x: Array) -> Array:
        model = MLP((self.units,), "silu", layer_norm=True)
        logits = outputs(model, params, x)["logits"]
        return unimix(logits.reshape(*x.shape[:-1], self.groups, self.classes))


def outputs(model: MLP, params: Tree, x: Array) -> dict[str, Array]:
    """`{head: [..., outputs]}` of features `[..., n]`, with any leading axes."""
    return model.apply(params, (), x, x)[1]


def unimix(logits: Array) -> Array:
    """Log-probabilities of a categorical distribution, a hundredth of which is uniform."""
    return jnp.log((1.0 - UNIMIX) * jax.nn.softmax(logits) + UNIMIX / logits.shape[-1])


def draw(log_probs: Array, key: Key) -> Array:
    """One-hot draws of all groups `[..., groups, classes]`, flat `[..., groups * classes]`.

    Gradients go straight through to the probabilities (Bengio et al. 2013, arXiv:1308.3432).
    """
    hot = jax.nn.one_hot(jax.random.categorical(key, log_probs), log_probs.shape[-1])
    probs = jnp.exp(log_probs)
    return (hot + (probs - jax.lax.stop_gradient(probs))).reshape(*log_probs.shape[:-2], -1)


def balanced_kl(posterior: Array, prior: Array, free_nats: Array) -> tuple[Array, Array]:
    """The divergence of posterior from prior, `[...]`, summed over groups, as the prior learns from it and as the
    posterior does (equation 5): below `free_nats` neither.

    Both are log-probabilities `[..., groups, classes]`.
    """
    stop = jax.lax.stop_gradient
    dynamics = jnp.sum(jnp.exp(stop(posterior)) * (stop(posterior) - prior), axis=(-2, -1))
    representation = jnp.sum(jnp.exp(posterior) * (posterior - stop(prior)), axis=(-2, -1))
    return jnp.maximum(dynamics, free_nats), jnp.maximum(representation, free_nats)

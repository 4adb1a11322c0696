"""An ensemble of networks that each say a normal distribution: how a world goes on, and how sure that is.

Chua et al. 2018 (arXiv:1805.12114): what is random in the world is each member's variance, what is not known is where
members disagree. Each has parameters of its own, side by side, leaves `[members, ...]`.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Tree, hyper
from athlete.models.dense import Layer, activation, init_layers

BOUND_PENALTY = 0.01  # on the distance between the soft bounds of the log variances


class Prediction(NamedTuple):
    """What each member says, of inputs `[members, B, n]`."""

    mean: Array  # [members, B, outputs]
    log_var: Array  # the same, within the soft bounds
    logit: Array  # [members, B], that something is so, such as an end


@hyper
class GaussianEnsemble:
    """`members` networks of `hiddens` units."""

    members: int = 7
    hiddens: tuple[int, ...] = (200, 200, 200, 200)
    activation: str = "swish"

    def init(self, key: Key, inputs: int, outputs: int) -> Tree:
        """Parameters, and soft bounds of the log variances that all members share."""
        sizes = (inputs, *self.hiddens)
        layers = [Layer(*pair, math.sqrt(2.0)) for pair in itertools.pairwise(sizes)]
        layers.append(Layer(sizes[-1], 2 * outputs + 1, 0.1))
        members = jax.vmap(lambda key: init_layers(key, layers))(jax.random.split(key, self.members))
        return {"layers": members, "most": jnp.full(outputs, 0.5), "least": jnp.full(outputs, -10.0)}

    def apply(self, params: Tree, inputs: Array) -> Prediction:
        """Of inputs `[members, B, n]`, or `[B, n]` for all of them."""
        outputs = params["most"].shape[0]
        x = jnp.broadcast_to(inputs, (self.members, *inputs.shape[-2:]))
        for number, layer in enumerate(params["layers"]):
            x = jnp.einsum("ebi,eio->ebo", x, layer["kernel"]) + layer["bias"][:, None]
            x = activation(self.activation)(x) if number < len(self.hiddens) else x
        log_var = soft_bounded(x[..., outputs : 2 * outputs], params["least"], params["most"])
        return Prediction(x[..., :outputs], log_var, x[..., -1])

    def loss(self, params: Tree, inputs: Array, target: Array, ended: Array) -> Array:
        """Negative log-likelihood of targets `[members, B, outputs]`, without constants, and cross entropy of the flag
        `ended` `[members, B]`: summed over members, means over the rest. A small penalty holds the bounds together.
        """
        said = self.apply(params, inputs)
        likelihood = jnp.square(said.mean - target) * jnp.exp(-said.log_var) + said.log_var
        cross_entropy = jax.nn.softplus(said.logit) - ended * said.logit
        bounds = BOUND_PENALTY * jnp.sum(params["most"] - params["least"])
        return jnp.sum(jnp.mean(likelihood, axis=(1, 2)) + jnp.mean(cross_entropy, axis=1)) + bounds


def soft_bounded(log_var: Array, least: Array, most: Array) -> Array:
    """`log_var` bent into [least, most], so that gradients go on beyond (Chua et al. 2018, appendix A.1)."""
    below = most - jax.nn.softplus(most - log_var)
    return least + jax.nn.softplus(below - least)


def of_members(values: Array, member: Array) -> Array:
    """Of values `[members, B, ...]` those of one member for each row, `member` `[B]`."""
    return values[member, jnp.arange(member.shape[0])]

"""Networks that standardise over the batch what each of their layers takes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.dense import activation, dense
from athlete.models.mlp import MLP
from athlete.ops.features import feature_size
from athlete.spaces import Space

EPSILON = 1e-3  # added to variances
LARGEST_RATIO, LARGEST_SHIFT = 3.0, 5.0  # of a batch's moments to the running ones (Ioffe 2017, section 4)


class Moments(NamedTuple):
    """Of one layer's inputs, `[n]` each, averaged over the last batches."""

    mean: Array
    variance: Array


def batch_standardized(x: Array, running: Moments, momentum: Array, renormalize: Array) -> tuple[Array, Moments]:
    """`x` `[B, n]` with a mean of 0 and a variance of 1 over the batch (Ioffe & Szegedy 2015, arXiv:1502.03167,
    algorithm 1), and the running moments that follow.

    Where `renormalize`, a scalar, is true, it is scaled and shifted to what the running moments would give, within
    limits, and as by constants for the gradient (Ioffe 2017, arXiv:1702.03275, algorithm 1).
    """
    centred = x - running.mean  # near the batch's mean: the variance below is a difference of small numbers
    mean = jnp.mean(centred, axis=0)
    variance = jnp.maximum(jnp.mean(centred * centred, axis=0) - mean * mean, 0.0)
    deviation, usual = jnp.sqrt(variance + EPSILON), jnp.sqrt(running.variance + EPSILON)
    ratio, shift = jax.lax.stop_gradient((deviation / usual, mean / usual))
    ratio = jnp.where(renormalize, jnp.clip(ratio, 1.0 / LARGEST_RATIO, LARGEST_RATIO), 1.0)
    shift = jnp.where(renormalize, jnp.clip(shift, -LARGEST_SHIFT, LARGEST_SHIFT), 0.0)
    follows = Moments(
        running.mean + (1.0 - momentum) * mean, running.variance + (1.0 - momentum) * (variance - running.variance)
    )
    return (centred - mean) * (ratio / deviation) + shift, follows


@hyper
class BatchNormMLP(Model):
    """An `MLP` with a batch normalisation before each dense layer, the first and the heads included.

    Parameters are `{"learned": ..., "running": [Moments, ...]}`. `apply` standardises with the running moments, `train`
    with those of its batch.
    """

    hiddens: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    momentum: float = 0.99  # of the running moments

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        learned = MLP(self.hiddens, self.activation).init(key, obs_space, heads)
        sizes = (feature_size(obs_space), *self.hiddens)
        norms = [{"scale": jnp.ones(size), "shift": jnp.zeros(size)} for size in sizes]
        running = [Moments(jnp.zeros(size), jnp.ones(size)) for size in sizes]
        return {"learned": {**learned, "norms": norms}, "running": running}

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        def standardized(x: Array, running: Moments) -> Array:
            return (x - running.mean) * jax.lax.rsqrt(running.variance + EPSILON)

        heads = self._run(params, obs.reshape(-1, obs.shape[-1]), standardized)
        return (), {name: out.reshape(*obs.shape[:-1], -1) for name, out in heads.items()}

    def train(self, params: Tree, x: Array, renormalize: Array) -> tuple[dict[str, Array], list[Moments]]:
        """`{head: [B, outputs]}` of `x` `[B, n]`, each layer's inputs standardised over this batch, and the new running
        moments; `renormalize` as in `batch_standardized`.
        """
        follows: list[Moments] = []

        def standardized(x: Array, running: Moments) -> Array:
            x, moments = batch_standardized(x, running, self.momentum, renormalize)
            follows.append(moments)
            return x

        return self._run(params, x, standardized), follows

    def _run(self, params: Tree, x: Array, standardized: Callable[[Array, Moments], Array]) -> dict[str, Array]:
        learned, running, squash = params["learned"], params["running"], activation(self.activation)
        for layer, norm, moments in zip(learned["layers"], learned["norms"], running, strict=False):
            x = squash(dense(layer, standardized(x, moments) * norm["scale"] + norm["shift"]))
        last = learned["norms"][-1]
        x = standardized(x, running[-1]) * last["scale"] + last["shift"]
        return {name: dense(head, x) for name, head in learned["heads"].items()}

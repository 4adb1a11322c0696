"""Fully connected networks."""

from __future__ import annotations

import math

import jax

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.dense import activation, dense, init_dense
from athlete.ops.features import feature_size
from athlete.spaces import Space


@hyper
class MLP(Model):
    """Layers of `hiddens` units with `activation`, then one linear layer a head."""

    hiddens: tuple[int, ...] = (64, 64)
    activation: str = "tanh"

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        keys = jax.random.split(key, len(self.hiddens) + len(heads))
        sizes = (feature_size(obs_space), *self.hiddens)
        layers = [
            init_dense(keys[i], inputs, outputs, math.sqrt(2.0))
            for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False))
        ]
        named = {
            name: init_dense(keys[len(layers) + i], sizes[-1], outputs, scale)
            for i, (name, (outputs, scale)) in enumerate(heads.items())
        }
        return {"layers": layers, "heads": named}

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        squash = activation(self.activation)
        x = obs
        for layer in params["layers"]:
            x = squash(dense(layer, x))
        return (), {name: dense(head, x) for name, head in params["heads"].items()}

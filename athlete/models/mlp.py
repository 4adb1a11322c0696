"""Fully connected networks."""

from __future__ import annotations

import itertools
import math

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.dense import Layer, activation, dense, hidden_layers, init_layers, with_layer_norm
from athlete.ops.features import feature_size
from athlete.spaces import Space


@hyper
class MLP(Model):
    """Layers of `hiddens` units with `activation`, then one linear layer a head."""

    hiddens: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    layer_norm: bool = False  # before each activation

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        sizes = (feature_size(obs_space), *self.hiddens)
        torso = [Layer(*pair, math.sqrt(2.0)) for pair in itertools.pairwise(sizes)]
        ends = [Layer(sizes[-1], outputs, scale) for outputs, scale in heads.values()]
        params = init_layers(key, torso + ends)
        layers, named = params[: len(torso)], dict(zip(heads, params[len(torso) :], strict=True))
        return {"layers": with_layer_norm(layers) if self.layer_norm else layers, "heads": named}

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        x = hidden_layers(params["layers"], obs, activation(self.activation))
        return (), {name: dense(head, x) for name, head in params["heads"].items()}

"""Hidden layers of its own for each head of a network."""

from __future__ import annotations

import itertools
import math

import jax

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.dense import Layer, activation, dense, hidden_layers, init_layers
from athlete.spaces import Space


@hyper
class Streams(Model):
    """Behind `model`, whose last layer stays a hidden one: layers of `hiddens` units for each head, then its outputs.

    The streams of dueling networks (Wang et al. 2016, arXiv:1511.06581, figure 1), which are RLlib's `hiddens`.
    `hiddens` has at least one layer.
    """

    model: Model
    hiddens: tuple[int, ...]
    activation: str = "relu"

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        model_key, *stream_keys = jax.random.split(key, 1 + len(heads))
        first = {name: (self.hiddens[0], math.sqrt(2.0)) for name in heads}  # the model's heads are the first layers
        streams = {}
        for stream_key, (name, (outputs, scale)) in zip(stream_keys, heads.items(), strict=True):
            hidden = [Layer(*pair, math.sqrt(2.0)) for pair in itertools.pairwise(self.hiddens)]
            streams[name] = init_layers(stream_key, [*hidden, Layer(self.hiddens[-1], outputs, scale)])
        return {"model": self.model.init(model_key, obs_space, first), "streams": streams}

    def start(self, rows: int) -> Tree:
        return self.model.start(rows)

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        squash = activation(self.activation)
        carries, heads = self.model.apply(params["model"], carry, obs, first)
        outputs = {}
        for name, (*hidden, last) in params["streams"].items():
            outputs[name] = dense(last, hidden_layers(hidden, squash(heads[name]), squash))
        return carries, outputs


def without_streams(model: Model) -> Model:
    """The network in front of the streams, if it has any."""
    return model.model if isinstance(model, Streams) else model

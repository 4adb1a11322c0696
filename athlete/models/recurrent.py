"""Networks with memory."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.dense import Layer, activation, dense, hidden_layers, init_layers, with_layer_norm
from athlete.ops.features import feature_size
from athlete.ops.tree import where
from athlete.spaces import Space


@hyper
class GRU(Model):
    """One dense layer, one gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), then one linear layer a head."""

    cell_size: int = 64
    hiddens: tuple[int, ...] = (64,)
    activation: str = "tanh"
    layer_norm: bool = False  # before each dense layer's activation

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        sizes = (feature_size(obs_space), *self.hiddens)
        torso = [Layer(*pair, math.sqrt(2.0)) for pair in itertools.pairwise(sizes)]
        cell = [Layer(sizes[-1], 3 * self.cell_size, 1.0), Layer(self.cell_size, 3 * self.cell_size, 1.0)]
        ends = [Layer(self.cell_size, outputs, scale) for outputs, scale in heads.values()]
        params = init_layers(key, torso + cell + ends)
        *layers, inward, onward = params[: len(torso) + 2]
        named = dict(zip(heads, params[len(torso) + 2 :], strict=True))
        layers = with_layer_norm(layers) if self.layer_norm else layers
        return {"layers": layers, "input": inward, "state": onward, "heads": named}

    def start(self, rows: int) -> Array:
        return jnp.zeros((rows, self.cell_size))

    def apply(self, params: Tree, carry: Array, obs: Array, first: Array) -> tuple[Array, dict[str, Array]]:
        x = hidden_layers(params["layers"], obs, activation(self.activation))
        gates = dense(params["input"], x)  # all steps at once: only the state's part is sequential

        def step(state, inputs):
            gates_t, first_t = inputs
            state = where(first_t, jnp.zeros_like(state), state)
            reset_x, update_x, new_x = jnp.split(gates_t, 3, axis=-1)
            reset_h, update_h, new_h = jnp.split(dense(params["state"], state), 3, axis=-1)
            update = jax.nn.sigmoid(update_x + update_h)
            new = jnp.tanh(new_x + jax.nn.sigmoid(reset_x + reset_h) * new_h)
            state = (1.0 - update) * new + update * state
            return state, state

        _, states = jax.lax.scan(step, carry, (gates, first))
        return states, {name: dense(head, states) for name, head in params["heads"].items()}

"""Networks with memory."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.dense import Layer, activation, dense, hidden_layers, init_layers, with_layer_norm
from athlete.ops.features import feature_size
from athlete.ops.tree import where
from athlete.spaces import Space


def _init(
    key: Key, obs_space: Space, heads: dict[str, tuple[int, float]], hiddens: tuple[int, ...], cell: tuple[int, int]
) -> Tree:
    """Dense layers, the two products of a cell of (size, gates), of its input and of its state, and the heads."""
    size, gates = cell
    sizes = (feature_size(obs_space), *hiddens)
    torso = [Layer(*pair, math.sqrt(2.0)) for pair in itertools.pairwise(sizes)]
    products = [Layer(sizes[-1], gates * size, 1.0), Layer(size, gates * size, 1.0)]
    ends = [Layer(size, outputs, scale) for outputs, scale in heads.values()]
    params = init_layers(key, torso + products + ends)
    *layers, inward, onward = params[: len(torso) + 2]
    named = dict(zip(heads, params[len(torso) + 2 :], strict=True))
    return {"layers": layers, "input": inward, "state": onward, "heads": named}


def _one_in(gate: int, shape: tuple[int, int]) -> Array:
    """Biases of the gates `[gates, size]`, flat: 1 for that of number `gate`, 0 for the others."""
    return jnp.zeros(shape).at[gate].set(1.0).reshape(-1)


@hyper
class GRU(Model):
    """One dense layer, one gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), then one linear layer a head.

    The update gate's bias starts at 1, as the forget gate's of an LSTM: from 0 on, what was seen ten steps ago leaves
    too little in the state to be learned from (1 of 5 seeds of MemoryChain failed).
    """

    cell_size: int = 64
    hiddens: tuple[int, ...] = (64,)
    activation: str = "tanh"
    layer_norm: bool = False  # before each dense layer's activation

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        params = _init(key, obs_space, heads, self.hiddens, (self.cell_size, 3))
        params["state"] = {**params["state"], "bias": _one_in(1, (3, self.cell_size))}
        return {**params, "layers": with_layer_norm(params["layers"])} if self.layer_norm else params

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


class LSTMState(NamedTuple):
    hidden: Array  # what the cell shows, [..., cell_size]
    cell: Array  # what it keeps


@hyper
class LSTM(Model):
    """One dense layer, one long short-term memory (Hochreiter & Schmidhuber 1997), then one linear layer a head.

    With the forget gate of Gers et al. (2000), whose bias starts at 1 (Jozefowicz et al. 2015), and without peepholes:
    c' = f * c + i * g and h' = o * tanh(c'), with i, f, o = sigmoid(...) and g = tanh(...) of W x + U h + b.
    """

    cell_size: int = 64
    hiddens: tuple[int, ...] = (64,)
    activation: str = "tanh"
    layer_norm: bool = False  # before each dense layer's activation

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        params = _init(key, obs_space, heads, self.hiddens, (self.cell_size, 4))
        params["state"] = {**params["state"], "bias": _one_in(1, (4, self.cell_size))}
        return {**params, "layers": with_layer_norm(params["layers"])} if self.layer_norm else params

    def start(self, rows: int) -> LSTMState:
        return LSTMState(jnp.zeros((rows, self.cell_size)), jnp.zeros((rows, self.cell_size)))

    def apply(self, params: Tree, carry: LSTMState, obs: Array, first: Array) -> tuple[LSTMState, dict[str, Array]]:
        x = hidden_layers(params["layers"], obs, activation(self.activation))
        gates = dense(params["input"], x)  # all steps at once: only the state's part is sequential

        def step(state: LSTMState, inputs: tuple[Array, Array]) -> tuple[LSTMState, LSTMState]:
            gates_t, first_t = inputs
            state = where(first_t, jax.tree.map(jnp.zeros_like, state), state)
            write, forget, show, new = jnp.split(gates_t + dense(params["state"], state.hidden), 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * state.cell + jax.nn.sigmoid(write) * jnp.tanh(new)
            state = LSTMState(jax.nn.sigmoid(show) * jnp.tanh(cell), cell)
            return state, state

        _, states = jax.lax.scan(step, carry, (gates, first))
        return states, {name: dense(head, states.hidden) for name, head in params["heads"].items()}

"""The gated transformer GTrXL (Parisotto et al. 2019, arXiv:1910.06764), with relative positions of Transformer-XL.

A unit of inputs x and what it remembers of x before (sections 3.1 and 3.2 of the paper, "identity map reordering" and
GRU-type gating):

    y = gate(x, relu(attention(norm(memory, x))))        output = gate(y, relu(mlp(norm(y))))

    gate(x, y) = (1 - z) * x + z * h    r = sigmoid(W_r y + U_r x)    z = sigmoid(W_z y + U_z x - b)
                                        h = tanh(W_g y + U_g (r * x))

Attention scores are those of Transformer-XL (Dai et al. 2019, arXiv:1901.02860, section 3.3): with queries q, keys k
and sinusoids R of the distance, (q_i + u) . k_j + (q_i + v) . W_R R_(i-j), over the root of the head's size.

Departure: a step attends to itself and exactly the `memory` steps before it that belong to its episode, in acting and
in learning. Transformer-XL lets later steps of a segment see further back, so that a policy would be another one in
learning than in acting. Gradients stop at the memory, as in both papers.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.dense import Layer, activation, dense, hidden_layers, init_layers, layer_norm, with_layer_norm
from athlete.ops.features import feature_size
from athlete.spaces import Space


class AttentionState(NamedTuple):
    inputs: Array  # of every unit in the last steps, the oldest first, [rows, memory, units, dim]
    count: Array  # int32: how many of them are of this episode, the last ones, [rows]


@hyper
class GTrXL(Model):
    """Dense layers, gated transformer units with memory, then one linear layer a head."""

    num_transformer_units: int = 1
    dim: int = 64  # of what passes from unit to unit
    num_heads: int = 1
    head_dim: int = 32
    memory: int = 50  # steps before its own that a step can attend to
    position_wise_mlp_dim: int = 32
    init_gru_gate_bias: float = 2.0  # b of the gates at the start: the larger, the more of the stream passes unchanged
    hiddens: tuple[int, ...] = ()
    activation: str = "tanh"
    layer_norm: bool = False  # before each dense layer's activation

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        sizes = (feature_size(obs_space), *self.hiddens)
        torso = [Layer(*pair, math.sqrt(2.0)) for pair in itertools.pairwise(sizes)]
        wide = self.num_heads * self.head_dim
        shapes = {
            "query": (self.dim, wide),
            "key_value": (self.dim, 2 * wide),
            "position": (self.dim, wide),
            "out": (wide, self.dim),
            "in": (self.dim, self.position_wise_mlp_dim),
            "back": (self.position_wise_mlp_dim, self.dim),
            **{f"gate{i}_{of}": (self.dim, n * self.dim) for i in (1, 2) for of, n in GATE_PRODUCTS.items()},
        }
        inside = [Layer(*shape, 1.0) for shape in shapes.values()] * self.num_transformer_units
        ends = [Layer(self.dim, outputs, scale) for outputs, scale in heads.values()]
        params = init_layers(key, [*torso, Layer(sizes[-1], self.dim, 1.0), *inside, *ends])
        layers, rest = params[: len(torso)], iter(params[len(torso) :])
        found = {"layers": with_layer_norm(layers) if self.layer_norm else layers, "input": next(rest)}
        units = [{name: next(rest) for name in shapes} for _ in range(self.num_transformer_units)]
        found["units"] = [self._with_constants(unit) for unit in units]
        return {**found, "heads": dict(zip(heads, rest, strict=True))}

    def _with_constants(self, unit: Tree) -> Tree:
        """A unit's parameters with those that start as constants: biases of gates and scores, normalisations."""
        held = jnp.zeros((2, self.dim)).at[1].set(-self.init_gru_gate_bias).reshape(-1)
        gates = {f"gate{i}_old": {**unit[f"gate{i}_old"], "bias": held} for i in (1, 2)}
        norms = {f"norm{i}": {"scale": jnp.ones(self.dim), "shift": jnp.zeros(self.dim)} for i in (1, 2)}
        nothing = jnp.zeros((self.num_heads, self.head_dim))
        return {**unit, **gates, **norms, "content_bias": nothing, "position_bias": nothing}

    def start(self, rows: int) -> AttentionState:
        inputs = jnp.zeros((rows, self.memory, self.num_transformer_units, self.dim))
        return AttentionState(inputs, jnp.zeros(rows, jnp.int32))

    def apply(
        self, params: Tree, carry: AttentionState, obs: Array, first: Array
    ) -> tuple[AttentionState, dict[str, Array]]:
        x = dense(params["input"], hidden_layers(params["layers"], obs, activation(self.activation)))
        x = jnp.moveaxis(x, 0, 1)  # [B, T, dim]: attention runs along each row
        count, visible = self._reach(carry.count, first)
        remembered = []  # by each unit: its inputs of the memory's and of these steps, [B, memory + T, dim]
        for i in range(self.num_transformer_units):
            remembered.append(jnp.concatenate([carry.inputs[:, :, i], x], axis=1))
            x = self._unit(params["units"][i], x, remembered[-1], visible)
        inputs = jnp.stack(remembered, axis=2)
        after = np.arange(1, first.shape[0] + 1)[:, None] + np.arange(self.memory)  # [T, memory]
        x = jnp.moveaxis(x, 1, 0)
        state = AttentionState(jnp.moveaxis(inputs[:, after], 1, 0), count)
        return state, {name: dense(head, x) for name, head in params["heads"].items()}

    def _reach(self, count: Array, first: Array) -> tuple[Array, Array]:
        """The counts after each step `[T, B]`, and which keys each step sees: `[B, T, memory + T]` bool.

        Step t sees keys t to t + memory, its own, less those of before its episode.
        """

        def step(count: Array, first_t: Array) -> tuple[Array, Array]:
            before = jnp.where(first_t, 0, count)
            return jnp.minimum(before + 1, self.memory), before

        _, before = jax.lax.scan(step, count, first)
        distance = self.memory + np.arange(first.shape[0])[:, None] - np.arange(self.memory + first.shape[0])
        visible = (distance >= 0) & (distance <= before.T[:, :, None])
        return jnp.minimum(before + 1, self.memory), visible

    def _unit(self, params: Tree, x: Array, remembered: Array, visible: Array) -> Array:
        squash = jax.nn.relu
        seen = self._attend(params, layer_norm(params["norm1"], remembered), visible)
        x = gate(params["gate1_old"], params["gate1_new"], params["gate1_reset"], x, squash(seen))
        inside = squash(dense(params["in"], layer_norm(params["norm2"], x)))
        return gate(
            params["gate2_old"], params["gate2_new"], params["gate2_reset"], x, squash(dense(params["back"], inside))
        )

    def _attend(self, params: Tree, remembered: Array, visible: Array) -> Array:
        """Multi-head attention of the last T of `[B, memory + T, dim]` to all of them that are `visible`."""
        rows, length = remembered.shape[:2]
        query = dense(params["query"], remembered[:, self.memory :]).reshape(rows, -1, self.num_heads, self.head_dim)
        both = dense(params["key_value"], remembered).reshape(rows, length, 2, self.num_heads, self.head_dim)
        key, value = both[:, :, 0], both[:, :, 1]
        distance = dense(params["position"], sinusoids(self.memory, self.dim))
        distance = distance.reshape(-1, self.num_heads, self.head_dim)
        content = jnp.einsum("bthd,bshd->bhts", query + params["content_bias"], key)
        position = jnp.einsum("bthd,whd->bhtw", query + params["position_bias"], distance)
        scores = (content + skew(position)) / math.sqrt(self.head_dim)
        weights = jax.nn.softmax(jnp.where(visible[:, None], scores, -jnp.inf), axis=-1)
        seen = jnp.einsum("bhts,bshd->bthd", weights, value)
        return dense(params["out"], seen.reshape(rows, -1, self.num_heads * self.head_dim))


# Products of a gate: of the stream for reset and update, of the new for these and the candidate, of the reset stream.
GATE_PRODUCTS = {"old": 2, "new": 3, "reset": 1}


def gate(old: Tree, new: Tree, reset: Tree, x: Array, y: Array) -> Array:
    """The GRU-type gate between a stream `x` and what a layer adds, `y`, both `[..., dim]` (section 3.2).

    `old` holds U_r and U_z with the biases 0 and -b, `new` W_r, W_z and W_g, `reset` U_g.
    """
    reset_x, update_x = jnp.split(dense(old, x), 2, axis=-1)
    reset_y, update_y, new_y = jnp.split(dense(new, y), 3, axis=-1)
    update = jax.nn.sigmoid(update_y + update_x)
    candidate = jnp.tanh(new_y + dense(reset, jax.nn.sigmoid(reset_y + reset_x) * x))
    return (1.0 - update) * x + update * candidate


def sinusoids(memory: int, dim: int) -> np.ndarray:
    """R of Transformer-XL for the distances memory, memory - 1, ..., 0: sines and cosines `[memory + 1, dim]`."""
    rates = 10_000.0 ** (-np.arange(0, dim, 2) / dim)
    angles = np.arange(memory, -1, -1)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)[:, :dim].astype(np.float32)


def skew(scores: Array) -> Array:
    """Scores by distance `[..., T, W]` moved to the keys they are of, `[..., T, W + T - 1]`: row t goes t to the right.

    By padding and reshaping (appendix B of Transformer-XL): a gather costs more. What comes in from outside is 0.
    """
    *leading, length, width = scores.shape
    padded = jnp.pad(scores, [(0, 0)] * len(leading) + [(0, 0), (0, length)])
    flat = padded.reshape(*leading, length * (width + length))
    return flat[..., : length * (width + length - 1)].reshape(*leading, length, width + length - 1)

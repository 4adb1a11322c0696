"""The residual network of IMPALA (Espeholt et al. 2018, arXiv:1802.01561, figure 3, the large architecture).

Three stages of 16, 32 and 32 filters. Each is a 3 by 3 convolution, a maximum over 3 by 3 pixels in steps of 2, and two
blocks x + conv(relu(conv(relu(x)))). What follows is the `model`: in the paper a dense layer of 256 units.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.cnn import Shape, convolve, image_of, with_image_replaced
from athlete.models.dense import Layer, init_layers
from athlete.models.mlp import MLP
from athlete.ops.features import feature_size, feature_vector
from athlete.spaces import Space

BLOCKS = 2  # in each stage
IN_STAGE = 1 + 2 * BLOCKS  # convolutions


@hyper
class ResNet(Model):
    """Residual convolutions in front of another network, for observations with an image among their features."""

    shape: Shape
    depths: tuple[int, ...] = (16, 32, 32)  # filters of each stage
    model: Model = MLP((256,), "relu")  # what follows the convolutions
    offset: int = 0  # features in front of the image's
    channels_first: bool = False  # the image comes as [channels, height, width]; `shape` says it with channels last

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        conv_key, model_key = jax.random.split(key)
        layers, (height, width, channels) = [], self.shape
        for depth in self.depths:
            sizes = [channels, *[depth] * (IN_STAGE - 1)]
            layers += [Layer(9 * size, depth, math.sqrt(2.0)) for size in sizes]
            height, width, channels = -(-height // 2), -(-width // 2), depth
        behind = feature_size(obs_space) - math.prod(self.shape) + height * width * channels
        params = self.model.init(model_key, feature_vector(behind), heads)
        return {"convolutions": init_layers(conv_key, layers), "model": params}

    def start(self, rows: int) -> Tree:
        return self.model.start(rows)

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        x, layers = image_of(obs, self.shape, self.offset, self.channels_first), iter(params["convolutions"])
        for _ in self.depths:
            x = halve(same_convolution(next(layers), x))
            for _ in range(BLOCKS):
                inner = same_convolution(next(layers), jax.nn.relu(x))
                x = x + same_convolution(next(layers), jax.nn.relu(inner))
        x = with_image_replaced(obs, self.shape, self.offset, jax.nn.relu(x))
        return self.model.apply(params["model"], carry, x, first)


def same_convolution(params: Tree, x: Array) -> Array:
    """A 3 by 3 convolution of `[N, H, W, C]` that keeps height and width: a frame of zeros is put around."""
    return convolve(params, jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), 3, 1)


def halve(x: Array) -> Array:
    """The maximum over 3 by 3 pixels in steps of 2, `[N, H, W, C]` to `[N, ceil(H / 2), ceil(W / 2), C]`.

    Along one side, then along the other: XLA's own pooling has a gradient that takes several times as long on a CPU.
    """
    return _halve_along(_halve_along(x, 1), 2)


def _halve_along(x: Array, axis: int) -> Array:
    length = x.shape[axis]
    half = -(-length // 2)
    missing = max(0, 2 * (half - 1) + 3 - length)
    around = [(missing // 2, missing - missing // 2) if i == axis else (0, 0) for i in range(x.ndim)]
    x = jnp.pad(x, around, constant_values=-jnp.inf)
    parts = [jax.lax.slice_in_dim(x, i, i + 2 * half - 1, 2, axis) for i in range(3)]
    return functools.reduce(jnp.maximum, parts)

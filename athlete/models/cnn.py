"""Convolutional networks."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.dense import Layer, activation, init_layers, layer_norm, with_layer_norm
from athlete.models.mlp import MLP
from athlete.ops.features import feature_size, feature_vector
from athlete.spaces import Space

Shape = tuple[int, int, int]  # height, width, channels
Filters = tuple[tuple[int, int, int], ...]  # of each layer: how many, their size along both sides, the stride
PIECE = 32  # images that are convolved at once


@hyper
class ConvNet(Model):
    """Convolutions in front of another network, for observations with an image among their features.

    Agents flatten what they see; `shape` says what the image was. Other features (the action of a critic) pass. Where
    there are several images, the `model` is the ConvNet of the one before.
    """

    shape: Shape
    filters: Filters = ((16, 3, 1),)
    model: Model = MLP()  # what follows the convolutions
    activation: str = "relu"
    layer_norm: bool = False  # over the filters at each place, before each activation
    offset: int = 0  # features in front of the image's
    channels_first: bool = False  # the image comes as [channels, height, width]; `shape` says it with channels last

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        conv_key, model_key = jax.random.split(key)
        shapes = conv_shapes(self.shape, self.filters)
        inputs = [size * size * shape[2] for (_, size, _), shape in zip(self.filters, shapes, strict=False)]
        layers = init_layers(
            conv_key, [Layer(n, number, math.sqrt(2.0)) for n, (number, _, _) in zip(inputs, self.filters, strict=True)]
        )
        if self.layer_norm:
            layers = with_layer_norm(layers)
        behind = feature_size(obs_space) - math.prod(self.shape) + math.prod(shapes[-1])
        return {"convolutions": layers, "model": self.model.init(model_key, feature_vector(behind), heads)}

    def start(self, rows: int) -> Tree:
        return self.model.start(rows)

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        x = in_pieces(
            lambda x: self._convolved(params["convolutions"], x),
            image_of(obs, self.shape, self.offset, self.channels_first),
        )
        x = with_image_replaced(obs, self.shape, self.offset, x)
        return self.model.apply(params["model"], carry, x, first)

    def _convolved(self, layers: list[Tree], x: Array) -> Array:
        squash = activation(self.activation)
        for layer, (_, size, stride) in zip(layers, self.filters, strict=True):
            x = convolve(layer, x, size, stride)
            x = checkpoint_name(squash(layer_norm(layer, x) if "scale" in layer else x), "convolved")
        return x


def in_pieces(function: Callable[[Array], Array], x: Array) -> Array:
    """`function(x)` for a function of rows `[N, ...]`, a piece at a time: what it lays out then fits into the cache.

    A gradient keeps the outputs named "convolved" of each piece and computes the rest again, which is only copies.
    """
    if not isinstance(x.shape[0], int):  # a batch of any size, as an exported policy takes it
        return function(x)
    whole = len(x) // PIECE * PIECE
    if whole <= PIECE:
        return function(x)
    keep = jax.checkpoint_policies.save_only_these_names("convolved")
    pieces = x[:whole].reshape(-1, PIECE, *x.shape[1:])
    done = jax.lax.map(jax.checkpoint(function, policy=keep), pieces)
    done = done.reshape(whole, *done.shape[2:])
    return done if whole == len(x) else jnp.concatenate([done, function(x[whole:])])


def image_of(obs: Array, shape: Shape, offset: int, channels_first: bool) -> Array:
    """The image `[N, *shape]` that begins at feature `offset` of `obs` `[T, B, n]`, N = T * B, channels last."""
    pixels = obs[..., offset : offset + math.prod(shape)]
    if channels_first:
        return jnp.moveaxis(pixels.reshape(-1, shape[2], *shape[:2]), 1, -1)
    return pixels.reshape(-1, *shape)


def with_image_replaced(obs: Array, shape: Shape, offset: int, x: Array) -> Array:
    """Features `obs` `[T, B, n]` with `x` `[T * B, ...]`, flat, in the place of the image that begins at `offset`."""
    before, after = obs[..., :offset], obs[..., offset + math.prod(shape) :]
    return jnp.concatenate([before, x.reshape(*obs.shape[:-1], -1), after], axis=-1)


def conv_shapes(shape: Shape, filters: Filters) -> list[Shape]:
    """The image and each layer's outputs, without padding. Raises ValueError where a kernel does not fit its input."""
    shapes = [shape]
    for number, size, stride in filters:
        height, width, _ = shapes[-1]
        if size > min(height, width):
            raise ValueError(
                f"conv_filters={[list(layer) for layer in filters]}: a kernel of {size} by {size} does not fit what is "
                f"left of the image of {shape[0]} by {shape[1]}, {height} by {width}"
            )
        shapes.append(((height - size) // stride + 1, (width - size) // stride + 1, number))
    return shapes


def convolve(params: Tree, x: Array, size: int, stride: int) -> Array:
    """A convolution of `[N, H, W, C]` without padding, in dense products: `kernel` is `[size * size * C, filters]`.

    The image is cut into blocks of `stride` by `stride` pixels (space to depth), over which the kernel, with zeros up
    to a whole number of blocks, moves in steps of one. Of a block and its product with every part of the kernel, the
    narrower is laid out once a part: the products, which are then summed where they meet (kernels that do not overlap
    much), or the blocks themselves (im2col). XLA's own convolution has a gradient that takes seconds on a CPU.
    """
    channels, filters = x.shape[-1], params["kernel"].shape[-1]
    _, (height, width, _) = conv_shapes(x.shape[1:], ((filters, size, stride),))
    parts = -(-size // stride)
    if stride > 1:
        x = _blocks(x, stride, height + parts - 1, width + parts - 1)
    depth = x.shape[-1]
    kernel = _kernel_of_blocks(params["kernel"].reshape(size, size, channels, filters), stride, parts)
    places = list(itertools.product(range(parts), repeat=2))
    if filters < depth:
        product = x.reshape(-1, depth) @ jnp.moveaxis(kernel, 0, 1).reshape(depth, -1)
        product = product.reshape(*x.shape[:-1], len(places), filters)
        met = [product[:, i : i + height, j : j + width, part] for part, (i, j) in enumerate(places)]
        return functools.reduce(jnp.add, met) + params["bias"]
    patches = jnp.concatenate([x[:, i : i + height, j : j + width] for i, j in places], axis=-1)
    # The barrier keeps the kernel's gradient `[filters, inputs]`: XLA takes twice as long for its transpose.
    kernel = jax.lax.optimization_barrier(kernel.reshape(-1, filters).T)
    folded = patches.reshape(-1, patches.shape[-1])
    return (folded @ kernel.T + params["bias"]).reshape(*patches.shape[:-1], filters)


def _blocks(x: Array, side: int, rows: int, columns: int) -> Array:
    """Blocks of `side` by `side` pixels as channels, `[N, rows, columns, side * side * C]`; zeros beyond the image."""
    number, height, width, channels = x.shape
    more = [(0, max(0, rows * side - height)), (0, max(0, columns * side - width))]
    x = jnp.pad(x[:, : rows * side, : columns * side], [(0, 0), *more, (0, 0)])
    x = x.reshape(number, rows, side, columns, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(number, rows, columns, -1)


def _kernel_of_blocks(kernel: Array, side: int, parts: int) -> Array:
    """A kernel `[size, size, C, filters]` as `[parts * parts, side * side * C, filters]`, zeros beyond its size."""
    size, _, channels, filters = kernel.shape
    more = (0, parts * side - size)
    kernel = jnp.pad(kernel, [more, more, (0, 0), (0, 0)])
    kernel = kernel.reshape(parts, side, parts, side, channels, filters).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(parts * parts, side * side * channels, filters)

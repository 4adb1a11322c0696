"""Networks written in Equinox. Needs the extra `equinox`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.torso import apply_torso, init_heads, seeing_images, standard_key
from athlete.ops.features import feature_size
from athlete.spaces import Space


@hyper
class EquinoxModel(Model):
    """An Equinox module as a torso, with the linear heads that an agent asks for behind it.

    Subclasses are `@hyper` classes with `build`. Where the module has memory they have `start` too, as every model; the
    module then maps `(carry, [inputs])` to `(carry, [outputs])`. Where `obs_space` is one image, the module gets
    `[height, width, channels]` in the place of a row.
    """

    obs_space: Space | None = dataclasses.field(default=None, kw_only=True)  # filled in when an agent is made

    def build(self, inputs: int, key: Key) -> Any:
        """The module, which maps one row `[inputs]` to `[outputs]`, as Equinox's layers do."""
        raise NotImplementedError

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        torso_key, head_key = jax.random.split(key)
        inputs = feature_size(obs_space)
        module = self.build(inputs, standard_key(torso_key))
        named = jax.tree_util.tree_leaves_with_path(module)
        torso = {jax.tree_util.keystr(path): leaf for path, leaf in named if isinstance(leaf, jax.Array)}
        rows = seeing_images(jax.vmap(module), self.obs_space)
        return {"torso": torso, "heads": init_heads(head_key, self, rows, inputs, heads)}

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        import equinox

        shapes = equinox.filter_eval_shape(self.build, obs.shape[-1], jax.random.key(0))
        module = jax.tree_util.tree_map_with_path(
            lambda path, leaf: params["torso"].get(jax.tree_util.keystr(path), leaf), shapes
        )
        rows = seeing_images(jax.vmap(module), self.obs_space)
        return apply_torso(self, rows, params["heads"], carry, obs, first)

"""Networks written in Flax (nnx). Needs the extra `flax`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.models.torso import apply_torso, init_heads, seeing_images, standard_key
from athlete.ops.features import feature_size
from athlete.spaces import Space


@hyper
class FlaxModel(Model):
    """A Flax module as a torso, with the linear heads that an agent asks for behind it.

    Subclasses are `@hyper` classes with `build`. Where the module has memory they have `start` too, as every model; the
    module then maps `(carry, [N, inputs])` to `(carry, [N, outputs])`, as Flax's cells do. Where `obs_space` is one
    image, the module gets `[N, height, width, channels]` in the place of rows.
    """

    obs_space: Space | None = dataclasses.field(default=None, kw_only=True)  # filled in when an agent is made

    def build(self, inputs: int, rngs: Any) -> Any:
        """The module, which maps rows `[N, inputs]` to `[N, outputs]`."""
        raise NotImplementedError

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        """Raises ValueError for a module with state beside its parameters: batch statistics, keys of dropout."""
        from flax import nnx

        torso_key, head_key = jax.random.split(key)
        inputs = feature_size(obs_space)
        module = self.build(inputs, nnx.Rngs(standard_key(torso_key)))
        params, rest = nnx.state(module, nnx.Param, ...)
        if jax.tree.leaves(rest):
            kinds = sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(rest)})
            raise ValueError(
                f"{type(module).__name__} has state beside its parameters ({', '.join(kinds)}), which a policy would "
                "have to carry along; build it without batch normalisation and dropout, and keep no Rngs in it"
            )
        ends = init_heads(head_key, self, seeing_images(module, self.obs_space), inputs, heads)
        return {"torso": nnx.to_pure_dict(params), "heads": ends}

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        from flax import nnx

        structure, state = nnx.split(nnx.eval_shape(lambda: self.build(obs.shape[-1], nnx.Rngs(0))))
        nnx.replace_by_pure_dict(state, params["torso"])
        module = seeing_images(nnx.merge(structure, state), self.obs_space)
        return apply_torso(self, module, params["heads"], carry, obs, first)

"""One network a head."""

from __future__ import annotations

import jax

from athlete.core import Array, Key, Model, Tree, hyper
from athlete.spaces import Space


@hyper
class Separate(Model):
    """Every head on a torso of its own, each with its own carry: RLlib's `vf_share_layers=False`.

    Apart rather than batched into one product: XLA on a CPU runs batched and block-diagonal products slower.
    """

    model: Model
    names: tuple[str, ...] = ("policy", "value")

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        keys = jax.random.split(key, len(self.names))
        return {name: self.model.init(keys[i], obs_space, {name: heads[name]}) for i, name in enumerate(self.names)}

    def start(self, rows: int) -> Tree:
        return {name: self.model.start(rows) for name in self.names}

    def apply(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, dict[str, Array]]:
        carries, outputs = {}, {}
        for name in self.names:
            carries[name], head = self.model.apply(params[name], carry[name], obs, first)
            outputs.update(head)
        return carries, outputs

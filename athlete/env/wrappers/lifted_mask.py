"""A mask of actions that stands elsewhere in a JAX environment's observations, where agents read it."""

from __future__ import annotations

from athlete.core import Array, EnvWrapper, Key, Step, Tree, hyper
from athlete.env.masks import lift, lift_space
from athlete.spaces import Dict, Space


@hyper
class LiftedMask(EnvWrapper):
    """`env` with the mask at `path` as the entry `action_mask` of its observations."""

    path: tuple[str, ...]

    @property
    def observation_space(self) -> Space:
        space = self.env.observation_space
        assert isinstance(space, Dict)
        return lift_space(space, self.path)

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        state, obs = self.env.reset(key)
        return state, lift(obs, self.path)

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, Step]:
        state, step = self.env.step(state, action, key)
        return state, step._replace(obs=lift(step.obs, self.path))

    def render(self, state: Tree) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state)  # type: ignore[attr-defined]

"""Many agents seen as one: what makes every loop, checkpoint and tool work for them as it is."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Group, Key, MultiEnv, Spec, Step, Tree, hyper
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple, nested_tuples

FLAGS = ("acting", "terminated", "truncated")  # of the agents, in a joint observation


def stacked(space: Space, number: int) -> Space:
    """The space of `number` elements of `space` side by side: each leaf `[number, ...]`.

    Raises ValueError for OneOf, whose elements have no such form.
    """
    if isinstance(space, Dict):
        return Dict({name: stacked(part, number) for name, part in space.items})
    if isinstance(space, Tuple):
        return Tuple(tuple(stacked(part, number) for part in space.spaces))
    if isinstance(space, Discrete):
        return MultiDiscrete((space.n,) * number, (space.start,) * number if space.start else None)
    if isinstance(space, MultiDiscrete):
        nvec, start = (
            nested_tuples(np.broadcast_to(part, (number, *space.shape)))
            for part in (np.array(space.nvec), space.lowest)
        )
        return MultiDiscrete(nvec, start if np.any(space.lowest) else None)
    if isinstance(space, MultiBinary):
        return MultiBinary((number, *space.shape))
    if isinstance(space, Box):
        low, high = (np.broadcast_to(bound, (number, *space.shape)) for bound in (space.low, space.high))
        return Box(low, high, dtype=space.dtype)
    raise ValueError(f"{space} cannot be a space of one agent among many: it has no arrays of one shape")


def joint_spec(groups: Mapping[str, Group], always_acting: bool) -> Spec:
    """The spaces of all agents seen as one.

    Observations are `{"obs": {group: [n, ...]}}`. Where agents do not always act, bits `{group: [n]}` stand beside it
    under `"acting"`, `"terminated"` and `"truncated"`: who is asked for an action now, and whose life ended with the
    step that led here. Actions are `{group: [n, ...]}`.
    """
    parts: dict[str, Space] = {"obs": Dict({name: stacked(group.obs, group.size) for name, group in groups.items()})}
    if not always_acting:
        bits = Dict({name: MultiBinary((group.size,)) for name, group in groups.items()})
        parts |= dict.fromkeys(FLAGS, bits)
    action = Dict({name: stacked(group.action, group.size) for name, group in groups.items()})
    return Spec(Dict(parts), action, tuple(sorted(groups.items())))


@hyper
class JointEnv(Env):
    """The agents of `env` seen as one: an observation and an action of all, a reward `[agents]`; see `joint_spec`."""

    env: MultiEnv

    @property
    def spec(self) -> Spec:
        return joint_spec(self.env.groups, self.env.always_acting)

    @property
    def groups(self) -> tuple[tuple[str, Group], ...]:  # type: ignore[override]
        return self.spec.groups

    @property
    def info_metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.env.info_metrics

    @property
    def observation_space(self) -> Space:
        return self.spec.obs

    @property
    def action_space(self) -> Space:
        return self.spec.action

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        state, obs, acting = self.env.reset(key)
        nobody = jax.tree.map(jnp.zeros_like, acting)
        return state, self._joint_obs(obs, acting, nobody, nobody)

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, Step]:
        state, step = self.env.step(state, action, key)
        reward = jnp.concatenate([step.reward[name] for name, _ in self.groups])
        obs = self._joint_obs(step.obs, step.acting, step.terminated, step.truncated)
        return state, Step(obs, reward, step.all_terminated, step.all_truncated, step.info)

    def render(self, state: Tree) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state)  # type: ignore[attr-defined]

    def _joint_obs(self, obs: Tree, *flags: Tree) -> Tree:
        if self.env.always_acting:
            return {"obs": obs}
        bits = jax.tree.map(lambda flag: flag.astype(jnp.int8), dict(zip(FLAGS, flags, strict=True)))
        return {"obs": obs, **bits}

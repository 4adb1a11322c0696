"""A task for nested observations and actions of all kinds: do what you are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from athlete.core import Array, Env, Key, Step, Tree, hyper
from athlete.ops.sampling import sample
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple, parts_of

NESTED = Dict(
    {
        "arm": Tuple((Box(-2.0, 2.0, (2, 1)), Discrete(3, start=1))),
        "dials": MultiDiscrete(((2, 3), (3, 2))),
        "lights": MultiBinary((2,)),
        "level": Box(1, 4, (), "int8"),
    }
)
DISTRACTION = Tuple((Box(0, 255, (2, 2), "uint8"), OneOf((Box(-1.0, 1.0, (2,)), Discrete(3)))))


class MirrorState(NamedTuple):
    shown: Tree
    steps: Array  # int32, of this episode


@hyper
class Mirror(Env):
    """Every step shows an element of `space`, next to a distraction, and pays for an action that is near to it.

    The reward is the mean over all leaves of the space: the share of the numbers that are right where these are whole,
    else 1 less the mean distance in halves of the Box's range, at least 0. The most is 1 a step, `length` an episode.
    (RLlib has a `NestedSpaceRepeatAfterMeEnv` of this kind, which counts distances.)
    """

    space: Space = NESTED
    distraction: Space = DISTRACTION
    length: int = 10  # steps, after which the episode terminates

    @property
    def observation_space(self) -> Space:
        return Dict({"repeat": self.space, "ignore": self.distraction})

    @property
    def action_space(self) -> Space:
        return self.space

    def reset(self, key: Key) -> tuple[MirrorState, Tree]:
        obs = sample(self.observation_space, key)
        return MirrorState(obs["repeat"], jnp.zeros((), jnp.int32)), obs

    def step(self, state: MirrorState, action: Tree, key: Key) -> tuple[MirrorState, Step]:
        obs = sample(self.observation_space, key)
        reward = jnp.mean(jnp.stack(_nearness(self.space, action, state.shown)))
        steps = state.steps + 1
        done = steps >= self.length
        return MirrorState(obs["repeat"], steps), Step(obs, reward, done, jnp.zeros((), bool), {})


def make_mirror(env_id: str, env_config: Mapping[str, Any]) -> Mirror:
    """`"Mirror-v0"`, or `"MirrorChoice-v0"`: the same observations where only one number of four is to be repeated,
    for agents with Discrete actions.
    """
    if env_id == "Mirror-v0":
        return Mirror(**env_config)
    return Mirror(Discrete(4, start=1), Tuple((NESTED, DISTRACTION)), **env_config)


def _nearness(space: Space, action: Tree, shown: Tree) -> list[Array]:
    """In [0, 1] for each leaf of the space."""
    if isinstance(space, Tuple | Dict):
        keys = range(len(space.spaces)) if isinstance(space, Tuple) else [name for name, _ in space.items]
        pairs = zip(keys, parts_of(space), strict=True)
        return [near for key, part in pairs for near in _nearness(part, action[key], shown[key])]
    if not isinstance(space, Box) or space.is_integer:
        return [jnp.mean((action == shown).astype(jnp.float32))]
    affine = space.affine
    distance = jnp.abs(action - shown) / (1.0 if affine is None else affine.scale)
    return [jnp.maximum(1.0 - jnp.mean(distance), 0.0).astype(jnp.float32)]

"""Agents of a team as one agent, with one observation, action and reward: RLlib's `with_agent_groups`."""

from __future__ import annotations

from typing import TypeGuard

import jax
import jax.numpy as jnp

from athlete.core import Array, Group, Key, MultiEnvWrapper, MultiStep, Tree, hyper
from athlete.env.multi_agent import stacked
from athlete.ops.features import feature_size, feature_vector, features
from athlete.spaces import ACTION_MASK, Dict, MultiBinary, Space, has_mask

OBS, STATE = "obs", "state"  # the entries of what an agent shows, where it tells the state of the whole too
REWARDS = {"sum": jnp.sum, "mean": jnp.mean}


@hyper
class Grouped(MultiEnvWrapper):
    """`env` with each of its groups, `n` agents, as one agent of the same name: a policy decides for all of them.

    QMIX, MAPPO and MADDPG take groups as they are and see through this.

    Its observation is `{"obs": [n, d], "state": [s]}`: what each member sees, as features (`ops.features`), and the
    state of the whole. That is the entry `"state"` of the members' own observations where these are
    `{"obs": ..., "state": ...}` (RLlib's ENV_STATE), else what all of them see, joined. Where members have masks of
    actions they stand behind each other in `"action_mask"` `[n k]`. Actions are those of the members side by side:
    MultiDiscrete, or a Box `[n, ...]`. The reward is the `"sum"` of theirs or the `"mean"`.

    Raises:
        ValueError: another `reward`, or agents of `env` that do not always act.
    """

    reward: str = "sum"

    always_acting = True

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise ValueError(f"Grouped(reward={self.reward!r}): expected one of {', '.join(map(repr, REWARDS))}")
        if not self.env.always_acting:
            raise ValueError(
                f"Grouped({type(self.env).__name__}): its agents do not always act, and a joint action needs all of "
                "them at every step; let who is done stay, with a mask that leaves one action, and set always_acting"
            )

    @property
    def groups(self) -> dict[str, Group]:
        return {
            name: Group(1, _joint_space(group), stacked(group.action, group.size))
            for name, group in self.env.groups.items()
        }

    def reset(self, key: Key) -> tuple[Tree, Tree, Tree]:
        state, obs, _ = self.env.reset(key)
        return state, self._observe(obs), ()

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, MultiStep]:
        state, step = self.env.step(state, jax.tree.map(lambda leaf: leaf[0], action), key)
        reward = jax.tree.map(lambda each: REWARDS[self.reward](each, keepdims=True), step.reward)
        return state, step._replace(obs=self._observe(step.obs), reward=reward)

    def render(self, state: Tree) -> Array:
        """The picture of `env`, where it draws one."""
        return self.env.render(state)  # type: ignore[attr-defined]

    def _observe(self, obs: Tree) -> Tree:
        joint = {name: _joint_obs(group, obs[name]) for name, group in self.env.groups.items()}
        return jax.tree.map(lambda leaf: leaf[None], joint)


def _tells_state(space: Space) -> TypeGuard[Dict]:
    return isinstance(space, Dict) and {OBS, STATE} == {name for name, _ in space.items} - {ACTION_MASK}


def _joint_space(group: Group) -> Dict:
    parts: dict[str, Space] = dict(group.obs.items) if isinstance(group.obs, Dict) else {}
    seen = parts[OBS] if _tells_state(group.obs) else group.obs
    size = feature_size(seen)
    state = feature_size(parts[STATE]) if _tells_state(group.obs) else group.size * size
    joint: dict[str, Space] = {OBS: stacked(feature_vector(size), group.size), STATE: feature_vector(state)}
    if has_mask(group.obs):
        joint[ACTION_MASK] = MultiBinary((group.size * parts[ACTION_MASK].shape[0],))
    return Dict(joint)


def _joint_obs(group: Group, obs: Tree) -> Tree:
    """Of observations `[n, ...]`."""
    each = jax.tree.map(lambda leaf: leaf[None], obs)  # features take [T, B, ...]
    if _tells_state(group.obs):
        parts = dict(group.obs.items)
        seen, state = features(parts[OBS], each[OBS])[0], features(parts[STATE], each[STATE])[0, 0]
    else:
        seen = features(group.obs, each)[0]
        state = seen.reshape(-1)
    joint = {OBS: seen, STATE: state}
    if has_mask(group.obs):
        joint[ACTION_MASK] = (obs[ACTION_MASK] > 0).astype(jnp.int8).reshape(-1)
    return joint

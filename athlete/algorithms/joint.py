"""What joint methods share: agents that learn together, from what all of them see, and act each on its own view.

Such an algorithm is bound to the spaces of all agents seen as one (`env.multi_agent.joint_spec`). Agents of a group
share their parameters and are told apart by their numbers; groups have parameters of their own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp

from athlete.core import Array, Group, Spec, Tree
from athlete.ops.features import feature_size, feature_vector, features
from athlete.ops.masks import action_mask, check_mask
from athlete.spaces import ACTION_KINDS, Box, Dict, Space, action_kind

STATE = "state"  # the entry of an agent's observation that tells the state of the whole, as in RLlib


class Seen(NamedTuple):
    """What a joint method reads in observations `[...]` of all agents."""

    own: dict[str, Array]  # {group: [..., n, features]}: what each agent sees, and its number in its group
    mask: dict[str, Array | None]  # {group: bool [..., n, actions]}: what is legal; None where no mask is told
    state: Array  # [..., features]


def require_joint(algorithm: str, kinds: tuple[str, ...], spec: Spec) -> None:
    """Raise ValueError unless `spec` is of agents that act at every step, with actions of these kinds."""
    if not spec.groups:
        raise ValueError(
            f"{algorithm} learns for several agents together, and this is an environment of one, with actions "
            f"{spec.action}; take an algorithm for one agent"
        )
    if any(name == "acting" for name, _ in spec.obs.items):  # type: ignore[attr-defined]
        raise ValueError(
            f"{algorithm} learns from agents that act at every step until the episode ends for all, and here they take "
            "turns, or come and go; take an algorithm with a policy for each agent, such as PPO. Where they do act at "
            "every step, the environment says so: always_acting = True"
        )
    for name, group in spec.groups:
        if action_kind(group.action) not in kinds:
            served = " and ".join(ACTION_KINDS[kind] for kind in kinds)
            hint = (
                "; where it is a group, made by with_agent_groups, give the agents themselves"
                if group.size == 1
                else ""
            )
            raise ValueError(f"{algorithm} serves {served}, and that of the agents {name!r} is {group.action}{hint}")
        check_mask(Spec(group.obs, group.action))


def own_space(group: Group) -> Space:
    """What one agent sees: its observation without the state of the whole."""
    if not isinstance(group.obs, Dict):
        return group.obs
    return Dict({name: part for name, part in group.obs.items if name != STATE})


def network_space(group: Group, obs_agent_id: bool = True) -> Box:
    """The space of a row of `Seen.own`."""
    number = group.size if obs_agent_id and group.size > 1 else 0
    return feature_vector(feature_size(own_space(group)) + number)


def state_space(spec: Spec) -> Box:
    """The space of `Seen.state`."""
    for _, group in spec.groups:
        if isinstance(group.obs, Dict) and STATE in dict(group.obs.items):
            return feature_vector(feature_size(dict(group.obs.items)[STATE]))
    return feature_vector(sum(group.size * feature_size(own_space(group)) for _, group in spec.groups))


def see(spec: Spec, obs: Tree, obs_agent_id: bool = True) -> Seen:
    """What is read in the observations of all agents, with leading axes `[...]`.

    With `obs_agent_id` each agent of several sees its number in its group too, one-hot.

    The state is the entry "state" of the first agent that is told one, else all that the agents see.
    """
    own, mask, plain, told = {}, {}, [], []
    for name, group in spec.groups:
        seen, space = obs["obs"][name], own_space(group)
        if isinstance(group.obs, Dict):
            entries = dict(group.obs.items)
            if STATE in entries:
                told.append(features(entries[STATE], jnp.asarray(seen[STATE]))[..., 0, :])
            seen = {entry: part for entry, part in seen.items() if entry != STATE}
        mask[name] = action_mask(Spec(space, group.action), seen)
        own[name] = vectors = features(space, seen)
        plain.append(vectors.reshape(*vectors.shape[:-2], -1))
        if obs_agent_id and group.size > 1:
            number = jnp.broadcast_to(jnp.eye(group.size), (*vectors.shape[:-1], group.size))
            own[name] = jnp.concatenate([vectors, number], axis=-1)
    return Seen(own, mask, told[0] if told else jnp.concatenate(plain, axis=-1))


def team_reward(reward: Array, how: Literal["sum", "mean"]) -> Array:
    """One reward `[...]` of those of all agents `[..., agents]`."""
    return jnp.sum(reward, axis=-1) if how == "sum" else jnp.mean(reward, axis=-1)

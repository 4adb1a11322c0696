"""A policy and the values of its states, two heads of one network: what on-policy algorithms act and learn with.

The parameters are `{"network": the model's}` and, where a Box has them apart from the network, `"log_std"`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Model, Spec, Transition, Tree
from athlete.distributions import Distribution, distribution, output_size
from athlete.ops.features import features
from athlete.ops.tree import fold
from athlete.spaces import Box


def init_actor_critic(model: Model, key: Key, spec: Spec, free_log_std: bool = True, critic: bool = True) -> Tree:
    """Parameters of a policy near the uniform one and, with `critic`, of its values.

    With `free_log_std` a Box has one log standard deviation an action, whatever the observation; it starts at 0.
    """
    outputs = output_size(spec.action)
    free = free_log_std and isinstance(spec.action, Box)
    heads = {"policy": (outputs // 2 if free else outputs, 0.01)}
    if critic:
        heads["value"] = (1, 1.0)
    params = {"network": model.init(key, spec.obs, heads)}
    if free:
        params["log_std"] = jnp.zeros(outputs // 2)
    return params


def apply_actor_critic(model: Model, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, Array, Array]:
    """Carries after each step, the policy's outputs `[T, B, outputs]` and values `[T, B]` of features `[T, B, n]`.

    Values are 0 where the network has no head for them.
    """
    carries, heads = model.apply(params["network"], carry, obs, first)
    outputs = heads["policy"]
    if "log_std" in params:
        outputs = jnp.concatenate([outputs, jnp.broadcast_to(params["log_std"], outputs.shape)], axis=-1)
    return carries, outputs, heads["value"][..., 0] if "value" in heads else jnp.zeros(first.shape)


def policy_of(
    model: Model, spec: Spec, params: Tree, carry: Tree, obs: Tree, first: Array
) -> tuple[Distribution, Tree]:
    """The distribution over the actions of rows `[B, ...]`, and the carry after the step."""
    obs = features(spec.obs, jax.tree.map(lambda leaf: leaf[None], obs))
    carries, outputs, _ = apply_actor_critic(model, params, carry, obs, first[None])
    return distribution(spec.action, outputs[0]), jax.tree.map(lambda leaf: leaf[0], carries)


def values_of_steps(model: Model, spec: Spec, params: Tree, batch: Transition) -> tuple[Array, Array]:
    """Values `[T, B]` of where each step began and of where it led.

    `next_obs` continues from the recurrent state after its step, as a row of its own: right across every ending.
    """
    carry = jax.tree.map(lambda leaf: leaf[0], batch.carry)
    carries, _, value = apply_actor_critic(model, params, carry, features(spec.obs, batch.obs), batch.first)
    never = jnp.zeros((1, value.size), bool)
    next_obs = fold(features(spec.obs, batch.next_obs))[None]
    _, _, next_value = apply_actor_critic(model, params, fold(carries), next_obs, never)
    return value, next_value.reshape(value.shape)

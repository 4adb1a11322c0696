"""A policy and the values of its states, two heads of one network: what on-policy algorithms act and learn with.

The parameters are `{"network": the model's}` and `"log_std"`, where continuous actions have it apart from the network.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.core import Array, Key, Model, Spec, Transition, Tree
from athlete.distributions import Distribution, continuous_size, distribution, output_size
from athlete.ops.features import features
from athlete.ops.masks import action_mask, masked
from athlete.ops.tree import merge_time


def init_actor_critic(
    model: Model,
    key: Key,
    spec: Spec,
    free_log_std: bool = True,
    log_std_init: Array | float = 0.0,
    critic: bool = True,
) -> Tree:
    """Parameters of a policy near the uniform one and, with `critic`, of its values.

    With `free_log_std` each continuous action has one log standard deviation, whatever the observation; it starts at
    `log_std_init`.
    """
    free = continuous_size(spec.action) if free_log_std else 0
    heads = {"policy": (output_size(spec.action) - free, 0.01)}
    if critic:
        heads["value"] = (1, 1.0)
    params = {"network": model.init(key, spec.obs, heads)}
    if free:
        params["log_std"] = jnp.full(free, log_std_init, jnp.float32)
    return params


def apply_actor_critic(model: Model, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, Array, Array]:
    """Carries after each step, the policy's outputs `[T, B, outputs]` and values `[T, B]` of features `[T, B, n]`.

    Values are 0 where the network has no head for them.
    """
    carries, heads = model.apply(params["network"], carry, obs, first)
    outputs = heads["policy"]
    if "log_std" in params:
        log_std = params["log_std"]
        outputs = jnp.concatenate([outputs, jnp.broadcast_to(log_std, (*outputs.shape[:-1], *log_std.shape))], -1)
    return carries, outputs, heads["value"][..., 0] if "value" in heads else jnp.zeros(first.shape)


def outputs_of(
    model: Model, spec: Spec, params: Tree, carry: Tree, obs: Tree, first: Array
) -> tuple[Array, Array | None, Tree]:
    """The policy's outputs `[B, outputs]` and the mask of legal actions for rows `[B, ...]`, and the carry after."""
    seen = features(spec.obs, obs)[None]
    carries, outputs, _ = apply_actor_critic(model, params, carry, seen, first[None])
    return outputs[0], action_mask(spec, obs), jax.tree.map(lambda leaf: leaf[0], carries)


def policy_of(
    model: Model, spec: Spec, params: Tree, carry: Tree, obs: Tree, first: Array
) -> tuple[Distribution, Tree]:
    """The distribution over the legal actions of rows `[B, ...]`, and the carry after the step."""
    outputs, mask, carry = outputs_of(model, spec, params, carry, obs, first)
    return legal_distribution(spec, outputs, mask), carry


def legal_distribution(spec: Spec, outputs: Array, mask: Array | None) -> Distribution:
    """The distribution that the policy's outputs `[..., outputs]` describe, over the actions that `mask` allows."""
    return distribution(spec.action, masked(outputs, mask))


def values_of_steps(model: Model, spec: Spec, params: Tree, batch: Transition) -> tuple[Array, Array]:
    """Values `[T, B]` of where each step began and of where it led.

    `next_obs` continues from the recurrent state after its step, as a row of its own: right across every ending.
    """
    carry = jax.tree.map(lambda leaf: leaf[0], batch.carry)
    carries, _, value = apply_actor_critic(model, params, carry, features(spec.obs, batch.obs), batch.first)
    never = jnp.zeros((1, value.size), bool)
    next_obs = merge_time(features(spec.obs, batch.next_obs))[None]
    _, _, next_value = apply_actor_critic(model, params, merge_time(carries), next_obs, never)
    return value, next_value.reshape(value.shape)

"""MAPPO: PPO for agents that learn together (Yu et al. 2022, arXiv:2103.01955).

Each agent acts by its own observation; the critic, which only learning needs, sees the state of the whole (section 3).
The objective is PPO's (appendix A): the clipped surrogate of each agent's own ratio, averaged over agents and steps,
and the clipped error of values, which are learned in units of their running mean and standard deviation (section 5.1).

The reward of all is the sum of the agents' rewards, or their mean. With `team_reward=None` each agent learns from its
own, and the critic has a value for each. The state is the entry "state" of the agents' observations, or all that they
see, see `joint.see`.

Departures:

- one optimiser and one gradient clipping for actors and critic;
- the square of errors, where the authors' code has Huber's loss with a threshold of 10 standard deviations;
- with memory (`use_gru`, `use_lstm`), actors have it and the critic does not: the state is to be the state;
- a truncated episode is bootstrapped from its true last state;
- where the minibatch does not divide the batch, each epoch leaves out the remainder, another one each time.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.algorithms.joint import network_space, require_joint, see, state_space, team_reward
from athlete.algorithms.on_policy import standardized
from athlete.combine.seating import apart, merge, together
from athlete.core import Agent, Array, Group, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveInt
from athlete.distributions import Distribution, flat_action, shape_action
from athlete.memory.rollout import Rollout
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution
from athlete.models.catalog import MEMORIES, make_model
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.moments import Moments, initial_moments, update_moments
from athlete.ops.returns import generalized_advantages
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.sequences import minibatches, sequences_with_carry
from athlete.ops.statistics import explained_variance
from athlete.ops.surrogate import clipped_surrogate
from athlete.settings.families import OnPolicyConfig
from athlete.spaces import ACTION_KINDS


class MAPPOState(NamedTuple):
    """The state of a `MAPPO`."""

    params: Tree  # {"actors": {group: an actor's}, "critic": ...}
    optimizer: AdamState
    returns: Moments  # of the targets of values, [values]


class Batch(NamedTuple):
    """What the loss reads, as sequences `[L, N, ...]` of all agents: L steps each, 1 for actors without memory."""

    own: dict[str, Array]  # {group: [L, N, n, features]}
    mask: dict[str, Array | None]  # {group: bool [L, N, n, actions]}
    state: Array  # [L, N, features]
    first: Array  # bool [L, N]
    carry: Tree  # {group: [N, n, ...]}, at the start of each sequence
    action: dict[str, Tree]  # {group: [L, N, n, ...]}, flat and canonical
    log_prob: Array  # [L, N, agents], of the policies that acted
    advantage: Array  # [L, N, values], standardised
    value: Array  # [L, N, values], of the parameters that acted, in the critic's units before this update
    target: Array  # [L, N, values], what values should be, in the critic's units with it


METRICS = ("policy_loss", "vf_loss", "entropy", "kl", "total_loss", "grad_gnorm")  # of each minibatch, in this order


@hyper
class MAPPO(Agent):
    """Hyperparameters of MAPPO under RLlib's names of PPO's. Floats and schedules are traced, the rest shapes the
    program.

    There is one value, that of all; with `team_reward=None` there is one for each agent.
    """

    joint: ClassVar[bool] = True

    lr: NonNegativeFloat | Schedule = 5e-4
    gamma: Fraction = 0.99
    lambda_: Fraction = 0.95
    clip_param: Limit | Schedule = 0.2
    vf_clip_param: Limit | None = 0.2  # how far a value may move in one update, in the critic's units; None: freely
    vf_loss_coeff: NonNegativeFloat = 1.0
    entropy_coeff: float | Schedule = 0.01
    grad_clip: Limit | None = 10.0  # of the global norm
    team_reward: Literal["sum", "mean"] | None = "sum"  # of the agents' rewards; None: each learns from its own
    obs_agent_id: bool = (
        True  # agents of a group see their numbers in it; without, agents that see the same do the same
    )
    normalize_values: bool = True  # the critic's units are standard deviations of its targets
    minibatch_size: PositiveInt = 1024  # timesteps of all agents together
    num_epochs: PositiveInt = 10
    max_seq_len: int = 1  # timesteps that gradients flow through; 1 for actors without memory
    free_log_std: bool = True  # Box: one log standard deviation an action, whatever the observation
    log_std_init: float = 0.0  # where it starts
    model: Model = MLP()  # of the actors
    critic_model: Model = MLP()
    memory: Memory = Rollout()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_joint(type(self).__name__, tuple(ACTION_KINDS), spec)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> MAPPOState:
        """The key is folded with 0 for the critic, and from 1 on for the groups' actors."""
        actors = {}
        for i, (name, group) in enumerate(self.spec.groups):
            own = Spec(network_space(group, self.obs_agent_id), group.action)
            own_key = jax.random.fold_in(key, 1 + i)
            actors[name] = init_actor_critic(
                self.model, own_key, own, self.free_log_std, self.log_std_init, critic=False
            )
        values = self.spec.reward_shape[0] if self.team_reward is None else 1
        critic = self.critic_model.init(jax.random.fold_in(key, 0), state_space(self.spec), {"value": (values, 1.0)})
        params = {"actors": actors, "critic": critic}
        return MAPPOState(params, adam_init(params), initial_moments(jnp.zeros(values)))

    def view(self, state: MAPPOState, progress: Array) -> Tree:
        return state.params["actors"]

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        return {name: apart(self.model.start(rows * group.size), rows) for name, group in self.spec.groups}

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """Actions `{group: [B, n, ...]}`, each by its own agent's policy. The key is for sampling them."""
        seen, rows = see(self.spec, obs, self.obs_agent_id), first.shape[0]
        actions, carries, log_probs = {}, {}, []
        for i, (name, group) in enumerate(self.spec.groups):
            carries_after, outputs = self._outputs(
                group, view[name], together(carry[name]), seen.own[name][None], first[None]
            )
            policy = _distribution(group, outputs[0], seen.mask[name])
            action = policy.sample(jax.random.fold_in(key, i)) if explore else policy.mode()
            log_probs.append(policy.log_prob(action))
            actions[name] = shape_action(group.action, action)
            carries[name] = apart(jax.tree.map(lambda leaf: leaf[0], carries_after), rows)
        return actions, carries, {"log_prob": jnp.concatenate(log_probs, axis=-1)}

    def update(self, state: MAPPOState, batch: Transition, key: Key, progress: Array) -> tuple[MAPPOState, dict]:
        """The key is for the order of minibatches."""
        returns, sequences = self._prepare(state, batch)
        orders, gather = minibatches(sequences, key, self.num_epochs, self.minibatch_size)
        lr, adam = value_at(self.lr, progress), Adam(self.grad_clip, epsilon=1e-5)

        def step(carried: tuple[Tree, AdamState], order: Array) -> tuple[tuple[Tree, AdamState], Array]:
            params, optimizer = carried
            gradients, measured = jax.grad(self._loss, has_aux=True)(params, gather(order), progress)
            params, optimizer, norm = adam.step(params, gradients, optimizer, lr)
            return (params, optimizer), jnp.append(measured, norm)

        (params, optimizer), measured = jax.lax.scan(step, (state.params, state.optimizer), orders)
        means = jnp.mean(measured, axis=0)
        metrics = {name: means[i] for i, name in enumerate(METRICS)}
        (old_mean, old_scale), (mean, scale) = _units(state.returns), _units(returns)
        target, value = mean + scale * sequences.target, old_mean + old_scale * sequences.value
        metrics |= {"vf_explained_var": explained_variance(target, value), "cur_lr": lr}
        return MAPPOState(params, optimizer, returns), metrics

    def _prepare(self, state: MAPPOState, batch: Transition) -> tuple[Moments, Batch]:
        """Advantages and targets under the acting parameters, and the batch cut into sequences.

        Also the moments of targets with these, in whose units the critic learns them.
        """
        seen, critic = see(self.spec, batch.obs, self.obs_agent_id), state.params["critic"]
        reward = batch.reward
        if self.team_reward is not None:
            reward = team_reward(reward, self.team_reward)[..., None]
        next_state = see(self.spec, batch.next_obs, self.obs_agent_id).state
        mean, scale = _units(state.returns)
        own_value = self._values(critic, seen.state)
        value, next_value = mean + scale * own_value, mean + scale * self._values(critic, next_state)
        over, cut = batch.terminated[..., None], batch.truncated[..., None]
        advantage = generalized_advantages(reward, value, next_value, over, cut, self.gamma, self.lambda_)
        target = value + advantage
        returns = update_moments(state.returns, target) if self.normalize_values else state.returns
        mean, scale = _units(returns)
        whole = Batch(
            seen.own,
            seen.mask,
            seen.state,
            batch.first,
            batch.carry,
            {name: flat_action(group.action, batch.action[name]) for name, group in self.spec.groups},
            batch.extras["log_prob"],
            standardized(advantage),
            own_value,
            (target - mean) / scale,
        )
        return returns, sequences_with_carry(whole, self.max_seq_len)

    def _loss(self, params: Tree, batch: Batch, progress: Array) -> tuple[Array, Array]:
        """Appendix A: means over the minibatch and its agents."""
        log_probs, entropies = [], []
        for name, group in self.spec.groups:
            carry = jax.tree.map(lambda leaf: merge(leaf, 0), batch.carry[name])
            _, outputs = self._outputs(group, params["actors"][name], carry, batch.own[name], batch.first)
            policy = _distribution(group, outputs, batch.mask[name])
            log_probs.append(policy.log_prob(batch.action[name]))
            entropies.append(policy.entropy())
        log_ratio = jnp.concatenate(log_probs, axis=-1) - batch.log_prob
        ratio = jnp.exp(log_ratio)
        surrogate = clipped_surrogate(ratio, batch.advantage, value_at(self.clip_param, progress))
        kl = ratio - 1.0 - log_ratio  # Schulman's low-variance estimate (k3) from samples
        value = self._values(params["critic"], batch.state)
        error = jnp.square(value - batch.target)
        if self.vf_clip_param is not None:
            near = batch.value + jnp.clip(value - batch.value, -self.vf_clip_param, self.vf_clip_param)
            error = jnp.maximum(error, jnp.square(near - batch.target))
        parts = (-surrogate, error, jnp.concatenate(entropies, axis=-1), kl)
        means = jnp.stack([jnp.mean(part) for part in parts])
        total = means[0] + self.vf_loss_coeff * means[1] - value_at(self.entropy_coeff, progress) * means[2]
        return total, jnp.append(means, total)

    def _outputs(self, group: Group, actor: Tree, carry: Tree, own: Array, first: Array) -> tuple[Tree, Array]:
        """Carries after each step `[L, N * n, ...]`, and an actor's outputs `[L, N, n, outputs]` for what agents see
        `[L, N, n, features]`, from the carry `[N * n, ...]`.
        """
        rows, first = merge(own, 1), jnp.repeat(first, group.size, axis=1)
        carries, outputs, _ = apply_actor_critic(self.model, actor, carry, rows, first)
        return carries, outputs.reshape(*own.shape[:-1], -1)

    def _values(self, critic: Tree, state: Array) -> Array:
        """Values `[L, N, values]` of states `[L, N, features]`, in the critic's units."""
        values = forward(self.critic_model, critic, state.reshape(-1, state.shape[-1]))["value"]
        return values.reshape(*state.shape[:-1], -1)


def _units(moments: Moments) -> tuple[Array, Array]:
    """Mean and standard deviation, `[values]`."""
    return moments.mean, jnp.sqrt(moments.variance + 1e-8)


def _distribution(group: Group, outputs: Array, mask: Array | None) -> Distribution:
    """The policies `[..., n]` that outputs `[..., n, outputs]` describe, over the actions that `mask` allows."""
    return legal_distribution(Spec(group.obs, group.action), outputs, mask)


class MAPPOConfig(OnPolicyConfig):
    """Configuration of MAPPO: `MAPPOConfig().environment("SimpleSpread-v0").training(lr=7e-4).build()`."""

    algorithm_name = "MAPPO"
    summary = "PPO whose critic sees the state of all agents"
    paper = "Yu et al. 2022, arXiv:2103.01955"
    agent_class = MAPPO
    fields_set_elsewhere = (*OnPolicyConfig.fields_set_elsewhere, "critic_model")

    def agent_parts(self) -> dict[str, Any]:
        alone = {**self.model, "vf_share_layers": True}
        without_memory = {name: value for name, value in alone.items() if name not in MEMORIES}
        return {**super().agent_parts(), "model": make_model(alone), "critic_model": make_model(without_memory)}

"""Soft Actor-Critic with memory: SAC (Haarnoja et al. 2018, arXiv:1812.05905) on sequences of steps, its actor and each
of its critics a recurrent network of its own (Ni et al. 2022, arXiv:2110.05038; Yang & Nguyen 2021, arXiv:2110.12628).

What SAC says of a state is said of what each network remembers: the soft value of a history is
V(h) = E_a[min_i Q_i(h, a) - alpha log pi(a|h)] (equation 3), the critics learn towards r + gamma V(h') (equations 5
and 6), the policy maximises V (equations 7 and 9), alpha follows the entropy (equation 18). Discrete actions are summed
over exactly (Christodoulou 2019, arXiv:1910.07207, equations 10 and 12). Critics of continuous actions remember the
actions taken; an action that is only considered branches off for one step.

The sequences are R2D2's (Kapturowski et al. 2019): windows of a replay memory, whose first part only brings the
recurrent states up to date.

Departures:

- sequences instead of whole episodes; they may run across an episode's end, where states begin anew and targets stop;
- with stored states the actor begins from what it remembered when it acted; critics, which do not act, begin empty;
- n-step returns, without the entropies of the steps in between; prioritised replay with R2D2's priorities;
- a truncated episode is bootstrapped from its true last observation, with the recurrent states of that moment;
- actor, critics and temperature move at once: the actor climbs the critics of before the update.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from athlete.algorithms.soft_actor_critic import ExploringActorCritic, SACState
from athlete.core import Array, Key, Model, Transition, Tree, hyper
from athlete.core.ranges import Fraction
from athlete.distributions import Categorical, SquashedGaussian, flat_action
from athlete.models.recurrent import LSTM
from athlete.models.unroll import step_from, unroll
from athlete.ops.features import features
from athlete.ops.masks import action_mask
from athlete.ops.priorities import sequence_priority
from athlete.ops.schedule import value_at
from athlete.ops.td import expected_soft_value, importance_weight, n_step_targets, soft_value
from athlete.ops.temperature import temperature_update
from athlete.ops.tree import merge_time
from athlete.ops.values import batched_index, half_square
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import Discrete


@hyper
class RNNSAC(ExploringActorCritic):
    """Hyperparameters of RNNSAC under RLlib's names. Floats and schedules are traced, the rest shapes the program.

    The memory's windows are `burn_in` steps, `max_seq_len` to learn from and `n_step - 1` for the targets of the last.
    """

    priority_eta: Fraction = 0.9  # of a sequence's largest TD error in its priority; the rest is for their mean
    zero_init_states: bool = True  # sequences begin with an empty memory instead of the stored state
    burn_in: int = 0  # steps of a sequence that only bring the states up to date
    max_seq_len: int = 1  # steps of a sequence to learn from
    policy_model: Model = LSTM()
    q_model: Model = LSTM()

    def update(self, state: SACState, batch: Transition, key: Key, progress: Array) -> tuple[SACState, dict]:
        """The key is split in two: for the next actions, and for those that the actor's loss is estimated with."""
        alpha = state.temperature.alpha()

        def loss_of(networks: tuple[Tree, list[Tree]]) -> tuple[Array, dict]:
            return self._losses(*networks, state.targets, batch, alpha, key)

        (of_actor, of_critics), metrics = jax.grad(loss_of, has_aux=True)((state.actor, state.critics))
        optimizer = self._optimizer()
        critic_lr, actor_lr = value_at(self.critic_lr, progress), value_at(self.actor_lr, progress)
        actor, actor_optimizer, _ = optimizer.step(state.actor, of_actor, state.actor_optimizer, actor_lr)
        critics, critic_optimizer, norm = optimizer.step(state.critics, of_critics, state.critic_optimizer, critic_lr)
        temperature = temperature_update(
            state.temperature, metrics["entropy"], metrics["target_entropy"], value_at(self.alpha_lr, progress)
        )
        state = state._replace(
            actor=actor,
            critics=critics,
            actor_optimizer=actor_optimizer,
            critic_optimizer=critic_optimizer,
            temperature=temperature,
        )
        return self._follow(state), metrics | {"alpha_value": alpha, "grad_gnorm": norm, "cur_lr": critic_lr}

    def _losses(
        self, actor: Tree, critics: list[Tree], targets: list[Tree], batch: Transition, alpha: Array, key: Key
    ) -> tuple[Array, dict]:
        """The losses of actor and critics, added: each has a gradient to its own networks, which so run only once."""
        next_key, key = jax.random.split(key)
        actor_states, outputs = self._unroll_actor(actor, batch)
        critic_states, values = self._unroll_critics(critics, batch)
        target_states, _ = self._unroll_critics(targets, batch)
        weight = importance_weight(batch)
        batch = jax.tree.map(lambda leaf: leaf[self.burn_in :], batch._replace(carry=(), extras=()))

        next_obs, never = features(self.spec.obs, batch.next_obs), jnp.zeros_like(batch.first)
        next_outputs = step_from(self.policy_model, actor, after(actor_states), next_obs)["policy"]
        next_policy = self._distribution(next_outputs, action_mask(self.spec, batch.next_obs))
        next_value, _ = self._soft_value(next_policy, targets, after(target_states), next_obs, never, alpha, next_key)
        target = jax.lax.stop_gradient(n_step_targets(batch, next_value, self.n_step, self.gamma))
        values = values[:, : self.max_seq_len]
        error = values - target
        critic_loss = jnp.mean(weight * jnp.sum(half_square(error), axis=0))

        obs, mask = features(self.spec.obs, batch.obs), action_mask(self.spec, batch.obs)
        held_critics, held_states = jax.lax.stop_gradient((critics, before(critic_states)))
        policy = self._distribution(outputs, mask)
        value, entropy = self._soft_value(policy, held_critics, held_states, obs, batch.first, alpha, key)
        actor_loss = -jnp.mean(value)
        metrics = {
            "critic_loss": critic_loss,
            "actor_loss": actor_loss,
            "entropy": jnp.mean(entropy),
            "target_entropy": self._target_entropy(mask),
            "mean_q": jnp.mean(values),
            "mean_td_error": jnp.mean(error),
            "td_error": sequence_priority(jnp.mean(jnp.abs(error), axis=0), self.priority_eta),
        }
        return critic_loss + actor_loss, metrics

    def _unroll_actor(self, actor: Tree, batch: Transition) -> tuple[Tree, Array]:
        """The actor's states `[T + 1, B, ...]` before and after the T steps behind the burn-in, and its outputs."""
        rows = batch.reward.shape[1]
        stored = jax.tree.map(lambda leaf: leaf[0], batch.carry.model) if not self.zero_init_states else None
        start = self.policy_model.start(rows) if stored is None else stored
        obs = features(self.spec.obs, batch.obs)
        states, heads = unroll(self.policy_model, actor, start, obs, batch.first, self.burn_in)
        return states, heads["policy"]

    def _unroll_critics(self, critics: list[Tree], batch: Transition) -> tuple[list[Tree], Array]:
        """Each critic's states as those of the actor, and their values of the actions taken, `[critics, T, B]`."""
        start, action = self.q_model.start(batch.reward.shape[1]), flat_action(self.spec.action, batch.action)
        inputs = self._critic_inputs(features(self.spec.obs, batch.obs), action)
        found = [unroll(self.q_model, critic, start, inputs, batch.first, self.burn_in) for critic in critics]
        values = [heads["q"] for _, heads in found]
        if isinstance(self.spec.action, Discrete):
            taken = action[self.burn_in :]
            chosen = [batched_index(merge_time(value), merge_time(taken)).reshape(taken.shape) for value in values]
        else:
            chosen = [value[..., 0] for value in values]
        return [states for states, _ in found], jnp.stack(chosen)

    def _critic_inputs(self, obs: Array, action: Array) -> Array:
        """What critics see: continuous actions beside the observation; of discrete ones they value all."""
        return obs if isinstance(self.spec.action, Discrete) else jnp.concatenate([obs, action], axis=-1)

    def _soft_value(
        self,
        policy: Categorical | SquashedGaussian,
        critics: list[Tree],
        carries: list[Tree],
        obs: Array,
        first: Array,
        alpha: Array,
        key: Key,
    ) -> tuple[Array, Array]:
        """Soft values of histories and the policy's entropy there, `[T, B]` each: from one action, or exact.

        `carries` `[T, B, ...]` is what each critic remembers before it sees `obs` `[T, B, n]`.
        """

        def values_of(inputs: Array) -> Array:
            pairs = zip(critics, carries, strict=True)
            return jnp.stack([step_from(self.q_model, critic, carry, inputs, first)["q"] for critic, carry in pairs])

        if isinstance(policy, Categorical):
            entropy = policy.entropy()
            return expected_soft_value(values_of(obs), policy.logits, entropy, alpha), entropy
        action, log_prob = policy.sample_and_log_prob(key)
        return soft_value(values_of(self._critic_inputs(obs, action))[..., 0], log_prob, alpha), -log_prob


def before(states: Tree) -> Tree:
    """Of states before and after T steps, `[T + 1, B, ...]`: those before each."""
    return jax.tree.map(lambda leaf: leaf[:-1], states)


def after(states: Tree) -> Tree:
    """Those after each."""
    return jax.tree.map(lambda leaf: leaf[1:], states)


class RNNSACConfig(ActorCriticConfig):
    """Configuration of RNNSAC: `RNNSACConfig().environment("Pendulum-v1").training(tau=0.01, n_step=3).build()`."""

    algorithm_name = "RNNSAC"
    summary = "SAC whose actor and critics have memory"
    paper = "Ni et al. 2022, arXiv:2110.05038"
    agent_class = RNNSAC
    learns_sequences = True
    exploration_types = ("StochasticSampling", "OrnsteinUhlenbeckNoise", "GaussianNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"use_lstm": True},
        "replay_buffer_config": {"capacity": 100_000, "replay_burn_in": 8},
        "exploration_config": {"type": "StochasticSampling"},
    }

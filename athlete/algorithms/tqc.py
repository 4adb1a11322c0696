"""Truncated Quantile Critics (Kuznetsov et al. 2020, arXiv:2005.04269, algorithm 1): SAC whose critics learn the whole
distribution of returns, so that overestimation can be cut off where it sits.

Each critic gives quantiles (equation 7). Those of all target critics are pooled, the largest are dropped, and the rest
are what each critic learns from, by quantile regression (equations 9 to 11). The policy maximises the mean of all
quantiles, untruncated, and its entropy (equation 12); the temperature is SAC's.

Departures:

- two critics, as in RL-Zoo, where the paper has five, and two layers of 256 units where it has three of 512;
- n-step returns, without the entropies of the steps in between; prioritised replay; both off by default;
- a truncated episode is bootstrapped from its true last observation;
- the temperature's loss is in log alpha, and alpha is that of before the update in all losses.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from athlete.distributions import SquashedGaussian, distribution, flat_action, output_size, shape_action
from athlete.memory.replay import Replay
from athlete.models.critics import critic_values, init_critics
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.quantile import lowest_weights, midpoints, quantile_huber
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.temperature import Temperature, default_target_entropy, temperature_init, temperature_update
from athlete.ops.values import periodic_update
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import require_kind


class TQCState(NamedTuple):
    actor: Tree
    critics: list[Tree]
    targets: list[Tree]
    actor_optimizer: AdamState
    critic_optimizer: AdamState
    temperature: Temperature
    since_sync: Array  # timesteps sampled since the targets were updated


@hyper
class TQC(Agent):
    """Hyperparameters of TQC; those that SAC has mean the same. Floats and schedules are traced."""

    serves = ("continuous",)

    actor_lr: NonNegativeFloat | Schedule = 3e-4
    critic_lr: NonNegativeFloat | Schedule = 3e-4
    alpha_lr: NonNegativeFloat | Schedule = 3e-4  # 0: the temperature stays at initial_alpha
    gamma: Fraction = 0.99
    tau: Fraction = 0.005  # how far the target critics move at each of their updates
    num_critics: PositiveInt = 2
    num_quantiles: PositiveInt = 25  # of each critic
    top_quantiles_to_drop_per_net: NonNegativeInt = 2  # times num_critics of the pooled ones; more is more cautious
    initial_alpha: PositiveFloat = 1.0
    target_entropy: float | None = None  # of the policy, in nats; None: -1 for each number of an action
    n_step: PositiveInt = 1
    grad_clip: Limit | None = None  # of the global norm, actor and critics apart
    target_network_update_freq: NonNegativeFloat = 0.0  # timesteps between two moves of the targets; 0: every update
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1500  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    policy_model: Model = MLP((256, 256), "relu")
    q_model: Model = MLP((256, 256), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> TQC:
        require_kind(type(self).__name__, self.serves, spec.action)
        if self.top_quantiles_to_drop_per_net >= self.num_quantiles:
            raise ValueError(
                f"top_quantiles_to_drop_per_net={self.top_quantiles_to_drop_per_net} leaves nothing of "
                f"num_quantiles={self.num_quantiles} to learn from; make it smaller"
            )
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> TQCState:
        actor_key, critic_key = jax.random.split(key)
        obs, action = self.spec.obs, self.spec.action
        actor = self.policy_model.init(actor_key, obs, {"policy": (output_size(action), 0.01)})
        critics = init_critics(self.q_model, critic_key, obs, action, self.num_critics, self.num_quantiles)
        return TQCState(
            actor,
            critics,
            jax.tree.map(jnp.copy, critics),
            adam_init(actor),
            adam_init(critics),
            temperature_init(self.initial_alpha),
            jnp.zeros(()),
        )

    def view(self, state: TQCState, progress: Array) -> Tree:
        return state.actor

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        policy = self._policy(view, features(self.spec.obs, obs))
        action = policy.sample(key) if explore else policy.mode()
        return shape_action(self.spec.action, action), carry, {}

    def update(self, state: TQCState, batch: Transition, key: Key, progress: Array) -> tuple[TQCState, dict]:
        next_key, key = jax.random.split(key)
        alpha = state.temperature.alpha()
        obs = features(self.spec.obs, jax.tree.map(lambda leaf: leaf[0], batch.obs))
        critics, critic_optimizer, measured = self._learn_values(state, batch, obs, alpha, next_key, progress)

        def actor_loss(actor: Tree) -> tuple[Array, Array]:
            action, log_prob = self._policy(actor, obs).sample_and_log_prob(key)
            value = jnp.mean(critic_values(self.q_model, critics, obs, action), axis=(0, 2))
            return jnp.mean(alpha * log_prob - value), -log_prob

        (loss, entropy), gradients = jax.value_and_grad(actor_loss, has_aux=True)(state.actor)
        actor_lr, alpha_lr = value_at(self.actor_lr, progress), value_at(self.alpha_lr, progress)
        actor, actor_optimizer, _ = adam(state.actor, gradients, state.actor_optimizer, actor_lr, self.grad_clip)
        temperature = temperature_update(state.temperature, entropy, self._target_entropy(), alpha_lr)
        since = state.since_sync + self.timesteps_per_update
        targets, since = periodic_update(state.targets, critics, self.tau, since, self.target_network_update_freq)
        metrics = {
            **measured,
            "actor_loss": loss,
            "alpha_value": alpha,
            "entropy": jnp.mean(entropy),
            "target_entropy": self._target_entropy(),
        }
        return TQCState(actor, critics, targets, actor_optimizer, critic_optimizer, temperature, since), metrics

    def _policy(self, actor: Tree, obs: Array) -> SquashedGaussian:
        """The distribution over flat canonical actions at features `[B, n]`."""
        found: Any = distribution(self.spec.action, forward(self.policy_model, actor, obs)["policy"])
        return SquashedGaussian(found)

    def _target_entropy(self) -> Array:
        given = self.target_entropy
        return jnp.asarray(default_target_entropy(self.spec.action) if given is None else given, jnp.float32)

    def _target(self, state: TQCState, batch: Transition, alpha: Array, key: Key) -> tuple[Array, Array]:
        """The pooled returns `[B, critics * quantiles]` of equation 10, and weights that leave out the largest."""
        steps = n_step_return(batch, self.gamma)
        next_obs = features(self.spec.obs, at_step(batch.next_obs, steps.last))
        action, log_prob = self._policy(state.actor, next_obs).sample_and_log_prob(key)
        quantiles = critic_values(self.q_model, state.targets, next_obs, action)
        pooled = jnp.concatenate(list(quantiles), axis=-1)
        kept = self.num_critics * (self.num_quantiles - self.top_quantiles_to_drop_per_net)
        returns = steps.return_[:, None] + steps.discount[:, None] * (pooled - alpha * log_prob[:, None])
        return returns, lowest_weights(pooled, kept)

    def _learn_values(
        self, state: TQCState, batch: Transition, obs: Array, alpha: Array, key: Key, progress: Array
    ) -> tuple[list[Tree], AdamState, dict]:
        """One step of the critics towards the truncated mixture."""
        target, kept = self._target(state, batch, alpha, key)
        action = flat_action(self.spec.action, batch.action[0])
        weight = batch.extras["weight"][0] if "weight" in batch.extras else 1.0
        fractions = midpoints(self.num_quantiles)

        def loss_of(critics: list[Tree]) -> tuple[Array, Array]:
            quantiles = critic_values(self.q_model, critics, obs, action)
            losses = [quantile_huber(own, target, fractions, weight=kept) / self.num_quantiles for own in quantiles]
            return jnp.mean(weight * sum(losses)), jnp.mean(quantiles, axis=(0, 2))

        (loss, value), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.critics)
        lr = value_at(self.critic_lr, progress)
        critics, optimizer, norm = adam(state.critics, gradients, state.critic_optimizer, lr, self.grad_clip)
        error = value - jnp.sum(kept * target, axis=-1)
        metrics = {
            "critic_loss": loss,
            "mean_q": jnp.mean(value),
            "mean_td_error": jnp.mean(error),
            "grad_gnorm": norm,
            "cur_lr": lr,
            "td_error": jnp.abs(error),
        }
        return critics, optimizer, metrics


class TQCConfig(ActorCriticConfig):
    """Configuration of TQC: `TQCConfig().environment("Pendulum-v1").training(num_critics=5).build()`."""

    algorithm_name = "TQC"
    summary = "SAC whose critics learn quantiles of returns, the largest of which targets leave out"
    paper = "Kuznetsov et al. 2020, arXiv:2005.04269"
    agent_class = TQC
    exploration_types = ("StochasticSampling",)
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"capacity": 1_000_000},
        "exploration_config": {"type": "StochasticSampling"},
    }

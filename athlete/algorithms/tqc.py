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

from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from athlete.algorithms.soft_actor_critic import SACState, TargetedActorCritic
from athlete.core import Array, Key, Spec, Transition, Tree, hyper
from athlete.core.ranges import NonNegativeInt, PositiveInt
from athlete.distributions import flat_action
from athlete.models.critics import critic_values, init_critics
from athlete.ops.td import n_step_transition, truncated_quantile_learning
from athlete.settings.families import ActorCriticConfig


@hyper
class TQC(TargetedActorCritic):
    """Hyperparameters of TQC; those that SAC has mean the same. Floats and schedules are traced."""

    num_critics: PositiveInt = 2
    num_quantiles: PositiveInt = 25  # of each critic
    top_quantiles_to_drop_per_net: NonNegativeInt = 2  # times num_critics of the pooled ones; more is more cautious

    def bind(self, spec: Spec) -> Self:
        if self.top_quantiles_to_drop_per_net >= self.num_quantiles:
            raise ValueError(
                f"top_quantiles_to_drop_per_net={self.top_quantiles_to_drop_per_net} leaves nothing of "
                f"num_quantiles={self.num_quantiles} to learn from; make it smaller"
            )
        return super().bind(spec)

    def init(self, key: Key) -> SACState:
        """The key is split in two: for the actor, and for the critics."""
        actor_key, critic_key = jax.random.split(key)
        critics = init_critics(
            self.q_model, critic_key, self.spec.obs, self.spec.action, self.num_critics, self.num_quantiles
        )
        return self._initial_state(self._initial_actor(actor_key), critics)

    def update(self, state: SACState, batch: Transition, key: Key, progress: Array) -> tuple[SACState, dict]:
        """The key is split in two: for the next actions, and for those that the actor's loss is estimated with."""
        next_key, key = jax.random.split(key)
        alpha = state.temperature.alpha()
        step = n_step_transition(batch, self.spec, self.gamma)
        next_action, log_prob = self._policy(state.actor, step.next_obs).sample_and_log_prob(next_key)
        next_quantiles = critic_values(self.q_model, state.targets, step.next_obs, next_action)
        action, dropped = flat_action(self.spec.action, step.action), self.top_quantiles_to_drop_per_net

        def critic_losses(critics: list[Tree]) -> tuple[Array, dict[str, Array]]:
            quantiles = critic_values(self.q_model, critics, step.obs, action)
            losses, error = truncated_quantile_learning(
                quantiles, step, next_quantiles, -alpha * log_prob, dropped * self.num_critics
            )
            return losses, {
                "mean_q": jnp.mean(quantiles),
                "mean_td_error": jnp.mean(error),
                "td_error": jnp.abs(error),
            }

        state, metrics = self._learn_critics(critic_losses, state, step.weight, progress)

        def actor_losses(actor: Tree) -> tuple[Array, tuple[Array, None]]:
            action, log_prob = self._policy(actor, step.obs).sample_and_log_prob(key)
            value = jnp.mean(critic_values(self.q_model, state.critics, step.obs, action), axis=(0, 2))
            return alpha * log_prob - value, (-log_prob, None)

        return self._finish(actor_losses, state, metrics, step.mask, progress)


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

"""Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783): the agent.

Algorithm S3 of the paper, its workers in step (A2C): all environments play a few steps with the same policy, which
then moves once along

    grad log pi(a | s) (R - V(s)) + beta grad H(pi(s)),

while V moves towards R, the rewards of the steps up to the end of the trajectory and the value of where it led. One
file serves feed-forward and recurrent networks, every space that has a distribution, and all loops.

Departures:

- gradients are synchronous, of one batch with all environments: A3C's settings are taken for this algorithm;
- Adam instead of shared RMSProp, and means over the batch instead of sums: its steps are the same for either;
- `lambda_` below 1 makes generalised advantage estimates (arXiv:1506.02438) of the advantages;
- a truncated episode is bootstrapped from its true last observation, with the recurrent state of that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from athlete.algorithms.on_policy import ActorCriticState, Batch, OnPolicy
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution
from athlete.ops.gradient import Adam, adam_init
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.statistics import explained_variance, weighted_mean
from athlete.settings.checks import is_count
from athlete.settings.families import OnPolicyConfig

METRICS = ("policy_loss", "vf_loss", "entropy", "total_loss")  # in the order of the loss


@hyper
class A2C(OnPolicy):
    """Hyperparameters of A2C under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    lambda_: Fraction = 1.0  # 1: the paper's advantages
    vf_loss_coeff: NonNegativeFloat = 0.5
    entropy_coeff: float | Schedule = 0.01  # beta
    grad_clip: Limit | None = 0.5  # of the global norm

    def init(self, key: Key) -> ActorCriticState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.log_std_init)
        return ActorCriticState(params, adam_init(params, self.optimizer))

    def update(
        self, state: ActorCriticState, batch: Transition, key: Key, progress: Array
    ) -> tuple[ActorCriticState, dict]:
        """The key is not used: nothing here is random."""
        sequences = self._prepare(state.params, batch)
        lr = value_at(self.lr, progress)
        gradients, measured = jax.grad(self._loss, has_aux=True)(state.params, sequences, progress)
        optimizer = Adam(self.grad_clip, epsilon=1e-5, instead=self.optimizer)
        params, moments, norm = optimizer.step(state.params, gradients, state.optimizer, lr)
        metrics = {name: measured[i] for i, name in enumerate(METRICS)}
        metrics["vf_explained_var"] = explained_variance(sequences.target, sequences.value, sequences.weight)
        return ActorCriticState(params, moments), metrics | {"grad_gnorm": norm, "cur_lr": lr}

    def _prepare(self, params: Tree, batch: Transition) -> Batch:
        """Advantages and targets under the acting parameters, and the batch cut into sequences."""
        return self._sequences(params, batch, self.lambda_)

    def _loss(self, params: Tree, batch: Batch, progress: Array) -> tuple[Array, Array]:
        """The paper's gradients as those of one loss, mean over the batch; `METRICS`."""
        _, outputs, value = apply_actor_critic(self.model, params, batch.carry, batch.obs, batch.first)
        policy = legal_distribution(self.spec, outputs, batch.mask)
        policy_loss = -policy.log_prob(batch.action) * batch.advantage
        error = jnp.square(value - batch.target)
        means = weighted_mean(jnp.stack([policy_loss, error, policy.entropy()]), batch.weight, axis=(1, 2))
        weights = jnp.stack([1.0, self.vf_loss_coeff, -value_at(self.entropy_coeff, progress)])
        total = jnp.sum(weights * means)
        return total, jnp.append(means, total)


LEAST_STEPS = 5  # t_max of the paper: shorter trajectories are bootstrapped from values that know too little


class A2CConfig(OnPolicyConfig):
    """Configuration of A2C: `A2CConfig().environment("CartPole-v1").training(lr=1e-3).build()`.

    A small `train_batch_size` makes fewer environments, unless their number is given: each takes `LEAST_STEPS` steps.
    """

    algorithm_name = "A2C"
    summary = (
        "one step of the policy gradient and of the values, in many environments at once; A3C is another name of it, "
        "without asynchronous gradients"
    )
    paper = "Mnih et al. 2016, arXiv:1602.01783"
    agent_class = A2C
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 16,
        "train_batch_size": 256,
        "normalize_rewards": True,  # values of unlike size need learning rates of their own
    }

    def _set(self, section: str | None, settings: Mapping[str, Any]) -> Self:
        super()._set(section, settings)
        if "num_envs_per_worker" not in self._chosen and is_count(self.train_batch_size):
            most = self.defaults["num_envs_per_worker"]
            self._values["num_envs_per_worker"] = max(1, min(most, self.train_batch_size // LEAST_STEPS))
        return self

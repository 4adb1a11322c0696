"""APPO: PPO's surrogate on trajectories of older policies, as RLlib has it, after IMPACT (Luo et al. 2020,
arXiv:1912.00167): the agent.

V-trace (Espeholt et al. 2018, arXiv:1802.01561, equation 1) makes targets and advantages for a target policy, a copy of
the parameters that stands still for `target_update_frequency` updates. The ratio of the clipped surrogate (Schulman
et al. 2017, arXiv:1707.06347, equation 7) is that of the new policy to the target policy,

    r = min(2, mu / pi_target) pi / mu

where mu is the policy that acted; the bound keeps actions that the target policy hardly takes from counting much.

Departures from IMPACT: the bound is 2, as RLlib's, and there is no buffer of batches to learn from again
(`num_epochs` learns from each several times at once). Departures from RLlib: as IMPALA's.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.algorithms.actor_learner import ActorLearner, ActorLearnerConfig
from athlete.algorithms.on_policy import Batch
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveInt
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.sequences import to_sequences
from athlete.ops.statistics import explained_variance, weighted_mean
from athlete.ops.surrogate import clipped_surrogate
from athlete.ops.tree import where
from athlete.ops.values import polyak_update

METRICS = ("policy_loss", "vf_loss", "entropy", "kl", "total_loss")  # in the order of the loss
MOST_OF_BEHAVIOUR = 2.0  # of mu / pi_target


class APPOState(NamedTuple):
    """The state of an `APPO`."""

    params: Tree
    optimizer: AdamState
    target: Tree  # the target policy's parameters
    since: Array  # int32, updates since it last moved
    kl_coeff: Array  # float32, adapted to kl_target; 0 without a penalty


@hyper
class APPO(ActorLearner):
    """Hyperparameters of APPO under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    clip_param: Limit | Schedule = 0.4
    kl_coeff: NonNegativeFloat | None = None  # of KL(target || new) in the loss at the start; None: no penalty
    kl_target: NonNegativeFloat = 0.01  # that kl_coeff is adapted to
    tau: Fraction = 1.0  # how far the target policy moves
    target_update_frequency: PositiveInt = 1  # after how many updates

    def init(self, key: Key) -> APPOState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.log_std_init)
        kl_coeff = jnp.asarray(0.0 if self.kl_coeff is None else self.kl_coeff, jnp.float32)
        copied = jax.tree.map(jnp.copy, params)
        return APPOState(params, adam_init(params, self.optimizer), copied, jnp.zeros((), jnp.int32), kl_coeff)

    def update(self, state: APPOState, batch: Transition, key: Key, progress: Array) -> tuple[APPOState, dict]:
        """The key is not used: nothing here is random."""
        lr, optimizer = value_at(self.lr, progress), Adam(self.grad_clip, epsilon=1e-5, instead=self.optimizer)
        mu = to_sequences(batch.extras["log_prob"], self.max_seq_len)

        def step(carried: tuple[Tree, AdamState], _: None) -> tuple[tuple[Tree, AdamState], Array]:
            params, moments = carried
            sequences = self._prepare(params, state.target, batch)
            gradients, measured = jax.grad(self._loss, has_aux=True)(
                params, state.target, state.kl_coeff, sequences, mu, progress
            )
            params, moments, norm = optimizer.step(params, gradients, moments, lr)
            explained = explained_variance(sequences.target, sequences.value, sequences.weight)
            return (params, moments), jnp.append(measured, jnp.stack([explained, norm]))

        carried, measured = jax.lax.scan(step, (state.params, state.optimizer), None, length=self.num_epochs)
        means = jnp.mean(measured, axis=0)
        names = (*METRICS, "vf_explained_var", "grad_gnorm")
        metrics = {name: means[i] for i, name in enumerate(names)}
        state = self._after(APPOState(*carried, *state[2:]), metrics["kl"])
        return state, metrics | {"cur_lr": lr, "cur_kl_coeff": state.kl_coeff}

    def _after(self, state: APPOState, kl: Array) -> APPOState:
        """The state with the target policy moved, where that is due, and the coefficient adapted as PPO's."""
        since = state.since + 1
        due = since >= self.target_update_frequency
        target = where(due, polyak_update(state.target, state.params, self.tau), state.target)
        larger = jnp.where(kl > 2.0 * self.kl_target, state.kl_coeff * 1.5, state.kl_coeff)
        kl_coeff = jnp.where(kl < 0.5 * self.kl_target, larger * 0.5, larger)
        return state._replace(target=target, since=jnp.where(due, 0, since), kl_coeff=kl_coeff)

    def _loss(
        self, params: Tree, target: Tree, kl_coeff: Array, batch: Batch, mu: Array, progress: Array
    ) -> tuple[Array, Array]:
        """The clipped surrogate, the values' error, the entropy and the KL penalty, mean over the batch; `METRICS`."""
        _, outputs, value = apply_actor_critic(self.model, params, batch.carry, batch.obs, batch.first)
        _, target_outputs, _ = apply_actor_critic(self.model, target, batch.carry, batch.obs, batch.first)
        policy, old = (legal_distribution(self.spec, each, batch.mask) for each in (outputs, target_outputs))
        behaviour = jnp.minimum(MOST_OF_BEHAVIOUR, jnp.exp(mu - old.log_prob(batch.action)))
        ratio = behaviour * jnp.exp(policy.log_prob(batch.action) - mu)
        surrogate = clipped_surrogate(ratio, batch.advantage, value_at(self.clip_param, progress))
        terms = jnp.stack([-surrogate, jnp.square(value - batch.target), policy.entropy(), old.kl(policy)])
        means = weighted_mean(terms, batch.weight, axis=(1, 2))
        weights = jnp.stack([1.0, self.vf_loss_coeff, -value_at(self.entropy_coeff, progress), kl_coeff])
        total = jnp.sum(weights * means)
        return total, jnp.append(means, total)


class APPOConfig(ActorLearnerConfig):
    """Configuration of APPO: `APPOConfig().environment("CartPole-v1").training(lr=1e-3).build()`."""

    algorithm_name = "APPO"
    summary = "PPO on trajectories of older policies, which V-trace corrects for, around a target policy"
    paper = "Luo et al. 2020, arXiv:1912.00167"
    agent_class = APPO

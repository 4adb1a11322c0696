"""IMPALA, the importance weighted actor-learner architecture (Espeholt et al. 2018, arXiv:1802.01561): the agent.

The policy moves along rho_s grad log pi(a_s | x_s) (r_s + gamma v_{s+1} - V(x_s)) and the gradient of its entropy, the
values towards the V-trace targets v_s of equation 1 (section 4.2).

Departures:

- Adam instead of RMSProp, and means over the batch instead of sums;
- a truncated episode is bootstrapped from its true last observation, with the recurrent state of that moment;
- recurrent networks learn through `max_seq_len` steps, each sequence from the state that was there when it was played;
- `num_epochs` above 1 takes several steps on a batch, with targets and ratios anew for each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from athlete.algorithms.actor_learner import ActorLearner, ActorLearnerConfig
from athlete.algorithms.on_policy import ActorCriticState, Batch
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution
from athlete.ops.gradient import Adam, adam_init
from athlete.ops.schedule import value_at
from athlete.ops.statistics import explained_variance, weighted_mean

METRICS = ("policy_loss", "vf_loss", "entropy", "total_loss")  # in the order of the loss


@hyper
class IMPALA(ActorLearner):
    """Hyperparameters of IMPALA under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    def init(self, key: Key) -> ActorCriticState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.log_std_init)
        return ActorCriticState(params, adam_init(params, self.optimizer))

    def update(
        self, state: ActorCriticState, batch: Transition, key: Key, progress: Array
    ) -> tuple[ActorCriticState, dict]:
        """The key is not used: nothing here is random."""
        lr, optimizer = value_at(self.lr, progress), Adam(self.grad_clip, epsilon=1e-5, instead=self.optimizer)

        def step(state: ActorCriticState, _: None) -> tuple[ActorCriticState, Array]:
            sequences = self._prepare(state.params, state.params, batch)
            gradients, measured = jax.grad(self._loss, has_aux=True)(state.params, sequences, progress)
            params, moments, norm = optimizer.step(state.params, gradients, state.optimizer, lr)
            explained = explained_variance(sequences.target, sequences.value, sequences.weight)
            return ActorCriticState(params, moments), jnp.append(measured, jnp.stack([explained, norm]))

        state, measured = jax.lax.scan(step, state, None, length=self.num_epochs)
        means = jnp.mean(measured, axis=0)
        names = (*METRICS, "vf_explained_var", "grad_gnorm")
        return state, {name: means[i] for i, name in enumerate(names)} | {"cur_lr": lr}

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


class IMPALAConfig(ActorLearnerConfig):
    """Configuration of IMPALA: `IMPALAConfig().environment("CartPole-v1").training(lr=1e-3).build()`."""

    algorithm_name = "IMPALA"
    summary = "actors with an older policy and a learner that corrects for it by V-trace"
    paper = "Espeholt et al. 2018, arXiv:1802.01561"
    agent_class = IMPALA

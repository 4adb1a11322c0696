"""Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779), CQL(H) on SAC.

SAC whose critics are also paid for saying less of actions in general and more of those that were done: to their loss
comes min_q_weight (log sum_a exp Q(s, a) - Q(s, a_data)) (equation 4), so that nothing is believed that the data do not
hold. The sum is over all discrete actions; over continuous ones it is estimated with `num_actions` uniform actions and
as many of the policy at s and at s', each divided by its density (appendix F). `lagrangian` learns the weight so that
the difference comes to `lagrangian_thresh` (equation 30). The actor clones for the first `bc_iters` updates.

Departures, the first three as in the authors' code and RLlib's:

- the squared error is not halved as it is in equation 4: `min_q_weight` counts half of what it does there;
- while the actor clones, its entropy is paid for too;
- `deterministic_backup`: targets are without the entropy of the next action;
- critics, actor and temperature are stepped in this order; RLlib steps the critics last;
- discrete actions have SAC's discrete policy where the paper has none beside Q.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.algorithms.soft_actor_critic import ForwardActorCritic
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from athlete.distributions import flat_action
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import masked
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import NStepTransition, n_step_transition, td_error
from athlete.ops.temperature import Temperature
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import Discrete

LARGEST_MULTIPLIER = 1e6


class CQLState(NamedTuple):
    """The state of a `CQL`: SAC's, and the multiplier of `lagrangian`."""

    actor: Tree
    critics: list[Tree]
    targets: list[Tree]
    actor_optimizer: AdamState
    critic_optimizer: AdamState  # its count is that of all updates
    temperature: Temperature
    since_sync: Array
    log_multiplier: Array  # float32 scalar
    multiplier_optimizer: AdamState


@hyper
class CQL(ForwardActorCritic):
    """Hyperparameters of CQL under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    actor_lr: NonNegativeFloat | Schedule = 1e-4
    critic_lr: NonNegativeFloat | Schedule = 1e-3
    alpha_lr: NonNegativeFloat | Schedule = 1e-3  # 0: the temperature stays at initial_alpha
    bc_iters: NonNegativeInt = 20_000  # updates at the start in which the actor clones what was done
    temperature: PositiveFloat = 1.0  # of the sum over actions: near 0 it is their maximum
    num_actions: PositiveInt = 10  # of each of three kinds, in the estimate of the sum over continuous actions
    min_q_weight: NonNegativeFloat = 5.0  # of the penalty
    lagrangian: bool = False  # learn what the penalty counts
    lagrangian_thresh: NonNegativeFloat = 5.0  # what the penalty is steered to then
    deterministic_backup: bool = True  # targets are without the next action's entropy

    def init(self, key: Key) -> CQLState:  # type: ignore[override]
        one = jnp.zeros(())
        return CQLState(*super().init(key), one, adam_init(one))  # type: ignore[call-arg]

    def update(self, state: CQLState, batch: Transition, key: Key, progress: Array) -> tuple[CQLState, dict]:
        """The key is split in three: for the next actions, for those of the penalty, and for those that the actor's
        loss is estimated with.
        """
        next_key, penalty_key, key = jax.random.split(key, 3)
        alpha = state.temperature.alpha()
        step = n_step_transition(batch, self.spec, self.gamma)
        next_policy = self._policy(state.actor, step.next_obs, step.next_mask)
        paid = jnp.zeros(()) if self.deterministic_backup else alpha
        next_value, _ = self._soft_value(next_policy, state.targets, step.next_obs, paid, next_key)
        action = flat_action(self.spec.action, step.action)
        log_sum_of = self._log_sum(state, step, penalty_key)
        multiplier = jnp.minimum(jnp.exp(state.log_multiplier), LARGEST_MULTIPLIER)

        def critic_losses(critics: list[Tree]) -> tuple[Array, dict[str, Array]]:
            values = self._values(critics, step.obs, action)
            error = td_error(values, step, next_value)
            penalty = self.min_q_weight * (log_sum_of(critics) - values)
            cost = multiplier * (penalty - self.lagrangian_thresh) if self.lagrangian else penalty
            return jnp.sum(jnp.square(error) + cost, axis=0), {
                "mean_q": jnp.mean(values),
                "mean_td_error": jnp.mean(error),
                "td_error": jnp.mean(jnp.abs(error), axis=0),
                "cql_penalty": jnp.mean(penalty),
            }

        state, metrics = self._learn_critics(critic_losses, state, step.weight, progress)
        state = self._step_multiplier(state, metrics["cql_penalty"], progress)
        clones = state.critic_optimizer.count <= self.bc_iters

        def actor_losses(actor: Tree) -> tuple[Array, tuple[Array, None]]:
            policy = self._policy(actor, step.obs, step.mask)
            value, entropy = self._soft_value(policy, state.critics, step.obs, alpha, key)
            cloned = policy.log_prob(action) + alpha * entropy
            return -jnp.where(clones, cloned, value), (entropy, None)

        return self._finish(actor_losses, state, metrics, step.mask, progress)

    def _log_sum(self, state: CQLState, step: NStepTransition, key: Key) -> Any:
        """A function from critics to temperature log sum_a exp(Q(s, a) / temperature), `[critics, B]`."""
        if isinstance(self.spec.action, Discrete):

            def over_all(critics: list[Tree]) -> Array:
                values = masked(self._values(critics, step.obs) / self.temperature, step.mask)
                return self.temperature * jax.nn.logsumexp(values, axis=-1)

            return over_all
        rows, number = step.obs.shape[0], self.num_actions
        uniform_key, now_key, next_key = jax.random.split(key, 3)
        size = self.spec.action.low.size  # type: ignore[attr-defined]
        uniform = jax.random.uniform(uniform_key, (rows * number, size), minval=-1.0, maxval=1.0)
        obs, next_obs = (jnp.repeat(part, number, axis=0) for part in (step.obs, step.next_obs))
        now, now_density = self._policy(state.actor, obs).sample_and_log_prob(now_key)
        later, later_density = self._policy(state.actor, next_obs).sample_and_log_prob(next_key)
        actions = jnp.concatenate([uniform, now, later])
        densities = jnp.concatenate([jnp.full(rows * number, size * math.log(0.5)), now_density, later_density])
        seen = jnp.concatenate([obs] * 3)

        def over_drawn(critics: list[Tree]) -> Array:
            values = self._values(critics, seen, actions) / self.temperature - densities
            return self.temperature * jax.nn.logsumexp(values.reshape(-1, 3, rows, number), axis=(1, 3))

        return over_drawn

    def _step_multiplier(self, state: CQLState, penalty: Array, progress: Array) -> CQLState:
        """One step of the multiplier up where the penalty is above `lagrangian_thresh`, and down where it is below."""
        if not self.lagrangian:
            return state
        slope = jnp.minimum(jnp.exp(state.log_multiplier), LARGEST_MULTIPLIER) * (self.lagrangian_thresh - penalty)
        log_multiplier, optimizer, _ = Adam(None).step(
            state.log_multiplier, slope, state.multiplier_optimizer, value_at(self.critic_lr, progress)
        )
        return state._replace(log_multiplier=log_multiplier, multiplier_optimizer=optimizer)


class CQLConfig(ActorCriticConfig):
    """Configuration of CQL: `CQLConfig().offline_data(input_="data.safetensors").training(bc_iters=1000).build()`."""

    algorithm_name = "CQL"
    summary = "SAC whose critics say less of actions that nobody has tried"
    paper = "Kumar et al. 2020, arXiv:2006.04779"
    agent_class = CQL
    offline = True
    exploration_types = ("StochasticSampling", "OrnsteinUhlenbeckNoise", "GaussianNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 25_600,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 1_000_000},
        "exploration_config": {"type": "StochasticSampling"},
    }

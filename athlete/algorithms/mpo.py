"""Maximum a posteriori policy optimisation (MPO; Abdolmaleki et al. 2018, arXiv:1806.06920), with the decoupled
constraints of Abdolmaleki et al. 2018, arXiv:1812.02256.

The E-step asks which of a state's actions are worth more: q(a | s) in proportion to pi'(a | s) exp(Q'(s, a) / eta),
where eta keeps q near the policy of the target network. The M-step makes these more probable while the policy stays
within a trust region of that target: of the mean and of the standard deviation apart, or of the probabilities of
discrete actions, with a multiplier for each constraint.

Departures:

- critics learn n-step targets, one step by default, where the paper has Retrace; two critics, of whose values the
  smaller one counts (`twin_q`), where it has one;
- actions of a `Box` come from normal distributions whose means are within the bounds, by a tanh; what is drawn beyond
  the bounds is clipped for the environment and for the critics; there are standard deviations, and no covariance;
- of discrete actions the sums are exact: none are drawn for the updates;
- the targets of actor and critics are copied at the same time.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from athlete.distributions import Categorical, DiagonalGaussian, distribution, flat_action, output_size, shape_action
from athlete.memory.replay import Replay
from athlete.models.critics import critic_values, init_critics
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import action_mask, masked
from athlete.ops.mpo import candidate_weights, multiplier_dual, temperature_dual
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import NStepTransition, n_step_transition, td_error
from athlete.ops.values import batched_index, half_square, periodic_update
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import Discrete, require_kind


class Networks(NamedTuple):
    """Networks of both kinds."""

    actor: Tree
    critics: list[Tree]


class Duals(NamedTuple):
    """The dual variables, as logarithms so that they stay positive."""

    temperature: Array  # log eta
    multipliers: Array  # log alpha of each constraint, [1] or [2]


class MPOState(NamedTuple):
    """The state of an `MPO`."""

    online: Networks
    target: Networks
    actor_optimizer: AdamState
    critic_optimizer: AdamState
    duals: Duals
    dual_optimizer: AdamState
    since_sync: Array  # float32 scalar: timesteps sampled since the targets were updated


class Candidates(NamedTuple):
    """Actions of a state that are weighed against one another."""

    action: Array  # [N, B, ...], flat
    log_prior: Array  # [N, B]
    value: Array  # [N, B], by the target critics


@hyper
class MPO(Agent):
    """Hyperparameters of MPO. Floats and schedules are traced, the rest shapes the program."""

    serves: ClassVar[tuple[str, ...]] = ("continuous", "discrete")

    actor_lr: NonNegativeFloat | Schedule = 3e-4
    critic_lr: NonNegativeFloat | Schedule = 3e-4
    dual_lr: NonNegativeFloat | Schedule = 1e-2
    gamma: Fraction = 0.99
    num_samples: PositiveInt = 20  # actions drawn for each state, where they are continuous
    epsilon: PositiveFloat = 0.1  # how far weights may be from the target policy, in nats
    epsilon_mean: PositiveFloat = 0.0025  # how far the mean, or the discrete policy, may go from the target's
    epsilon_stddev: NonNegativeFloat = 1e-5  # how far the standard deviation may go
    initial_temperature: PositiveFloat = 1.0
    initial_multiplier: PositiveFloat = 10.0  # of each constraint
    twin_q: bool = True
    n_step: PositiveInt = 1
    tau: Fraction = 1.0  # how far the targets move at each of their updates
    target_network_update_freq: NonNegativeFloat = 100.0  # timesteps between two of them
    grad_clip: Limit | None = 40.0  # of the global norm, actor and critics apart
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1500  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    policy_model: Model = MLP((256, 256), "relu")
    q_model: Model = MLP((256, 256), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> MPOState:
        """The key is split in two: for the actor, and for the critics."""
        actor_key, critic_key = jax.random.split(key)
        actor = self.policy_model.init(actor_key, self.spec.obs, {"policy": (output_size(self.spec.action), 0.01)})
        critics = init_critics(self.q_model, critic_key, self.spec.obs, self.spec.action, 2 if self.twin_q else 1)
        online = Networks(actor, critics)
        constraints = 1 if isinstance(self.spec.action, Discrete) else 2
        start = Duals(jnp.asarray(self.initial_temperature), jnp.full(constraints, self.initial_multiplier))
        duals = jax.tree.map(jnp.log, start)
        target = jax.tree.map(jnp.copy, online)
        return MPOState(online, target, adam_init(actor), adam_init(critics), duals, adam_init(duals), jnp.zeros(()))

    def view(self, state: MPOState, progress: Array) -> Tree:
        return state.online.actor

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling actions."""
        policy = self._policy(view, features(self.spec.obs, obs), action_mask(self.spec, obs))
        return shape_action(self.spec.action, policy.sample(key) if explore else policy.mode()), carry, {}

    def distribution(self, view: Tree, carry: Tree, obs: Tree, first: Array) -> Any:
        return self._policy(view, features(self.spec.obs, obs), action_mask(self.spec, obs))

    def update(self, state: MPOState, batch: Transition, key: Key, progress: Array) -> tuple[MPOState, dict]:
        """The key is split in two: for the candidates of the next states, and for those of the states."""
        next_key, key = jax.random.split(key)
        step = n_step_transition(batch, self.spec, self.gamma)
        critics, critic_optimizer, metrics = self._learn_critics(state, step, next_key, progress)
        policy = self._policy(state.target.actor, step.obs, step.mask)
        candidates = self._candidates(policy, state.target.critics, step.obs, key)
        weight = candidate_weights(candidates.value, candidates.log_prior, jnp.exp(state.duals.temperature))
        multipliers = jnp.exp(state.duals.multipliers)

        def actor_loss(actor: Tree) -> tuple[Array, tuple[Array, Array]]:
            new = self._policy(actor, step.obs, step.mask)
            parts = _decoupled(policy, new)
            likelihood = sum(part.log_prob(candidates.action) for part in parts)
            divergence = jnp.stack([jnp.mean(policy.kl(part)) for part in parts])
            loss = -jnp.mean(jnp.sum(weight * likelihood, axis=0)) + jnp.sum(multipliers * divergence)
            return loss, (divergence, jnp.mean(new.entropy()))

        optimizer, lr = Adam(self.grad_clip), value_at(self.actor_lr, progress)
        (loss, (divergence, entropy)), slopes = jax.value_and_grad(actor_loss, has_aux=True)(state.online.actor)
        actor, actor_optimizer, _ = optimizer.step(state.online.actor, slopes, state.actor_optimizer, lr)
        duals, dual_optimizer = self._learn_duals(state, candidates, divergence, progress)
        since, online = state.since_sync + self.timesteps_per_update, Networks(actor, critics)
        target, since = periodic_update(state.target, online, self.tau, since, self.target_network_update_freq)
        metrics |= {
            "actor_loss": loss,
            "entropy": entropy,
            "kl": jnp.sum(divergence),
            "temperature": jnp.exp(state.duals.temperature),
        }
        return MPOState(online, target, actor_optimizer, critic_optimizer, duals, dual_optimizer, since), metrics

    def _learn_critics(self, state: MPOState, step: NStepTransition, key: Key, progress: Array) -> tuple:
        """One step of the critics towards the expected value of the target policy's next action."""
        next_policy = self._policy(state.target.actor, step.next_obs, step.next_mask)
        following = self._candidates(next_policy, state.target.critics, step.next_obs, key)
        next_value = jnp.sum(jnp.exp(following.log_prior) * following.value, axis=0)
        action = flat_action(self.spec.action, step.action)

        def losses_of(critics: list[Tree]) -> tuple[Array, dict[str, Array]]:
            values = self._values(critics, step.obs, action)
            error = td_error(values, step, next_value)
            return jnp.sum(half_square(error), axis=0), {
                "mean_q": jnp.mean(values),
                "mean_td_error": jnp.mean(error),
                "td_error": jnp.mean(jnp.abs(error), axis=0),
            }

        lr = value_at(self.critic_lr, progress)
        learned = Adam(self.grad_clip).minimize(
            losses_of, state.online.critics, state.critic_optimizer, lr, step.weight
        )
        metrics = {"critic_loss": learned.loss, **learned.aux, "grad_gnorm": learned.norm, "cur_lr": lr}
        return learned.params, learned.state, metrics

    def _learn_duals(
        self, state: MPOState, candidates: Candidates, divergence: Array, progress: Array
    ) -> tuple[Duals, AdamState]:
        """One step of the temperature and of the multipliers, in their logarithms."""
        limits = jnp.stack([self.epsilon_mean, self.epsilon_stddev])[: len(divergence)]

        def loss(duals: Duals) -> Array:
            eta, alpha = jnp.exp(duals.temperature), jnp.exp(duals.multipliers)
            dual = temperature_dual(candidates.value, candidates.log_prior, eta, self.epsilon)
            return dual + multiplier_dual(divergence, alpha, limits)

        slopes = jax.grad(loss)(state.duals)
        lr = value_at(self.dual_lr, progress)
        duals, optimizer, _ = Adam(grad_clip=None).step(state.duals, slopes, state.dual_optimizer, lr)
        return duals, optimizer

    def _candidates(self, policy: Any, critics: list[Tree], obs: Array, key: Key) -> Candidates:
        """All discrete actions, or `num_samples` drawn from the policy, with their values at features `[B, n]`."""
        if isinstance(policy, Categorical):
            number = policy.logits.shape[-1]
            action = jnp.broadcast_to(jnp.arange(number)[:, None], (number, len(obs)))
            values = jnp.min(jnp.stack([forward(self.q_model, critic, obs)["q"] for critic in critics]), axis=0)
            return Candidates(action, jax.nn.log_softmax(policy.logits).T, values.T)
        noise = jax.random.normal(key, (self.num_samples, *policy.mean.shape))
        action = policy.mean + jnp.exp(policy.log_std) * noise
        tiled = jnp.broadcast_to(obs, (self.num_samples, *obs.shape)).reshape(-1, obs.shape[-1])
        values = jnp.min(self._values(critics, tiled, action.reshape(-1, action.shape[-1])), axis=0)
        prior = jnp.full((self.num_samples, len(obs)), -jnp.log(float(self.num_samples)))
        return Candidates(action, prior, values.reshape(prior.shape))

    def _policy(self, actor: Tree, obs: Array, mask: Array | None) -> Any:
        """The distribution over flat canonical actions at features `[B, n]`."""
        found: Any = distribution(self.spec.action, masked(forward(self.policy_model, actor, obs)["policy"], mask))
        return found if isinstance(found, Categorical) else found._replace(mean=jnp.tanh(found.mean))

    def _values(self, critics: list[Tree], obs: Array, action: Array) -> Array:
        """Values `[critics, B]` of flat actions, those of a Box within its bounds."""
        if isinstance(self.spec.action, Discrete):
            return jnp.stack([batched_index(forward(self.q_model, critic, obs)["q"], action) for critic in critics])
        return critic_values(self.q_model, critics, obs, jnp.clip(action, -1.0, 1.0))[..., 0]


def _decoupled(old: Any, new: Any) -> list[Any]:
    """The new policy, in parts that each move one thing away from the old one (arXiv:1812.02256, section 4.2)."""
    if isinstance(new, Categorical):
        return [new]
    return [DiagonalGaussian(new.mean, old.log_std), DiagonalGaussian(old.mean, new.log_std)]


class MPOConfig(ActorCriticConfig):
    """Configuration of MPO: `MPOConfig().environment("Pendulum-v1").training(num_samples=10).build()`."""

    algorithm_name = "MPO"
    summary = "a policy that is drawn to its better actions, within a trust region, by two critics"
    paper = "Abdolmaleki et al. 2018, arXiv:1806.06920"
    agent_class = MPO
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

"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv:1812.05905, algorithm 1), also for discrete actions (Christodoulou
2019, arXiv:1910.07207).

One quantity carries both kinds of actions, the soft value of a state: V(s) = E_a[min_i Q_i(s, a) - alpha log pi(a|s)]
(equation 3), estimated with one reparameterised action of a squashed Gaussian (equation 9), or summed exactly over
discrete actions (Christodoulou, equation 10). The critics learn towards r + gamma V(s') (equations 5 and 6), the policy
maximises V (equations 7 and 9; Christodoulou, equation 12), and alpha follows the entropy (equation 18).

Departures:

- n-step returns, without the entropies of the steps in between; prioritised replay; noise on top of sampled actions;
  all off by default;
- a truncated episode is bootstrapped from its true last observation;
- the temperature's loss is in log alpha, and alpha is that of before the update in all losses;
- the squared errors of the critics are added, not averaged, over critics, as in most codes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import ActingCarry, Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from athlete.distributions import Categorical, SquashedGaussian, distribution, flat_action, output_size, shape_action
from athlete.exploration import ActingView, Exploration, StochasticSampling, require_fitting_noise
from athlete.memory.replay import Replay
from athlete.models.critics import critic_values, init_critics
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import AdamState, adam, adam_init
from athlete.ops.masks import action_mask, masked
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.temperature import Temperature, default_target_entropy, temperature_init, temperature_update
from athlete.ops.values import batched_index, periodic_update
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import Discrete, require_kind


class SACState(NamedTuple):
    actor: Tree
    critics: list[Tree]
    targets: list[Tree]
    actor_optimizer: AdamState
    critic_optimizer: AdamState
    temperature: Temperature
    since_sync: Array  # timesteps sampled since the targets were updated


@hyper
class SAC(Agent):
    """Hyperparameters of SAC under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("continuous", "discrete")

    actor_lr: NonNegativeFloat | Schedule = 3e-4
    critic_lr: NonNegativeFloat | Schedule = 3e-4
    alpha_lr: NonNegativeFloat | Schedule = 3e-4  # 0: the temperature stays at initial_alpha
    gamma: Fraction = 0.99
    tau: Fraction = 0.005  # how far the target critics move at each of their updates
    twin_q: bool = True  # the smaller value of two critics counts
    initial_alpha: PositiveFloat = 1.0
    target_entropy: float | None = None  # of the policy, in nats; None: what the papers take
    n_step: PositiveInt = 1
    grad_clip: Limit | None = None  # of the global norm, actor and critics apart
    target_network_update_freq: NonNegativeFloat = 0.0  # timesteps between two moves of the targets; 0: every update
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1500  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    exploration: Exploration = StochasticSampling()  # noise on top of the actions sampled, where these are continuous
    policy_model: Model = MLP((256, 256), "relu")
    q_model: Model = MLP((256, 256), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> SAC:
        require_kind(type(self).__name__, self.serves, spec.action)
        require_fitting_noise(self.exploration, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> SACState:
        actor_key, critic_key = jax.random.split(key)
        obs, action = self.spec
        actor = self.policy_model.init(actor_key, obs, {"policy": (output_size(action), 0.01)})
        critics = init_critics(self.q_model, critic_key, obs, action, 2 if self.twin_q else 1)
        return SACState(
            actor,
            critics,
            jax.tree.map(jnp.copy, critics),
            adam_init(actor),
            adam_init(critics),
            temperature_init(self.initial_alpha),
            jnp.zeros(()),
        )

    def view(self, state: SACState, progress: Array) -> ActingView:
        return ActingView(state.actor, self.exploration.level(progress))

    def start(self, view: ActingView, rows: int, key: Key) -> ActingCarry:
        return ActingCarry((), self.exploration.start(rows, output_size(self.spec.action) // 2, key))

    def act(
        self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        policy = self._policy(view.params, obs)
        if not explore:
            return shape_action(self.spec.action, policy.mode()), carry, {}
        sample_key, noise_key = jax.random.split(key)
        action, noise = self.exploration.disturb(
            policy.sample(sample_key), view.level, carry.exploration, first, noise_key
        )
        return shape_action(self.spec.action, action), ActingCarry((), noise), {}

    def update(self, state: SACState, batch: Transition, key: Key, progress: Array) -> tuple[SACState, dict]:
        next_key, key = jax.random.split(key)
        alpha = state.temperature.alpha()
        target = self._target(state, batch, alpha, next_key)
        obs = jax.tree.map(lambda leaf: leaf[0], batch.obs)
        action = flat_action(self.spec.action, batch.action[0])
        weight = batch.extras["weight"][0] if "weight" in batch.extras else 1.0

        def critic_loss(critics: list[Tree]) -> tuple[Array, Array]:
            error = self._values(critics, obs, action) - target
            return 0.5 * jnp.mean(jnp.sum(weight * error * error, axis=0)), error

        (loss, error), gradients = jax.value_and_grad(critic_loss, has_aux=True)(state.critics)
        critic_lr, actor_lr = value_at(self.critic_lr, progress), value_at(self.actor_lr, progress)
        critics, critic_optimizer, norm = adam(
            state.critics, gradients, state.critic_optimizer, critic_lr, self.grad_clip
        )

        def actor_loss(actor: Tree) -> tuple[Array, Array]:
            value, entropy = self._soft_value(actor, critics, obs, alpha, key)
            return -jnp.mean(value), entropy

        (policy_loss, entropy), gradients = jax.value_and_grad(actor_loss, has_aux=True)(state.actor)
        actor, actor_optimizer, _ = adam(state.actor, gradients, state.actor_optimizer, actor_lr, self.grad_clip)
        alpha_lr = value_at(self.alpha_lr, progress)
        target_entropy = self._target_entropy(obs)
        temperature = temperature_update(state.temperature, entropy, target_entropy, alpha_lr)
        since = state.since_sync + self.timesteps_per_update
        targets, since = periodic_update(state.targets, critics, self.tau, since, self.target_network_update_freq)
        metrics = {
            "critic_loss": loss,
            "actor_loss": policy_loss,
            "alpha_value": alpha,
            "entropy": jnp.mean(entropy),
            "target_entropy": target_entropy,
            "mean_q": jnp.mean(target) + jnp.mean(error),
            "mean_td_error": jnp.mean(error),
            "grad_gnorm": norm,
            "cur_lr": critic_lr,
            "td_error": jnp.mean(jnp.abs(error), axis=0),
        }
        return SACState(actor, critics, targets, actor_optimizer, critic_optimizer, temperature, since), metrics

    def _policy(self, actor: Tree, obs: Tree) -> Categorical | SquashedGaussian:
        """The distribution over flat canonical actions at observations `[B, ...]`."""
        outputs = forward(self.policy_model, actor, features(self.spec.obs, obs))["policy"]
        found: Any = distribution(self.spec.action, masked(outputs, action_mask(self.spec, obs)))
        return found if isinstance(self.spec.action, Discrete) else SquashedGaussian(found)

    def _values(self, critics: list[Tree], obs: Tree, action: Array | None = None) -> Array:
        """Values of the actions given, `[critics, B]`; for discrete ones without `action` of all, `[critics, B, n]`."""
        obs = features(self.spec.obs, obs)
        if not isinstance(self.spec.action, Discrete):
            return critic_values(self.q_model, critics, obs, action)[..., 0]
        values = [forward(self.q_model, critic, obs)["q"] for critic in critics]
        return jnp.stack(values if action is None else [batched_index(value, action) for value in values])

    def _soft_value(self, actor: Tree, critics: list[Tree], obs: Tree, alpha: Array, key: Key) -> tuple[Array, Array]:
        """The soft value of states and the policy's entropy there, `[B]` each: estimated from one action or exact."""
        policy = self._policy(actor, obs)
        if isinstance(policy, Categorical):
            value = jnp.min(self._values(critics, obs), axis=0)
            entropy = policy.entropy()
            return jnp.sum(jax.nn.softmax(policy.logits) * value, axis=-1) + alpha * entropy, entropy
        action, log_prob = policy.sample_and_log_prob(key)
        return jnp.min(self._values(critics, obs, action), axis=0) - alpha * log_prob, -log_prob

    def _target(self, state: SACState, batch: Transition, alpha: Array, key: Key) -> Array:
        """What the critics should have said, `[B]`."""
        steps = n_step_return(batch, self.gamma)
        next_obs = at_step(batch.next_obs, steps.last)
        value, _ = self._soft_value(state.actor, state.targets, next_obs, alpha, key)
        return steps.return_ + steps.discount * value

    def _target_entropy(self, obs: Tree) -> Array:
        given = self.target_entropy
        target = default_target_entropy(self.spec.action, action_mask(self.spec, obs)) if given is None else given
        return jnp.asarray(target, jnp.float32)


class SACConfig(ActorCriticConfig):
    """Configuration of SAC: `SACConfig().environment("Pendulum-v1").training(tau=0.01, n_step=3).build()`."""

    algorithm_name = "SAC"
    summary = "a random policy that is paid for its entropy, with two critics and a temperature that is learned"
    paper = "Haarnoja et al. 2018, arXiv:1812.05905"
    agent_class = SAC
    exploration_types = ("StochasticSampling", "OrnsteinUhlenbeckNoise", "GaussianNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,  # RLlib: 100
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"capacity": 1_000_000},
        "exploration_config": {"type": "StochasticSampling"},
    }

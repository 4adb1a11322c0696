"""What soft actor-critics share: settings, the policy, and the steps of actor, temperature and target critics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import jax
import jax.numpy as jnp

from athlete.core import ActingCarry, Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from athlete.distributions import Categorical, SquashedGaussian, distribution, output_size, shape_action
from athlete.exploration import ActingView, Exploration, StochasticSampling, require_fitting_noise
from athlete.memory.replay import Replay
from athlete.models.critics import critic_values, init_critics
from athlete.models.forward import forward, forward_step
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, Minimized, adam_init
from athlete.ops.masks import action_mask, masked
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import CriticBatches, expected_soft_value, soft_critic_batches, soft_value
from athlete.ops.temperature import Temperature, default_target_entropy, temperature_init, temperature_update
from athlete.ops.values import batched_index, periodic_update
from athlete.spaces import Discrete, require_kind

Losses = Callable[[Tree], tuple[Array, Any]]  # of parameters: each sample's loss [B], and anything else


State = TypeVar("State", bound=Any)  # a `SACState`, or a named tuple with its fields


class SACState(NamedTuple):
    """The state of a soft actor-critic with target critics."""

    actor: Tree
    critics: list[Tree]  # networks of the same shapes
    targets: list[Tree]  # in the shapes of the critics
    actor_optimizer: AdamState
    critic_optimizer: AdamState  # of all critics
    temperature: Temperature
    since_sync: Array  # float32 scalar: timesteps sampled since the targets were updated


@hyper
class SoftActorCritic(Agent):
    """The settings of soft actor-critics under RLlib's names. An algorithm gives `init` and `update`."""

    serves: ClassVar[tuple[str, ...]] = ("continuous",)

    actor_lr: NonNegativeFloat | Schedule = 3e-4
    critic_lr: NonNegativeFloat | Schedule = 3e-4
    alpha_lr: NonNegativeFloat | Schedule = 3e-4  # 0: the temperature stays at initial_alpha
    gamma: Fraction = 0.99
    initial_alpha: PositiveFloat = 1.0
    target_entropy: float | None = None  # of the policy, in nats; None: what the papers take
    n_step: PositiveInt = 1
    grad_clip: Limit | None = None  # of the global norm, actor and critics apart
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1500  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    policy_model: Model = MLP((256, 256), "relu")
    q_model: Model = MLP((256, 256), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def view(self, state: Any, progress: Array) -> Any:
        return state.actor

    def act(self, view: Any, carry: Any, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling actions."""
        policy = self._policy(view, features(self.spec.obs, obs), action_mask(self.spec, obs))
        action = policy.sample(key) if explore else policy.mode()
        return shape_action(self.spec.action, action), carry, {}

    def distribution(self, view: Any, carry: Any, obs: Tree, first: Array) -> Any:
        return self._policy(view, features(self.spec.obs, obs), action_mask(self.spec, obs))

    def _optimizer(self) -> Adam:
        return Adam(self.grad_clip)

    def _initial_actor(self, key: Key) -> Tree:
        """Parameters of a policy near the uniform one."""
        return self.policy_model.init(key, self.spec.obs, {"policy": (output_size(self.spec.action), 0.01)})

    def _policy(self, actor: Tree, obs: Array, mask: Array | None = None) -> Any:
        """The distribution over flat canonical actions at features `[B, n]`, of those that `mask` allows."""
        return self._distribution(forward(self.policy_model, actor, obs)["policy"], mask)

    def _distribution(self, outputs: Array, mask: Array | None = None) -> Any:
        """A `Categorical` or a `SquashedGaussian` of an actor's outputs `[..., outputs]`."""
        found: Any = distribution(self.spec.action, masked(outputs, mask))
        return found if isinstance(self.spec.action, Discrete) else SquashedGaussian(found)

    def _target_entropy(self, mask: Array | None = None) -> Array:
        """A scalar, for states where `mask` `[..., actions]` says which actions are legal."""
        given = self.target_entropy
        target = default_target_entropy(self.spec.action, mask) if given is None else given
        return jnp.asarray(target, jnp.float32)

    def _samples(self, actor: Tree, batch: Transition, alpha: Array, number: int, key: Key) -> CriticBatches:
        """`number` batches for updates of the critics. The key is for the next actions."""

        def act(obs: Array) -> tuple[Array, Array]:
            return self._policy(actor, obs).sample_and_log_prob(key)

        return soft_critic_batches(batch, self.spec, act, alpha, self.gamma, number)

    def _learn_policy(
        self,
        losses_of: Losses,
        actor: Tree,
        optimizer: AdamState,
        temperature: Temperature,
        mask: Array | None,
        progress: Array,
    ) -> tuple[Minimized, Temperature, dict[str, Array]]:
        """One step of the actor and one of the temperature towards its target entropy, and metrics.

        `losses_of(actor)` also gives the entropy `[...]` of the policy, or estimates of it, and anything else.
        """
        learned = self._optimizer().minimize(
            losses_of, actor, optimizer, value_at(self.actor_lr, progress), weight=None
        )
        (entropy, _), target = learned.aux, self._target_entropy(mask)
        metrics = {
            "actor_loss": learned.loss,
            "alpha_value": temperature.alpha(),
            "entropy": jnp.mean(entropy),
            "target_entropy": target,
        }
        temperature = temperature_update(temperature, entropy, target, value_at(self.alpha_lr, progress))
        return learned, temperature, metrics


def over_batches(metrics: dict[str, Array]) -> dict[str, Array]:
    """Metrics of several updates of the critics, `[updates, ...]`: their means, and the TD errors of all samples."""
    errors = metrics["td_error"].reshape(-1)
    return {name: jnp.mean(metric) for name, metric in metrics.items()} | {"td_error": errors}


@hyper
class TargetedActorCritic(SoftActorCritic):
    """A soft actor-critic whose critics have target networks that follow them."""

    tau: Fraction = 0.005  # how far the target critics move at each of their updates
    target_network_update_freq: NonNegativeFloat = 0.0  # timesteps between two moves of the targets; 0: every update
    timesteps_per_update: float = 1.0

    def _initial_state(self, actor: Tree, critics: list[Tree]) -> SACState:
        targets = jax.tree.map(jnp.copy, critics)
        temperature = temperature_init(self.initial_alpha)
        return SACState(actor, critics, targets, adam_init(actor), adam_init(critics), temperature, jnp.zeros(()))

    def _learn_critics(
        self, losses_of: Losses, state: State, weight: Array, progress: Array
    ) -> tuple[State, dict[str, Array]]:
        """One step of the critics and metrics: the loss, and those that `losses_of(critics)` gives too."""
        lr = value_at(self.critic_lr, progress)
        learned = self._optimizer().minimize(losses_of, state.critics, state.critic_optimizer, lr, weight)
        metrics = {"critic_loss": learned.loss, **learned.aux, "grad_gnorm": learned.norm, "cur_lr": lr}
        return state._replace(critics=learned.params, critic_optimizer=learned.state), metrics

    def _finish(
        self, actor_losses: Losses, state: State, metrics: dict[str, Array], mask: Array | None, progress: Array
    ) -> tuple[State, dict[str, Array]]:
        """What follows a step of the critics: those of actor, temperature and targets; the metrics of all of them."""
        learned, temperature, more = self._learn_policy(
            actor_losses, state.actor, state.actor_optimizer, state.temperature, mask, progress
        )
        state = state._replace(actor=learned.params, actor_optimizer=learned.state, temperature=temperature)
        return self._follow(state), metrics | more

    def _follow(self, state: State) -> State:
        """The state after its targets followed an update of the critics."""
        since = state.since_sync + self.timesteps_per_update
        targets, since = periodic_update(state.targets, state.critics, self.tau, since, self.target_network_update_freq)
        return state._replace(targets=targets, since_sync=since)


@hyper
class ExploringActorCritic(TargetedActorCritic):
    """A soft actor-critic of one or two critics whose sampled actions may have noise on top, with memory or without."""

    serves: ClassVar[tuple[str, ...]] = ("continuous", "discrete")

    twin_q: bool = True  # the smaller value of two critics counts
    exploration: Exploration = StochasticSampling()  # noise on top of the actions sampled, where these are continuous

    def bind(self, spec: Spec) -> Self:
        require_fitting_noise(self.exploration, spec.action)
        return super().bind(spec)

    def init(self, key: Key) -> SACState:
        """The key is split in two: for the actor, and for the critics."""
        actor_key, critic_key = jax.random.split(key)
        critics = init_critics(self.q_model, critic_key, self.spec.obs, self.spec.action, 2 if self.twin_q else 1)
        return self._initial_state(self._initial_actor(actor_key), critics)

    def view(self, state: SACState, progress: Array) -> ActingView:
        return ActingView(state.actor, self.exploration.rate(progress))

    def start(self, view: ActingView, rows: int, key: Key) -> ActingCarry:
        """The key is for the exploration's noise."""
        noise = self.exploration.start(rows, output_size(self.spec.action) // 2, key)
        return ActingCarry(self.policy_model.start(rows), noise)

    def distribution(self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array) -> Any:
        if not isinstance(self.exploration, StochasticSampling):
            return None
        seen = features(self.spec.obs, obs)
        heads = forward_step(self.policy_model, view.params, carry.model, seen, first)[1]
        return self._distribution(heads["policy"], action_mask(self.spec, obs))

    def act(
        self, view: ActingView, carry: ActingCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        """The key is split in two: for sampling actions, and for the exploration's noise on them."""
        mask, obs = action_mask(self.spec, obs), features(self.spec.obs, obs)
        memory, heads = forward_step(self.policy_model, view.params, carry.model, obs, first)
        policy, noise = self._distribution(heads["policy"], mask), carry.exploration
        if explore:
            sample_key, noise_key = jax.random.split(key)
            action, noise = self.exploration.add_noise(policy.sample(sample_key), view.rate, noise, first, noise_key)
        else:
            action = policy.mode()
        return shape_action(self.spec.action, action), ActingCarry(memory, noise), {}


@hyper
class ForwardActorCritic(ExploringActorCritic):
    """One whose networks have no memory."""

    def _values(self, critics: list[Tree], obs: Array, action: Array | None = None) -> Array:
        """Values of the actions given, `[critics, B]`; for discrete ones without `action` of all, `[critics, B, n]`."""
        if not isinstance(self.spec.action, Discrete):
            return critic_values(self.q_model, critics, obs, action)[..., 0]
        values = [forward(self.q_model, critic, obs)["q"] for critic in critics]
        return jnp.stack(values if action is None else [batched_index(value, action) for value in values])

    def _soft_value(self, policy: Any, critics: list[Tree], obs: Array, alpha: Array, key: Key) -> tuple[Array, Array]:
        """The soft value of states and the policy's entropy there, `[B]` each: estimated from one action or exact."""
        if isinstance(policy, Categorical):
            entropy = policy.entropy()
            return expected_soft_value(self._values(critics, obs), policy.logits, entropy, alpha), entropy
        action, log_prob = policy.sample_and_log_prob(key)
        return soft_value(self._values(critics, obs, action), log_prob, alpha), -log_prob

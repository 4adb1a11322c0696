"""TD-MPC2 (Hansen et al. 2023, arXiv:2310.16828): plans in a learned latent space, valued by critics beyond their end.

A model of the task encodes what is seen as z = h(s) and foretells, without ever decoding it, z' = d(z, a), the reward
R(z, a) and the returns of five critics Q(z, a); a policy p(z) proposes actions (equation 1). Latent states are on
simplices (`simplex_norm`, equation 2). An update follows the model along `plan_horizon` steps of replay and fits it to
where the encoder says they led, to rewards and to TD targets (equation 3),

    sum_t rho^t [ 20 |d(z_t, a_t) - h(s_(t+1))|^2 + 0.1 CE(R(z_t, a_t), r_t) + 0.1 CE(Q(z_t, a_t), y_t) ],
    y_t = r_t + gamma min(Q'_i, Q'_j)(h(s_(t+1)), a ~ p)   of two critics that are drawn,

rewards and returns as two-hot distributions; the policy climbs the critics' mean, with an entropy bonus (equation 4).
Acting plans by MPPI (section 3.2): sequences of actions around the last plan, and some of the policy's, are valued by
the model, and the best ones, weighed, are the plan around which the next are drawn.

Departures:

- after an ending nothing of a window counts, and terminated steps are not bootstrapped; plans know of no endings;
- plans value their last state by all critics and the policy's mean action; exploring draws around the plan's first
  action, where the paper draws one of the best sequences;
- SiLU for Mish, no dropout in critics, one learning rate for all parts of the model, no embedding of tasks.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from athlete.distributions import DiagonalGaussian, SquashedGaussian, flat_action, output_size, shape_action
from athlete.memory.replay import Replay
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.models.rssm import outputs
from athlete.ops.features import feature_size, feature_vector, features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.tree import where
from athlete.ops.two_hot import two_hot_loss, two_hot_mean
from athlete.ops.values import polyak_update
from athlete.settings.families import ReplayConfig
from athlete.settings.memory import UNIFORM_MEMORIES
from athlete.spaces import require_kind

CONSISTENCY, REWARD, VALUE = 20.0, 0.1, 0.1  # weights of the parts of the model's loss
SIMPLEX = 8  # numbers of a latent state that sum up to 1
RANGE_RATE = 0.01  # how far the range of values moves in an update


class TDMPC2State(NamedTuple):
    """The state of a `TDMPC2`."""

    world: Tree  # encoder, dynamics, reward, critics (a list)
    policy: Tree
    target_critics: list[Tree]
    world_optimizer: AdamState
    policy_optimizer: AdamState
    value_range: Array  # float32 scalar: from the 5th to the 95th percentile of values, averaged


@hyper
class TDMPC2(Agent):
    """Hyperparameters of TD-MPC2. Floats and schedules are traced, the rest shapes the program.

    The memory's windows are `plan_horizon` steps.
    """

    serves: ClassVar[tuple[str, ...]] = ("continuous",)
    plans: ClassVar[bool] = True

    lr: NonNegativeFloat | Schedule = 3e-4
    gamma: Fraction = 0.99
    tau: Fraction = 0.01  # how far the target critics move in an update
    rho: Fraction = 0.5  # what a step further ahead counts less
    grad_clip: Limit | None = 20.0  # of the global norm, model and policy apart
    entropy_coeff: NonNegativeFloat = 1e-4
    plan_horizon: PositiveInt = 3  # steps
    iterations: PositiveInt = 6  # of a plan
    num_samples: PositiveInt = 512  # sequences of actions that a plan chooses among
    num_policy_samples: PositiveInt = 24  # of them by the policy
    num_elites: PositiveInt = 64  # the best of them, which make the next plan
    temperature: PositiveFloat = 0.5  # the larger, the more the very best count
    min_std: PositiveFloat = 0.05
    max_std: PositiveFloat = 2.0
    latent: PositiveInt = 512
    units: PositiveInt = 512
    num_critics: PositiveInt = 5
    num_bins: PositiveInt = 101
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1000  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    model: Model = MLP((256,), "silu", layer_norm=True)  # the encoder
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_kind(type(self).__name__, self.serves, spec.action)
        if self.latent % SIMPLEX:
            raise ValueError(f"TDMPC2(latent={self.latent}): expected a multiple of {SIMPLEX}, the size of a simplex")
        for name in ("num_elites", "num_policy_samples"):
            if getattr(self, name) > self.num_samples:
                raise ValueError(
                    f"TDMPC2({name}={getattr(self, name)}): there are num_samples={self.num_samples} in all"
                )
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> TDMPC2State:
        """The key is split: for encoder, dynamics, reward, policy, and each critic."""
        keys = jax.random.split(key, 4 + self.num_critics)
        state, both = feature_vector(self.latent), feature_vector(self.latent + feature_size(self.spec.action))
        world = {
            "encoder": self.model.init(keys[0], self.spec.obs, {"latent": (self.latent, 1.0)}),
            "dynamics": self._net.init(keys[1], both, {"latent": (self.latent, 1.0)}),
            "reward": self._net.init(keys[2], both, {"bins": (self.num_bins, 0.0)}),
            "critics": [self._net.init(each, both, {"bins": (self.num_bins, 0.0)}) for each in keys[4:]],
        }
        policy = self._net.init(keys[3], state, {"policy": (output_size(self.spec.action), 0.01)})
        targets = jax.tree.map(jnp.copy, world["critics"])
        return TDMPC2State(world, policy, targets, adam_init(world), adam_init(policy), jnp.zeros(()))

    def view(self, state: TDMPC2State, progress: Array) -> Tree:
        return {**state.world, "policy": state.policy}

    def start(self, view: Tree, rows: int, key: Key) -> Array:
        """Plans `[rows, plan_horizon, n]`: the mean actions of the steps to come."""
        return jnp.zeros((rows, self.plan_horizon, feature_size(self.spec.action)))

    def act(
        self, view: Tree, carry: Array, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple[Tree, Array, dict]:
        """The key is split in two: for the plan, and for trying what is beside it."""
        plan_key, key = jax.random.split(key)
        latent = self._encode(view, features(self.spec.obs, obs))
        mean = jnp.moveaxis(where(first, jnp.zeros_like(carry), carry), 1, 0)
        mean, std = self._plan(view, latent, mean, plan_key)
        action = mean[0] + std[0] * jax.random.normal(key, mean[0].shape) if explore else mean[0]
        rest = jnp.concatenate([mean[1:], jnp.zeros_like(mean[:1])])  # what is planned for the step after
        return shape_action(self.spec.action, jnp.clip(action, -1.0, 1.0)), jnp.moveaxis(rest, 0, 1), {}

    def _plan(self, view: Tree, latent: Array, mean: Array, key: Key) -> tuple[Array, Array]:
        """Mean and deviation `[H, B, n]` of the best actions from states `[B, latent]`, sought around `mean`.

        The key is split: for the policy's sequences, and for each iteration's.
        """
        policy_key, key = jax.random.split(key)
        proposed = self._proposed(view, latent, policy_key)
        number = self.num_samples - self.num_policy_samples

        def improve(around: tuple[Array, Array], key: Key) -> tuple[tuple[Array, Array], None]:
            mean, std = around
            noise = jax.random.normal(key, (self.plan_horizon, number, *mean.shape[1:]))
            drawn = jnp.clip(mean[:, None] + std[:, None] * noise, -1.0, 1.0)
            actions = jnp.concatenate([drawn, proposed], axis=1)
            value, best = jax.lax.top_k(self._value_of(view, latent, actions).T, self.num_elites)
            elites = jnp.take_along_axis(actions, best.T[None, :, :, None], axis=1)  # [H, elites, B, n]
            weight = jax.nn.softmax(self.temperature * value, axis=-1).T[None, :, :, None]
            mean = jnp.sum(weight * elites, axis=1)
            variance = jnp.sum(weight * (elites - mean[:, None]) ** 2, axis=1)
            return (mean, jnp.clip(jnp.sqrt(variance), self.min_std, self.max_std)), None

        start = mean, jnp.full(mean.shape, self.max_std)
        return jax.lax.scan(improve, start, jax.random.split(key, self.iterations))[0]

    def _proposed(self, view: Tree, latent: Array, key: Key) -> Array:
        """Sequences of actions `[H, num_policy_samples, B, n]` by the policy."""

        def step(latent: Array, key: Key) -> tuple[Array, Array]:
            action = self._policy(view["policy"], latent).sample(key)
            return self._next(view, latent, action), action

        latent = jnp.broadcast_to(latent, (self.num_policy_samples, *latent.shape))
        return jax.lax.scan(step, latent, jax.random.split(key, self.plan_horizon))[1]

    def _value_of(self, view: Tree, latent: Array, actions: Array) -> Array:
        """What sequences of actions `[H, N, B, n]` from states `[B, latent]` are worth, `[N, B]`."""

        def step(carried: tuple[Array, Array, Array], action: Array) -> tuple[tuple[Array, Array, Array], None]:
            latent, total, discount = carried
            reward = two_hot_mean(self._bins(view["reward"], latent, action))
            return (self._next(view, latent, action), total + discount * reward, discount * self.gamma), None

        latent = jnp.broadcast_to(latent, (actions.shape[1], *latent.shape))
        start = latent, jnp.zeros(latent.shape[:2]), jnp.ones(())
        (latent, total, discount), _ = jax.lax.scan(step, start, actions)
        action = self._policy(view["policy"], latent).mode()
        return total + discount * jnp.mean(self._values(view["critics"], latent, action), axis=0)

    def update(self, state: TDMPC2State, batch: Transition, key: Key, progress: Array) -> tuple[TDMPC2State, dict]:
        """The key is split in three: for the targets' actions, for their critics, and for the policy's actions."""
        action_key, critics_key, policy_key = jax.random.split(key, 3)
        going = 1.0 - jnp.asarray((batch.terminated | batch.truncated)[:-1] | batch.first[1:], jnp.float32)
        before = jnp.concatenate([jnp.ones_like(batch.reward[:1]), going])
        weight = jnp.cumprod(before, axis=0) * self.rho ** jnp.arange(self.plan_horizon, dtype=jnp.float32)[:, None]
        led_to = self._encode(state.world, features(self.spec.obs, batch.next_obs))
        next_action = self._policy(state.policy, led_to).sample(action_key)
        values = self._values(state.target_critics, led_to, next_action)
        next_value = jnp.min(values[_two_of(self.num_critics, critics_key)], axis=0)
        target = batch.reward + self.gamma * jnp.where(batch.terminated, 0.0, next_value)

        optimizer, lr = Adam(self.grad_clip), value_at(self.lr, progress)
        (loss, (latents, metrics)), slopes = jax.value_and_grad(self._world_loss, has_aux=True)(
            state.world, batch, led_to, target, weight
        )
        world, world_optimizer, norm = optimizer.step(state.world, slopes, state.world_optimizer, lr)

        steps = jnp.concatenate([weight, self.rho * weight[-1:] * (1.0 - batch.terminated[-1:])])
        (of_policy, (entropy, value_range)), slopes = jax.value_and_grad(self._policy_loss, has_aux=True)(
            state.policy, world["critics"], latents, steps, state.value_range, policy_key
        )
        policy, policy_optimizer, _ = optimizer.step(state.policy, slopes, state.policy_optimizer, lr)
        targets = polyak_update(state.target_critics, world["critics"], self.tau)
        state = TDMPC2State(world, policy, targets, world_optimizer, policy_optimizer, value_range)
        metrics |= {"world_model_loss": loss, "actor_loss": of_policy, "entropy": entropy, "value_range": value_range}
        return state, metrics | {"mean_q": jnp.mean(target), "grad_gnorm": norm, "cur_lr": lr}

    def _world_loss(
        self, world: Tree, batch: Transition, led_to: Array, target: Array, weight: Array
    ) -> tuple[Array, tuple[Array, dict]]:
        """What the model is fitted by (equation 3), its states `[H + 1, B, latent]` and the parts."""
        action = flat_action(self.spec.action, batch.action)
        latent = self._encode(world, features(self.spec.obs, jax.tree.map(lambda leaf: leaf[:1], batch.obs)))[0]

        def step(latent: Array, action: Array) -> tuple[Array, Array]:
            latent = self._next(world, latent, action)
            return latent, latent

        _, after = jax.lax.scan(step, latent, action)
        latents = jnp.concatenate([latent[None], after])
        reward = two_hot_loss(self._bins(world["reward"], latents[:-1], action), batch.reward)
        value = [two_hot_loss(self._bins(critic, latents[:-1], action), target) for critic in world["critics"]]
        parts = {
            "consistency_loss": jnp.mean(weight * jnp.mean((after - led_to) ** 2, axis=-1)),
            "reward_loss": jnp.mean(weight * reward),
            "critic_loss": jnp.mean(weight * sum(value) / self.num_critics),
        }
        loss = CONSISTENCY * parts["consistency_loss"] + REWARD * parts["reward_loss"] + VALUE * parts["critic_loss"]
        return loss, (latents, parts)

    def _policy_loss(
        self, policy: Tree, critics: list[Tree], latents: Array, weight: Array, value_range: Array, key: Key
    ) -> tuple[Array, tuple[Array, Array]]:
        """What the policy descends (equation 4), its entropy, and the range of values with these."""
        action, log_prob = self._policy(policy, latents).sample_and_log_prob(key)
        value = jnp.mean(self._values(critics, latents, action), axis=0)
        low, high = jnp.quantile(jax.lax.stop_gradient(value[0]), jnp.array([0.05, 0.95]))
        value_range = value_range + RANGE_RATE * (high - low - value_range)
        gain = value / jnp.maximum(1.0, value_range) - self.entropy_coeff * log_prob
        return -jnp.mean(weight * gain), (-jnp.mean(log_prob), value_range)

    @property
    def _net(self) -> MLP:
        return MLP((self.units, self.units), "silu", layer_norm=True)

    def _encode(self, world: Tree, obs: Array) -> Array:
        """Latent states `[..., latent]` of features `[..., n]`."""
        found = forward(self.model, world["encoder"], obs.reshape(-1, obs.shape[-1]))["latent"]
        return simplex_norm(found.reshape(*obs.shape[:-1], self.latent), SIMPLEX)

    def _next(self, world: Tree, latent: Array, action: Array) -> Array:
        both = jnp.concatenate([latent, action], axis=-1)
        return simplex_norm(outputs(self._net, world["dynamics"], both)["latent"], SIMPLEX)

    def _bins(self, params: Tree, latent: Array, action: Array) -> Array:
        return outputs(self._net, params, jnp.concatenate([latent, action], axis=-1))["bins"]

    def _values(self, critics: list[Tree], latent: Array, action: Array) -> Array:
        """Values `[critics, ...]` of flat actions in latent states `[..., n]`."""
        return jnp.stack([two_hot_mean(self._bins(critic, latent, action)) for critic in critics])

    def _policy(self, policy: Tree, latent: Array) -> SquashedGaussian:
        mean, log_std = jnp.split(outputs(self._net, policy, latent)["policy"], 2, axis=-1)
        return SquashedGaussian(DiagonalGaussian(mean, -4.0 + 6.0 * jax.nn.sigmoid(log_std)))


def simplex_norm(x: Array, size: int) -> Array:
    """Numbers `[..., n]` as n / `size` distributions side by side (SimNorm, equation 2)."""
    return jax.nn.softmax(x.reshape(*x.shape[:-1], -1, size)).reshape(x.shape)


def _two_of(number: int, key: Key) -> Array:
    """Two different numbers below `number`, or the only one twice, `[2]`."""
    one, step = jax.random.randint(key, (2,), 0, jnp.array([number, max(1, number - 1)]))
    return jnp.stack([one, (one + 1 + step) % number])


class TDMPC2Config(ReplayConfig):
    """Configuration of TD-MPC2: `TDMPC2Config().environment("Pendulum-v1").training(num_samples=128).build()`."""

    algorithm_name = "TDMPC2"
    summary = "plans in a learned latent space, beyond whose horizon critics value"
    paper = "Hansen et al. 2023, arXiv:2310.16828"
    agent_class = TDMPC2
    memory_types = UNIFORM_MEMORIES
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [256], "fcnet_activation": "silu", "use_layer_norm": True},
        "replay_buffer_config": {"capacity": 1_000_000},
        "exploration_config": {"type": "StochasticSampling", "random_timesteps": 1000},
    }

    def window_length(self) -> int:
        return self.plan_horizon

    def agent_parts(self) -> dict[str, Any]:
        parts = super().agent_parts()
        del parts["timesteps_per_update"]
        return parts

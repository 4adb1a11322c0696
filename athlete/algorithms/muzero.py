"""MuZero (Schrittwieser et al. 2020, arXiv:1911.08265) with the search of Gumbel MuZero (Danihelka et al. 2022, "Policy
improvement by planning with Gumbel"): a tree search in a model of the environment that is learned for nothing else.

Three networks (equation 1 of the first paper): h makes a latent state of an observation, g says what an action does to
it and which reward that brings, f what policy and value it has. The search unrolls g and f from h(obs). What it finds,
an improved policy pi and its value nu, is what is played and learned. From each step that is sampled the networks are
unrolled along the K actions that were taken, and held to what was seen there:

    loss = 1/(K+1) sum_k [ -pi_{t+k}^T log p_k + value_coeff (h(z_{t+k}) - v_k)^2 ] + 1/K sum_k (u_{t+k} - r_k)^2

with z the n-step return from there, bootstrapped by the value that the search found n steps on, and h(x) the scaling of
appendix F. After the end of an episode rewards and values are 0 and there is no policy to learn; after a cut there is
nothing to learn.

Departures:

- values and rewards are numbers, squared errors apart, where the paper has distributions over 601 atoms;
- latent states are scaled to [-1, 1], and g adds to them; the gradient through each of its steps is halved, as there;
- no reanalysis; the first timesteps are random, without a search: no policy is learned from them;
- where an episode was cut, the value of the network where it led stands in for that of a search.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveInt
from athlete.distributions import output_size
from athlete.memory.replay import Replay
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import feature_vector, features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import action_mask, masked
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.search import Edge, Node, gumbel_search
from athlete.ops.sequences import windows
from athlete.ops.values import signed_hyperbolic, signed_parabolic
from athlete.settings.families import REPLAY_SETTINGS, ReplayConfig
from athlete.settings.memory import UNIFORM_MEMORIES
from athlete.settings.table import Setting
from athlete.spaces import require_kind


class MuZeroState(NamedTuple):
    """The state of a `MuZero`."""

    params: Tree  # {"representation": ..., "dynamics": ..., "prediction": ...}
    optimizer: AdamState


class Targets(NamedTuple):
    """What the networks are held to along an unrolled window, `[K + 1, B, ...]`."""

    policy: Array  # 0 where there is none
    value: Array  # scaled
    reward: Array  # of the action from there
    counts: Array  # float32: 0 after a cut


@hyper
class MuZero(Agent):
    """Hyperparameters of MuZero. Floats and schedules are traced, the rest shapes the program."""

    serves: ClassVar[tuple[str, ...]] = ("discrete",)
    searches: ClassVar[bool] = True

    lr: NonNegativeFloat | Schedule = 1e-3
    gamma: Fraction = 0.99
    value_coeff: NonNegativeFloat = 0.25
    num_simulations: PositiveInt = 16
    unroll_steps: PositiveInt = 5
    n_step: PositiveInt = 10
    latent_size: PositiveInt = 32
    scale_epsilon: NonNegativeFloat = 0.001  # of the scaling of values
    grad_clip: Limit | None = 5.0  # of the global norm
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1000  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    model: Model = MLP((64,), "relu")  # of each of the three networks
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> MuZeroState:
        """The key is split in three: for representation, dynamics and prediction."""
        keys, actions, size = jax.random.split(key, 3), output_size(self.spec.action), self.latent_size
        latent = {"latent": (size, 1.0)}
        params = {
            "representation": self.model.init(keys[0], self.spec.obs, latent),
            "dynamics": self.model.init(keys[1], feature_vector(size + actions), {**latent, "reward": (1, 0.01)}),
            "prediction": self.model.init(
                keys[2], feature_vector(size), {"policy": (actions, 0.01), "value": (1, 0.01)}
            ),
        }
        return MuZeroState(params, adam_init(params))

    def view(self, state: MuZeroState, progress: Array) -> Tree:
        return state.params

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for the search."""

        def expand(key: Key, action: Array, latent: Array) -> tuple[Edge, Node]:
            latent, reward = self._advance(view, latent, action)
            logits, value = self._predict(view, latent)
            node = Node(logits, signed_parabolic(value, self.scale_epsilon), latent)
            return Edge(reward, jnp.full(reward.shape, self.gamma)), node

        latent, legal = self._represent(view, obs), action_mask(self.spec, obs)
        logits, value = self._predict(view, latent)
        root = Node(masked(logits, legal), signed_parabolic(value, self.scale_epsilon), latent)
        scale = 1.0 if explore else 0.0
        action, policy, value = gumbel_search(root, expand, legal, key, self.num_simulations, scale)
        return action, carry, {"policy": policy, "value": value}

    def update(
        self, state: MuZeroState, batch: Transition, key: Key, progress: Array
    ) -> tuple[MuZeroState, dict[str, Array]]:
        """Unroll the networks from the first step of windows `[unroll_steps + n_step, B]`."""
        targets = self._targets(state.params, batch)
        obs, actions = jax.tree.map(lambda leaf: leaf[0], batch.obs), batch.action[: self.unroll_steps + 1]

        def losses_of(params: Tree) -> tuple[Array, dict[str, Array]]:
            def unroll(latent: Array, inputs: tuple[Array, Targets]) -> tuple[Array, tuple[Array, ...]]:
                action, target = inputs
                logits, value = self._predict(params, latent)
                latent, reward = self._advance(params, latent, action)
                latent = 0.5 * latent + 0.5 * jax.lax.stop_gradient(latent)
                policy_loss = -jnp.sum(target.policy * jax.nn.log_softmax(logits), axis=-1)
                value_loss = target.counts * (value - target.value) ** 2
                return latent, (policy_loss, value_loss, target.counts * (reward - target.reward) ** 2)

            _, (policy, value, reward) = jax.lax.scan(unroll, self._represent(params, obs), (actions, targets))
            parts = jnp.mean(policy, axis=0), jnp.mean(value, axis=0), jnp.mean(reward[:-1], axis=0)
            told = dict(zip(("policy_loss", "vf_loss", "reward_loss"), map(jnp.mean, parts), strict=True))
            return parts[0] + self.value_coeff * parts[1] + parts[2], told

        lr = value_at(self.lr, progress)
        learned = Adam(self.grad_clip).minimize(losses_of, state.params, state.optimizer, lr, None)
        metrics = {**learned.aux, "total_loss": learned.loss, "grad_gnorm": learned.norm, "cur_lr": lr}
        return MuZeroState(learned.params, learned.state), metrics

    def _targets(self, params: Tree, batch: Transition) -> Targets:
        """Of the first `unroll_steps` + 1 steps of each window."""
        number = self.unroll_steps + 1
        searched = batch.extras["value"]
        steps = n_step_return(windows(batch._replace(carry=(), extras=()), self.n_step), self.gamma)
        # The value of where step `last` led: what was searched at the step behind it, or the network's after a cut.
        behind = jnp.concatenate([searched[1:], searched[-1:]])
        shown = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch.next_obs)
        value = self._predict(params, self._represent(params, shown))[1].reshape(searched.shape)
        cut = batch.truncated.at[-1].set(True)  # nothing was searched behind the last step of a window
        following = jnp.where(cut, signed_parabolic(value, self.scale_epsilon), behind)
        reached = at_step(windows(following, self.n_step), steps.last)
        outcome = (steps.return_ + steps.discount * reached).reshape(-1, searched.shape[1])[:number]
        over = (batch.terminated | batch.truncated)[:number].astype(jnp.float32)
        before = jnp.concatenate([jnp.zeros_like(over[:1]), jnp.cumsum(over, axis=0)[:-1]])
        is_cut = jnp.cumsum(batch.truncated[:number], axis=0) - batch.truncated[:number] > 0
        inside = before == 0
        return Targets(
            policy=jnp.where(inside[..., None], batch.extras["policy"][:number], 0.0),
            value=signed_hyperbolic(jnp.where(inside, outcome, 0.0), self.scale_epsilon),
            reward=jnp.where(inside, batch.reward[:number], 0.0),
            counts=1.0 - is_cut.astype(jnp.float32),
        )

    def _represent(self, params: Tree, obs: Tree) -> Array:
        """Latent states `[B, latent_size]` of observations."""
        return _scaled(forward(self.model, params["representation"], features(self.spec.obs, obs))["latent"])

    def _advance(self, params: Tree, latent: Array, action: Array) -> tuple[Array, Array]:
        """Where actions lead from latent states, and the rewards `[B]`."""
        taken = jax.nn.one_hot(action, output_size(self.spec.action))
        heads = forward(self.model, params["dynamics"], jnp.concatenate([latent, taken], axis=-1))
        return _scaled(latent + heads["latent"]), heads["reward"][..., 0]

    def _predict(self, params: Tree, latent: Array) -> tuple[Array, Array]:
        """Logits of the policy and scaled values `[B]`."""
        heads = forward(self.model, params["prediction"], latent)
        return heads["policy"], heads["value"][..., 0]


def _scaled(latent: Array) -> Array:
    """Each latent state with its least number at -1 and its greatest at 1 (appendix G)."""
    low, high = jnp.min(latent, axis=-1, keepdims=True), jnp.max(latent, axis=-1, keepdims=True)
    return 2.0 * (latent - low) / (high - low + 1e-5) - 1.0


class MuZeroConfig(ReplayConfig):
    """Configuration of MuZero: `MuZeroConfig().environment("CartPole-v1").training(num_simulations=25).build()`."""

    algorithm_name = "MuZero"
    summary = "a tree search in a model of the environment that is learned, with Gumbel MuZero's policies"
    paper = "Schrittwieser et al. 2020, arXiv:1911.08265"
    agent_class = MuZero
    memory_types = UNIFORM_MEMORIES
    more_settings: ClassVar[dict[str, Setting]] = {**REPLAY_SETTINGS}
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 16,
        "rollout_fragment_length": 8,
        "train_batch_size": 128,
        "training_intensity": 8,
        "min_sample_timesteps_per_iteration": 1000,
        "num_steps_sampled_before_learning_starts": 1024,
        "model": {"fcnet_hiddens": [64], "fcnet_activation": "relu"},
        "replay_buffer_config": {"capacity": 50_000},
        "exploration_config": {"type": "StochasticSampling", "random_timesteps": 1024},
    }

    def window_length(self) -> int:
        """Steps of a window: those that are unrolled, and those of the last one's target."""
        return self.unroll_steps + self.n_step

    def agent_parts(self) -> dict[str, Any]:
        fields = super().agent_parts()
        del fields["timesteps_per_update"]
        return fields

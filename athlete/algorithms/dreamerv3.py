"""DreamerV3 (Hafner et al. 2023, arXiv:2301.04104): a policy that learns in the dreams of a model of the world.

Equations are numbered as in the paper's first version, which RLlib has too. The model (equations 3 to 5) remembers in
h and z what it has seen, and foretells from them what will be seen, what is paid, and whether it goes on:

    h_t = f(h_(t-1), z_(t-1), a_(t-1)),   z_t ~ q(z | h_t, x_t) where x_t was seen,   z_t ~ p(z | h_t) where not.

An update fits it to sequences of replay. Then it dreams: from each state that the sequences led through, `horizon_H`
steps by the policy. Of dreams alone the critic learns lambda-returns, as two-hot distributions (equations 7 to 10), and
the actor by REINFORCE, from advantages divided by the range of returns where that is above 1, with an entropy bonus
(equations 11 and 12).

Departures:

- the model is of transitions: a step leads from `obs` to `next_obs`, whose state tells its reward and whether it goes
  on from there. So the last observation of an episode is a state like all others, and truncation needs no care;
- sequences begin with empty memories, whatever went before; so do episodes, where the paper learns a first state;
- one network reads observation, reward and continuation from a state; images are read by it too, without transposed
  convolutions;
- actions of a `Box` learn by REINFORCE as well, which the paper's later versions do; their means are within the bounds
  by a tanh, their standard deviations between 0.1 and 1;
- where a mask says which actions are legal, only acting knows it: in dreams all are.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveInt
from athlete.distributions import Categorical, distribution, output_size, shape_action
from athlete.memory.replay import Replay
from athlete.models.actors import within_bounds
from athlete.models.catalog import is_recurrent, make_model
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.models.rssm import RSSM, Latent, balanced_kl, outputs, unimix
from athlete.ops.features import action_features, feature_size, feature_vector, features, images_in
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import action_mask, masked
from athlete.ops.returns import lambda_returns
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.tree import merge_time, where
from athlete.ops.two_hot import symlog, two_hot_loss, two_hot_mean
from athlete.ops.values import half_square, polyak_update
from athlete.settings.families import REPLAY_SETTINGS, ReplayConfig
from athlete.settings.memory import UNIFORM_MEMORIES
from athlete.settings.table import Setting
from athlete.spaces import require_kind

if TYPE_CHECKING:
    from athlete.algorithm import Algorithm

WEIGHTS = {"dynamics_loss": 0.5, "representation_loss": 0.1}  # of the parts of the model's loss, else 1 (equation 4)
SLOW = 0.02  # how far the slow critic moves towards the other one in an update


class DreamerState(NamedTuple):
    """The state of a `DreamerV3`."""

    world: Tree  # encoder, rssm, heads
    actor: Tree
    critic: Tree
    slow_critic: Tree
    world_optimizer: AdamState
    actor_optimizer: AdamState
    critic_optimizer: AdamState
    return_range: Array  # float32 scalar: from the 5th to the 95th percentile of dreamt returns, averaged


class DreamerCarry(NamedTuple):
    """What acting remembers of each row."""

    latent: Latent
    action: Array  # [B, n], the one before, as features


class Dream(NamedTuple):
    """H steps of N rows."""

    seen: Array  # [H + 1, N, n], features of states
    action: Tree  # [H, N, ...], flat
    reward: Array  # [H, N], of the state that an action led to
    discount: Array  # [H, N], gamma times the chance that it goes on there
    weight: Array  # [H, N], the discounts before: how much of an action is left


@hyper
class DreamerV3(Agent):
    """Hyperparameters of DreamerV3 under RLlib's names. Floats and schedules are traced, the rest shapes the program.

    The memory's windows are sequences to learn from.
    """

    serves: ClassVar[tuple[str, ...]] = ("continuous", "discrete")

    world_model_lr: NonNegativeFloat | Schedule = 1e-4
    actor_lr: NonNegativeFloat | Schedule = 3e-5
    critic_lr: NonNegativeFloat | Schedule = 3e-5
    gamma: Fraction = 0.997
    gae_lambda: Fraction = 0.95  # of lambda-returns
    horizon_H: PositiveInt = 15  # steps of a dream
    entropy_scale: NonNegativeFloat = 3e-4
    free_nats: NonNegativeFloat = 1.0  # divergence of posterior and prior that nothing is learned from
    return_normalization_decay: Fraction = 0.99
    num_bins: PositiveInt = 255  # of two-hot distributions
    world_model_grad_clip_by_global_norm: Limit | None = 1000.0
    actor_grad_clip_by_global_norm: Limit | None = 100.0
    critic_grad_clip_by_global_norm: Limit | None = 100.0
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1024  # timesteps
    symlog_obs: bool | None = None  # None: where there are no images among them
    random_timesteps: int = 0  # uniformly random actions at the start
    rssm: RSSM = RSSM()
    model: Model = MLP((256,), "silu", layer_norm=True)  # the encoder
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> DreamerState:
        """The key is split in five: for the parts of the model, the actor and the critic."""
        encoder_key, rssm_key, heads_key, actor_key, critic_key = jax.random.split(key, 5)
        units, state, reader = self.rssm.units, feature_vector(self.rssm.size), self.rssm.reader
        heads = {"obs": (feature_size(self.spec.obs), 1.0), "reward": (self.num_bins, 0.0), "continue": (1, 1.0)}
        world = {
            "encoder": self.model.init(encoder_key, self.spec.obs, {"embed": (units, 1.0)}),
            "rssm": self.rssm.init(rssm_key, units, feature_size(self.spec.action)),
            "heads": reader.init(heads_key, state, heads),
        }
        actor = reader.init(actor_key, state, {"policy": (output_size(self.spec.action), 0.01)})
        critic = reader.init(critic_key, state, {"value": (self.num_bins, 0.0)})
        optimizers = adam_init(world), adam_init(actor), adam_init(critic)
        return DreamerState(world, actor, critic, jax.tree.map(jnp.copy, critic), *optimizers, jnp.zeros(()))

    def view(self, state: DreamerState, progress: Array) -> Tree:
        return {"encoder": state.world["encoder"], "rssm": state.world["rssm"], "actor": state.actor}

    def start(self, view: Tree, rows: int, key: Key) -> DreamerCarry:
        return DreamerCarry(self.rssm.start(rows), jnp.zeros((rows, feature_size(self.spec.action))))

    def act(
        self, view: Tree, carry: DreamerCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple[Tree, DreamerCarry, dict]:
        """The key is split in two: for the state, and for the action."""
        state_key, key = jax.random.split(key)
        carry = where(first, self.start(view, first.shape[0], key), carry)
        embed = forward(self.model, view["encoder"], self._shown(obs))["embed"]
        latent, _ = self.rssm.observe(view["rssm"], carry.latent, carry.action, embed, state_key)
        policy = self._policy(view["actor"], latent.features, action_mask(self.spec, obs))
        flat = within_bounds(self.spec, policy.sample(key) if explore else policy.mode())
        return shape_action(self.spec.action, flat), DreamerCarry(latent, self._action_features(flat)), {}

    def update(self, state: DreamerState, batch: Transition, key: Key, progress: Array) -> tuple[DreamerState, dict]:
        """The key is split in two: for the states of the sequences, and for the dream."""
        key, dream_key = jax.random.split(key)
        (loss, (latents, metrics)), slopes = jax.value_and_grad(self._model_loss, has_aux=True)(state.world, batch, key)
        lr, optimizer = value_at(self.world_model_lr, progress), Adam(self.world_model_grad_clip_by_global_norm)
        world, world_optimizer, norm = optimizer.step(state.world, slopes, state.world_optimizer, lr)
        state = state._replace(world=world, world_optimizer=world_optimizer)
        going = jnp.concatenate([jnp.ones_like(batch.reward[:1]), 1.0 - batch.terminated])  # none ends at its first
        dream = self._dream(world, state.actor, merge_time(latents), merge_time(going), dream_key)
        state, of_dream = self._learn_from(state, dream, progress)
        return state, metrics | of_dream | {"world_model_loss": loss, "grad_gnorm": norm, "cur_lr": lr}

    def _model_loss(self, world: Tree, batch: Transition, key: Key) -> tuple[Array, tuple[Latent, dict]]:
        """What the model is fitted by (equation 4), the states `[L + 1, B, ...]` on the way, and its parts."""
        shown, next_shown = self._shown(batch.obs), self._shown(batch.next_obs)
        latents, posterior = self._states(world, shown, next_shown, batch, key)
        prior = self.rssm.prior(world["rssm"], latents.deter)
        found = outputs(self.rssm.reader, world["heads"], latents.features)
        dynamics, representation = balanced_kl(posterior, prior, self.free_nats)
        error = found["obs"] - jnp.concatenate([shown[:1], next_shown])
        logit, going = found["continue"][1:, :, 0], 1.0 - batch.terminated
        parts = {
            "decoder_loss": jnp.mean(jnp.sum(half_square(error), axis=-1)),
            "reward_loss": jnp.mean(two_hot_loss(found["reward"][1:], batch.reward)),
            "continue_loss": jnp.mean(jax.nn.softplus(logit) - going * logit),
            "dynamics_loss": jnp.mean(dynamics),
            "representation_loss": jnp.mean(representation),
        }
        return sum(WEIGHTS.get(name, 1.0) * part for name, part in parts.items()), (latents, parts)

    def _states(
        self, world: Tree, shown: Array, next_shown: Array, batch: Transition, key: Key
    ) -> tuple[Latent, Array]:
        """States at the first observation of each sequence and after each of its steps, and their posteriors,
        `[L + 1, B, ...]`.

        The key is split in two: for states at the beginnings of episodes, and for those after steps.
        """
        begin_key, key = jax.random.split(key)
        length, rows = batch.first.shape
        action = action_features(self.spec.action, batch.action)
        both = merge_time(jnp.concatenate([shown, next_shown]))
        embed = forward(self.model, world["encoder"], both)["embed"].reshape(2, length, rows, -1)
        # Any step may be the first of an episode: what was remembered then, of all steps at once.
        start, no_action = self.rssm.start(length * rows), jnp.zeros((length * rows, action.shape[-1]))
        begun = self.rssm.observe(world["rssm"], start, no_action, merge_time(embed[0]), begin_key)
        begun, begun_posterior = jax.tree.map(lambda leaf: leaf.reshape(length, rows, *leaf.shape[1:]), begun)

        def step(latent: Latent, inputs: tuple) -> tuple[Latent, tuple[Latent, Array]]:
            first, begun, action, embed, key = inputs
            latent = where(first, begun, latent)
            latent, posterior = self.rssm.observe(world["rssm"], latent, action, embed, key)
            return latent, (latent, posterior)

        first, keys = batch.first.at[0].set(True), jax.random.split(key, length)
        _, (latents, posterior) = jax.lax.scan(step, self.rssm.start(rows), (first, begun, action, embed[1], keys))
        return jax.tree.map(
            lambda before, after: jnp.concatenate([before[:1], after]), (begun, begun_posterior), (latents, posterior)
        )

    def _dream(self, world: Tree, actor: Tree, start: Latent, going: Array, key: Key) -> Dream:
        """`horizon_H` steps by the policy from each of the states `[N, ...]`, of which only those count that go on."""

        def step(latent: Latent, key: Key) -> tuple[Latent, tuple[Latent, Tree]]:
            action_key, key = jax.random.split(key)
            action = self._policy(actor, latent.features).sample(action_key)
            seen_action = self._action_features(within_bounds(self.spec, action))
            latent = self.rssm.imagine(world["rssm"], latent, seen_action, key)
            return latent, (latent, action)

        _, (latents, action) = jax.lax.scan(step, start, jax.random.split(key, self.horizon_H))
        found = outputs(self.rssm.reader, world["heads"], latents.features)
        discount = self.gamma * jax.nn.sigmoid(found["continue"][..., 0])
        weight = going * jnp.cumprod(jnp.concatenate([jnp.ones_like(discount[:1]), discount[:-1]]), axis=0)
        seen = jnp.concatenate([start.features[None], latents.features])
        return Dream(seen, action, two_hot_mean(found["reward"]), discount, weight)

    def _learn_from(self, state: DreamerState, dream: Dream, progress: Array) -> tuple[DreamerState, dict]:
        """One step of actor and critic on a dream."""
        seen, value = dream.seen[:-1], self._value(state.critic, dream.seen)
        never = jnp.zeros(dream.reward.shape, bool)
        returns = lambda_returns(dream.reward, value[1:], never, never, dream.discount, self.gae_lambda)
        low, high = jnp.quantile(returns, jnp.array([0.05, 0.95]))
        decay = self.return_normalization_decay
        return_range = decay * state.return_range + (1.0 - decay) * (high - low)
        advantage = (returns - value[:-1]) / jnp.maximum(1.0, return_range)
        slow = self._value(state.slow_critic, seen)

        def actor_loss(actor: Tree) -> tuple[Array, Array]:
            policy = self._policy(actor, seen)
            entropy = policy.entropy()
            gain = advantage * policy.log_prob(dream.action) + self.entropy_scale * entropy
            return -jnp.mean(dream.weight * gain), jnp.mean(entropy)

        def critic_loss(critic: Tree) -> Array:
            logits = outputs(self.rssm.reader, critic, seen)["value"]
            return jnp.mean(dream.weight * (two_hot_loss(logits, returns) + two_hot_loss(logits, slow)))

        (loss, entropy), slopes = jax.value_and_grad(actor_loss, has_aux=True)(state.actor)
        optimizer, lr = Adam(self.actor_grad_clip_by_global_norm), value_at(self.actor_lr, progress)
        actor, actor_optimizer, _ = optimizer.step(state.actor, slopes, state.actor_optimizer, lr)
        of_critic, slopes = jax.value_and_grad(critic_loss)(state.critic)
        optimizer, lr = Adam(self.critic_grad_clip_by_global_norm), value_at(self.critic_lr, progress)
        critic, critic_optimizer, _ = optimizer.step(state.critic, slopes, state.critic_optimizer, lr)
        state = state._replace(
            actor=actor,
            critic=critic,
            slow_critic=polyak_update(state.slow_critic, critic, SLOW),
            actor_optimizer=actor_optimizer,
            critic_optimizer=critic_optimizer,
            return_range=return_range,
        )
        metrics = {"actor_loss": loss, "critic_loss": of_critic, "entropy": entropy}
        return state, metrics | {"dream_return": jnp.mean(returns), "return_range": return_range}

    def _shown(self, obs: Tree) -> Array:
        """What the model sees and foretells of observations, `[..., n]`."""
        found = features(self.spec.obs, obs)
        squashed = not images_in(self.spec.obs) if self.symlog_obs is None else self.symlog_obs
        return symlog(found) if squashed else found

    def _action_features(self, flat: Tree) -> Array:
        """A flat action, as the model sees it, `[..., n]`."""
        return action_features(self.spec.action, shape_action(self.spec.action, flat))

    def _value(self, critic: Tree, seen: Array) -> Array:
        return two_hot_mean(outputs(self.rssm.reader, critic, seen)["value"])

    def _policy(self, actor: Tree, seen: Array, mask: Array | None = None) -> Any:
        """The distribution over flat canonical actions at features of states `[..., n]`.

        Means of continuous ones are within the bounds, by a tanh, and standard deviations between 0.1 and 1.
        """
        found: Any = distribution(self.spec.action, outputs(self.rssm.reader, actor, seen)["policy"])
        if isinstance(found, Categorical):
            return Categorical(masked(unimix(found.logits), mask))
        deviation = 0.1 + 0.9 * jax.nn.sigmoid(found.log_std + 2.0)
        return found._replace(mean=jnp.tanh(found.mean), log_std=jnp.log(deviation))


# By RLlib's names; from XS on they are the paper's (table B).
SIZES: dict[str, RSSM] = {
    "nano": RSSM(16, 4, 4, 16),
    "micro": RSSM(32, 8, 8, 32),
    "mini": RSSM(64, 16, 16, 64),
    "XXS": RSSM(128, 32, 32, 128),
    "XS": RSSM(256, 32, 32, 256),
    "S": RSSM(512, 32, 32, 512, 2),
    "M": RSSM(1024, 32, 32, 640, 3),
    "L": RSSM(2048, 32, 32, 768, 4),
    "XL": RSSM(4096, 32, 32, 1024, 5),
}


class DreamerV3Config(ReplayConfig):
    """Configuration of DreamerV3: `DreamerV3Config().environment("CartPole-v1").training(model_size="mini").build()`.

    `training_ratio` is timesteps learned from over timesteps sampled, an update learns from `batch_size_B` sequences of
    `batch_length_T` steps, and `rollout_fragment_length="auto"` collects as many as make one update.
    """

    algorithm_name = "DreamerV3"
    summary = "a policy that learns in the dreams of a model of the world"
    paper = "Hafner et al. 2023, arXiv:2301.04104"
    agent_class = DreamerV3
    learns_sequences = True
    memory_types = UNIFORM_MEMORIES
    intensity_setting = "training_ratio"
    fields_set_elsewhere = (*ReplayConfig.fields_set_elsewhere, "rssm", "symlog_obs")
    more_settings: ClassVar[dict[str, Setting]] = {
        **{name: setting for name, setting in REPLAY_SETTINGS.items() if name != "training_intensity"},
        "model_size": Setting("training", "XS", "|".join(SIZES)),
        "training_ratio": Setting("training", 1024, "positive number"),
        "batch_size_B": Setting("training", 16, "positive count"),
        "batch_length_T": Setting("training", 64, "positive count"),
        "symlog_obs": Setting("training", "auto", "bool or auto"),
    }
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "min_sample_timesteps_per_iteration": 1000,
        "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 1_000_000},
    }

    def __init__(self, algo_class: type[Algorithm] | None = None):
        super().__init__(algo_class)
        del self._values["train_batch_size"]  # it has others in its place

    @property
    def train_batch_size(self) -> int:
        """Timesteps that an update learns from."""
        return self.batch_size_B * self.batch_length_T

    @property
    def training_intensity(self) -> float:
        """What other algorithms call `training_ratio`."""
        return self.training_ratio

    def sequence_length(self) -> int:
        return self.batch_length_T

    def fragment_length(self) -> int:
        """How many steps each environment takes an iteration: by default as many as make one update."""
        if self.rollout_fragment_length == "auto":
            return max(1, self._shortest_fragment())
        return self.rollout_fragment_length

    def model_parts(self) -> dict[str, Any]:
        size = SIZES[self.model_size]
        layers = {"fcnet_hiddens": [size.units] * size.layers, "fcnet_activation": "silu", "use_layer_norm": True}
        return {"model": make_model({**layers, **self.model, "vf_share_layers": True})}

    def agent_parts(self) -> dict[str, Any]:
        parts = super().agent_parts()
        for name in ("burn_in", "max_seq_len", "timesteps_per_update"):
            del parts[name]
        memory = dataclasses.replace(parts["memory"], keep_carry=False)
        symlog_obs = None if self.symlog_obs == "auto" else self.symlog_obs
        return {**parts, "memory": memory, "rssm": SIZES[self.model_size], "symlog_obs": symlog_obs}

    def _check_recurrence(self) -> None:
        if is_recurrent(self.model_parts()["model"]):
            raise ValueError(
                f"{self._title()}: model is recurrent, and it is the encoder of single observations: what went before "
                "is remembered by the model of the world (model_size); take a feed-forward network"
            )

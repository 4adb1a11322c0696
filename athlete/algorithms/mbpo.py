"""Model-based policy optimisation (MBPO; Janner et al. 2019, arXiv:1906.08253, algorithm 2): SAC on what an ensemble of
models dreams, in short rollouts from states that were truly seen.

Errors of a model grow with every step of a rollout, so rollouts are short and begin anywhere in the replay memory
(section 4, branched rollouts). The model is an ensemble of networks that each say a normal distribution of the change
of the observation and of the reward (section 5; `models/ensemble.py`); each dreamed step is drawn from a random member.
What is dreamed goes into a second memory, which is part of the agent's state. An update is

    dynamics_updates steps of the ensemble on real batches;
    train_batch_size rollouts of rollout_length steps by the policy, into the second memory;
    policy_updates updates of SAC, each on a batch of which `real_ratio` is real.

Departures:

- the ensemble learns at every update, a little, where the paper fits it anew every 250 steps until it is no longer
  better on data held out; so there are no elites among its members;
- an end is learned too, as a probability, where the paper is given a function that tells it; a rollout that ends begins
  anew where it began;
- targets are standardised as inputs are; weights are not decayed;
- the length of rollouts stays the same; the paper's grows in some environments.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.algorithms.sac import SAC
from athlete.algorithms.soft_actor_critic import ForwardActorCritic, SACState
from athlete.core import Array, Key, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, NonNegativeFloat, PositiveInt
from athlete.distributions import shape_action
from athlete.exploration import ActingView
from athlete.memory.replay import Replay
from athlete.memory.ring import Ring
from athlete.models.ensemble import GaussianEnsemble, of_members
from athlete.ops.features import action_features, feature_size, features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.moments import Moments, initial_moments, standardize, update_moments
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.statistics import valid_steps
from athlete.ops.tree import where
from athlete.settings.families import ActorCriticConfig
from athlete.settings.memory import UNIFORM_MEMORIES
from athlete.settings.table import Setting
from athlete.spaces import Box

CLIP = 10.0  # of standardised inputs


class MBPOState(NamedTuple):
    """The state of an `MBPO`."""

    sac: SACState
    dynamics: Tree
    dynamics_optimizer: AdamState
    inputs: Moments  # of observations and actions
    outputs: Moments  # of changes of observations, and rewards
    dreams: Ring  # the second memory


@hyper
class MBPO(ForwardActorCritic):
    """Hyperparameters of MBPO: SAC's under RLlib's names, and the model's. Floats and schedules are traced."""

    serves: ClassVar[tuple[str, ...]] = ("continuous",)

    dynamics_lr: NonNegativeFloat | Schedule = 1e-3
    dynamics_updates: PositiveInt = 4  # of the ensemble in an update, each on a batch of its own
    policy_updates: PositiveInt = 20  # of SAC in an update
    real_ratio: Fraction = 0.05  # of a batch of SAC
    rollout_length: PositiveInt = 1  # steps that are dreamed from each state
    dreams_capacity: PositiveInt = 100_000  # steps in the second memory
    ensemble: GaussianEnsemble = GaussianEnsemble()

    def bind(self, spec: Spec) -> Self:
        """Raises ValueError where observations are no vector of floats, and for targets of several steps."""
        if not isinstance(spec.obs, Box) or len(spec.obs.shape) != 1 or spec.obs.dtype.kind != "f":
            raise ValueError(
                f"{type(self).__name__} learns how a vector of floats changes, and observations are {spec.obs}; "
                "DreamerV3 learns models of other observations"
            )
        if self.n_step != 1:
            raise ValueError(
                f"{type(self).__name__}: n_step={self.n_step}: what is dreamed are single steps; make it 1"
            )
        return super().bind(spec)

    def init(self, key: Key) -> MBPOState:  # type: ignore[override]
        """The key is split in two: for SAC's networks, and for the ensemble."""
        key, dynamics_key = jax.random.split(key)
        size, actions = feature_size(self.spec.obs), self.spec.action.low.size  # type: ignore[attr-defined]
        dynamics = self.ensemble.init(dynamics_key, size + actions, size + 1)
        inputs, outputs = initial_moments(jnp.zeros(size + actions)), initial_moments(jnp.zeros(size + 1))
        dreams = self._dreaming().init(self._blank(), self._rows())
        return MBPOState(super().init(key), dynamics, adam_init(dynamics), inputs, outputs, dreams)

    def view(self, state: MBPOState, progress: Array) -> ActingView:  # type: ignore[override]
        return super().view(state.sac, progress)

    def observe(self, state: MBPOState, accumulators: Tree, trajectory: Transition) -> tuple[MBPOState, Tree]:
        """The moments of what was truly seen."""
        inputs, outputs = self._regression(trajectory)
        weight = valid_steps(trajectory)
        moments = update_moments(state.inputs, inputs, weight), update_moments(state.outputs, outputs, weight)
        return state._replace(inputs=moments[0], outputs=moments[1]), accumulators

    def update(self, state: MBPOState, batch: Transition, key: Key, progress: Array) -> tuple[MBPOState, dict]:  # type: ignore[override]
        """The key is split in five: for what each member learns from, for dreaming, for drawing dreams, for drawing
        real steps, and for SAC.
        """
        member_key, dream_key, drawn_key, real_key, key = jax.random.split(key, 5)
        batch = batch._replace(carry=(), extras={})
        state, metrics = self._learn_dynamics(state, batch, member_key, progress)
        starts = jax.tree.map(lambda leaf: leaf[0, : self._rows()], batch.obs)
        dreams = self._dreaming().add(state.dreams, self._dream(state, starts, dream_key))
        state = state._replace(dreams=dreams)
        dreamed = self._dreaming().sample(dreams, batch, drawn_key, progress)
        batches = self._mixed(batch, dreamed, real_key)
        keys = jax.random.split(key, self.policy_updates)

        def learn(state: SACState, given: tuple[Transition, Key]) -> tuple[SACState, dict]:
            return SAC.update(self, state, *given, progress)  # type: ignore[arg-type]  # SAC's rule, on these networks

        sac, learned = jax.lax.scan(learn, state.sac, (batches, keys))
        del learned["td_error"]
        return state._replace(sac=sac), metrics | {name: jnp.mean(metric) for name, metric in learned.items()}

    def _learn_dynamics(
        self, state: MBPOState, batch: Transition, key: Key, progress: Array
    ) -> tuple[MBPOState, dict[str, Array]]:
        """Steps of the ensemble, each on a part of a real batch `[1, N, ...]` that every member draws from anew."""
        inputs, outputs = self._regression(batch)
        inputs = self._standard(state.inputs, inputs[0])
        outputs, ended = self._standard(state.outputs, outputs[0]), batch.terminated[0].astype(jnp.float32)
        rows, members = self._rows(), self.ensemble.members
        drawn = jax.random.randint(key, (self.dynamics_updates, members, rows), 0, rows)
        drawn = drawn + rows * jnp.arange(self.dynamics_updates)[:, None, None]
        rate, optimizer = value_at(self.dynamics_lr, progress), Adam(None)

        def step(held: tuple[Tree, AdamState], which: Array) -> tuple[tuple[Tree, AdamState], Array]:
            def loss_of(params: Tree) -> tuple[Array, tuple]:
                return self.ensemble.loss(params, inputs[which], outputs[which], ended[which]), ()

            learned = optimizer.minimize(loss_of, *held, rate, weight=None)
            return (learned.params, learned.state), learned.loss

        (dynamics, optimizer_state), losses = jax.lax.scan(step, (state.dynamics, state.dynamics_optimizer), drawn)
        state = state._replace(dynamics=dynamics, dynamics_optimizer=optimizer_state)
        said = self.ensemble.apply(dynamics, inputs[:rows])
        error = jnp.mean(jnp.square(jnp.mean(said.mean, axis=0) - outputs[:rows]))
        return state, {"dynamics_loss": losses[-1], "dynamics_error": error}

    def _dream(self, state: MBPOState, starts: Array, key: Key) -> Transition:
        """Rollouts `[rollout_length, B, ...]` of the policy in the model, from observations `[B, n]`."""
        rows = starts.shape[0]
        never = jnp.zeros(rows, bool)

        def step(obs: Array, key: Key) -> tuple[Array, Transition]:
            action_key, member_key, noise_key, end_key = jax.random.split(key, 4)
            action = self._policy(state.sac.actor, features(self.spec.obs, obs)).sample(action_key)
            inputs = self._standard(state.inputs, jnp.concatenate([obs, action], axis=-1))
            said = self.ensemble.apply(state.dynamics, inputs)
            member = jax.random.randint(member_key, (rows,), 0, self.ensemble.members)
            mean, log_var, logit = (of_members(part, member) for part in said)
            drawn = mean + jnp.exp(0.5 * log_var) * jax.random.normal(noise_key, mean.shape)
            change = state.outputs.mean + jnp.sqrt(state.outputs.variance + 1e-8) * drawn
            next_obs, ended = obs + change[:, :-1], jax.random.uniform(end_key, (rows,)) < jax.nn.sigmoid(logit)
            action = shape_action(self.spec.action, action)
            dreamed = Transition(obs, ~never, action, change[:, -1], next_obs, ended, never, (), {})
            return jnp.where(ended[:, None], starts, next_obs), dreamed

        return jax.lax.scan(step, starts, jax.random.split(key, self.rollout_length))[1]

    def _regression(self, batch: Transition) -> tuple[Array, Array]:
        """What the ensemble is shown, and what it is to say: `[T, B, n + m]` and `[T, B, n + 1]`."""
        action = action_features(self.spec.action, batch.action)
        change = jnp.concatenate([batch.next_obs - batch.obs, batch.reward[..., None]], axis=-1)
        return jnp.concatenate([batch.obs, action], axis=-1), change

    def _standard(self, moments: Moments, values: Array) -> Array:
        return standardize(values, moments.mean, moments.variance, CLIP)

    def _mixed(self, real: Transition, dreamed: Transition, key: Key) -> Transition:
        """Batches of SAC, `[policy_updates, 1, rows, ...]`: dreams, in whose place a share of steps is real."""
        which_key, share_key = jax.random.split(key)
        number = dreamed.reward.shape[1]
        which = jax.random.randint(which_key, (number,), 0, real.reward.shape[1])
        is_real = jax.random.uniform(share_key, (1, number)) < self.real_ratio
        drawn = where(is_real, jax.tree.map(lambda leaf: leaf[:, which], real), dreamed)
        return jax.tree.map(lambda leaf: leaf.reshape(self.policy_updates, 1, -1, *leaf.shape[2:]), drawn)

    def _rows(self) -> int:
        """Samples of one batch of SAC, and as many rollouts."""
        return self.memory.batch_size // self.dynamics_updates

    def _dreaming(self) -> Replay:
        number = self.policy_updates * self._rows()
        return Replay(capacity=self.dreams_capacity, batch_size=number, unroll=self.rollout_length)

    def _blank(self) -> Transition:
        obs, never = jnp.zeros(self.spec.obs.shape), jnp.zeros((), bool)  # type: ignore[attr-defined]
        action = jnp.zeros(self.spec.action.shape)  # type: ignore[attr-defined]
        return Transition(obs, never, action, jnp.zeros(()), obs, never, never, (), {})


class MBPOConfig(ActorCriticConfig):
    """Configuration of MBPO: `MBPOConfig().environment("Pendulum-v1").build()`.

    One update learns from `dynamics_updates` real batches of `train_batch_size`, which `training_intensity` counts.
    """

    algorithm_name = "MBPO"
    summary = "SAC on short rollouts in an ensemble of models, from states that were seen"
    paper = "Janner et al. 2019, arXiv:1906.08253"
    agent_class = MBPO
    memory_types = UNIFORM_MEMORIES
    exploration_types = ("StochasticSampling", "OrnsteinUhlenbeckNoise", "GaussianNoise")
    more_settings: ClassVar[dict[str, Setting]] = {
        **ActorCriticConfig.more_settings,
        "ensemble_size": Setting("training", 7, "positive count"),
        "dynamics_hiddens": Setting("training", [200, 200, 200, 200], "layers"),
    }
    fields_set_elsewhere = (*ActorCriticConfig.fields_set_elsewhere, "ensemble")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"capacity": 1_000_000},
        "exploration_config": {"type": "StochasticSampling"},
    }

    def learned_per_update(self) -> int:
        return self.dynamics_updates * self.train_batch_size

    def agent_parts(self) -> dict[str, Any]:
        fields = super().agent_parts()
        fields["timesteps_per_update"] /= self.policy_updates
        return {**fields, "ensemble": GaussianEnsemble(self.ensemble_size, tuple(self.dynamics_hiddens))}

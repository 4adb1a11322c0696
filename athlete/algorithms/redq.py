"""Randomized Ensembled Double Q-learning (REDQ; Chen et al. 2021, arXiv:2101.05982, algorithm 1) and DroQ (Hiraoka et
al. 2022, arXiv:2110.02034, algorithm 2): soft actor-critics that learn many times from each step.

What limits that is a bias of the critics, which REDQ keeps small with an ensemble of N critics: targets take the
smallest of M random ones, the policy climbs the mean of all. DroQ has two critics that are ensembles by themselves,
by dropout, and steady, by layer normalisation. Both are this one agent; `DroQConfig` only sets N = M = 2, `dropout`
and the critics' layer normalisation.

An update here is `policy_delay` = G updates of the critics, each on a batch of its own, and then one of the policy on
the last of these batches: lines 5 to 11 of the algorithm. The G batches come from the memory as one, and since the
policy and the temperature stand still meanwhile, all next actions come from one forward pass.

Departures:

- a truncated episode is bootstrapped from its true last observation; n-step returns and prioritised replay are options;
- the temperature is learned in log alpha towards an entropy of -dim(A) where REDQ takes a number for each environment;
- clipping the gradient by its norm is an option, over the ensemble as a whole.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.algorithms.soft_actor_critic import SoftActorCritic, over_batches
from athlete.core import Array, Key, Memory, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, NonNegativeInt, PositiveInt, Range
from athlete.distributions import output_size
from athlete.memory.replay import Replay
from athlete.models.critics import init_critics
from athlete.models.dropout import with_dropout
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.gradient import AdamState, adam_init
from athlete.ops.schedule import value_at
from athlete.ops.td import CriticBatches, td_error, td_target
from athlete.ops.temperature import Temperature, temperature_init
from athlete.ops.values import half_square, polyak_update
from athlete.settings.families import DelayedPolicyConfig


class Ensemble(NamedTuple):
    """Critics side by side, each leaf `[num_critics, ...]`: a loop over them compiles once, whatever their number."""

    critics: Tree
    targets: Tree  # in the shapes of the critics
    optimizer: AdamState  # of all critics


class REDQState(NamedTuple):
    """The state of a `REDQ`."""

    actor: Tree
    optimizer: AdamState  # the actor's
    ensemble: Ensemble
    temperature: Temperature


@hyper
class REDQ(SoftActorCritic):
    """Hyperparameters of REDQ and DroQ. Floats and schedules are traced, the rest shapes the program."""

    tau: Fraction = 0.005  # how far the target critics move at each update of the critics
    num_critics: PositiveInt = 10  # N
    num_critics_in_target: PositiveInt = 2  # M, of which targets take the smallest value
    policy_delay: PositiveInt = 20  # updates of the critics for each one of the policy
    dropout: Annotated[float, Range(0.0, 0.9)] | None = None  # probability; None: no dropout
    num_steps_sampled_before_learning_starts: NonNegativeInt = 5000  # timesteps
    random_timesteps: int = 5000  # uniformly random actions at the start
    memory: Memory = Replay(batch_size=20 * 256)

    def bind(self, spec: Spec) -> Self:
        if self.num_critics_in_target > self.num_critics:
            raise ValueError(
                f"num_critics_in_target={self.num_critics_in_target}: targets take the smallest value of as many "
                f"different critics, and there are num_critics={self.num_critics}"
            )
        if self.dropout is not None and not isinstance(self.q_model, MLP):
            raise ValueError(
                f"dropout={self.dropout} is for critics that are MLPs, and q_model is {type(self.q_model).__name__}; "
                "leave out custom_model and use_gru, or set dropout=None"
            )
        return super().bind(spec)

    def init(self, key: Key) -> REDQState:
        """The key is split in two: for the actor, and for the critics, one each."""
        actor_key, critics_key = jax.random.split(key)
        actor = self._initial_actor(actor_key)
        critics = jax.vmap(lambda key: init_critics(self.q_model, key, self.spec.obs, self.spec.action, 1)[0])(
            jax.random.split(critics_key, self.num_critics)
        )
        ensemble = Ensemble(critics, jax.tree.map(jnp.copy, critics), adam_init(critics))
        return REDQState(actor, adam_init(actor), ensemble, temperature_init(self.initial_alpha))

    def update(self, state: REDQState, batch: Transition, key: Key, progress: Array) -> tuple[REDQState, dict]:
        """The key is split in three: for the next actions, for the critics' updates, and for the actor's loss."""
        next_key, critics_key, actor_key = jax.random.split(key, 3)
        alpha, critic_lr = state.temperature.alpha(), value_at(self.critic_lr, progress)
        samples = self._samples(state.actor, batch, alpha, self.policy_delay, next_key)
        keys = jax.random.split(critics_key, self.policy_delay)
        ensemble, metrics = jax.lax.scan(
            lambda ensemble, given: self._update_critics(ensemble, *given, critic_lr), state.ensemble, (samples, keys)
        )
        obs = samples.inputs[-1, :, : samples.inputs.shape[-1] - self._action_size()]

        def actor_losses(actor: Tree) -> tuple[Array, tuple[Array, None]]:
            sample_key, values_key = jax.random.split(actor_key)
            action, log_prob = self._policy(actor, obs).sample_and_log_prob(sample_key)
            values = self._values(ensemble.critics, jnp.concatenate([obs, action], axis=-1), values_key)
            return alpha * log_prob - jnp.mean(values, axis=0), (-log_prob, None)

        learned, temperature, more = self._learn_policy(
            actor_losses, state.actor, state.optimizer, state.temperature, None, progress
        )
        metrics = over_batches(metrics) | more | {"cur_lr": critic_lr}
        return REDQState(learned.params, learned.state, ensemble, temperature), metrics

    def _values(self, critics: Tree, inputs: Array, key: Key) -> Array:
        """`[critics, B]`: what each of the critics says, with dropout of its own, of inputs `[B, n]`."""
        keys = jax.random.split(key, jax.tree.leaves(critics)[0].shape[0])
        return jax.lax.map(lambda given: self._value(given[0], inputs, given[1]), (critics, keys))

    def _value(self, critic: Tree, inputs: Array, key: Key) -> Array:
        """`[B]`: what one critic says, with dropout, of inputs `[B, n]`."""
        if self.dropout is not None:
            critic = with_dropout(critic, inputs.shape[0], self.dropout, key)
        return forward(self.q_model, critic, inputs)["q"][:, 0]

    def _update_critics(
        self, ensemble: Ensemble, samples: CriticBatches, key: Key, learning_rate: Array
    ) -> tuple[Ensemble, dict[str, Array]]:
        """One update of all critics on one batch, and metrics of it.

        The key is split in three: for choosing critics, and for the dropout of target and online critics.
        """
        choose_key, target_key, online_key = jax.random.split(key, 3)
        next_values = self._values(self._chosen(ensemble.targets, choose_key), samples.next_inputs, target_key)
        next_value = jnp.min(next_values, axis=0)

        def loss_of(critic: Tree, key: Key) -> tuple[Array, Array]:
            error = td_error(self._value(critic, samples.inputs, key), samples, next_value)
            return jnp.mean(samples.weight * half_square(error)), error

        keys = jax.random.split(online_key, self.num_critics)
        (loss, error), gradients = jax.lax.map(
            lambda given: jax.value_and_grad(loss_of, has_aux=True)(*given), (ensemble.critics, keys)
        )
        critics, optimizer, norm = self._optimizer().step(
            ensemble.critics, gradients, ensemble.optimizer, learning_rate
        )
        metrics = {
            "critic_loss": jnp.mean(loss),
            "mean_q": jnp.mean(td_target(samples, next_value) + error),
            "mean_td_error": jnp.mean(error),
            "grad_gnorm": norm,
            "td_error": jnp.mean(jnp.abs(error), axis=0),
        }
        return Ensemble(critics, polyak_update(ensemble.targets, critics, self.tau), optimizer), metrics

    def _chosen(self, targets: Tree, key: Key) -> Tree:
        """The target critics that are asked this time."""
        if self.num_critics_in_target == self.num_critics:
            return targets
        order = jax.random.uniform(key, (self.num_critics,))
        which = jax.lax.top_k(order, self.num_critics_in_target)[1]
        return jax.tree.map(lambda leaf: leaf[which], targets)

    def _action_size(self) -> int:
        return output_size(self.spec.action) // 2


SHARED_DEFAULTS: dict[str, Any] = {
    "num_envs_per_worker": 1,
    "rollout_fragment_length": 1,
    "train_batch_size": 256,
    "min_sample_timesteps_per_iteration": 1000,
    "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
    "replay_buffer_config": {"capacity": 1_000_000},
    "exploration_config": {"type": "StochasticSampling", "random_timesteps": 5000},
}


class REDQConfig(DelayedPolicyConfig):
    """Configuration of REDQ: `REDQConfig().environment("Pendulum-v1").training(num_critics=5).build()`."""

    algorithm_name = "REDQ"
    summary = "SAC with an ensemble of critics, which learns many times from each step"
    paper = "Chen et al. 2021, arXiv:2101.05982"
    agent_class = REDQ
    exploration_types = ("StochasticSampling",)
    defaults: ClassVar[dict[str, Any]] = SHARED_DEFAULTS


class DroQConfig(DelayedPolicyConfig):
    """Configuration of DroQ: `DroQConfig().environment("Pendulum-v1").training(dropout=0.005).build()`."""

    algorithm_name = "DroQ"
    summary = "REDQ with two critics, dropout and layer normalisation in place of the ensemble"
    paper = "Hiraoka et al. 2022, arXiv:2110.02034"
    agent_class = REDQ
    exploration_types = ("StochasticSampling",)
    defaults: ClassVar[dict[str, Any]] = {
        **SHARED_DEFAULTS,
        "num_critics": 2,
        "dropout": 0.01,
        "q_model_config": {"use_layer_norm": True},
    }

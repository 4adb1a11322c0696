"""CrossQ (Bhatt et al. 2024, ICLR, arXiv:1902.05605): a soft actor-critic without target networks.

What makes that stable is batch normalisation in the critics, if they see present and next observations and actions as
one batch, so that both are standardised by the same moments: all values come from one forward pass, and the half that
belongs to the target is a constant to the gradient (section 4 of the paper). Batch renormalisation takes over after a
while; actor and critics have it both. Adam's momentum is lower than usual.

An update here is `policy_delay` updates of the critics, each on a batch of its own, and then one of the policy on the
last of these batches. They come from the memory as one, and since the policy stands still meanwhile, all next actions
come from one forward pass. By default an iteration is as many timesteps, so that critics are updated once for each.

Departures:

- critics of [256, 256] units, where the paper has [2048, 2048]: 50 times the products. `q_model_config` sets them;
- a truncated episode is bootstrapped from its true last observation; n-step returns and prioritised replay are options;
- the momentum of the temperature's Adam is the usual one.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.algorithms.soft_actor_critic import SoftActorCritic, over_batches
from athlete.core import Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, Range
from athlete.distributions import output_size
from athlete.memory.replay import Replay
from athlete.models.batch_norm import BatchNormMLP, Moments
from athlete.models.critics import critic_values, init_critics
from athlete.models.mlp import MLP
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import CriticBatches, td_error
from athlete.ops.temperature import Temperature, temperature_init
from athlete.ops.values import half_square
from athlete.settings.families import DelayedPolicyConfig


class CrossQState(NamedTuple):
    """The state of a `CrossQ`."""

    actor: Tree  # {"learned": ..., "running": moments of each layer's inputs}
    critics: list[Tree]  # in the same form
    actor_optimizer: AdamState  # of what is learned
    critic_optimizer: AdamState  # of all critics; its count is that of their updates
    temperature: Temperature


@hyper
class CrossQ(SoftActorCritic):
    """Hyperparameters of CrossQ. Floats and schedules are traced, the rest shapes the program."""

    actor_lr: NonNegativeFloat | Schedule = 1e-3
    critic_lr: NonNegativeFloat | Schedule = 1e-3
    alpha_lr: NonNegativeFloat | Schedule = 1e-3  # 0: the temperature stays at initial_alpha
    adam_beta1: Annotated[float, Range(0.0, 0.999)] = 0.5  # momentum of the actor's and the critics' Adam
    twin_q: bool = True  # the smaller value of two critics counts
    policy_delay: PositiveInt = 3  # updates of the critics for each one of the policy
    renormalize_after: NonNegativeFloat = 100_000.0  # updates of the critics; before, a batch is normalised alone
    num_steps_sampled_before_learning_starts: NonNegativeInt = 5000  # timesteps
    random_timesteps: int = 5000  # uniformly random actions at the start
    policy_model: Model = BatchNormMLP()
    q_model: Model = BatchNormMLP()
    memory: Memory = Replay(batch_size=3 * 256)

    def bind(self, spec: Spec) -> Self:
        for name, model in {"policy_model": self.policy_model, "q_model": self.q_model}.items():
            if not isinstance(model, BatchNormMLP):
                raise ValueError(
                    f"CrossQ needs networks with batch normalisation, and {name} is {model}; leave out custom_model "
                    "and use_layer_norm, or give an athlete.models.batch_norm.BatchNormMLP as custom_model"
                )
        return super().bind(spec)

    def init(self, key: Key) -> CrossQState:
        """The key is split in two: for the actor, and for the critics."""
        actor_key, critics_key = jax.random.split(key)
        actor = self._initial_actor(actor_key)
        critics = init_critics(self.q_model, critics_key, self.spec.obs, self.spec.action, 2 if self.twin_q else 1)
        optimizers = adam_init(actor["learned"]), adam_init(_learned(critics))
        return CrossQState(actor, critics, *optimizers, temperature_init(self.initial_alpha))

    def update(self, state: CrossQState, batch: Transition, key: Key, progress: Array) -> tuple[CrossQState, dict]:
        """The key is split in two: for the next actions, and for those that the actor's loss is estimated with."""
        next_key, actor_key = jax.random.split(key)
        alpha, critic_lr = state.temperature.alpha(), value_at(self.critic_lr, progress)
        samples = self._samples(state.actor, batch, alpha, self.policy_delay, next_key)
        (critics, critic_optimizer), metrics = jax.lax.scan(
            lambda carried, samples: self._update_critics(*carried, samples, critic_lr),
            (state.critics, state.critic_optimizer),
            samples,
        )
        obs = samples.inputs[-1, :, : samples.inputs.shape[-1] - output_size(self.spec.action) // 2]
        late = self._late(critic_optimizer)

        def actor_losses(learned: Tree) -> tuple[Array, tuple[Array, list[Moments]]]:
            heads, running = self._train(self.policy_model, {**state.actor, "learned": learned}, obs, late)
            action, log_prob = self._distribution(heads["policy"]).sample_and_log_prob(actor_key)
            value = jnp.min(critic_values(self.q_model, critics, obs, action)[..., 0], axis=0)
            return alpha * log_prob - value, (-log_prob, running)

        learned, temperature, more = self._learn_policy(
            actor_losses, state.actor["learned"], state.actor_optimizer, state.temperature, None, progress
        )
        actor = {"learned": learned.params, "running": learned.aux[1]}
        metrics = over_batches(metrics) | more | {"cur_lr": critic_lr}
        return CrossQState(actor, critics, learned.state, critic_optimizer, temperature), metrics

    def _optimizer(self) -> Adam:
        return Adam(self.grad_clip, beta1=self.adam_beta1)

    def _train(self, model: Model, params: Tree, x: Array, late: Array) -> tuple[dict[str, Array], list[Moments]]:
        assert isinstance(model, BatchNormMLP)
        return model.train(params, x, late)

    def _late(self, critic_optimizer: AdamState) -> Array:
        """Whether batches are renormalised by now."""
        return critic_optimizer.count >= self.renormalize_after

    def _update_critics(
        self, critics: list[Tree], optimizer: AdamState, samples: CriticBatches, learning_rate: Array
    ) -> tuple[tuple[list[Tree], AdamState], dict[str, Array]]:
        """One update of all critics on one batch, and metrics of it."""
        both = jnp.concatenate([samples.inputs, samples.next_inputs])
        late = self._late(optimizer)

        def losses_of(learned: list[Tree]) -> tuple[Array, tuple[Array, Array, list[list[Moments]]]]:
            trained = [
                self._train(self.q_model, {**critic, "learned": new}, both, late)
                for critic, new in zip(critics, learned, strict=True)
            ]
            values = jnp.stack([heads["q"][:, 0] for heads, _ in trained])
            value, next_value = jnp.split(values, 2, axis=1)
            error = td_error(value, samples, jnp.min(next_value, axis=0))
            return jnp.sum(half_square(error), axis=0), (error, value, [running for _, running in trained])

        learned = self._optimizer().minimize(losses_of, _learned(critics), optimizer, learning_rate, samples.weight)
        error, value, running = learned.aux
        critics = [{"learned": new, "running": moments} for new, moments in zip(learned.params, running, strict=True)]
        metrics = {
            "critic_loss": learned.loss,
            "mean_q": jnp.mean(value),
            "mean_td_error": jnp.mean(error),
            "grad_gnorm": learned.norm,
            "td_error": jnp.mean(jnp.abs(error), axis=0),
        }
        return (critics, learned.state), metrics


def _learned(critics: list[Tree]) -> list[Tree]:
    return [critic["learned"] for critic in critics]


class CrossQConfig(DelayedPolicyConfig):
    """Configuration of CrossQ: `CrossQConfig().environment("Pendulum-v1").training(policy_delay=1).build()`.

    With `rollout_fragment_length="auto"` an iteration is `policy_delay` timesteps of each environment.
    """

    algorithm_name = "CrossQ"
    summary = "SAC without target networks, its critics held steady by batch normalisation"
    paper = "Bhatt et al. 2024, arXiv:1902.05605"
    agent_class = CrossQ
    exploration_types = ("StochasticSampling",)
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"capacity": 1_000_000},
        "exploration_config": {"type": "StochasticSampling", "random_timesteps": 5000},
    }

    def fragment_length(self) -> int:
        return self.policy_delay if self.rollout_fragment_length == "auto" else super().fragment_length()

    def model_parts(self) -> dict[str, Any]:
        return {
            name: BatchNormMLP(model.hiddens, model.activation)
            if isinstance(model, MLP) and not model.layer_norm
            else model
            for name, model in super().model_parts().items()
        }

"""Behaviour cloning (Pomerleau 1989): supervised learning of what was done, and the file to read first of those that
learn from recorded data.

One step an update down -log pi(a | s) over a batch of recorded steps. Rewards are not read: the policy becomes as good
as those who made the data on average, and worse where their mistakes differ. Networks with memory learn from sequences
that begin anywhere in an episode, with an empty memory.

Departures from RLlib, whose BC is MARWIL with `beta=0`: there is no critic, which would learn nothing that acts.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from athlete.algorithms.on_policy import ActorCriticState, OnPolicy
from athlete.core import Array, Key, Memory, Model, Transition, Tree, hyper
from athlete.core.ranges import Limit, NonNegativeFloat
from athlete.distributions import flat_action
from athlete.memory.replay import Replay
from athlete.models.actor_critic import apply_actor_critic, init_actor_critic, legal_distribution
from athlete.models.catalog import make_model
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import Adam, adam_init
from athlete.ops.masks import action_mask
from athlete.ops.schedule import Schedule, value_at
from athlete.settings.families import RecordedConfig


@hyper
class BC(OnPolicy):
    """Hyperparameters of BC under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    lr: NonNegativeFloat | Schedule = 1e-4
    grad_clip: Limit | None = None  # of the global norm
    model: Model = MLP()
    memory: Memory = Replay()

    def init(self, key: Key) -> ActorCriticState:
        params = init_actor_critic(self.model, key, self.spec, self.free_log_std, self.log_std_init, critic=False)
        return ActorCriticState(params, adam_init(params, self.optimizer))

    def update(
        self, state: ActorCriticState, batch: Transition, key: Key, progress: Array
    ) -> tuple[ActorCriticState, dict]:
        """The key is not used: nothing here is random."""
        obs, mask = features(self.spec.obs, batch.obs), action_mask(self.spec, batch.obs)
        action, start = flat_action(self.spec.action, batch.action), self.model.start(batch.reward.shape[1])

        def losses_of(params: Tree) -> tuple[Array, Array]:
            _, outputs, _ = apply_actor_critic(self.model, params, start, obs, batch.first)
            policy = legal_distribution(self.spec, outputs, mask)
            return -policy.log_prob(action), policy.entropy()

        lr = value_at(self.lr, progress)
        adam = Adam(self.grad_clip, instead=self.optimizer)
        learned = adam.minimize(losses_of, state.params, state.optimizer, lr, weight=None)
        metrics = {
            "policy_loss": learned.loss,
            "entropy": jnp.mean(learned.aux),
            "grad_gnorm": learned.norm,
            "cur_lr": jnp.asarray(lr, jnp.float32),
        }
        return ActorCriticState(learned.params, learned.state), metrics


class BCConfig(RecordedConfig):
    """Configuration of BC: `BCConfig().environment("CartPole-v1").offline_data(input_="expert.json").build()`."""

    algorithm_name = "BC"
    summary = "behaviour cloning: the probability of what was done, made larger"
    paper = "Pomerleau 1989, NIPS 1"
    agent_class = BC
    defaults: ClassVar[dict[str, Any]] = {
        "train_batch_size": 2000,
        "min_sample_timesteps_per_iteration": 100_000,
    }

    def agent_parts(self) -> dict[str, Any]:
        """The network, without one for values."""
        return {**super().agent_parts(), "model": make_model({**self.model, "vf_share_layers": True})}

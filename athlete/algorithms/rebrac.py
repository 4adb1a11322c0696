"""ReBRAC (Tarasov et al. 2023, arXiv:2305.09836): TD3+BC, the penalty on actor and critic apart, by today's recipes.

The actor minimises beta_1 |pi(s) - a|^2 - min_i Q_i(s, pi(s)) / mean |Q| (equation 2), and the critics' targets are
r + gamma (min_i Q'_i(s', a~) - beta_2 |a~ - a'|^2) (equation 3), where a~ is the smoothed action of the target policy
and a' what was done next in the data. Critics have layer normalisation and one layer more, batches are large.

Departures:

- where an episode ends, nothing was done next, and a cut step's target has no penalty;
- half the squared error is minimised, as by TD3 here: with Adam only `l2_reg` and `grad_clip` can tell;
- the penalty of n-step targets is on the action n steps later.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from athlete.algorithms.deterministic import DeterministicActorCritic, DeterministicState
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import NonNegativeFloat
from athlete.distributions import flat_action
from athlete.ops.td import n_step_transition
from athlete.settings.families import ActorCriticConfig


@hyper
class ReBRAC(DeterministicActorCritic):
    """Hyperparameters of ReBRAC. Floats and schedules are traced, the rest shapes the program."""

    actor_bc_coeff: NonNegativeFloat = 0.01  # beta_1: what distance from what was done costs the actor
    critic_bc_coeff: NonNegativeFloat = 0.01  # beta_2: what it costs the critics' targets

    def update(
        self, state: DeterministicState, batch: Transition, key: Key, progress: Array
    ) -> tuple[DeterministicState, dict]:
        """The key is split in two: for smoothing the target policy, and for adapting ParameterNoise.

        `batch` has a step more than the targets are made of: what was done next.
        """
        smooth_key, disturb_key = jax.random.split(key)
        window = jax.tree.map(lambda leaf: leaf[:-1], batch._replace(extras={}))
        step = n_step_transition(window._replace(extras=batch.extras), self.spec, self.gamma)
        next_action = self._next_action(state.target, step.next_obs, smooth_key)
        next_value = self._least_value(state.target.critics, step.next_obs, next_action)
        next_value = next_value - self.critic_bc_coeff * self._distance(batch, next_action)
        state, metrics = self._learn_values(state, step, next_value, progress)
        action = flat_action(self.spec.action, step.action)
        state = self._delayed(self._improve, state, step.obs, action, progress)
        return self._finish(state, step.obs, metrics, disturb_key, progress)

    def _distance(self, batch: Transition, next_action: Array) -> Array:
        """Squares of what `next_action` differs by from what was done next, added up, `[B]`; 0 after an end."""
        ended = jnp.any(batch.first[1:], axis=0)
        done_next = flat_action(self.spec.action, batch.action)[-1]
        return jnp.where(ended, 0.0, jnp.sum(jnp.square(next_action - done_next), axis=-1))

    def _improve(self, state: DeterministicState, obs: Array, action: Array, progress: Array) -> DeterministicState:
        """One step of the actor towards what was done and up the smaller value, and of the targets."""
        critics = state.online.critics

        def losses_of(actor: Tree) -> tuple[Array, None]:
            chosen = self._policy(actor, obs)
            value = self._least_value(critics, obs, chosen)
            scale = 1.0 / jax.lax.stop_gradient(jnp.mean(jnp.abs(value)))
            distance = jnp.sum(jnp.square(chosen - action), axis=-1)
            return self.actor_bc_coeff * distance - scale * value, None

        return self._climb(state, losses_of, progress)


class ReBRACConfig(ActorCriticConfig):
    """Configuration of ReBRAC: `ReBRACConfig().offline_data(input_=...).training(actor_bc_coeff=0.1).build()`."""

    algorithm_name = "ReBRAC"
    summary = "TD3+BC with penalties on actor and critic apart, layer normalisation and large batches"
    paper = "Tarasov et al. 2023, arXiv:2305.09836"
    agent_class = ReBRAC
    offline = True
    exploration_types = ("GaussianNoise", "OrnsteinUhlenbeckNoise", "ParameterNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "train_batch_size": 1024,
        "num_steps_sampled_before_learning_starts": 10_000,
        "min_sample_timesteps_per_iteration": 1_024_000,
        "model": {"fcnet_hiddens": [256, 256, 256], "fcnet_activation": "relu"},
        "q_model_config": {"use_layer_norm": True},
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 1_000_000},
        "exploration_config": {
            "type": "GaussianNoise",
            "initial_scale": 1.0,
            "final_scale": 1.0,
            "random_timesteps": 0,
        },
    }

    def window_length(self) -> int:
        """One step more than targets are made of."""
        return super().window_length() + 1

"""TD3+BC (Fujimoto & Gu 2021, arXiv:2106.06860): the least that TD3 needs to learn from recorded data.

TD3 whose actor is also paid for doing what was done (equations 3 to 5): it minimises
(pi(s) - a)^2 - (alpha / mean |Q|) Q(s, pi(s)), the mean being that of the batch and held constant. A critic's belief in
actions that nobody has tried then has a price. Observations are standardised by the data (`observation_filter`).

Departures:

- half the squared error is minimised by the critics, as by TD3 here: with Adam only `l2_reg` and `grad_clip` can tell;
- n-step returns, the Huber loss, the penalty on the weights and clipping are TD3's options here, all off by default.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from athlete.algorithms.deterministic import DeterministicActorCritic, DeterministicState
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.core.ranges import PositiveFloat
from athlete.distributions import flat_action
from athlete.ops.td import n_step_transition
from athlete.settings.families import ActorCriticConfig


@hyper
class TD3BC(DeterministicActorCritic):
    """Hyperparameters of TD3+BC. Floats and schedules are traced, the rest shapes the program."""

    alpha: PositiveFloat = 2.5  # what values count beside doing what was done

    def update(
        self, state: DeterministicState, batch: Transition, key: Key, progress: Array
    ) -> tuple[DeterministicState, dict]:
        """The key is split in two: for smoothing the target policy, and for adapting ParameterNoise."""
        smooth_key, disturb_key = jax.random.split(key)
        step = n_step_transition(batch, self.spec, self.gamma)
        next_action = self._next_action(state.target, step.next_obs, smooth_key)
        next_value = self._least_value(state.target.critics, step.next_obs, next_action)
        state, metrics = self._learn_values(state, step, next_value, progress)
        action = flat_action(self.spec.action, step.action)
        state = self._delayed(self._improve, state, step.obs, action, progress)
        return self._finish(state, step.obs, metrics, disturb_key, progress)

    def _improve(self, state: DeterministicState, obs: Array, action: Array, progress: Array) -> DeterministicState:
        """One step of the actor towards what was done and up the first critic's value, and of the targets."""
        critics = state.online.critics

        def losses_of(actor: Tree) -> tuple[Array, None]:
            chosen = self._policy(actor, obs)
            value = self._values(critics[:1], obs, chosen)[0]
            scale = self.alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(value)))
            return jnp.mean(jnp.square(chosen - action), axis=-1) - scale * value, None

        return self._climb(state, losses_of, progress)


class TD3BCConfig(ActorCriticConfig):
    """Configuration of TD3+BC: `TD3BCConfig().offline_data(input_="data.safetensors").training(alpha=2.5).build()`."""

    algorithm_name = "TD3BC"
    summary = "TD3 whose actor is also paid for doing what was done"
    paper = "Fujimoto & Gu 2021, arXiv:2106.06860"
    agent_class = TD3BC
    offline = True
    exploration_types = ("GaussianNoise", "OrnsteinUhlenbeckNoise", "ParameterNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "train_batch_size": 256,
        "actor_lr": 3e-4,
        "critic_lr": 3e-4,
        "min_sample_timesteps_per_iteration": 256_000,
        "observation_filter": "MeanStdFilter",
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 1_000_000},
        "exploration_config": {
            "type": "GaussianNoise",
            "initial_scale": 1.0,
            "final_scale": 1.0,
            "random_timesteps": 0,
        },
    }

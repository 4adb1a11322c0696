"""Twin Delayed Deep Deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477).

DDPG (arXiv:1509.02971) with three cures for values that are too high, each of them a switch: the smaller of two
critics is believed (equation 10, `twin_q`), targets are values of disturbed actions (equation 14,
`smooth_target_policy`), and actor and target networks learn at every `policy_delay`-th update only (algorithm 1).
With all three off it is DDPG, which `ddpg.py` has as settings of this agent.

Departures:

- a truncated episode is bootstrapped from its true last observation; n-step returns (Sutton & Barto 2018, equation
  7.1), prioritised replay, the Huber loss and a penalty on the weights are RLlib's options;
- half the squared error is minimised, as by RLlib: with Adam only `l2_reg` and `grad_clip` can tell;
- networks of [256, 256] units where the paper has [400, 300], as in its authors' later code.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax

from athlete.algorithms.deterministic import DeterministicActorCritic, DeterministicState
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.ops.td import n_step_transition
from athlete.settings.families import ActorCriticConfig


@hyper
class TD3(DeterministicActorCritic):
    """Hyperparameters of TD3 under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    def update(
        self, state: DeterministicState, batch: Transition, key: Key, progress: Array
    ) -> tuple[DeterministicState, dict]:
        """The key is split in two: for smoothing the target policy, and for adapting ParameterNoise."""
        smooth_key, disturb_key = jax.random.split(key)
        step = n_step_transition(batch, self.spec, self.gamma)
        next_action = self._next_action(state.target, step.next_obs, smooth_key)
        next_value = self._least_value(state.target.critics, step.next_obs, next_action)
        state, metrics = self._learn_values(state, step, next_value, progress)
        state = self._delayed(self._improve, state, step.obs, progress)
        return self._finish(state, step.obs, metrics, disturb_key, progress)

    def _improve(self, state: DeterministicState, obs: Array, progress: Array) -> DeterministicState:
        """One step of the actor up the first critic's value (the deterministic policy gradient), and of the targets."""
        critics = state.online.critics

        def losses_of(actor: Tree) -> tuple[Array, None]:
            return -self._values(critics[:1], obs, self._policy(actor, obs)), None

        return self._climb(state, losses_of, progress)


class TD3Config(ActorCriticConfig):
    """Configuration of TD3: `TD3Config().environment("Pendulum-v1").training(actor_lr=3e-4).build()`."""

    algorithm_name = "TD3"
    summary = "DDPG with two critics, smoothed targets and a delayed actor"
    paper = "Fujimoto et al. 2018, arXiv:1802.09477"
    agent_class = TD3
    exploration_types = ("GaussianNoise", "OrnsteinUhlenbeckNoise", "ParameterNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "train_batch_size": 100,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 1_000_000},
        "exploration_config": {
            "type": "GaussianNoise",
            "stddev": 0.1,
            "initial_scale": 1.0,
            "final_scale": 1.0,
            "scale_timesteps": 1,
            "random_timesteps": 10_000,
        },
    }

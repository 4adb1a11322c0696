"""Deep Deterministic Policy Gradient (Lillicrap et al. 2016, arXiv:1509.02971).

Algorithm 1: the critic learns the value of the actor's next action by the target networks, and the actor climbs the
critic's value (equation 6, the deterministic policy gradient of Silver et al. 2014). Defaults are RLlib's.

The agent is TD3 (`td3.py`) with each of its cures off; as in RLlib they are settings here too.

Departures:

- a truncated episode is bootstrapped from its true last observation; n-step returns (Sutton & Barto 2018, equation
  7.1), prioritised replay, the Huber loss and gradient clipping are RLlib's options;
- the penalty on the weights is on those of both networks, and small; the paper's is 1e-2 and on the critic's alone;
- no batch normalisation; the critic sees actions from its first layer on, the paper's from its second;
- the last layers start as small as the actor's need (normal instead of uniform numbers), the critic's do not;
- half the squared error is minimised, as by RLlib: with Adam only `l2_reg` and `grad_clip` can tell.
"""

from __future__ import annotations

from typing import Any, ClassVar

from athlete.algorithms.td3 import TD3
from athlete.settings.families import ActorCriticConfig


class DDPGConfig(ActorCriticConfig):
    """Configuration of DDPG: `DDPGConfig().environment("Pendulum-v1").training(actor_lr=3e-4).build()`."""

    algorithm_name = "DDPG"
    summary = "a deterministic actor that climbs its critic"
    paper = "Lillicrap et al. 2016, arXiv:1509.02971"
    agent_class = TD3
    exploration_types = ("OrnsteinUhlenbeckNoise", "GaussianNoise", "ParameterNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "PrioritizedReplayBuffer", "capacity": 50_000},
        "exploration_config": {"type": "OrnsteinUhlenbeckNoise", "random_timesteps": 1000},
        "twin_q": False,
        "policy_delay": 1,
        "smooth_target_policy": False,
        "tau": 0.002,
        "l2_reg": 1e-6,
        "num_steps_sampled_before_learning_starts": 1500,
    }

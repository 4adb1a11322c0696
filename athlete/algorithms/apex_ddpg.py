"""Ape-X DDPG (Horgan et al. 2018, arXiv:1803.00933, section 4.2 and appendix D): DDPG with many actors.

The learner is DDPG's (`ddpg.py`): n steps and prioritised replay. The actors are rows of environments, each of which
adds noise of a scale that it keeps for ever: row i of N has scale^(1 + exponent i / (N - 1)), as RLlib's.

Departures: the paper's actors all have the same noise; priorities are those of Ape-X DQN (`apex_dqn.py`); departures of
DDPG besides.
"""

from __future__ import annotations

from typing import Any, ClassVar

from athlete.algorithms.ddpg import DDPGConfig
from athlete.algorithms.td3 import TD3
from athlete.settings.families import ActorCriticConfig


class ApexDDPGConfig(ActorCriticConfig):
    """Configuration of Ape-X DDPG: `ApexDDPGConfig().environment("Pendulum-v1").training(actor_lr=3e-4).build()`."""

    algorithm_name = "ApexDDPG"
    summary = "DDPG with many actors, each with a scale of noise of its own"
    paper = "Horgan et al. 2018, arXiv:1803.00933"
    agent_class = TD3
    exploration_types = (
        "PerWorkerOrnsteinUhlenbeckNoise",
        "PerWorkerGaussianNoise",
        "OrnsteinUhlenbeckNoise",
        "GaussianNoise",
        "ParameterNoise",
    )
    defaults: ClassVar[dict[str, Any]] = {
        **DDPGConfig.defaults,
        "workers_act": True,
        "sample_async": True,
        "num_envs_per_worker": 8,
        "rollout_fragment_length": 50,
        "train_batch_size": 512,
        "training_intensity": 1.0,
        "n_step": 3,
        "num_steps_sampled_before_learning_starts": 50_000,
        "target_network_update_freq": 500_000.0,
        "min_sample_timesteps_per_iteration": 25_000,
        "replay_buffer_config": {
            "type": "PrioritizedReplayBuffer",
            "capacity": 2_000_000,
            "worker_side_prioritization": True,
        },
        "exploration_config": {"type": "PerWorkerOrnsteinUhlenbeckNoise"},
    }

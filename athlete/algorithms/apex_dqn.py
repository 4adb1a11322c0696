"""Ape-X DQN (Horgan et al. 2018, arXiv:1803.00933): DQN with many actors, each of which explores to its own degree.

The learner is DQN's: double Q-learning of n steps with dueling networks and prioritised replay. The actors are rows of
environments, row i of N acting with the epsilon that it keeps for ever, epsilon^(1 + alpha i / (N - 1)) (section 4.1),
in workers whose trajectories are taken as they come, where there are workers.

A new step's priority is its TD error by the network that acted, which workers compute (algorithm 1).

Departures: Adam instead of RMSProp; a truncated episode is bootstrapped from its true last observation; steps whose n
steps go on in the next trajectory have the largest priority so far.
"""

from __future__ import annotations

from typing import Any, ClassVar

from athlete.algorithms.dqn import DQN
from athlete.settings.families import REPLAY_SETTINGS, STREAM_SETTINGS, ReplayConfig
from athlete.settings.table import Setting


class ApexDQNConfig(ReplayConfig):
    """Configuration of Ape-X DQN: `ApexDQNConfig().environment("CartPole-v1").training(lr=1e-3).build()`."""

    algorithm_name = "ApexDQN"
    summary = "DQN with many actors, each with an epsilon of its own"
    paper = "Horgan et al. 2018, arXiv:1803.00933"
    agent_class = DQN
    more_settings: ClassVar[dict[str, Setting]] = {**REPLAY_SETTINGS, **STREAM_SETTINGS}
    exploration_types = ("PerWorkerEpsilonGreedy", "EpsilonGreedy", "SoftQ", "ParameterNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "workers_act": True,
        "sample_async": True,
        "num_envs_per_worker": 8,
        "rollout_fragment_length": 50,
        "train_batch_size": 512,
        "training_intensity": 1.0,
        "hiddens": [256],
        "n_step": 3,
        "num_steps_sampled_before_learning_starts": 50_000,
        "target_network_update_freq": 500_000.0,
        "min_sample_timesteps_per_iteration": 25_000,
        "replay_buffer_config": {
            "type": "PrioritizedReplayBuffer",
            "capacity": 2_000_000,
            "worker_side_prioritization": True,
        },
    }

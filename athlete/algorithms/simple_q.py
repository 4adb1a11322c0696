"""Deep Q-learning without extras: algorithm 1 of Mnih et al. 2015 (Nature 518, doi:10.1038/nature14236).

An agent keeps what it sees in a memory, and after every few steps learns from a sample of it: the value of the action
taken is moved towards r + gamma max_a Q(s', a; target), where the target network is a copy of the online one that is
renewed now and then. `DQN` is the same with all that was found since: this is DQN with each of its parts off.

Departures: Adam instead of RMSProp; Huber's loss stands for the paper's clipped errors, as in its authors' later work;
gradients are clipped by their global norm; a truncated episode is bootstrapped from its true last observation.
"""

from __future__ import annotations

from typing import Any, ClassVar

from athlete.algorithms.dqn import DQN
from athlete.settings.families import REPLAY_SETTINGS, STREAM_SETTINGS, ReplayConfig
from athlete.settings.memory import UNIFORM_MEMORIES
from athlete.settings.table import Setting

PARTS_OF_DQN = ("double_q", "dueling", "noisy", "sigma0", "n_step", "num_atoms", "v_min", "v_max", "tau")


class SimpleQConfig(ReplayConfig):
    """Configuration of SimpleQ: `SimpleQConfig().environment("CartPole-v1").training(lr=1e-3).build()`."""

    algorithm_name = "SimpleQ"
    summary = "Q-learning with a target network and nothing else"
    paper = "Mnih et al. 2015, Nature 518"
    agent_class = DQN
    exploration_types = ("EpsilonGreedy", "SoftQ")
    more_settings: ClassVar[dict[str, Setting]] = {**REPLAY_SETTINGS, **STREAM_SETTINGS}
    memory_types = UNIFORM_MEMORIES
    fields_set_elsewhere = (*ReplayConfig.fields_set_elsewhere, *PARTS_OF_DQN)
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 4,
        "train_batch_size": 32,
        "hiddens": [256],
        "min_sample_timesteps_per_iteration": 1000,
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 50_000},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.02,
            "epsilon_timesteps": 10_000,
        },
    }

    def agent_parts(self) -> dict[str, Any]:
        return {**super().agent_parts(), "double_q": False, "dueling": False}

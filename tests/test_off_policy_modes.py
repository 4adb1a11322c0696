"""Written once: agents with a memory take the same steps compiled and hosted, and resume exactly."""

from __future__ import annotations

import numpy as np
import pytest
from modes import CARTPOLE, KEY, PENDULUM, assert_modes_are_equal, assert_resumes

from athlete.algorithms import get_config_class
from athlete.algorithms.crossq import CrossQ
from athlete.algorithms.dqn import DQN
from athlete.algorithms.dreamerv3 import DreamerV3
from athlete.algorithms.iqn import IQN
from athlete.algorithms.mpo import MPO
from athlete.algorithms.r2d2 import R2D2
from athlete.algorithms.redq import REDQ
from athlete.algorithms.rnnsac import RNNSAC
from athlete.algorithms.sac import SAC
from athlete.algorithms.td3 import TD3
from athlete.algorithms.tdmpc2 import TDMPC2
from athlete.algorithms.tqc import TQC
from athlete.env.games.goals import make_goal_env
from athlete.env.goals import CompiledGoals
from athlete.exploration import EpsilonGreedy, OrnsteinUhlenbeckNoise, ParameterNoise
from athlete.loops.collect import spec_of
from athlete.loops.learn import phases
from athlete.loops.train import CompiledTraining
from athlete.memory.hindsight import Hindsight
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.memory.ring import ring_take
from athlete.models.attention import GTrXL
from athlete.models.batch_norm import BatchNormMLP
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU, LSTM
from athlete.models.rssm import RSSM
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule

SMALL = {"lr": 1e-2, "model": MLP((8,), "relu"), "num_steps_sampled_before_learning_starts": 16}
SMALL_ACTOR = {
    "actor_lr": 1e-2,
    "critic_lr": 1e-2,
    "policy_model": MLP((8,), "relu"),
    "q_model": MLP((8,), "relu"),
    "num_steps_sampled_before_learning_starts": 16,
}
DDPG = {
    "twin_q": False,
    "policy_delay": 1,
    "smooth_target_policy": False,
    "exploration": OrnsteinUhlenbeckNoise(),
    **SMALL_ACTOR,
}
DREAM = {
    "rssm": RSSM(deter=6, groups=2, classes=3, units=6),
    "model": MLP((6,), "silu", layer_norm=True),
    "horizon_H": 3,
    "num_bins": 9,
    **dict.fromkeys(("world_model_lr", "actor_lr", "critic_lr"), 1e-2),
    "num_steps_sampled_before_learning_starts": 16,
}
EPSILON = EpsilonGreedy(Schedule((0.0, 0.5), (1.0, 0.1)))

FLIPS = make_goal_env("BitFlip-v0", {"bits": 4})
SWINGS = make_goal_env("GoalPendulum-v0", {"max_episode_steps": 5})

# Name -> environment, agent, rows, steps an iteration.
CASES = {
    "DQN with hindsight": (
        FLIPS,
        DQN(exploration=EPSILON, memory=Hindsight(CompiledGoals(FLIPS.env), 4, "episode", 64, 8, unroll=2), **SMALL),
        2,
        2,
    ),
    "SAC with hindsight of three steps": (
        SWINGS,
        SAC(n_step=3, memory=Hindsight(CompiledGoals(SWINGS.env), capacity=64, batch_size=8, window=3), **SMALL_ACTOR),
        1,
        1,
    ),
    "DQN, one step at a time": (
        CARTPOLE,
        DQN(exploration=EPSILON, memory=Replay(64, 8), random_timesteps=6, **SMALL),
        1,
        1,
    ),
    "Rainbow, trajectories of two rows": (
        CARTPOLE,
        DQN(
            exploration=EPSILON,
            noisy=True,
            n_step=3,
            num_atoms=5,
            target_network_update_freq=12.0,
            timesteps_per_update=3.0,
            memory=Prioritized(capacity=60, batch_size=8, window=3, unroll=3, beta=Schedule((0.0, 1.0), (0.4, 1.0))),
            updates=2,
            **SMALL,
        ),
        2,
        3,
    ),
    "DQN with parameter noise": (
        CARTPOLE,
        DQN(exploration=ParameterNoise(0.1, 0.01), memory=Replay(64, 8, unroll=2), **SMALL),
        2,
        2,
    ),
    "MPO": (PENDULUM, MPO(num_samples=3, memory=Replay(64, 8, unroll=2), random_timesteps=6, **SMALL_ACTOR), 2, 2),
    "MPO, discrete, prioritised": (
        CARTPOLE,
        MPO(n_step=2, memory=Prioritized(capacity=64, batch_size=8, window=2), **SMALL_ACTOR),
        1,
        1,
    ),
    "DreamerV3": (CARTPOLE, DreamerV3(memory=Replay(60, 8, window=4, unroll=3, sequence=4), updates=2, **DREAM), 2, 3),
    "DreamerV3, continuous": (
        PENDULUM,
        DreamerV3(memory=Replay(64, 8, window=4, sequence=4), random_timesteps=6, **DREAM),
        1,
        1,
    ),
    "TDMPC2": (
        PENDULUM,
        TDMPC2(
            latent=8,
            units=8,
            num_bins=9,
            num_critics=2,
            num_samples=8,
            num_policy_samples=2,
            num_elites=4,
            iterations=2,
            memory=Replay(60, 8, window=3, unroll=3),
            updates=2,
            random_timesteps=6,
            **SMALL,
        ),
        2,
        3,
    ),
    "DDPG, prioritised, with drifting noise": (
        PENDULUM,
        TD3(memory=Prioritized(capacity=64, batch_size=8, window=2), n_step=2, random_timesteps=6, **DDPG),
        1,
        1,
    ),
    "TD3 with parameter noise": (
        PENDULUM,
        TD3(exploration=ParameterNoise(), memory=Replay(64, 8, unroll=3), updates=3, random_timesteps=6, **SMALL_ACTOR),
        2,
        3,
    ),
    "CrossQ": (
        PENDULUM,
        CrossQ(
            policy_delay=2,
            renormalize_after=8.0,
            policy_model=BatchNormMLP((8,), momentum=0.9),
            q_model=BatchNormMLP((8,), momentum=0.9),
            memory=Replay(64, 16, unroll=2),
            num_steps_sampled_before_learning_starts=16,
            random_timesteps=8,
        ),
        1,
        2,
    ),
    "IQN, double, prioritised": (
        CARTPOLE,
        IQN(
            exploration=EPSILON,
            num_fractions=3,
            num_target_fractions=4,
            num_acting_fractions=5,
            embedding_size=8,
            double_q=True,
            n_step=2,
            memory=Prioritized(capacity=64, batch_size=8, window=2),
            **SMALL,
        ),
        1,
        1,
    ),
    "SAC, prioritised, with drifting noise": (
        PENDULUM,
        SAC(
            exploration=OrnsteinUhlenbeckNoise(),
            memory=Prioritized(capacity=64, batch_size=8, window=2),
            n_step=2,
            alpha_lr=1e-2,
            random_timesteps=6,
            **SMALL_ACTOR,
        ),
        1,
        1,
    ),
    "R2D2 with an LSTM, prioritised": (
        CARTPOLE,
        R2D2(
            exploration=EPSILON,
            n_step=2,
            burn_in=2,
            max_seq_len=4,
            target_network_update_freq=12.0,
            timesteps_per_update=3.0,
            memory=Prioritized(capacity=60, batch_size=16, window=7, unroll=3, sequence=4, keep_carry=True),
            updates=2,
            **(SMALL | {"model": LSTM(8, ()), "num_steps_sampled_before_learning_starts": 24}),
        ),
        2,
        3,
    ),
    "R2D2 with attention": (
        CARTPOLE,
        R2D2(
            exploration=EPSILON,
            max_seq_len=5,
            memory=Replay(60, 20, window=5, sequence=5, keep_carry=True),
            **(SMALL | {"model": GTrXL(dim=8, head_dim=8, memory=4)}),
        ),
        1,
        1,
    ),
    "RNNSAC, prioritised, with drifting noise": (
        PENDULUM,
        RNNSAC(
            exploration=OrnsteinUhlenbeckNoise(),
            memory=Prioritized(capacity=64, batch_size=16, window=6, sequence=4, keep_carry=True),
            zero_init_states=False,
            burn_in=1,
            max_seq_len=4,
            n_step=2,
            alpha_lr=1e-2,
            random_timesteps=6,
            **(SMALL_ACTOR | {"policy_model": GRU(8, ()), "q_model": LSTM(8, ())}),
        ),
        1,
        1,
    ),
    "RNNSAC of discrete actions": (
        CARTPOLE,
        RNNSAC(
            memory=Replay(64, 16, window=6, unroll=2, sequence=4),
            burn_in=2,
            max_seq_len=4,
            **(SMALL_ACTOR | {"policy_model": GRU(8, ()), "q_model": LSTM(8, ())}),
        ),
        2,
        2,
    ),
    "SAC of discrete actions": (
        CARTPOLE,
        SAC(memory=Replay(64, 8, unroll=3), updates=2, target_network_update_freq=5.0, **SMALL_ACTOR),
        2,
        3,
    ),
    "TQC": (
        PENDULUM,
        TQC(
            num_critics=3,
            num_quantiles=4,
            top_quantiles_to_drop_per_net=1,
            memory=Replay(64, 8, unroll=2),
            alpha_lr=Schedule((0.0, 1.0), (1e-2, 0.0)),
            **SMALL_ACTOR,
        ),
        2,
        2,
    ),
    "REDQ with dropout": (
        PENDULUM,
        REDQ(
            **dict.fromkeys(("actor_lr", "critic_lr", "alpha_lr"), 1e-2),
            num_critics=3,
            policy_delay=2,
            dropout=0.1,
            n_step=2,
            policy_model=MLP((8,), "relu"),
            q_model=MLP((8,), "relu", layer_norm=True),
            memory=Prioritized(capacity=64, batch_size=16, window=2, unroll=2),
            num_steps_sampled_before_learning_starts=16,
            random_timesteps=8,
        ),
        1,
        2,
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("any_thread", [False, True], ids=["called for every step", "calling back"])
@pytest.mark.parametrize("case", CASES)
def test_a_memory_is_filled_and_learned_from_the_same_compiled_and_hosted(case, any_thread):
    env, agent, rows, length = CASES[case]
    assert_modes_are_equal(env, agent, rows=rows, length=length, iterations=10 // length, any_thread=any_thread)


def test_updating_while_the_environment_steps_is_the_same_compiled_and_hosted():
    agent = DQN(memory=Prioritized(capacity=64, batch_size=8), random_timesteps=6, **SMALL)
    assert_modes_are_equal(CARTPOLE, agent, rows=2, length=1, iterations=8, sample_async=True)


CONTINUOUS = {
    "train_batch_size": 8,
    "num_steps_sampled_before_learning_starts": 16,
    "n_step": 2,
    "model": {"fcnet_hiddens": [8]},
    "replay_buffer_config": {"capacity": 200},
    "exploration_config": {"random_timesteps": 20},
    "min_sample_timesteps_per_iteration": 41,  # an odd number of updates: the delay goes on in its middle
    "actor_lr": [[0, 1e-2], [100, 1e-3]],
}
# Algorithm -> environment and settings of a small training that is saved and restored in the middle.
TRAININGS = {
    "TDMPC2": (
        "Pendulum-v1",
        {
            "train_batch_size": 8,
            "latent": 8,
            "units": 8,
            "num_samples": 8,
            "num_policy_samples": 2,
            "num_elites": 4,
            "num_steps_sampled_before_learning_starts": 16,
            "lr": [[0, 1e-2], [100, 1e-3]],
            "model": {"fcnet_hiddens": [8]},
            "replay_buffer_config": {"capacity": 200},
            "exploration_config": {"random_timesteps": 20},
            "min_sample_timesteps_per_iteration": 40,
        },
    ),
    "DreamerV3": (
        "CartPole-v1",
        {
            "model_size": "nano",
            "batch_size_B": 2,
            "batch_length_T": 4,
            "training_ratio": 2,
            "horizon_H": 3,
            "num_bins": 9,
            "num_steps_sampled_before_learning_starts": 16,
            "actor_lr": [[0, 1e-2], [100, 1e-3]],
            "replay_buffer_config": {"capacity": 200},
            "min_sample_timesteps_per_iteration": 40,
        },
    ),
    "MPO": (
        "Pendulum-v1",
        {
            "train_batch_size": 8,
            "num_samples": 4,
            "num_steps_sampled_before_learning_starts": 16,
            "target_network_update_freq": 10,
            "model": {"fcnet_hiddens": [8]},
            "replay_buffer_config": {"capacity": 200},
            "min_sample_timesteps_per_iteration": 40,
        },
    ),
    "DQN": (
        "CartPole-v1",
        {
            "train_batch_size": 8,
            "num_steps_sampled_before_learning_starts": 16,
            "n_step": 2,
            "noisy": True,
            "num_atoms": 3,
            "model": {"fcnet_hiddens": [8]},
            "replay_buffer_config": {"capacity": 200},
            "min_sample_timesteps_per_iteration": 40,
            "lr": [[0, 1e-2], [100, 1e-3]],
        },
    ),
    "IQN": (
        "CartPole-v1",
        {
            "train_batch_size": 8,
            "num_steps_sampled_before_learning_starts": 16,
            "num_fractions": 3,
            "num_target_fractions": 3,
            "model": {"fcnet_hiddens": [8]},
            "replay_buffer_config": {"capacity": 200},
            "min_sample_timesteps_per_iteration": 40,
        },
    ),
    "SAC": ("Pendulum-v1", {**CONTINUOUS, "exploration_config": {"type": "OrnsteinUhlenbeckNoise"}}),
    "TQC": ("Pendulum-v1", {**CONTINUOUS, "num_quantiles": 5}),
    "DDPG": ("Pendulum-v1", CONTINUOUS),
    "TD3": ("Pendulum-v1", {**CONTINUOUS, "exploration_config": {"type": "ParameterNoise", "random_timesteps": 20}}),
    "CrossQ": ("Pendulum-v1", {**CONTINUOUS, "policy_delay": 2}),
    "DroQ": (
        "Pendulum-v1",
        {**CONTINUOUS, "policy_delay": 2, "replay_buffer_config": {"type": "PrioritizedReplayBuffer", "capacity": 200}},
    ),
    "R2D2": (
        "StatelessCartPole-v1",
        {
            "train_batch_size": 16,
            "num_steps_sampled_before_learning_starts": 32,
            "training_intensity": 4,
            "n_step": 2,
            "model": {"use_attention": True, "attention_dim": 8, "fcnet_hiddens": [8], "max_seq_len": 4},
            "replay_buffer_config": {"capacity": 200, "replay_burn_in": 2},
            "min_sample_timesteps_per_iteration": 40,
            "lr": [[0, 1e-2], [100, 1e-3]],
        },
    ),
    "RNNSAC": (
        "Pendulum-v1",
        {
            **CONTINUOUS,
            "model": {"use_gru": True, "gru_cell_size": 8, "fcnet_hiddens": [8], "max_seq_len": 4},
            "zero_init_states": False,
            "exploration_config": {"type": "OrnsteinUhlenbeckNoise"},
        },
    ),
    "PQN": (
        "CartPole-v1",
        {
            "num_envs_per_worker": 4,
            "train_batch_size": 64,
            "minibatch_size": 32,
            "model": {"use_gru": True, "gru_cell_size": 8, "fcnet_hiddens": [8], "max_seq_len": 8},
            "lr": [[0, 1e-2], [100, 1e-3]],
        },
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", TRAININGS)
def test_a_training_resumes_to_the_last_bit_memory_included(algorithm, tmp_path):
    env, settings = TRAININGS[algorithm]
    assert_resumes(get_config_class(algorithm).from_dict({"env": env, "seed": 7, **settings}), tmp_path)


# Warm-up -----------------------------------------------------------------------------------------------------------


def agent_with(learning_starts: int, random_timesteps: int) -> DQN:
    return DQN(num_steps_sampled_before_learning_starts=learning_starts, random_timesteps=random_timesteps)


@pytest.mark.parametrize(
    ("learning_starts", "random_timesteps", "sampled", "expected"),
    [
        (0, 0, 0, [(5, False, True)]),
        (8, 0, 0, [(2, False, False), (5, False, True)]),
        (9, 0, 0, [(3, False, False), (5, False, True)]),  # whole iterations of four timesteps
        (8, 4, 0, [(1, True, False), (1, False, False), (5, False, True)]),
        (8, 16, 0, [(2, True, False), (2, True, True), (5, False, True)]),
        (8, 8, 0, [(2, True, False), (5, False, True)]),
        (8, 4, 4, [(1, False, False), (5, False, True)]),
        (8, 4, 5, [(1, False, False), (5, False, True)]),  # of whole iterations of another size
        (8, 4, 36, [(5, False, True)]),
    ],
)
def test_a_warm_up_comes_before_the_iterations_asked_for(learning_starts, random_timesteps, sampled, expected):
    found = phases(agent_with(learning_starts, random_timesteps), 4, sampled, 5)
    assert [tuple(phase) for phase in found] == expected


def test_actions_of_the_warm_up_are_uniform_and_those_after_it_are_the_agents():
    greedy = {**SMALL, "num_steps_sampled_before_learning_starts": 600, "lr": 0.0}
    agent = DQN(exploration=EpsilonGreedy(0.0), memory=Replay(1200, 8), random_timesteps=300, **greedy)
    training = CompiledTraining(agent.bind(spec_of(CARTPOLE)), CARTPOLE, 1, 1, 1.0, KEY)
    assert training.advance(600)[:2] == (1200, 600 * 8), "600 to warm up, and 600 with an update each"
    steps = np.arange(1200)
    action = np.asarray(ring_take(training.run.store, steps, np.zeros_like(steps), 1).action[0])
    assert 0.4 < action[:300].mean() < 0.6
    assert 0.4 < np.mean(action[:300] == agent_actions(training, steps[:300])) < 0.6, "not the agent's"
    acted = agent_actions(training, steps[300:])
    np.testing.assert_array_equal(action[300:], acted)


def agent_actions(training: CompiledTraining, steps: np.ndarray) -> np.ndarray:
    """What the agent, greedy and untrained since, does where these steps began."""
    obs = ring_take(training.run.store, steps, np.zeros_like(steps), 1).obs[0]
    agent, state = training.agent, training.run.state
    view = agent.view(state, np.float32(0))
    first = np.zeros(len(steps), bool)
    key = wrap(np.zeros(2, np.uint32))
    return np.asarray(agent.act(view, agent.start(view, len(steps), key), obs, first, key, explore=False)[0])

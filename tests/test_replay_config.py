"""What cannot be learned from replay is an error at build, with the numbers."""

from __future__ import annotations

import pytest

from athlete.algorithms import get_config_class
from athlete.core import Spec
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.spaces import Box, Discrete

REFUSED = {
    "a memory smaller than a batch": (
        "SAC",
        {"train_batch_size": 64, "replay_buffer_config": {"capacity": 63}},
        "capacity=63 timesteps, less than train_batch_size=64",
    ),
    "a memory smaller than the warm-up": (
        "DQN",
        {"replay_buffer_config": {"capacity": 999}},
        "capacity=999 timesteps, less than num_steps_sampled_before_learning_starts=1000",
    ),
    "a window longer than what a row has when learning starts": (
        "DQN",
        {"n_step": 251, "num_envs_per_worker": 4},
        r"n_step=251 is longer than what one of 4 environments has in memory when learning starts \(250 steps",
    ),
    "less than one update an iteration": (
        "DQN",
        {"training_intensity": 1},
        "for 4 timesteps sampled; make rollout_fragment_length at least 32",
    ),
    "updates meanwhile in long fragments": (
        "DQN",
        {"sample_async": True},
        "does not fit rollout_fragment_length=4, make that 1",
    ),
    "a recurrent network": ("DQN", {"model": {"use_gru": True}}, r"DQN: model is recurrent \(GRU\)"),
    "a recurrent critic": ("SAC", {"q_model_config": {"use_gru": True}}, r"SAC: q_model is recurrent \(GRU\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_its_numbers(case):
    algorithm, settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        get_config_class(algorithm).from_dict({"env": "CartPole-v1", **settings}).validate()


def test_a_batch_larger_than_the_warm_up_holds_steps_again_and_again_and_says_so(caplog):
    """RLlib's files of MADDPG have it so."""
    config = get_config_class("DQN")().environment("CartPole-v1")
    config.training(train_batch_size=64, num_steps_sampled_before_learning_starts=8, model={"fcnet_hiddens": [4]})
    with config.build() as algo:
        result = algo.train()
    assert "train_batch_size=64 is larger than num_steps_sampled_before_learning_starts=8" in caplog.text
    assert result["info"]["learner"]["default_policy"]["learner_stats"]["grad_gnorm"] > 0


def test_what_just_fits_is_not_refused(caplog):
    settings = {"train_batch_size": 64, "num_steps_sampled_before_learning_starts": 64, "n_step": 16}
    settings |= {"num_envs_per_worker": 4, "replay_buffer_config": {"capacity": 64}}
    get_config_class("DQN").from_dict({"env": "CartPole-v1", **settings}).validate()
    assert not caplog.text


# Dictionaries ------------------------------------------------------------------------------------------------------

SPACES = Spec(Box(-1, 1, (2,)), Discrete(2))
MISSPELT = {
    "a memory that is not": ("replay_buffer_config", {"type": "PrioritisedReplay"}, "DQN learns from Prioritized"),
    "a setting of memory": ("replay_buffer_config", {"capacty": 9}, "there is no 'capacty'; did you mean 'capacity'"),
    "a capacity": (
        "replay_buffer_config",
        {"capacity": 0.5},
        "'capacity': 0.5}: expected a whole number of at least 1",
    ),
    "an exponent": ("replay_buffer_config", {"alpha": -1}, "'prioritized_replay_alpha': -1}: expected a number of at"),
    "a schedule": (
        "replay_buffer_config",
        {"beta": [[9, 1.0], [5, 0.0]]},
        "'prioritized_replay_beta': .*expected a num",
    ),
    "an exploration that is not": ("exploration_config", {"type": "Greedy"}, "DQN explores with EpsilonGreedy, SoftQ,"),
    "another's exploration": (
        "exploration_config",
        {"type": "GaussianNoise"},
        "DQN explores with EpsilonGreedy, SoftQ,",
    ),
    "another type's setting": ("exploration_config", {"type": "SoftQ", "final_epsilon": 0.1}, "no 'final_epsilon'"),
    "half a timestep": (
        "exploration_config",
        {"epsilon_timesteps": 0.5},
        "'epsilon_timesteps': 0.5}: expected a whole",
    ),
    "an epsilon": ("exploration_config", {"final_epsilon": "small"}, "'final_epsilon': 'small'}: expected a number"),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_a_wrong_entry_of_a_dictionary_is_refused_where_it_is_set(case):
    name, entries, message = MISSPELT[case]
    with pytest.raises(ValueError, match=f"{name}={{.*{message}"):
        get_config_class("DQN").from_dict({name: entries})


def memory_of(**entries):
    settings = {"train_batch_size": 16, "n_step": 3, "rollout_fragment_length": 8}
    settings |= {"replay_buffer_config": entries, "lr": [[0, 1e-3], [20_000, 1e-4]]}
    return get_config_class("DQN").from_dict(settings).make_agent(SPACES).memory


def test_rllibs_settings_of_a_prioritised_memory_arrive():
    memory = memory_of(
        capacity=5000, prioritized_replay_alpha=0.5, beta=[[0, 0.4], [10_000, 1.0]], storage_unit="timesteps"
    )
    assert isinstance(memory, Prioritized)
    assert (memory.capacity, memory.batch_size, memory.window, memory.unroll) == (5000, 16, 3, 8)
    assert memory.alpha == 0.5
    found = [float(memory.beta(progress)) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx([0.4, 0.7, 1.0, 1.0]), "progress 1 is the learning rate's last point, timestep 20,000"


def test_a_uniform_memory_has_the_same_shape_and_no_priorities():
    memory = memory_of(type="MultiAgentReplayBuffer", capacity=5000)
    assert isinstance(memory, Replay)
    assert (memory.capacity, memory.batch_size, memory.window, memory.unroll) == (5000, 16, 3, 8)


def test_updates_and_what_each_stands_for_follow_the_training_intensity():
    settings = {"train_batch_size": 32, "rollout_fragment_length": 64, "num_envs_per_worker": 2}
    config = get_config_class("DQN").from_dict({**settings, "training_intensity": 8})
    agent = config.make_agent(SPACES)
    assert agent.updates == 32, "128 timesteps sampled, 1024 learned from, 32 at a time"
    assert agent.timesteps_per_update == 4.0
    assert get_config_class("DQN").from_dict(settings).make_agent(SPACES).updates == 1

"""What cannot be learned from replay is an error at build, with the numbers."""

from __future__ import annotations

import pytest

from athlete.algorithms import get_config_class

REFUSED = {
    "a batch larger than the warm-up": (
        "DQN",
        {"train_batch_size": 64, "num_steps_sampled_before_learning_starts": 63},
        "train_batch_size=64 is larger than num_steps_sampled_before_learning_starts=63",
    ),
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
    "rewards divided by what samples do not show": (
        "DQN",
        {"normalize_rewards": True},
        "DQN: normalize_rewards=True divides by the deviation of returns in whole trajectories",
    ),
    "a recurrent network": ("DQN", {"model": {"use_gru": True}}, r"DQN: model is recurrent \(GRU\)"),
    "a recurrent critic": ("SAC", {"q_model_config": {"use_gru": True}}, r"SAC: q_model is recurrent \(GRU\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_its_numbers(case):
    algorithm, settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        get_config_class(algorithm).from_dict({"env": "CartPole-v1", **settings}).validate()


def test_what_just_fits_is_not_refused():
    settings = {"train_batch_size": 64, "num_steps_sampled_before_learning_starts": 64, "n_step": 16}
    settings |= {"num_envs_per_worker": 4, "replay_buffer_config": {"capacity": 64}}
    get_config_class("DQN").from_dict({"env": "CartPole-v1", **settings}).validate()

"""DDPPO is PPO on several devices: what it builds, what a minibatch is, which of RLlib's files it takes."""

from __future__ import annotations

import dataclasses

import pytest
from on_devices import on_devices

from athlete.algorithms import DDPPOConfig, PPOConfig, get_config_class
from athlete.core import Spec
from athlete.spaces import Box, Discrete

SPEC = Spec(Box(-1.0, 1.0, (4,)), Discrete(2))


def test_its_agent_is_that_of_ppo_with_the_same_settings():
    same = {"minibatch_size": 200, "num_epochs": 10, "train_batch_size": 1000}
    ours, ppo = (
        made.rollouts(num_envs_per_worker=10).training(**same).make_agent(SPEC) for made in (DDPPOConfig(), PPOConfig())
    )
    assert ours == ppo


def test_the_defaults_are_those_of_rllibs_two_workers():
    config = DDPPOConfig()
    assert (config.rows(), config.fragment_length(), config.minibatch_timesteps()) == (10, 100, 100)
    assert (config.num_learners, config.num_epochs, config.workers_act) == ("auto", 10, True)


@pytest.mark.parametrize(("workers", "minibatch"), [(0, 50), (1, 50), (4, 200), (100, 5000)])
def test_a_minibatch_is_a_share_of_each_worker(workers, minibatch):
    config = DDPPOConfig().rollouts(num_rollout_workers=workers, num_envs_per_worker=5, rollout_fragment_length=100)
    config.training(sgd_minibatch_size=50)
    inside = config.make_agent(SPEC)
    while hasattr(inside, "agent"):
        inside = inside.agent
    assert inside.minibatch_size == config.minibatch_timesteps() == minibatch


@pytest.mark.parametrize(("devices", "taken"), [(1, 1), (4, 2), (8, 5)])
def test_it_takes_the_devices_that_can_share(devices, taken):
    from athlete.settings.devices import most_that_fit

    assert most_that_fit(DDPPOConfig().environment("CartPole-v1"), devices) == taken


def test_it_learns_on_all_devices_of_its_machine():
    assert on_devices("learned_by_ddppo", devices=5) == {"devices": 5, "timesteps": 1000}


def test_it_is_found_by_rllibs_name():
    assert get_config_class("ddppo") is DDPPOConfig
    assert DDPPOConfig().training(torch_distributed_backend="gloo", keep_local_weights_in_sync=True)
    assert dataclasses.is_dataclass(DDPPOConfig.agent_class)

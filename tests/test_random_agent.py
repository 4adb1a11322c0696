"""RandomAgent is an algorithm like all others that learns nothing."""

from __future__ import annotations

import numpy as np
import pytest
from modes import assert_resumes
from typer.testing import CliRunner

from athlete import Algorithm
from athlete.algorithms.catalog import algorithms_for
from athlete.algorithms.random_agent import RandomAgentConfig
from athlete.cli.main import app
from athlete.spaces import Discrete


def test_it_is_as_good_as_chance_whether_it_trains_or_is_evaluated(tmp_path):
    """A uniformly random policy balances the pole for 22.2 steps on average."""
    config = RandomAgentConfig().environment("CartPole-v1").training(train_batch_size=20_000)
    with config.debugging(seed=0).build() as algo:
        assert algo.train()["episode_reward_mean"] == pytest.approx(22.2, abs=4)
        assert algo.evaluate(2000)["evaluation"]["episode_reward_mean"] == pytest.approx(22.2, abs=1)
        path = algo.save(tmp_path)
        with Algorithm.from_checkpoint(path) as restored:
            actions = {restored.compute_single_action(np.zeros(4, np.float32)) for _ in range(50)}
    assert actions == {0, 1}


def test_it_resumes_to_the_last_bit(tmp_path):
    assert_resumes(RandomAgentConfig().environment("Pendulum-v1").training(train_batch_size=64), tmp_path)


def test_its_actions_are_legal():
    config = RandomAgentConfig().environment("MaskedGrid-v0").training(train_batch_size=256)
    with config.build() as algo:
        algo.train()
        observation = {"action_mask": np.int8([0, 1, 0, 1]), "observations": np.array([0, 4, 2, 2])}
        drawn = {int(algo.compute_single_action(observation)) for _ in range(40)}
    assert drawn == {1, 3}


def test_it_plays_all_agents():
    with RandomAgentConfig().environment("RockPaperScissors-v0").training(train_batch_size=512).build() as algo:
        assert algo.train()["episodes_total"] > 0


def test_it_is_not_recommended_for_anything():
    assert "RandomAgent" not in algorithms_for(Discrete(2))


def test_it_has_no_network():
    with pytest.raises(ValueError, match="RandomAgent: it has no network; leave model out"):
        RandomAgentConfig().environment("CartPole-v1").training(model={"fcnet_hiddens": [8]}).build()


def test_the_command_line_runs_it(tmp_path):
    words = ["train", "RandomAgent", "CartPole-v1", "--stop-timesteps", "2048", "--local-dir", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output

"""A training whose step was interrupted goes on with new episodes: what it learns from has happened."""

import os
import signal

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces as gym_spaces

from athlete.algorithms import get_config_class
from athlete.algorithms.dqn import DQNConfig
from athlete.callbacks import DefaultCallbacks
from athlete.env.errors import EnvError
from athlete.loops import host


class Diary(gymnasium.Env):
    """Shows the number of its episode and of the step in it; `fault(steps so far)` is called in each, `before` or after
    the step is taken."""

    observation_space = gymnasium.spaces.Box(-1e9, 1e9, (80,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault, before=False, any_thread=False):
        self.metadata = {"any_thread": any_thread}
        self.fault, self.before, self.steps, self.episode = fault, before, 0, -1

    def shown(self):
        return np.array([self.episode, self.step_number, *[0] * 78], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        return self.shown(), {}

    def step(self, action):
        self.steps += 1
        if self.before:
            self.fault(self.steps)
        self.step_number += 1
        if not self.before:
            self.fault(self.steps)
        return self.shown(), 1.0, self.step_number == 50, False, {}


def once(at, raises):
    def fault(step):
        if step == at:
            raises()

    return fault


def fails():
    raise ZeroDivisionError("no such place")


def is_interrupted():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def learned(monkeypatch):
    """The trajectories that agents without a memory learn from."""
    seen = []
    learn_from = host.learn_from

    def spy(*arguments):
        seen.append(next(part for part in arguments if hasattr(part, "next_obs")))
        return learn_from(*arguments)

    monkeypatch.setattr(host, "learn_from", spy)
    return seen


def assert_it_happened(obs, next_obs, first):
    """`[T, 80]` each, in the order of collecting."""
    episode, step = obs[:, 0], obs[:, 1]
    np.testing.assert_array_equal(next_obs[:, 0], episode)
    np.testing.assert_array_equal(next_obs[:, 1], step + 1)
    np.testing.assert_array_equal(first, step == 0)
    follows = ~first[1:]
    np.testing.assert_array_equal(obs[1:][follows, :2], next_obs[:-1][follows, :2])


INTERRUPTIONS = [(fails, EnvError), (is_interrupted, KeyboardInterrupt)]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("fault", "error"), INTERRUPTIONS)
@pytest.mark.parametrize("name", ["PPO", "A2C", "IMPALA", "PG", "TRPO", "PQN"])
def test_an_agent_of_whole_trajectories_learns_from_nothing_that_never_happened(name, fault, error, before, learned):
    config = get_config_class(name)().environment(Diary(once(23, fault), before), disable_env_checking=True)
    config.rollouts(num_envs_per_worker=1, rollout_fragment_length=8)
    config.training(train_batch_size=8, model={"fcnet_hiddens": [4]})
    if "minibatch_size" in config:
        config.training(minibatch_size=8)
    with config.build() as algorithm:
        algorithm.train()
        with pytest.raises(error):
            for _ in range(3):
                algorithm.train()
        algorithm.train()
        algorithm.train()
    trajectory = jax.tree.map(lambda *parts: np.concatenate(parts)[:, 0], *learned)
    assert_it_happened(trajectory.obs, trajectory.next_obs, trajectory.first)
    assert trajectory.first.sum() == 2 and len(trajectory.first) == 32


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("any_thread", [True, False])
@pytest.mark.parametrize(("fault", "error"), INTERRUPTIONS)
@pytest.mark.parametrize("length", [1, 4])
def test_an_agent_with_a_memory_remembers_nothing_that_never_happened(fault, error, before, any_thread, length):
    env = Diary(once(23, fault), before, any_thread)
    config = get_config_class("SimpleQ")().environment(env, disable_env_checking=True)
    config.rollouts(num_envs_per_worker=1, rollout_fragment_length=length)
    config.training(
        train_batch_size=4,
        num_steps_sampled_before_learning_starts=8,
        model={"fcnet_hiddens": [4]},
        replay_buffer_config={"capacity": 100},
    )
    config.reporting(min_sample_timesteps_per_iteration=24)
    with config.build() as algorithm:
        with pytest.raises(error):
            algorithm.train()
        try:
            algorithm.train()
        except RuntimeError as refusal:  # a program was ended within a trajectory, and says so
            assert any_thread and length > 1 and "restore it from a checkpoint" in str(refusal)
            return
        run = jax.device_get(algorithm.run)
    obs, next_obs = (leaf[:, 0] for leaf in jax.tree.leaves(run.store) if leaf.ndim == 3 and leaf.shape[-1] == 80)
    filled = int(run.store.filled)
    assert filled > 23
    obs, next_obs = obs[:filled], next_obs[:filled]
    assert_it_happened(obs, next_obs, obs[:, 1] == 0)


# An instance --------------------------------------------------------------------------------------------------------


class Counts(gymnasium.Env):
    """Shows how many steps there have been: what does not follow by one never happened."""

    observation_space, action_space = gym_spaces.Box(0, 99, (1,), np.float32), gym_spaces.Discrete(2)
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.array([self.count], np.float32), 1.0, self.count == 7, False, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


class Follows(DefaultCallbacks):
    def on_sample_end(self, *, samples, **kwargs):
        np.testing.assert_array_equal(samples["new_obs"] - samples["obs"], 1)


def on_instance(**evaluation):
    config = DQNConfig().environment(Counts()).rollouts(num_envs_per_worker=1, rollout_fragment_length=5)
    config.training(
        train_batch_size=4, num_steps_sampled_before_learning_starts=8, replay_buffer_config={"capacity": 200}
    )
    return config.callbacks(Follows).evaluation(**evaluation).reporting(min_sample_timesteps_per_iteration=20)


def test_neither_an_evaluation_nor_a_film_takes_the_one_instance_away_from_a_training(tmp_path):
    with on_instance(evaluation_duration=1).build() as algorithm:
        algorithm.train()
        for method, arguments in (("evaluate", [1]), ("record_video", [tmp_path])):
            with pytest.raises(ValueError, match=rf"{method}\(\): Counts is one instance.*its class or a factory"):
                getattr(algorithm, method)(*arguments)
        assert algorithm.train()["episode_len_mean"] == 7
    with pytest.raises(ValueError, match=r"evaluation\(evaluation_interval=1\): Counts is one instance"):
        on_instance(evaluation_interval=1).build()


def test_a_factory_that_gives_the_same_environment_again_is_refused(tmp_path):
    """Rows would step one environment in turn, and an evaluation or a film would step that of the training."""
    made = Counts()
    config = on_instance(evaluation_duration=1).environment(lambda env_config: made)
    with pytest.raises(ValueError, match=r"the factory gave <Counts instance> once more.*make a new environment"):
        config.copy().rollouts(num_envs_per_worker=2).build()
    with pytest.raises(EnvError, match="the factory gave <Counts instance> once more"):
        config.copy().rollouts(num_envs_per_worker=2, num_rollout_workers=1).build()
    for _ in range(2):  # and it is free again afterwards
        with config.build() as algorithm:
            for method, arguments in (("evaluate", [1]), ("record_video", [tmp_path])):
                with pytest.raises(ValueError, match="the factory gave <Counts instance> once more"):
                    getattr(algorithm, method)(*arguments)
            assert algorithm.train()["episode_len_mean"] == 7


def test_another_instance_is_evaluated_and_filmed_episode_by_episode(tmp_path):
    with on_instance(evaluation_interval=1, evaluation_config={"env": Counts()}).build() as algorithm:
        for _ in range(2):
            result = algorithm.train()
            assert result["evaluation"]["hist_stats"]["episode_lengths"] == [7] * 10
        algorithm.record_video(tmp_path)
        assert algorithm.evaluate(3)["evaluation"]["episode_len_mean"] == algorithm.train()["episode_len_mean"] == 7

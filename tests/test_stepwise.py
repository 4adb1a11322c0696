"""The hosted loop of agents with a memory where its program calls back for every step of the environments."""

import os
import signal
import threading
import time

import gymnasium
import jax
import numpy as np
import pytest

from athlete.algorithms.dqn import DQNConfig
from athlete.env.errors import EnvError


class Line(gymnasium.Env):
    """Ten steps an episode; `fault(step)` is called at each of all steps."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault=lambda step: None, render_mode=None):
        self.fault, self.render_mode, self.steps = fault, render_mode, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        self.fault(self.steps)
        return np.full(2, self.steps % 10 / 10, np.float32), 1.0, self.steps % 10 == 0, False, {}


def build(env, length=1, steps=60):
    return (
        DQNConfig()
        .environment(env, disable_env_checking=True)
        .rollouts(rollout_fragment_length=length)
        .training(
            train_batch_size=8,
            num_steps_sampled_before_learning_starts=16,
            model={"fcnet_hiddens": [8]},
            replay_buffer_config={"capacity": 100},
        )
        .reporting(min_sample_timesteps_per_iteration=steps)
        .build()
    )


def failing_once(at, error):
    def fault(step):
        if step == at:
            raise error

    return fault


@pytest.mark.parametrize(
    ("render_mode", "metadata", "any_thread"),
    [(None, {}, True), ("rgb_array", {}, False), (None, {"any_thread": False}, False)],
)
def test_what_belongs_to_a_thread_is_stepped_from_that_of_the_caller(render_mode, metadata, any_thread):
    seen = set()
    env = Line(lambda _: seen.add(threading.get_ident()), render_mode)
    env.metadata = metadata
    with build(env) as algorithm:
        assert algorithm._training.source.any_thread == any_thread
        assert algorithm.train()["timesteps_total"] == 76
    assert any_thread or seen == {threading.get_ident()}


@pytest.mark.parametrize("at", [5, 33, 76])
def test_a_failing_step_is_told_as_it_is_and_the_training_can_go_on(at):
    env = Line(failing_once(at, ZeroDivisionError("no such place")))
    with build(env) as algorithm:
        with pytest.raises(EnvError, match="no such place"):
            algorithm.train()
        result = algorithm.train()
        assert 9.0 <= result["episode_reward_mean"] <= 10.0


def test_after_a_failure_within_a_trajectory_the_training_says_that_it_has_ended(tmp_path):
    env = Line(failing_once(30, ZeroDivisionError("no such place")))
    with build(env, length=4) as algorithm:
        with pytest.raises(EnvError, match="no such place"):
            algorithm.train()
        with pytest.raises(RuntimeError, match="restore it from a checkpoint"):
            algorithm.train()
        with pytest.raises(RuntimeError, match="restore it from a checkpoint"):
            algorithm.save(tmp_path)


@pytest.fixture
def python_takes_interrupts():
    """A shell that starts the tests in its background has interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.usefixtures("python_takes_interrupts")
def test_an_interrupt_ends_the_program_between_two_iterations_and_loses_nothing(length):
    def fault(step):
        if step == 31:
            os.kill(os.getpid(), signal.SIGINT)
        if 31 < step < 80:
            time.sleep(0.02)  # the main thread, which takes the signal, waits meanwhile

    env = Line(fault)
    with build(env, length) as algorithm:
        with pytest.raises(KeyboardInterrupt):
            algorithm.train()
        assert 28 // length <= int(algorithm.run.iteration) <= 60 // length
        assert algorithm.run.rows.episode_length[0] == env.steps % 10 == round(float(algorithm.run.rows.obs[0, 0]) * 10)
        assert algorithm.train()["episode_reward_mean"] == 10.0


class Large(Line):
    """Observations that are too large to be packed with the rest."""

    observation_space = gymnasium.spaces.Box(0, 255, (300, 300, 1), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((300, 300, 1), np.uint8), {}

    def step(self, action):
        _, *rest = super().step(action)
        return np.full((300, 300, 1), self.steps % 10, np.uint8), *rest


def test_large_observations_arrive_in_the_memory_as_they_are():
    with build(Large(), steps=30) as algorithm:
        assert algorithm.train()["timesteps_total"] == 46
        run = jax.device_get(algorithm.run)
    stored = [leaf for leaf in jax.tree.leaves(run.store) if leaf.dtype == np.uint8]
    seen = stored[0].reshape(100, -1)[:46]
    assert (seen.min(axis=1) == seen.max(axis=1)).all()
    np.testing.assert_array_equal(seen[1:10, 0], np.arange(1, 10))

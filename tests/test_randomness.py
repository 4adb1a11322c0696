"""Seeds reach what environments draw from: global generators, spaces; and check_env says what they do not reach."""
# ruff: noqa: NPY002

import logging
import random

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces as gs

from athlete.algorithms.ppo import PPOConfig
from athlete.env.adapters.source import GymnasiumSource
from athlete.env.baseline import baseline
from athlete.env.checks.check import check_env

KEY = np.array([0, 7], np.uint32)


class Draws(gymnasium.Env):
    """Shows a number from 0 to 1 that it draws in its own way."""

    action_space = gs.Discrete(2)

    def __init__(self, render_mode=None):
        self.observation_space = gs.Box(0, 1, (1,), np.float32)
        self.generator = np.random.default_rng()

    def draw(self):
        return 0.5

    def observe(self):
        return np.array([self.draw()], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        return self.observe(), float(self.draw()), self.steps == 4, False, {}


def drawing(draw):
    return type("Drawing", (Draws,), {"draw": lambda self: draw(self)})


WAYS = {
    "random": lambda env: random.random(),
    "np.random": lambda env: np.random.random(),
    "space.sample()": lambda env: env.observation_space.sample()[0],
    "self.np_random": lambda env: env.np_random.random(),
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("way", WAYS)
def test_two_runs_from_one_seed_are_equal_however_the_environment_draws(way, num_workers):
    def seen():
        source = GymnasiumSource(drawing(WAYS[way]), num_workers=num_workers, num_envs_per_worker=2)
        obs = [source.reset(KEY)]
        for _ in range(3):
            obs.append(source.step(np.zeros(source.rows, int), KEY).obs)
        obs.append(source.reset_where(np.ones(source.rows, bool), obs[-1], KEY))
        source.close()
        return np.stack(obs)

    first = seen()
    random.random(), np.random.random()
    assert np.array_equal(first, seen())
    assert len(np.unique(first)) == first.size  # rows and steps apart


@pytest.mark.parametrize("way", WAYS)
def test_two_evaluations_of_one_policy_are_equal_and_leave_the_generators_alone(way):
    config = PPOConfig().environment(drawing(WAYS[way])).rollouts(num_envs_per_worker=2)
    config.training(train_batch_size=16, minibatch_size=16, num_epochs=1, model={"fcnet_hiddens": [4]})
    with config.build() as algo:
        algo.train()
        before = random.getstate(), np.random.get_state()[1].tolist()
        first = algo.evaluate()["evaluation"]["hist_stats"]["episode_reward"]
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before
        assert algo.evaluate()["evaluation"]["hist_stats"]["episode_reward"] == first


class DrawsInInit(Draws):
    """What it shows and pays was drawn when it was made."""

    def __init__(self, env_config=None):
        super().__init__()
        self.shown = np.random.random(), random.random()

    def observe(self):
        return np.array([self.shown[0]], np.float32)

    def draw(self):
        return sum(self.shown)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_seed_reaches_what_environments_draw_while_they_are_made(num_workers):
    def played(evaluates):
        random.seed(), np.random.seed()
        config = PPOConfig().environment(DrawsInInit).rollouts(num_envs_per_worker=2, num_rollout_workers=num_workers)
        config.training(train_batch_size=16, minibatch_size=16, num_epochs=1, model={"fcnet_hiddens": [4]})
        with config.debugging(seed=1).evaluation(evaluation_duration=2).build() as algo:
            found = [algo.train()["episode_reward_mean"]]
            rewards = algo.evaluate()["evaluation"]["hist_stats"]["episode_reward"] if evaluates else None
            return [*found, algo.train()["episode_reward_mean"], np.ravel(algo.run.rows.obs).tolist()], rewards

    first, rewards = played(evaluates=True)
    assert played(evaluates=True) == (first, rewards) and len(set(rewards)) == 2
    assert played(evaluates=False)[0] == first
    assert len(set(first[-1])) == 2 * max(1, num_workers)


def told(env, caplog, **kwargs):
    caplog.clear()
    with caplog.at_level(logging.WARNING, "athlete"):
        check_env(env, **kwargs)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("way", WAYS)
def test_what_seeds_reach_passes_the_check_in_silence(way, caplog):
    state = np.random.get_state()[1].tolist()
    assert told(drawing(WAYS[way]), caplog) == []
    assert np.random.get_state()[1].tolist() == state


class OwnGenerator(Draws):
    def draw(self):
        return self.generator.random()


class Remembers(Draws):
    """Later episodes are not as the first."""

    total = 0

    def step(self, action):
        self.total += 1
        obs, _, *rest = super().step(action)
        return obs, self.total, *rest


class LateStep(Draws):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, self.generator.random() if self.steps == 3 else 0.0, *rest


@pytest.mark.parametrize(
    ("env", "where"),
    [
        (OwnGenerator, "observation[0] of the reset is 0."),
        (Remembers, "reward of step 1 is 1 the first time and 13 the second"),
        (LateStep, "reward of step 3 is 0."),
    ],
)
@pytest.mark.parametrize("adapt", [False, True])
def test_what_seeds_do_not_reach_is_said(env, where, adapt, caplog):
    (line,) = told(env, caplog, adapt=adapt)
    assert line.startswith(f"{env.__name__}: two episodes from reset(seed=0) with the same actions differ: {where}")
    assert "self.np_random" in line


def test_an_environment_that_refuses_the_same_actions_the_second_time_is_told_as_well(caplog):
    class Once(Draws):
        total = 0

        def step(self, action):
            self.total += 1
            if self.total > 12:
                raise KeyError("used up")
            return super().step(action)

    (line,) = told(Once, caplog)
    assert "the second time step 1 raised KeyError: 'used up'" in line


@pytest.mark.parametrize("way", WAYS)
def test_a_baseline_is_the_same_again_and_leaves_the_generators_alone(way):
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = baseline(drawing(WAYS[way]), episodes=5, seed=3)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.random(), np.random.random()
    assert baseline(drawing(WAYS[way]), episodes=5, seed=3).episode_reward_mean == first.episode_reward_mean
    assert baseline(drawing(WAYS[way]), episodes=5, seed=4).episode_reward_mean != first.episode_reward_mean

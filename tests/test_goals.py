"""Environments with goals: their rules by hand, who judges goals, and what cannot be learned from in hindsight."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces as gs
from modes import assert_resumes

import athlete
from athlete.algorithms import get_config_class
from athlete.env.games.goals import make_goal_env
from athlete.env.games.goals.bit_flip import BitFlip
from athlete.env.games.goals.goal_pendulum import GoalPendulum
from athlete.env.goals import CompiledGoals, HostedGoals, goals_of
from athlete.env.twins import find_twin
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.memory.hindsight import Hindsight
from athlete.ops.random import wrap
from athlete.spaces import Discrete

KEY = wrap(np.array([0, 5], np.uint32))
HINDSIGHT = {"type": "HindsightReplayBuffer", "capacity": 2000}
SMALL = {
    "replay_buffer_config": HINDSIGHT,
    "model": {"fcnet_hiddens": [8]},
    "train_batch_size": 16,
    "num_steps_sampled_before_learning_starts": 100,
    "min_sample_timesteps_per_iteration": 100,
}


class HostedFlip(gymnasium.Env):
    """Bit flip in NumPy, as Gymnasium-Robotics' environments are: rewards of batches, and nothing terminates."""

    bits = 4
    observation_space = gs.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), gs.MultiBinary(4)))
    action_space = gs.Discrete(4)

    def _seen(self):
        return {"observation": self.now.copy(), "achieved_goal": self.now.copy(), "desired_goal": self.goal.copy()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now, self.goal = self.np_random.integers(0, 2, (2, self.bits)).astype(np.int8)
        self.time = 0
        return self._seen(), {}

    def step(self, action):
        self.now[action] ^= 1
        self.time += 1
        reward = self.compute_reward(self.now, self.goal, {})
        return self._seen(), float(reward), False, self.time >= self.bits, {"is_success": reward == 0}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -(achieved_goal != desired_goal).any(axis=-1).astype(np.float32)


class OneByOne(HostedFlip):
    """Whose rewards are of one step alone."""

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -float((achieved_goal != desired_goal).any())


# The environments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["BitFlip-v0", "GoalPendulum-v0"])
def test_ids_are_found_and_keep_the_contract(env_id):
    env, _ = find_twin(env_id)
    assert env == make_goal_env(env_id)
    athlete.check_env(env_id)


def test_ids_choose_fields_and_the_limit():
    assert make_goal_env("BitFlip-v0", {"bits": 5}) == TimeLimit(BitFlip(5), 5)
    assert make_goal_env("BitFlip-v0", {"bits": 5, "max_episode_steps": 9}) == TimeLimit(BitFlip(5), 9)
    assert make_goal_env("GoalPendulum-v0", {"max_episode_steps": -1}) == GoalPendulum()
    with pytest.raises(ValueError, match="it has no 'bit'; did you mean 'bits'"):
        make_goal_env("BitFlip-v0", {"bit": 3})
    with pytest.raises(ValueError, match="expected at least 1"):
        BitFlip(0)


def test_flipping_the_bits_that_differ_reaches_the_goal():
    env = BitFlip(6)
    state, obs = env.reset(KEY)
    assert obs["observation"].tolist() == obs["achieved_goal"].tolist() == state.bits.tolist()
    wrong = np.flatnonzero(state.bits != state.goal)
    assert len(wrong) > 1
    for i, bit in enumerate(wrong):
        before = np.asarray(state.bits)
        state, step = env.step(state, jnp.int32(bit), KEY)
        assert np.flatnonzero(before != step.obs["achieved_goal"]).tolist() == [bit]
        over = i == len(wrong) - 1
        assert (float(step.reward), bool(step.terminated), bool(step.truncated)) == (0.0 if over else -1.0, over, False)
        assert float(step.info["is_success"]) == float(over)
    assert step.obs["desired_goal"].tolist() == step.obs["achieved_goal"].tolist()


def test_bits_and_goals_are_drawn_apart_and_evenly():
    keys = jax.random.split(KEY, 2000)
    state, _ = jax.jit(jax.vmap(BitFlip(4).reset))(keys)
    assert np.asarray(state.bits).mean() == pytest.approx(0.5, abs=0.02)
    assert (np.asarray(state.bits) == np.asarray(state.goal)).mean() == pytest.approx(0.5, abs=0.02)


def test_the_goal_pendulum_hangs_and_its_goals_are_at_rest_near_upright():
    env = GoalPendulum(spread=0.5)
    _, obs = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 500))
    np.testing.assert_array_equal(obs["achieved_goal"], np.tile(np.float32([-1, 0, 0]), (500, 1)))
    goal = np.asarray(obs["desired_goal"])
    angle = np.arctan2(goal[:, 1], goal[:, 0])
    assert (goal[:, 2] == 0).all()
    assert -0.5 <= angle.min() < -0.45
    assert 0.45 < angle.max() <= 0.5


@pytest.mark.parametrize(
    ("angle", "velocity", "reached"), [(0.19, 0.9, True), (0.21, 0.0, False), (0.0, -1.1, False), (-0.19, -0.9, True)]
)
def test_a_goal_of_the_pendulum_is_reached_within_both_tolerances(angle, velocity, reached):
    env, at = GoalPendulum(), 2.0
    achieved = jnp.array([np.cos(at + angle), np.sin(at + angle), velocity])
    goal = jnp.array([np.cos(at), np.sin(at), 0.0])
    assert bool(env.compute_terminated(achieved, goal, {})) == reached
    assert float(env.compute_reward(achieved, goal, {})) == (0.0 if reached else -1.0)


# Who judges ---------------------------------------------------------------------------------------------------------


def test_compiled_and_called_back_goals_are_judged_alike():
    random = np.random.default_rng(0)
    achieved, desired = random.integers(0, 2, (2, 64, 4)).astype(np.int8)
    terminated = random.random(64) < 0.5
    judge = jax.jit(lambda goals, *found: goals.judge(*found))
    reached = (achieved == desired).all(axis=-1)
    assert reached.any()
    env = HostedFlip()
    for goals, ended in (
        (CompiledGoals(BitFlip(4)), reached),
        (HostedGoals(env.compute_reward), terminated),
        (HostedGoals(env.compute_reward, lambda achieved, desired, info: (achieved == desired).all(axis=-1)), reached),
        (HostedGoals(env.compute_reward, lambda achieved, desired, info: False), np.zeros(64, bool)),
    ):
        reward, over = judge(goals, achieved, desired, terminated)
        np.testing.assert_array_equal(reward, np.where(reached, 0.0, -1.0).astype(np.float32))
        np.testing.assert_array_equal(over, ended)


def test_wrappers_are_seen_through():
    assert goals_of(TimeLimit(BitFlip(3), 3), BitFlip(3).observation_space, "it") == CompiledGoals(BitFlip(3))
    wrapped = gymnasium.wrappers.TimeLimit(HostedFlip(), 3)
    assert goals_of(wrapped, BitFlip(4).observation_space, "it").compute_reward == wrapped.unwrapped.compute_reward


# Trainings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [("DQN", "BitFlip-v0"), *((name, "GoalPendulum-v0") for name in ("SAC", "TD3", "TQC", "DDPG"))],
)
def test_algorithms_learn_in_hindsight_and_resume_to_the_last_bit(algorithm, env, tmp_path):
    config = get_config_class(algorithm).from_dict({**SMALL, "env": env, "rollout_fragment_length": 4})
    if algorithm != "DQN":
        config.training(replay_buffer_config={"n_sampled_goal": 2, "goal_selection_strategy": "final"})
    assert_resumes(config, tmp_path)


def test_a_gymnasium_environment_is_asked_for_the_rewards_of_batches():
    asked = []

    class Asked(HostedFlip):
        def compute_reward(self, achieved_goal, desired_goal, info):
            asked.append(np.shape(achieved_goal))
            return super().compute_reward(achieved_goal, desired_goal, info)

    config = get_config_class("DQN").from_dict({**SMALL, "env": lambda env_config: Asked(), "n_step": 2})
    with config.reporting(info_metrics=["is_success"]).build() as algo:
        result = algo.train()
        assert isinstance(algo.run.store.ring.packed.table, jax.Array)
    assert (32, 4) in asked, "two steps of sixteen samples at once"
    assert 0 <= result["custom_metrics"]["is_success_mean"] <= 1
    assert np.isfinite(result["info"]["learner"]["default_policy"]["learner_stats"]["loss"])


def test_stable_baselines_spelling_is_understood():
    from athlete import sb3

    kwargs = {"n_sampled_goal": 3, "goal_selection_strategy": "episode", "copy_info_dict": False}
    config = sb3.configured(
        "DQN",
        "BitFlip-v0",
        {"buffer_size": 500, "replay_buffer_class": sb3.HerReplayBuffer, "replay_buffer_kwargs": kwargs},
    )
    space = BitFlip(4).observation_space
    assert config.replay_buffer_config["type"] == "HerReplayBuffer"
    memory = (
        config.training(num_steps_sampled_before_learning_starts=100)
        .make_agent(athlete.core.Spec(space, Discrete(4)))
        .memory
    )
    assert isinstance(memory, Hindsight)
    assert (memory.capacity, memory.n_sampled_goal, memory.goal_selection_strategy) == (500, 3, "episode")


REFUSED = {
    "no goals": (
        ("DQN", {"env": "CartPole-v1"}),
        "needs an environment with goals: .*; CartPole-v1 has observations Box",
    ),
    "rewards of one step": (("DQN", {"env": lambda env_config: OneByOne()}), r"must give two rewards \[2\]"),
    "sequences": (("R2D2", {"env": "BitFlip-v0", "model": {"use_gru": True}}), "it learns from sequences"),
    "workers that act": (
        ("ApexDQN", {"env": lambda env_config: HostedFlip(), "num_rollout_workers": 2, "workers_act": True}),
        "workers that act by themselves",
    ),
    "stacks": (("DQN", {"env": "BitFlip-v0", "replay_buffer_config": {**HINDSIGHT, "stack_axis": 0}}), "no stacks"),
    "many agents": (("DQN", {"env": "MultiAgentCartPole-v1"}), "hindsight"),
    "a strategy that is not": (
        ("DQN", {"replay_buffer_config": {**HINDSIGHT, "goal_selection_strategy": "random"}}),
        "expected one of future, final, episode",
    ),
    "less than no goal": (("DQN", {"replay_buffer_config": {**HINDSIGHT, "n_sampled_goal": -1}}), "n_sampled_goal"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learned_in_hindsight_is_a_sentence(case):
    (algorithm, settings), message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        get_config_class(algorithm).from_dict({**SMALL, **settings}).build()

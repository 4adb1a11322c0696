"""Rewards and observations on their way to the agent: clipped, scaled, and as a user's function shows them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import CARTPOLE, assert_modes_are_equal
from witness import Witness

from athlete import Algorithm
from athlete.algorithms.dqn import DQN, DQNConfig
from athlete.algorithms.ppo import PPO, PPOConfig
from athlete.bonuses.counts import Counts
from athlete.combine.curious import Curious
from athlete.combine.normalize import Normalize
from athlete.combine.observations import Observations
from athlete.combine.rewards import Rewards
from athlete.core import Spec, Transition
from athlete.memory.replay import Replay
from athlete.models.mlp import MLP
from athlete.models.separate import Separate
from athlete.ops.random import wrap
from athlete.record.checkpoint import CheckpointError
from athlete.spaces import Box, Dict, Discrete

KEY = wrap(np.array([0, 1], np.uint32))


def steps(obs, reward):
    never = np.zeros((2, 2), bool)
    return Transition(obs, never, 0 * never, np.asarray(reward, np.float32), obs, never, never, (), {})


# Rewards ----------------------------------------------------------------------------------------------------------

REWARDS = [[3.0, -0.5], [0.0, -7.0]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"clip_rewards": True}, [[1, -1], [0, -1]]),
        ({"clip_rewards": 2.0}, [[2, -0.5], [0, -2]]),
        ({"reward_scale": 0.1}, [[0.3, -0.05], [0, -0.7]]),
        ({"clip_rewards": 2, "reward_scale": 0.5}, [[1, -0.25], [0, -1]]),
    ],
)
def test_rewards_are_clipped_and_then_scaled(settings, expected):
    around = PPOConfig().environment(normalize_rewards=False, **settings).make_agent(Spec(Discrete(3), Discrete(2)))
    agent = dataclasses.replace(around, agent=Witness())
    shown, _ = agent.update((), steps(np.zeros((2, 2), np.int32), REWARDS), KEY, 0.0)
    np.testing.assert_allclose(shown.reward, expected, rtol=1e-6)


@pytest.mark.parametrize("off", [None, False])
def test_rewards_pass_where_nothing_is_set(off):
    config = PPOConfig().environment(normalize_rewards=False, clip_rewards=off)
    assert isinstance(config.make_agent(Spec(Discrete(3), Discrete(2))), PPO)


def test_the_environments_reward_is_clipped_before_a_bonus_is_added_and_normalised_after():
    config = PPOConfig().environment(clip_rewards=True, normalize_rewards=True)
    agent = config.exploration(exploration_config={"type": "Counts"}).make_agent(Spec(Discrete(3), Discrete(2)))
    assert [type(part) for part in (agent, agent.agent, agent.agent.agent)] == [Rewards, Curious, Normalize]
    inside = Rewards(Curious(Witness(), Counts(eta=0.5)), sign=True).bind(Spec(Discrete(3), Discrete(2)))
    batch = steps(np.array([[0, 1], [2, 2]]), REWARDS)
    state, _ = inside.observe(inside.init(KEY), inside.accumulators(2), batch)
    shown = inside.update(state, batch, KEY, 0.0)[0].agent
    twice = 0.5 / np.sqrt(2)
    np.testing.assert_allclose(shown.reward, [[1.5, -0.5], [twice, twice - 1]], rtol=1e-6)


def test_episodes_are_reported_with_the_environments_own_rewards():
    config = PPOConfig().environment("CartPole-v1", reward_scale=0.01).training(train_batch_size=512)
    with config.training(minibatch_size=512, num_epochs=1).build() as algo:
        result = algo.train()
    assert result["episode_reward_mean"] == result["episode_len_mean"]


# Observations -----------------------------------------------------------------------------------------------------


def positions(obs):
    """CartPole's position and angle, without the velocities."""
    return obs[jnp.array([0, 2])]


def test_the_agent_sees_what_the_function_makes_of_observations():
    raw = Dict({"a": Box(-9, 9, (2,)), "b": Discrete(3)})

    def joined(obs):
        return jnp.append(2 * obs["a"], obs["b"].astype(jnp.float32))

    agent = Observations(Witness(), joined, Box(-99, 99, (3,))).bind(Spec(raw, Discrete(2)))
    assert agent.spec == Spec(raw, Discrete(2))
    assert agent.agent.spec == Spec(Box(-99, 99, (3,)), Discrete(2))
    rows = {"a": np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), "b": np.array([0, 2], np.int32)}
    shown = np.array([[2, 4, 0], [6, 8, 2]])
    np.testing.assert_array_equal(agent.act((), (), rows, np.zeros(2, bool), KEY)[0], shown)
    batch = steps(jax.tree.map(lambda leaf: np.stack([leaf, leaf]), rows), REWARDS)
    batch = batch._replace(next_obs=jax.tree.map(lambda leaf: leaf[:, ::-1], batch.obs))
    seen = agent.update((), batch, KEY, 0.0)[0]
    np.testing.assert_array_equal(seen.obs, [shown, shown])
    np.testing.assert_array_equal(seen.next_obs, [shown[::-1], shown[::-1]])


@pytest.mark.parametrize("backend", ["auto", "gymnasium"])
def test_uniformly_random_actions_too_are_those_that_a_mask_of_the_functions_allows(backend):
    """All actions but the second are forbidden, and the first steps are random."""
    space = Dict({"observations": Box(-np.inf, np.inf, (4,)), "action_mask": Box(0.0, 1.0, (2,))})
    config = DQNConfig().environment("CartPole-v1", backend=backend).rollouts(observation_fn=(only_the_second, space))
    config.exploration(exploration_config={"random_timesteps": 100})
    config.training(num_steps_sampled_before_learning_starts=100, replay_buffer_config={"capacity": 1000})
    with config.build(min_sample_timesteps_per_iteration=100) as algo:
        # Pushed to the right only, the pole falls after nine steps or ten; at random it stands for twenty-two.
        assert algo.train()["episode_len_mean"] < 10.5


def only_the_second(obs):
    return {"observations": obs, "action_mask": jnp.array([0.0, 1.0])}


def test_the_space_is_an_unbounded_box_unless_it_is_given():
    spec = Spec(CARTPOLE.observation_space, Discrete(2))
    agent = PPOConfig().rollouts(observation_fn=positions).make_agent(spec)
    assert agent.space == Box(-np.inf, np.inf, (2,))
    given = Dict({"near": Discrete(2)})
    config = PPOConfig().rollouts(observation_fn=(lambda obs: {"near": (obs[0] > 0).astype(jnp.int32)}, given))
    assert config.make_agent(spec).space == given


MODES = {
    "PPO": (PPO(lr=1e-2, num_epochs=2, minibatch_size=16, model=Separate(MLP((8,)))), 4, 8),
    "DQN": (
        DQN(lr=1e-2, model=MLP((8,)), memory=Replay(64, 8), num_steps_sampled_before_learning_starts=16),
        1,
        1,
    ),
}


@pytest.mark.parametrize("case", MODES)
def test_trainings_are_the_same_compiled_and_hosted(case):
    agent, rows, length = MODES[case]
    agent = Observations(Rewards(agent, 0.5, 1.0), positions, Box(-np.inf, np.inf, (2,)))
    assert_modes_are_equal(CARTPOLE, agent, rows=rows, length=length)


def test_actions_are_computed_from_the_environments_observations_and_checkpoints_ask_for_the_function(tmp_path):
    config = PPOConfig().environment("CartPole-v1").rollouts(observation_fn=positions).debugging(seed=1)
    config.training(train_batch_size=64, minibatch_size=64, num_epochs=1, model={"fcnet_hiddens": [8]})
    with config.build() as algo:
        algo.train()
        near = np.array([0.01, 0.5, -0.02, 0.5], np.float32)
        action = algo.compute_single_action(near)
        assert action == algo.compute_single_action(near * np.array([1, -9, 1, 9], np.float32))
        path = algo.save(tmp_path)
        with Algorithm.from_checkpoint(path, observation_fn=positions) as restored:
            assert restored.compute_single_action(near) == action
    with pytest.raises(CheckpointError, match=r"positions is not known here.*from_checkpoint\(path, observation_fn="):
        Algorithm.from_checkpoint(path)


# Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ("environment", {"clip_rewards": -1}, r"clip_rewards=-1\): expected True, False or a number above 0"),
        ("environment", {"reward_scale": 0}, r"reward_scale=0\): expected a finite number above 0"),
        ("environment", {"reward_scale": True}, "expected a finite number above 0"),
        ("rollouts", {"observation_fn": 3}, "expected a function from an observation .*, or a pair"),
        ("rollouts", {"observation_fn": (positions, 3)}, "or a pair of it and its athlete.spaces.Space"),
    ],
)
def test_what_cannot_be_is_said_at_the_call(section, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(DQNConfig(), section)(**settings)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda obs: obs["pose"], r"failed on an observation of Box\(.*must compute with jax.numpy"),
        (lambda obs: float(obs[0]), "failed on an observation of .*ConcretizationTypeError"),
        (lambda obs: (obs, obs), r"makes .*only of an array of floats the space is known; give a pair"),
        ((positions, Box(-1, 1, (3,))), r"makes float32\[2\] of an observation, and the space .* has float32\[3\]"),
        ((positions, Dict({"x": Box(-1, 1, (2,))})), r"makes float32\[2\] .* has \{'x': 'float32\[2\]'\}"),
    ],
)
def test_a_function_that_does_not_fit_is_an_error_at_build(function, message):
    config = PPOConfig().rollouts(observation_fn=function)
    with pytest.raises(ValueError, match=f"observation_fn: it {message}"):
        config.make_agent(Spec(CARTPOLE.observation_space, Discrete(2)))

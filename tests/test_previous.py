"""The last action and reward as parts of an observation, exact across the ends of episodes and in every loop."""

from __future__ import annotations

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import CARTPOLE, KEY, PENDULUM, assert_close, assert_resumes

from athlete import spaces
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPO, PPOConfig
from athlete.core import Spec
from athlete.env.games.masked_grid import MaskedGrid
from athlete.env.games.partial.repeat import RepeatAfterMe
from athlete.env.registry import register_env
from athlete.env.wrappers.previous import FilmedPreviousStep, Previous, PreviousStep, PreviousStepSource
from athlete.loops.collect import collect, reset_rows, spec_of
from athlete.loops.host import HostedEnv
from athlete.loops.train import CompiledTraining, HostedTraining
from athlete.models.catalog import with_convolutions
from athlete.models.cnn import ConvNet
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU, LSTM
from athlete.ops.features import action_features
from athlete.ops.random import wrap

BOTH = Previous(action=True, reward=True)
SHOWN = {"lstm_use_prev_action": True, "lstm_use_prev_reward": True}
SMALL = {"train_batch_size": 64, "minibatch_size": 32, "num_epochs": 1}


# What is shown


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (spaces.Discrete(3), 2, [0, 0, 1]),
        (spaces.Discrete(3, start=5), 6, [0, 1, 0]),
        (spaces.MultiDiscrete((2, 3)), [1, 0], [0, 1, 1, 0, 0]),
        (spaces.MultiBinary((2, 2)), [[1, 0], [0, 1]], [1, 0, 0, 1]),
        (spaces.Box(-2.0, 2.0, (2,)), [2.0, -1.0], [1.0, -0.5]),
        (spaces.Box(-np.inf, np.inf, (1, 2)), [[3.0, -7.0]], [3.0, -7.0]),
        (spaces.Tuple((spaces.Discrete(2), spaces.Box(0.0, 1.0, (1,)))), (1, [0.5]), [0, 1, 0.0]),
        (spaces.Dict({"b": spaces.Discrete(2), "a": spaces.MultiBinary((1,))}), {"b": 0, "a": [1]}, [1, 1, 0]),
    ],
)
def test_an_action_is_shown_one_hot_or_within_minus_1_and_1_and_a_reward_as_it_is(space, action, expected):
    action = jax.tree.map(np.asarray, action, is_leaf=lambda part: isinstance(part, list))
    spec = BOTH.spec(Spec(spaces.Discrete(4), space))
    assert [part.shape for part in spec.obs.spaces] == [(), (len(expected),), (1,)]
    shown = BOTH.show(space, 3, action, np.float32(-2.5))
    assert shown[0] == 3 and isinstance(shown[1], np.ndarray)
    np.testing.assert_allclose(shown[1], expected, atol=1e-6)
    np.testing.assert_array_equal(shown[2], [-2.5])
    compiled = jax.jit(lambda given: BOTH.show(space, 3, given, jnp.float32(-2.5)))(action)
    np.testing.assert_allclose(compiled[1], expected, atol=1e-6)
    first = BOTH.show_start(space, 3)
    assert [part.tolist() for part in first[1:]] == [[0.0] * len(expected), [0.0]]


def test_each_part_alone():
    spec = Spec(spaces.Discrete(4), spaces.Discrete(2))
    assert [part.shape for part in Previous(action=True).spec(spec).obs.spaces] == [(), (2,)]
    assert [part.shape for part in Previous(reward=True).spec(spec).obs.spaces] == [(), (1,)]
    assert len(Previous(reward=True).show(spec.action, 3, np.int32(1), np.float32(1))) == 2


def test_leading_axes_are_kept():
    assert action_features(spaces.MultiDiscrete((2, 3)), np.zeros((4, 5, 2), np.int32)).shape == (4, 5, 5)


# In the loops


def test_a_transition_shows_its_own_action_and_reward_and_an_episode_begins_with_none():
    env = PreviousStep(CARTPOLE, BOTH)
    agent = PPO(model=MLP((4,))).bind(spec_of(env))
    view = agent.view(agent.init(wrap(KEY)), 0.0)
    rows = reset_rows(env, agent, view, 3, wrap(KEY))
    _, trajectory, episodes = jax.device_get(collect(agent, env, view, rows, wrap(KEY), 40))
    assert episodes.done.sum() > 6
    for shown, expected in zip(
        trajectory.next_obs[1:], (np.eye(2)[trajectory.action], trajectory.reward[..., None]), strict=True
    ):
        np.testing.assert_array_equal(shown, expected)
    for seen, led_to in zip(trajectory.obs[1:], trajectory.next_obs[1:], strict=True):
        np.testing.assert_array_equal(seen[0], np.zeros_like(seen[0]))
        np.testing.assert_array_equal(seen[1:], np.where(episodes.done[:-1, :, None], 0, led_to[:-1]))


def test_compiled_and_outside_of_jax_the_training_is_the_same():
    """On Pendulum, whose actions are clipped on their way: both show what the environment took."""
    compiled_env = PreviousStep(PENDULUM, BOTH)
    agent = PPO(lr=1e-2, model=LSTM(8, ()), max_seq_len=8, minibatch_size=32, num_epochs=2).bind(spec_of(compiled_env))
    agent = dataclasses.replace(agent, entropy_coeff=0.1)
    compiled = CompiledTraining(agent, compiled_env, 4, 16, 500.0, KEY)
    source = PreviousStepSource(HostedEnv(PENDULUM, 4), BOTH)
    hosted = HostedTraining(agent, source, 16, 500.0, KEY)
    for _ in range(3):
        a, b = compiled.advance(1), hosted.advance(1)
        np.testing.assert_allclose(a.returns, b.returns, rtol=1e-5)
    assert_close(compiled.run.state, hosted.run.state, 1e-5)
    assert_close(compiled.run.rows.obs, hosted.run.rows.obs, 1e-5)
    assert_close(compiled.run.rows.carry, hosted.run.rows.carry, 1e-5)


@pytest.mark.parametrize("backend", ["auto", "gymnasium"])
def test_a_configuration_shows_them_in_training_evaluation_and_after_restoring(backend, tmp_path):
    config = PPOConfig().environment("CartPole-v1", backend=backend)
    config.training(model={"use_lstm": True, "lstm_cell_size": 4, "max_seq_len": 8, **SHOWN}, **SMALL)
    config.rollouts(num_envs_per_worker=2).debugging(seed=1)
    if backend == "auto":
        assert_resumes(config, tmp_path)
        return
    with config.build() as algo:
        assert [part.shape for part in algo.agent.spec.obs.spaces] == [(4,), (2,), (1,)]
        algo.train()
        assert len(algo.evaluate(episodes=2)["evaluation"]["hist_stats"]["episode_reward"]) == 2


def test_algorithms_without_memory_see_them_too():
    config = DQNConfig().environment("CartPole-v1").training(model=SHOWN, num_steps_sampled_before_learning_starts=32)
    with config.build(min_sample_timesteps_per_iteration=64) as algo:
        assert algo.train()["timesteps_total"] == 96  # the warm-up comes on top
        assert algo.compute_single_action([0.0] * 4, prev_action=1, prev_reward=1.0, full_fetch=True)[0] in (0, 1)


# Acting


@pytest.fixture(scope="module")
def repeating():
    register_env("RepeatAtOnce", lambda env_config: RepeatAfterMe(1, 12))
    config = PPOConfig().environment("RepeatAtOnce").rollouts(num_envs_per_worker=2).debugging(seed=3)
    config.training(model={"use_lstm": True, "lstm_cell_size": 4, "max_seq_len": 8, **SHOWN}, lr=0.05, **SMALL)
    with config.build() as algo:
        for _ in range(3):
            algo.train()
        yield algo


def test_acting_with_prev_action_and_prev_reward_is_acting_in_the_environment_that_shows_them(repeating):
    plain = RepeatAfterMe(1, 12)
    env = PreviousStep(plain, BOTH)
    policy = repeating.get_policy()
    state, obs = env.reset(wrap(KEY))
    own_state, own_obs = plain.reset(wrap(KEY))
    memory = own_memory = policy.get_initial_state()
    action = reward = None
    for t in range(12):
        expected, memory = policy.act_one(jax.device_get(obs), memory)
        action, own_memory, _ = repeating.compute_single_action(
            np.asarray(own_obs), own_memory, prev_action=action, prev_reward=reward
        )
        assert action == expected
        assert_close(own_memory, memory, 0.0)
        key = wrap(np.array([t, 9], np.uint32))
        state, step = env.step(state, jnp.int32(expected), key)
        own_state, own_step = plain.step(own_state, jnp.int32(action), key)
        obs, own_obs, reward = step.obs, own_step.obs, float(own_step.reward)


def test_they_change_what_is_remembered(repeating):
    state = repeating.get_policy().get_initial_state()
    _, told, _ = repeating.compute_single_action(1, state, prev_action=1, prev_reward=1.0)
    _, other, _ = repeating.compute_single_action(1, state, prev_action=0, prev_reward=1.0)
    _, worse, _ = repeating.compute_single_action(1, state, prev_action=1, prev_reward=-1.0)
    leaves = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (told, other, worse)]
    assert np.abs(leaves[0] - leaves[1]).max() > 1e-4 and np.abs(leaves[0] - leaves[2]).max() > 1e-4


def test_a_step_that_is_not_the_first_needs_them(repeating):
    state = repeating.get_policy().get_initial_state()
    _, after, _ = repeating.compute_single_action(1, state)
    with pytest.raises(ValueError, match="give prev_action and prev_reward too, but for the first step"):
        repeating.compute_single_action(1, after)
    with pytest.raises(ValueError, match="give prev_reward too"):
        repeating.compute_single_action(1, after, prev_action=0)
    actions, _, _ = repeating.compute_actions(
        {"a": 1, "b": 0}, {"a": state, "b": after}, prev_action={"a": None, "b": 1}, prev_reward={"a": None, "b": 1.0}
    )
    assert set(actions) == {"a", "b"}


def test_films_show_them():
    env = FilmedPreviousStep(gymnasium.make("Pendulum-v1", render_mode="rgb_array"), PENDULUM.action_space, BOTH)
    obs, _ = env.reset(seed=0)
    assert [np.shape(part) for part in obs] == [(3,), (1,), (1,)] and not obs[1].any()
    obs, reward, *_ = env.step(np.array([1.0], np.float32))
    np.testing.assert_allclose([obs[1][0], obs[2][0]], [0.5, reward], rtol=1e-6)
    assert env.render_mode == "rgb_array" and env.render().ndim == 3
    env.close()


# Settings


def test_what_follows_an_image_passes_its_convolutions_by():
    image = spaces.Box(0, 255, (10, 10, 3), np.uint8)
    spec = BOTH.spec(Spec(image, spaces.Discrete(2)))
    model = with_convolutions(MLP((8,)), SHOWN, spec.obs)
    assert isinstance(model, ConvNet) and model.shape == (10, 10, 3)
    params = model.init(wrap(KEY), spec.obs, {"q": (2, 1.0)})
    assert params["model"]["layers"][0]["kernel"].shape == (8 * 8 * 16 + 3, 8)


def test_they_are_set_for_all_networks_of_an_algorithm():
    from athlete.algorithms.sac import SACConfig

    config = SACConfig().environment("Pendulum-v1").training(q_model_config={"lstm_use_prev_action": True})
    with config.build() as algorithm:  # said of one network, as RLlib's files do, it holds for all
        assert algorithm.agent.spec.obs.spaces[1].shape == (1,)
    with pytest.raises(ValueError, match=r"'lstm_use_prev_action': 1.*expected True or False"):
        PPOConfig().training(model={"lstm_use_prev_action": 1})


# With masks


def test_beside_a_mask_of_actions_they_are_entries_of_its_dictionary():
    spec = Spec(spaces.Dict({"action_mask": spaces.MultiBinary(3), "x": spaces.Discrete(2)}), spaces.Discrete(3))
    assert [name for name, _ in BOTH.spec(spec).obs.items] == ["action_mask", "prev_action", "prev_reward", "x"]
    obs = {"action_mask": np.ones(3), "x": 1}
    shown = BOTH.show(spec.action, obs, np.int32(2), np.float32(-1))
    np.testing.assert_array_equal(shown["prev_action"], [0, 0, 1])
    np.testing.assert_array_equal(shown["prev_reward"], [-1])
    own, parts = BOTH.parted(shown)
    assert own == obs and len(parts) == 2


def test_with_them_masks_are_honoured_and_compiled_and_outside_of_jax_the_training_is_the_same():
    env = PreviousStep(MaskedGrid(), BOTH)
    agent = PPO(lr=1e-2, model=GRU(8, ()), max_seq_len=8, minibatch_size=32, num_epochs=2).bind(spec_of(env))
    compiled = CompiledTraining(agent, env, 4, 16, 500.0, KEY)
    hosted = HostedTraining(agent, PreviousStepSource(HostedEnv(MaskedGrid(), 4), BOTH), 16, 500.0, KEY)
    for _ in range(3):
        a, b = compiled.advance(1), hosted.advance(1)
        np.testing.assert_allclose(a.returns, b.returns, rtol=1e-5)
        assert (np.asarray(a.returns) > -1.0).all()  # none took an illegal action
    assert_close(compiled.run.rows.obs, hosted.run.rows.obs, 1e-5)


def test_a_single_action_is_legal_with_them():
    config = PPOConfig().environment("athlete.env.games.masked_grid.MaskedGrid")
    config.training(model={"use_gru": True, "gru_cell_size": 4, "max_seq_len": 8, **SHOWN}, **SMALL)
    obs = {"observations": np.array([0, 0, 4, 4]), "action_mask": np.array([0, 1, 0, 0])}
    with config.build() as algo:
        action, state, _ = algo.compute_single_action(obs, algo.get_policy().get_initial_state())
        assert action == 1
        assert algo.compute_single_action(obs, state, prev_action=1, prev_reward=0.0)[0] == 1

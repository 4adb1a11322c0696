"""RLlib's example environments under their class paths: which of ours serve them, and their rules by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import athlete
from athlete.algorithms.ppo import PPOConfig
from athlete.core import MultiEnv
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.classic.pendulum import Pendulum
from athlete.env.games.multi_agent.two_step_game import TwoStepGame
from athlete.env.games.partial.repeat import RepeatInitialObs
from athlete.env.games.partial.stateless_cartpole import StatelessCartPole
from athlete.env.games.partial.stateless_pendulum import StatelessPendulum
from athlete.env.games.rllib import COPIES, EXAMPLES, make_example
from athlete.env.games.rllib.cartpole_crashing import CartPoleCrashing
from athlete.env.games.rllib.cartpole_sparse_rewards import CartPoleSparseRewards
from athlete.env.games.rllib.random_env import RandomEnv
from athlete.env.games.rllib.transformed_action_pendulum import TransformedActionPendulum
from athlete.env.multi_agent import JointEnv
from athlete.env.world import find_world
from athlete.env.wrappers.copies import Copies
from athlete.env.wrappers.grouped import Grouped
from athlete.env.wrappers.multi_time_limit import MultiTimeLimit
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

KEYS = jax.random.split(wrap(np.array([0, 7], np.uint32)), 600)
PATH = "ray.rllib.examples.env.{}.{}"


def play(env, actions):
    """One episode's steps, until the first ending or the last action."""
    state, _ = env.reset(KEYS[0])
    step, found = jax.jit(env.step), []
    for t, action in enumerate(actions):
        state, taken = step(state, jnp.asarray(action), KEYS[t + 1])
        found.append(taken)
        if taken.terminated | taken.truncated:
            break
    return found


@pytest.mark.parametrize("name", [*EXAMPLES, *COPIES])
def test_a_class_path_is_served_by_a_compiled_environment_that_keeps_the_contract(name):
    path = PATH.format("some_module", name)
    env = make_example(path)
    assert find_world(path, {}, "auto").env == (JointEnv(env) if isinstance(env, MultiEnv) else env)
    athlete.check_env(path)


def test_the_paths_of_later_versions_are_known_too():
    path = "ray.rllib.examples.envs.classes.stateless_cartpole.StatelessCartPole"
    assert make_example(path) == TimeLimit(StatelessCartPole(), 500)


@pytest.mark.parametrize("nest", [lambda config: config, lambda c: {"config": c}, lambda c: {"env_config": c}])
def test_the_env_config_may_be_nested_once_more(nest):
    path = PATH.format("cartpole_crashing", "CartPoleCrashing")
    config = {"p_crash": 0.0, "crash_after_n_steps": 60, "init_time_s": 2.0, "p_crash_reset": 0.1}
    assert make_example(path, nest(config)) == CartPoleCrashing(0.0, 60)
    assert make_example(path, nest({**config, "crash_after_n_steps": None})) == CartPoleCrashing(0.0, 0)


def test_settings_of_the_examples_become_fields_of_ours():
    assert make_example(PATH.format("m", "CartPoleMassEnv"), {"masscart": 2.0}) == TimeLimit(
        CartPole(masscart=2.0), 500
    )
    assert make_example(PATH.format("m", "PendulumMassEnv"), {"m": 0.5}) == TimeLimit(Pendulum(m=0.5), 200)
    stretched = make_example(PATH.format("m", "TransformedActionPendulum"), {"low": 300, "high": 500})
    assert stretched == TimeLimit(TransformedActionPendulum(actions=Box(300.0, 500.0, (1,))), 200)
    assert stretched.action_space == Box(300.0, 500.0, (1,))
    noise = make_example(
        PATH.format("m", "RandomEnv"), {"action_space": Discrete(5), "max_episode_len": 7, "p_done": 0}
    )
    assert noise == RandomEnv(actions=Discrete(5), max_episode_len=7, p_done=0.0)
    with pytest.raises(ValueError, match="it has no 'masscar'; did you mean 'masscart'"):
        make_example(PATH.format("m", "CartPoleMassEnv"), {"masscar": 2.0})
    with pytest.raises(ValueError, match=r"low=3.0 is not below high=2.0"):
        make_example(PATH.format("m", "TransformedActionPendulum"), {"low": 3, "high": 2})
    with pytest.raises(ValueError, match="continuous=True has no counterpart"):
        make_example(PATH.format("m", "RepeatAfterMeEnv"), {"continuous": True})


def test_examples_of_several_agents_are_seen_as_one():
    path = PATH.format("multi_agent", "MultiAgentCartPole")
    cartpoles = Copies(TimeLimit(CartPole(), 500), 4)
    assert make_example(path, {"config": {"num_agents": 4}}) == cartpoles
    assert find_world(path, {"num_agents": 4}, "auto").env == JointEnv(cartpoles)
    assert make_example(path) == Copies(TimeLimit(CartPole(), 500), 1)
    crashing = make_example(PATH.format("cartpole_crashing", "MultiAgentCartPoleCrashing"), {"num_agents": 2})
    assert crashing == Copies(CartPoleCrashing(), 2)


def test_the_two_step_game_and_its_group_take_rllibs_settings():
    path = PATH.format("two_step_game", "TwoStepGame")
    assert make_example(path, {"env_config": {"actions_are_logits": True}}) == TwoStepGame()
    settings = {"separate_state_space": True, "one_hot_state_encoding": True}
    grouped = make_example(PATH.format("two_step_game", "TwoStepGameWithGroupedAgents"), {"env_config": settings})
    assert grouped == Grouped(TwoStepGame(**settings))
    assert make_example(path, {"max_episode_steps": 1}) == MultiTimeLimit(TwoStepGame(), 1)


def test_rock_paper_scissors_has_its_mode_under_both_names():
    path = PATH.format("rock_paper_scissors", "RockPaperScissors")
    assert make_example(path, {"sheldon_cooper": True}) == make_example(path, {"sheldon_cooper_mode": True})
    assert make_example(path, {"sheldon_cooper": True}).groups["player"].action == Discrete(5)


def test_an_example_that_nothing_serves_is_looked_for_in_rllib():
    with pytest.raises(ValueError, match="there is no module 'ray' to import"):
        PPOConfig().environment(PATH.format("windy_maze_env", "WindyMazeEnv")).build()


def test_the_initial_observation_is_shown_once_and_asked_for_a_whole_episode():
    env = RepeatInitialObs(3)
    tokens = [int(env.reset(key)[1]) for key in KEYS[:20]]
    assert set(tokens) == {0, 1}
    token = int(env.reset(KEYS[0])[1])
    steps = play(env, [token, 1 - token, token, token])
    assert [float(step.reward) for step in steps] == [1.0, -1.0, 1.0]
    assert [int(step.obs) for step in steps] == [0, 0, 0]
    assert [bool(step.terminated) for step in steps] == [False, False, True]
    with pytest.raises(ValueError, match="expected at least 1 step"):
        RepeatInitialObs(0)


def test_pendulum_without_its_velocity_is_pendulum_seen_in_part():
    actions = [[1.0], [-2.0], [0.5]]
    for seen, whole in zip(play(StatelessPendulum(), actions), play(Pendulum(), actions), strict=True):
        assert np.array_equal(seen.obs, whole.obs[:2]) and seen.reward == whole.reward


def test_sparse_rewards_are_the_return_paid_with_the_last_step():
    actions = [0, 1] * 300
    steps, whole = play(CartPoleSparseRewards(), actions), play(CartPole(), actions)
    assert len(steps) == len(whole) < 500
    assert [float(step.reward) for step in steps] == [0.0] * (len(whole) - 1) + [len(whole)]
    assert steps[0].obs["action_mask"].tolist() == [1, 1] and np.array_equal(steps[0].obs["obs"], whole[0].obs)
    cut = play(CartPoleSparseRewards(max_episode_steps=5), actions)
    assert [float(step.reward) for step in cut] == [0.0] * 4 + [5.0]
    assert bool(cut[-1].truncated) and not cut[-1].terminated


def test_a_crash_cuts_the_episode():
    steps = play(CartPoleCrashing(p_crash=0.0, crash_after_n_steps=3), [0, 1, 0, 1])
    assert [bool(step.truncated) for step in steps] == [False, False, True]
    assert [bool(step.terminated) for step in steps] == [False, False, False]
    crashed = jax.vmap(lambda key: CartPoleCrashing(p_crash=0.25).step(CartPoleCrashing().reset(key)[0], 0, key)[1])
    assert np.mean(crashed(KEYS).truncated) == pytest.approx(0.25, abs=0.05)


def test_stretched_actions_are_the_torques_of_pendulum():
    stretched = TransformedActionPendulum(actions=Box(300.0, 500.0, (1,)))
    found = play(stretched, [[300.0], [400.0], [450.0]])
    plain = play(Pendulum(), [[-2.0], [0.0], [1.0]])
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one.obs, other.obs, atol=1e-6)
        np.testing.assert_allclose(one.reward, other.reward, atol=1e-5)


def test_noise_ends_by_chance_and_at_its_longest():
    done = jax.vmap(lambda key: RandomEnv(p_done=0.25).step(RandomEnv().reset(key)[0], 0, key)[1])(KEYS)
    assert np.mean(done.terminated) == pytest.approx(0.25, abs=0.05)
    assert set(np.asarray(done.obs).tolist()) == {0, 1}
    assert -1 <= done.reward.min() < -0.9 and 0.9 < done.reward.max() <= 1
    assert len(play(RandomEnv(p_done=0.0, max_episode_len=4), [0] * 9)) == 4

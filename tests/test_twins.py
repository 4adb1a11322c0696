"""Compiled twins take the same steps as Gymnasium's environments, in float32."""

import subprocess
import sys
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.registration import registry

from athlete.core import Env, Step, hyper
from athlete.env.adapters.conversion import to_space
from athlete.env.games.classic.acrobot import Acrobot, AcrobotState
from athlete.env.games.classic.cartpole import CartPole, CartPoleState
from athlete.env.games.classic.mountain_car import MountainCarState
from athlete.env.games.classic.pendulum import PendulumState
from athlete.env.twins import CLASSIC, find_twin, twin_ids
from athlete.env.wrappers.time_limit import TimeLimit, TimeLimitState
from athlete.ops.random import wrap
from athlete.spaces import Discrete

KEY = np.zeros(2, np.uint32)
STATES = {
    "CartPole-v1": CartPoleState,
    "Acrobot-v1": AcrobotState,
    "MountainCar-v0": MountainCarState,
    "MountainCarContinuous-v0": MountainCarState,
    "Pendulum-v1": PendulumState,
}
# Physics from which to take a step: wider than the episodes reach.
BOUNDS = {
    "CartPole-v1": ([-2.5, -4, -0.22, -4], [2.5, 4, 0.22, 4]),
    "Acrobot-v1": ([-np.pi, -np.pi, -12, -28], [np.pi, np.pi, 12, 28]),
    "MountainCar-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "MountainCarContinuous-v0": ([-1.2, -0.07], [0.6, 0.07]),
    "Pendulum-v1": ([-50, -8], [50, 8]),
}


@partial(jax.jit, static_argnames="state_class")
def twin_steps(env, physics, steps, actions, state_class):
    """One step of the twin from each of many states, `[N, ...]`."""

    def one(physics, steps, action):
        state, step = env.step(TimeLimitState(state_class(physics), steps), action, KEY)
        return state.env_state.physics, step

    return jax.vmap(one)(physics, steps, actions)


def to_physics(env_id, state):
    """Gymnasium's state as the twin keeps it: Pendulum's angle in [-pi, pi)."""
    physics = np.array(state, np.float64)
    if env_id == "Pendulum-v1":
        physics[0] = (physics[0] + np.pi) % (2 * np.pi) - np.pi
    return physics.astype(np.float32)


def swing(env, obs, random):
    """Push where things already move, so that episodes also reach their goals; a fifth of the time at random."""
    velocity = {2: 1, 6: 5}.get(len(obs), 0)
    space = env.action_space
    if random.random() < 0.2 or env.spec.id.startswith(("CartPole", "Pendulum")):
        return space.sample()
    if isinstance(space, gymnasium.spaces.Box):
        return np.array([np.sign(obs[velocity]) * random.uniform(0.5, 1.3)], np.float32)
    return (space.n - 1) * int(obs[velocity] > 0)


def gymnasium_steps(env_id, config, episodes):
    """Every step of some episodes, as columns: physics and steps taken before, action, then what the step gave."""
    env = gymnasium.make(env_id, disable_env_checker=True, **config)
    env.action_space.seed(0)
    random = np.random.default_rng(0)
    columns = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        over, taken = False, 0
        while not over:
            before, action = to_physics(env_id, env.unwrapped.state), swing(env, obs, random)
            obs, reward, terminated, truncated, _ = env.step(action)
            columns.append((before, taken, action, obs, reward, terminated, truncated))
            taken += 1
            over = terminated or truncated
    return [np.array(column) for column in zip(*columns, strict=True)]


def assert_equal_steps(step, obs, reward, terminated, truncated):
    assert step.obs.dtype == np.float32 and step.reward.dtype == np.float32
    np.testing.assert_allclose(step.obs, obs, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(step.reward, reward, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(step.terminated, terminated)
    np.testing.assert_array_equal(step.truncated, truncated)


@pytest.mark.parametrize(
    ("env_id", "config"),
    [
        ("CartPole-v1", {"max_episode_steps": 30}),
        ("CartPole-v1", {"max_episode_steps": 30, "sutton_barto_reward": True}),
        ("Acrobot-v1", {"max_episode_steps": 110}),
        ("MountainCar-v0", {"max_episode_steps": 150}),
        ("MountainCar-v0", {"max_episode_steps": 150, "goal_velocity": 0.03}),
        ("MountainCarContinuous-v0", {"max_episode_steps": 120}),
        ("Pendulum-v1", {"max_episode_steps": 60}),
        ("Pendulum-v1", {"max_episode_steps": 60, "g": 9.81}),
    ],
)
def test_twin_takes_the_same_steps_through_whole_episodes(env_id, config):
    before, taken, action, *after = gymnasium_steps(env_id, config, episodes=20)
    terminated, truncated = after[2:]
    assert truncated.any(), "the comparison must see the time limit"
    assert terminated.any() or env_id == "Pendulum-v1", "the comparison must see terminations"
    twin, _ = find_twin(env_id, config)
    _, step = twin_steps(twin, before, taken, action, STATES[env_id])
    assert_equal_steps(step, *after)


@pytest.mark.parametrize("env_id", list(STATES))
def test_twin_steps_equally_from_anywhere(env_id):
    env = gymnasium.make(env_id, disable_env_checker=True)
    env.action_space.seed(0)
    env.reset(seed=0)
    states = np.random.default_rng(0).uniform(*BOUNDS[env_id], size=(500, len(BOUNDS[env_id][0])))
    before = np.stack([to_physics(env_id, state) for state in states])
    action = np.stack([env.action_space.sample() for _ in states])
    after, physics = [], []
    for state, taken in zip(before, action, strict=True):
        env.unwrapped.state = state.astype(np.float64)
        env.unwrapped.steps_beyond_terminated = None
        obs, reward, terminated, _, _ = env.unwrapped.step(taken)
        after.append((obs, reward, terminated))
        physics.append(to_physics(env_id, env.unwrapped.state))
    twin, _ = find_twin(env_id)
    twin_physics, step = twin_steps(twin, before, np.zeros(500, np.int32), action, STATES[env_id])
    assert_equal_steps(step, *(np.array(column) for column in zip(*after, strict=True)), np.zeros(500, bool))
    np.testing.assert_allclose(twin_physics, physics, rtol=2e-5, atol=2e-5)


def test_acrobot_has_the_equations_of_the_paper_too():
    env = gymnasium.make("Acrobot-v1", disable_env_checker=True)
    env.reset(seed=0)
    env.unwrapped.book_or_nips = "nips"
    env.unwrapped.state = np.array([0.3, -0.7, 1.5, -2.0])
    obs, _, _, _, _ = env.step(2)
    state = AcrobotState(np.array([0.3, -0.7, 1.5, -2.0], np.float32))
    nips = jax.jit(Acrobot(book_or_nips="nips").step)(state, 2, KEY)[1].obs
    book = jax.jit(Acrobot(book_or_nips="book").step)(state, 2, KEY)[1].obs
    np.testing.assert_allclose(nips, obs, atol=1e-5)
    assert abs(book - obs).max() > 0.01


@pytest.mark.parametrize("env_id", list(STATES))
def test_spaces_are_gymnasiums(env_id):
    env = gymnasium.make(env_id)
    twin, _ = find_twin(env_id)
    assert twin.observation_space == to_space(env.observation_space)
    assert twin.action_space == to_space(env.action_space)


@pytest.mark.parametrize("env_id", list(STATES))
def test_episodes_begin_as_gymnasiums_do(env_id):
    env = gymnasium.make(env_id, disable_env_checker=True)
    theirs = np.sort([env.reset(seed=seed)[0] for seed in range(1000)], axis=0)
    twin, _ = find_twin(env_id)
    keys = np.random.default_rng(0).integers(0, 2**32, (4000, 2), dtype=np.uint32)
    state, ours = jax.jit(jax.vmap(lambda key: twin.reset(wrap(key))))(keys)
    assert ours.dtype == np.float32 and not np.asarray(state.steps).any()
    for our_column, their_column in zip(np.sort(ours, axis=0).T, theirs.T, strict=True):
        our_share = np.searchsorted(our_column, our_column, side="right") / len(our_column)
        their_share = np.searchsorted(their_column, our_column, side="right") / len(their_column)
        assert abs(our_share - their_share).max() < 0.058  # Kolmogorov and Smirnov's 1% point


def test_default_time_limits_are_gymnasiums():
    for env_id in CLASSIC:
        twin, _ = find_twin(env_id)
        assert twin.max_episode_steps == gymnasium.spec(env_id).max_episode_steps


def test_twin_ids_are_the_ids_that_find_twin_knows():
    assert {"CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Taxi-v3"} <= set(twin_ids())
    assert all("runs compiled" in find_twin(env_id)[1] for env_id in twin_ids() if env_id in registry)


def test_a_twin_says_so_and_how_to_turn_it_off():
    twin, sentence = find_twin("CartPole-v1", {})
    assert twin == TimeLimit(CartPole(), 500)
    assert sentence == (
        "CartPole-v1 runs compiled (athlete.env.games.classic.cartpole); "
        "environment(..., backend='gymnasium') turns that off"
    )


def test_arguments_become_fields_and_rendering_does_not_matter():
    twin, _ = find_twin("CartPole-v1", {"sutton_barto_reward": True, "render_mode": "rgb_array"})
    assert twin == TimeLimit(CartPole(sutton_barto_reward=True), 500)
    assert find_twin("Pendulum-v1", {"g": 3})[0].env.g == 3.0
    assert find_twin("MountainCar-v0", {"goal_velocity": 0.01})[0].env.goal_velocity == 0.01


def test_time_limit_can_be_changed_and_removed():
    assert find_twin("CartPole-v1", {"max_episode_steps": 7})[0] == TimeLimit(CartPole(), 7)
    assert find_twin("CartPole-v1", {"max_episode_steps": -1})[0] == CartPole()
    assert find_twin("CartPole-v1", {"max_episode_steps": None})[0] == TimeLimit(CartPole(), 500)


@pytest.mark.parametrize(
    ("env_id", "config", "reason"),
    [
        ("CartPole-v1", {"foo": 1}, "CartPole-v1 has no compiled twin for argument 'foo'; it runs on Gymnasium"),
        ("Pendulum-v1", {"g": "x"}, "Pendulum-v1 has no compiled twin for g='x'; it runs on Gymnasium"),
        ("CartPole-v1", {"max_episode_steps": 0}, "no compiled twin for max_episode_steps=0"),
        ("CartPole-v1", {"max_episode_steps": "9"}, "no compiled twin for max_episode_steps='9'"),
        ("LunarLander-v3", {}, "LunarLander-v3 has no compiled twin; it runs on Gymnasium"),
    ],
)
def test_what_a_twin_does_not_cover_runs_on_gymnasium(env_id, config, reason):
    twin, sentence = find_twin(env_id, config)
    assert twin is None and reason in sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"entry_point": "mine:Env"},
        {"kwargs": {"sutton_barto_reward": True}},
        {"max_episode_steps": 3},
        {"additional_wrappers": (gymnasium.envs.registration.WrapperSpec("Mine", "mine:Wrapper", {}),)},
    ],
)
def test_an_id_registered_anew_runs_on_gymnasium(monkeypatch, changes):
    spec = gymnasium.spec("CartPole-v1")
    settings = {"entry_point": spec.entry_point, "max_episode_steps": 500, **changes}
    monkeypatch.setitem(registry, "CartPole-v1", gymnasium.envs.registration.EnvSpec("CartPole-v1", **settings))
    twin, sentence = find_twin("CartPole-v1")
    assert twin is None
    assert (
        sentence == "CartPole-v1 has no compiled twin for what is registered under this id here; it runs on Gymnasium"
    )


def test_classic_twins_do_not_import_gymnasium():
    program = (
        "import sys; from athlete.env.twins import CLASSIC, find_twin\n"
        "assert all(find_twin(env_id)[0] is not None for env_id in CLASSIC)\n"
        "assert 'gymnasium' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_physics_can_be_swept_in_one_program():
    compilations = 0

    @jax.jit
    def pole_velocity(env):
        nonlocal compilations
        compilations += 1
        state, _ = env.step(CartPoleState(jnp.zeros(4)), 1, KEY)
        return state.physics[3]

    # A force F on a resting cart, pole upright: -F / (m_total * length * (4/3 - m_pole / m_total)) each second.
    for length in (0.5, 1.0):
        expected = -0.02 * 10 / 1.1 / (length * (4 / 3 - 0.1 / 1.1))
        np.testing.assert_allclose(pole_velocity(CartPole(length=length)), expected, rtol=1e-6)
    assert compilations == 1


@hyper
class Countdown(Env):
    """Terminates in the third step, truncates itself in the fifth."""

    observation_space = Discrete(9)
    action_space = Discrete(1)

    def reset(self, key):
        return jnp.int32(0), jnp.int32(0)

    def step(self, state, action, key):
        state = state + 1
        return state, Step(state, jnp.float32(1), state == 3, state == 5, {})


def test_time_limit_truncates_at_the_limit_and_keeps_what_the_environment_says():
    env = TimeLimit(Countdown(), 3)
    state, _ = env.reset(KEY)
    flags = []
    for _ in range(3):
        state, step = env.step(state, 0, KEY)
        flags.append((bool(step.terminated), bool(step.truncated)))
    assert flags == [(False, False), (False, False), (True, True)]
    assert int(state.steps) == 3
    unreached = TimeLimit(Countdown(), 100)
    _, step = unreached.step(TimeLimitState(jnp.int32(4), jnp.int32(4)), 0, KEY)
    assert bool(step.truncated)


def test_time_limit_must_be_positive():
    with pytest.raises(ValueError, match=r"TimeLimit\(max_episode_steps=0\): expected at least 1"):
        TimeLimit(Countdown(), 0)

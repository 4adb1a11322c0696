"""One compiled environment for every transition table, Gymnasium's toy texts among them."""

from functools import partial
from inspect import signature

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.envs.registration import registry
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.envs.toy_text.utils import categorical_sample
from hypothesis import example, given, settings
from hypothesis import strategies as st

from athlete.env.adapters.conversion import to_space
from athlete.env.games.tabular import Tabular, TabularState, choose, from_table
from athlete.env.twins import TABULAR, find_twin
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.ops.random import wrap

INSTALLED = [env_id for env_id in TABULAR if env_id in registry]
TAXI = max(env_id for env_id in INSTALLED if env_id.startswith("Taxi"))
LAKE_ARGUMENTS = signature(FrozenLakeEnv).parameters
COIN = [[[(0.25, 0, 0.0, False), (0.75, 1, 2.5, True)]], [[(1.0, 1, 0.0, True)]]]  # two states, one action


def keys(count):
    return np.random.default_rng(0).integers(0, 2**32, (count, 2), dtype=np.uint32)


def unlimited(env):
    return env.env if isinstance(env, TimeLimit) else env


@partial(jax.jit, static_argnames="count")
def repeat_step(env, state, action, keys, count):
    """`count` independent steps from one state: next states, rewards, terminations."""

    def one(key):
        _, step = env.step(TabularState(state), action, wrap(key))
        return step.obs, step.reward, step.terminated

    return jax.vmap(one)(keys)


def assert_same_table(env, gymnasium_env):
    """Every outcome of every state and action, in order, with its probability."""
    P = gymnasium_env.unwrapped.P
    assert env.cumulative.shape[:2] == (len(P), len(P[0]))
    listed = np.array([(s, a, k) for s in P for a in P[s] for k in range(len(P[s][a]))])
    expected = np.array([outcome for s in P for a in P[s] for outcome in P[s][a]], np.float64)
    shares = np.diff(env.cumulative, axis=-1, prepend=0)
    np.testing.assert_allclose(shares[tuple(listed.T)], expected[:, 0], atol=1e-6)
    np.testing.assert_array_equal(env.outcomes[tuple(listed.T)], expected[:, 1:].astype(np.float32))
    shares[tuple(listed.T)] = 0
    assert not shares.any()
    shares = np.zeros(len(P))
    shares[env.start_states] = np.diff(env.start_cumulative, prepend=0)
    np.testing.assert_allclose(shares, gymnasium_env.unwrapped.initial_state_distrib, atol=1e-6)


@pytest.mark.parametrize("env_id", INSTALLED)
def test_twin_has_gymnasiums_whole_table_spaces_and_time_limit(env_id):
    made = gymnasium.make(env_id)
    twin, sentence = find_twin(env_id)
    assert sentence.startswith(f"{env_id} runs compiled (athlete.env.games.tabular")
    assert_same_table(unlimited(twin), made)
    assert twin.observation_space == to_space(made.observation_space)
    assert twin.action_space == to_space(made.action_space)
    assert getattr(twin, "max_episode_steps", None) == made.spec.max_episode_steps


@pytest.mark.parametrize(
    ("env_id", "config"),
    [
        ("FrozenLake-v1", {"is_slippery": False}),
        ("FrozenLake-v1", {"desc": ["SFFH", "FHFG"]}),
        ("FrozenLake-v1", {"map_name": "8x8"}),
        pytest.param(
            "FrozenLake-v1",
            {"success_rate": 0.8, "reward_schedule": (10, -5, -1)},
            marks=pytest.mark.skipif("reward_schedule" not in LAKE_ARGUMENTS, reason="newer than this Gymnasium"),
        ),
        ("CliffWalking-v1", {"is_slippery": True}),
        (TAXI, {"is_rainy": True, "render_mode": "ansi"}),
    ],
)
def test_arguments_of_make_are_honoured(env_id, config):
    twin, _ = find_twin(env_id, config)
    assert_same_table(unlimited(twin), gymnasium.make(env_id, **config))


def test_time_limit_can_be_changed_removed_and_added():
    assert find_twin("FrozenLake-v1", {"max_episode_steps": 5})[0].max_episode_steps == 5
    assert isinstance(find_twin("FrozenLake-v1", {"max_episode_steps": -1})[0], Tabular)
    assert find_twin("CliffWalking-v1", {"max_episode_steps": 50})[0].max_episode_steps == 50


@pytest.mark.parametrize(
    ("env_id", "config", "reason"),
    [
        (TAXI, {"fickle_passenger": True}, "fickle_passenger=True, which its transition table does not contain"),
        ("FrozenLake-v1", {"map_name": None}, "map_name=None, which draws a new map for every environment"),
    ],
)
def test_what_a_table_cannot_hold_runs_on_gymnasium(env_id, config, reason):
    twin, sentence = find_twin(env_id, config)
    assert twin is None
    assert sentence == f"{env_id} has no compiled twin for {reason}; it runs on Gymnasium"


def test_an_argument_that_gymnasium_does_not_know_is_an_error():
    with pytest.raises(ValueError, match="is_slipery"):
        find_twin("FrozenLake-v1", {"is_slipery": False})


@pytest.mark.parametrize(
    ("env_id", "config"), [("FrozenLake-v1", {"is_slippery": False}), ("CliffWalking-v1", {}), (TAXI, {})]
)
def test_deterministic_twin_walks_with_gymnasium(env_id, config):
    config = {"max_episode_steps": 40, **config}
    made = gymnasium.make(env_id, **config)
    twin, _ = find_twin(env_id, config)
    step = jax.jit(twin.step)
    random = np.random.default_rng(0)
    for episode in range(5):
        obs, _ = made.reset(seed=episode)
        state, _ = twin.reset(wrap(keys(1)[0]))
        state = state._replace(env_state=TabularState(np.int32(obs)))
        over = False
        while not over:
            action = int(random.integers(made.action_space.n))
            theirs = made.step(action)[:4]
            state, ours = step(state, action, keys(1)[0])
            assert (int(ours.obs), float(ours.reward), bool(ours.terminated), bool(ours.truncated)) == theirs
            over = theirs[2] or theirs[3]


def test_a_uniform_number_chooses_what_gymnasium_chooses():
    class Fixed:
        def random(self):
            return self.number

    source = Fixed()
    twin = unlimited(find_twin("FrozenLake-v1")[0])
    for number in np.random.default_rng(0).random(300, np.float32):
        source.number = number
        for shares, cumulative in (([1 / 3] * 3, twin.cumulative[0, 0]), ([1.0], twin.cumulative[5, 0])):
            assert int(choose(cumulative, number)) == categorical_sample(shares, source)


@settings(max_examples=50, deadline=None)
@example([0, 1, 1, 0], 2**22)  # a number equal to a cumulative probability
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any), st.integers(0, 2**23 - 1))
def test_an_outcome_without_probability_never_happens(weights, bits):
    shares = np.array(weights) / sum(weights)
    P = [[[(share, 0, float(i), False) for i, share in enumerate(shares)]]]
    cumulative = from_table(P, [1.0]).cumulative[0, 0]
    uniform = np.float32(bits / 2**23)
    chosen = int(choose(cumulative, uniform))
    assert weights[chosen] > 0
    assert chosen == np.argmax(np.cumsum(shares).astype(np.float32) > uniform)


def test_steps_and_starts_follow_their_probabilities():
    coin = from_table(COIN, [0.2, 0.8])
    obs, reward, terminated = repeat_step(coin, np.int32(0), np.int32(0), keys(20_000), 20_000)
    assert obs.dtype == np.int32 and reward.dtype == np.float32 and terminated.dtype == bool
    assert abs(float(obs.mean()) - 0.75) < 0.01
    np.testing.assert_array_equal(reward, np.where(obs == 1, 2.5, 0))
    np.testing.assert_array_equal(terminated, obs == 1)
    _, starts = jax.jit(jax.vmap(lambda key: coin.reset(wrap(key))))(keys(20_000))
    assert abs(float(starts.mean()) - 0.8) < 0.01


def test_tables_of_equal_shapes_share_one_program():
    other = [[[(0.5, 0, 1.0, False), (0.5, 1, 1.0, False)]], [[(1.0, 0, 1.0, True)]]]
    compiled = repeat_step._cache_size()
    for table in (COIN, other):
        repeat_step(from_table(table, [1, 0]), np.int32(0), np.int32(0), keys(8), 8)
    assert repeat_step._cache_size() == compiled + 1


@pytest.mark.parametrize(
    ("P", "initial", "message"),
    [
        ([], [], "P is empty"),
        ([[[(0.5, 0, 0.0, False)]]], [1], "the probabilities of state 0, action 0 sum to 0.5, not to 1"),
        (
            [[[(1.0, 0, 0.0, False)], [(1.0, 3, 0.0, False)]]],
            [1],
            "state 0, action 1 leads to state 3; states are 0",
        ),
        ([[[(1.0, 0.5, 0.0, False)]]], [1], "state 0, action 0 leads to state 0.5"),
        ([[[(1.5, 0, 0.0, False), (-0.5, 0, 0.0, False)]]], [1], "state 0, action 0 has the probability -0.5"),
        ([[[(1.0, 0, float("nan"), False)]]], [1], "state 0, action 0 has the reward nan; it must be finite"),
        ([[[(1.0, 0, 0.0)]]], [1], r"state 0, action 0 has the outcome \(1.0, 0, 0.0\); expected \(probability, next"),
        ([[[]]], [1], "state 0, action 0 has no outcomes"),
        ([[[(1.0, 0, 0.0, True)]], []], [1, 0], "state 1 has 0 actions and state 0 has 1"),
        ({0: {1: [(1.0, 0, 0.0, True)]}}, [1], "no entry for state 0, action 0"),
        ({1: {0: [(1.0, 0, 0.0, True)]}}, [1], "no entry for state 0; states and actions count from 0"),
        ([[[(1.0, 0, 0.0, True)]]], [0.5, 0.5], r"initial_distribution has shape \(2,\); expected one probability for"),
        ([[[(1.0, 0, 0.0, True)]]], [0.7], "the probabilities of initial_distribution sum to 0.7, not to 1"),
    ],
)
def test_a_wrong_table_is_refused_by_state_and_action(P, initial, message):
    with pytest.raises(ValueError, match=message):
        from_table(P, initial)

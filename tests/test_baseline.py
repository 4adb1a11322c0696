"""Random episodes: exactly as many as asked for, each to its end, without favouring short ones."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.core import Env, Step, hyper
from athlete.env import baseline as module
from athlete.env.baseline import baseline
from athlete.env.registry import register_env
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.spaces import Box, Discrete


@hyper
class Geometric(Env):
    """Goes on with a fixed probability: the mean length is known, and long episodes are many."""

    going_on: float = 0.98

    observation_space = Box(0, 1, (1,))
    action_space = Discrete(2)

    def reset(self, key):
        return jnp.int32(0), jnp.zeros(1)

    def step(self, state, action, key):
        over = jax.random.uniform(key) >= self.going_on
        return state + 1, Step(jnp.zeros(1), action.astype(jnp.float32), over, jnp.asarray(False), {})


class GymnasiumCountdown(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=3):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.length
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(1, np.float32), 0.5, self.left == 0, False, {}


def test_cartpole_at_random_earns_22():
    result = baseline("CartPole-v1", episodes=20_000)
    assert result.backend == "jax" and result.episodes == 20_000 and result.seconds > 0
    assert abs(result.episode_reward_mean - 22.25) < 0.35  # four standard errors
    assert abs(result.episode_reward_std - 11.9) < 0.4
    assert result.episode_len_mean == result.episode_reward_mean
    assert 8 <= result.episode_reward_min < 10 < 80 < result.episode_reward_max


def test_gymnasium_gives_the_same_to_within_chance():
    result = baseline("CartPole-v1", episodes=300, backend="gymnasium")
    assert result.backend == "gymnasium" and result.episodes == 300
    assert abs(result.episode_reward_mean - 22.25) < 3


def test_long_episodes_count_as_much_as_short_ones():
    result = baseline(Geometric(), episodes=10_000)
    # Lengths are geometric with mean 50 and standard deviation 49.5; the bias of a cut would be several times 2.
    assert abs(result.episode_len_mean - 50) < 2
    assert abs(result.episode_reward_mean - 25) < 1.2
    assert result.episode_reward_std > 20


@pytest.mark.parametrize("episodes", [1, 7, 2049])
def test_exactly_as_many_episodes_as_asked_for(episodes):
    returns, lengths = module._play_compiled(TimeLimit(Geometric(going_on=1.0), 20), episodes, seed=0)
    assert returns.shape == lengths.shape == (episodes,)
    assert (lengths == 20).all()


def test_slippery_lake_earns_what_its_table_says():
    made = gymnasium.make("FrozenLake-v1").unwrapped
    value = np.zeros(16)  # the expected return of the uniform policy, one more step to go in every round
    for _ in range(100):
        value = np.array(
            [
                np.mean([sum(p * (r + (not over) * value[s]) for p, s, r, over in made.P[state][a]) for a in range(4)])
                for state in range(16)
            ]
        )
    result = baseline("FrozenLake-v1", episodes=40_000)
    assert abs(result.episode_reward_mean - value[0]) < 4 * (value[0] / 40_000) ** 0.5


def test_a_seed_repeats_and_another_differs():
    first, again, other = (baseline(Geometric(), episodes=50, seed=seed) for seed in (3, 3, 4))
    assert first._replace(seconds=0) == again._replace(seconds=0)
    assert first.episode_reward_mean != other.episode_reward_mean
    hosted = [baseline("CartPole-v1", episodes=5, seed=seed, backend="gymnasium")[:5] for seed in (3, 3, 4)]
    assert hosted[0] == hosted[1] != hosted[2]


def test_env_config_reaches_both_backends():
    config = {"max_episode_steps": 5, "sutton_barto_reward": True}
    for backend in (None, "gymnasium"):
        result = baseline("CartPole-v1", episodes=3, env_config=config, backend=backend)
        assert result.episode_len_mean == 5 and result.episode_reward_mean == 0


def test_classes_factories_and_registered_names_are_played():
    register_env("countdown", lambda config: GymnasiumCountdown(**config))
    register_env("geometric", lambda config: Geometric(**config))
    assert baseline("countdown", episodes=4, env_config={"length": 6}).episode_reward_mean == 3
    assert baseline(GymnasiumCountdown, episodes=2).episode_len_mean == 3
    assert baseline(GymnasiumCountdown(2), episodes=2).episode_len_mean == 2
    compiled = baseline("geometric", episodes=2, env_config={"going_on": 0.0})
    assert compiled.backend == "jax" and compiled.episode_len_mean == 1


@pytest.mark.parametrize("episodes", [0, -1, 2.5])
def test_the_number_of_episodes_must_be_positive(episodes):
    with pytest.raises(ValueError, match=rf"baseline\(episodes={episodes}\): expected a whole number of at least 1"):
        baseline("CartPole-v1", episodes=episodes)


def test_backends_are_checked():
    with pytest.raises(ValueError, match=r"baseline\(backend='torch'\): expected None, 'auto', 'jax' or 'gymnasium'"):
        baseline("CartPole-v1", backend="torch")
    with pytest.raises(ValueError, match="it is a JAX environment"):
        baseline(Geometric(), backend="gymnasium")
    with pytest.raises(ValueError, match="LunarLander-v3 has no compiled twin"):
        baseline("LunarLander-v3", backend="jax")


@pytest.mark.parametrize("env", [Geometric(going_on=1.0), GymnasiumCountdown(length=10**9)])
def test_an_endless_episode_is_an_error_that_says_what_to_do(monkeypatch, env):
    monkeypatch.setattr(module, "LONGEST_EPISODE", 100)
    with pytest.raises(ValueError, match="more than 100 steps; if it never ends by itself, give it a limit"):
        baseline(env, episodes=2)

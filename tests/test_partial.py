"""Environments that need memory: their rules, worked out by hand, and their ids."""

from __future__ import annotations

import imageio.v2 as imageio
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import athlete
from athlete.algorithms.ppo import PPOConfig
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.partial import make_partial
from athlete.env.games.partial.memory_chain import MemoryChain
from athlete.env.games.partial.repeat import RepeatAfterMe
from athlete.env.games.partial.stateless_cartpole import StatelessCartPole
from athlete.env.registry import PARTIAL
from athlete.env.twins import find_twin
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.ops.random import wrap

KEYS = jax.random.split(wrap(np.array([0, 5], np.uint32)), 200)


def play(env, actions):
    """One episode with these actions: the observations, reset's first, and rewards and endings."""
    state, obs = env.reset(KEYS[0])
    step = jax.jit(env.step)
    seen, rewards, ended = [np.asarray(obs)], [], []
    for t, action in enumerate(actions):
        state, found = step(state, jnp.int32(action), KEYS[t + 1])
        seen.append(np.asarray(found.obs))
        rewards.append(float(found.reward))
        ended.append(bool(found.terminated))
        assert not found.truncated
    return np.array(seen), rewards, ended


@pytest.mark.parametrize("env_id", PARTIAL)
def test_ids_are_found_and_keep_the_contract(env_id):
    env, sentence = find_twin(env_id)
    assert env == make_partial(env_id)
    assert sentence == f"{env_id} runs compiled (athlete.env.games.partial); Gymnasium itself has no such id"
    athlete.check_env(env_id)


def test_ids_choose_fields_and_the_limit():
    assert make_partial("StatelessCartPole-v1") == TimeLimit(StatelessCartPole(), 500)
    assert make_partial("StatelessCartPole-v1", {"max_episode_steps": -1, "gravity": 5.0}) == StatelessCartPole(5.0)
    assert make_partial("RepeatAfterMe-v0", {"repeat_delay": 2}) == RepeatAfterMe(2)
    assert make_partial("MemoryChain-v0", {"memory_length": 5, "max_episode_steps": 3}) == TimeLimit(MemoryChain(5), 3)
    with pytest.raises(ValueError, match="it has no 'repeat_delays'; did you mean 'repeat_delay'"):
        make_partial("RepeatAfterMe-v0", {"repeat_delays": 2})


def test_cartpole_without_velocities_is_cartpole_seen_in_part():
    actions = [1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    seen, rewards, ended = play(StatelessCartPole(), actions)
    whole, *rest = play(CartPole(), actions)
    np.testing.assert_array_equal(seen, whole[:, [0, 2]])
    assert [rewards, ended] == rest
    assert StatelessCartPole().observation_space.shape == (2,)


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_repeating_asks_for_the_token_of_some_steps_ago_and_for_0_at_first(delay):
    env = RepeatAfterMe(delay, episode_len=30)
    seen, rewards, ended = play(env, [0] * 30)
    asked = [0] * delay + list(seen[: 30 - delay])
    assert 0 < sum(asked) < 30 - delay, "the test must see both tokens"
    assert rewards == [1.0 if token == 0 else -1.0 for token in asked]
    assert ended == [False] * 29 + [True]
    assert play(env, asked)[1] == [1.0] * 30, "who remembers is always right"


def test_tokens_are_fair_and_independent():
    _, (obs, _) = jax.lax.scan(
        lambda state, key: (lambda new, step: (new, (step.obs, step.reward)))(*RepeatAfterMe(2).step(state, 0, key)),
        RepeatAfterMe(2).reset(KEYS[0])[0],
        jax.random.split(KEYS[1], 4000),
    )
    tokens = np.asarray(obs, np.float64)
    assert tokens.mean() == pytest.approx(0.5, abs=0.03)
    assert abs(np.corrcoef(tokens[:-1], tokens[1:])[0, 1]) < 0.05


@pytest.mark.parametrize("answer", [0, 1])
def test_the_chain_shows_its_bit_first_and_asks_at_the_end(answer):
    # bsuite's order: the context is shown by reset and once more; 3 + 1 steps.
    seen, rewards, ended = play(MemoryChain(3), [1 - answer] * 3 + [answer])
    bit = int(seen[0, 2] > 0)
    shown = 2.0 * bit - 1.0
    np.testing.assert_allclose(seen, [[1, 0, shown], [1, 0, shown], [2 / 3, 0, 0], [1 / 3, 0, 0], [0, 0, 0]], rtol=1e-6)
    assert rewards == [0.0, 0.0, 0.0, 1.0 if answer == bit else -1.0]
    assert ended == [False, False, False, True]


def test_the_chain_asks_for_one_of_its_bits_in_the_last_step_before_the_answer():
    env = MemoryChain(4, num_bits=3)
    states, obs = jax.vmap(env.reset)(KEYS)
    assert obs.shape == (200, 5) and set(np.unique(obs[:, 2:])) == {-1.0, 1.0}
    assert set(np.unique(states.query)) == {0, 1, 2}
    right = jnp.take_along_axis(states.context, states.query[:, None], axis=1)[:, 0]
    for t in range(5):
        states, step = jax.vmap(env.step)(states, right, KEYS)
        np.testing.assert_array_equal(step.obs[:, 1], np.where(t == 3, states.query, 0))
        np.testing.assert_array_equal(step.reward, np.full(200, t == 4))
        assert step.terminated.all() == (t == 4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RepeatAfterMe(-1), r"repeat_delay=-1\): expected at least 0"),
        (lambda: RepeatAfterMe(episode_len=0), r"episode_len=0\): expected at least 1"),
        (lambda: MemoryChain(0), r"memory_length=0\): expected at least 1"),
        (lambda: MemoryChain(num_bits=0), r"num_bits=0\): expected at least 1"),
    ],
)
def test_lengths_that_cannot_be_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_policy_with_memory_is_filmed_where_velocities_are_hidden(tmp_path):
    config = PPOConfig().environment("StatelessCartPole-v1").rollouts(num_envs_per_worker=2)
    config.training(train_batch_size=64, minibatch_size=32, num_epochs=1, model={"use_gru": True, "max_seq_len": 8})
    with config.build() as algo:
        (film,) = algo.record_video(tmp_path, episodes=1)
    with imageio.get_reader(film) as reader:
        frames = [np.asarray(frame) for frame in reader]
    assert len(frames) > 5 and frames[0].shape == (400, 600, 3)
    assert (frames[0] != frames[-1]).any()  # the pole has moved

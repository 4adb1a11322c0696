"""Evaluation: exactly so many whole episodes, none favoured for being short, the same again from the same key."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.core import Agent, Env, Spec, Step, hyper
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.loops import evaluate
from athlete.loops.collect import spec_of
from athlete.loops.evaluate import evaluate_compiled, evaluate_hosted
from athlete.loops.host import HostedEnv
from athlete.memory.rollout import Rollout
from athlete.ops.random import unwrap
from athlete.spaces import Box, Discrete

KEY, OTHER_KEY = np.array([0, 1], np.uint32), np.array([0, 2], np.uint32)
LONGEST = 6


class LengthsState(NamedTuple):
    length: jax.Array  # of this episode
    step: jax.Array


@hyper
class Lengths(Env):
    """Episodes of 1 to `LONGEST` steps, drawn at the reset; shows the step; pays 1 where the action is its parity."""

    by_chance: bool = True

    observation_space = Box(0, LONGEST, ())
    action_space = Discrete(2)

    def reset(self, key):
        length = jax.random.randint(key, (), 1, LONGEST + 1) if self.by_chance else jnp.int32(4)
        return LengthsState(length, jnp.int32(0)), jnp.float32(0)

    def step(self, state, action, key):
        step = state.step + 1
        reward = (action == state.step % 2).astype(jnp.float32)
        over = step == state.length  # only there: what goes on behind its end does not end again
        return LengthsState(state.length, step), Step(step.astype(jnp.float32), reward, over, jnp.asarray(False), {})


@hyper
class Counting(Agent):
    """Counts the steps of each episode in its carry and acts with the parity; exploring, it throws a coin."""

    spec: Spec | None = None
    memory: Rollout = Rollout()
    updates: int = 1

    def start(self, view, rows, key):
        return jnp.zeros(rows, jnp.int32)

    def act(self, view, carry, obs, first, key, explore=True):
        step = jnp.where(first, 0, carry)
        action = jax.random.randint(key, step.shape, 0, 2) if explore else step % 2
        return action, step + 1, ()


AGENT = Counting(spec_of(Lengths()))


def play(mode, env, episodes, key=KEY, explore=False):
    if mode == "compiled":
        return evaluate_compiled(AGENT, env, (), key, episodes, explore)
    return evaluate_hosted(AGENT, HostedEnv(env, 4), (), key, episodes, explore)


@pytest.fixture(scope="module", params=["compiled", "hosted"])
def mode(request):
    return request.param


def test_exactly_so_many_episodes_are_played(mode):
    for episodes in (1, 4, 10):
        found = play(mode, Lengths(), episodes)
        assert found.returns.shape == found.lengths.shape == (episodes,)
        assert ((found.lengths >= 1) & (found.lengths <= LONGEST)).all()


def test_the_carry_of_a_policy_with_memory_is_its_own_episodes(mode):
    """A reward of 1 in every step is had only with the right count, in the second wave of episodes as in the first."""
    found = play(mode, Lengths(), 10)
    np.testing.assert_array_equal(found.returns, found.lengths)


def test_short_episodes_are_not_favoured(mode):
    """Rows that finish early must not finish again in place of others: the mean of 1 ... 6 is 3.5."""
    lengths = play(mode, Lengths(), 400).lengths
    assert lengths.mean() == pytest.approx(3.5, abs=4 * 1.71 / np.sqrt(400))
    np.testing.assert_allclose(np.bincount(lengths, minlength=7)[1:] / 400, 1 / 6, atol=4 * 0.37 / np.sqrt(400))


@hyper
class Lasting(Lengths):
    """The same, and it says that it is over at every step behind its end."""

    def step(self, state, action, key):
        state, step = super().step(state, action, key)
        return state, step._replace(terminated=state.step >= state.length)


def test_what_is_over_for_good_counts_once(mode):
    once, again = play(mode, Lengths(), 20), play(mode, Lasting(), 20)
    np.testing.assert_array_equal(once.lengths, again.lengths)
    np.testing.assert_array_equal(once.returns, again.returns)


def test_one_key_gives_the_same_episodes_and_another_key_others(mode):
    first, again, other = (play(mode, Lengths(), 20, key) for key in (KEY, KEY, OTHER_KEY))
    np.testing.assert_array_equal(first.lengths, again.lengths)
    assert (first.lengths != other.lengths).any()


def test_greedy_is_without_chance_and_exploring_is_not(mode):
    greedy = [play(mode, Lengths(by_chance=False), 8, key).returns for key in (KEY, OTHER_KEY)]
    np.testing.assert_array_equal(greedy, np.full((2, 8), 4.0))
    sampled = play(mode, Lengths(by_chance=False), 8, explore=True)
    np.testing.assert_array_equal(sampled.lengths, 4)
    assert 0 < sampled.returns.mean() < 4
    assert len(set(sampled.returns.tolist())) > 1, "each row throws its own coin"


def test_both_modes_give_the_same_where_nothing_is_drawn():
    compiled, hosted = (play(mode, TimeLimit(Lengths(by_chance=False), 3), 6) for mode in ("compiled", "hosted"))
    np.testing.assert_array_equal(compiled.returns, hosted.returns)
    np.testing.assert_array_equal(compiled.lengths, [3] * 6)
    np.testing.assert_array_equal(hosted.lengths, [3] * 6)


def test_policy_and_environments_and_rows_have_keys_of_their_own_in_every_step():
    given = []

    class Noted(HostedEnv):
        def reset(self, key):
            given.append(key)
            return super().reset(key)

        def step(self, action, key):
            given.extend(key)
            return super().step(action, key)

        def reset_where(self, done, obs, key):
            given.extend(key)
            return super().reset_where(done, obs, key)

    class Noting(Counting):
        def act(self, view, carry, obs, first, key, explore=True):
            jax.debug.callback(lambda data: given.append(np.asarray(data)), unwrap(key))
            return super().act(view, carry, obs, first, key, explore)

    env = Lengths()
    evaluate_hosted(hyper(Noting)(spec_of(env)), Noted(env, 3), (), KEY, 6, True)
    jax.effects_barrier()
    assert len(given) > 20
    assert len({np.asarray(key).tobytes() for key in given}) == len(given)


def test_more_episodes_than_rows_are_played_in_waves_of_fresh_seeds(monkeypatch):
    monkeypatch.setattr(evaluate, "MOST_ROWS", 40)
    lengths = play("compiled", Lengths(), 100).lengths
    assert lengths.shape == (100,)
    assert (lengths[:40] != lengths[40:80]).any()


def test_episodes_longer_than_one_compiled_call_go_on_in_the_next():
    @hyper
    class Long(Lengths):
        def reset(self, key):
            return LengthsState(jnp.int32(2 * evaluate.STEPS_A_CALL + 5), jnp.int32(0)), jnp.float32(0)

    found = play("compiled", Long(), 3)
    np.testing.assert_array_equal(found.lengths, [2 * evaluate.STEPS_A_CALL + 5] * 3)
    np.testing.assert_array_equal(found.returns, found.lengths)


def test_episodes_that_never_end_are_cut_with_a_warning(mode, monkeypatch, caplog):
    monkeypatch.setattr(evaluate, "LONGEST_EPISODE", 2 * evaluate.STEPS_A_CALL)
    monkeypatch.setattr(evaluate, "LONG_EPISODE", evaluate.STEPS_A_CALL)

    @hyper
    class Endless(Lengths):
        def reset(self, key):
            return LengthsState(jnp.int32(10**9), jnp.int32(0)), jnp.float32(0)

    found = play(mode, Endless(), 4)
    np.testing.assert_array_equal(found.lengths, [2 * evaluate.STEPS_A_CALL] * 4)
    np.testing.assert_array_equal(found.returns, found.lengths)
    said, cut = [record.getMessage() for record in caplog.records]
    assert said.startswith("4 of 4 evaluation episodes have not ended in 1000 steps; they are cut after 2000.")
    assert "env_config={'max_episode_steps': ...}" in said
    assert cut.startswith("4 of 4 evaluation episodes were cut after 2000 steps")

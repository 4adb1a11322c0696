"""What hindsight gives back: steps of replay whose goal was reached later in their episode, judged for that goal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_streams import assert_same_bits, example_of, stream, trajectories

from athlete.core import Transition, hyper
from athlete.core.goals import Goals
from athlete.memory.hindsight import Hindsight
from athlete.memory.replay import Replay
from athlete.ops.random import wrap
from athlete.ops.returns import n_step_return


@hyper
class Same(Goals):
    """0 where the goal is reached, which ends the episode; else -1."""

    def judge(self, achieved_goal, desired_goal, terminated):
        reached = jnp.all(achieved_goal == desired_goal, axis=-1)
        return jnp.where(reached, 0.0, -1.0), reached


def goal_stream(steps: int, rows: int) -> Transition:
    """A stream whose step number is achieved, and wants what is never achieved; its own rewards are 100 and more."""
    transitions = stream(steps, rows, ends=0.25)
    number = np.broadcast_to(np.arange(steps, dtype=np.float32)[:, None], (steps, rows))

    def seen(achieved):
        return {"observation": achieved[..., None], "achieved_goal": achieved[..., None], "desired_goal": wanted}

    wanted = np.full((steps, rows, 1), -7, np.float32)
    return transitions._replace(obs=seen(number - 1), next_obs=seen(number), reward=100 + number)


def episode_of(transitions: Transition) -> np.ndarray:
    """The number of each step's episode, `[steps, rows]`."""
    return np.cumsum(transitions.first, axis=0)


SAMPLE = jax.jit(lambda memory, store, key: memory.sample(store, None, wrap(key), jnp.zeros(())))
ADD = jax.jit(lambda memory, store, trajectory: memory.add(store, trajectory))


def sample_of(memory: Hindsight, store, seed: int) -> Transition:
    return jax.device_get(SAMPLE(memory, store, np.array([0, seed], np.uint32)))


def after(memory: Hindsight, transitions: Transition):
    """The store after each trajectory, and how many steps it has seen."""
    store, added = memory.init(example_of(transitions), transitions.reward.shape[1]), 0
    for trajectory in trajectories(transitions, memory.unroll):
        store, added = ADD(memory, store, trajectory), added + memory.unroll
        yield store, added


def allowed(strategy: str, episode: np.ndarray, step: int, row: int, oldest: int, newest: int) -> set[int]:
    """After which steps the new goal of a step may have been reached."""
    mates = [t for t in range(oldest, newest + 1) if episode[t, row] == episode[step, row]]
    return {"final": {max(mates)}, "future": {t for t in mates if t >= step}, "episode": {*mates}}[strategy]


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
@pytest.mark.parametrize(("capacity", "rows", "unroll", "window"), [(12, 1, 1, 1), (24, 2, 4, 1), (20, 2, 1, 3)])
def test_new_goals_are_all_those_that_the_strategy_names_and_no_others(strategy, capacity, rows, unroll, window):
    memory = Hindsight(Same(), 4, strategy, capacity, 8000, window, unroll)
    transitions = goal_stream(3 * capacity // rows, rows)
    episode = episode_of(transitions)
    for store, added in after(memory, transitions):
        slots = store.episode.shape[0]
        if added < window or added % 3:  # not after every one: Python's sets take a while
            continue
        batch, oldest, newest = sample_of(memory, store, added), max(0, added - slots), added - 1
        step, row = np.divmod(batch.action[0] - 2**24, rows)
        goal = batch.obs["desired_goal"][0, :, 0]
        found: dict = {}
        for each in np.flatnonzero(goal != -7):
            found.setdefault((step[each], row[each]), set()).add(int(goal[each]))
        assert found == {
            (t, r): allowed(strategy, episode, t, r, oldest, newest)
            for t in range(oldest, newest - window + 2)
            for r in range(rows)
        }


def test_goals_reached_later_are_drawn_uniformly():
    memory = Hindsight(Same(), 4, "future", 6, 60_000)
    transitions = goal_stream(6, 1)
    transitions = transitions._replace(first=np.arange(6)[:, None] == 0)
    *_, (store, _) = after(memory, transitions)
    batch = sample_of(memory, store, 1)
    goal = batch.obs["desired_goal"][0, :, 0][(batch.action[0] == 2**24 + 1)]
    count = np.bincount(goal[goal != -7].astype(int))[1:]
    expected = count.sum() / 5
    assert count.shape == (5,)
    assert ((count - expected) ** 2 / expected).sum() < 18.5  # chi-square with 4 degrees of freedom: 0.1%


@pytest.mark.parametrize(("goals", "share"), [(4, 0.8), (1, 0.5), (0, 0.0)])
def test_of_each_goal_that_was_wanted_there_are_so_many_that_were_reached(goals, share):
    memory = Hindsight(Same(), goals, "future", 20, 20_000)
    *_, (store, _) = after(memory, goal_stream(20, 1))
    replaced = sample_of(memory, store, 1).obs["desired_goal"][0, :, 0] != -7
    assert replaced.mean() == pytest.approx(share, abs=0.02)


def test_a_replaced_goal_is_that_of_the_whole_window_and_judged_and_all_else_is_replays():
    memory, plain = Hindsight(Same(), 4, "future", 40, 500, window=3), Replay(40, 500, window=3)
    transitions = goal_stream(40, 2)
    *_, (store, _) = after(memory, transitions)
    batch = sample_of(memory, store, 1)
    kept = plain.init(example_of(transitions), 2)
    for trajectory in trajectories(transitions, 1):
        kept = ADD(plain, kept, trajectory)
    drawn = jax.jit(lambda kept, key: plain.sample(kept, None, jax.random.split(wrap(key), 3)[0], jnp.zeros(())))
    expected = jax.device_get(drawn(kept, np.array([0, 1], np.uint32)))
    goal = batch.obs["desired_goal"]
    replaced = goal[0, :, 0] != -7
    assert (goal == goal[0]).all()
    assert_same_bits(batch.next_obs["desired_goal"], goal)
    for name in ("observation", "achieved_goal"):
        assert_same_bits(batch.obs[name], expected.obs[name])
        assert_same_bits(batch.next_obs[name], expected.next_obs[name])
    reached = batch.next_obs["achieved_goal"][..., 0] == goal[..., 0]
    assert reached[:, replaced].any()
    np.testing.assert_array_equal(batch.reward, np.where(replaced, np.where(reached, 0.0, -1.0), expected.reward))
    np.testing.assert_array_equal(batch.terminated, np.where(replaced, reached, expected.terminated))
    for name in ("first", "action", "truncated", "extras"):
        assert_same_bits(getattr(batch, name), getattr(expected, name))


def test_a_goal_that_is_reached_within_a_window_ends_the_return_there():
    """Three steps of one episode that goes on; the goal is what the second achieved."""
    memory = Hindsight(Same(), 10**6, "future", 8, 200, window=3)
    transitions = goal_stream(8, 1)
    never = np.zeros((8, 1), bool)
    transitions = transitions._replace(first=np.arange(8)[:, None] == 0, terminated=never, truncated=never)
    *_, (store, _) = after(memory, transitions)
    batch = sample_of(memory, store, 1)
    ahead = batch.obs["desired_goal"][0, :, 0] - batch.next_obs["achieved_goal"][0, :, 0]
    found = jax.device_get(jax.jit(n_step_return)(batch, 0.5))
    for distance, return_, discount in ((0, 0.0, 0.0), (1, -1.0, 0.0), (2, -1.5, 0.0), (3, -1.75, 0.125)):
        assert (ahead == distance).any()
        assert (found.return_[ahead == distance] == return_).all()
        assert (found.discount[ahead == distance] == discount).all()


@pytest.mark.parametrize(("capacity", "rows", "unroll"), [(12, 1, 4), (24, 2, 3)])
def test_steps_added_one_by_one_or_many_at_once_make_the_same_store(capacity, rows, unroll):
    memory = Hindsight(Same(), capacity=capacity, unroll=unroll)
    transitions = goal_stream(4 * capacity // rows, rows)
    one_by_one = memory.init(example_of(transitions), rows)
    for (at_once, _), trajectory in zip(after(memory, transitions), trajectories(transitions, unroll), strict=True):
        for step in trajectories(trajectory, 1):
            one_by_one = ADD(memory, one_by_one, step)
        assert_same_bits(one_by_one, at_once)


def test_an_episode_longer_than_the_memory_is_known_as_far_as_it_is_there():
    memory = Hindsight(Same(), 4, "episode", 6, 2000)
    transitions = goal_stream(20, 1)
    never = np.zeros((20, 1), bool)
    transitions = transitions._replace(first=np.arange(20)[:, None] == 0, terminated=never, truncated=never)
    for store, added in after(memory, transitions):
        if added > 6:
            goal = sample_of(memory, store, added).obs["desired_goal"][0, :, 0]
            assert {*goal[goal != -7].tolist()} <= {*range(added - 6, added)}


def test_what_has_no_goals_is_refused():
    with pytest.raises(ValueError, match="observations have no 'achieved_goal' and 'desired_goal'"):
        Hindsight(Same()).init(example_of(stream(1, 1)), 1)
    transitions = goal_stream(1, 1)
    holes = transitions._replace(extras={"valid": np.ones((1, 1), bool)})
    with pytest.raises(ValueError, match="for agents that act at every step"):
        Hindsight(Same()).init(example_of(holes), 1)


def test_a_batch_is_ready_once_a_window_is():
    memory = Hindsight(Same(), capacity=10, window=3)
    ready = [bool(memory.ready(store)) for store, _ in after(memory, goal_stream(4, 1))]
    assert ready == [False, False, True, True]

"""Environments of many agents in Python: what each agent lived through comes out of the rows, all of it and once."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from roster import interpret
from toy_agents import IDS, Diary, DictRoster, OldRoster, ParallelRoster, TurnRoster

from athlete.core import Transition
from athlete.env.adapters.agents_source import MultiAgentSource
from athlete.env.multi_agent import joint_spec
from athlete.spaces import Discrete, to_environment

KEY = np.array([0, 7], np.uint32)
FORMS = [DictRoster, OldRoster, TurnRoster, ParallelRoster]


def canonical(source: MultiAgentSource, generator: np.random.Generator) -> dict[str, Any]:
    """Random actions `{group: [B, n, ...]}` as policies give them."""
    actions = {}
    for name, group in source.spec.groups:
        shape = (source.rows, group.size)
        if isinstance(group.action, Discrete):
            actions[name] = generator.integers(0, group.action.n, shape)
        else:
            actions[name] = generator.uniform(-1, 1, (*shape, *group.action.shape)).astype(np.float32)
    return actions


def played(source: MultiAgentSource, steps: int) -> Transition:
    """A trajectory `[T, B, ...]` of random actions, with resets where episodes end."""
    generator = np.random.default_rng(0)
    obs, first = source.reset(KEY), np.ones(source.rows, bool)
    taken = []
    for _ in range(steps):
        action = canonical(source, generator)
        step = source.step(action, KEY)
        done = step.terminated | step.truncated
        taken.append(Transition(obs, first, action, step.reward, step.obs, step.terminated, step.truncated, (), ()))
        obs, first = source.reset_where(done, step.obs, KEY), done
    return jax.tree.map(lambda *leaves: np.stack(leaves), *taken)


def lived(source: MultiAgentSource, trajectory: Transition, row: int) -> dict[str, list[tuple]]:
    """What came out of a row for each agent: `(obs, action, reward, next_obs, terminated, truncated)`."""
    found: dict[str, list[tuple]] = {}
    groups, column = dict(source.spec.groups), 0
    for name, group in groups.items():
        for number in range(group.size):
            agent = source.agent_ids[column]
            entries = interpret(trajectory, row, name, number, column)
            found[agent] = [
                (e.obs, to_environment(group.action, e.action), e.reward, e.next_obs, e.terminated, e.truncated)
                for e in entries
            ]
            column += 1
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two elements of a space are equal, whatever their dtypes."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(leaves) == len(others) and all(np.array_equal(a, b) for a, b in zip(leaves, others, strict=True))


def count(source: MultiAgentSource, trajectory: Transition, row: int, diary: Diary) -> int:
    """How many transitions came out of a row; each is what the environment wrote down."""
    number = 0
    for agent, entries in lived(source, trajectory, row).items():
        written = [entry[1:] for entry in diary.entries if entry[0] == agent]
        assert len(entries) == len(written)
        for came, expected in zip(entries, written, strict=True):
            assert same(came[0], expected[0]) and same(came[3], expected[3])
            np.testing.assert_allclose(came[1], expected[1], rtol=1e-6)
            assert (came[2], came[4], came[5]) == tuple(expected[i] for i in (2, 4, 5))
        number += len(entries)
    return number


@pytest.mark.parametrize("form", FORMS)
def test_every_transition_of_every_agent_comes_out_of_the_rows(form):
    source = MultiAgentSource(form, num_envs_per_worker=3)
    trajectory = played(source, 200)
    diaries = [env.diary for env in source.environments()]
    for row, diary in enumerate(diaries):
        assert count(source, trajectory, row, diary) == len(diary.entries) > 100
    assert trajectory.terminated.any() and trajectory.truncated.any()
    over = trajectory.terminated | trajectory.truncated
    assert not (trajectory.terminated & trajectory.truncated).any()
    assert not any(bits[over].any() for bits in trajectory.next_obs["acting"].values())  # nobody is asked any more
    ends = np.array([[entry[5], entry[6]] for diary in diaries for entry in diary.entries])
    assert ends.any(axis=0).all() and not ends.all(axis=1).any()  # lives ended and were cut, none both


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_worker_processes_are_the_same_to_the_bit(form):
    here = MultiAgentSource(form, num_envs_per_worker=4)
    there = MultiAgentSource(form, num_workers=2, num_envs_per_worker=2)
    assert here.spec == there.spec and here.agent_ids == there.agent_ids
    expected, came = played(here, 60), played(there, 60)
    there.close()
    jax.tree.map(np.testing.assert_array_equal, expected, came)


def test_agents_with_equal_spaces_are_groups_named_without_their_numbers_in_the_order_of_the_environment():
    source = MultiAgentSource(DictRoster)
    assert source.agent_ids == ("a_0", "a_1", "a_2", "a_3", "a_10", "b_0", "b_1")
    assert [(name, group.size) for name, group in source.spec.groups] == [("a", 5), ("b", 2)]
    assert source.spec == joint_spec(dict(source.spec.groups), always_acting=False)
    assert source.spec.reward_shape == (len(IDS),)

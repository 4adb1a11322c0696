"""Deep Sea: its rules, worked out by hand, and its id."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import athlete
from athlete.env.games.deep_sea import DeepSea, make_deep_sea
from athlete.env.twins import find_twin
from athlete.ops.random import wrap

KEY = wrap(np.array([0, 5], np.uint32))


def play(env, moves):
    """One episode of moves, 1 to the right and 0 to the left: where the diver is seen, rewards and endings."""
    state, obs = env.reset(KEY)
    step = jax.jit(env.step)
    seen, rewards, ended = [np.asarray(obs)], [], []
    for move in moves:
        right = env.right_actions[int(state.row), int(state.column)]
        state, found = step(state, jnp.int32(right if move else 1 - right), KEY)
        seen.append(np.asarray(found.obs))
        rewards.append(float(found.reward))
        ended.append(bool(found.terminated))
        assert not found.truncated
    return [[tuple(cell) for cell in np.argwhere(obs).tolist()] for obs in seen], rewards, ended


@pytest.mark.parametrize("randomize_actions", [True, False])
def test_the_diver_sinks_a_row_a_step_and_pays_for_moves_to_the_right(randomize_actions):
    seen, rewards, ended = play(DeepSea(4, randomize_actions), [1, 0, 0, 1])
    assert seen == [[(0, 0)], [(1, 1)], [(2, 0)], [(3, 0)], []]
    np.testing.assert_allclose(rewards, [-0.0025, 0, 0, -0.0025])
    assert ended == [False, False, False, True]


def test_all_moves_to_the_right_find_the_treasure():
    seen, rewards, _ = play(DeepSea(3), [1, 1, 1])
    assert seen == [[(0, 0)], [(1, 1)], [(2, 2)], []]
    np.testing.assert_allclose(rewards, [-0.01 / 3, -0.01 / 3, 1 - 0.01 / 3], rtol=1e-6)


def test_no_other_episode_is_worth_anything():
    returns = {moves: sum(play(DeepSea(4), moves)[1]) for moves in itertools.product([0, 1], repeat=4)}
    assert returns.pop((1, 1, 1, 1)) == pytest.approx(0.99)
    for moves, return_ in returns.items():
        assert return_ == pytest.approx(-0.0025 * sum(moves)), moves


def test_which_action_is_to_the_right_is_drawn_from_the_seed():
    assert (DeepSea(randomize_actions=False).right_actions == 1).all()
    drawn = DeepSea(50).right_actions
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(drawn, DeepSea(50).right_actions)
    assert (drawn != DeepSea(50, mapping_seed=1).right_actions).mean() == pytest.approx(0.5, abs=0.03)


def test_its_id_keeps_the_contract_and_chooses_the_fields():
    env, sentence = find_twin("DeepSea-v0")
    assert env == DeepSea(10)
    assert sentence == "DeepSea-v0 runs compiled (athlete.env.games.deep_sea); Gymnasium itself has no such id"
    athlete.check_env("DeepSea-v0")
    assert make_deep_sea("DeepSea-v0", {"size": 5, "mapping_seed": 3}) == DeepSea(5, mapping_seed=3)


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match=r"DeepSea\(size=0\): expected a grid of at least 1 cell"):
        DeepSea(0)
    with pytest.raises(ValueError, match="it has no 'sice'; did you mean 'size'"):
        make_deep_sea("DeepSea-v0", {"sice": 5})

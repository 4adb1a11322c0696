"""The compiled games of many agents: answers worked out by hand, and what holds for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import athlete
from athlete.core import agent_ids
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.multi_agent import make_game
from athlete.env.games.multi_agent.tic_tac_toe import LINES, TicTacToe
from athlete.env.games.multi_agent.two_step_game import TwoStepGame
from athlete.env.multi_agent import JointEnv
from athlete.env.registry import MULTI_AGENT
from athlete.env.world import find_world
from athlete.env.wrappers.copies import Copies
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.ops.random import wrap
from athlete.spaces import Dict, Discrete, MultiDiscrete

KEYS = jax.random.split(wrap(np.array([0, 11], np.uint32)), 1000)


def play(env, moves, key=KEYS[0]):
    """The state and the steps of a game, `moves` a list of `{group: [n, ...]}`."""
    state, _, _ = env.reset(key)
    step, found = jax.jit(env.step), []
    for t, move in enumerate(moves):
        action = {group: jnp.asarray(part) for group, part in move.items()}
        state, taken = step(state, action, KEYS[t + 1])
        found.append(jax.device_get(taken))
    return state, found


@pytest.mark.parametrize("env_id", MULTI_AGENT)
def test_an_id_makes_a_game_that_keeps_the_contract(env_id):
    config = {"payoff": [[1, 2], [3, 4]], "shared": True} if env_id == "MatrixGame-v0" else {}
    game = make_game(env_id, config)
    athlete.check_env(env_id, config)
    world = find_world(env_id, config, "auto").checked()
    assert isinstance(world.env, JointEnv) and world.env.groups == JointEnv(game).groups


def test_settings_of_a_game_are_its_fields():
    world = find_world("MultiAgentCartPole-v1", {"num_agents": 3, "max_episode_steps": 7, "masscart": 2.0}, "auto")
    assert world.env == JointEnv(Copies(TimeLimit(CartPole(masscart=2.0), 7), 3))
    with pytest.raises(ValueError, match="it has no 'mascart'; did you mean 'masscart'"):
        find_world("MultiAgentCartPole-v1", {"mascart": 2.0}, "auto")
    with pytest.raises(ValueError, match=r"num_agents=0\): expected at least 1"):
        find_world("MultiAgentCartPole-v1", {"num_agents": 0}, "auto")


def test_an_instance_and_a_class_are_seen_as_one_too():
    assert find_world(TicTacToe(), {}, "auto").env == find_world(TicTacToe, {}, "auto").env == JointEnv(TicTacToe())
    with pytest.raises(ValueError, match="it is a JAX environment; leave backend out"):
        find_world(TicTacToe(), {}, "gymnasium")


# The two-step game


@pytest.mark.parametrize(
    ("first", "second", "payoff"),
    [
        ((0, 1), (1, 1), 7.0),
        ((0, 0), (0, 0), 7.0),
        ((1, 0), (0, 0), 0.0),
        ((1, 1), (0, 1), 1.0),
        ((1, 0), (1, 0), 1.0),
        ((1, 0), (1, 1), 8.0),
    ],
)
def test_the_two_step_game_pays_the_figures_of_the_paper_to_both_together(first, second, payoff):
    _, steps = play(TwoStepGame(), [{"agent": list(first)}, {"agent": list(second)}])
    assert steps[0].reward["agent"].tolist() == [0, 0] and not steps[0].all_terminated
    assert steps[1].reward["agent"].tolist() == [payoff / 2] * 2 and steps[1].all_terminated


def test_the_two_step_game_is_seen_in_three_forms():
    games = TwoStepGame(), TwoStepGame(one_hot_state_encoding=True), TwoStepGame(True, separate_state_space=True)
    numbers, one_hot, separate = ([game.reset(KEYS[0])[1], play(game, [{"agent": [1, 0]}])[1][0].obs] for game in games)
    assert [obs["agent"].tolist() for obs in numbers] == [[0, 3], [2, 5]]
    assert one_hot[1]["agent"].tolist() == [[0, 0, 1, 1], [0, 0, 1, 2]]
    assert separate[1]["agent"]["obs"].tolist() == one_hot[1]["agent"].tolist()
    assert separate[1]["agent"]["state"].tolist() == [[0, 0, 1]] * 2
    assert games[0].groups["agent"].obs == Discrete(6)
    assert games[2].groups["agent"].obs == Dict({"obs": MultiDiscrete((2, 2, 2, 3)), "state": MultiDiscrete((2, 2, 2))})


# Copies


def test_copies_are_the_environment_once_for_each_agent():
    env, single = Copies(CartPole(), 3), CartPole()
    state, obs, acting = env.reset(KEYS[5])
    assert acting["agent"].tolist() == [True] * 3
    states = [single.reset(key) for key in jax.random.split(KEYS[5], 3)]
    np.testing.assert_array_equal(obs["agent"], [first for _, first in states])
    _, step = env.step(state, {"agent": jnp.array([0, 1, 0])}, KEYS[6])
    for i, action in enumerate([0, 1, 0]):
        np.testing.assert_allclose(step.obs["agent"][i], single.step(states[i][0], action, KEYS[6])[1].obs, rtol=1e-6)


def test_a_copy_that_ended_stands_still_until_the_last_one_ends():
    _, steps = play(Copies(CartPole(), 3), [{"agent": [0, 1, t % 2]} for t in range(200)])
    ended = [int(np.argmax([step.terminated["agent"][i] for step in steps])) for i in range(3)]
    assert max(ended[:2]) < ended[2], "the one that balances lasts longest"
    last = ended[2]
    for i, end in enumerate(ended):
        assert [step.terminated["agent"][i] for step in steps[: last + 1]] == [t == end for t in range(last + 1)]
        assert [step.acting["agent"][i] for step in steps[: last + 1]] == [t < end for t in range(last + 1)]
        assert [step.reward["agent"][i] for step in steps[: last + 1]] == [float(t <= end) for t in range(last + 1)]
        assert all(np.array_equal(step.obs["agent"][i], steps[end].obs["agent"][i]) for step in steps[end:last])
    assert [bool(step.all_terminated) for step in steps[: last + 1]] == [t == last for t in range(last + 1)]


def test_copies_that_are_cut_cut_the_episode():
    _, steps = play(Copies(TimeLimit(CartPole(), 3), 2), [{"agent": [0, 1]}] * 3)
    assert [bool(step.all_truncated) for step in steps] == [False, False, True]
    assert not steps[2].all_terminated and steps[2].truncated["agent"].all() and not steps[2].acting["agent"].any()


# Tic-tac-toe


def moving(cells):
    """Moves of the two players in turn; who is not acting asks for cell 0, which means nothing."""
    return [{"player": [cell, 0] if t % 2 == 0 else [0, cell]} for t, cell in enumerate(cells)]


@pytest.mark.parametrize("line", LINES.tolist())
@pytest.mark.parametrize("winner", [0, 1])
def test_three_in_a_line_win_tic_tac_toe(line, winner):
    others = [cell for cell in range(9) if cell not in line]
    # A second player's line needs three harmless stones of the first's.
    spare = next(
        [a, b, c]
        for a in others
        for b in others
        for c in others
        if a < b < c and not any(set(other) <= {a, b, c} for other in LINES.tolist())
    )
    cells = [cell for pair in zip(line, spare, strict=True) for cell in (pair if winner == 0 else pair[::-1])]
    cells = cells[:5] if winner == 0 else cells
    _, steps = play(TicTacToe(), moving(cells))
    assert [bool(step.all_terminated) for step in steps] == [False] * (len(cells) - 1) + [True]
    assert all((step.reward["player"] == 0).all() for step in steps[:-1])
    assert steps[-1].reward["player"].tolist() == ([1, -1] if winner == 0 else [-1, 1])
    assert steps[-1].terminated["player"].all() and not steps[-1].acting["player"].any()


def test_a_full_board_without_a_line_is_a_draw():
    _, steps = play(TicTacToe(), moving([0, 1, 2, 4, 3, 5, 7, 6, 8]))
    assert steps[-1].all_terminated and not steps[-2].all_terminated
    assert (steps[-1].reward["player"] == 0).all()


def test_players_of_tic_tac_toe_see_their_own_stones_first_and_take_turns():
    _, steps = play(TicTacToe(), moving([4, 0]))
    obs = steps[1].obs["player"]
    own, other = (obs["observations"][0, :, :, plane].ravel().tolist() for plane in (0, 1))
    assert own == [0, 0, 0, 0, 1, 0, 0, 0, 0] and other == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(obs["observations"][1], obs["observations"][0][:, :, ::-1])
    assert obs["action_mask"].tolist() == [[0, 1, 1, 1, 0, 1, 1, 1, 1]] * 2
    assert [step.acting["player"].tolist() for step in steps] == [[False, True], [True, False]]


def test_a_stone_on_a_taken_cell_loses():
    state, steps = play(TicTacToe(), moving([4, 4]))
    assert steps[1].all_terminated and steps[1].reward["player"].tolist() == [1, -1]
    assert state.board.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_a_picture_of_tic_tac_toe_shows_both_kinds_of_stones():
    state, _ = play(TicTacToe(), moving([4, 0]))
    picture = TicTacToe().render(state)
    assert picture.shape == (192, 192, 3) and picture.dtype == np.uint8
    cells = picture.reshape(3, 64, 3, 64, 3).transpose(0, 2, 1, 3, 4).reshape(9, -1, 3)
    colours = [len(np.unique(cell, axis=0)) for cell in cells]
    assert colours == [3, 2, 2, 2, 3, 2, 2, 2, 2], "the grid and the ground, and a stone in two cells"


def test_agents_are_named_after_their_groups():
    assert agent_ids(TicTacToe().groups) == ("player_0", "player_1")
    assert agent_ids(Copies(CartPole(), 1).groups) == ("agent",)

"""The compiled games of many agents: answers worked out by hand, and what holds for all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import athlete
from athlete.core import agent_ids
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.multi_agent import make_game
from athlete.env.games.multi_agent.arena import FIRST, SECOND, VISITED, MultiAgentArena
from athlete.env.games.multi_agent.connect_four import COLOURS, ConnectFour, has_four
from athlete.env.games.multi_agent.matrix_game import climbing_game, penalty_game, team_game
from athlete.env.games.multi_agent.players import (
    as_heuristic,
    beat_last,
    connect_four_minimax,
    perfect_tic_tac_toe,
    random_legal,
    tic_tac_toe_values,
)
from athlete.env.games.multi_agent.rock_paper_scissors import RockPaperScissors
from athlete.env.games.multi_agent.spread import Spread
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
    assert state.board.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


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


# Matrix games


def payoffs(game, actions):
    return {pair: play(game, [{"agent": list(pair)}])[1][0].reward["agent"].tolist() for pair in actions}


def test_the_climbing_game_pays_its_table_to_both_together():
    found = payoffs(climbing_game(), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 0)])
    assert {pair: sum(each) for pair, each in found.items()} == {
        (0, 0): 11, (0, 1): -30, (1, 1): 7, (1, 2): 6, (2, 2): 5, (2, 0): 0,
    }  # fmt: skip
    assert found[0, 0] == [5.5, 5.5]


def test_the_penalty_of_the_penalty_game_is_a_setting():
    found = payoffs(penalty_game(k=-50), [(0, 0), (0, 2), (1, 1), (2, 0), (2, 2), (0, 1)])
    assert [sum(each) for each in found.values()] == [10, -50, 2, -50, 10, 0]
    assert make_game("PenaltyGame-v0", {"k": -8}).payoff[0, 0, 2] == -4


def test_a_matrix_game_has_any_payoff_for_each_agent_and_any_number_of_rounds():
    dilemma = make_game("MatrixGame-v0", {"payoff": [[[3, 0], [5, 1]], [[3, 5], [0, 1]]], "rounds": 2})
    assert payoffs(dilemma, [(0, 1), (1, 1)]) == {(0, 1): [0, 5], (1, 1): [1, 1]}
    _, steps = play(dilemma, [{"agent": [0, 0]}] * 2)
    assert [bool(step.all_terminated) for step in steps] == [False, True]
    assert steps[0].obs["agent"].tolist() == [0, 1]
    three = team_game(np.arange(8.0).reshape(2, 2, 2))
    np.testing.assert_allclose(payoffs(three, [(1, 0, 1)])[1, 0, 1], [5 / 3] * 3)
    with pytest.raises(ValueError, match=r"the payoff has the shape \(2, 2\); expected \[n, k, ..., k\]"):
        make_game("MatrixGame-v0", {"payoff": [[1, 2], [3, 4]]})


# Rock-paper-scissors


def test_each_move_of_rock_paper_scissors_beats_half_of_the_others():
    beaten = {0: {2, 3}, 1: {0, 4}, 2: {1, 3}, 3: {1, 4}, 4: {0, 2}}  # as RLlib's WIN_MATRIX says it
    game = RockPaperScissors(sheldon_cooper_mode=True)
    pairs = [(first, second) for first in range(5) for second in range(5)]
    state, _, _ = game.reset(KEYS[0])
    found = jax.jit(jax.vmap(lambda moves: game.step(state, {"player": moves}, KEYS[0])[1].reward["player"]))
    gains = [0 if first == second else 1 if second in beaten[first] else -1 for first, second in pairs]
    assert found(jnp.array(pairs)).tolist() == [[gain, -gain] for gain in gains]


def test_rock_paper_scissors_shows_the_others_last_move_for_ten_rounds():
    _, steps = play(RockPaperScissors(), [{"player": [t % 3, 2]} for t in range(10)])
    assert [step.obs["player"].tolist() for step in steps] == [[2, t % 3] for t in range(10)]
    assert [bool(step.all_terminated) for step in steps] == [False] * 9 + [True]
    assert RockPaperScissors().reset(KEYS[0])[1]["player"].tolist() == [0, 0]


# Spread, which test_spread.py holds to mpe2 itself


def spread_at(positions, landmarks, **settings):
    game = Spread(num_agents=len(positions), **settings)
    state, _, _ = game.reset(KEYS[0])
    return game, state._replace(position=jnp.array(positions), landmarks=jnp.array(landmarks))


def test_agents_of_spread_move_with_the_velocity_from_before_the_step():
    game, state = spread_at([[0.0, 0.0]], [[1.0, 0.0]])
    right = {"agent": jnp.array([2])}
    state, first = game.step(state, right, KEYS[0])
    state, second = game.step(state, right, KEYS[0])
    # The full action accelerates by 5 for 0.1 seconds; a quarter of the velocity is lost in each step.
    np.testing.assert_allclose(first.obs["agent"], [[0.5, 0.0, 0.0, 0.0, 1.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(second.obs["agent"], [[0.875, 0.0, 0.05, 0.0, 0.95, 0.0]], atol=1e-6)
    np.testing.assert_allclose([first.reward["agent"], second.reward["agent"]], [[-0.5], [-0.475]], atol=1e-6)


def test_spread_pays_for_landmarks_that_are_near_to_somebody_and_not_for_touching():
    places, landmarks = [[0.0, 0.0], [0.2, 0.0], [-1.0, 0.0]], [[0.0, 0.5], [-1.0, 0.3], [0.2, 0.1]]
    covering = -(0.5 + 0.3 + 0.1)
    for local_ratio in (0.0, 0.25, 1.0):
        game, state = spread_at(places, landmarks, local_ratio=local_ratio)
        _, step = game.step(state, {"agent": jnp.zeros(3, jnp.int32)}, KEYS[0])
        touching = np.array([-1.0, -1.0, 0.0])  # the first two are nearer than 0.3
        expected = (1 - local_ratio) * covering + local_ratio * touching
        np.testing.assert_allclose(step.reward["agent"], expected, atol=1e-6)
    assert step.obs["agent"][0, 0] < 0 < step.obs["agent"][1, 0], "they push each other apart"
    assert step.obs["agent"][2, 0] == 0


def test_random_agents_of_spread_get_what_its_docstring_tells():
    game = Spread()

    def one_step(carry, key):
        state, total = carry
        action = {"agent": jax.random.randint(key, (3,), 0, 5)}
        state, step = game.step(state, action, key)
        return (state, total + jnp.sum(step.reward["agent"])), None

    def episode(key):
        start = (game.reset(key)[0], jnp.zeros(()))
        return jax.lax.scan(one_step, start, jax.random.split(key, 25))[0][1]

    returns = jax.jit(jax.vmap(episode))(jax.random.split(KEYS[0], 4000))
    assert float(jnp.mean(returns)) == pytest.approx(-78, abs=3)


# The arena


UP, RIGHT, DOWN, LEFT = range(4)


def arena_moves(pairs):
    return [{"agent1": [first], "agent2": [second]} for first, second in pairs]


def test_the_arena_pays_for_new_cells_and_collisions():
    game = MultiAgentArena(width=3, height=2)
    state, steps = play(game, arena_moves([(RIGHT, UP), (LEFT, UP), (UP, LEFT), (RIGHT, DOWN)]))
    # agent1: a new cell, the old one, against the wall, an old one; agent2: (0, 2), the wall, (0, 1), (1, 1).
    assert [step.reward["agent1"].tolist() for step in steps] == [[1.0], [-0.5], [-0.5], [-0.5]]
    np.testing.assert_allclose([step.reward["agent2"] for step in steps], [[-0.1]] * 4)
    assert [step.obs["agent1"].tolist() for step in steps] == [[[1, 2]], [[0, 2]], [[0, 1]], [[1, 4]]]
    assert [step.obs["agent2"].tolist() for step in steps] == [[[2, 1]], [[2, 0]], [[1, 0]], [[4, 1]]]
    assert state.visited.tolist() == [[True, True, False], [False, False, False]]


def test_who_runs_into_the_other_stays_and_both_ways_are_a_collision():
    game = MultiAgentArena(width=3, height=1)
    # agent2 moves to the middle and blocks agent1; then it runs into agent1 itself, which walks against the wall.
    _, steps = play(game, arena_moves([(RIGHT, LEFT), (LEFT, LEFT), (LEFT, RIGHT)]))
    assert [step.reward["agent1"][0] for step in steps] == [-1.0, -1.0, -0.5]
    np.testing.assert_allclose([step.reward["agent2"][0] for step in steps], [1.0, 1.0, -0.1])
    assert [step.obs["agent1"].tolist() for step in steps] == [[[0, 1]], [[0, 1]], [[0, 2]]]


def test_the_arena_is_cut_at_its_limit_and_drawn():
    game = MultiAgentArena(timestep_limit=3)
    state, steps = play(game, arena_moves([(DOWN, UP)] * 3))
    assert [bool(step.all_truncated) for step in steps] == [False, False, True]
    picture = game.render(state)
    assert picture.shape == (240, 240, 3) and picture.dtype == np.uint8
    cells = picture[12::24, 12::24]  # the middle of each
    assert len(np.unique(cells.reshape(-1, 3), axis=0)) == 4, "ground, visited, and two agents"
    assert tuple(cells[3, 0]) == FIRST and tuple(cells[6, 9]) == SECOND and tuple(cells[1, 0]) == VISITED
    assert agent_ids(game.groups) == ("agent1", "agent2")


# Connect four


def in_columns(columns):
    return [{"player": [column, 0] if t % 2 == 0 else [0, column]} for t, column in enumerate(columns)]


@pytest.mark.parametrize(
    "columns",
    [
        [0, 0, 1, 1, 2, 2, 3],  # a row
        [6, 5, 6, 5, 6, 5, 6],  # a column
        [0, 1, 1, 2, 2, 3, 2, 3, 3, 6, 3],  # a diagonal upwards
        [6, 5, 5, 4, 4, 3, 4, 3, 3, 0, 3],  # one downwards
    ],
)
def test_four_in_a_line_win_connect_four(columns):
    _, steps = play(ConnectFour(), in_columns(columns))
    assert [bool(step.all_terminated) for step in steps] == [False] * (len(columns) - 1) + [True]
    assert steps[-1].reward["player"].tolist() == [1, -1] and all(
        (step.reward["player"] == 0).all() for step in steps[:-1]
    )
    assert steps[-1].terminated["player"].all() and not steps[-1].acting["player"].any()


def test_the_second_player_wins_connect_four_too():
    _, steps = play(ConnectFour(), in_columns([6, 0, 6, 1, 5, 2, 5, 3]))
    assert steps[-1].all_terminated and steps[-1].reward["player"].tolist() == [-1, 1]


def test_lines_of_connect_four_are_found_everywhere_and_nothing_else():
    """Against all 69 lines of four cells, one by one, and boards at random."""
    lines = [
        [(row + i * down, column + i * right) for i in range(4)]
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1))
        for row in range(6)
        for column in range(7)
        if 0 <= row + 3 * down < 6 and 0 <= column + 3 * right < 7
    ]
    boards = np.zeros((69, 6, 7), bool)
    for board, line in zip(boards, lines, strict=True):
        board[tuple(zip(*line, strict=True))] = True
    found = jax.jit(jax.vmap(has_four))
    assert found(jnp.asarray(boards)).all()
    drawn = np.random.default_rng(0).random((400, 6, 7)) < 0.45
    expected = [any(all(board[cell] for cell in line) for line in lines) for board in drawn]
    assert found(jnp.asarray(drawn)).tolist() == expected and 0 < sum(expected) < 400


def test_columns_of_connect_four_fill_up():
    state, steps = play(ConnectFour(), in_columns([3] * 6))
    assert state.board[:, 3].tolist() == [2, 1, 2, 1, 2, 1]
    obs = steps[-1].obs["player"]
    assert obs["action_mask"].tolist() == [[1, 1, 1, 0, 1, 1, 1]] * 2
    assert obs["observations"][0, :, 3, 0].tolist() == [0, 1, 0, 1, 0, 1] == obs["observations"][1, :, 3, 1].tolist()
    _, steps = play(ConnectFour(), in_columns([3] * 7))
    assert steps[-1].all_terminated and steps[-1].reward["player"].tolist() == [-1, 1], "a stone too many loses"


def test_a_picture_of_connect_four_has_the_stones_in_their_cells():
    state, _ = play(ConnectFour(), in_columns([0, 6]))
    picture = ConnectFour().render(state)
    assert picture.shape == (192, 224, 3) and picture.dtype == np.uint8
    middles = picture[16::32, 16::32]
    stones = [[int(cell) for cell in np.argwhere((middles == colour).all(axis=-1)).ravel()] for colour in COLOURS[1:]]
    assert stones == [[5, 0], [5, 6]]


# Players and whole games at random


def match(game, players, games, seed=0, most=42):
    """The steps of `games` games, `[games, T, ...]`, of two players; whether each is over before, and the states."""

    def one_step(carry, key):
        state, obs, over = carry
        *keys, step_key = jax.random.split(key, 3)
        seen = [jax.tree.map(lambda leaf, seat=seat: leaf[:, seat], obs["player"]) for seat in range(2)]
        moves = jnp.stack([as_heuristic(player)(seen[i], keys[i]) for i, player in enumerate(players)], axis=1)
        new, step = jax.vmap(game.step)(state, {"player": moves}, jax.random.split(step_key, games))
        return (new, step.obs, over | step.all_terminated), (step, over, state)

    @jax.jit
    def play_all(key):
        reset_key, key = jax.random.split(key)
        state, obs, _ = jax.vmap(game.reset)(jax.random.split(reset_key, games))
        begin = (state, obs, jnp.zeros(games, bool))
        return jax.lax.scan(one_step, begin, jax.random.split(key, most))[1]

    by_step = play_all(wrap(np.array([1, seed], np.uint32)))
    return jax.device_get(jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), by_step))


def outcomes(game, players, games, seed=0, most=42):
    """How the first player's games ended: the shares won, drawn and lost."""
    step, over, _ = match(game, players, games, seed, most)
    result = np.sum(np.where(over, 0, step.reward["player"][..., 0]), axis=1)
    return tuple(float(np.mean(result == value)) for value in (1, 0, -1))


@pytest.mark.parametrize(("game", "most"), [(TicTacToe(), 9), (ConnectFour(), 42)], ids=["tic-tac-toe", "connect four"])
def test_games_at_random_keep_the_rules(game, most):
    step, over, state = match(game, (random_legal, random_legal), 200, most=most)
    lasts = ~over  # steps that belong to a game
    ends = step.all_terminated & lasts
    assert (ends.sum(axis=1) == 1).all(), "each game ends once"
    acting = step.acting["player"]
    assert (acting.sum(axis=-1) == 1)[lasts & ~ends].all(), "exactly one player acts until the end"
    assert not acting[ends].any() and step.terminated["player"][ends].all()
    turns = np.argmax(acting, axis=-1)
    assert (turns[:, ::2][(lasts & ~ends)[:, ::2]] == 1).all() and (turns[:, 1::2][(lasts & ~ends)[:, 1::2]] == 0).all()
    board = state.board.reshape(*state.board.shape[:2], -1)
    stones = (board > 0).sum(axis=-1)
    assert (stones == np.arange(most))[lasts].all(), "every step places a stone: no move was illegal"
    rewards = step.reward["player"]
    assert (rewards.sum(axis=-1) == 0).all() and (rewards[lasts & ~ends] == 0).all()
    assert set(np.abs(rewards[ends]).ravel()) == {0, 1} or most == 42
    assert outcomes(game, (random_legal, random_legal), 200, most=most)[0] > 0.4


def test_the_table_of_tic_tac_toe_is_what_minimax_says():
    @functools.cache
    def minimax(board):
        if any(all(board[cell] == 2 for cell in line) for line in LINES):
            return -1
        moves = [cell for cell in range(9) if board[cell] == 0]
        if not moves:
            return 0
        return max(-minimax(tuple((0, 2, 1)[stone] for stone in (*board[:c], 1, *board[c + 1 :]))) for c in moves)

    values = tic_tac_toe_values()
    assert minimax((0,) * 9) == 0 == values[0]
    assert minimax.cache_info().currsize > 4000
    generator = np.random.default_rng(0)
    for _ in range(500):
        board, stones = [0] * 9, generator.integers(1, 9)
        for t, cell in enumerate(generator.permutation(9)[:stones]):
            board[cell] = 1 + (stones - t) % 2  # the mover's stones are as many as the other's, or one fewer
        if any(all(board[cell] == 1 for cell in line) for line in LINES):
            continue  # no game reaches it
        assert values[int(np.dot(board, 3 ** np.arange(9)))] == minimax(tuple(board))


def test_a_perfect_player_of_tic_tac_toe_never_loses_and_two_of_them_draw():
    assert outcomes(TicTacToe(), (perfect_tic_tac_toe, perfect_tic_tac_toe), 300, most=9) == (0, 1, 0)
    first = outcomes(TicTacToe(), (perfect_tic_tac_toe, random_legal), 2000, most=9)
    second = outcomes(TicTacToe(), (random_legal, perfect_tic_tac_toe), 2000, most=9)
    assert first[2] == 0 == second[0]
    # By dynamic programming over minimax moves at random: 0.8726 of games won over both seats.
    assert (first[0] + second[2]) / 2 == pytest.approx(0.8726, abs=0.02)


@pytest.mark.parametrize(("safely", "wins"), [(False, 0.967), (True, 0.956)])
def test_the_best_against_random_that_the_docstring_tells(safely, wins):
    """By dynamic programming over boards as who moves sees them: 1 its stones, 2 the other's."""
    values = tic_tac_toe_values()

    def moves(board):
        return [
            tuple((0, 2, 1)[stone] for stone in (*board[:cell], 1, *board[cell + 1 :]))
            for cell in range(9)
            if board[cell] == 0
        ]

    def worth(board):
        return values[int(np.dot(board, 3 ** np.arange(9)))]

    def has_line(board, stone):
        return any(all(board[cell] == stone for cell in line) for line in LINES)

    @functools.cache
    def best(board):
        """The share of games won, and of those not lost, by who moves and plays on as well as can be."""
        if has_line(board, 2) or 0 not in board:
            return 0.0, float(not has_line(board, 2))
        after = moves(board)
        good = [each for each in after if not safely or worth(each) == min(map(worth, after))]
        return max(answered(each) for each in good)

    @functools.cache
    def answered(board):
        """The same for the other, where who moves does so at random."""
        if has_line(board, 2) or 0 not in board:
            return float(has_line(board, 2)), 1.0
        return tuple(np.mean([best(each) for each in moves(board)], axis=0).tolist())

    empty = (0,) * 9
    assert (best(empty)[0] + answered(empty)[0]) / 2 == pytest.approx(wins, abs=0.0005)


def test_minimax_of_connect_four_takes_a_win_and_blocks_one():
    def move(columns, depth):
        _, steps = play(ConnectFour(), in_columns(columns))
        seen = jax.tree.map(lambda leaf: np.repeat(leaf[[len(columns) % 2]], 200, axis=0), steps[-1].obs["player"])
        player = jax.jit(as_heuristic(functools.partial(connect_four_minimax, depth=depth)))
        return set(np.asarray(player(seen, KEYS[0])).tolist())

    assert move([0, 6, 0, 6, 0, 6], 1) == {0}, "its own fourth"
    assert move([0, 6, 0, 5, 0], 2) == {0}, "the other's fourth"
    assert move([0, 6, 0, 5, 0], 1) == set(range(7)), "which one move ahead does not see"
    # Two open ends in the lowest row: three moves ahead it sees its own win.
    assert move([2, 2, 3, 3], 3) <= {1, 4} and len(move([2, 2, 3, 3], 2)) == 7


def test_minimax_of_connect_four_goes_on_to_the_last_cells():
    # A full board without four in a line, of which the tops of two columns are taken away.
    board = np.array([[1, 1, 2, 2, 1, 1, 2], [2, 2, 1, 1, 2, 2, 1]] * 3)
    board[2:4] = board[2:4, ::-1]
    board[0, [1, 4]] = 0
    assert not any(bool(has_four(jnp.asarray(board == stone))) for stone in (1, 2))
    planes = np.stack([board == 1, board == 2], axis=-1).astype(np.float32)
    obs = {"observations": planes, "action_mask": (board[0] == 0).astype(np.int8)}
    rows = jax.tree.map(lambda leaf: np.repeat(leaf[None], 100, axis=0), obs)
    for depth in (1, 2, 3):
        player = jax.jit(as_heuristic(functools.partial(connect_four_minimax, depth=depth)))
        assert set(np.asarray(player(rows, KEYS[0])).tolist()) <= {1, 4}


def test_minimax_of_connect_four_wins_against_random():
    two = functools.partial(connect_four_minimax, depth=2)
    assert outcomes(ConnectFour(), (two, random_legal), 200)[0] > 0.95
    assert outcomes(ConnectFour(), (random_legal, two), 200)[2] > 0.9


def test_beat_last_beats_who_repeats_himself():
    assert beat_last(jnp.arange(3), KEYS[0]).tolist() == [1, 2, 0]

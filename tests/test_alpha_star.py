"""The league: who plays whom, what counts as a win, who becomes a past player, and that all of it learns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import assert_modes_are_equal, assert_resumes

from athlete import Policy
from athlete.algorithms import AlphaStarConfig
from athlete.algorithms.alpha_star import Scores, win_rates
from athlete.core import Spec, Transition
from athlete.env.games.multi_agent.rock_paper_scissors import RockPaperScissors
from athlete.env.games.multi_agent.tic_tac_toe import TicTacToe
from athlete.env.multi_agent import JointEnv
from athlete.loops.collect import spec_of
from athlete.ops.random import wrap

KEY = wrap(np.array([0, 5], np.uint32))
SPEC = spec_of(JointEnv(TicTacToe()))
MAIN, MAIN_EXPLOITER, LEAGUE_EXPLOITER, PRESENT = 0, 1, 2, 8


def config_of(**settings):
    config = AlphaStarConfig().environment("TicTacToe-v0").rollouts(num_envs_per_worker=12).debugging(seed=2)
    config.training(train_batch_size=12 * 16, minibatch_size=32, num_epochs=1, gamma=1.0, num_matches=2)
    config.training(model={"fcnet_hiddens": [4], "conv_filters": []}, max_snapshots=8)
    return config.training(min_trajectories_per_snapshot=1, max_trajectories_per_snapshot=3).training(**settings)


@pytest.fixture(scope="module")
def league():
    return config_of().make_agent(SPEC)


@pytest.fixture(scope="module")
def state(league):
    """Four past players: the first main agent, a later one, and one of each exploiter."""
    state = league.init(KEY)
    maker = jnp.array([MAIN, MAIN, MAIN_EXPLOITER, LEAGUE_EXPLOITER, -1, -1, -1, -1])
    return state._replace(maker=maker, games=state.games + 99.0, points=state.points + 49.5)


def with_rates(state, learner, rates):
    """Where a learner wins so often against opponents; 99 games against each, and one that is drawn."""
    points = state.points
    for opponent, rate in rates.items():
        points = points.at[learner, opponent].set(100 * rate - 0.5)
    return state._replace(points=points)


# Win rates


def test_win_rates_count_draws_as_half_and_begin_at_one_half(state):
    assert win_rates(state).min() == win_rates(state).max() == 0.5
    fresh = state._replace(games=state.games * 0, points=state.points * 0)
    assert (win_rates(fresh) == 0.5).all()


def trajectory(first, reward, over):
    first, reward, over = np.array(first, bool), np.array(reward, np.float32), np.array(over, bool)
    return Transition((), first, (), jnp.stack([reward, -reward], axis=-1), (), over, ~over & False, (), ())


def test_only_episodes_that_end_against_the_opponent_they_began_with_count(league):
    """Rows are main, main exploiter and league exploiter against their first opponents, then against their second."""
    columns = {  # [first, reward, over] of three steps
        0: ([1, 0, 0], [0, 0, 1], [0, 0, 1]),  # won
        1: ([1, 0, 1], [-1, 0, 0], [0, 1, 1]),  # lost, then drawn
        2: ([0, 0, 1], [5, 1, -1], [0, 1, 0]),  # its first episode began against another
        3: ([0, 0, 0], [0, 0, 1], [0, 0, 1]),  # won: the rewards before the trajectory add up to 1 more
        4: ([0, 0, 0], [0, 0, 0], [0, 0, 0]),  # goes on
        5: ([0, 0, 0], [1, 0, 1], [0, 0, 1]),  # drawn: it was 4 behind
    }
    first, reward, over = (np.array([columns[row][i] for row in range(6)]).T for i in range(3))
    before = Scores(jnp.array([9.0, 9, 9, 1, 3, -4]), jnp.array([True, True, False, True, True, True]))
    scores, points, games = league._results(before, trajectory(first, reward, over))
    assert points.tolist() == [[1, 1], [0.5, 0], [0, 0.5]]
    assert games.tolist() == [[1, 1], [2, 0], [0, 1]]
    assert scores.margin.tolist() == [2, 0, -2, 3, 3, 0] and scores.counts.all()


def test_games_are_noted_for_the_opponents_that_they_were_against_and_forgotten_by_one_percent_each(league, state):
    state = state._replace(opponent=jnp.array([[1, 3], [PRESENT, PRESENT], [0, 2]]))
    points, games = jnp.array([[2.0, 0], [1, 1], [0, 0]]), jnp.array([[2.0, 1], [3, 1], [0, 0]])
    after = league._recorded(state, points, games)
    assert after.games[MAIN, 1] == pytest.approx(99 * 0.99**2 + 2)
    assert after.points[MAIN, 1] == pytest.approx(49.5 * 0.99**2 + 2)
    assert after.points[MAIN, 3] == pytest.approx(49.5 * 0.99)
    assert after.games[MAIN_EXPLOITER, PRESENT] == pytest.approx(99 * 0.99**4 + 4)
    assert (after.games[LEAGUE_EXPLOITER] == 99).all() and after.played.tolist() == games.tolist()


# Who meets whom


def weights_of(league, state, number=2000):
    """Of each learner the mean of its normalised weights over many draws of coins `[L, P + 1]`."""

    def one(key):
        weights = league._weights(state, key)
        return (weights / weights.sum(axis=-1, keepdims=True)).mean(axis=1)

    return np.asarray(jax.vmap(one)(jax.random.split(KEY, number)).mean(axis=0))


def test_the_main_agent_plays_half_of_its_games_against_the_past_and_the_hardest_of_it_most(league, state):
    state = with_rates(state, MAIN, {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.6})
    weights = weights_of(league, state)[MAIN]
    hard = np.array([0.01, 0.04, 0.09, 0.16])
    np.testing.assert_allclose(weights[:4], 0.5 * hard / hard.sum(), atol=0.02)
    assert weights[4:8].max() < 1e-4 and weights[PRESENT] == pytest.approx(0.5, abs=0.03), "it has forgotten nobody"


def test_the_main_agent_plays_more_against_whom_it_has_forgotten_and_who_exploits_it(league, state):
    state = with_rates(state, MAIN, {0: 0.6, 1: 0.9, 2: 0.2, 3: 0.4})
    weights = weights_of(league, state)[MAIN]
    hard = np.array([0.16, 0.01, 0.64, 0.36])
    lost = np.array([0.16, 0.0, 0.64, 0.0])
    expected = 0.5 * hard / hard.sum() + 0.15 * lost / lost.sum()
    np.testing.assert_allclose(weights[:4], expected, atol=0.03)
    assert weights[PRESENT] == pytest.approx(0.35, abs=0.03)


def test_a_main_exploiter_plays_the_present_main_agent_unless_that_is_far_too_strong(league, state):
    assert weights_of(league, state, 1)[MAIN_EXPLOITER][PRESENT] == pytest.approx(1.0, abs=1e-4)
    state = with_rates(state, MAIN_EXPLOITER, {PRESENT: 0.05, 0: 0.5, 1: 0.1})
    weights = weights_of(league, state, 1)[MAIN_EXPLOITER]
    even = np.array([0.25, 0.09])
    np.testing.assert_allclose(weights[:2], even / even.sum(), atol=1e-3)
    assert weights[2:].max() < 1e-4


def test_a_league_exploiter_plays_all_of_the_past(league, state):
    state = with_rates(state, LEAGUE_EXPLOITER, {0: 0.1, 1: 0.4, 2: 0.6, 3: 0.9})
    weights = weights_of(league, state, 1)[LEAGUE_EXPLOITER]
    capped = np.array([0.5, 0.5, 0.4, 0.1])
    np.testing.assert_allclose(weights[:4], capped / capped.sum(), atol=1e-3)


def test_opponents_are_drawn_as_often_as_their_weights_say_in_every_match(league, state):
    state = with_rates(state, MAIN, {0: 0.6, 1: 0.7, 2: 0.8, 3: 0.7})._replace(played=state.played + 2)
    keys = jax.random.split(KEY, 4000)
    drawn = np.asarray(jax.vmap(lambda key: league._with_opponents(state, 12, key)[0].opponent)(keys))
    expected = weights_of(league, state)
    for learner, match in np.ndindex(3, 2):
        found = np.bincount(drawn[:, learner, match], minlength=9) / len(keys)
        np.testing.assert_allclose(found, expected[learner], atol=0.035, err_msg=f"learner {learner}, match {match}")


def test_the_next_opponent_comes_when_each_environment_has_played_a_game_against_the_last_one(league, state):
    """Of 12 environments each of the 6 matches has two."""
    played = jnp.array([[1.0, 2.0], [0.0, jnp.inf], [3.0, 1.9]])
    before = state._replace(played=played, opponent=jnp.full((3, 2), 7))  # nobody has this place
    after, ends = league._with_opponents(before, 12, KEY)
    assert after.played.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.0, pytest.approx(1.9)]]
    assert (after.opponent != 7).tolist() == [[False, True], [False, True], [True, False]]
    assert ends.tolist() == [False, False, True, True, True, False] * 2, "match by match, and in each all learners"


def test_an_episode_in_which_the_opponent_changes_counts_for_nobody(league, state):
    trajectory_of = jax.jit(lambda view, carry, obs, first: league.act(view, carry, obs, first, KEY))
    state = state._replace(played=jnp.array([[9.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    view = league.view(state, jnp.zeros(()))
    carry, first = league.start(view, 12, KEY), jnp.ones(12, bool)
    obs = jax.vmap(JointEnv(TicTacToe()).reset)(jax.random.split(KEY, 12))[1]
    action, _, extras = trajectory_of(view, carry, obs, first)
    steps = Transition(obs, first, action, jnp.zeros((12, 2)), obs, first & False, first & False, carry, extras)
    steps = jax.tree.map(lambda leaf: jnp.stack([leaf] * 16), steps)
    store = league.memory.init(jax.tree.map(lambda leaf: leaf[0, 0], steps), 12)
    _, _, after, _ = jax.jit(league.learn)(state, store, league.accumulators(12), steps, KEY, jnp.zeros(()))
    assert after["scores"].counts.tolist() == [False, *[True] * 5] * 2, "rows of the main agent's first match"


# Who becomes a past player


def snapshot(league, state, learner, key=KEY):
    views = league.learners.view(state.learners, jnp.zeros(()))
    return league._with_snapshot(state, learner, views, key)


@pytest.mark.parametrize(
    ("rates", "age", "ready"),
    [
        ({0: 0.8, 1: 0.8, 2: 0.8, 3: 0.8}, 1, True),
        ({0: 0.8, 1: 0.8, 2: 0.6, 3: 0.8}, 1, False),  # one that it does not beat
        ({0: 0.8, 1: 0.8, 2: 0.8, 3: 0.8}, 0, False),  # too early
        ({}, 3, True),  # in the end even so
    ],
)
def test_a_learner_becomes_a_past_player_when_it_beats_all_others_or_after_so_long(league, state, rates, age, ready):
    before = with_rates(state, MAIN, rates)._replace(age=state.age + age)
    after = snapshot(league, before, MAIN)
    assert (after.maker[4] == MAIN) == ready and after.age[MAIN] == (0 if ready else age)
    assert (after.maker[:4] == before.maker[:4]).all() and after.age[LEAGUE_EXPLOITER] == age
    now = league.learners.view(state.learners, jnp.zeros(()))
    same = jax.tree.map(lambda past, present: bool((past[4] == present[MAIN]).all()), after.past, now)
    assert all(jax.tree.leaves(same)) or not ready
    assert (after.games[:, 4] == 0).all() == ready


def test_a_main_exploiter_is_for_the_present_main_agent_alone_and_begins_anew(league, state):
    state = with_rates(state, MAIN_EXPLOITER, {PRESENT: 0.8})._replace(age=state.age + 1)
    after = snapshot(league, state, MAIN_EXPLOITER)
    assert after.maker[4] == MAIN_EXPLOITER and (after.games[MAIN_EXPLOITER] == 0).all()
    jax.tree.map(
        lambda now, first: np.testing.assert_array_equal(now[MAIN_EXPLOITER], first), after.learners, state.beginner
    )
    jax.tree.map(lambda now, then: np.testing.assert_array_equal(now[MAIN], then[MAIN]), after.learners, state.learners)


def test_a_league_exploiter_begins_anew_in_a_quarter_of_the_cases(league, state):
    state = state._replace(age=state.age + 3)
    ready = jax.jit(lambda key: snapshot(league, state, LEAGUE_EXPLOITER, key).games[LEAGUE_EXPLOITER].sum() == 0)
    anew = [bool(ready(key)) for key in jax.random.split(KEY, 200)]
    assert np.mean(anew) == pytest.approx(0.25, abs=0.1)


def test_where_there_is_no_place_the_one_that_all_beat_makes_room_and_matches_against_it_end(league, state):
    full = state._replace(maker=jnp.array([0, 0, 1, 2, 0, 0, 1, 2]), age=state.age + 3)
    for learner in range(3):
        full = with_rates(full, learner, {5: 0.9})
    full = full._replace(opponent=jnp.array([[5, 1], [2, PRESENT], [5, 5]]))
    after = snapshot(league, full, LEAGUE_EXPLOITER)
    assert after.maker.tolist() == [0, 0, 1, 2, 0, LEAGUE_EXPLOITER, 1, 2]
    assert np.isinf(after.played).tolist() == [[True, False], [False, False], [True, True]]


# In a training


def test_every_learner_learns_from_its_own_rows():
    """As PPO alone does from these rows."""
    league = config_of().make_agent(SPEC)
    learners, agent = league.learners, league.agent
    keys = jax.random.split(KEY, 4)
    state = learners.init(keys[0])
    view = learners.view(state, jnp.zeros(()))
    obs = {
        "observations": jax.random.bernoulli(keys[1], 0.3, (4, 6, 3, 3, 2)).astype(jnp.float32),
        "action_mask": jnp.ones((4, 6, 9), jnp.int8),
    }
    flags = jnp.zeros((4, 6), bool)

    carry = learners.start(view, 6, keys[1])

    def act(obs):
        return learners.act(view, carry, obs, flags[0], keys[2])

    action, _, extras = jax.vmap(act)(obs)
    reward = jax.random.normal(keys[3], (4, 6))
    batch = Transition(obs, flags, action, reward, obs, flags, flags, carry, extras)
    after, _ = jax.jit(learners.update)(state, batch, keys[0], jnp.zeros(()))
    for number, key in enumerate(jax.random.split(keys[0], 3)):
        own = jax.tree.map(lambda leaf, number=number: leaf[:, number::3], batch)
        alone = jax.tree.map(lambda leaf, number=number: leaf[number], state)
        expected, _ = jax.jit(agent.update)(alone, own, key, jnp.zeros(()))
        jax.tree.map(
            lambda got, want, number=number: np.testing.assert_allclose(got[number], want, atol=1e-5), after, expected
        )


def test_players_sit_where_the_league_says():
    """Rock, paper, scissors: a view is the move that it makes."""
    league = config_of().make_agent(SPEC)
    state = league.init(KEY)._replace(opponent=jnp.array([[0, 1], [PRESENT, 2], [3, PRESENT]]))
    marked = jax.tree.map(
        lambda leaf: jnp.broadcast_to(jnp.arange(8).reshape(-1, *[1] * (leaf.ndim - 1)), leaf.shape), state.past
    )
    view = league.view(state._replace(past=marked), jnp.zeros(()))
    first = [float(leaf.ravel()[0]) for leaf in [jax.tree.leaves(view["learners"])[0]]]
    numbers = np.asarray(jax.tree.leaves(view["opponents"])[0]).reshape(6, -1)[:, 0]
    # Match by match: main, main exploiter, league exploiter against their first opponents, then their second ones.
    assert numbers.tolist() == pytest.approx([0, first[0], 3, 1, 2, first[0]])


def test_a_league_grows_and_tells_of_it():
    with config_of().build() as algo:
        for _ in range(3):
            result = algo.train()
        stats = result["info"]["learner"]["default_policy"]["learner_stats"]
        assert stats["snapshots"] >= 4 and 0 < stats["main/win_rate"] < 1 and np.isfinite(stats["policy_loss"])
        assert {"main_exploiter_0/win_rate", "league_exploiter_0/win_rate", "entropy"} < set(stats)
        found = algo.evaluate_matches(4, {"dull": "random"})
        assert {"main", "main_exploiter_0", "league_exploiter_0", "main_v0", "main_v1", "dull"} <= set(found.names)
        assert len(found.names) == 3 + stats["snapshots"] + 1
        obs = {"observations": np.zeros((3, 3, 2), np.float32), "action_mask": np.ones(9, np.int8)}
        assert 0 <= algo.compute_single_action(obs, policy_id="main_v0") < 9
        assert algo.evaluate(5)["evaluation"]["episodes_this_iter"] == 5


def test_a_player_of_a_league_is_read_alone_from_its_checkpoint(tmp_path):
    obs = {"observations": np.random.default_rng(0).random((3, 3, 2), np.float32), "action_mask": np.ones(9, np.int8)}
    with config_of().build() as algo:
        for _ in range(3):
            algo.train()
        path = algo.save(tmp_path)
        for name in ("main", "league_exploiter_0", "main_v1"):
            alone, there = Policy.from_checkpoint(path, name), algo.get_policy(name)
            jax.tree.map(np.testing.assert_array_equal, alone.view, there.view)
            assert alone.compute_single_action(obs)[0] == there.compute_single_action(obs)[0]
        jax.tree.map(np.testing.assert_array_equal, Policy.from_checkpoint(path).view, algo.get_policy().view)
    with pytest.raises(ValueError, match=r"from_checkpoint: there is no policy 'mian'; there are 'main', .*'main_v0'"):
        Policy.from_checkpoint(path, "mian")


def test_a_league_resumes_exactly(tmp_path):
    assert_resumes(config_of(), tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("game", [TicTacToe(), RockPaperScissors()], ids=["turns", "at once"])
def test_compiled_and_hosted_leagues_are_equal(game):
    env = JointEnv(game)
    assert_modes_are_equal(env, config_of().make_agent(spec_of(env)), rows=12, length=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"num_matches": 5},
            "12 environments cannot be shared among 15 matches, 5 for each of 3 learners; make num_envs_per_worker a "
            "multiple of 15",
        ),
        ({"num_matchs": 5}, "AlphaStar has no 'num_matchs'; did you mean 'num_matches'"),
        ({"lambd": 5}, "AlphaStar has no 'lambd'; did you mean 'lambda_'"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config_of(**change).build()


def test_games_of_others_than_two_are_refused():
    with pytest.raises(ValueError, match=r"AlphaStar learns games of two agents .* this environment has 3 of 'agent'"):
        config_of().environment("Spread-v0").build()
    with pytest.raises(ValueError, match=r"AlphaStar learns games of two agents .* this environment has one agent"):
        config_of().make_agent(Spec(SPEC.groups[0][1].obs, SPEC.groups[0][1].action))

"""Self-play: past selves over all of history, seats drawn anew, heuristics with memory."""

from __future__ import annotations

from fractions import Fraction

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import assert_modes_are_equal, assert_resumes

from athlete import Past, PolicySpec
from athlete.algorithms import PPOConfig
from athlete.algorithms.fixed import AlwaysSame, Fixed
from athlete.combine.past import PastSelves
from athlete.core import Agent, Spec, hyper
from athlete.env import MultiAgentEnv
from athlete.env.games.multi_agent.players import as_heuristic, perfect_tic_tac_toe
from athlete.env.games.multi_agent.rock_paper_scissors import RockPaperScissors
from athlete.env.games.multi_agent.tic_tac_toe import TicTacToe
from athlete.env.multi_agent import JointEnv
from athlete.env.wrappers.shuffled_seats import ShuffledSeats
from athlete.loops.collect import spec_of
from athlete.memory.rollout import Rollout
from athlete.ops.elo import elo_ratings, expected_score
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete
from athlete.teams import make_team
from athlete.totals import win_rates

KEY = wrap(np.array([0, 3], np.uint32))


@hyper
class Teller(Agent):
    """Its state is a number, which it tells as its action; it counts its steps and adds what it sees."""

    memory: Rollout = Rollout()
    updates: int = 1
    spec: Spec = Spec(Box(-np.inf, np.inf, ()), Box(-np.inf, np.inf, ()))

    def init(self, key):
        return jnp.float32(-1)

    def view(self, state, progress):
        return state

    def start(self, view, rows, key):
        return jnp.zeros(rows)

    def act(self, view, carry, obs, first, key, explore=True):
        return view + 1000 * obs, carry + 1 + obs, {}


def followed(past: PastSelves, times: int):
    """The state after a policy whose state is the number of trajectories: 0 at first, then 1, 2, ..."""
    state, follow = past.init(KEY), jax.jit(past.follow)
    for time in range(times + 1):
        state = follow(state, jnp.float32(time), jnp.zeros(()))
    return state


# Snapshots


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (0, [0]),
        (1, [0]),
        (2, [0, 2]),
        (7, [0, 2, 4, 6]),
        (8, [0, 4, 8]),  # no room: every second one is dropped, and the distance is 4
        (12, [0, 4, 8, 12]),
        (15, [0, 4, 8, 12]),
        (16, [0, 8, 16]),
        (100, [0, 32, 64, 96]),
    ],
)
def test_snapshots_are_spread_over_all_of_history(times, expected):
    state = followed(PastSelves(Teller(), "main", size=4, every=2), times)
    assert state.snapshots[: int(state.kept)].tolist() == expected
    assert state.present == times


@pytest.mark.parametrize(("size", "expected"), [(3, [0, 4, 8]), (2, [0, 8]), (5, [0, 2, 4, 6, 8])])
def test_any_number_of_snapshots_keeps_equal_distances(size, expected):
    state = followed(PastSelves(Teller(), "main", size=size, every=1), 8)
    assert state.snapshots[: int(state.kept)].tolist() == expected


# Who plays


@pytest.mark.parametrize(
    ("present", "agents", "expected"),
    [
        (0.5, 1, [0, -1, 1, -1, 2, -1, 0, -1]),
        (0.0, 1, [0, 1, 2, 0, 1, 2, 0, 1]),
        (1.0, 1, [-1] * 8),
        (0.25, 1, [0, 1, 2, -1, 0, 1, 2, -1]),
        (0.5, 2, [0, 0, -1, -1, 1, 1, -1, -1]),  # agents of one environment are of one time
    ],
)
def test_a_share_of_environments_plays_the_present_self_and_the_others_one_snapshot_each(present, agents, expected):
    past = PastSelves(Teller(), "main", size=3, present=Fraction(present), agents=agents)
    assert past.players(8).tolist() == expected


def test_every_row_is_played_by_its_self_with_its_own_memory():
    past = PastSelves(Teller(), "main", size=3, every=1)
    view = past.view(followed(past, 2), jnp.zeros(()))  # snapshots 0, 1, 2; the present is 2
    obs = jnp.arange(10.0)
    carry = past.start(view, 10, KEY)
    action, carry, extras = jax.jit(past.act)(view, carry, obs, jnp.ones(10, bool), KEY)
    assert (action - 1000 * obs).tolist() == [0, 2, 1, 2, 2, 2, 0, 2, 1, 2] and extras == {}
    _, carry, _ = past.act(view, carry, obs, jnp.zeros(10, bool), KEY)
    assert carry.tolist() == (2 + 2 * obs).tolist()


def test_before_there_are_enough_snapshots_those_that_there_are_play():
    past = PastSelves(Teller(), "main", size=4, every=5, present=Fraction(0))
    view = past.view(followed(past, 7), jnp.zeros(()))  # 0 and 5
    action, _, _ = past.act(view, jnp.zeros(8), jnp.zeros(8), jnp.ones(8, bool), KEY)
    assert action.tolist() == [0, 5] * 4


def test_fewer_rows_than_snapshots_play_against_all_of_them_in_turn():
    past = PastSelves(Teller(), "main", size=4, every=1, present=Fraction(0))
    met = []
    for times in range(3, 7):  # no snapshot is added between the fourth and the one that drops every second
        state = followed(past, 3)._replace(seen=jnp.int32(times + 1))
        action, _, _ = past.act(past.view(state, jnp.zeros(())), *[jnp.zeros(2)] * 2, jnp.ones(2, bool), KEY)
        met.append(sorted(action.tolist()))
    assert sorted(map(tuple, met)) == [(0, 1), (0, 3), (1, 2), (2, 3)]


# In a training


def self_play(**settings):
    config = PPOConfig().environment("TicTacToe-v0").rollouts(num_envs_per_worker=8).debugging(seed=3)
    config.training(train_batch_size=128, minibatch_size=64, num_epochs=1, model={"fcnet_hiddens": [8]})
    config.multi_agent(
        policies={"main": PolicySpec(), "past": Past("main", size=4, every=2)},
        policy_mapping_fn=lambda agent_id, *args, **kwargs: "main" if agent_id == "player_0" else "past",
        shuffle_seats=True,
    )
    return config.multi_agent(**settings)


def test_past_selves_are_what_the_policy_was():
    with self_play().build() as algo:
        then = [algo.get_policy("main").view]
        for _ in range(6):
            algo.train()
            then.append(algo.get_policy("main").view)
        past = jax.device_get(algo.get_weights()["past"])
        assert int(past.kept) == 4 and int(past.seen) == 7
        for number in range(4):
            kept = jax.tree.map(lambda leaf, number=number: leaf[number], past.snapshots)
            jax.tree.map(np.testing.assert_array_equal, kept, then[2 * number])
        jax.tree.map(np.testing.assert_array_equal, past.present, then[6])
        assert "past" not in algo.train()["info"]["learner"] or algo.config.policies_to_train is None
        action = algo.compute_single_action(
            {"observations": np.zeros((3, 3, 2), np.float32), "action_mask": np.ones(9, np.int8)}, policy_id="past"
        )
        assert 0 <= action < 9
        jax.tree.map(np.testing.assert_array_equal, algo.get_policy("main_v1").view, then[2])


def test_a_training_with_past_selves_resumes_exactly(tmp_path):
    assert_resumes(self_play(), tmp_path)


@pytest.mark.thorough
def test_compiled_and_hosted_trainings_with_past_selves_are_equal():
    env = JointEnv(ShuffledSeats(TicTacToe()))
    config = self_play().ready()
    assert_modes_are_equal(env, make_team(config, spec_of(env), 16), rows=8, length=16)


@pytest.mark.parametrize(
    ("past", "message"),
    [
        (
            Past("mian"),
            r"policies\['past'\] is Past\('mian'\), and 'mian' is no policy that acts here; there are 'main'",
        ),
        (Past("past"), r"'past' is no policy that acts here"),
    ],
)
def test_past_selves_of_nobody_are_refused(past, message):
    config = self_play(policies={"main": None, "past": past})
    with pytest.raises(ValueError, match=message):
        config.build()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 1}, r"Past\('main', size=1\): expected a whole number of at least 2"),
        ({"every": 0}, r"Past\('main', every=0\): expected a whole number of at least 1"),
        ({"present": 1.5}, r"Past\('main', present=1.5\): expected a number between 0 and 1"),
    ],
)
def test_settings_of_past_selves_that_cannot_be_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Past("main", **setting)


def test_past_selves_cannot_be_trained():
    with pytest.raises(ValueError, match="the policy 'past' cannot learn"):
        self_play(policies_to_train=["main", "past"]).build()


# Seats


class Duel(MultiAgentEnv):
    """Each agent sees the number of its seat, and is paid it: 1 and 2, times what it does."""

    possible_agents = ("player_0", "player_1")

    def __init__(self, config=None):
        self.observation_space = gymnasium.spaces.Box(0.0, 2.0, (1,))
        self.action_space = gymnasium.spaces.Discrete(2)
        self.acted = []

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._seen(), {}

    def _seen(self):
        return {"player_0": np.array([1.0], np.float32), "player_1": np.array([2.0], np.float32)}

    def step(self, actions):
        self.steps += 1
        rewards = {"player_0": float(actions["player_0"]), "player_1": 2.0 * actions["player_1"]}
        over = self.steps == 3
        return self._seen(), rewards, {"__all__": over}, {"__all__": False}, {}


@hyper
class Always(Fixed):
    """Does 1, always."""

    def act(self, view, carry, obs, first, key, explore=True):
        return jnp.ones(first.shape, jnp.int32), carry, {}


def never(obs, key):
    return jnp.zeros(obs.shape[0], jnp.int32)


@pytest.mark.parametrize(("shuffled", "returns"), [(False, {3.0}), (True, {3.0, 6.0})])
def test_outside_jax_an_agent_is_paid_for_what_it_does_on_whatever_seat_it_took(shuffled, returns):
    config = PPOConfig().environment(Duel).rollouts(num_envs_per_worker=4).debugging(seed=0)
    config.training(train_batch_size=48, minibatch_size=48, num_epochs=1, model={"fcnet_hiddens": [4]})
    config.multi_agent(
        policies={"one": PolicySpec(policy_class=Always), "none": PolicySpec(policy_class=never), "learns": None},
        policy_mapping_fn={"player_0": "one", "player_1": "none"},
        policies_to_train=[],
        shuffle_seats=shuffled,
    ).evaluation(evaluation_duration=16)
    with config.build() as algo:
        result = algo.train()
        result |= algo.evaluate()["evaluation"]
    for stats in (result["hist_stats"],):
        assert set(stats["policy_one_reward"]) == returns
        assert set(stats["policy_none_reward"]) == {0.0}


def test_seats_of_one_agent_cannot_be_shuffled():
    with pytest.raises(ValueError, match=r"multi_agent\(shuffle_seats=True\): CartPole-v1 has one agent"):
        PPOConfig().environment("CartPole-v1").multi_agent(shuffle_seats=True).build()


# Heuristics


def test_always_same_repeats_what_it_drew_at_the_start_of_each_episode():
    agent = AlwaysSame().bind(Spec(Discrete(3), Discrete(3)))
    obs, carry, moves = jnp.zeros(600, jnp.int32), agent.start((), 600, KEY), []
    for step in range(4):
        first = jnp.full(600, step % 2 == 0)
        action, carry, _ = agent.act((), carry, obs, first, jax.random.fold_in(KEY, step))
        moves.append(action)
    assert (moves[0] == moves[1]).all() and (moves[2] == moves[3]).all() and (moves[0] != moves[2]).any()
    assert np.bincount(moves[0]).min() > 150


@pytest.mark.parametrize("module", ["", "ray.rllib.examples.policy.rock_paper_scissors_dummies."])
def test_rllibs_heuristics_are_known_by_their_names(module):
    policies = {
        "always_same": {"policy_class": f"{module}AlwaysSameHeuristic"},
        "beat_last": PolicySpec(policy_class=f"{module}BeatLastHeuristic"),
    }
    config = PPOConfig().environment(RockPaperScissors()).rollouts(num_envs_per_worker=64).debugging(seed=1)
    config.training(train_batch_size=640, model={"fcnet_hiddens": [4]})
    mapping = {"player_0": "always_same", "player_1": "beat_last"}
    config.multi_agent(policies=policies, policy_mapping_fn=mapping)
    with config.build() as algo:
        result = algo.train()
    # The first round is rock, paper or scissors against paper, and each of the nine after it is lost to the other.
    assert set(result["hist_stats"]["policy_beat_last_reward"]) == {8.0, 9.0, 10.0}


# Who wins


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([[1, -1], [1, -1], [0, 0], [-1, 1]], {"main": 0.5, "past": 0.25}),
        ([[0, 0]], {"main": 0.0, "past": 0.0}),
        ([[1, -1], [1, 1]], {}),  # both gain: no contest
    ],
)
def test_an_episode_is_won_by_the_higher_return_and_drawn_where_they_are_equal(returns, expected):
    assert win_rates(returns, {"main": [0], "past": [1]}) == expected


def test_before_the_first_episode_has_ended_win_rates_are_not_numbers():
    assert np.isnan(list(win_rates([], {"main": [0], "past": [1]}).values())).all()


def test_a_policy_of_several_agents_wins_with_any_of_them():
    returns = [[2, -1, -1], [-1, 2, -1], [-1, -1, 2], [1, -2, 1]]
    assert win_rates(returns, {"two": [0, 2], "one": [1]}) == {"two": 0.75, "one": 0.25}
    assert win_rates(returns, {"all": [0, 1, 2]}) == {}, "who plays itself neither wins nor loses"


def test_results_tell_who_wins_in_training_and_in_evaluation():
    policies = {"main": None, "dull": "random"}
    mapping = {"player_0": "main", "player_1": "dull"}
    with self_play(policies=policies, policy_mapping_fn=mapping, shuffle_seats=False).build() as algo:
        result = algo.train()
        evaluation = algo.evaluate(20)["evaluation"]
    for found in (result, evaluation):
        mine, other = (np.array(found["hist_stats"][f"policy_{name}_reward"]) for name in policies)
        assert found["win_rate"] == {"main": np.mean(mine > other), "dull": np.mean(other > mine)}
        assert 0 < sum(found["win_rate"].values()) <= 1


def test_matches_are_between_every_two_policies_snapshots_and_opponents_on_both_seats():
    with self_play().build() as algo:
        algo.train()
        algo.train()
        old = algo.get_policy("main")
        opponents = {"perfect": as_heuristic(perfect_tic_tac_toe), "dull": "random", "old": old}
        found = algo.evaluate_matches(40, opponents)
        assert found.names == ("main", "main_v0", "main_v1", "perfect", "dull", "old")
        assert (found.games == 40 * (1 - np.eye(6))).all() and (found.draws == found.draws.T).all()
        assert found.between("perfect", "dull")["loss_rate"] == 0.0 == found.between("dull", "perfect")["win_rate"]
        assert found.between("perfect", "dull")["win_rate"] > 0.6
        assert max(found.elo, key=found.elo.get) == "perfect" and np.mean(list(found.elo.values())) == pytest.approx(
            1500
        )
        lines = str(found).splitlines()
        assert len(lines) == 7 and lines[1].split()[0] == "perfect" and lines[0].split()[:2] == ["Elo", "perfect"]
        assert algo.evaluate_matches(2, {"dull": "random"}, policies=["main_v0"]).names == ("main_v0", "dull")
        with pytest.raises(ValueError, match="there is no 'main_v9'; did you mean 'main_v"):
            algo.evaluate_matches(policies=["main_v9"])
        same = algo.evaluate_matches(40, opponents)
        assert (same.wins == found.wins).all(), "the same seed gives the same games"


def first_cell(obs, key):
    return jnp.argmax(obs["action_mask"], axis=-1)


def last_cell(obs, key):
    return 8 - jnp.argmax(obs["action_mask"][:, ::-1], axis=-1)


def test_who_moves_first_changes_after_half_of_the_games():
    """Who takes cells from either end, first to move, has a row of three first."""
    config = self_play(policies={"first": first_cell, "last": last_cell}, shuffle_seats=False)
    config.multi_agent(policy_mapping_fn={"player_0": "first", "player_1": "last"})
    with config.build() as algo:
        found = algo.evaluate_matches(11)
    assert found.wins.tolist() == [[0, 6], [5, 0]] and not found.draws.any()


def test_matches_need_a_game_for_two():
    config = PPOConfig().environment("Spread-v0").training(model={"fcnet_hiddens": [4]})
    with config.build() as algo, pytest.raises(ValueError, match="between two agents with equal spaces"):
        algo.evaluate_matches()
    with (
        PPOConfig().environment("CartPole-v1").training(model={"fcnet_hiddens": [4]}).build() as algo,
        pytest.raises(ValueError, match="there is one agent"),
    ):
        algo.evaluate_matches()


# Ratings


def test_a_difference_of_400_points_means_ten_points_to_one():
    assert expected_score(400.0) == pytest.approx(10 / 11) and expected_score(0.0) == 0.5


def test_ratings_recover_the_strengths_that_points_were_made_from():
    true = np.array([1300.0, 1450.0, 1500.0, 1750.0])
    points = 1e5 * expected_score(true[:, None] - true[None])
    np.testing.assert_allclose(elo_ratings(points), true, atol=0.1)


def test_who_won_all_games_is_rated_finitely_and_above_who_lost_them():
    won, lost = elo_ratings(np.array([[0.0, 10.0], [0.0, 0.0]]))
    assert np.isfinite([won, lost]).all() and won > 1600 and won + lost == pytest.approx(3000)
    assert elo_ratings(np.zeros((3, 3))).tolist() == pytest.approx([1500] * 3)


# Other opponents in evaluations


@pytest.mark.parametrize("policies", [["main"], {"main": None, "past": Past("main")}], ids=["shared", "past"])
def test_evaluations_may_be_against_others_than_the_training(policies):
    names = list(policies)
    config = self_play(policies=policies, policy_mapping_fn={"player_0": "main", "player_1": names[-1]})
    config.evaluation(
        evaluation_config={
            "policies": {"perfect": as_heuristic(perfect_tic_tac_toe)},
            "policy_mapping_fn": {"player_0": "main", "player_1": "perfect"},
        }
    )
    with config.build() as algo:
        evaluation = algo.evaluate(40)["evaluation"]
        assert set(algo.train()["policy_reward_mean"]) == set(names), "the training has the opponents that it had"
    assert evaluation["win_rate"]["main"] == 0.0 and evaluation["win_rate"]["perfect"] > 0.5


def test_an_evaluation_with_a_policy_that_there_is_not_is_refused():
    config = self_play().evaluation(evaluation_config={"policy_mapping_fn": {"player_0": "main", "player_1": "mian"}})
    with config.build() as algo, pytest.raises(ValueError, match="'mian', which is no policy; did you mean 'main'"):
        algo.evaluate()

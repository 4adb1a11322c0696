"""Wrappers of environments with many agents: seats drawn anew, a time limit, a team as one agent; and films."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from roster import Roster

import athlete
from athlete.core import MultiEnv
from athlete.env.adapters.multi_agent_env import make_multi_agent
from athlete.env.games.classic.cartpole import CartPole, CartPoleState
from athlete.env.games.multi_agent.arena import MultiAgentArena
from athlete.env.games.multi_agent.connect_four import ConnectFour
from athlete.env.games.multi_agent.spread import Spread
from athlete.env.games.multi_agent.tic_tac_toe import TicTacToe
from athlete.env.games.multi_agent.two_step_game import TwoStepGame
from athlete.env.multi_agent import JointEnv
from athlete.env.world import FilmedEnv, find_world
from athlete.env.wrappers.copies import Copies
from athlete.env.wrappers.grouped import Grouped
from athlete.env.wrappers.multi_time_limit import MultiTimeLimit
from athlete.env.wrappers.shuffled_seats import ShuffledSeats
from athlete.ops.random import wrap
from athlete.spaces import Box, Dict, MultiBinary, MultiDiscrete

KEYS = jax.random.split(wrap(np.array([0, 13], np.uint32)), 2000)


def seated(env, seat, state):
    """The state of `ShuffledSeats(env)` in which the agents sit so."""
    return ShuffledSeats(env).reset(KEYS[0])[0]._replace(env_state=state, seat=seat)


def test_every_order_of_seats_is_drawn_equally_often():
    reset = jax.jit(jax.vmap(ShuffledSeats(Spread(num_agents=3)).reset))
    seats = np.asarray(reset(KEYS)[0].seat["agent"])
    orders, counts = np.unique(seats, axis=0, return_counts=True)
    assert sorted(map(tuple, orders.tolist())) == sorted(
        [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    )
    assert counts.min() > 270, "2000 / 6 is 333, with a standard deviation of 17"


def test_agents_see_do_and_get_what_belongs_to_their_seats():
    env = Spread(num_agents=3, local_ratio=1.0)
    state, _, _ = env.reset(KEYS[1])
    state = state._replace(position=jnp.array([[0.0, 0.0], [0.1, 0.0], [0.8, 0.8]]))
    shuffled = seated(env, {"agent": jnp.array([2, 0, 1])}, state)
    actions = jnp.array([3, 1, 2])  # of agents 0, 1, 2 on the seats 2, 0, 1
    _, plain = env.step(state, {"agent": actions[jnp.array([1, 2, 0])]}, KEYS[2])
    _, step = ShuffledSeats(env).step(shuffled, {"agent": actions}, KEYS[2])
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(step.obs["agent"], plain.obs["agent"][order])
    np.testing.assert_array_equal(step.reward["agent"], plain.reward["agent"][order])
    assert step.reward["agent"].tolist() == [0.0, -1.0, -1.0] and step.acting == ()


def test_either_agent_of_tic_tac_toe_moves_first():
    env = ShuffledSeats(TicTacToe())
    acting = np.asarray(jax.vmap(lambda key: env.reset(key)[2]["player"])(KEYS))
    assert (acting.sum(axis=1) == 1).all() and acting[:, 0].mean() == pytest.approx(0.5, abs=0.05)
    athlete.check_env(env)


def test_seats_stay_within_groups_and_within_the_episode():
    env = ShuffledSeats(Roster())
    state, _, _ = env.reset(KEYS[3])
    actions = {"a": jnp.zeros(4, jnp.int32), "b": jnp.zeros(2, jnp.int32)}
    after, _ = env.step(state, actions, KEYS[4])
    assert {name: sorted(seat.tolist()) for name, seat in state.seat.items()} == {"a": [0, 1, 2, 3], "b": [0, 1]}
    assert jax.tree.all(jax.tree.map(lambda one, other: bool((one == other).all()), state.seat, after.seat))


def test_all_that_is_told_of_an_agent_is_told_of_its_seat():
    env, seat = Roster(), {"a": np.array([2, 0, 3, 1]), "b": np.array([1, 0])}
    state, _, _ = env.reset(KEYS[0])
    shuffled = jax.jit(ShuffledSeats(env).step)
    plain = jax.jit(env.step)
    told = dict.fromkeys(("acting", "terminated", "truncated"), 0)
    for key in KEYS[:40]:
        actions = {"a": jnp.arange(4) % 3, "b": jnp.linspace(-1.0, 1.0, 4).reshape(2, 2)}
        at_seats = {name: part[np.argsort(seat[name])] for name, part in actions.items()}
        _, step = shuffled(seated(env, jax.tree.map(jnp.asarray, seat), state), actions, key)
        state, expected = plain(state, at_seats, key)
        for field in ("obs", "reward", "acting", "terminated", "truncated"):
            for name, order in seat.items():
                ours, theirs = getattr(step, field)[name], getattr(expected, field)[name]
                jax.tree.map(
                    lambda one, other, order=order: np.testing.assert_array_equal(one, other[order]), ours, theirs
                )
        for flag in told:
            told[flag] += sum(int(bits.sum()) for bits in getattr(expected, flag).values())
    assert all(told.values()), "all three flags were seen"


def test_a_time_limit_cuts_the_episode_of_all_and_asks_nobody_then():
    env = MultiTimeLimit(TicTacToe(), 2)
    state, _, _ = env.reset(KEYS[0])
    state, first = env.step(state, {"player": jnp.array([4, 0])}, KEYS[0])
    _, second = env.step(state, {"player": jnp.array([4, 0])}, KEYS[0])
    assert not first.all_truncated and first.acting["player"].tolist() == [False, True]
    assert second.all_truncated and not second.all_terminated and not second.acting["player"].any()
    athlete.check_env(env)
    with pytest.raises(ValueError, match=r"MultiTimeLimit\(max_episode_steps=0\): expected at least 1"):
        MultiTimeLimit(TicTacToe(), 0)


def test_a_team_that_always_acts_needs_no_flags_under_a_time_limit():
    env = MultiTimeLimit(Spread(), 2)
    state, _, acting = env.reset(KEYS[0])
    _, step = env.step(state, {"agent": jnp.zeros(3, jnp.int32)}, KEYS[0])
    assert acting == step.acting == () and env.always_acting


# A team as one agent


def test_a_team_is_one_agent_with_the_state_that_its_members_tell():
    env = Grouped(TwoStepGame(one_hot_state_encoding=True, separate_state_space=True))
    group = env.groups["agent"]
    assert group.size == 1 and group.action == MultiDiscrete((2, 2))
    assert group.obs == Dict({"obs": Box(-np.inf, np.inf, (2, 9)), "state": Box(-np.inf, np.inf, (6,))})
    state, obs, _ = env.reset(KEYS[0])
    assert obs["agent"]["state"].tolist() == [[0, 1, 1, 0, 1, 0]], "one-hot of one-hot, as networks see MultiDiscrete"
    state, _ = env.step(state, {"agent": jnp.array([[1, 0]])}, KEYS[0])
    _, step = env.step(state, {"agent": jnp.array([[1, 1]])}, KEYS[0])
    assert step.reward["agent"].tolist() == [8.0] and step.all_terminated
    athlete.check_env(env)


def test_without_a_state_of_its_own_the_state_is_what_all_see():
    env = Grouped(Spread(num_agents=2, continuous_actions=True), reward="mean")
    assert env.groups["agent"].action == Box(0.0, 1.0, (2, 5))
    state, obs, _ = env.reset(KEYS[5])
    plain = Spread(num_agents=2).reset(KEYS[5])[1]["agent"]
    np.testing.assert_array_equal(obs["agent"]["obs"][0], plain)
    np.testing.assert_array_equal(obs["agent"]["state"][0], np.ravel(plain))
    actions = jnp.linspace(0.0, 1.0, 10).reshape(2, 5)
    _, step = env.step(state, {"agent": actions[None]}, KEYS[6])
    _, alone = Spread(num_agents=2, continuous_actions=True).step(state, {"agent": actions}, KEYS[6])
    assert step.reward["agent"][0] == pytest.approx(float(alone.reward["agent"].mean()), rel=1e-6)
    athlete.check_env(env)


def test_groups_of_a_game_become_an_agent_each():
    env = Grouped(MultiAgentArena(width=2, height=2))
    assert {name: group.obs for name, group in env.groups.items()} == dict.fromkeys(
        ("agent1", "agent2"), Dict({"obs": Box(-np.inf, np.inf, (1, 8)), "state": Box(-np.inf, np.inf, (8,))})
    )
    athlete.check_env(env)


def test_masks_of_a_team_stand_behind_each_other():
    masked = AlwaysActing(TicTacToe())
    env = Grouped(masked)
    assert dict(env.groups["player"].obs.items)["action_mask"] == MultiBinary((18,))
    state, _, _ = env.reset(KEYS[0])
    _, step = env.step(state, {"player": jnp.array([[4, 0]])}, KEYS[0])
    assert step.obs["player"]["action_mask"][0].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1] * 2
    assert step.obs["player"]["obs"].shape == (1, 2, 18)


def test_what_cannot_be_a_team_says_why():
    with pytest.raises(ValueError, match=r"Grouped\(TicTacToe\): its agents do not always act"):
        Grouped(TicTacToe())
    with pytest.raises(ValueError, match=r"Grouped\(reward='max'\): expected one of 'sum', 'mean'"):
        Grouped(Spread(), reward="max")


@athlete.core.hyper
class AlwaysActing(MultiEnv):
    """`env` with everybody asked at every step."""

    env: MultiEnv
    always_acting = True

    @property
    def groups(self):
        return self.env.groups

    def reset(self, key):
        state, obs, _ = self.env.reset(key)
        return state, obs, ()

    def step(self, state, action, key):
        state, step = self.env.step(state, action, key)
        return state, step._replace(acting=(), terminated=(), truncated=())


def test_make_multi_agent_compiles_copies_of_a_jax_environment():
    cartpoles = make_multi_agent(CartPole, num_agents=3)
    assert find_world(cartpoles, {"masscart": 2.0}, "auto").env == JointEnv(Copies(CartPole(masscart=2.0), 3))
    assert find_world(make_multi_agent(CartPole()), {"num_agents": 2}, "jax").env == JointEnv(Copies(CartPole(), 2))


# Films


@pytest.mark.parametrize(
    "env",
    [TicTacToe(), ConnectFour(), Spread(), ShuffledSeats(MultiAgentArena()), Grouped(MultiTimeLimit(Spread(), 5))],
    ids=repr,
)
def test_games_are_filmed_through_their_wrappers(env):
    film = FilmedEnv(JointEnv(env))
    film.reset(seed=3)
    action = jax.tree.map(jnp.zeros_like, athlete.spaces.zeros(film.spec.action))
    _, reward, _, _, _ = film.step(action)
    picture = film.render()
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 1
    assert isinstance(reward, float) and film.spec.groups and film.metadata["render_fps"] < 30


def test_copies_are_filmed_side_by_side_where_one_is_drawn():
    film = FilmedEnv(find_world("MultiAgentCartPole-v1", {"num_agents": 3}, "auto").env)
    film.reset(seed=0)
    assert film.render().shape == (96, 480, 3) and film.metadata["render_fps"] == 50
    with pytest.raises(ValueError, match="TwoStepGame cannot be filmed: give it a method render"):
        FilmedEnv(JointEnv(TwoStepGame()))


def test_a_picture_of_cartpole_has_the_cart_at_its_place_and_the_pole_at_its_angle():
    def place(physics, colour):
        rows, columns = np.nonzero((CartPole().render(CartPoleState(jnp.array(physics))) == colour).all(axis=2))
        return float(columns.mean()), float(rows.mean())

    cart, pole = (40, 40, 40), (200, 150, 100)
    assert place([0.0, 0.0, 0.0, 0.0], cart)[0] == pytest.approx(79.5, abs=0.5)
    assert place([1.2, 0.0, 0.0, 0.0], cart)[0] == pytest.approx(79.5 + 40, abs=0.5), "half of the way to the right"
    upright, leaning = (place([0.0, 0.0, angle, 0.0], pole) for angle in (0.0, 0.5))
    assert upright[0] == pytest.approx(79.5, abs=0.5) and leaning[0] > 82 and leaning[1] > upright[1] + 1

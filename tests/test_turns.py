"""Games of two as one agent sees them, and environments that show their state: what a search plays on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.core import hyper
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.multi_agent import make_game
from athlete.env.games.multi_agent.connect_four import ConnectFour
from athlete.env.games.multi_agent.players import perfect_tic_tac_toe, random_legal
from athlete.env.games.multi_agent.tic_tac_toe import TicTacToe
from athlete.env.games.rllib.cartpole_sparse_rewards import CartPoleSparseRewards
from athlete.env.multi_agent import JointEnv
from athlete.env.simulators import simulated
from athlete.env.world import find_world
from athlete.env.wrappers.exposed_state import ExposedState
from athlete.env.wrappers.turns import Against, Turns
from athlete.ops.features import feature_size, features
from athlete.ops.random import wrap
from athlete.spaces import SIMULATOR_STATE

KEYS = jax.random.split(wrap(np.array([0, 5], np.uint32)), 64)


def played(env, actions):
    state, obs = env.reset(KEYS[0])
    steps, step = [], jax.jit(env.step)
    for t, action in enumerate(actions):
        state, found = step(state, jnp.int32(action), KEYS[t + 1])
        steps.append(jax.device_get(found))
    return state, obs, steps


def test_each_move_is_paid_to_who_made_it_and_shown_to_who_is_next():
    _, obs, steps = played(Turns(TicTacToe()), [0, 3, 1, 4, 2])
    assert [float(step.reward) for step in steps] == [0, 0, 0, 0, 1]
    assert [bool(step.terminated) for step in steps] == [False] * 4 + [True]
    own, other = steps[0].obs["observations"].reshape(9, 2).T
    assert own.sum() == 0 and other.tolist() == [1, *[0] * 8] and obs["observations"].sum() == 0


@pytest.mark.parametrize("game", [TicTacToe(), ConnectFour()], ids=["tic-tac-toe", "connect four"])
def test_what_who_moves_sees_tells_the_state(game):
    turns, state = Turns(game), None
    for number in range(5):
        state, _, steps = played(turns, list(range(number)))
        obs = steps[-1].obs if steps else turns.reset(KEYS[0])[1]
        jax.tree.map(np.testing.assert_array_equal, turns.state_of(obs), state)
    assert int(state.turn) == 0 and int(state.board.max()) == 2


def against(opponent, games=400):
    """Returns and seats of games of random moves against an opponent: seats are 1 where it began."""
    env = Against(TicTacToe(), opponent)

    @jax.jit
    @jax.vmap
    def one(key):
        state, obs = env.reset(key)
        second = jnp.sum(obs["observations"]) > 0

        def move(carry, key):
            state, obs, over, total = carry
            state, step = env.step(state, random_legal(obs, key), key)
            total = total + jnp.where(over, 0.0, step.reward)
            return (state, step.obs, over | step.terminated, total), None

        start = (state, obs, jnp.asarray(False), jnp.zeros(()))
        carry, _ = jax.lax.scan(move, start, jax.random.split(key, 5))
        return carry[3], second, carry[2]

    returns, second, over = map(np.asarray, one(jax.random.split(KEYS[1], games)))
    assert over.all() and set(returns) <= {-1.0, 0.0, 1.0}
    return returns, second


def test_the_seat_against_an_opponent_is_drawn_and_the_return_is_the_agents():
    returns, second = against(random_legal)
    assert 0.4 < second.mean() < 0.6
    # Random moves win 0.585 of the games that they begin and lose 0.288, counted over all games.
    assert returns[~second].mean() == pytest.approx(0.297, abs=0.12)
    assert returns[second].mean() == pytest.approx(-0.297, abs=0.12)
    assert max(against(perfect_tic_tac_toe)[0]) == 0.0, "nobody wins against who never loses"


def test_an_opponent_is_an_entry_of_env_config():
    assert make_game("TicTacToe-v0", {"opponent": "perfect"}) == Against(TicTacToe(), perfect_tic_tac_toe)
    four = make_game("ConnectFour-v0", {"opponent": "minimax", "depth": 3})
    assert (
        four == make_game("ConnectFour-v0", {"opponent": "minimax", "depth": 3})
        and four.opponent.keywords["depth"] == 3
    )
    with pytest.raises(ValueError, match="has opponent='minimax'; there are random, perfect"):
        make_game("TicTacToe-v0", {"opponent": "minimax"})
    with pytest.raises(ValueError, match="has depth=0: moves that 'minimax' looks ahead, 1 or more"):
        make_game("ConnectFour-v0", {"opponent": "minimax", "depth": 0})


def test_the_state_is_shown_bit_by_bit_and_networks_do_not_see_it():
    plain, env = CartPoleSparseRewards(), ExposedState(CartPoleSparseRewards())
    state, _, steps = played(env, [0, 1, 1])
    jax.tree.map(np.testing.assert_array_equal, env.state_of(steps[-1].obs), state)
    jax.tree.map(np.testing.assert_array_equal, played(plain, [0, 1, 1])[0], state)
    assert feature_size(env.observation_space) == 4 and SIMULATOR_STATE in steps[-1].obs
    np.testing.assert_array_equal(features(env.observation_space, steps[-1].obs), steps[-1].obs["obs"])
    boxed = ExposedState(CartPole())
    assert feature_size(boxed.observation_space) == 4 and set(boxed.reset(KEYS[0])[1]) == {
        "observations",
        SIMULATOR_STATE,
    }


@hyper
class Blindfolded(TicTacToe):
    """Players see their own stones only."""

    def _observe(self, state):
        shown = super()._observe(state)
        seen = shown["player"]["observations"].at[..., 1].set(0.0)
        return {"player": {**shown["player"], "observations": seen}}


def test_what_cannot_be_searched_says_why():
    with pytest.raises(ValueError, match="lives outside JAX; take MuZero, which learns a model"):
        simulated(None, "Blackjack-v1")
    with pytest.raises(ValueError, match="games of two who move in turns, and RockPaperScissors-v0 is none"):
        find_world("RockPaperScissors-v0", {}, "auto").simulated()
    with pytest.raises(ValueError, match=r"state_of\(obs\) gave another state than that in which obs was seen"):
        simulated(JointEnv(Blindfolded()), "Blindfolded")
    assert simulated(JointEnv(TicTacToe()), "") == Turns(TicTacToe())
    assert simulated(CartPole(), "") == ExposedState(CartPole())

"""AlphaZero: what it plays, what it keeps, what it refuses, and that it learns."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import assert_resumes

from athlete.algorithms.alpha_zero import AlphaZero, AlphaZeroConfig, Bar
from athlete.building import memory_bytes
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.multi_agent.tic_tac_toe import TicTacToe
from athlete.env.wrappers.exposed_state import ExposedState
from athlete.env.wrappers.turns import Against, Turns
from athlete.loops.collect import choose, spec_of
from athlete.models.mlp import MLP
from athlete.ops.random import wrap
from athlete.policy import Policy

pytest.importorskip("mctx")

KEY = wrap(np.array([0, 2], np.uint32))
GAME = Turns(TicTacToe())


def small(**training):
    config = AlphaZeroConfig().environment("TicTacToe-v0").rollouts(num_envs_per_worker=4).debugging(seed=3)
    settings = {
        "train_batch_size": 32,
        "minibatch_size": 16,
        "n_step": 9,
        "num_steps_sampled_before_learning_starts": 64,
        "replay_buffer_config": {"capacity": 256},
        "mcts_config": {"num_simulations": 4},
        "model": {"fcnet_hiddens": [8]},
    }
    return config.training(**{**settings, **training}).exploration(exploration_config={"random_timesteps": 32})


def bound(**settings):
    agent = AlphaZero(simulator=GAME, model=MLP((8,)), **{"num_simulations": 48, **settings}).bind(spec_of(GAME))
    return agent, agent.view(jax.jit(agent.init)(KEY), 0.0)


def seen(stones, rows=1):
    """Rows of a board of "xo." as who has the crosses sees it."""
    own, other = (np.array([stone == sign for stone in stones]) for sign in "xo")
    board = np.stack([own, other], axis=-1).reshape(3, 3, 2).astype(np.float32)
    obs = {"observations": board, "action_mask": (~own & ~other).astype(np.int8)}
    return jax.tree.map(lambda leaf: jnp.tile(leaf, (rows, *[1] * leaf.ndim)), obs)


def acting(agent, view, obs, explore, moves=9, key=KEY):
    rows = obs["action_mask"].shape[0]
    carry = jax.tree.map(lambda leaf: leaf + moves, agent.start(view, rows, key))
    return jax.jit(agent.act, static_argnums=5)(view, carry, obs, jnp.zeros(rows, bool), key, explore)


@pytest.mark.parametrize("gumbel", [True, False], ids=["Gumbel", "PUCT"])
@pytest.mark.parametrize(
    ("stones", "move"),
    [("xx.oo....", 2), ("x...oo..x", 3), ("oo.x.x...", 4), ("oo.xx....", 5), ("o.ox.x...", 4)],
    ids=["wins", "prevents", "wins first", "wins in a row", "wins in the middle"],
)
def test_a_network_that_knows_nothing_wins_where_it_can_and_prevents_what_it_must(gumbel, stones, move):
    agent, view = bound(gumbel=gumbel, num_simulations=128)
    action, _, _ = acting(agent, view, seen(stones), explore=False)
    assert action.tolist() == [move]


def test_what_is_learned_is_what_was_searched_and_openings_are_random():
    agent, view = bound(gumbel=False, dirichlet_epsilon=0.0, opening_randomness=0.75, randomness=0.25, opening_moves=2)
    obs = seen("xx.oo....", rows=2000)
    shares = {}
    for moves in (1, 2):
        action, carry, extras = acting(agent, view, obs, True, moves)
        assert set(carry.exploration.tolist()) == {moves + 1}
        np.testing.assert_allclose(extras["policy"].sum(axis=1), 1.0, rtol=1e-5)
        chance = 0.75 if moves < 2 else 0.25
        drawn = extras["policy"].mean(axis=0) * (1 - chance) + chance * np.asarray(obs["action_mask"][0]) / 5
        shares[moves] = np.bincount(action, minlength=9) / 2000
        np.testing.assert_allclose(shares[moves], drawn, atol=0.04)
    assert shares[2][2] > shares[1][2] + 0.1


def test_temperature_is_a_power_of_the_shares():
    obs = seen("xx.oo....")
    plain, sharp = (bound(gumbel=False, dirichlet_epsilon=0.0, temperature=power) for power in (1.0, 3.0))
    share, power = (acting(*each, obs, True)[2]["policy"][0] for each in (plain, sharp))
    np.testing.assert_allclose(power, share**3 / (share**3).sum(), rtol=1e-4)


def test_random_steps_search_nothing_and_the_policy_learns_nothing_from_them():
    agent, view = bound()
    rows = functools.partial(choose, agent, view, agent.start(view, 8, KEY), seen(".........", 8), jnp.ones(8, bool))
    action, carry, extras = jax.jit(lambda: rows(KEY, True))()
    assert not extras["policy"].any() and set(carry.exploration.tolist()) == {1} and len(set(action.tolist())) > 1
    searched = jax.jit(lambda: rows(KEY, False))
    compiled = [jax.jit(lambda r=r: rows(KEY, r)).lower().compile().as_text().count(" while(") for r in (True, False)]
    assert compiled[0] < compiled[1] and searched()[2]["policy"].any()


def test_who_reaches_the_bar_has_won():
    agent, _ = bound(buffer_max_length=4)
    worth = agent._worth(Bar(jnp.float32(2.0), jnp.asarray(True)), jnp.array([1.0, 2.0, 3.0, 9.0]), jnp.arange(4) < 3)
    assert worth.tolist() == [-1, 1, 1, 0]
    assert not agent._worth(Bar(jnp.float32(2.0), jnp.asarray(False)), jnp.ones(4), jnp.ones(4, bool)).any()


def test_a_training_resumes_exactly(tmp_path):
    assert_resumes(small(), tmp_path)


def test_ranked_rewards_resume_exactly(tmp_path):
    ranked = {"enable": True, "num_init_rewards": 2, "buffer_max_length": 8}
    config = small(ranked_rewards=ranked).environment(
        "ray.rllib.examples.env.cartpole_sparse_rewards.CartPoleSparseRewards"
    )
    assert_resumes(config, tmp_path)


def test_a_policy_plays_from_the_board_alone_and_as_its_algorithm(tmp_path):
    with small().build() as algo:
        algo.train()
        path = algo.save(tmp_path)
        board = jax.tree.map(lambda leaf: np.asarray(leaf[0]), seen("xx.oo...."))
        action = algo.compute_single_action(board, explore=False)
    policy = Policy.from_checkpoint(path)
    assert policy.agent.simulator == GAME and int(policy.compute_single_action(board)[0]) == int(action)
    assert not policy.is_recurrent()


def test_evaluations_are_against_random_moves_unless_somebody_else_is_named_and_games_are_filmed(tmp_path):
    config = small()
    with config.build() as algo:
        assert isinstance(algo._evaluation_world.env, Against)
        returns = algo.evaluate()["evaluation"]["hist_stats"]["episode_reward"]
        assert set(returns) <= {-1.0, 0.0, 1.0} and len(returns) == 10
        (film,) = algo.record_video(tmp_path, episodes=1)
        assert Path(film).stat().st_size > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "Blackjack-v1"}, "lives outside JAX; take MuZero"),
        ({"env": "RockPaperScissors-v0"}, "games of two who move in turns"),
        ({"env_config": {"opponent": "random"}}, "plays both sides of TicTacToe-v0 itself"),
        ({"observation_filter": "MeanStdFilter"}, "observation_filter changes what the environment shows or pays"),
        ({"ranked_rewards": {"enable": True}}, "ranked_rewards are for one player"),
        ({"clip_rewards": True}, "clip_rewards changes what the environment shows or pays"),
        (
            {"mcts_config": {"gumbel": True, "puct_coefficient": 2.0}},
            "has 'puct_coefficient', of the search",
        ),
    ],
)
def test_what_cannot_be_is_said_at_build(changes, message):
    with pytest.raises(ValueError, match=message):
        small().update_from_dict(changes).build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mcts_config": {"simulations": 3}}, "there is no 'simulations'; did you mean 'num_simulations'"),
        ({"mcts_config": {"num_simulations": 0}}, "'num_simulations' is 0; expected a whole number of at least 1"),
        ({"mcts_config": {"gumbel": 1}}, "'gumbel' is 1; expected True or False"),
        ({"ranked_rewards": {"percentile": 101}}, "'percentile' is 101; expected a number between 0 and 100"),
    ],
)
def test_entries_that_cannot_be_are_refused_when_given(settings, message):
    with pytest.raises(ValueError, match=message):
        AlphaZeroConfig().training(**settings)


def test_the_size_of_the_memory_is_known_before_there_is_a_training():
    step = 2 * (18 * 4 + 9) + 9 * 4 + 4 + 4 + 3  # two boards with masks, what was found, action, reward and flags
    assert 256 * step <= memory_bytes(small()) <= 1.5 * 256 * step


def test_workers_share_out_the_games_and_an_iteration_is_a_batch():
    config = AlphaZeroConfig().rollouts(num_rollout_workers=6, rollout_fragment_length=50)
    assert config.rows() == 64 and config.fragment_length() == 50
    assert config.training(train_batch_size=500).fragment_length() == 8 and config.updates() == 8
    assert config.rollouts(num_envs_per_worker=2).rows() == 12


def test_one_player_s_exploration_is_the_search_alone():
    """Openings are random for the sake of the other side's answers."""
    env = ExposedState(CartPole())
    agent = AlphaZero(simulator=env, model=MLP((8,)), opening_randomness=1.0, randomness=1.0, num_simulations=4)
    agent = dataclasses.replace(agent, argmax_tree_policy=True, dirichlet_epsilon=0.0).bind(spec_of(env))
    _, obs = jax.vmap(env.reset)(jax.random.split(KEY, 32))
    view, first = agent.view(jax.jit(agent.init)(KEY), 0.0), jnp.ones(32, bool)
    act = jax.jit(agent.act, static_argnums=5)
    actions = [act(view, agent.start(view, 32, KEY), obs, first, KEY, explore)[0] for explore in (True, False)]
    np.testing.assert_array_equal(*actions)


def test_the_settings_of_the_paper_s_search_choose_it():
    assert AlphaZeroConfig().training(mcts_config={"num_simulations": 9}).agent_parts()["gumbel"]
    parts = (
        AlphaZeroConfig().training(mcts_config={"puct_coefficient": 2.0, "add_dirichlet_noise": False}).agent_parts()
    )
    assert not parts["gumbel"] and parts["puct_coefficient"] == 2.0 and parts["dirichlet_epsilon"] == 0.0

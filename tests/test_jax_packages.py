"""Environments of brax, Playground, Jumanji, Navix, Craftax and pgx through their adapters.

`make test-extras` has an environment with the packages. Each is compared with its package step by step, with the same
keys and actions.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms.ppo import PPOConfig
from athlete.env.adapters import jax_packages
from athlete.env.checks.check import check_env
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.registry import resolve, runs_code
from athlete.env.wrappers.reset_pool import draw_pool
from athlete.spaces import Box, Dict, Discrete, MultiDiscrete

MODULES = {
    "brax": ("brax", "brax/ant"),
    "craftax": ("craftax", "craftax/Craftax-Classic-Symbolic-v1"),
    "jumanji": ("jumanji", "jumanji/Snake-v1"),
    "navix": ("navix", "navix/Navix-Empty-5x5-v0"),
    "pgx": ("pgx", "pgx/tic_tac_toe"),
    "playground": ("mujoco_playground", "playground/CartpoleBalance"),
}
TINY = {"train_batch_size": 64, "minibatch_size": 64, "num_epochs": 1, "model": {"fcnet_hiddens": [16]}}


def need(package):
    """The package's module; the test is skipped where it is not installed."""
    return pytest.importorskip(MODULES[package][0])


def make(env_id, **env_config):
    return resolve(env_id)(env_config)


def play(env, actions, key):
    """What an environment shows, pays and ends with: `[T + 1, ...]` observations, rewards, terminated, truncated."""
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    state, obs = reset(key)
    shown, ends = [obs], []
    for i, action in enumerate(actions):
        state, result = step(state, action, jax.random.fold_in(key, i))
        shown.append(result.obs)
        ends.append((result.reward, result.terminated, result.truncated))
        if result.terminated or result.truncated:
            break
    return shown, [tuple(np.asarray(value).item() for value in end) for end in ends]


def assert_equal_shown(ours, theirs):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.asarray(mine, np.float64), np.asarray(other, np.float64), rtol=1e-5, atol=1e-5)


# What needs no package


@pytest.mark.parametrize("package", MODULES)
def test_without_the_package_the_error_names_the_extra(package, monkeypatch):
    module, env_id = MODULES[package]
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    jax_packages._adapted.cache_clear()
    resolve("pgx/hex").func.__globals__["_made"].cache_clear()
    with pytest.raises(ValueError, match=rf"missing; pip install {package} \(the extra '{package}'\)"):
        PPOConfig().environment(env_id).build()


def test_a_name_in_a_file_runs_no_code_of_its_choice():
    assert not any(runs_code(env_id) for _, env_id in MODULES.values())
    assert runs_code("navix.Environment")


def test_lists_and_tables_of_files_are_settings_that_can_be_hashed():
    settings = jax_packages.as_settings({"sizes": [1, [2, 3]], "scales": {"energy": 0.0}})
    assert settings == (("sizes", (1, (2, 3))), ("scales", (("energy", 0.0),)))


def test_a_pool_of_start_states_is_drawn_once_and_episodes_begin_in_one_of_them():
    env = draw_pool(CartPole(), 3, jax.random.key(0))
    starts = {tuple(np.asarray(obs).tolist()) for obs in env.observations}
    seen = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 50))[1]
    assert {tuple(np.asarray(obs).tolist()) for obs in seen} == starts and len(starts) == 3
    check_env(env)
    state, _ = env.reset(jax.random.key(2))
    assert_same = np.testing.assert_array_equal
    assert_same(env.step(state, 1, jax.random.key(3))[1].obs, CartPole().step(state, 1, jax.random.key(3))[1].obs)
    with PPOConfig().environment(env).training(**TINY).build() as algorithm:
        algorithm.train()
    with pytest.raises(ValueError, match="reset_pool=0: expected a whole number"):
        draw_pool(CartPole(), 0, jax.random.key(0))


def test_states_carry_the_data_of_their_keys():
    key = jax.random.key(3)
    state = {"key": key, "count": 2}
    arrays = jax_packages.without_keys(state)
    assert arrays["key"].dtype == jnp.uint32 and not arrays["count"].weak_type
    again = jax_packages.with_keys(arrays, jax.eval_shape(lambda: {"key": key, "count": jnp.int32(2)}), key)
    assert jax.random.uniform(again["key"]) == jax.random.uniform(key)


@pytest.mark.parametrize(
    ("array", "space"),
    [
        (np.zeros(3, bool), Box(0.0, 1.0, (3,))),
        (np.zeros((), np.float32), Box(-np.inf, np.inf, ())),
        (np.zeros(2, np.int8), Box(-128, 127, (2,), np.int8)),
        ({"state": np.zeros(2, np.float32)}, Dict({"state": Box(-np.inf, np.inf, (2,))})),
    ],
)
def test_spaces_of_arrays(array, space):
    assert jax_packages.space_of_arrays(array) == space


# brax and Playground


def test_brax_steps_as_brax_does_and_its_limit_truncates():
    need("brax")
    from brax import envs

    key = jax.random.key(1)
    ours = make("brax/inverted_pendulum", episode_length=7)
    theirs = envs.create("inverted_pendulum", episode_length=7, auto_reset=False)
    actions = np.random.default_rng(0).uniform(-0.1, 0.1, (9, 1)).astype(np.float32)
    shown, ends = play(ours, actions, key)
    state, step = jax.jit(theirs.reset)(key), jax.jit(theirs.step)
    their_shown, their_ends = [state.obs], []
    for action in actions[:7]:
        state = step(state, action)
        their_shown.append(state.obs)
        cut = bool(state.info["truncation"])
        their_ends.append((float(state.reward), bool(state.done) and not cut, cut))
    assert_equal_shown(shown, their_shown)
    assert ends == their_ends and ends[-1][1:] == (False, True)


def test_what_falls_in_brax_has_terminated():
    need("brax")
    _, ends = play(make("brax/inverted_pendulum"), np.ones((200, 1), np.float32), jax.random.key(1))
    assert ends[-1][1:] == (True, False)


def test_playground_steps_as_playground_does_and_its_limit_truncates():
    playground = need("playground")
    key = jax.random.key(1)
    ours = make("playground/CartpoleBalance", episode_length=5, impl="jax")
    theirs = playground.registry.load("CartpoleBalance", config_overrides={"impl": "jax"})
    actions = np.random.default_rng(0).uniform(-1, 1, (9, 1)).astype(np.float32)
    shown, ends = play(ours, actions, key)
    state, step = jax.jit(theirs.reset)(key), jax.jit(theirs.step)
    their_shown, rewards = [state.obs], []
    for action in actions[:5]:
        state = step(state, action)
        their_shown.append(state.obs)
        rewards.append(float(state.reward))
    assert_equal_shown(shown, their_shown)
    np.testing.assert_allclose([end[0] for end in ends], rewards, rtol=1e-5)
    assert [end[1:] for end in ends] == [(False, False)] * 4 + [(False, True)]


def test_playground_has_its_own_limit_and_settings():
    need("playground")
    env = make("playground/CartpoleBalance", ctrl_dt=0.02, impl="jax")
    assert env.max_episode_steps == 1000 and dict(env.env.settings) == {"ctrl_dt": 0.02, "impl": "jax"}


# Jumanji


def test_snake_moves_as_in_jumanji():
    jumanji = need("jumanji")
    key = jax.random.key(2)
    ours, theirs = make("jumanji/Snake-v1"), jumanji.make("Snake-v1")
    actions = [0, 1, 0, 0, 3] + [0] * 12
    shown, ends = play(ours, actions, key)
    state, timestep = jax.jit(theirs.reset)(key)
    step = jax.jit(theirs.step)
    for i, end in enumerate(ends):
        assert_equal_shown([shown[i]["grid"]], [timestep.observation.grid])
        np.testing.assert_array_equal(shown[i]["action_mask"], timestep.observation.action_mask)
        state, timestep = step(state, actions[i])
        last = bool(timestep.last())
        assert end == (float(timestep.reward), last and timestep.discount == 0, last and timestep.discount > 0)
    assert_equal_shown([shown[-1]["grid"]], [timestep.observation.grid])  # of the wall, not of a new episode
    assert ends[-1][1]


def test_combinations_of_which_the_mask_tells_are_numbered():
    jumanji = need("jumanji")
    ours, theirs = make("jumanji/Tetris-v0"), jumanji.make("Tetris-v0")
    assert ours.action_space == Discrete(40)
    key = jax.random.key(0)
    state, obs = jax.jit(ours.reset)(key)
    their_state, timestep = jax.jit(theirs.reset)(key)
    np.testing.assert_array_equal(obs["action_mask"], timestep.observation.action_mask.ravel())
    _, step = jax.jit(ours.step)(state, 13, key)
    _, timestep = jax.jit(theirs.step)(their_state, jnp.array([1, 3]))
    np.testing.assert_array_equal(step.obs["grid"], timestep.observation.grid)


def test_masks_of_agents_one_by_one_stay_one_by_one():
    need("jumanji")
    env = make("jumanji/Cleaner-v0")
    assert env.action_space == MultiDiscrete((4, 4, 4))
    assert dict(env.observation_space.items)["action_mask"].shape == (12,)


# Navix


def test_navix_steps_as_navix_does_and_tells_truncated_from_terminated():
    navix = need("navix")
    key, actions = jax.random.key(0), [0, 2, 1, 2, 2, 0]
    ours, theirs = make("navix/Navix-Empty-5x5-v0", max_steps=6), navix.make("Navix-Empty-5x5-v0", max_steps=6)
    shown, ends = play(ours, actions, key)
    timestep, step = jax.jit(theirs.reset)(key), jax.jit(theirs.step)
    their_shown, their_ends = [timestep.observation], []
    for action in actions:
        timestep = step(timestep, action)
        their_shown.append(timestep.observation)
        their_ends.append((float(timestep.reward), bool(timestep.is_termination()), bool(timestep.is_truncation())))
    assert_equal_shown(shown, their_shown)
    assert ends == their_ends and ends[-1][1:] == (False, True)


def test_the_goal_of_navix_terminates():
    need("navix")
    _, ends = play(make("navix/Navix-Empty-5x5-v0"), [2, 2, 1, 2, 2], jax.random.key(0))
    assert ends[-1] == (1.0, True, False)


def test_pictures_of_navix():
    need("navix")
    env = make("navix/Navix-Empty-5x5-v0", observation_fn="rgb")
    assert env.observation_space == Box(0, 255, (40, 40, 3), np.uint8)
    assert jax.jit(env.reset)(jax.random.key(0))[1].max() > 100


# Craftax


def test_craftax_steps_as_craftax_does_and_its_limit_truncates():
    need("craftax")
    from craftax.craftax_env import make_craftax_env_from_name

    name, key = "Craftax-Classic-Symbolic-v1", jax.random.key(4)
    ours, theirs = make(f"craftax/{name}", max_timesteps=12), make_craftax_env_from_name(name, auto_reset=False)
    params = theirs.default_params.replace(max_timesteps=12)
    actions = np.random.default_rng(0).integers(0, 17, 20)
    shown, ends = play(ours, actions, key)
    obs, state = theirs.reset(key, params)
    their_shown, their_ends = [obs], []
    for i, action in enumerate(actions[:12]):
        obs, state, reward, done, _ = theirs.step(jax.random.fold_in(key, i), state, action, params)
        their_shown.append(obs)
        their_ends.append((float(reward), bool(done)))
    assert_equal_shown(shown, their_shown)
    np.testing.assert_allclose([end[0] for end in ends], [end[0] for end in their_ends], atol=1e-6)
    assert [end[1] or end[2] for end in ends] == [end[1] for end in their_ends]
    assert ends[-1][1:] == (False, True)


# pgx


def test_a_game_of_pgx_is_pgxs_move_by_move_seen_by_both_players():
    pgx = need("pgx")
    ours, theirs = make("pgx/connect_four"), pgx.make("connect_four")
    key = jax.random.key(5)
    state, obs, acting = jax.jit(ours.reset)(key)
    step, their_step = jax.jit(ours.step), jax.jit(theirs.step)
    their_state = jax.jit(theirs.init)(key)
    generator = np.random.default_rng(0)
    for i in range(42):
        turn = int(their_state.current_player)
        assert acting["player"].tolist() == [turn == 0, turn == 1]
        np.testing.assert_array_equal(obs["player"]["observations"][turn], their_state.observation)
        np.testing.assert_array_equal(obs["player"]["action_mask"][turn], their_state.legal_action_mask)
        action = generator.choice(np.flatnonzero(their_state.legal_action_mask))
        moves = np.where(np.arange(2) == turn, action, 0)
        state, result = step(state, {"player": moves}, jax.random.fold_in(key, i))
        their_state = their_step(their_state, action, jax.random.fold_in(key, i))
        obs, acting = result.obs, result.acting
        np.testing.assert_array_equal(result.reward["player"], their_state.rewards)
        assert result.all_terminated == their_state.terminated
        if result.all_terminated:
            break
    assert result.all_terminated and not acting["player"].any()
    assert sorted(result.reward["player"].tolist()) == [-1, 1]


def test_chance_in_games_of_pgx_comes_from_the_key_of_the_step():
    pgx = need("pgx")
    ours, theirs, key = make("pgx/backgammon"), pgx.make("backgammon"), jax.random.key(6)
    state, _, _ = jax.jit(ours.reset)(key)
    their_state = jax.jit(theirs.init)(key)
    legal = np.flatnonzero(their_state.legal_action_mask)[0]
    _, result = jax.jit(ours.step)(state, {"player": np.array([legal, legal])}, key)
    their_state = jax.jit(theirs.step)(their_state, legal, key)
    turn = int(their_state.current_player)
    np.testing.assert_array_equal(result.obs["player"]["observations"][turn], their_state.observation)


def test_a_game_of_one_player_is_an_environment_with_one_agent():
    pgx = need("pgx")
    ours, theirs, key = make("pgx/2048"), pgx.make("2048"), jax.random.key(6)
    shown, ends = play(ours, [0, 1, 2, 3, 0, 1], key)
    state, step = jax.jit(theirs.init)(key), jax.jit(theirs.step)
    for i, (reward, terminated, truncated) in enumerate(ends):
        np.testing.assert_array_equal(shown[i]["observations"], state.observation)
        np.testing.assert_array_equal(shown[i]["action_mask"], state.legal_action_mask)
        state = step(state, [0, 1, 2, 3, 0, 1][i], jax.random.fold_in(key, i))
        assert (reward, terminated, truncated) == (state.rewards[0], state.terminated, False)


# All of them

SMOKE = [
    *("brax/inverted_pendulum", "playground/CartpoleBalance", "jumanji/Snake-v1", "jumanji/Tetris-v0"),
    *("jumanji/Cleaner-v0", "navix/Navix-Empty-5x5-v0", "craftax/Craftax-Classic-Symbolic-v1"),
    *("pgx/tic_tac_toe", "pgx/kuhn_poker", "pgx/2048"),
]


CONFIGS = {
    "playground/CartpoleBalance": {"impl": "jax"},
    "craftax/Craftax-Classic-Symbolic-v1": {"reset_pool": 4},  # worlds are dear to make
}


@pytest.mark.parametrize("env_id", SMOKE)
def test_environments_keep_the_promises_of_ours(env_id):
    need(env_id.split("/")[0])
    check_env(env_id, CONFIGS.get(env_id))


@pytest.mark.parametrize("env_id", SMOKE)
def test_ppo_trains(env_id):
    need(env_id.split("/")[0])
    config = PPOConfig().environment(env_id, env_config=CONFIGS.get(env_id, {}), disable_env_checking=True)
    with config.rollouts(num_envs_per_worker=2).training(**TINY).debugging(seed=0).build() as algorithm:
        before = algorithm.get_weights()
        result = algorithm.train()
        after = algorithm.get_weights()
    assert result["timesteps_total"] >= 64
    moved = jax.tree.map(lambda old, new: np.isfinite(new).all() and (old != new).any(), before, after)
    assert any(jax.tree.leaves(moved))


@pytest.mark.parametrize(
    ("env_id", "env_config", "sentence"),
    [
        ("brax/ants", {}, "did you mean 'brax/ant'"),
        ("brax/ant", {"backends": "spring"}, "backends"),
        ("playground/CartpoleBallance", {}, "did you mean 'playground/CartpoleBalance'"),
        ("playground/CartpoleBalance", {"ctrl_dtt": 0.1}, "ctrl_dtt"),
        ("jumanji/Snake-v2", {}, "did you mean 'jumanji/Snake-v1'"),
        ("jumanji/Snake-v1", {"rows": 8}, "rows"),
        ("navix/Navix-Empty-5x5", {}, "did you mean 'navix/Navix-Empty-5x5-v0'"),
        ("navix/Navix-Empty-5x5-v0", {"observation_fn": "rbg"}, "rbg"),
        ("craftax/Craftax-Symbolic", {}, "did you mean 'craftax/Craftax-Symbolic-v1'"),
        ("craftax/Craftax-Classic-Symbolic-v1", {"max_steps": 8}, "its parameters are .*max_timesteps"),
        ("pgx/connect4", {}, "did you mean 'pgx/connect_four'"),
        ("pgx/hex", {"sizes": 8}, "the arguments of its class are size"),
    ],
)
def test_slips_are_named(env_id, env_config, sentence):
    need(env_id.split("/")[0])
    with pytest.raises(ValueError, match=sentence):
        PPOConfig().environment(env_id, env_config=env_config).build()

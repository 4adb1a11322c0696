"""MinAtar's games take the same steps as the originals, whose transitions `record_minatar.py` has recorded."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import athlete
from athlete import spaces
from athlete.algorithms.ppo import PPOConfig
from athlete.env.games.minatar import make_minatar
from athlete.env.games.minatar.asterix import Asterix, AsterixState, Spawn
from athlete.env.games.minatar.breakout import Breakout, BreakoutState
from athlete.env.games.minatar.freeway import Freeway, FreewayState
from athlete.env.games.minatar.game import MinAtarState, cell
from athlete.env.games.minatar.space_invaders import SpaceInvaders, SpaceInvadersState
from athlete.env.registry import MINATAR
from athlete.env.twins import find_twin
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.ops.random import wrap

KEY = jax.random.key(0)
NOOP, LEFT, RIGHT = 0, 1, 2  # of Breakout's three actions


def grids(column):
    """Grids `[N, 10, 10]` of zeros and ones from their bits in hexadecimal."""
    bits = np.unpackbits(np.array([list(bytes.fromhex(text)) for text in column], np.uint8), axis=1)
    return bits[:, :100].reshape(-1, 10, 10)


def to_breakout(column):
    direction = np.array(column["ball_dir"])
    return BreakoutState(
        paddle=np.array(column["pos"], np.int32),
        ball_y=np.array(column["ball_y"], np.int32),
        ball_x=np.array(column["ball_x"], np.int32),
        move_y=np.array([-1, -1, 1, 1], np.int32)[direction],
        move_x=np.array([-1, 1, 1, -1], np.int32)[direction],
        last_y=np.array(column["last_y"], np.int32),
        last_x=np.array(column["last_x"], np.int32),
        in_brick=np.array(column["strike"], bool),
        bricks=grids(column["brick_map"]).astype(bool),
    )


def to_asterix(column):
    entities = np.array([[entity or (0, 0, 0, 0) for entity in row] for row in column["entities"]], np.int32)
    present = np.array([[entity is not None for entity in row] for row in column["entities"]])
    numbers = {name: np.array(column[name], np.int32) for name in AsterixState._fields if name in column}
    return AsterixState(
        present=present,
        x=entities[:, :, 0],
        to_right=entities[:, :, 2].astype(bool),
        gold=entities[:, :, 3].astype(bool),
        **numbers,
    )


def to_spawn(chance):
    right, gold, row = (np.array([entity[i] if entity else 0 for entity in chance]) for i in (2, 3, 1))
    return Spawn(right.astype(bool), gold.astype(bool), (np.arange(1, 9) == row[:, None]).astype(np.float32))


def to_freeway(column):
    x, _, wait, speed = np.moveaxis(np.array(column["cars"], np.int32), 2, 0)
    chicken, rest, left = (np.array(column[name], np.int32) for name in ("pos", "move_timer", "terminate_timer"))
    return FreewayState(chicken, rest, x, wait, speed, left)


def to_space_invaders(column):
    maps = {name: grids(column.pop(name)).astype(bool) for name in ("f_bullet_map", "e_bullet_map", "alien_map")}
    cannon, reload, *rest = (np.array(numbers, np.int32) for numbers in column.values())
    return SpaceInvadersState(cannon, reload, *maps.values(), *rest)


def no_chance(chance):
    return ()


# The game, its states and its chance from what is recorded.
GAMES = {
    "asterix": (Asterix(), to_asterix, to_spawn),
    "breakout": (Breakout(), to_breakout, no_chance),
    "freeway": (Freeway(), to_freeway, partial(np.array, dtype=np.int32)),
    "space_invaders": (SpaceInvaders(), to_space_invaders, no_chance),
}


def recorded(game, folder=Path(__file__).parent / "minatar"):
    """A recording as columns `[N, ...]`: states, actions, chance, rewards, terminations, observations, next states."""
    recording = json.loads((folder / f"{game}.json").read_text())
    before, actions, chance, rewards, terminated, obs, after = zip(*recording["transitions"], strict=True)
    env, to_state, to_chance = GAMES[game]
    before, after = (
        to_state(dict(zip(recording["fields"], zip(*states, strict=True), strict=True))) for states in (before, after)
    )
    bits = np.unpackbits(np.array([list(bytes.fromhex(text)) for text in obs], np.uint8), axis=1)
    shape = env.observation_space.shape
    obs = bits[:, : np.prod(shape)].reshape(-1, *shape)
    actions, chance = np.array(actions, np.int32), to_chance(chance)
    return before, actions, chance, np.array(rewards), np.array(terminated, bool), obs, after


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, 0, 0))
def advance(env, game, action, chance):
    game, reward, terminated = env._advance(game, action, chance)
    return game, reward, terminated, env._observe(game)


@pytest.mark.parametrize("game", GAMES)
def test_steps_are_the_originals(game):
    before, actions, chance, rewards, terminated, obs, after = recorded(game)
    next_state, reward, end, next_obs = advance(GAMES[game][0], before, actions, chance)
    np.testing.assert_array_equal(next_obs, obs)
    np.testing.assert_array_equal(reward, rewards)
    np.testing.assert_array_equal(end, terminated)
    for name, ours, theirs in zip(after._fields, next_state, after, strict=True):
        if game == "asterix" and name in ("x", "to_right", "gold"):  # where nothing is they mean nothing
            ours, theirs = (np.where(after.present, column, 0).astype(theirs.dtype) for column in (ours, theirs))
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert ours.dtype == theirs.dtype, name


def test_the_recording_of_breakout_has_seen_all_that_can_happen():
    before, actions, _, rewards, terminated, _, after = recorded("breakout")
    caught = (before.ball_y == 8) & (after.move_y == -1)
    assert set(actions) == set(range(6))
    assert (rewards == 1).sum() > 20 and terminated.sum() > 5
    assert (caught & (after.move_x == before.move_x)).any() and (caught & (after.move_x != before.move_x)).any()
    assert (after.in_brick & (rewards == 0)).any(), "a ball that passes through a second brick"
    assert (after.bricks.sum((1, 2)) == 0).any(), "the last brick"
    assert (after.bricks.sum((1, 2)) > before.bricks.sum((1, 2))).any(), "a new wall"


def test_the_recording_of_asterix_has_seen_all_that_can_happen():
    before, _, chance, rewards, terminated, _, after = recorded("asterix")
    assert (rewards == 1).sum() > 10 and terminated.sum() > 10
    came = (chance.preference == 1) & ~before.present & after.present
    assert (came & after.gold).any() and (came & ~after.gold).any()
    assert (after.spawn_speed < before.spawn_speed).any() and (after.move_speed < before.move_speed).any()
    assert ((before.present & ~after.present).any(1) & (rewards == 0)).any(), "something that leaves the screen"


def test_the_recording_of_freeway_has_seen_all_that_can_happen():
    before, actions, _, rewards, terminated, _, after = recorded("freeway")
    assert (rewards == 1).sum() > 10 and terminated.sum() > 10
    assert ((before.chicken < 8) & (after.chicken == 9) & (rewards == 0)).any(), "a chicken hit by a car"
    assert (after.steps_left[~terminated] == 0).any() and (after.steps_left[terminated] == -1).all()
    assert ((actions == 4) & (after.chicken > before.chicken)).any(), "a chicken that goes back"
    wrapped = abs(after.x - before.x) == 9
    assert (wrapped & (after.x == 0)).any() and (wrapped & (after.x == 9)).any()
    assert set(np.unique(abs(after.speed))) == {1, 2, 3, 4, 5}


def test_the_recording_of_space_invaders_has_seen_all_that_can_happen():
    before, _, _, rewards, terminated, _, after = recorded("space_invaders")
    assert set(rewards) >= {0, 1, 2} and terminated.sum() > 10
    assert ((before.reload == 0) & (after.reload == 4)).any(), "a shot"
    assert (after.alien_move != before.alien_move).any(), "a turn"
    assert (after.alien_move_interval < before.alien_move_interval).any(), "a faster wave"
    assert ((before.aliens.sum((1, 2)) < 24) & (after.aliens.sum((1, 2)) == 24)).any(), "a new wave"
    assert (terminated & (after.aliens[:, 9].any(1) | before.aliens[:, 9].any(1))).any(), "a landing"
    assert (terminated & ~before.aliens[:, 8:].any((1, 2))).any(), "a cannon that is shot"


# Breakout's rules, by hand


def ball(y, x, move_y, move_x, paddle=4, bricks=(), in_brick=False):
    wall = np.zeros((10, 10), bool)
    for brick in bricks:
        wall[brick] = True
    numbers = (jnp.int32(number) for number in (paddle, y, x, move_y, move_x, y, x))
    return MinAtarState(BreakoutState(*numbers, jnp.asarray(in_brick), jnp.asarray(wall)), jnp.int32(0))


@jax.jit
def play(state, action=NOOP):
    return Breakout(sticky_action_prob=0.0).step(state, action, KEY)


def seen(state):
    game = state.game
    return int(game.ball_y), int(game.ball_x), int(game.move_y), int(game.move_x)


FAR = [(1, 9)]  # a brick out of the way: without any, a new wall would appear


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((5, 5, 1, 1), (6, 6, 1, 1)),
        ((5, 0, 1, -1), (6, 0, 1, 1)),  # the left wall: it slides down a cell and turns
        ((5, 9, -1, 1), (4, 9, -1, -1)),  # the right wall
        ((0, 5, -1, 1), (0, 6, 1, 1)),  # the ceiling
        ((0, 0, -1, -1), (0, 0, 1, 1)),  # the corner
        ((8, 4, 1, 1), (8, 5, -1, 1)),  # caught by the paddle below it
        ((8, 3, 1, 1), (8, 4, -1, -1)),  # caught by the paddle ahead of it
    ],
)
def test_the_ball_moves_and_bounces(before, after):
    state, step = play(ball(*before, bricks=FAR))
    assert seen(state) == after
    assert float(step.reward) == 0 and not step.terminated


def test_the_ball_is_lost_beside_the_paddle():
    state, step = play(ball(8, 6, 1, 1, bricks=FAR))
    assert bool(step.terminated) and not step.truncated and float(step.reward) == 0
    assert seen(state)[:2] == (9, 7)


def test_a_brick_is_broken_and_the_ball_thrown_back():
    state, step = play(ball(4, 5, -1, 1, bricks=[(3, 6), *FAR]))
    assert float(step.reward) == 1 and step.reward.dtype == np.float32
    assert seen(state) == (4, 6, 1, 1)
    np.testing.assert_array_equal(state.game.bricks, cell(1, 9))
    assert bool(state.game.in_brick)


def test_right_after_a_brick_the_next_one_is_passed_through():
    state, step = play(ball(4, 5, -1, 1, bricks=[(3, 6)], in_brick=True))
    assert float(step.reward) == 0 and bool(state.game.in_brick)
    assert seen(state) == (3, 6, -1, 1) and bool(state.game.bricks[3, 6])


def test_a_new_wall_appears_as_the_ball_reaches_the_bottom():
    state, _ = play(ball(7, 3, 1, 1))
    assert not state.game.bricks.any()
    state, step = play(state, action=NOOP)
    assert state.game.bricks[1:4].all() and int(state.game.bricks.sum()) == 30 and not step.terminated


def test_the_paddle_moves_within_the_walls_and_before_the_ball():
    assert int(play(ball(5, 5, 1, 1, paddle=0), LEFT)[0].game.paddle) == 0
    assert int(play(ball(5, 5, 1, 1, paddle=9), RIGHT)[0].game.paddle) == 9
    assert int(play(ball(5, 5, 1, 1, paddle=4), RIGHT)[0].game.paddle) == 5
    assert not play(ball(8, 6, 1, 1, paddle=5), RIGHT)[1].terminated


def test_episodes_start_at_either_side():
    keys = wrap(np.random.default_rng(0).integers(0, 2**32, (400, 2), dtype=np.uint32))
    state, obs = jax.jit(jax.vmap(Breakout().reset))(keys)
    right = np.asarray(state.game.ball_x) == 9
    assert 150 < right.sum() < 250
    np.testing.assert_array_equal(state.game.ball_x, np.where(right, 9, 0))
    np.testing.assert_array_equal(state.game.move_x, np.where(right, -1, 1))
    expected = np.zeros((10, 10, 4), np.float32)
    expected[9, 4, 0] = expected[3, 9, 1] = expected[3, 9, 2] = 1
    expected[1:4, :, 3] = 1
    np.testing.assert_array_equal(obs[right][0], expected)


# Chance and ramping


def test_chance_is_as_likely_as_in_the_originals():
    keys = wrap(np.random.default_rng(0).integers(0, 2**32, (20_000, 2), dtype=np.uint32))
    spawn = jax.jit(jax.vmap(Asterix()._draw))(keys)
    rows = np.bincount(np.argmax(spawn.preference, 1), minlength=8) / 20_000
    assert abs(spawn.to_right.mean() - 1 / 2) < 0.015 and abs(spawn.gold.mean() - 1 / 3) < 0.015
    np.testing.assert_allclose(rows, 1 / 8, atol=0.015)
    speeds = np.asarray(jax.jit(jax.vmap(Freeway()._draw))(keys))
    values, counts = np.unique(speeds, return_counts=True)
    assert list(values) == [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(counts / speeds.size, 1 / 10, atol=0.01)
    assert (abs(np.corrcoef(speeds.T) - np.eye(8)) < 0.04).all()


def test_games_can_do_without_ramping():
    before, actions, chance, _, _, _, _ = recorded("asterix")
    after, *_ = advance(Asterix(difficulty_ramping=False), before, actions, chance)
    for name in ("spawn_speed", "move_speed", "ramp_index"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    before, actions, chance, _, _, _, expected = recorded("space_invaders")
    after, *_ = advance(SpaceInvaders(difficulty_ramping=False), before, actions, chance)
    np.testing.assert_array_equal(after.alien_move_interval, before.alien_move_interval)
    np.testing.assert_array_equal(after.aliens, expected.aliens)


# Actions


def test_the_minimal_actions_are_among_all_six():
    assert Breakout().action_space == spaces.Discrete(3)
    assert Breakout(minimal_actions=False).action_space == spaces.Discrete(6)
    all_six = jax.jit(Breakout(sticky_action_prob=0.0, minimal_actions=False).step)
    paddles = [int(all_six(ball(5, 5, 1, 1), action, KEY)[0].game.paddle) for action in range(6)]
    assert paddles == [4, 3, 4, 5, 4, 4]
    assert [int(play(ball(5, 5, 1, 1), action)[0].game.paddle) for action in range(3)] == [4, 3, 5]


def test_sticky_actions_repeat_what_was_played():
    @jax.jit
    @partial(jax.vmap, in_axes=(None, None, 0))
    def right_after_left(probability, state, key):
        env = Breakout(sticky_action_prob=probability)
        state, _ = env.step(state._replace(last_action=jnp.int32(1)), RIGHT, key)
        return state.game.paddle, state.last_action

    keys = jax.random.split(KEY, 4000)
    for probability in (0.0, 0.1, 1.0):
        paddle, last = right_after_left(probability, ball(5, 5, 1, 1), keys)
        stuck = np.asarray(paddle) == 3
        np.testing.assert_array_equal(np.asarray(last), np.where(stuck, 1, 3))
        assert abs(stuck.mean() - probability) < 0.02
    assert right_after_left._cache_size() == 1


# Every game as an environment


@pytest.mark.parametrize("env_id", MINATAR)
def test_games_keep_the_contract(env_id):
    athlete.check_env(env_id)


@pytest.mark.parametrize("env_id", [env_id for env_id in MINATAR if env_id.endswith("v1")])
def test_games_run_compiled_and_mapped(env_id):
    env = make_minatar(env_id)

    @jax.jit
    @jax.vmap
    def returns(key):
        def one(carried, key):
            state, total = carried
            action_key, step_key = jax.random.split(key)
            action = jax.random.randint(action_key, (), 0, env.action_space.n)
            state, step = env.step(state, action, step_key)
            return (state, total + step.reward), step.obs

        state, _ = env.reset(key)
        return jax.lax.scan(one, (state, 0.0), jax.random.split(key, 300))

    (_, total), obs = returns(jax.random.split(KEY, 8))
    assert total.shape == (8,) and (total >= 0).all()
    assert (obs[0] != obs[1]).any() and set(np.unique(obs)) == {0.0, 1.0}


def test_ids_choose_actions_and_the_limit():
    assert make_minatar("MinAtar/Breakout-v1") == TimeLimit(Breakout(), 1000)
    assert make_minatar("MinAtar/Breakout-v0") == TimeLimit(Breakout(minimal_actions=False), 1000)
    changed = make_minatar("MinAtar/Breakout-v1", {"sticky_action_prob": 0.0, "max_episode_steps": 7})
    assert changed == TimeLimit(Breakout(sticky_action_prob=0.0), 7)
    assert make_minatar("MinAtar/Breakout-v1", {"max_episode_steps": -1}) == Breakout()
    assert make_minatar("MinAtar/Breakout-v1", {"max_episode_steps": None}).max_episode_steps == 1000


@pytest.mark.parametrize("env_id", MINATAR)
def test_ids_are_found_everywhere(env_id):
    env, sentence = find_twin(env_id)
    assert env == make_minatar(env_id)
    assert sentence == f"{env_id} runs compiled (athlete.env.games.minatar); Gymnasium itself has no such id"


def test_the_command_lists_and_checks_the_games():
    from athlete.cli.main import app

    listed = CliRunner().invoke(app, ["list", "environments"]).stdout.splitlines()
    environments = dict(line.split(maxsplit=1) for line in listed if line.endswith("compiled"))
    assert {env_id: environments[env_id] for env_id in MINATAR} == dict.fromkeys(MINATAR, "compiled")
    assert CliRunner().invoke(app, ["check", "MinAtar/Breakout-v1"]).stdout == "MinAtar/Breakout-v1: ok\n"


def test_slips_are_answered():
    with pytest.raises(ValueError, match="did you mean 'MinAtar/Breakout-v1'"):
        PPOConfig().environment("MinAtar/Breakuot-v1").build()
    with pytest.raises(ValueError, match="it has no 'sticky_prob'; did you mean 'sticky_action_prob'"):
        PPOConfig().environment("MinAtar/Breakout-v1", env_config={"sticky_prob": 0.0}).build()
    with pytest.raises(ValueError, match="it is a JAX environment"):
        PPOConfig().environment("MinAtar/Breakout-v1", backend="gymnasium").build()


def test_ppo_trains_and_films_and_is_restored(tmp_path):
    config = PPOConfig().environment("MinAtar/Breakout-v1", env_config={"max_episode_steps": 20})
    config.training(train_batch_size=64, minibatch_size=32, num_epochs=1, model={"fcnet_hiddens": [8]})
    config.rollouts(num_envs_per_worker=2)
    with config.build() as algo:
        assert algo.train()["timesteps_total"] == 64
        assert len(algo.record_video(tmp_path)) == 1
        path = algo.save(tmp_path / "checkpoint")
    with athlete.Algorithm.from_checkpoint(path) as restored:
        assert restored.train()["timesteps_total"] == 128


def test_pictures_show_the_first_channel_on_top():
    env = make_minatar("MinAtar/Breakout-v1")
    state, _ = env.reset(KEY)
    picture = env.render(state)
    assert picture.shape == (160, 160, 3) and picture.dtype == np.uint8
    x = int(state.env_state.game.ball_x)
    assert tuple(picture[3 * 16, x * 16]) == tuple(picture[3 * 16 + 15, x * 16 + 15]) == Breakout.channels["ball"]
    assert tuple(picture[159, 4 * 16]) == Breakout.channels["paddle"]
    assert tuple(picture[16, 16]) == Breakout.channels["brick"] and not picture[0].any()


def test_names_import_neither_jax_nor_gymnasium():
    program = (
        "import sys; from athlete.env.registry import resolve\n"
        "assert callable(resolve('MinAtar/Breakout-v1'))\n"
        "assert not {'jax', 'gymnasium'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""Atari, by Gymnasium's preprocessing and by EnvPool: what agents see, when rows end, and what a missing extra says."""

from __future__ import annotations

import importlib.util
import sys

import gymnasium
import numpy as np
import pytest

from athlete.algorithms.ppo import PPOConfig
from athlete.env.world import find_world
from athlete.spaces import Box, Discrete

needs_atari = pytest.mark.skipif(
    not (importlib.util.find_spec("ale_py") and importlib.util.find_spec("cv2")), reason="needs ale-py and OpenCV"
)
needs_envpool = pytest.mark.skipif(not importlib.util.find_spec("envpool"), reason="needs EnvPool")
BACKENDS = [pytest.param("auto", marks=needs_atari), pytest.param("envpool", marks=needs_envpool)]
SCREEN = Box(0, 255, (84, 84, 4), np.uint8)
NOTHING = np.zeros(2, np.int32)
SMALL = {"conv_filters": [[2, 8, 8]], "fcnet_hiddens": [4]}


def key(*numbers):
    return np.array(numbers, np.uint32)


def source(backend, env_config, rows=2, env="ALE/Pong-v5", **preferred):
    return find_world(env, env_config, backend, **preferred).source(num_envs_per_worker=rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_game_is_shown_as_to_dqn_four_grey_frames_of_84_by_84(backend):
    rows = source(backend, {})
    assert (rows.spec.obs, rows.spec.action) == (SCREEN, Discrete(6))
    obs = rows.reset(key(0, 1))
    assert (obs.shape, obs.dtype) == ((2, 84, 84, 4), np.uint8)
    for _ in range(12):
        before, obs = obs, rows.step(NOTHING + 2, None).obs
    np.testing.assert_array_equal(obs[..., :3], before[..., 1:], "the newest frame is the last channel")
    assert (obs[..., 3] != obs[..., 0]).any(), "the paddle has moved"
    rows.close()


@needs_atari
def test_preprocessing_can_be_turned_off_and_set():
    assert source("auto", {}, preprocessor_pref=None).spec.obs == Box(0, 255, (210, 160, 3), np.uint8)
    smaller = source("auto", {"screen_size": 42, "stack_size": 2, "grayscale_obs": False})
    assert smaller.spec.obs == Box(0, 255, (42, 42, 6), np.uint8)
    assert smaller.reset(key(0, 1)).shape == (2, 42, 42, 6)


@needs_atari
@pytest.mark.parametrize("env_id", ["Pong-v0", "Pong-v4", "PongNoFrameskip-v4", "ale_py:Pong-v4"])
def test_ids_of_all_eras_are_preprocessed_alike(env_id):
    assert source("auto", {}, env=env_id).spec.obs == SCREEN


def test_a_game_of_ones_own_under_an_old_id_is_taken_as_it_is(monkeypatch):
    monkeypatch.delitem(gymnasium.registry, "Tennis-v0", raising=False)
    gymnasium.register("Tennis-v0", entry_point=OwnTennis)
    assert source("auto", {}, env="Tennis-v0").spec.obs == Box(0, 1, (1,))
    del gymnasium.registry["Tennis-v0"]


class OwnTennis(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_key_starts_the_same_episodes(backend):
    def play(number):
        rows = source(backend, {})
        shown = [rows.reset(key(0, number))] + [rows.step(NOTHING + t % 6, None).obs for t in range(12)]
        rows.close()
        return np.stack(shown)

    np.testing.assert_array_equal(play(3), play(3))
    assert (play(3) != play(4)).any()


@needs_envpool
def test_envpool_never_resets_a_row_by_itself():
    """Cut after 3 steps: the third shows where it led and terminates nothing; the loop's reset comes next."""
    rows = source("envpool", {"max_episode_steps": 3, "noop_max": 1})
    rows.reset(key(0, 1))
    for t in range(1, 4):
        step = rows.step(NOTHING, None)
        assert step.truncated.tolist() == [t == 3] * 2 and not step.terminated.any()
        assert [info["elapsed_step"] for info in step.info] == [t, t]
    fresh = rows.reset_where(step.truncated & [True, True], step.obs, None)
    assert (fresh != step.obs).any(), "of another episode"
    after = rows.step(NOTHING, None)
    assert [info["elapsed_step"] for info in after.info] == [1, 1], "taken; EnvPool alone would have reset"
    np.testing.assert_array_equal(after.obs[..., :3], fresh[..., 1:])
    rows.close()


@needs_envpool
def test_envpool_resets_only_the_rows_that_are_done_and_keeps_the_observations_of_the_others():
    rows = source("envpool", {})
    rows.reset(key(0, 1))
    for _ in range(30):
        step = rows.step(np.array([2, 3], np.int32), None)
    kept = step.obs.copy()
    fresh = rows.reset_where(np.array([False, True]), step.obs, None)
    np.testing.assert_array_equal(fresh[0], kept[0])
    assert (fresh[1] != kept[1]).any()
    np.testing.assert_array_equal(step.obs, kept, "the transition's own observation is not written over")
    infos = rows.step(NOTHING, None).info
    assert [infos[row]["elapsed_step"] for row in range(2)] == [31, 1]
    rows.close()


@needs_envpool
def test_envpool_keeps_termination_apart_from_the_time_limit():
    """A pole that is pushed one way falls: terminated; one whose time is up is cut."""
    rows = source("envpool", {}, env="CartPole-v1")
    assert rows.spec.obs.shape == (4,)
    rows.reset(key(0, 1))
    fallen = next(step for step in iter(lambda: rows.step(NOTHING, None), None) if step.terminated.any())
    assert not (fallen.terminated & fallen.truncated).any()
    rows.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_ppo_trains_and_evaluates_on_pong(backend):
    limit = {"max_episode_steps": 20} if backend == "envpool" else {"max_num_frames_per_episode": 80, "noop_max": 1}
    config = PPOConfig().environment("ALE/Pong-v5", env_config=limit, backend=backend, disable_env_checking=True)
    config.rollouts(num_envs_per_worker=2).training(train_batch_size=64, minibatch_size=32, num_epochs=1, model=SMALL)
    with config.debugging(seed=0).build() as algo:
        result = algo.train()
        assert result["timesteps_total"] == 64
        assert result["episode_len_mean"] == pytest.approx(20, abs=1)
        evaluation = algo.evaluate(episodes=2)["evaluation"]
        assert evaluation["episodes_this_iter"] == 2


@needs_envpool
def test_what_envpool_does_not_have_is_named():
    with pytest.raises(ValueError, match=r"EnvPool has no 'Pongg-v5'; did you mean 'Pong-v5'"):
        find_world("ALE/Pongg-v5", {}, "envpool")
    with pytest.raises(ValueError, match=r"env_config=\{'frame_skp': 2\} does not fit EnvPool's 'Pong-v5'"):
        find_world("ALE/Pong-v5", {"frame_skp": 2}, "envpool")
    with pytest.raises(ValueError, match="EnvPool makes environments from their ids"):
        find_world(lambda: None, {}, "envpool")


@pytest.mark.parametrize(
    ("missing", "backend", "advice"),
    [
        ("ale_py", "auto", "pip install ale-py opencv-python-headless"),
        ("ale_py", "gymnasium", "pip install ale-py opencv-python-headless"),
        ("envpool", "envpool", "pip install envpool"),
    ],
)
def test_a_missing_extra_says_in_a_sentence_what_to_install(missing, backend, advice, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=advice):
        find_world("ALE/Pong-v5", {}, backend)


@needs_atari
def test_atari_has_no_compiled_form():
    with pytest.raises(ValueError, match=r"Atari has no JAX form; backend='envpool' is its fast one"):
        find_world("ALE/Pong-v5", {}, "jax")


@needs_envpool
@pytest.mark.parametrize(
    ("env", "env_config", "sentence"),
    [
        ("ALE/Pong-v5", {"num_envs": 4}, r"env_config=\{'num_envs': 4\}: num_envs_per_worker says that"),
        ("ALE/Pong-v5", {"seed": 4}, r"\.debugging\(seed=\.\.\.\) says that"),
        ("ALE/Pong-v5", {"batch_size": 1}, "num_envs_per_worker says that"),
    ],
)
def test_what_is_set_elsewhere_is_refused_in_a_pools_settings(env, env_config, sentence):
    with pytest.raises(ValueError, match=sentence):
        source("envpool", env_config, env=env)


@needs_envpool
def test_pictures_of_a_pool_keep_their_channels_last_where_they_are():
    rows = source("envpool", {}, env="CarRacing-v3")
    assert rows.spec.obs.shape == (96, 96, 3)
    assert rows.reset(key(0, 1)).shape == (2, 96, 96, 3)
    rows.close()


@needs_atari
@needs_envpool
def test_what_plays_in_a_pool_is_filmed_in_gymnasiums_form(tmp_path):
    config = PPOConfig().environment("ALE/Pong-v5", backend="envpool", env_config={"stack_num": 2, "img_height": 40})
    config.rollouts(num_envs_per_worker=2).training(train_batch_size=8, minibatch_size=8, num_epochs=1, model=SMALL)
    with config.build() as algo:
        film = algo._world.make_for_film()
        assert film.reset(seed=0)[0].shape == algo.agent.spec.obs.shape == (40, 84, 2)
        film.close()


@needs_atari
@pytest.mark.parametrize("entry", ["frameskip", "obs_type", "frame_stack"])
def test_settings_that_the_preprocessing_has_itself_are_refused(entry):
    with pytest.raises(ValueError, match=rf"env_config=\{{'{entry}': 2\}}.*(preprocessing|stack_size)"):
        source("auto", {entry: 2})


@needs_atari
def test_older_ids_are_preprocessed_too():
    assert source("auto", {}, env="PongNoFrameskip-v4").spec.obs == SCREEN

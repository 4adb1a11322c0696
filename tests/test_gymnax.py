"""gymnax's environments through the adapter. `make test-extras` has an environment with the package for them."""

import numpy as np
import pytest

from athlete.algorithms.ppo import PPOConfig
from athlete.env.checks.check import check_env


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    from athlete.env.adapters import gymnax

    gymnax._made.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "gymnax", None)
    with pytest.raises(ValueError, match=r"gymnax is missing; pip install gymnax six"):
        PPOConfig().environment("gymnax/CartPole-v1").build()


@pytest.fixture
def gymnax():
    return pytest.importorskip("gymnax")


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Breakout-MinAtar", "Catch-bsuite", "FourRooms-misc"])
def test_environments_keep_the_promises_of_ours(gymnax, name):
    check_env(f"gymnax/{name}")


def test_an_episode_is_gymnaxs_step_by_step(gymnax):
    import jax

    from athlete.env.adapters.gymnax import make_gymnax

    ours = make_gymnax("gymnax/Breakout-MinAtar", {"max_steps_in_episode": 30})
    theirs, params = gymnax.make("Breakout-MinAtar")
    params = params.replace(max_steps_in_episode=30)
    key = jax.random.key(3)
    state, obs = ours.reset(key)
    their_obs, their_state = theirs.reset_env(key, params)
    for i in range(30):
        np.testing.assert_array_equal(obs, np.asarray(their_obs, obs.dtype))
        step_key, action = jax.random.fold_in(key, i), i % 3
        state, step = ours.step(state, action, step_key)
        their_obs, their_state, reward, terminated, _ = theirs.step_env(step_key, their_state, action, params)
        assert (step.reward, step.terminated) == (reward, terminated)
        assert step.truncated == (i == 29)
        obs = step.obs
        if terminated:
            break


def test_training_reads_settings_of_the_parameters(gymnax):
    config = PPOConfig().environment("gymnax/CartPole-v1", env_config={"max_steps_in_episode": 5})
    with config.training(train_batch_size=256, num_epochs=1).build() as algorithm:
        assert algorithm.train()["episode_len_mean"] == 5


def test_lists_of_files_are_settings_too(gymnax):
    from athlete.env.adapters.gymnax import make_gymnax

    assert dict(make_gymnax("gymnax/FourRooms-misc", {"goal_fixed": [8, 9]}).settings) == {"goal_fixed": (8, 9)}


@pytest.mark.parametrize(
    ("name", "env_config", "sentence"),
    [
        ("CartPole-v2", {}, "did you mean 'gymnax/CartPole-v1'?"),
        ("CartPole-v1", {"gravty": 3.0}, "gravty is neither one of its parameters .*gravity"),
    ],
)
def test_slips_are_named(gymnax, name, env_config, sentence):
    with pytest.raises(ValueError, match=sentence):
        PPOConfig().environment(f"gymnax/{name}", env_config=env_config).build()

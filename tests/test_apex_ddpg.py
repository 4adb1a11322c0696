"""Ape-X DDPG: ladders of noise over all rows, wherever they are."""

import jax
import numpy as np
import pytest
from test_workers import config
from working import Swing

from athlete import exploration
from athlete.algorithms import ApexDDPGConfig, get_config_class
from athlete.ops.random import wrap

KEY = wrap(np.array([0, 1], np.uint32))
SCALES = 0.4 ** np.array([1.0, 4.5, 8.0])


def noises(kind, steps):
    """What three rows add to actions of 0 `[steps, 3, 2]`, in one episode."""

    def one(carry, key):
        first = np.zeros(3, bool)
        action, carry = kind.add_noise(np.zeros((3, 2), np.float32), kind.rate(0.0), carry, first, key)
        return carry, action

    keys = jax.random.split(KEY, steps)
    return np.asarray(jax.jit(lambda start: jax.lax.scan(one, start, keys)[1])(kind.start(3, 2, KEY)))


def test_every_row_adds_noise_of_its_own_scale():
    added = noises(exploration.PerWorkerGaussianNoise(stddev=0.5), 20_000)
    np.testing.assert_allclose(np.std(added, axis=(0, 2)), 0.5 * SCALES, rtol=0.03)


def test_so_does_noise_that_drifts():
    added = noises(exploration.PerWorkerOrnsteinUhlenbeckNoise(theta=0.5), 20_000)
    # Of x <- (1 - theta) x + sigma N the variance is sigma^2 / (1 - (1 - theta)^2), and actions range over 2.
    expected = 2 * 0.1 * SCALES * 0.2 / np.sqrt(1 - 0.25)
    np.testing.assert_allclose(np.std(added, axis=(0, 2)), expected, rtol=0.05)
    products = added[1:, 0] * added[:-1, 0]
    assert np.mean(products) == pytest.approx(0.5 * expected[0] ** 2, rel=0.1), "it remembers"


@pytest.mark.parametrize("kind", ["PerWorkerGaussianNoise", "PerWorkerOrnsteinUhlenbeckNoise"])
def test_it_learns_from_workers_as_they_come(kind):
    made = ApexDDPGConfig().environment(Swing, disable_env_checking=True).debugging(seed=3)
    made.rollouts(num_rollout_workers=2, num_envs_per_worker=2, rollout_fragment_length=4)
    made.training(train_batch_size=16, num_steps_sampled_before_learning_starts=32, model={"fcnet_hiddens": [8]})
    made.training(training_intensity=4, replay_buffer_config={"capacity": 400})
    made.exploration(exploration_config={"type": kind, "random_timesteps": 16})
    with made.reporting(min_sample_timesteps_per_iteration=32).build() as algorithm:
        for _ in range(3):
            result = algorithm.train()
    assert np.isfinite(result["info"]["learner"]["default_policy"]["learner_stats"]["critic_loss"])
    assert result["policy_lag"] >= 0.0


def test_it_learns_without_workers_too():
    settings = {**config("SAC", env="Pendulum-v1").chosen(), "training_intensity": 4}
    settings = {name: value for name, value in settings.items() if name not in ("workers_act", "num_rollout_workers")}
    with ApexDDPGConfig.from_dict(settings).build() as algorithm:
        result = algorithm.train()
    assert np.isfinite(result["info"]["learner"]["default_policy"]["learner_stats"]["critic_loss"])


def test_its_names_and_defaults_are_rllibs():
    assert get_config_class("APEX_DDPG") is get_config_class("apexddpg") is ApexDDPGConfig
    found = ApexDDPGConfig()
    assert (found.n_step, found.train_batch_size, found.rollout_fragment_length) == (3, 512, 50)
    assert found.num_steps_sampled_before_learning_starts == 50_000 and found.target_network_update_freq == 500_000
    assert found.tau == 0.002 and not found.twin_q, "as DDPG's"
    chosen = found.exploration_settings().exploration
    assert chosen["type"] == "PerWorkerOrnsteinUhlenbeckNoise" and (chosen["scale"], chosen["exponent"]) == (0.4, 7.0)

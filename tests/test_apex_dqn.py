"""Ape-X DQN: a ladder of epsilons over all rows, wherever they are."""

import jax
import numpy as np
import pytest
from test_workers import config
from working import Pole

from athlete import exploration
from athlete.algorithms import ApexDQNConfig, get_config_class
from athlete.core import Spec
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))
SPEC = Spec(Box(0, 1, (3,)), Discrete(2))


def test_every_row_keeps_the_epsilon_of_its_rung():
    ladder = exploration.PerWorkerEpsilonGreedy()
    # .4 to the powers 1, 1 + 7/3, 1 + 14/3, 8
    np.testing.assert_allclose(ladder.start(4, 1, KEY), [0.4, 0.4 ** (10 / 3), 0.4 ** (17 / 3), 0.4**8], rtol=1e-5)
    np.testing.assert_allclose(ladder.start(1, 1, KEY), [0.4], rtol=1e-6)


def test_rows_act_at_random_as_often_as_their_rung_says():
    agent = ApexDQNConfig().make_agent(SPEC)
    assert isinstance(agent.exploration, exploration.PerWorkerEpsilonGreedy)
    rows, steps = 3, 4000

    @jax.jit
    def play(agent):
        state = agent.init(KEY)
        view = agent.view(state, 0.5)
        carry = agent.start(view, rows, KEY)
        obs, first = np.zeros((rows, 3), np.float32), np.zeros(rows, bool)
        acts = jax.vmap(lambda key: agent.act(view, carry, obs, first, key)[0])(jax.random.split(KEY, steps))
        return acts, agent.act(view, carry, obs, first, KEY, explore=False)[0]

    actions, greedy = play(agent)
    other = np.mean(np.asarray(actions) != np.asarray(greedy), axis=0)  # half of what is drawn is the best one
    np.testing.assert_allclose(other, 0.5 * 0.4 ** np.array([1.0, 4.5, 8.0]), atol=0.02)


@pytest.mark.parametrize("how", [True, False])
def test_the_ladder_is_one_over_all_workers(how):
    made = ApexDQNConfig().environment(Pole, disable_env_checking=True).debugging(seed=3)
    made.rollouts(num_rollout_workers=2, num_envs_per_worker=2, rollout_fragment_length=4, sample_async=how)
    made.training(train_batch_size=16, num_steps_sampled_before_learning_starts=32, model={"fcnet_hiddens": [8]})
    made.training(hiddens=[], training_intensity=4, replay_buffer_config={"capacity": 400}).reporting(
        min_sample_timesteps_per_iteration=16
    )
    with made.build() as algorithm:
        seen = {}
        came = algorithm._training._collected

        def spy(*arguments):
            found = came(*arguments)
            pairs = found if isinstance(found[0], tuple) and not hasattr(found[0], "steps") else enumerate(found)
            # The only float32 of one number a row and step that stays: the carry's epsilon.
            for worker, fragment in pairs:
                rungs = [leaf for leaf in fragment.steps if leaf.shape == (4, 2) and leaf.dtype == np.float32]
                constant = [leaf[0] for leaf in rungs if (leaf == leaf[0]).all() and 0 < leaf[0, 0] <= 0.4]
                seen[worker] = constant[0]
            return found

        algorithm._training._collected = spy
        algorithm.train()
        algorithm.train()
    found = np.concatenate([seen[worker] for worker in sorted(seen)])
    np.testing.assert_allclose(found, 0.4 ** (1 + 7 * np.arange(4) / 3), rtol=1e-5)


def test_it_learns_from_replay_without_workers_too():
    settings = {**config("DQN").chosen(), "env": "CartPole-v1", "training_intensity": 4}
    settings = {name: value for name, value in settings.items() if name not in ("workers_act", "num_rollout_workers")}
    with ApexDQNConfig.from_dict(settings).build() as algorithm:
        result = algorithm.train()
    assert np.isfinite(result["info"]["learner"]["default_policy"]["learner_stats"]["loss"])


def test_its_names_and_defaults_are_rllibs():
    assert get_config_class("APEX") is get_config_class("apexdqn") is ApexDQNConfig
    found = ApexDQNConfig()
    assert (found.n_step, found.train_batch_size, found.rollout_fragment_length) == (3, 512, 50)
    assert found.num_steps_sampled_before_learning_starts == 50_000 and found.target_network_update_freq == 500_000
    assert found.exploration_settings().exploration["type"] == "PerWorkerEpsilonGreedy"

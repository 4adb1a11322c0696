"""Priorities of new steps by what acted: TD errors of every window, in workers and in the learner."""

import jax
import numpy as np
import pytest
from test_workers import config
from working import Pole, Swing

from athlete.algorithms import get_config_class
from athlete.algorithms.dqn import DQN
from athlete.algorithms.td3 import TD3
from athlete.core import Spec, Transition
from athlete.memory.prioritized import Prioritized
from athlete.models.mlp import MLP
from athlete.ops.random import wrap
from athlete.ops.td import every_window
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 1], np.uint32))
STEPS, ROWS = 5, 2


def trajectory(continuous=False, seed=0):
    """The third step of row 0 terminates, the second of row 1 is cut; the reward of a step is its number."""
    random = np.random.default_rng(seed)
    obs, next_obs = random.normal(size=(2, STEPS, ROWS, 2)).astype(np.float32)
    shape = (STEPS, ROWS, 2) if continuous else (STEPS, ROWS)
    action = (
        random.uniform(-1, 1, shape).astype(np.float32)
        if continuous
        else random.integers(3, size=shape).astype(np.int32)
    )
    terminated, truncated = np.zeros((2, STEPS, ROWS), bool)
    terminated[2, 0] = truncated[1, 1] = True
    first = np.zeros((STEPS, ROWS), bool)
    first[1:] = (terminated | truncated)[:-1]
    reward = np.arange(STEPS * ROWS, dtype=np.float32).reshape(STEPS, ROWS)
    return Transition(obs, first, action, reward, next_obs, terminated, truncated, (), {})


def test_every_step_begins_a_window_and_those_that_the_end_cuts_stop_there():
    windows = jax.device_get(jax.jit(every_window, static_argnums=1)(trajectory(), 2))
    begun = windows.reward[0].reshape(STEPS, ROWS)
    np.testing.assert_array_equal(begun, trajectory().reward)
    follows = windows.reward[1].reshape(STEPS, ROWS)
    np.testing.assert_array_equal(follows[:-1], trajectory().reward[1:])
    assert windows.first[1].reshape(STEPS, ROWS)[-1].all(), "nothing follows the last step"
    np.testing.assert_array_equal(windows.first[1].reshape(STEPS, ROWS)[:-1], trajectory().first[1:])


AGENTS = {
    "DQN": (DQN(n_step=2, model=MLP((3,)), lr=0.0), Spec(Box(-9, 9, (2,)), Discrete(3))),
    "C51": (DQN(n_step=2, model=MLP((3,)), lr=0.0, num_atoms=5), Spec(Box(-9, 9, (2,)), Discrete(3))),
    "DDPG": (
        TD3(n_step=2, twin_q=False, smooth_target_policy=False, policy_delay=1, memory=Prioritized(rated=True)),
        Spec(Box(-9, 9, (2,)), Box(-1, 1, (2,))),
    ),
}


@pytest.mark.parametrize("kind", list(AGENTS))
def test_they_are_the_errors_of_an_update_whose_target_is_what_acts(kind):
    """Those of whole windows; references of whole updates are in `test_references.py`."""
    agent, spec = AGENTS[kind]
    agent, steps = agent.bind(spec), trajectory(continuous=kind == "DDPG")
    state = jax.jit(agent.init)(KEY)  # both networks are alike
    found = jax.jit(lambda agent, state, steps: agent.td_errors(agent.view(state, 0.0), steps))(agent, state, steps)
    windows = jax.tree.map(lambda leaf: np.concatenate([leaf[t : t + 2] for t in range(STEPS - 1)], 1), steps)
    _, metrics = jax.jit(lambda agent, state, batch: agent.update(state, batch, KEY, 0.0))(agent, state, windows)
    assert found.shape == (STEPS, ROWS)
    np.testing.assert_allclose(np.abs(found[:-1]).ravel(), np.abs(metrics["td_error"]), rtol=1e-4, atol=1e-5)


def test_new_windows_begin_with_them_and_those_of_the_trajectory_before_with_the_largest():
    memory = Prioritized(alpha=0.5, epsilon=0.0, capacity=20, window=2, unroll=STEPS, rated=True)
    steps = trajectory()
    store = memory.init(jax.tree.map(lambda leaf: np.zeros(leaf.shape[2:], leaf.dtype), steps), ROWS)
    error = np.arange(1.0, 11.0, dtype=np.float32).reshape(STEPS, ROWS) ** 2
    add = jax.jit(lambda memory, store, steps: memory.add(store, steps))
    store = add(memory, store, steps._replace(extras={"td_error": -error}))
    leaves = np.ravel(store.tree[0])
    np.testing.assert_allclose(leaves[: 4 * ROWS], np.arange(1.0, 9.0), rtol=1e-6)
    assert (leaves[4 * ROWS : 5 * ROWS] == 0).all(), "the last ones are not whole yet"
    assert store.largest == 8.0, "of those that are whole"
    store = add(memory, store, steps._replace(extras={"td_error": np.zeros_like(error)}))
    leaves = np.ravel(store.tree[0])
    np.testing.assert_allclose(leaves[4 * ROWS : 5 * ROWS], 8.0)


def small(kind, env, workers, **rollouts):
    made = get_config_class(kind)().environment(env, disable_env_checking=True).debugging(seed=3)
    made.rollouts(num_rollout_workers=workers, num_envs_per_worker=2, rollout_fragment_length=4, **rollouts)
    made.training(train_batch_size=16, num_steps_sampled_before_learning_starts=32, model={"fcnet_hiddens": [8]})
    made.training(training_intensity=4, replay_buffer_config={"capacity": 400})
    return made.reporting(min_sample_timesteps_per_iteration=16)


@pytest.mark.parametrize(("kind", "env"), [("ApexDQN", Pole), ("ApexDDPG", Swing)])
def test_workers_that_are_taken_as_they_come_find_them(kind, env):
    with small(kind, env, 2).build() as algorithm:
        given, came = [], algorithm._training._collected

        def spy(*arguments):
            found = came(*arguments)
            trajectory, *_ = algorithm._training._form.join([fragment for _, fragment in found])
            given.append(trajectory.extras["td_error"])
            return found

        algorithm._training._collected = spy
        for _ in range(3):
            result = algorithm.train()
    assert given[0].shape == (4, 2) and np.abs(given[0]).min() > 0
    stats = result["info"]["learner"]["default_policy"]["learner_stats"]
    assert np.isfinite([value for name, value in stats.items() if "loss" in name]).all()


@pytest.mark.parametrize("wrapped", [False, True])
def test_without_workers_the_learner_finds_them(wrapped):
    made = small("ApexDQN", "CartPole-v1", 0)
    if wrapped:
        made.rollouts(observation_filter="MeanStdFilter").environment(clip_rewards=True)
    with made.build() as algorithm:
        assert algorithm.agent.memory.rated
        algorithm.train()
        leaves = np.ravel(jax.device_get(algorithm.run.store.tree[0]))
    whole = leaves[leaves > 0]
    assert len(np.unique(whole.round(6))) > len(whole) // 2, "hardly two are alike"


def test_the_setting_is_rllibs_and_refused_where_there_are_none():
    assert get_config_class("ApexDQN")().make_agent(Spec(Box(0, 1, (3,)), Discrete(2))).memory.rated
    off = config("DQN").training(replay_buffer_config={"worker_side_prioritization": False})
    assert not off.make_agent(Spec(Box(0, 1, (4,)), Discrete(2))).memory.rated
    prioritized = {"type": "PrioritizedReplayBuffer", "worker_side_prioritization": True}
    with pytest.raises(ValueError, match=r"SAC: .*worker_side_prioritization=True.*leave it out"):
        config("SAC", env=Swing).training(replay_buffer_config=prioritized).build()
    with pytest.raises(ValueError, match="expected True or False"):
        config("DQN").training(replay_buffer_config={"worker_side_prioritization": 1})

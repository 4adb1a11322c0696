"""Written once: on-policy agents take the same steps compiled and hosted, resume exactly and serve every space."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from modes import CARTPOLE, PENDULUM, assert_modes_are_equal, assert_resumes

from athlete.algorithms import get_config_class
from athlete.algorithms.a2c import A2C
from athlete.algorithms.appo import APPO
from athlete.algorithms.impala import IMPALA
from athlete.algorithms.pg import PG
from athlete.algorithms.ppo import PPO
from athlete.algorithms.trpo import TRPO
from athlete.core import Spec
from athlete.loops.learn import init_run, iterate_many
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.models.separate import Separate
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

FALLING = Schedule((0.0, 1.0), (1e-2, 0.0))
MEMORY = {"model": GRU(8, ()), "max_seq_len": 4}
CASES = {
    "A2C, Discrete": (CARTPOLE, A2C(lr=FALLING, model=Separate(MLP((8,))), lambda_=0.9)),
    "A2C with a memory, Box": (PENDULUM, A2C(lr=1e-2, **MEMORY)),
    "IMPALA, Discrete": (CARTPOLE, IMPALA(lr=FALLING, model=Separate(MLP((8,))), num_epochs=2)),
    "IMPALA with a memory, Box": (PENDULUM, IMPALA(lr=1e-2, **MEMORY)),
    "APPO, Discrete": (CARTPOLE, APPO(lr=FALLING, model=Separate(MLP((8,))), target_update_frequency=2)),
    "APPO with a memory, Box": (PENDULUM, APPO(lr=1e-2, kl_coeff=0.5, num_epochs=2, **MEMORY)),
    "PPO with moved means, Box": (
        PENDULUM,
        PPO(lr=FALLING, rpo_alpha=0.5, num_epochs=2, minibatch_size=16, model=Separate(MLP((8,)))),
    ),
    "PG, Box": (PENDULUM, PG(lr=FALLING, model=MLP((8,)))),
    "PG with a memory and without a critic, Discrete": (CARTPOLE, PG(lr=1e-2, use_critic=False, **MEMORY)),
    "TRPO, Discrete": (CARTPOLE, TRPO(lr=FALLING, model=MLP((8,)), minibatch_size=16, num_epochs=2)),
    "TRPO with a memory, Box": (PENDULUM, TRPO(lr=1e-2, minibatch_size=16, num_epochs=2, **MEMORY)),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_iterations_are_the_same_compiled_and_hosted(case):
    env, agent = CASES[case]
    # TRPO's conjugate gradients and the step's length enlarge what two programs round differently.
    assert_modes_are_equal(env, agent, rows=4, length=8, tolerance=1e-3 if isinstance(agent, TRPO) else 1e-5)


TRAININGS = {
    "A2C": {"lr_schedule": [[0, 1e-2], [400, 1e-3]], "model": {"fcnet_hiddens": [8]}},
    "IMPALA": {"model": {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 4}},
    "APPO": {"target_update_frequency": 3, "model": {"fcnet_hiddens": [8]}},
    "PG": {"use_critic": False, "model": {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 4}},
    "TRPO": {"minibatch_size": 16, "num_epochs": 2, "model": {"fcnet_hiddens": [8]}},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_restored_training_goes_on_to_the_last_bit(name, tmp_path):
    config = get_config_class(name).from_dict(TRAININGS[name]).environment("CartPole-v1").debugging(seed=7)
    config.rollouts(num_envs_per_worker=2, observation_filter="MeanStdFilter").training(train_batch_size=32)
    assert_resumes(config, tmp_path)


OBS = Dict({"where": Box(-1, 1, (2, 2)), "who": Discrete(3, start=1)})
SPACES = {
    "MultiDiscrete": MultiDiscrete((2, 4), start=(1, 1)),
    "MultiBinary of rank 2": MultiBinary((2, 1)),
    "Box of rank 2": Box(-2, 2, (2, 3)),
    "Box of rank 0": Box(-2, 2, ()),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ["A2C", "IMPALA", "APPO", "PG", "TRPO"])
def test_every_space_with_a_distribution_is_acted_in_and_learned_from(name, space):
    from athlete.core import Transition

    config = get_config_class(name)().training(model={"fcnet_hiddens": [8]}).environment(normalize_rewards=False)
    agent, random, steps, rows = config.make_agent(Spec(OBS, SPACES[space])), np.random.default_rng(0), 4, 3
    where = random.uniform(-1, 1, (steps, rows, 2, 2)).astype(np.float32)
    obs = {"where": where, "who": random.integers(1, 4, (steps, rows), np.int32)}
    flags = np.zeros((steps, rows), bool)

    @jax.jit
    def act_and_learn(reward):
        key = wrap(jax.numpy.array([0, 1], jax.numpy.uint32))
        state = agent.init(key)
        view = agent.view(state, 0.0)
        carry = agent.start(view, rows, key)
        keys = jax.random.split(key, steps)
        action, _, extras = jax.vmap(lambda obs, key: agent.act(view, carry, obs, flags[0], key))(obs, keys)
        carries = jax.tree.map(lambda leaf: jax.numpy.zeros((steps, *leaf.shape)), carry)
        batch = Transition(obs, flags, action, reward, obs, flags, flags, carries, extras)
        return state, action, *agent.update(state, batch, key, 0.0)

    before, action, after, metrics = act_and_learn(random.normal(size=(steps, rows)).astype(np.float32))
    assert action.shape == (steps, rows, *SPACES[space].shape)
    assert len(np.unique(action)) > 1
    assert all(np.isfinite(value) for value in metrics.values())
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
    assert max(moved) > 1e-4


@pytest.mark.parametrize(
    "agent",
    [
        A2C(lr=2e-2, **MEMORY),
        IMPALA(lr=2e-2, **MEMORY),
        APPO(lr=2e-2, **MEMORY),
        PG(lr=2e-2, **MEMORY),
        TRPO(kl_target=0.05, **MEMORY),
    ],
)
def test_a_memory_is_learned(agent):
    """A cue at the first of four steps, asked for at the last: 1 for the right answer."""
    from test_ppo import Recall

    env = Recall()
    agent = dataclasses.replace(agent, gamma=0.9, max_seq_len=8).bind(Spec(env.observation_space, env.action_space))

    @jax.jit
    def train(agent, env):
        run = init_run(agent, env, 32, np.array([0, 1], np.uint32), 16)
        return iterate_many(agent, env, 16, 150, 1.0, run)

    episodes = jax.device_get(train(agent, env))[1].episodes
    right = [episodes.return_[part][episodes.done[part]].mean() for part in (slice(2), slice(-5, None))]
    assert right[0] < 0.7, "at first it guesses"
    assert right[1] > 0.95

"""MuZero: what it plays with, and that its trainings are the same compiled, hosted and resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import CARTPOLE, assert_modes_are_equal, assert_resumes

from athlete.algorithms.muzero import MuZero, MuZeroConfig
from athlete.core import Spec
from athlete.loops.collect import choose
from athlete.memory.replay import Replay
from athlete.models.mlp import MLP
from athlete.ops.random import wrap
from athlete.policy import Policy
from athlete.spaces import Box, Dict, Discrete, MultiBinary

pytest.importorskip("mctx")

KEY = wrap(np.array([0, 4], np.uint32))
SMALL = {"num_simulations": 3, "unroll_steps": 2, "n_step": 3, "latent_size": 4}


def small():
    config = MuZeroConfig().environment("CartPole-v1").rollouts(num_envs_per_worker=2).debugging(seed=3)
    return config.training(
        **SMALL,
        train_batch_size=8,
        training_intensity=2,
        num_steps_sampled_before_learning_starts=32,
        replay_buffer_config={"capacity": 200},
        model={"fcnet_hiddens": [8]},
    ).exploration(exploration_config={"random_timesteps": 16})


def test_a_training_resumes_exactly(tmp_path):
    assert_resumes(small().reporting(min_sample_timesteps_per_iteration=64), tmp_path)


@pytest.mark.thorough
def test_a_training_is_the_same_compiled_and_hosted():
    memory = Replay(capacity=128, batch_size=8, window=5, unroll=2)
    start = {"random_timesteps": 8, "num_steps_sampled_before_learning_starts": 20}
    agent = MuZero(**SMALL, **start, model=MLP((8,)), memory=memory)
    assert_modes_are_equal(CARTPOLE, agent, rows=2, length=2, iterations=5)


def test_a_policy_plays_without_its_environment(tmp_path):
    with small().build() as algo:
        algo.train()
        path = algo.save(tmp_path)
        action = algo.compute_single_action(np.zeros(4, np.float32), explore=False)
    assert int(Policy.from_checkpoint(path).compute_single_action(np.zeros(4, np.float32))[0]) == int(action)


def bound(**settings):
    obs = Dict({"action_mask": MultiBinary((3,)), "seen": Box(-1.0, 1.0, (2,))})
    agent = MuZero(**{**SMALL, "num_simulations": 12, **settings}, model=MLP((8,))).bind(Spec(obs, Discrete(3)))
    return agent, jax.jit(agent.init)(KEY).params


def shown(rows, legal=(1, 1, 1)):
    return {"action_mask": jnp.tile(jnp.array(legal, jnp.int8), (rows, 1)), "seen": jnp.ones((rows, 2))}


def acting(agent, view, obs, explore):
    first = jnp.zeros(len(obs["seen"]), bool)
    return jax.jit(agent.act, static_argnums=5)(view, (), obs, first, KEY, explore)


def test_only_legal_actions_are_taken_and_learned():
    agent, view = bound()
    action, _, extras = acting(agent, view, shown(64, (1, 0, 1)), True)
    assert set(action.tolist()) <= {0, 2} and not extras["policy"][:, 1].any()
    np.testing.assert_allclose(extras["policy"].sum(axis=1), 1.0, rtol=1e-5)


def test_the_search_prefers_what_the_model_says_pays():
    agent, view = bound(gamma=0.5)
    # A model in which an action pays its number, and all else is worth nothing.
    view = jax.tree.map(jnp.zeros_like, view)
    layer = view["dynamics"]["layers"][0]["kernel"].at[agent.latent_size :, :3].set(jnp.eye(3))
    view["dynamics"]["layers"][0]["kernel"] = layer
    view["dynamics"]["heads"]["reward"]["kernel"] = jnp.zeros((8, 1)).at[:3, 0].set(jnp.arange(3) / jnp.tanh(1.0))
    action, _, extras = acting(agent, view, shown(2), False)
    assert action.tolist() == [2, 2] and extras["policy"][0].argmax() == 2
    # With the best action from then on too the value is 2 (1 + gamma + ...), of which the tree sees the first steps.
    assert 2.0 < float(extras["value"][0]) <= 4.0


def test_random_steps_are_not_searched():
    agent, view = bound()
    _, _, extras = jax.jit(lambda: choose(agent, view, (), shown(4), jnp.ones(4, bool), KEY, True))()
    assert not extras["policy"].any() and not extras["value"].any()

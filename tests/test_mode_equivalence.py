"""Written once: the compiled loop and the hosted loop take the same steps and end in the same state."""

import functools

import jax
import numpy as np
import pytest

from athlete.algorithms.ppo import PPO
from athlete.env.classic.cartpole import CartPole
from athlete.env.classic.pendulum import Pendulum
from athlete.env.time_limit import TimeLimit
from athlete.loops.collect import spec_of
from athlete.loops.host import HostedEnv, init_hosted_run, iterate_hosted
from athlete.loops.learn import init_run, iterate
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.models.separate import Separate

ROWS, LENGTH = 4, 16
CARTPOLE = TimeLimit(CartPole(), 7)  # cut often: most endings are truncations, some are falls
PENDULUM = TimeLimit(Pendulum(), 5)
SMALL = {"minibatch_size": 32, "num_epochs": 2, "gamma": 0.9}

CASES = {
    "feed-forward, discrete": (CARTPOLE, PPO(model=Separate(MLP((8,))), **SMALL)),
    "feed-forward, Box": (PENDULUM, PPO(model=Separate(MLP((8,))), **SMALL)),
    "shared layers, KL penalty": (CARTPOLE, PPO(model=MLP((8,)), kl_coeff=0.2, **SMALL)),
    "recurrent, discrete": (CARTPOLE, PPO(model=Separate(GRU(8, (8,))), max_seq_len=8, **SMALL)),
    "recurrent, Box": (PENDULUM, PPO(model=GRU(8, (8,)), max_seq_len=4, kl_stop=0.02, **SMALL)),
}


@pytest.mark.parametrize("case", CASES)
def test_two_iterations_are_the_same_compiled_and_hosted(case):
    env, agent = CASES[case]
    agent = agent.bind(spec_of(env))
    key, horizon = np.array([0, 3], np.uint32), np.float32(1000)

    compiled = jax.jit(functools.partial(init_run, rows=ROWS, length=LENGTH))(agent, env, key=key)
    step = jax.jit(functools.partial(iterate, length=LENGTH))
    source = HostedEnv(env, ROWS)
    hosted = init_hosted_run(agent, source, key, LENGTH)

    for _ in range(2):
        compiled, report = step(agent, env, horizon=horizon, run=compiled)
        hosted, hosted_report, _ = iterate_hosted(agent, source, LENGTH, horizon, hosted)
        assert report.episodes.done.sum() > 0, "the case must contain endings"
        np.testing.assert_array_equal(report.episodes.done, hosted_report.episodes.done)
        np.testing.assert_allclose(report.episodes.return_, hosted_report.episodes.return_, rtol=1e-4)

    hosted = hosted._replace(rows=hosted.rows._replace(env_state=source._state))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(compiled), jax.tree.leaves(hosted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5, err_msg=jax.tree_util.keystr(path))

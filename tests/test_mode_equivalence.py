"""Written once: the compiled loop and the hosted loop take the same steps and end in the same state."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from athlete.algorithms.ppo import PPO
from athlete.combine.normalize import Normalize
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.classic.pendulum import Pendulum
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.loops.collect import spec_of
from athlete.loops.host import HostedEnv
from athlete.loops.train import CompiledTraining, HostedTraining
from athlete.models.attention import GTrXL
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU, LSTM
from athlete.models.separate import Separate
from athlete.ops.schedule import Schedule

ROWS, LENGTH, HORIZON = 4, 16, 500.0
CARTPOLE = TimeLimit(CartPole(), 9)  # cut often: most endings are truncations, some are falls
PENDULUM = TimeLimit(Pendulum(), 5)
SMALL = {"minibatch_size": 32, "num_epochs": 2, "gamma": 0.9}
FALLING = Schedule((0.0, 1.0), (1e-2, 0.0))

# Between them: both kinds of networks and of actions, every way to limit the policy's change, schedules, filters.
CASES = {
    "feed-forward, Discrete": (CARTPOLE, Normalize(PPO(lr=FALLING, model=MLP((8,)), kl_coeff=0.2, **SMALL))),
    "recurrent, Box": (PENDULUM, PPO(lr=1e-2, model=GRU(8, ()), max_seq_len=8, kl_stop=0.02, **SMALL)),
    "LSTM": (PENDULUM, PPO(lr=1e-2, model=LSTM(8, ()), max_seq_len=8, **SMALL)),
    "attention": (CARTPOLE, PPO(lr=1e-2, model=Separate(GTrXL(2, 8, 2, 4, 6, 8)), max_seq_len=8, **SMALL)),
}


def assert_close(compiled, hosted, tolerance):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(compiled), jax.tree.leaves(hosted), strict=True):
        scale = max(1.0, float(np.abs(np.asarray(a, np.float64)).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("case", CASES)
def test_iterations_are_the_same_compiled_and_hosted(case):
    env, agent = CASES[case]
    agent, key = agent.bind(spec_of(env)), np.array([0, 3], np.uint32)
    compiled = CompiledTraining(agent, env, ROWS, LENGTH, HORIZON, key)
    hosted = HostedTraining(agent, HostedEnv(env, ROWS), LENGTH, HORIZON, key)
    begun = jax.device_get(compiled.run.state)
    assert_close(compiled.run.state, hosted.run.state, 1e-6)
    assert_close(compiled.run.rows.obs, hosted.run.rows.obs, 1e-6)

    for _ in range(3):
        a, b = compiled.advance(1), hosted.advance(1)
        assert len(a.returns) > 0, "the case must contain endings"
        np.testing.assert_array_equal(a.lengths, b.lengths)
        np.testing.assert_allclose(a.returns, b.returns, rtol=1e-5)
        assert a.metrics.keys() == b.metrics.keys()
        for name in a.metrics:
            assert a.metrics[name] == pytest.approx(b.metrics[name], rel=1e-3, abs=1e-4), name

    run = hosted.run._replace(rows=hosted.run.rows._replace(env_state=hosted.source._state))
    # The bias of keys has no gradient but rounding, of which Adam makes more.
    assert_close(compiled.run, run, 2e-6)
    moved = [
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (begun, jax.device_get(run.state))), strict=True)
    ]
    assert max(moved) > 1e-2, "the agent must have learnt something for the two to be equal in"

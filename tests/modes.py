"""Holding two ways of running a training equal: what the tests of every algorithm share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from athlete.core import Agent, Env
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.classic.pendulum import Pendulum
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.loops.collect import spec_of
from athlete.loops.host import HostedEnv
from athlete.loops.train import CompiledTraining, HostedTraining

CARTPOLE = TimeLimit(CartPole(), 9)  # cut often: most endings are truncations, some are falls
PENDULUM = TimeLimit(Pendulum(), 5)
KEY = np.array([0, 3], np.uint32)


def assert_close(compiled: Any, hosted: Any, tolerance: float) -> None:
    """Leaf by leaf, relative to each leaf's largest number."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(compiled), jax.tree.leaves(hosted), strict=True):
        scale = max(1.0, float(np.abs(np.nan_to_num(np.asarray(a, np.float64))).max(initial=0.0)))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=jax.tree_util.keystr(path))


def assert_modes_are_equal(
    env: Env,
    agent: Agent,
    *,
    rows: int,
    length: int,
    iterations: int = 3,
    tolerance: float = 1e-5,
    sample_async: bool = False,
    any_thread: bool = False,
) -> None:
    """The compiled loop and the hosted one take the same steps from the same key and end in the same run."""
    agent = agent.bind(spec_of(env))
    compiled = CompiledTraining(agent, env, rows, length, 500.0, KEY, sample_async)
    hosted = HostedTraining(agent, HostedEnv(env, rows, any_thread), length, 500.0, KEY, sample_async)
    begun = jax.device_get(compiled.run.state)
    assert_close(compiled.run.state, hosted.run.state, 1e-6)
    ended = 0
    for number in range(iterations):
        a, b = compiled.advance(3), hosted.advance(3)
        assert (a.timesteps, a.learned) == (b.timesteps, b.learned)
        ended += len(a.returns)
        np.testing.assert_array_equal(a.lengths, b.lengths)
        np.testing.assert_allclose(a.returns, b.returns, rtol=1e-5)
        assert a.metrics.keys() == b.metrics.keys() and a.metrics
        for name in a.metrics:
            assert a.metrics[name] == pytest.approx(b.metrics[name], rel=1e-2, abs=1e-3), (name, number)
    assert ended, "the case must contain endings"
    run = hosted.run._replace(rows=hosted.run.rows._replace(env_state=hosted.source._state))
    assert_close(compiled.run, run, tolerance)
    pairs = zip(*map(jax.tree.leaves, (begun, run.state)), strict=True)
    moved = [np.abs(np.asarray(a, float) - np.asarray(b, float)).max(initial=0.0) for a, b in pairs]
    assert max(moved) > 1e-3, "the agent must have learnt something for the two to be equal in"


def assert_resumes(config: Any, folder: Any) -> None:
    """Saved, restored in a new algorithm and trained on, a training ends bit by bit as one that was left alone."""
    from athlete import Algorithm

    with config.build() as alone:
        alone.train()
        path = alone.save(folder)
        before = jax.device_get(alone.run)
        with Algorithm.from_checkpoint(path) as restored:
            results = [alone.train(), restored.train()]
            alone_run, restored_run = jax.device_get((alone.run, restored.run))
    for (name, a), b in zip(jax.tree_util.tree_leaves_with_path(alone_run), jax.tree.leaves(restored_run), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(name)
    assert results[0]["timesteps_total"] == results[1]["timesteps_total"]
    changed = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, alone_run)), strict=True)]
    assert any(changed), "the test would not see a training that stands still"

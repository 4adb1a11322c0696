"""TD-MPC2: its update and its plan are those of a plain NumPy reference, `references_tdmpc2.py`."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_tdmpc2 as references
from references import Adam
from test_references import (
    CONTINUOUS,
    DISCRETE,
    FALLING,
    assert_equal,
    assert_same_moments,
    batches_of,
    blank,
    follow,
    numbers,
    random_like,
)

from athlete.algorithms.tdmpc2 import TDMPC2, TDMPC2Config, _two_of, simplex_norm
from athlete.loops.collect import choose
from athlete.models.mlp import MLP
from athlete.ops.random import wrap

TINY = {
    "latent": 16,
    "units": 3,
    "num_critics": 3,
    "num_bins": 9,
    "model": MLP((3,), "silu", layer_norm=True),
    "gamma": 0.9,
    "lr": FALLING,
    "grad_clip": 0.05,
}


KEY = wrap(np.array([0, 5], np.uint32))


def draws_of(agent, key, batch):
    """The noise of an update, by the keys that it is said to split."""
    following, pair, now = jax.random.split(key, 3)
    length, rows, size = batch.action.shape
    return {
        "next": jax.random.normal(following, batch.action.shape),
        "pair": _two_of(agent.num_critics, pair),
        "now": jax.random.normal(now, (length + 1, rows, size)),
    }


def test_random_steps_plan_nothing():
    agent = TDMPC2(**TINY, num_samples=8, num_policy_samples=2, num_elites=2).bind(CONTINUOUS)
    view = agent.view(random_like(blank(agent), 0), 0.0)
    obs, first = jnp.ones((4, *CONTINUOUS.obs.shape)), jnp.ones(4, bool)
    step = functools.partial(choose, agent, view, agent.start(view, 4, KEY), obs, first, KEY)
    (action, plan, _), planned = jax.jit(lambda: step(True))(), jax.jit(lambda: step(False))()[1]
    assert not plan.any() and planned.any() and len(set(action[:, 0].tolist())) == 4
    lines = [jax.jit(lambda r=r: step(r)).lower().compile().as_text().count(" dot(") for r in (True, False)]
    assert lines[0] == 0 < lines[1]


# Whether the range of values, which begins at `start`, stays below 1 and divides nothing, or not.
@pytest.mark.parametrize("start", [3.0, 0.5])
def test_the_whole_update_is_the_references(start):
    agent = TDMPC2(**TINY, tau=0.3, rho=0.7, entropy_coeff=0.1, plan_horizon=3).bind(CONTINUOUS)
    state = blank(agent)
    parts = {name: random_like(getattr(state, name), seed) for seed, name in enumerate(state._fields[:3])}
    state = state._replace(**parts, value_range=np.float32(start))
    world, policy, targets = (numbers(part) for part in parts.values())
    held = SimpleNamespace(
        world=world,
        policy=policy,
        targets=targets,
        world_optimizer=Adam(world, clip=0.05),
        policy_optimizer=Adam(policy, clip=0.05),
        value_range=start,
    )
    batches = batches_of(CONTINUOUS, steps=3, rows=24, weighted=False)
    for batch in batches:
        batch.first[1, 0] = True  # another episode follows without an end
    state = follow(agent, state, held, references.tdmpc2, batches, functools.partial(draws_of, agent))
    for name, expected in zip(parts, (held.world, held.policy, held.targets), strict=True):
        assert_equal(getattr(state, name), expected, name)
    assert_same_moments(state.world_optimizer, held.world_optimizer, "world_optimizer")
    assert_same_moments(state.policy_optimizer, held.policy_optimizer, "policy_optimizer")
    assert (held.value_range < 1.0) == (start < 1.0), "the test would not see both"
    assert float(state.value_range) == pytest.approx(held.value_range, rel=1e-4)


PLAN = {
    "num_samples": 12,
    "num_policy_samples": 4,
    "num_elites": 5,
    "iterations": 3,
    "plan_horizon": 3,
    "max_std": 0.8,
    "min_std": 0.3,
}
ROWS = 2


@functools.cache
def acting():
    agent = TDMPC2(**TINY, **PLAN).bind(CONTINUOUS)
    view = agent.view(random_like(blank(agent), 1, scale=1.0), 0.0)
    return agent, view, jax.jit(agent.act, static_argnames="explore")


def noise_of(agent, key, size):
    """The noise of a plan, of all rows: `[samples, H, B, n]` for the policy's, `[iterations, samples, H, B, n]`."""
    of_policy, key = jax.random.split(jax.random.split(key)[0])
    shape = agent.num_samples - agent.num_policy_samples
    policy = [
        jax.random.normal(each, (agent.num_policy_samples, ROWS, size))
        for each in jax.random.split(of_policy, agent.plan_horizon)
    ]
    plan = [
        jnp.moveaxis(jax.random.normal(each, (agent.plan_horizon, shape, ROWS, size)), 1, 0)
        for each in jax.random.split(key, agent.iterations)
    ]
    return numbers((jnp.stack(policy, axis=1), jnp.stack(plan)))


def test_the_plan_is_the_references_and_goes_on_from_the_last_one():
    agent, view, act = acting()
    random = np.random.default_rng(0)
    obs = random.normal(size=(ROWS, 2)).astype(np.float32)
    size = CONTINUOUS.action.shape[0]
    carry = random.uniform(-0.5, 0.5, size=(ROWS, agent.plan_horizon, size)).astype(np.float32)
    key = wrap(np.array([0, 3], np.uint32))
    first = np.array([True, False])
    action, after, extras = act(view, carry, obs, first, key, explore=False)
    tried, _, _ = act(view, carry, obs, first, key)
    of_policy, of_plan = noise_of(agent, key, size)
    beside = jax.random.normal(jax.random.split(key)[1], (ROWS, size))
    for row in range(ROWS):
        draws = {"policy": of_policy[:, :, row], "plan": of_plan[:, :, :, row]}
        begin = np.zeros_like(carry[row]) if first[row] else carry[row]
        mean, std = references.plan(agent, numbers(view), obs[row].astype(float), begin.astype(float), draws)
        np.testing.assert_allclose(action[row], mean[0], atol=2e-3)
        np.testing.assert_allclose(after[row], [*mean[1:], np.zeros(size)], atol=2e-3)
        np.testing.assert_allclose(tried[row], np.clip(mean[0] + std[0] * beside[row], -1, 1), atol=2e-3)
    assert extras == {}


def test_states_are_distributions_side_by_side():
    x = np.log(np.float32([1, 3, 2, 2, 5, 5, 10, 10]))
    np.testing.assert_allclose(simplex_norm(x, 4), [1 / 8, 3 / 8, 2 / 8, 2 / 8, 1 / 6, 1 / 6, 1 / 3, 1 / 3], rtol=1e-5)


@pytest.mark.parametrize(("number", "pairs"), [(1, 1), (2, 2), (4, 12)])
def test_two_different_critics_are_drawn(number, pairs):
    keys = jax.random.split(wrap(np.array([0, 1], np.uint32)), 300)
    found = np.asarray(jax.jit(jax.vmap(functools.partial(_two_of, number)))(keys))
    assert len(set(map(tuple, found.tolist()))) == pairs
    assert number == 1 or (found[:, 0] != found[:, 1]).all()


@pytest.mark.parametrize(
    ("settings", "spec", "told"),
    [
        ({}, DISCRETE, "TDMPC2 serves Box"),
        ({"latent": 12}, CONTINUOUS, "latent=12.*multiple of 8"),
        ({"num_elites": 600}, CONTINUOUS, "num_elites=600.*num_samples=512"),
        ({"num_policy_samples": 600}, CONTINUOUS, "num_policy_samples=600.*num_samples=512"),
    ],
)
def test_what_cannot_be_is_told(settings, spec, told):
    with pytest.raises(ValueError, match=told):
        TDMPC2Config().training(**settings).make_agent(spec)


def test_a_recurrent_encoder_is_refused():
    config = TDMPC2Config().environment("Pendulum-v1").training(model={"use_gru": True})
    with pytest.raises(ValueError, match="TDMPC2: model is recurrent"):
        config.build()

"""The whole update of each joint method is that of a plain NumPy reference, `references_joint.py`."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import references_joint as references
from references import Adam, q_network
from test_references import (
    EVERY,
    FALLING,
    PROGRESS,
    SYNC,
    assert_equal,
    assert_same_moments,
    blank,
    follow,
    numbers,
    random_like,
)

from athlete.algorithms.maddpg import MADDPG
from athlete.algorithms.mappo import MAPPO
from athlete.algorithms.qmix import QMIX
from athlete.core import Group, Transition
from athlete.env.multi_agent import joint_spec
from athlete.models.mlp import MLP
from athlete.models.recurrent import LSTM, LSTMState
from athlete.ops.schedule import Schedule
from athlete.ops.sequences import minibatch_orders
from athlete.spaces import Box, Dict, Discrete, MultiBinary

PLAIN = Box(-9, 9, (2,))
TOLD = Dict({"obs": PLAIN, "state": Box(-9, 9, (3,)), "action_mask": MultiBinary((3,))})


def groups_of(seen, last):
    return {"pair": Group(2, seen, Discrete(3)), "single": Group(1, PLAIN, last)}


DISCRETE = joint_spec(groups_of(TOLD, Discrete(2)), always_acting=True)
UNTOLD = joint_spec(groups_of(PLAIN, Discrete(2)), always_acting=True)
MIXED = joint_spec(groups_of(TOLD, Box(-1, 1, (2,))), always_acting=True)


def batch_of(spec, steps=1, rows=5, seed=0, weighted=True, carry=()):
    """Random transitions `[steps, rows]` of all agents, of either ending and neither, with masks that forbid some."""
    random = np.random.default_rng(seed)

    def seen(space, size):
        plain = random.normal(size=(steps, rows, size, 2)).astype(np.float32)
        if space is PLAIN:
            return plain
        state = np.broadcast_to(random.normal(size=(steps, rows, 1, 3)), (steps, rows, size, 3)).astype(np.float32)
        mask = (random.uniform(size=(steps, rows, size, 3)) < 0.6).astype(np.int8)
        mask[..., 1] = 1
        return {"obs": plain, "state": state, "action_mask": mask}

    def acted(group, seen):
        if isinstance(group.action, Discrete):
            legal = seen["action_mask"] if isinstance(seen, dict) else 1
            return np.argmax(random.uniform(size=(steps, rows, group.size, group.action.n)) * legal, axis=-1).astype(
                np.int32
            )
        return random.uniform(-0.9, 0.9, size=(steps, rows, group.size, 2)).astype(np.float32)

    obs, next_obs = ({"obs": {name: seen(group.obs, group.size) for name, group in spec.groups}} for _ in range(2))
    ending = random.integers(3, size=(steps, rows))
    ending[0, :3] = 0, 1, 2
    terminated, truncated = ending == 1, ending == 2
    first = np.zeros((steps, rows), bool)
    first[1:] = (terminated | truncated)[:-1]
    action = {name: acted(group, obs["obs"][name]) for name, group in spec.groups}
    reward = 2 * random.normal(size=(steps, rows, 3)).astype(np.float32)
    extras = {"weight": random.uniform(0.2, 1, size=(1, rows)).astype(np.float32)} if weighted else {}
    return Transition(obs, first, action, reward, next_obs, terminated, truncated, carry, extras)


def batches_of(spec, **settings):
    return [batch_of(spec, seed=seed, **settings) for seed in range(len(PROGRESS))]


# QMIX

SMALL = {"model": MLP((3,)), "mixing_embed_dim": 2}
CASES = {
    "qmix": (QMIX(**EVERY, **SYNC, **SMALL), DISCRETE),
    "qmix of the mean, without double Q": (
        QMIX(**EVERY, **SYNC, **SMALL, team_reward="mean", double_q=False),
        DISCRETE,
    ),
    "qmix, no state told": (QMIX(**EVERY, **SYNC, **SMALL), UNTOLD),
    "vdn": (QMIX(**EVERY, **SYNC, **SMALL, mixer="vdn"), DISCRETE),
    "independent": (QMIX(**EVERY, **SYNC, **SMALL, mixer=None), DISCRETE),
    "qmix with memory": (
        QMIX(**EVERY, **SYNC, model=LSTM(2, (2,)), mixing_embed_dim=2, burn_in=1, max_seq_len=2),
        UNTOLD,
    ),
}


def lstm_carry(spec, steps, rows):
    random = np.random.default_rng(8)
    return {
        name: LSTMState(*random.uniform(-0.9, 0.9, size=(2, steps, rows, group.size, 2)).astype(np.float32))
        for name, group in spec.groups
    }


@pytest.mark.parametrize("name", CASES)
def test_qmix(name):
    agent, spec = CASES[name]
    agent = agent.bind(spec)
    fresh = blank(agent)
    state = fresh._replace(params=random_like(fresh.params, 1), target=random_like(fresh.params, 2))
    optimizer = Adam(numbers(state.params), clip=agent.grad_clip)
    held = q_network(numbers(state.params), optimizer, numbers(state.target))
    steps = agent.burn_in + agent.max_seq_len
    carry = lstm_carry(spec, steps, 5) if agent.max_seq_len > 1 else ()
    batches = batches_of(spec, steps=steps, carry=carry)
    state = follow(agent, state, held, references.qmix, batches, lambda key, batch: {})
    assert optimizer.norm > agent.grad_clip, "the case must be one in which clipping counts"
    assert_equal(state.params, held.params, "params")
    assert_equal(state.target, held.target, "target")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")
    assert float(state.since_sync) == held.since


# MAPPO

ACTOR_CRITIC = {
    "lr": FALLING,
    "gamma": 0.9,
    "lambda_": 0.7,
    "grad_clip": 0.2,
    "clip_param": Schedule((0.0, 1.0), (0.3, 0.01)),
    "entropy_coeff": Schedule((0.0, 1.0), (0.3, 0.0)),
    "minibatch_size": 5,
    "num_epochs": 2,
    "model": MLP((2,)),
    "critic_model": MLP((3,)),
}
MAPPO_CASES = {
    "the sum": (MAPPO(**ACTOR_CRITIC, vf_clip_param=0.05, vf_loss_coeff=0.3), MIXED),
    "the mean, values as they are": (
        MAPPO(**ACTOR_CRITIC, vf_clip_param=None, team_reward="mean", normalize_values=False),
        DISCRETE,
    ),
    "each its own": (MAPPO(**ACTOR_CRITIC, team_reward=None), MIXED),
}


@pytest.mark.parametrize("name", MAPPO_CASES)
def test_mappo(name):
    agent, spec = MAPPO_CASES[name]
    agent = agent.bind(spec)
    fresh = blank(agent)
    state = fresh._replace(
        params=random_like(fresh.params, 1, 0.6),
        returns=fresh.returns._replace(variance=np.ones_like(fresh.returns.variance)),
    )
    held = SimpleNamespace(
        params=numbers(state.params),
        optimizer=Adam(numbers(state.params), 1e-5, agent.grad_clip),
        returns=references.RunningMoments(len(fresh.returns.mean)),
    )
    batches = []
    for seed, batch in enumerate(batches_of(spec, steps=4, rows=3, weighted=False)):
        log_prob = np.random.default_rng(seed).uniform(-2.0, -0.3, size=batch.reward.shape).astype(np.float32)
        batches.append(batch._replace(extras={"log_prob": log_prob}, carry=dict.fromkeys(batch.action, ())))

    def draws(key, batch):
        return {"orders": minibatch_orders(key, agent.num_epochs, batch.terminated.size, agent.minibatch_size)}

    state = follow(agent, state, held, references.mappo, batches, draws)
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")
    assert_equal([state.returns.mean, state.returns.variance], [held.returns.mean, held.returns.variance], "returns")


# MADDPG

MADDPG_CASES = {
    "discrete and continuous": (MADDPG(tau=0.3, **SYNC, actor_feature_reg=0.1), MIXED),
    "discrete": (MADDPG(tau=0.3), DISCRETE),
}
RATES = {"actor_lr": Schedule((0.0, 1.0), (0.03, 0.005)), "critic_lr": FALLING, "gamma": 0.9, "grad_clip": 0.3}


@pytest.mark.parametrize("name", MADDPG_CASES)
def test_maddpg(name):
    agent, spec = MADDPG_CASES[name]
    agent = dataclasses.replace(agent, **RATES, policy_model=MLP((2,)), q_model=MLP((3,))).bind(spec)
    fresh = blank(agent)
    state = fresh._replace(online=random_like(fresh.online, 1), target=random_like(fresh.target, 2))
    actors, critics = numbers(state.online)
    held = SimpleNamespace(
        actors=actors,
        critics=critics,
        target=numbers(state.target._asdict()),
        actor_optimizer=Adam(actors, clip=agent.grad_clip),
        critic_optimizer=Adam(critics, clip=agent.grad_clip),
        since=0.0,
    )

    def draws(key, batch):
        next_key, now_key = jax.random.split(key)
        return {
            which: {
                name: jax.random.gumbel(jax.random.fold_in(part, i), (5, group.size, group.action.n))
                for i, (name, group) in enumerate(spec.groups)
                if isinstance(group.action, Discrete)
            }
            for which, part in (("next", next_key), ("now", now_key))
        }

    state = follow(agent, state, held, references.maddpg, batches_of(spec), draws)
    assert held.critic_optimizer.norm > agent.grad_clip, "the case must be one in which clipping counts"
    assert_equal(state.online.actors, held.actors, "actors")
    assert_equal(state.online.critics, held.critics, "critics")
    assert_equal([state.target.actors, state.target.critics], [held.target["actors"], held.target["critics"]], "target")
    assert_same_moments(state.actor_optimizer, held.actor_optimizer, "actor_optimizer")
    assert_same_moments(state.critic_optimizer, held.critic_optimizer, "critic_optimizer")
    assert float(state.since_sync) == held.since

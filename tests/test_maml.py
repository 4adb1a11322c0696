"""MAML, held to its equations in plain NumPy: a step in a task, and the gradient through it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import references
from modes import assert_resumes

import athlete
from athlete.algorithms.maml import MAML, Batch, MAMLConfig
from athlete.core import Spec, Transition
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.navigation import Navigation
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.loops.collect import spec_of
from athlete.loops.meta import MetaTraining, Sizes, in_task, tasks_of
from athlete.models.mlp import MLP
from athlete.models.separate import Separate
from athlete.ops.random import wrap
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 5], np.uint32))
OBS, ACTIONS, TASKS = 2, 3, 2
SPEC = Spec(Box(-9, 9, (OBS,)), Discrete(ACTIONS))
LINEAR = Separate(MLP(()))  # of which the derivative of a step in a task is known in closed form


def batch_of(seed: int, steps: int = 3, rows: int = 4) -> Batch:
    random = np.random.default_rng(seed)
    obs = random.normal(size=(steps, rows, OBS)).astype(np.float32)
    outputs = random.normal(size=(steps, rows, ACTIONS)).astype(np.float32)
    action = random.integers(ACTIONS, size=(steps, rows)).astype(np.int32)
    log_prob = np.take_along_axis(references.log_softmax(outputs), action[..., None], axis=-1)[..., 0]
    advantage, target = random.normal(size=(2, steps, rows)).astype(np.float32)
    first = np.zeros((steps, rows), bool)
    return Batch(obs, first, action, log_prob.astype(np.float32), outputs, advantage, target, None)


def side_by_side(batches):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


# In plain NumPy -----------------------------------------------------------------------------------------------------


def log_probs(params, batch):
    return references.log_softmax(references.mlp(params["network"]["policy"], batch.obs)["policy"])


def of_actions(values, batch):
    return np.take_along_axis(values, batch.action[..., None], axis=-1)[..., 0]


def adapted(params, batch, rate):
    """One step down minus the mean of ratio times advantage, by the derivative of a linear softmax policy."""
    probabilities = log_probs(params, batch)
    ratio = np.exp(of_actions(probabilities, batch) - batch.log_prob)
    chosen = np.eye(ACTIONS)[batch.action] - np.exp(probabilities)
    slope = -(ratio * batch.advantage)[..., None] * chosen / ratio.size
    head = params["network"]["policy"]["heads"]["policy"]
    moved = {
        "kernel": head["kernel"] - rate * np.einsum("tbi,tbo->io", batch.obs, slope),
        "bias": head["bias"] - rate * slope.sum(axis=(0, 1)),
    }
    network = {**params["network"], "policy": {**params["network"]["policy"], "heads": {"policy": moved}}}
    return {**params, "network": network}


def meta_loss(agent, params, tasks, kl_coeff):
    total, apart = 0.0, []
    for batches in tasks:
        theta, kl = params, []
        for batch in batches[:-1]:
            old, new = references.log_softmax(batch.outputs), log_probs(theta, batch)
            kl.append(np.mean(np.sum(np.exp(old) * (old - new), axis=-1)))
            theta = adapted(theta, batch, agent.inner_lr)
        last = batches[-1]
        now = log_probs(theta, last)
        ratio = np.exp(of_actions(now, last) - last.log_prob)
        clipped = np.clip(ratio, 1 - agent.clip_param, 1 + agent.clip_param)
        surrogate = np.minimum(ratio * last.advantage, clipped * last.advantage)
        value = references.mlp(theta["network"]["value"], last.obs)["value"][..., 0]
        entropy = -np.mean(np.sum(np.exp(now) * now, axis=-1))
        loss = -np.mean(surrogate) + agent.vf_loss_coeff * np.mean((value - last.target) ** 2)
        total += (loss - agent.entropy_coeff * entropy + np.sum(kl_coeff * np.array(kl))) / len(tasks)
        apart.append(kl)
    return total, np.mean(apart, axis=0)


def float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64 if leaf.dtype.kind == "f" else None), tree)


def started(agent):
    state = jax.jit(agent.init)(KEY)
    random = np.random.default_rng(3)
    params = jax.tree.map(lambda leaf: (0.5 * random.normal(size=leaf.shape)).astype(np.float32), state.params)
    return state._replace(params=params)


def test_a_step_in_a_task_is_one_of_the_policy_gradient():
    agent = MAML(inner_lr=0.7, model=LINEAR).bind(SPEC)
    params, batch = started(agent).params, batch_of(0)
    found, expected = jax.jit(agent.adapt)(params, batch), adapted(float64(params), float64(batch), 0.7)
    for a, b in zip(references.leaves(found), references.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
def test_what_tasks_begin_with_descends_through_their_steps(steps):
    """Twice, with Adam, by the gradient of what is lost after adapting in two tasks."""
    agent = MAML(
        inner_lr=0.7,
        lr=0.05,
        inner_adaptation_steps=steps,
        maml_optimizer_steps=2,
        clip_param=0.4,
        kl_coeff=0.3,
        entropy_coeff=0.02,
        model=LINEAR,
    ).bind(SPEC)
    state = started(agent)
    tasks = [[batch_of(10 * task + step) for step in range(steps + 1)] for task in range(TASKS)]
    given = [side_by_side([task[step] for task in tasks]) for step in range(steps + 1)]
    after, metrics = jax.jit(agent.meta_update)(state, given, 0.0)
    params, tasks = float64(state.params), [[float64(batch) for batch in task] for task in tasks]
    optimizer, losses, divergences = references.Adam(params), [], []
    for _ in range(2):
        loss, apart = meta_loss(agent, params, tasks, np.full(steps, 0.3))
        slopes = references.gradient(lambda params: meta_loss(agent, params, tasks, np.full(steps, 0.3))[0], params)
        params = optimizer.step(params, slopes, 0.05)
        losses.append(loss)
        divergences.append(apart)
    assert float(metrics["total_loss"]) == pytest.approx(np.mean(losses), rel=1e-4)
    assert float(metrics["kl"]) == pytest.approx(np.mean(divergences), rel=1e-3)
    for a, b in zip(references.leaves(after.params), references.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert np.mean(divergences) > 2 * agent.kl_target
    np.testing.assert_allclose(after.kl_coeff, 0.45, rtol=1e-5)


def test_the_kl_penalty_falls_where_policies_stay_near():
    agent = MAML(model=LINEAR, kl_coeff=0.4, lr=0.0).bind(SPEC)
    state, batch = started(agent), batch_of(0)
    outputs = float64(log_probs(float64(state.params), float64(batch)))
    near = batch._replace(outputs=outputs.astype(np.float32))
    after, _ = jax.jit(agent.meta_update)(state, [side_by_side([near] * 2)] * 2, 0.0)
    np.testing.assert_allclose(after.kl_coeff, 0.2, rtol=1e-5)


def test_what_is_learned_from_a_trajectory_are_standardised_advantages_of_whole_returns():
    agent = MAML(model=LINEAR, gamma=0.5).bind(SPEC)
    params = jax.tree.map(np.zeros_like, jax.jit(agent.init)(KEY).params)
    flag, obs = np.zeros((3, 1), bool), np.ones((3, 1, OBS), np.float32)
    ends = np.array([[False], [False], [True]])
    reward = np.array([[1.0], [2.0], [4.0]], np.float32)
    extras = {"log_prob": reward, "outputs": np.zeros((3, 1, ACTIONS), np.float32)}
    batch = agent.prepare(
        params, Transition(obs, flag, flag.astype(int), reward, obs, ends, flag, {"policy": (), "value": ()}, extras)
    )
    returns = np.array([3.0, 4.0, 4.0])
    np.testing.assert_allclose(batch.target[:, 0], returns, rtol=1e-5)
    np.testing.assert_allclose(batch.advantage[:, 0], (returns - returns.mean()) / returns.std(), rtol=1e-4)


# Tasks --------------------------------------------------------------------------------------------------------------


def test_tasks_are_fields_of_an_environment_whatever_is_around_it():
    env = TimeLimit(CartPole(), 9)
    assert tasks_of(env, {"masspole": [0.1, 2]}) == (("masspole", 0.1, 2.0),)
    other = in_task(env, {"masspole": 0.5, "masscart": 2.0})
    assert (other.env.masspole, other.env.masscart, other.max_episode_steps) == (0.5, 2.0, 9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mass": [0, 1]}, r"the environment has no such number; it has gravity, masscart"),
        ({"render_fps": [1, 2]}, "the environment has no such number"),
        ({"masspole": 1.0}, r"tasks=\{'masspole': 1.0\}: expected a range \[low, high\]"),
        ({"masspole": [2, 1]}, "expected a range"),
    ],
)
def test_what_is_no_task_is_a_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        tasks_of(TimeLimit(CartPole(), 9), given)
    with pytest.raises(ValueError, match=f"MAML: .*{message}"):
        MAMLConfig().environment("CartPole-v1").training(tasks=given).build()


def test_a_task_that_is_always_the_same_is_that_environment():
    agent = MAML(meta_batch_size=3, model=Separate(MLP((4,))), maml_optimizer_steps=2).bind(spec_of(Navigation()))
    runs = []
    for env, tasks in (
        (Navigation(0.2, -0.3, limit=5), ()),
        (Navigation(limit=5), (("goal_x", 0.2, 0.2), ("goal_y", -0.3, -0.3))),
        (Navigation(limit=5), (("goal_x", -0.5, 0.5),)),
    ):
        training = MetaTraining(agent, env, Sizes(tasks, 2, 5), 1.0, np.array([0, 3], np.uint32))
        progress = training.advance(2)
        assert progress.timesteps == 2 * 3 * 2 * 5 * 2
        assert progress.metrics["return_adapt_1"] == pytest.approx(progress.returns.mean(), rel=1e-4)
        assert progress.metrics["adaptation_delta"] == pytest.approx(
            progress.metrics["return_adapt_1"] - progress.metrics["return_adapt_0"], abs=1e-4
        )
        runs.append(jax.device_get(training.run.state))
    for a, b in zip(jax.tree.leaves(runs[0]), jax.tree.leaves(runs[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert any(not np.allclose(a, b) for a, b in zip(*map(jax.tree.leaves, (runs[0], runs[2])), strict=True))


def test_the_goal_of_navigation_is_not_seen_and_distance_is_paid_for():
    athlete.check_env("Navigation-v0")
    env = Navigation(0.1, 0.0)
    state, obs = env.reset(KEY)
    _, step = env.step(state, np.array([0.1, 0.05], np.float32), KEY)
    np.testing.assert_array_equal(obs, 0.0)
    assert float(step.reward) == pytest.approx(-(0.05**2)) and not step.terminated
    assert env.step(state, np.array([0.1, 0.0], np.float32), KEY)[1].terminated


# Trainings ----------------------------------------------------------------------------------------------------------

SMALL = {
    "meta_batch_size": 2,
    "maml_optimizer_steps": 2,
    "model": {"fcnet_hiddens": [4]},
    "tasks": {"m": [0.5, 2.0]},
    "inner_adaptation_steps": 2,
}


def small():
    config = MAMLConfig().environment("Pendulum-v1").training(**SMALL).debugging(seed=1)
    return config.rollouts(num_envs_per_worker=2, rollout_fragment_length=6)


def test_it_resumes_to_the_last_bit(tmp_path):
    assert_resumes(small(), tmp_path)


def test_results_tell_of_returns_before_and_after_adapting():
    with small().build() as algo:
        stats = algo.train()["info"]["learner"]["default_policy"]["learner_stats"]
        assert {"return_adapt_0", "return_adapt_1", "return_adapt_2", "adaptation_delta"} <= set(stats)
        assert algo.evaluate(2)["evaluation"]["episode_reward_mean"] < 0


def test_rllibs_workers_are_tasks():
    agent = MAMLConfig().rollouts(num_rollout_workers=7).make_agent(SPEC)
    assert agent.meta_batch_size == 7


REFUSED = {
    "an environment in Python": ({"backend": "gymnasium"}, "MAML: tasks are fields of a compiled environment"),
    "memory": ({"model": {"use_lstm": True}}, "MAML: networks have no memory here"),
    "a filter": ({"observation_filter": "MeanStdFilter"}, "MAML: what stands around an agent"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_learn_is_a_sentence(case):
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        MAMLConfig.from_dict({"env": "Pendulum-v1", **settings}).build()

"""MBPO, part by part: the ensemble and what it dreams in plain NumPy, SAC's updates as SAC makes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from modes import PENDULUM, assert_modes_are_equal, assert_resumes

from athlete.algorithms.mbpo import MBPO, MBPOConfig
from athlete.algorithms.sac import SAC
from athlete.core import Spec, Transition
from athlete.memory.replay import Replay
from athlete.models.ensemble import GaussianEnsemble, soft_bounded
from athlete.models.mlp import MLP
from athlete.ops.moments import Moments
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Discrete

KEY = wrap(np.array([0, 5], np.uint32))
OBS, ACTIONS, ROWS, MEMBERS = 2, 1, 4, 3
SPEC = Spec(Box(-9, 9, (OBS,)), Box(-1, 1, (ACTIONS,)))
ENSEMBLE = GaussianEnsemble(MEMBERS, (3,))
NETWORKS = {"policy_model": MLP((3,)), "q_model": MLP((3,)), "actor_lr": 0.01, "critic_lr": 0.02, "alpha_lr": 0.03}
FALLING = Schedule((0.0, 1.0), (0.05, 0.01))


def agent_of(**settings) -> MBPO:
    fields = {"dynamics_updates": 2, "policy_updates": 3, "dreams_capacity": 40, "dynamics_lr": FALLING, "gamma": 0.9}
    fields |= NETWORKS | settings
    memory = Replay(batch_size=ROWS * fields["dynamics_updates"])
    return MBPO(ensemble=ENSEMBLE, memory=memory, **fields).bind(SPEC)


def batch_of(seed: int = 0, number: int = 2 * ROWS) -> Transition:
    random = np.random.default_rng(seed)
    obs, next_obs = random.normal(size=(2, 1, number, OBS)).astype(np.float32)
    action = random.uniform(-0.9, 0.9, size=(1, number, ACTIONS)).astype(np.float32)
    terminated = random.uniform(size=(1, number)) < 0.3
    never = np.zeros((1, number), bool)
    reward = random.normal(size=(1, number)).astype(np.float32)
    return Transition(obs, ~never, action, reward, next_obs, terminated, never, (), {})


def random_like(tree, seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (0.5 * random.normal(size=leaf.shape)).astype(np.float32), tree)


def started(agent: MBPO):
    """A state in which no parameter is 0, and moments are not those of nothing."""
    state = jax.jit(agent.init)(KEY)
    dynamics = random_like(state.dynamics, 1) | {"most": np.full(OBS + 1, 0.6, np.float32)}
    dynamics |= {"least": np.full(OBS + 1, -3.0, np.float32)}
    random = np.random.default_rng(2)
    inputs, outputs = (
        Moments(np.float32(9), random.normal(size=n).astype(np.float32), random.uniform(1, 2, n).astype(np.float32))
        for n in (OBS + ACTIONS, OBS + 1)
    )
    sac = state.sac._replace(actor=random_like(state.sac.actor, 3))
    return state._replace(sac=sac, dynamics=dynamics, inputs=inputs, outputs=outputs)


# The ensemble, in plain NumPy ---------------------------------------------------------------------------------------


def softplus(x):
    return np.log1p(np.exp(x))


def said_by(params, member: int, inputs):
    """What one member says: means, log variances and the logit of an end."""
    x = inputs
    for number, layer in enumerate(params["layers"]):
        x = x @ layer["kernel"][member] + layer["bias"][member]
        x = x / (1 + np.exp(-x)) if number < len(params["layers"]) - 1 else x
    outputs = len(params["most"])
    log_var = params["most"] - softplus(params["most"] - x[:, outputs : 2 * outputs])
    return x[:, :outputs], params["least"] + softplus(log_var - params["least"]), x[:, -1]


def ensemble_loss(params, inputs, target, ended):
    total = 0.01 * np.sum(params["most"] - params["least"])
    for member in range(MEMBERS):
        mean, log_var, logit = said_by(params, member, inputs[member])
        total += np.mean((mean - target[member]) ** 2 / np.exp(log_var) + log_var)
        probability = 1 / (1 + np.exp(-logit))
        total -= np.mean(ended[member] * np.log(probability) + (1 - ended[member]) * np.log(1 - probability))
    return total


def float64(tree):
    return jax.tree.map(np.float64, tree)


def test_log_variances_are_bent_into_their_bounds():
    values = np.array([-50.0, -3.0, 0.0, 0.5, 50.0], np.float32)
    bent = jax.jit(soft_bounded)(values, -2.0, 0.5)
    assert (np.asarray(bent) >= -2.0).all() and (np.asarray(bent) <= 0.6).all() and (np.diff(bent) > -1e-6).all()
    middle = 0.5 - softplus(0.5 - 0.0)
    assert float(bent[2]) == pytest.approx(-2.0 + softplus(middle + 2.0), rel=1e-5)
    assert (np.asarray(jax.vmap(jax.grad(soft_bounded), (0, None, None))(values[1:4], -2.0, 0.5)) > 0).all()


def test_the_ensemble_learns_what_changes_of_real_steps_say():
    agent = agent_of()
    state, batch = started(agent), batch_of()
    learned, metrics = jax.jit(agent._learn_dynamics)(state, batch, KEY, 0.5)
    drawn = np.asarray(jax.random.randint(KEY, (2, MEMBERS, ROWS), 0, ROWS))
    seen = np.concatenate([batch.obs, batch.action], axis=-1)[0]
    change = np.concatenate([batch.next_obs - batch.obs, batch.reward[..., None]], axis=-1)[0]
    seen, change = (
        (values - moments.mean) / np.sqrt(moments.variance + 1e-8)
        for values, moments in ((seen, state.inputs), (change, state.outputs))
    )
    params = float64(state.dynamics)
    optimizer = references.Adam(params)
    for update in range(2):
        which = drawn[update] + ROWS * update
        given = seen[which], change[which], batch.terminated[0].astype(float)[which]
        loss = ensemble_loss(params, *given)
        slopes = references.gradient(lambda params, given=given: ensemble_loss(params, *given), params)
        params = optimizer.step(params, slopes, 0.03)
    assert float(metrics["dynamics_loss"]) == pytest.approx(loss, rel=1e-4)
    for a, b in zip(references.leaves(learned.dynamics), references.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    means = np.mean([said_by(params, member, seen[:ROWS])[0] for member in range(MEMBERS)], axis=0)
    assert float(metrics["dynamics_error"]) == pytest.approx(np.mean((means - change[:ROWS]) ** 2), rel=1e-2)


def test_dreams_are_drawn_step_by_step_from_a_member_each():
    agent = agent_of(rollout_length=3)
    state, starts = started(agent), batch_of().obs[0, :ROWS]
    dreamed = jax.device_get(jax.jit(agent._dream)(state, starts, KEY))
    obs, params = starts.astype(float), float64(state.dynamics)
    ends = 0
    for t, key in enumerate(jax.random.split(KEY, 3)):
        action_key, member_key, noise_key, end_key = jax.random.split(key, 4)
        np.testing.assert_allclose(dreamed.obs[t], obs, rtol=1e-3, atol=1e-4)
        action = np.asarray(agent._policy(state.sac.actor, jnp.asarray(obs, jnp.float32)).sample(action_key))
        np.testing.assert_allclose(dreamed.action[t], action, rtol=1e-3, atol=1e-4)
        inputs = (np.concatenate([obs, action], axis=-1) - state.inputs.mean) / np.sqrt(state.inputs.variance)
        member = np.asarray(jax.random.randint(member_key, (ROWS,), 0, MEMBERS))
        noise, uniform = jax.random.normal(noise_key, (ROWS, OBS + 1)), jax.random.uniform(end_key, (ROWS,))
        for row in range(ROWS):
            mean, log_var, logit = said_by(params, member[row], inputs[row : row + 1])
            drawn = mean[0] + np.exp(log_var[0] / 2) * np.asarray(noise)[row]
            change = state.outputs.mean + np.sqrt(state.outputs.variance) * drawn
            np.testing.assert_allclose(dreamed.next_obs[t, row], obs[row] + change[:-1], rtol=1e-3, atol=1e-3)
            assert dreamed.reward[t, row] == pytest.approx(change[-1], rel=1e-3, abs=1e-3)
            ended = bool(np.asarray(uniform)[row] < 1 / (1 + np.exp(-logit[0])))
            assert dreamed.terminated[t, row] == ended
            ends += ended
            obs[row] = starts[row] if ended else obs[row] + change[:-1]
    assert 0 < ends < 3 * ROWS
    assert not dreamed.truncated.any()


def test_batches_are_dreams_of_which_a_share_is_real():
    for ratio in (0.0, 0.25, 1.0):
        agent = agent_of(real_ratio=ratio, policy_updates=500)
        real, dreamed = batch_of(1), batch_of(2, number=500 * ROWS)
        mixed = jax.jit(agent._mixed)(real, dreamed, KEY)
        assert mixed.obs.shape == (500, 1, ROWS, OBS)
        is_real = np.isin(np.asarray(mixed.reward), real.reward)
        assert is_real.mean() == pytest.approx(ratio, abs=0.03)
        assert np.isin(np.asarray(mixed.reward)[~is_real], dreamed.reward).all()
        if ratio:
            assert len(np.unique(np.asarray(mixed.reward)[is_real])) == 2 * ROWS
        for row in np.argwhere(is_real)[:20]:
            place = int(np.flatnonzero(real.reward[0] == mixed.reward[tuple(row)])[0])
            np.testing.assert_array_equal(mixed.next_obs[tuple(row)], real.next_obs[0, place])


def test_an_update_dreams_from_real_states_and_then_learns_as_sac_does():
    agent = agent_of(rollout_length=2)
    state, batch = started(agent), batch_of()
    after, metrics = jax.jit(agent.update)(state, batch, KEY, 0.5)
    member_key, dream_key, drawn_key, real_key, key = jax.random.split(KEY, 5)
    learned, _ = jax.jit(agent._learn_dynamics)(state, batch, member_key, 0.5)
    for a, b in zip(jax.tree.leaves(after.dynamics), jax.tree.leaves(learned.dynamics), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    dreams = agent._dreaming().add(state.dreams, agent._dream(learned, batch.obs[0, :ROWS], dream_key))
    for a, b in zip(jax.tree.leaves(after.dreams), jax.tree.leaves(dreams), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert int(after.dreams.filled) == 2
    batches = agent._mixed(batch, agent._dreaming().sample(dreams, batch, drawn_key, 0.5), real_key)
    sac, held = SAC(**NETWORKS, gamma=0.9).bind(SPEC), state.sac
    losses = []
    for number, each in enumerate(jax.random.split(key, 3)):
        held, found = sac.update(held, jax.tree.map(lambda leaf, i=number: leaf[i], batches), each, 0.5)
        losses.append(float(found["critic_loss"]))
    assert float(metrics["critic_loss"]) == pytest.approx(np.mean(losses), rel=1e-3)
    for a, b in zip(jax.tree.leaves(after.sac), jax.tree.leaves(held), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_moments_are_those_of_all_that_was_seen():
    agent = agent_of()
    state, _ = agent.observe(jax.jit(agent.init)(KEY), (), batch_of(4))
    batch = batch_of(4)
    seen = np.concatenate([batch.obs, batch.action], axis=-1)[0]
    change = np.concatenate([batch.next_obs - batch.obs, batch.reward[..., None]], axis=-1)[0]
    for moments, values in ((state.inputs, seen), (state.outputs, change)):
        np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(moments.variance, values.var(axis=0), rtol=1e-4)


# Trainings ----------------------------------------------------------------------------------------------------------


def test_the_compiled_loop_and_the_hosted_one_take_the_same_steps():
    memory = Replay(64, 16)
    agent = MBPO(
        ensemble=ENSEMBLE,
        memory=memory,
        dynamics_updates=2,
        policy_updates=2,
        dreams_capacity=64,
        num_steps_sampled_before_learning_starts=16,
        random_timesteps=6,
        **NETWORKS,
    )
    assert_modes_are_equal(PENDULUM, agent, rows=2, length=1, tolerance=1e-3)


SMALL = {
    "train_batch_size": 8,
    "num_steps_sampled_before_learning_starts": 64,
    "model": {"fcnet_hiddens": [8]},
    "dynamics_hiddens": [8],
    "dreams_capacity": 200,
    "policy_updates": 2,
    "replay_buffer_config": {"capacity": 400},
}


def test_it_resumes_to_the_last_bit(tmp_path):
    config = MBPOConfig().environment("Pendulum-v1").training(**SMALL)
    assert_resumes(config.reporting(min_sample_timesteps_per_iteration=40).debugging(seed=1), tmp_path)


@pytest.mark.learning
def test_a_thousand_steps_are_enough_for_a_pendulum():
    config = MBPOConfig().environment("Pendulum-v1").training(
        actor_lr=1e-3, critic_lr=1e-3, alpha_lr=1e-3, policy_updates=10, num_steps_sampled_before_learning_starts=500,
        model={"fcnet_hiddens": [64, 64]}, dynamics_hiddens=[64, 64], ensemble_size=5, dreams_capacity=20_000,
        replay_buffer_config={"capacity": 20_000},
    )  # fmt: skip
    config.exploration(exploration_config={"random_timesteps": 500})
    with config.reporting(min_sample_timesteps_per_iteration=500).debugging(seed=0).build() as algo:
        while algo.train()["timesteps_total"] < 2500:
            pass
        assert algo.evaluate(20)["evaluation"]["episode_reward_mean"] > -250


REFUSED = {
    "pictures": (Spec(Box(0, 255, (8, 8, 3), np.uint8), SPEC.action), {}, "learns how a vector of floats changes"),
    "numbers": (Spec(Discrete(4), SPEC.action), {}, "DreamerV3 learns models of other observations"),
    "n steps": (SPEC, {"n_step": 3}, "n_step=3: what is dreamed are single steps"),
    "discrete actions": (Spec(SPEC.obs, Discrete(2)), {}, "MBPO serves Box action spaces"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_serve_is_a_sentence(case):
    spec, settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        MBPO(**settings).bind(spec)

"""Every algorithm's whole update is that of a plain NumPy reference: losses, weights, schedules, clipping, targets.

`references.py` has the other side. Networks are tiny, batches hold both endings, gradients are clipped in every case,
and several updates follow each other at different progress of the training. What is compared is the whole state.
"""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from references import Adam, leaves

from athlete.algorithms.a2c import A2C
from athlete.algorithms.alpha_zero import AlphaZero
from athlete.algorithms.appo import APPO
from athlete.algorithms.bc import BC
from athlete.algorithms.cql import CQL
from athlete.algorithms.crossq import CrossQ
from athlete.algorithms.crr import CRR
from athlete.algorithms.ddpg import DDPGConfig
from athlete.algorithms.dqn import DQN
from athlete.algorithms.dt import DT, Data
from athlete.algorithms.impala import IMPALA
from athlete.algorithms.iql import IQL
from athlete.algorithms.iqn import IQN
from athlete.algorithms.marwil import MARWIL
from athlete.algorithms.mpo import MPO, Duals, Networks
from athlete.algorithms.muzero import MuZero
from athlete.algorithms.pg import PG
from athlete.algorithms.ppo import PPO
from athlete.algorithms.pqn import PQN
from athlete.algorithms.qrdqn import QRDQN
from athlete.algorithms.r2d2 import R2D2
from athlete.algorithms.rebrac import ReBRAC
from athlete.algorithms.redq import REDQ
from athlete.algorithms.rnnsac import RNNSAC
from athlete.algorithms.sac import SAC
from athlete.algorithms.simple_q import SimpleQConfig
from athlete.algorithms.td3 import TD3
from athlete.algorithms.td3_bc import TD3BC
from athlete.algorithms.tqc import TQC
from athlete.algorithms.trpo import TRPO
from athlete.core import ActingCarry, Spec, Transition
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.multi_agent.tic_tac_toe import TicTacToe
from athlete.env.wrappers.exposed_state import ExposedState
from athlete.env.wrappers.turns import Turns
from athlete.models.batch_norm import BatchNormMLP, Moments
from athlete.models.causal import drop
from athlete.models.mlp import MLP
from athlete.models.recurrent import LSTM, LSTMState
from athlete.models.separate import Separate
from athlete.ops.random import wrap
from athlete.ops.ranked import Returns
from athlete.ops.schedule import Schedule
from athlete.ops.sequences import minibatch_orders
from athlete.spaces import Box, Discrete, Tuple

QUICK = {"xla_backend_optimization_level": 0}  # tiny programs: compiling is all they cost
PROGRESS = (0.0, 0.5, 0.8)  # of the updates
OBS, ACTION_SIZE = 2, 2
DISCRETE, CONTINUOUS = Spec(Box(-9, 9, (OBS,)), Discrete(3)), Spec(Box(-9, 9, (OBS,)), Box(-1, 1, (ACTION_SIZE,)))
FALLING = Schedule((0.0, 1.0), (0.05, 0.01))
TINY = MLP((3,))


def batch_of(spec, steps=1, rows=6, seed=0, weighted=True, carry=()):
    """Random transitions `[steps, rows]`: about a third of them terminated, and as many truncated."""
    random = np.random.default_rng(seed)
    obs, next_obs = random.normal(size=(2, steps, rows, OBS)).astype(np.float32)
    if isinstance(spec.action, Discrete):
        action = random.integers(spec.action.n, size=(steps, rows)).astype(np.int32)
    else:
        action = random.uniform(-0.9, 0.9, size=(steps, rows, ACTION_SIZE)).astype(np.float32)
    ending = random.integers(3, size=(steps, rows))
    ending[0, :3] = 0, 1, 2  # whatever the seed: goes on, terminated, truncated
    terminated, truncated = ending == 1, ending == 2
    first = np.zeros((steps, rows), bool)
    first[1:] = (terminated | truncated)[:-1]
    reward = 2 * random.normal(size=(steps, rows)).astype(np.float32)
    extras = {"weight": random.uniform(0.2, 1, size=(1, rows)).astype(np.float32)} if weighted else {}
    return Transition(obs, first, action, reward, next_obs, terminated, truncated, carry, extras)


def blank(agent):
    """The agent's first state with zeros for everything: its form is what counts, and nothing is compiled for it."""
    shapes = jax.eval_shape(agent.init, jax.eval_shape(lambda: wrap(jnp.zeros(2, jnp.uint32))))
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    if not hasattr(state, "temperature"):
        return state
    return state._replace(temperature=state.temperature._replace(log_alpha=np.log(np.float32(agent.initial_alpha))))


def random_like(tree, seed, scale=0.5):
    """Parameters of which none is 0, so that every one of them counts."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (scale * random.normal(size=leaf.shape)).astype(np.float32), tree)


def numbers(tree):
    """As arrays of float64, what the references work with; integers and flags stay what they are."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64 if np.asarray(leaf).dtype.kind == "f" else None), tree)


@functools.partial(jax.jit, compiler_options=QUICK)
def _update(agent, state, batch, key, progress):
    return agent.update(state, batch, key, progress)


def assert_equal(found, expected, name, tolerance=2e-4):
    for a, b in zip(leaves(numbers(found)), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1e-3, np.abs(b).max()), err_msg=name)


def assert_same_moments(optimizer, expected, name):
    """Adam's state, which tells the size of gradients where the first steps do not."""
    assert int(optimizer.count) == expected.count, name
    for kind in ("mean", "square"):
        found = np.concatenate([np.ravel(part) for part in getattr(optimizer, kind)])
        wanted = np.concatenate([np.ravel(part) for part in leaves(getattr(expected, kind))])
        np.testing.assert_allclose(
            found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max(), err_msg=f"{name}: {kind}"
        )


def follow(agent, state, held, reference, batches, draws, progress=PROGRESS):
    """Update both sides with each of the batches, and hold metrics equal on the way."""
    draws = jax.jit(draws, compiler_options=QUICK)
    for number, batch in enumerate(batches):
        key = wrap(np.array([3, number], np.uint32))
        drawn = numbers(draws(key, batch))
        expected = reference(agent, held, numbers(batch), drawn, progress[number])
        state, metrics = _update(agent, state, batch, key, progress[number])
        for name, value in expected.items():
            if name in metrics:  # of the actor's, only what an algorithm reports
                np.testing.assert_allclose(np.abs(metrics[name]), np.abs(value), rtol=1e-3, atol=1e-4, err_msg=name)
    return state


def batches_of(spec, **settings):
    return [batch_of(spec, seed=seed, **settings) for seed in range(len(PROGRESS))]


# Q-learning ----------------------------------------------------------------------------------------------------------

EVERY = {"lr": FALLING, "gamma": 0.9, "grad_clip": 0.3}
# Timesteps pass in steps of 2: the target stays at the first update and moves at the second and third.
SYNC = {"target_network_update_freq": 3.0, "timesteps_per_update": 2.0}
SIMPLE_Q = SimpleQConfig().make_agent(DISCRETE)
Q_CASES = {
    "SimpleQ": (dataclasses.replace(SIMPLE_Q, **EVERY, **SYNC, model=TINY), references.dqn),
    "DQN": (DQN(**EVERY, **SYNC, model=TINY, n_step=2, tau=0.3), references.dqn),
    "DQN, plain": (
        DQN(**EVERY, **SYNC, model=TINY, double_q=False, dueling=False, td_error_loss_fn="mse", adam_epsilon=0.1),
        references.dqn,
    ),
    "DQN, noisy": (DQN(**EVERY, **SYNC, model=TINY, noisy=True, n_step=3, tau=0.3), references.dqn),
    "Rainbow": (
        DQN(**EVERY, **SYNC, model=TINY, noisy=True, n_step=2, num_atoms=4, v_min=-2.0, v_max=3.0, tau=0.3),
        references.dqn,
    ),
    "QR-DQN": (
        QRDQN(**EVERY, **SYNC, model=TINY, num_quantiles=4, kappa=0.7, double_q=True, dueling=True, n_step=2, tau=0.3),
        references.qrdqn,
    ),
    "QR-DQN, plain": (QRDQN(**EVERY, **SYNC, model=TINY, num_quantiles=3), references.qrdqn),
    "IQN": (
        IQN(
            **EVERY,
            **SYNC,
            model=MLP(()),
            embedding_size=2,
            hidden_size=3,
            num_fractions=3,
            num_target_fractions=4,
            num_acting_fractions=5,
            kappa=0.7,
            double_q=True,
            n_step=2,
            tau=0.3,
        ),
        references.iqn,
    ),
    "IQN, plain": (
        IQN(**EVERY, **SYNC, model=MLP(()), embedding_size=2, hidden_size=2, num_fractions=2, num_target_fractions=2),
        references.iqn,
    ),
}


def q_draws(agent, key, batch):
    """The random numbers that these agents draw in an update, in the form the references take them."""
    rows = batch.reward.shape[1]
    if isinstance(agent, IQN):
        target_key, key = jax.random.split(key)
        return {
            "fractions": jax.random.uniform(key, (rows, agent.num_fractions)),
            "target_fractions": jax.random.uniform(target_key, (rows, agent.num_target_fractions)),
        }
    weights = [leaf for leaf in jax.tree.leaves(blank(agent).params) if leaf.ndim > 1]
    size = sum(sum(leaf.shape) for leaf in weights) // 2  # each has a mean and a deviation
    return {
        name: jax.random.normal(part, (size,))
        for name, part in zip(("online", "next", "target"), jax.random.split(key, 4), strict=False)
    }


@pytest.mark.parametrize("name", Q_CASES)
def test_q_learning(name):
    agent, reference = Q_CASES[name]
    agent = agent.bind(DISCRETE)
    fresh = blank(agent)
    state = fresh._replace(params=random_like(fresh.params, 1), target=random_like(fresh.params, 2))
    optimizer = Adam(numbers(state.params), agent.adam_epsilon, agent.grad_clip)
    held = references.q_network(numbers(state.params), optimizer, numbers(state.target))
    batches = batches_of(DISCRETE, steps=agent.n_step)
    state = follow(agent, state, held, reference, batches, functools.partial(q_draws, agent))
    assert optimizer.norm > agent.grad_clip, "the case must be one in which clipping counts"
    assert_equal(state.params, held.params, "params")
    assert_equal(state.target, held.target, "target")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")
    assert float(state.since_sync) == held.since


@pytest.mark.parametrize("plain", [False, True], ids=["all on", "plain"])
def test_r2d2(plain):
    off = {"double_q": False, "dueling": False, "use_h_function": False, "zero_init_states": True} if plain else {}
    shape = {"burn_in": 2, "max_seq_len": 3, "n_step": 2, "h_function_epsilon": 0.1, "model": LSTM(2, (2,)), "tau": 0.3}
    agent = R2D2(**EVERY, **SYNC, **shape, **off).bind(DISCRETE)
    fresh = blank(agent)
    state = fresh._replace(params=random_like(fresh.params, 1, 0.7), target=random_like(fresh.params, 2, 0.7))
    optimizer = Adam(numbers(state.params), agent.adam_epsilon, agent.grad_clip)
    held = references.q_network(numbers(state.params), optimizer, numbers(state.target))
    batches = batches_of(DISCRETE, steps=6, rows=3, carry=ActingCarry(lstm_carry(6, 3), ()))
    state = follow(agent, state, held, references.r2d2, batches, lambda key, batch: {})
    assert_equal(state.params, held.params, "params")
    assert_equal(state.target, held.target, "target")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


def lstm_carry(steps, rows, size=2):
    random = np.random.default_rng(8)
    return LSTMState(*random.uniform(-0.9, 0.9, size=(2, steps, rows, size)).astype(np.float32))


def test_pqn():
    agent = PQN(**EVERY, model=MLP((3,), "relu", layer_norm=True), lambda_=0.7, minibatch_size=4, num_epochs=2).bind(
        DISCRETE
    )
    fresh = blank(agent)
    state = fresh._replace(params=random_like(fresh.params, 1))
    held = SimpleNamespace(params=numbers(state.params), optimizer=Adam(numbers(state.params), clip=agent.grad_clip))
    draws = functools.partial(orders_of, agent)
    state = follow(agent, state, held, references.pqn, batches_of(DISCRETE, steps=4, rows=3, weighted=False), draws)
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


def orders_of(agent, key, batch):
    return {"orders": minibatch_orders(key, agent.num_epochs, batch.reward.size, agent.minibatch_size)}


# Deterministic policies ----------------------------------------------------------------------------------------------

RATES = {"actor_lr": Schedule((0.0, 1.0), (0.03, 0.005)), "critic_lr": FALLING, "gamma": 0.9, "grad_clip": 0.3}
SMALL = {"policy_model": MLP((2,)), "q_model": MLP((3,))}
DDPG = DDPGConfig().make_agent(CONTINUOUS)
DETERMINISTIC = {
    "DDPG": dataclasses.replace(
        DDPG, **RATES, **SMALL, **SYNC, tau=0.3, n_step=2, use_huber=True, huber_threshold=0.6, l2_reg=0.1
    ),
    "DDPG, plain": dataclasses.replace(DDPG, **RATES, **SMALL, tau=0.3, l2_reg=None),
    "TD3": TD3(**RATES, **SMALL, tau=0.3, n_step=2, l2_reg=0.1, target_noise=0.9, target_noise_clip=0.7),
    "TD3, at every update": TD3(**RATES, **SMALL, **SYNC, tau=0.3, policy_delay=1, use_huber=True, huber_threshold=0.6),
    "TD3, without its cures": TD3(**RATES, **SMALL, twin_q=False, smooth_target_policy=False, policy_delay=1),
}


def smoothing(key, batch):
    return {"noise": jax.random.normal(jax.random.split(key)[0], batch.action[0].shape)}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_policies(name):
    agent = DETERMINISTIC[name].bind(CONTINUOUS)
    state = blank(agent)
    networks = type(state.online)
    state = state._replace(
        online=networks(*random_like(tuple(state.online), 1)), target=networks(*random_like(tuple(state.target), 2))
    )
    actor, critics = numbers(tuple(state.online))
    target_actor, target_critics = numbers(tuple(state.target))
    held = SimpleNamespace(
        actor=actor,
        critics=critics,
        target={"actor": target_actor, "critics": target_critics},
        actor_optimizer=Adam(actor, clip=agent.grad_clip),
        critic_optimizer=Adam(critics, clip=agent.grad_clip),
        since=0.0,
    )
    batches = batches_of(CONTINUOUS, steps=agent.n_step)
    state = follow(agent, state, held, references.td3, batches, smoothing)
    assert_equal(tuple(state.online), (held.actor, held.critics), "online")
    assert_equal(tuple(state.target), (held.target["actor"], held.target["critics"]), "target")
    assert_same_moments(state.actor_optimizer, held.actor_optimizer, "actor_optimizer")
    assert_same_moments(state.critic_optimizer, held.critic_optimizer, "critic_optimizer")
    assert float(state.since_sync) == held.since


# Soft actor-critics --------------------------------------------------------------------------------------------------

SOFT = {
    **RATES,
    "alpha_lr": Schedule((0.0, 1.0), (0.1, 0.02)),
    "initial_alpha": 0.4,
    "target_entropy": -0.5,
    "tau": 0.3,
}
SOFT_CASES = {
    "SAC": (SAC(**SOFT, **SMALL, **SYNC, n_step=2), references.sac, CONTINUOUS),
    "SAC, one critic": (SAC(**SOFT, **SMALL, twin_q=False), references.sac, CONTINUOUS),
    "SAC, discrete": (SAC(**SOFT, **SMALL, **SYNC, n_step=2), references.discrete_sac, DISCRETE),
    "TQC": (
        TQC(**SOFT, **SMALL, **SYNC, n_step=2, num_quantiles=4, top_quantiles_to_drop_per_net=1),
        references.tqc,
        CONTINUOUS,
    ),
}


def held_of(agent, state):
    """What the references keep of a soft actor-critic."""
    actor, critics = numbers(state.actor), numbers(state.critics)
    return SimpleNamespace(
        actor=actor,
        critics=critics,
        target=numbers(state.targets),
        actor_optimizer=Adam(actor, clip=agent.grad_clip),
        critic_optimizer=Adam(critics, clip=agent.grad_clip),
        **temperature_of(state),
        policy=lambda actor, obs: references.Gaussian(references.mlp(actor, obs)["policy"]),
        since=0.0,
    )


def temperature_of(state):
    temperature = {"log_alpha": numbers(state.temperature.log_alpha)}
    return {"temperature": temperature, "temperature_optimizer": Adam(temperature)}


def with_random_networks(state):
    return state._replace(
        actor=random_like(state.actor, 1), critics=random_like(state.critics, 2), targets=random_like(state.targets, 3)
    )


def two_draws(key, batch):
    """Unit normal numbers for the actions that follow, and for those now; none for discrete actions."""
    if batch.action.dtype.kind == "i":
        return {}
    following, now = jax.random.split(key)
    shape = batch.action[0].shape
    return {"next": jax.random.normal(following, shape), "now": jax.random.normal(now, shape)}


def assert_same_soft_state(state, held):
    assert_equal(state.actor, held.actor, "actor")
    assert_equal(state.critics, held.critics, "critics")
    assert_equal(state.targets, held.target, "targets")
    assert_same_moments(state.actor_optimizer, held.actor_optimizer, "actor_optimizer")
    assert_same_moments(state.critic_optimizer, held.critic_optimizer, "critic_optimizer")
    assert_equal(state.temperature.log_alpha, held.temperature["log_alpha"], "log_alpha")
    assert_same_moments(state.temperature.optimizer, held.temperature_optimizer, "temperature")
    assert float(state.since_sync) == held.since


@pytest.mark.parametrize("name", SOFT_CASES)
def test_soft_actor_critics(name):
    agent, reference, spec = SOFT_CASES[name]
    agent = agent.bind(spec)
    state = with_random_networks(blank(agent))
    held = held_of(agent, state)
    state = follow(agent, state, held, reference, batches_of(spec, steps=agent.n_step), two_draws)
    assert_same_soft_state(state, held)


PLAYERS = {
    "two players": (Turns(TicTacToe()), {}),
    "one player": (ExposedState(CartPole()), {}),
    "one player, ranked": (ExposedState(CartPole()), {"buffer_max_length": 5, "percentile": 60.0}),
}


@pytest.mark.parametrize("players", PLAYERS)
def test_alpha_zero(players):
    simulator, ranked = PLAYERS[players]
    agent = AlphaZero(**EVERY, **ranked, model=TINY, n_step=3, l2=0.05, simulator=simulator).bind(DISCRETE)
    fresh = blank(agent)
    state = fresh._replace(params=random_like(fresh.params, 1))
    held = SimpleNamespace(params=numbers(state.params), optimizer=Adam(numbers(state.params), clip=0.3), bar=None)
    if ranked:
        held.returns = [-1.0, 2.0, 0.5, 0.25]
        values = np.array([*held.returns, 0.0], np.float32)
        state = state._replace(returns=Returns(values, np.int32(4)))
    batches = [
        batch._replace(extras={"policy": np.random.default_rng(i).dirichlet(np.ones(3), (3, 6)).astype(np.float32)})
        for i, batch in enumerate(batches_of(DISCRETE, steps=3, weighted=False))
    ]
    state = follow(agent, state, held, references.alpha_zero, batches, lambda key, batch: {})
    assert held.optimizer.norm > 0.3, "the case must be one in which clipping counts"
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")
    if ranked:
        assert float(state.bar.height) == pytest.approx(held.bar) and bool(state.bar.is_set)


def test_muzero():
    shape = {"unroll_steps": 2, "n_step": 2, "latent_size": 3, "scale_epsilon": 0.1, "value_coeff": 0.7}
    agent = MuZero(**EVERY, **shape, model=TINY).bind(DISCRETE)
    fresh = blank(agent)
    state = fresh._replace(params=random_like(fresh.params, 1))
    held = SimpleNamespace(params=numbers(state.params), optimizer=Adam(numbers(state.params), clip=0.3))
    batches = []
    for i, batch in enumerate(batches_of(DISCRETE, steps=4, rows=12, weighted=False)):
        random = np.random.default_rng(i)
        found = {"policy": random.dirichlet(np.ones(3), (4, 12)), "value": random.normal(size=(4, 12))}
        batches.append(batch._replace(extras=jax.tree.map(np.float32, found)))
    state = follow(agent, state, held, references.muzero, batches, lambda key, batch: {})
    assert held.optimizer.norm > 0.3, "the case must be one in which clipping counts"
    assert_equal(state.params, held.params, "params", 1e-3)
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


def mpo_draws(agent, key, batch):
    """Unit normal numbers for the candidates of the next states and of the states; none for discrete actions."""
    if batch.action.dtype.kind == "i":
        return {}
    following, now = jax.random.split(key)
    shape = (agent.num_samples, *batch.action[0].shape)
    return {"next": jax.random.normal(following, shape), "now": jax.random.normal(now, shape)}


@pytest.mark.parametrize("twin_q", [True, False], ids=["two critics", "one critic"])
@pytest.mark.parametrize("spec", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def test_mpo(spec, twin_q):
    limits = {
        "epsilon": 0.3,
        "epsilon_mean": 0.02,
        "epsilon_stddev": 0.01,
        "dual_lr": Schedule((0.0, 1.0), (0.1, 0.02)),
    }
    agent = MPO(**RATES, **SMALL, **SYNC, **limits, tau=0.3, n_step=2, num_samples=4, twin_q=twin_q).bind(spec)
    state = blank(agent)
    duals = Duals(np.float32(0.3), np.linspace(0.5, 1.5, len(state.duals.multipliers), dtype=np.float32))
    online, target = (
        Networks(random_like(part.actor, i), random_like(part.critics, i + 2))
        for i, part in enumerate((state.online, state.target))
    )
    state = state._replace(online=online, target=target, duals=duals)
    actor, critics, duals = numbers((online.actor, online.critics, duals))
    held = SimpleNamespace(
        actor=actor,
        critics=critics,
        target={"actor": numbers(target.actor), "critics": numbers(target.critics)},
        duals=duals,
        actor_optimizer=Adam(actor, clip=agent.grad_clip),
        critic_optimizer=Adam(critics, clip=agent.grad_clip),
        dual_optimizer=Adam(duals),
        since=0.0,
    )
    draws = functools.partial(mpo_draws, agent)
    state = follow(agent, state, held, references.mpo, batches_of(spec, steps=agent.n_step), draws)
    assert_equal(tuple(state.online), (held.actor, held.critics), "online")
    assert_equal(tuple(state.target), (held.target["actor"], held.target["critics"]), "target")
    assert_equal(state.duals, held.duals, "duals")
    assert_same_moments(state.actor_optimizer, held.actor_optimizer, "actor_optimizer")
    assert_same_moments(state.critic_optimizer, held.critic_optimizer, "critic_optimizer")
    assert_same_moments(state.dual_optimizer, held.dual_optimizer, "dual_optimizer")
    assert float(state.since_sync) == held.since


@pytest.mark.parametrize("spec", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def test_rnnsac(spec):
    models = {"policy_model": LSTM(2, (2,)), "q_model": LSTM(2, (2,))}
    shape = {"burn_in": 1, "max_seq_len": 2, "n_step": 2, "zero_init_states": spec is DISCRETE}
    agent = RNNSAC(**SOFT, **SYNC, **models, **shape).bind(spec)
    state = with_random_networks(blank(agent))
    held = held_of(agent, state)

    def draws(key, batch):
        following, now = jax.random.split(key)
        shape = batch.action[agent.burn_in :].shape
        if batch.action.dtype.kind == "i":
            return {}
        return {"next": jax.random.normal(following, shape), "now": jax.random.normal(now, shape)}

    batches = batches_of(spec, steps=4, rows=3, carry=ActingCarry(lstm_carry(4, 3), ()))
    state = follow(agent, state, held, references.rnnsac, batches, draws)
    assert_same_soft_state(state, held)


ENSEMBLES = {
    "REDQ": REDQ(**SOFT, **SMALL, n_step=2, num_critics=3, num_critics_in_target=2, policy_delay=2),
    "DroQ": REDQ(
        **SOFT,
        policy_model=MLP((2,)),
        q_model=MLP((5,), "tanh", layer_norm=True),
        num_critics=2,
        num_critics_in_target=2,
        policy_delay=2,
        dropout=0.3,
    ),
}


def ensemble_draws(agent, key, batch):
    next_key, critics_key, actor_key = jax.random.split(key, 3)
    rows, shape = batch.reward.shape[1] // agent.policy_delay, batch.action[0].shape
    hidden = sum(agent.q_model.hiddens)

    def keeps(key, number):
        """Dropout's factors, of so many critics."""
        if agent.dropout is None:
            return None
        bits = [jax.random.bits(part, (rows, hidden), jnp.uint32) for part in jax.random.split(key, number)]
        return [jnp.where((each >> 8) / 2**24 < agent.dropout, 0.0, 1 / (1 - agent.dropout)) for each in bits]

    def of_update(key):
        choose_key, target_key, online_key = jax.random.split(key, 3)
        order, number = jax.random.uniform(choose_key, (agent.num_critics,)), agent.num_critics_in_target
        chosen = jnp.argsort(-order)[:number] if number < agent.num_critics else jnp.arange(number)
        return {
            "chosen": chosen,
            "target_keep": keeps(target_key, number),
            "online_keep": keeps(online_key, agent.num_critics),
        }

    sample_key, values_key = jax.random.split(actor_key)
    return {
        "next": jax.random.normal(next_key, shape),
        "now": jax.random.normal(sample_key, (rows, *shape[1:])),
        "critics": [of_update(part) for part in jax.random.split(critics_key, agent.policy_delay)],
        "policy_keep": keeps(values_key, agent.num_critics),
    }


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles(name):
    agent = ENSEMBLES[name].bind(CONTINUOUS)
    state = blank(agent)
    ensemble = state.ensemble._replace(
        critics=random_like(state.ensemble.critics, 2), targets=random_like(state.ensemble.targets, 3)
    )
    state = state._replace(actor=random_like(state.actor, 1), ensemble=ensemble)
    held = held_of(agent, SimpleNamespace(**state.ensemble._asdict(), actor=state.actor, temperature=state.temperature))
    batches = batches_of(CONTINUOUS, steps=agent.n_step, rows=8)
    state = follow(agent, state, held, references.redq, batches, functools.partial(ensemble_draws, agent))
    assert_equal(state.actor, held.actor, "actor")
    assert_equal(state.ensemble.critics, held.critics, "critics")
    assert_equal(state.ensemble.targets, held.target, "targets")
    assert_same_moments(state.optimizer, held.actor_optimizer, "optimizer")
    assert_same_moments(state.ensemble.optimizer, held.critic_optimizer, "ensemble.optimizer")
    assert_equal(state.temperature.log_alpha, held.temperature["log_alpha"], "log_alpha")


@pytest.mark.parametrize("twin_q", [True, False])
def test_crossq(twin_q):
    models = {"policy_model": BatchNormMLP((2,), "tanh"), "q_model": BatchNormMLP((3,), "tanh")}
    settings = {name: value for name, value in SOFT.items() if name != "tau"}
    # Two updates of the critics an update: batches are renormalised from the second update's second on.
    agent = CrossQ(**settings, **models, n_step=2, policy_delay=2, renormalize_after=3.0, twin_q=twin_q)
    agent = agent.bind(CONTINUOUS)
    state = blank(agent)
    random = np.random.default_rng(5)

    def with_moments(params, seed):
        running = [
            Moments(
                random.normal(size=each.mean.shape).astype(np.float32),
                random.uniform(0.5, 2, size=each.variance.shape).astype(np.float32),
            )
            for each in params["running"]
        ]
        return {"learned": random_like(params["learned"], seed), "running": running}

    state = state._replace(
        actor=with_moments(state.actor, 1), critics=[with_moments(c, 2 + i) for i, c in enumerate(state.critics)]
    )
    actor, critics = numbers(state.actor), numbers(state.critics)
    learned = [critic["learned"] for critic in critics]
    held = SimpleNamespace(
        actor=actor["learned"],
        actor_running=actor["running"],
        critics=learned,
        running=[critic["running"] for critic in critics],
        actor_optimizer=Adam(actor["learned"], clip=agent.grad_clip, beta1=agent.adam_beta1),
        critic_optimizer=Adam(learned, clip=agent.grad_clip, beta1=agent.adam_beta1),
        **temperature_of(state),
    )
    batches = batches_of(CONTINUOUS, steps=agent.n_step, rows=12)
    half = batches[0].reward.shape[1] // agent.policy_delay

    def draws(key, batch):
        drawn = two_draws(key, batch)
        now = jax.random.normal(jax.random.split(key)[1], (half, ACTION_SIZE))
        return {**drawn, "now": now}

    state = follow(agent, state, held, references.crossq, batches, draws)
    assert_equal(state.actor, {"learned": held.actor, "running": held.actor_running}, "actor")
    expected = [{"learned": c, "running": r} for c, r in zip(held.critics, held.running, strict=True)]
    assert_equal(state.critics, expected, "critics")
    assert_same_moments(state.actor_optimizer, held.actor_optimizer, "actor_optimizer")
    assert_same_moments(state.critic_optimizer, held.critic_optimizer, "critic_optimizer")
    assert_equal(state.temperature.log_alpha, held.temperature["log_alpha"], "log_alpha")


# On-policy algorithms ------------------------------------------------------------------------------------------------

TRUNK = Separate(MLP((2,)))
ENTROPY = Schedule((0.0, 1.0), (0.3, 0.0))
ON_POLICY = {"lr": FALLING, "gamma": 0.9, "grad_clip": 0.2, "model": TRUNK}
NO_CARRY = {"policy": (), "value": ()}  # of two networks apart
A2C_CASES = {
    "A2C": (A2C(**ON_POLICY, lambda_=0.7, entropy_coeff=ENTROPY, vf_loss_coeff=0.3), DISCRETE),
    "A2C, continuous": (A2C(**ON_POLICY, entropy_coeff=ENTROPY), CONTINUOUS),
    "PG": (PG(**ON_POLICY, vf_loss_coeff=0.3), DISCRETE),
    "PG, continuous": (PG(**ON_POLICY), CONTINUOUS),
}
PPO_CLIP = {
    "lambda_": 0.7,
    "clip_param": Schedule((0.0, 1.0), (0.3, 0.01)),
    "vf_clip_param": 0.01,
    "entropy_coeff": ENTROPY,
    "minibatch_size": 5,
    "num_epochs": 2,
}
PPO_CASES = {
    "PPO": (PPO(**ON_POLICY, **PPO_CLIP), DISCRETE),
    "PPO, continuous": (PPO(**ON_POLICY, **PPO_CLIP), CONTINUOUS),
    "PPO, penalised": (PPO(**ON_POLICY, minibatch_size=6, num_epochs=2, kl_coeff=0.5), DISCRETE),
    "PPO, penalised, continuous": (PPO(**ON_POLICY, minibatch_size=6, num_epochs=2, kl_coeff=0.5), CONTINUOUS),
    "DPO, stopped early": (
        PPO(**ON_POLICY, minibatch_size=6, num_epochs=3, surrogate="discovered", kl_stop=0.03),
        DISCRETE,
    ),
}


def on_policy_batches(spec, steps=4, rows=3):
    return batches_of(spec, steps=steps, rows=rows, weighted=False, carry=NO_CARRY)


def on_policy_state(agent):
    state = blank(agent)._replace(params=random_like(blank(agent).params, 1, 0.6))
    coefficient = getattr(agent, "kl_coeff", None)
    return state if coefficient is None else state._replace(kl_coeff=np.float32(coefficient))


@pytest.mark.parametrize("name", A2C_CASES)
def test_actor_critics_of_one_step(name):
    agent, spec = A2C_CASES[name]
    agent = agent.bind(spec)
    state = on_policy_state(agent)
    epsilon = 1e-5 if isinstance(agent, A2C) else 1e-8
    held = SimpleNamespace(
        params=numbers(state.params), optimizer=Adam(numbers(state.params), epsilon, agent.grad_clip)
    )
    batches = on_policy_batches(spec)
    state = follow(agent, state, held, references.a2c, batches, lambda key, batch: {})
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


def test_pg_without_a_critic():
    agent = PG(**{**ON_POLICY, "model": MLP((2,))}, use_critic=False).bind(DISCRETE)
    state = on_policy_state(agent)
    held = SimpleNamespace(params=numbers(state.params), optimizer=Adam(numbers(state.params), clip=agent.grad_clip))
    batches = batches_of(DISCRETE, steps=4, rows=3, weighted=False)
    state = follow(agent, state, held, references.reinforce, batches, lambda key, batch: {})
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


@pytest.mark.parametrize("name", PPO_CASES)
def test_ppo(name):
    agent, spec = PPO_CASES[name]
    agent = agent.bind(spec)
    state = on_policy_state(agent)
    held = SimpleNamespace(
        params=numbers(state.params),
        optimizer=Adam(numbers(state.params), 1e-5, agent.grad_clip),
        kl_coeff=agent.kl_coeff,
    )
    batches = [acted(batch, seed) for seed, batch in enumerate(on_policy_batches(spec))]
    state = follow(agent, state, held, references.ppo, batches, functools.partial(orders_of, agent))
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")
    if agent.kl_coeff is not None:
        assert float(state.kl_coeff) == pytest.approx(held.kl_coeff)


V_TRACE = {
    "lambda_": 0.9,
    "entropy_coeff": ENTROPY,
    "vf_loss_coeff": 0.3,
    "vtrace_clip_rho_threshold": 0.9,
    "vtrace_clip_pg_rho_threshold": 1.2,
}
IMPALA_CASES = {
    "IMPALA": (IMPALA(**ON_POLICY, **V_TRACE), DISCRETE),
    "IMPALA, continuous, in two epochs": (IMPALA(**ON_POLICY, **V_TRACE, num_epochs=2), CONTINUOUS),
    "IMPALA without V-trace": (IMPALA(**ON_POLICY, **V_TRACE, vtrace=False), DISCRETE),
}
TARGET = {"clip_param": Schedule((0.0, 1.0), (0.2, 0.01)), "target_update_frequency": 2, "tau": 0.7, "num_epochs": 2}
APPO_CASES = {
    "APPO": (APPO(**ON_POLICY, **V_TRACE, **TARGET), DISCRETE),
    "APPO, penalised, continuous": (APPO(**ON_POLICY, **V_TRACE, **TARGET, kl_coeff=0.5, kl_target=0.2), CONTINUOUS),
    "APPO without V-trace": (APPO(**ON_POLICY, **V_TRACE, **TARGET, vtrace=False), DISCRETE),
}


def older_batches(spec):
    """Trajectories of a policy that is not the one that learns."""
    return [acted(batch, seed) for seed, batch in enumerate(on_policy_batches(spec))]


@pytest.mark.parametrize("name", IMPALA_CASES)
def test_impala(name):
    agent, spec = IMPALA_CASES[name]
    agent = agent.bind(spec)
    state = on_policy_state(agent)
    optimizer = Adam(numbers(state.params), 1e-5, agent.grad_clip)
    held = SimpleNamespace(params=numbers(state.params), optimizer=optimizer)
    state = follow(agent, state, held, references.impala, older_batches(spec), lambda key, batch: {})
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


@pytest.mark.parametrize("name", APPO_CASES)
def test_appo(name):
    agent, spec = APPO_CASES[name]
    agent = agent.bind(spec)
    state = on_policy_state(agent)._replace(target=random_like(blank(agent).params, 2, 0.6))
    optimizer = Adam(numbers(state.params), 1e-5, agent.grad_clip)
    held = SimpleNamespace(
        params=numbers(state.params),
        optimizer=optimizer,
        target=numbers(state.target),
        since=0,
        kl_coeff=agent.kl_coeff,
    )
    state = follow(agent, state, held, references.appo, older_batches(spec), lambda key, batch: {})
    assert_equal(state.params, held.params, "params")
    assert_equal(state.target, held.target, "target")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")
    if agent.kl_coeff is not None:
        assert float(state.kl_coeff) == pytest.approx(held.kl_coeff) != agent.kl_coeff


def test_ppo_with_moved_means():
    agent = PPO(**ON_POLICY, minibatch_size=6, num_epochs=2, rpo_alpha=0.4).bind(CONTINUOUS)
    state = on_policy_state(agent)
    optimizer = Adam(numbers(state.params), 1e-5, agent.grad_clip)
    held = SimpleNamespace(params=numbers(state.params), optimizer=optimizer, kl_coeff=None)

    def draws(key, batch):
        orders = orders_of(agent, key, batch)["orders"]
        keys = [jax.random.fold_in(key, step) for step in range(len(orders))]
        shape = (orders.shape[1], ACTION_SIZE)
        return {"orders": orders, "moves": [jax.random.uniform(k, shape, minval=-0.4, maxval=0.4) for k in keys]}

    batch = acted(on_policy_batches(CONTINUOUS)[0], 0)
    state = follow(agent, state, held, references.ppo, [batch], draws)
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


def acted(batch, seed):
    """With what an acting policy, not quite the one that learns, says of the actions taken."""
    size = 3 if batch.action.dtype.kind == "i" else 2 * ACTION_SIZE
    outputs = 0.4 * np.random.default_rng(seed).normal(size=(*batch.reward.shape, size)).astype(np.float32)
    log_prob = references.policy_of(outputs, batch.action).log_prob(batch.action).astype(np.float32)
    return batch._replace(extras={"outputs": outputs, "log_prob": log_prob})


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_trpo(spec):
    agent = TRPO(
        kl_target=0.05,
        gamma=0.9,
        lambda_=0.7,
        conjugate_gradient_steps=60,
        damping=0.05,
        line_search_decay=0.5,
        lr=FALLING,
        minibatch_size=5,
        num_epochs=2,
        model=MLP((2,)),
    ).bind(spec)
    state = blank(agent)
    state = state._replace(policy=random_like(state.policy, 1, 0.6), value=random_like(state.value, 2, 0.6))
    held = SimpleNamespace(
        policy=numbers(state.policy), value=numbers(state.value), optimizer=Adam(numbers(state.value))
    )
    batches = on_policy_batches(spec, steps=5, rows=4)
    state = follow(agent, state, held, references.trpo, batches, functools.partial(orders_of, agent))
    assert_equal(state.policy, held.policy, "policy", tolerance=5e-3)  # conjugate gradients in float32
    assert_equal(state.value, held.value, "value")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


# Recorded data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_bc(spec):
    agent = BC(lr=FALLING, grad_clip=0.05, model=MLP((2,))).bind(spec)
    state = on_policy_state(agent)
    held = SimpleNamespace(params=numbers(state.params), optimizer=Adam(numbers(state.params), clip=agent.grad_clip))
    batches = batches_of(spec, steps=2, rows=4, weighted=False)
    state = follow(agent, state, held, references.bc, batches, lambda key, batch: {})
    assert held.optimizer.norm > agent.grad_clip, "the case must be one in which clipping counts"
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


DT_SIZE = {"embed_dim": 4, "num_heads": 2, "num_layers": 2, "max_seq_len": 3, "max_ep_len": 4, "target_return": -2.0}
DT_CASES = {
    "discrete": (DISCRETE, {"embed_pdrop": 0.3, "attn_pdrop": 0.4, "resid_pdrop": 0.2, "weight_decay": 0.5}),
    "continuous": (CONTINUOUS, {"embed_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}),
}


def dropped(agent, key, batch):
    """What each number of a window is multiplied with: 0, or 1 / (1 - share)."""
    steps, rows = batch.reward.shape
    tokens = 3 * steps
    token_key, key = jax.random.split(key)
    keys = iter(jax.random.split(key, 3 * agent.num_layers))

    def of(key, share, *shape):
        return drop(jnp.ones((rows, *shape)), share, key)

    found = {"tokens": of(token_key, agent.embed_pdrop, tokens, agent.embed_dim)}
    for i in range(agent.num_layers):
        found[f"weights{i}"] = of(next(keys), agent.attn_pdrop, agent.num_heads, tokens, tokens)
        found[f"seen{i}"] = of(next(keys), agent.resid_pdrop, tokens, agent.embed_dim)
        found[f"added{i}"] = of(next(keys), agent.resid_pdrop, tokens, agent.embed_dim)
    return found


@pytest.mark.parametrize("name", DT_CASES)
def test_dt(name):
    spec, settings = DT_CASES[name]
    spec = Spec(Tuple((spec.obs, Box(-np.inf, np.inf, (1,)))), spec.action)
    agent = DT(lr=FALLING, grad_clip=0.3, **DT_SIZE, **settings).bind(spec)
    fresh = blank(agent)
    data = Data(np.array([0.3, -0.2], np.float32), np.array([0.5, 2.0], np.float32), np.float32(3.0))
    state = fresh._replace(params=random_like(fresh.params, 1), data=data)
    params = numbers(state.params)
    held = SimpleNamespace(params=params, optimizer=Adam(params, clip=agent.grad_clip), data=data)
    batches = []
    for batch in batches_of(Spec(spec.obs.spaces[0], spec.action), steps=3, rows=4, weighted=False):
        time = np.zeros(batch.reward.shape, np.int32)
        time[0] = 0, 1, 2, 3  # in the middle of episodes that last longer than are told apart
        for t in range(1, len(time)):
            time[t] = np.where(batch.first[t], 0, time[t - 1] + 1)
        shown = (batch.obs, np.full((*time.shape, 1), np.nan, np.float32))  # rewards are for acting
        batches.append(batch._replace(obs=shown, next_obs=(), extras={"time": time}))
    state = follow(agent, state, held, references.dt, batches, functools.partial(dropped, agent))
    assert held.optimizer.norm > agent.grad_clip, "the case must be one in which clipping counts"
    for params in (state.params, held.params):  # the same is added to all scores: no slope, of which Adam makes steps
        for block in params["blocks"]:
            block["attend"]["bias"] = np.delete(np.asarray(block["attend"]["bias"]), np.arange(4, 8))
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")


MARWIL_CASES = {
    "discrete": (
        MARWIL(**ON_POLICY, beta=0.7, vf_coeff=0.3, max_weight=1.5, moving_average_sqd_adv_norm_start=2.0),
        DISCRETE,
    ),
    "continuous": (MARWIL(**ON_POLICY, bc_logstd_coeff=0.4, moving_average_sqd_adv_norm_update_rate=0.2), CONTINUOUS),
    "cloning": (MARWIL(**ON_POLICY, beta=0.0, vf_coeff=0.0), DISCRETE),
}


@pytest.mark.parametrize("name", MARWIL_CASES)
def test_marwil(name):
    agent, spec = MARWIL_CASES[name]
    agent = agent.bind(spec)
    start = np.float32(agent.moving_average_sqd_adv_norm_start)
    state = on_policy_state(agent)._replace(sqd_adv_norm=start)
    optimizer = Adam(numbers(state.params), clip=agent.grad_clip)
    held = SimpleNamespace(params=numbers(state.params), optimizer=optimizer, norm=float(start))
    random = np.random.default_rng(7)
    batches = [
        batch._replace(extras={"discount": random.uniform(size=batch.reward.shape).astype(np.float32)})
        for batch in batches_of(spec, steps=2, rows=4, weighted=False)
    ]
    state = follow(agent, state, held, references.marwil, batches, lambda key, batch: {})
    assert_equal(state.params, held.params, "params")
    assert_same_moments(state.optimizer, held.optimizer, "optimizer")
    assert float(state.sqd_adv_norm) == pytest.approx(held.norm, rel=1e-4)


def held_of_networks(agent, **networks):
    """What the references keep: parameters by name, and an optimiser for each."""
    optimizers = {f"{name}_optimizer": Adam(params, clip=agent.grad_clip) for name, params in networks.items()}
    return SimpleNamespace(
        **networks, **{name.replace("critics_", "critic_"): each for name, each in optimizers.items()}
    )


CLONING = {
    "TD3+BC": TD3BC(**RATES, **SMALL, tau=0.3, n_step=2, alpha=1.7, target_noise=0.9, target_noise_clip=0.7),
    "TD3+BC, at every update": TD3BC(**RATES, **SMALL, **SYNC, tau=0.3, policy_delay=1, target_noise=0.3),
    "ReBRAC": ReBRAC(**RATES, **SMALL, tau=0.3, actor_bc_coeff=0.6, critic_bc_coeff=0.8, target_noise=0.5),
    "ReBRAC, two steps": ReBRAC(
        **RATES, **SMALL, **SYNC, tau=0.3, n_step=2, actor_bc_coeff=0.6, critic_bc_coeff=0.8, policy_delay=1
    ),
}


@pytest.mark.parametrize("name", CLONING)
def test_deterministic_policies_that_clone(name):
    agent = CLONING[name].bind(CONTINUOUS)
    networks = type(blank(agent).online)
    state = blank(agent)._replace(
        online=networks(*random_like(tuple(blank(agent).online), 1)),
        target=networks(*random_like(tuple(blank(agent).target), 2)),
    )
    actor, critics = numbers(tuple(state.online))
    held = held_of_networks(agent, actor=actor, critics=critics)
    held.target, held.since = dict(zip(("actor", "critics"), numbers(tuple(state.target)), strict=True)), 0.0
    batches = batches_of(CONTINUOUS, steps=agent.n_step + isinstance(agent, ReBRAC))
    state = follow(agent, state, held, references.cloning_td3, batches, smoothing)
    assert_equal(tuple(state.online), (held.actor, held.critics), "online")
    assert_equal(tuple(state.target), (held.target["actor"], held.target["critics"]), "target")
    assert_same_moments(state.actor_optimizer, held.actor_optimizer, "actor_optimizer")
    assert_same_moments(state.critic_optimizer, held.critic_optimizer, "critic_optimizer")
    assert float(state.since_sync) == held.since


IQL_CASES = {
    "continuous": (IQL(**RATES, **SMALL, tau=0.3, n_step=2, value_lr=FALLING, beta=0.7, expectile=0.8), CONTINUOUS),
    "weights that are cut": (IQL(**RATES, **SMALL, **SYNC, tau=0.3, value_lr=0.02, max_weight=1.1), CONTINUOUS),
    "discrete": (IQL(**RATES, **SMALL, tau=0.3, value_lr=FALLING, beta=0.7, twin_q=False), DISCRETE),
}


@pytest.mark.parametrize("name", IQL_CASES)
def test_iql(name):
    agent, spec = IQL_CASES[name]
    agent = agent.bind(spec)
    state = with_random_networks(blank(agent))._replace(value=random_like(blank(agent).value, 4))
    held = held_of_networks(
        agent, actor=numbers(state.actor), critics=numbers(state.critics), value=numbers(state.value)
    )
    held.target, held.since = numbers(state.targets), 0.0
    batches = batches_of(spec, steps=agent.n_step)
    state = follow(agent, state, held, references.iql, batches, lambda key, batch: {})
    for part, expected in (("actor", held.actor), ("critics", held.critics), ("value", held.value)):
        assert_equal(getattr(state, part), expected, part)
    assert_equal(state.targets, held.target, "targets")
    for part in ("actor_optimizer", "critic_optimizer", "value_optimizer"):
        assert_same_moments(getattr(state, part), getattr(held, part), part)
    assert float(state.since_sync) == held.since


CQL_SOFT = {**SOFT, "critic_lr": FALLING, "num_actions": 3, "min_q_weight": 0.4, "temperature": 0.8}
CQL_CASES = {
    "continuous": (CQL(**CQL_SOFT, **SMALL, n_step=2, bc_iters=1), CONTINUOUS),
    "with a multiplier": (
        CQL(**CQL_SOFT, **SMALL, **SYNC, bc_iters=3, lagrangian=True, lagrangian_thresh=0.5),
        CONTINUOUS,
    ),
    "discrete, soft targets": (CQL(**CQL_SOFT, **SMALL, bc_iters=2, deterministic_backup=False), DISCRETE),
}


def cql_draws(agent, key, batch):
    if batch.action.dtype.kind == "i":
        return {}
    next_key, penalty_key, key = jax.random.split(key, 3)
    uniform_key, now_key, later_key = jax.random.split(penalty_key, 3)
    shape = batch.action[0].shape
    many = (shape[0] * agent.num_actions, shape[1])
    return {
        "next": jax.random.normal(next_key, shape),
        "now": jax.random.normal(key, shape),
        "uniform": jax.random.uniform(uniform_key, many, minval=-1.0, maxval=1.0),
        "now_many": jax.random.normal(now_key, many),
        "later_many": jax.random.normal(later_key, many),
    }


@pytest.mark.parametrize("name", CQL_CASES)
def test_cql(name):
    agent, spec = CQL_CASES[name]
    agent = agent.bind(spec)
    state = with_random_networks(blank(agent))._replace(log_multiplier=np.float32(0.3))
    held = held_of(agent, state)
    held.log_multiplier = {"x": np.array(0.3)}
    held.multiplier_optimizer = Adam(held.log_multiplier)

    def reference(agent, held, batch, draws, progress):
        tiled = draws | {"tile": lambda obs: np.repeat(obs, agent.num_actions, axis=0)}
        return references.cql(agent, held, batch, tiled, progress)

    batches = batches_of(spec, steps=agent.n_step)
    state = follow(agent, state, held, reference, batches, functools.partial(cql_draws, agent))
    assert_same_soft_state(state, held)
    assert float(state.log_multiplier) == pytest.approx(float(held.log_multiplier["x"]), rel=1e-4)


CRR_SMALL = {**RATES, **SMALL, "tau": 0.3, "n_action_sample": 3}
CRR_CASES = {
    "continuous": (CRR(**CRR_SMALL, n_step=2), CONTINUOUS),
    "exponential": (
        CRR(**CRR_SMALL, **SYNC, weight_type="exp", advantage_type="max", temperature=0.3, max_weight=1.2),
        CONTINUOUS,
    ),
    "discrete": (CRR(**CRR_SMALL, weight_type="exp", twin_q=False), DISCRETE),
}


@pytest.mark.parametrize("name", CRR_CASES)
def test_crr(name):
    agent, spec = CRR_CASES[name]
    agent, discrete = agent.bind(spec), isinstance(spec.action, Discrete)
    parts = type(blank(agent).online)
    state = blank(agent)._replace(
        online=parts(*random_like(tuple(blank(agent).online), 1)),
        target=parts(*random_like(tuple(blank(agent).target), 2)),
    )
    actor, critics = numbers(tuple(state.online))
    held = held_of_networks(agent, actor=actor, critics=critics)
    held.target, held.since = dict(zip(("actor", "critics"), numbers(tuple(state.target)), strict=True)), 0.0

    def draws(key, batch):
        next_key, sample_key = jax.random.split(key)
        keys = jax.random.split(sample_key, agent.n_action_sample)
        if discrete:
            return {"samples": jnp.stack([jax.random.gumbel(each, (batch.reward.shape[1], 3)) for each in keys])}
        shape = batch.action[0].shape
        samples = jnp.stack([jax.random.normal(each, shape) for each in keys])
        return {"next": jax.random.normal(next_key, shape), "samples": samples}

    state = follow(agent, state, held, references.crr, batches_of(spec, steps=agent.n_step), draws)
    assert_equal(tuple(state.online), (held.actor, held.critics), "online")
    assert_equal(tuple(state.target), (held.target["actor"], held.target["critics"]), "target")
    assert_same_moments(state.actor_optimizer, held.actor_optimizer, "actor_optimizer")
    assert_same_moments(state.critic_optimizer, held.critic_optimizer, "critic_optimizer")
    assert float(state.since_sync) == held.since

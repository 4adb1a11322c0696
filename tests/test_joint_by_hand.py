"""Targets and losses of joint methods, worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms.maddpg import MADDPG, straight_through
from athlete.algorithms.mappo import MAPPO
from athlete.algorithms.qmix import QMIX
from athlete.core import Group, Transition
from athlete.env.multi_agent import joint_spec
from athlete.models.mlp import MLP
from athlete.ops.random import wrap
from athlete.spaces import Box, Dict, Discrete, MultiBinary

KEY = wrap(np.array([0, 4], np.uint32))
SEEN = Dict({"obs": Box(-1.0, 1.0, (1,)), "action_mask": MultiBinary((2,))})
SPEC = joint_spec({"agent": Group(2, SEEN, Discrete(2))}, always_acting=True)


def constant(params, **outputs):
    """A linear network that gives the same numbers whatever it sees."""
    heads = {
        name: {"kernel": jnp.zeros_like(head["kernel"]), "bias": jnp.array(outputs[name], jnp.float32)}
        for name, head in params["heads"].items()
    }
    return params | {"heads": heads}


def batch(extras=()):
    """Two rows of one step, rewards 1 and 2: in the first the second agent may not take action 1 next; the second
    terminates.
    """
    plain, legal = np.zeros((1, 2, 2, 1), np.float32), np.ones((1, 2, 2, 2), np.int8)
    limited = legal.copy()
    limited[0, 0, 1] = 1, 0
    obs, next_obs = ({"obs": {"agent": {"obs": plain, "action_mask": mask}}} for mask in (legal, limited))
    no = np.zeros((1, 2), bool)
    reward = np.broadcast_to(np.float32([1.0, 2.0]), (1, 2, 2))
    action = {"agent": np.broadcast_to(np.int32([0, 1]), (1, 2, 2))}
    return Transition(obs, no, action, reward, next_obs, np.array([[False, True]]), no, (), {**dict(extras)})


def test_q_tot_is_what_the_mixing_network_makes_of_the_agents_values():
    agent = QMIX(mixing_embed_dim=1).bind(SPEC)
    params = agent.init(KEY).params
    mixer = {"weights": constant(params["mixer"]["weights"], w1=[2.0, -3.0], b1=[0.5], w2=[-4.0])}
    mixer["value"] = constant(params["mixer"]["value"], b2=[0.25])
    values = jnp.array([[[1.0, -1.0], [1.0, 1.0]]])
    # |2| * 1 + |-3| * -1 + 0.5 = -0.5, whose ELU is exp(-0.5) - 1; 2 + 3 + 0.5 = 5.5 stays; then times |-4|, plus 0.25
    found = agent._mix({"mixer": mixer}, values, jnp.zeros((1, 2, 2)))
    np.testing.assert_allclose(found, [[4.0 * (np.exp(-0.5) - 1.0) + 0.25, 22.25]], rtol=1e-6)


def test_q_tot_rises_with_the_value_of_every_agent_whatever_the_weights():
    """Equation 5: the derivative in each agent's value is not negative, for 100 random networks and states."""
    agent = QMIX(mixing_embed_dim=4).bind(SPEC)

    def slopes(key):
        params_key, values_key, state_key = jax.random.split(key, 3)
        params = jax.tree.map(lambda leaf: leaf + 0.5, agent.init(params_key).params)
        values, state = jax.random.normal(values_key, (1, 1, 2)), jax.random.normal(state_key, (1, 1, 2))
        return jax.grad(lambda values: agent._mix(params, values, state)[0, 0])(values)

    found = jax.jit(jax.vmap(slopes))(jax.random.split(KEY, 100))
    assert (found > 0.0).all()


@pytest.mark.parametrize(
    ("settings", "errors"),
    [
        # Both take 1 + 2 = 3 now. Next, the online network prefers action 1 (2 > 1), which the target network values
        # at 20; the second agent may only take action 0, worth 10. 3 - (1 + 2 + 0.5 * 30) and 3 - (1 + 2).
        ({"mixer": "vdn"}, [15.0, 0.0]),
        ({"mixer": "vdn", "team_reward": "mean"}, [13.5, 1.5]),
        # By its own choice the target network prefers action 0 for both (30 > 20): 3 - (3 + 0.5 * 60).
        ({"mixer": "vdn", "double_q": False}, [30.0, 0.0]),
        # 1 - (1 + 0.5 * 20) and 2 - (2 + 0.5 * 10), 1 - 1 and 2 - 2; the mean over agents of their sizes.
        ({"mixer": None}, [7.5, 0.0]),
    ],
    ids=str,
)
def test_targets_of_values_take_the_best_legal_action_of_each_agent(settings, errors):
    agent = QMIX(gamma=0.5, model=MLP(()), **settings).bind(SPEC)
    state = agent.init(KEY)
    first_best = [30.0, 20.0] if settings.get("double_q") is False else [10.0, 20.0]
    online, target = (
        {"agents": {"agent": constant(state.params["agents"]["agent"], q=q)}} for q in ([1.0, 2.0], first_best)
    )
    _, metrics = agent.update(state._replace(params=online, target=target), batch(), KEY, 0.0)
    np.testing.assert_allclose(metrics["td_error"], errors, rtol=1e-6)


def test_maddpg_learns_each_agents_own_reward():
    agent = MADDPG(gamma=0.5, policy_model=MLP(()), q_model=MLP(())).bind(SPEC)
    state = agent.init(KEY)
    online, target = (
        networks._replace(critics={"agent": constant(networks.critics["agent"], q=[q])})
        for networks, q in ((state.online, 3.0), (state.target, 8.0))
    )
    _, metrics = agent.update(state._replace(online=online, target=target), batch(), KEY, 0.0)
    # 3 - (1 + 0.5 * 8) = -2 and 3 - (2 + 4) = -3; 3 - 1 and 3 - 2 where it ended.
    np.testing.assert_allclose(metrics["td_error"], [2.5, 1.5], rtol=1e-6)
    assert float(metrics["critic_loss"]) == pytest.approx((2.0 + 4.5 + 2.0 + 0.5) / 2)


def test_a_straight_through_draw_is_one_hot_and_has_the_gradient_of_a_softmax():
    logits, weight = jnp.array([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]]), jnp.array([1.0, 2.0, 4.0])
    drawn = straight_through(logits, KEY)
    np.testing.assert_allclose(np.sort(drawn), [[0, 0, 1], [0, 0, 1]], atol=1e-6)
    noise = jax.random.gumbel(KEY, logits.shape)
    found = jax.grad(lambda logits: jnp.sum(straight_through(logits, KEY) * weight))(logits)
    expected = jax.grad(lambda logits: jnp.sum(jax.nn.softmax(logits + noise) * weight))(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_draws_follow_the_softmax():
    logits = jnp.log(jnp.array([0.1, 0.2, 0.7]))
    drawn = straight_through(jnp.broadcast_to(logits, (20_000, 3)), KEY)
    np.testing.assert_allclose(jnp.mean(drawn, axis=0), [0.1, 0.2, 0.7], atol=0.01)


def test_which_actions_are_an_agents_own():
    groups = {"a": Group(2, SEEN, Discrete(2)), "b": Group(1, Box(-1.0, 1.0, (1,)), Box(-1.0, 1.0, (3,)))}
    own = MADDPG().bind(joint_spec(groups, always_acting=True))._own_columns()
    assert own.astype(int).tolist() == [[1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize(("how", "mean"), [("sum", [4.5]), ("mean", [2.25]), (None, [1.5, 3.0])], ids=str)
def test_mappo_learns_values_of_one_reward_or_of_each_agents_own(how, mean):
    """Rewards of 1 and 2; the first row's next state is worth as much as this one, 0.5 of it counts: targets of 1 + 1
    and 2 + 2, and of 1 and 2 in the row that terminates. Their mean is what the critic's units are centred on.
    """
    agent = MAPPO(gamma=0.5, lambda_=0.0, team_reward=how, critic_model=MLP(()), num_epochs=1).bind(SPEC)
    state = agent.init(KEY)
    worth = {"sum": [6.0], "mean": [3.0], None: [2.0, 4.0]}[how]
    params = state.params | {"critic": constant(state.params["critic"], value=worth)}
    log_prob = np.log(np.full((1, 2, 2), 0.5, np.float32))
    steps = batch({"log_prob": log_prob})._replace(carry={"agent": ()})
    state, metrics = agent.update(state._replace(params=params), steps, KEY, 0.0)
    np.testing.assert_allclose(state.returns.mean, mean, rtol=1e-6)
    assert float(metrics["kl"]) == pytest.approx(0.0, abs=1e-3), "the policies that acted were uniform"

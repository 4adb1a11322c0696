"""Linear bandits held to plain NumPy, their environments to rules by hand, and what they cannot learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import assert_modes_are_equal, assert_resumes
from typer.testing import CliRunner

import athlete
from athlete.algorithms import get_config_class
from athlete.algorithms.bandit import BanditState, LinearBandit
from athlete.algorithms.random_agent import RandomAgentConfig
from athlete.cli.main import app
from athlete.core import Spec, Transition
from athlete.env.games.bandits import make_bandit
from athlete.env.games.bandits.contextual import ContextualBandit
from athlete.env.games.bandits.linear import ItemBandit
from athlete.env.games.bandits.linear import LinearBandit as LinearBanditEnv
from athlete.env.games.bandits.wheel import WheelBandit
from athlete.env.registry import BANDITS
from athlete.env.twins import find_twin
from athlete.estimation import estimate
from athlete.offline.files import read_data
from athlete.ops.random import wrap
from athlete.spaces import Box, Dict, Discrete, MultiBinary

KEY = wrap(np.array([0, 5], np.uint32))
ARMS, SIZE = 3, 2
SHARED = Spec(Box(-1, 1, (SIZE,)), Discrete(ARMS))
OWN = Spec(Dict({"item": Box(-1, 1, (ARMS, SIZE)), "time": Discrete(9)}), Discrete(ARMS))
MASKED = Spec(Dict({"action_mask": MultiBinary((ARMS,)), "seen": Box(-1, 1, (SIZE,))}), Discrete(ARMS))
ACT = jax.jit(
    lambda agent, state, obs, key, explore: agent.act(agent.view(state, 0.0), (), obs, obs_first(obs), key, explore)[0],
    static_argnums=4,
)
UPDATE = jax.jit(lambda agent, state, batch: agent.update(state, batch, KEY, 0.0))


def obs_first(obs):
    return jnp.ones(len(jax.tree.leaves(obs)[0]), bool)


def contexts_of(spec: Spec, obs) -> np.ndarray:
    """The context of each arm, `[..., arms, d]`."""
    return np.asarray(obs["item"]) if spec is OWN else np.stack([np.asarray(obs)] * ARMS, axis=-2)


def batch_of(spec: Spec, steps: int, rows: int, seed: int = 0, extras=()) -> Transition:
    random = np.random.default_rng(seed)
    obs = random.normal(size=(steps, rows, SIZE)).astype(np.float32)
    if spec is OWN:
        item = random.normal(size=(steps, rows, ARMS, SIZE)).astype(np.float32)
        obs = {"item": item, "time": np.zeros((steps, rows), np.int32)}
    action = random.integers(0, ARMS, (steps, rows)).astype(np.int32)
    reward, over = random.normal(size=(steps, rows)).astype(np.float32), np.ones((steps, rows), bool)
    return Transition(obs, over, action, reward, obs, over, ~over, (), extras)


class Regression:
    """Ridge regression in float64, step by step."""

    def __init__(self, ridge: float):
        self.a, self.b = ridge * np.eye(SIZE), np.zeros(SIZE)

    def add(self, x, r):
        self.a, self.b = self.a + np.outer(x, x), self.b + r * x

    def theta(self):
        return np.linalg.solve(self.a, self.b)

    def width(self, x):
        return np.sqrt(x @ np.linalg.inv(self.a) @ x)


def regressions(spec: Spec, batches, ridge: float):
    """A regression for each arm, the same for all where items have features, and the loss of each batch."""
    one = Regression(ridge)
    found, losses = [one] * ARMS if spec is OWN else [Regression(ridge) for _ in range(ARMS)], []
    for batch in batches:
        contexts, squares, taken = contexts_of(spec, batch.obs), [], []
        for place in np.ndindex(batch.reward.shape):
            arm = batch.action[place]
            x, r = contexts[place][arm].astype(float), float(batch.reward[place])
            squares.append(0.5 * (found[arm].theta() @ x - r) ** 2)
            taken.append((arm, x, r))
        for arm, x, r in taken:
            found[arm].add(x, r)
        losses.append(np.mean(squares))
    return found, losses


# The update and what it does to actions -----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SHARED, OWN], ids=["a context for all arms", "items"])
def test_the_whole_update_is_that_of_plain_ridge_regressions(spec):
    agent, batches = LinearBandit(lambda_=0.7).bind(spec), [batch_of(spec, 3, 2, seed) for seed in range(4)]
    expected, losses = regressions(spec, batches, 0.7)
    state = agent.init(KEY)
    for batch, loss in zip(batches, losses, strict=True):
        state, metrics = UPDATE(agent, state, batch)
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
    view = jax.jit(agent.view)(state, 0.0)
    for i in range(len(state.moment)):
        np.testing.assert_allclose(state.precision[i], expected[i].a, rtol=1e-5)
        np.testing.assert_allclose(state.moment[i], expected[i].b, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(view.theta[i], expected[i].theta(), rtol=1e-4, atol=1e-5)
    assert len(state.moment) == (1 if spec is OWN else ARMS)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("spec", [SHARED, OWN], ids=["a context for all arms", "items"])
def test_linucb_takes_the_arm_that_may_pay_most(spec, alpha):
    agent, batches = LinearBandit(alpha=alpha).bind(spec), [batch_of(spec, 5, 1)]
    expected, _ = regressions(spec, batches, 1.0)
    state, _ = UPDATE(agent, agent.init(KEY), batches[0])
    obs = jax.tree.map(lambda leaf: leaf[0], batch_of(spec, 1, 200, seed=9).obs)
    contexts = contexts_of(spec, obs)

    def best(alpha):
        return [
            np.argmax([each.theta() @ x + alpha * each.width(x) for each, x in zip(expected, row, strict=True)])
            for row in contexts
        ]

    np.testing.assert_array_equal(ACT(agent, state, obs, KEY, True), best(alpha))
    np.testing.assert_array_equal(ACT(agent, state, obs, KEY, False), best(0.0))


@pytest.mark.parametrize("spec", [SHARED, OWN], ids=["a context for all arms", "items"])
def test_lints_takes_arms_as_often_as_they_are_best_by_drawn_parameters(spec):
    agent, batch = LinearBandit(alpha=0.8, thompson=True).bind(spec), batch_of(spec, 5, 1)
    expected, _ = regressions(spec, [batch], 1.0)
    state, _ = UPDATE(agent, agent.init(KEY), batch)
    one = jax.tree.map(lambda leaf: leaf[0], batch_of(spec, 1, 1, seed=9).obs)
    obs = jax.tree.map(lambda leaf: np.repeat(leaf, 20_000, axis=0), one)
    arms = contexts_of(spec, one)[0]
    random = np.random.default_rng(0)

    def draw(each):
        return random.multivariate_normal(each.theta(), 0.64 * np.linalg.inv(each.a), 20_000)

    same = draw(expected[0])
    drawn = [same if spec is OWN else draw(each) for each in expected]
    scores = [theta @ x for theta, x in zip(drawn, arms, strict=True)]
    share = np.bincount(np.argmax(scores, axis=0), minlength=ARMS) / 20_000
    found = np.bincount(np.asarray(ACT(agent, state, obs, KEY, True)), minlength=ARMS) / 20_000
    assert share.max() < 0.95
    np.testing.assert_allclose(found, share, atol=0.02)
    assert len({*np.asarray(ACT(agent, state, obs, KEY, False)).tolist()}) == 1


def test_an_illegal_arm_is_not_taken_and_places_that_are_no_steps_are_not_learned_from():
    agent = LinearBandit().bind(MASKED)
    obs = {"seen": np.ones((4, SIZE), np.float32), "action_mask": np.tile(np.int8([0, 1, 0]), (4, 1))}
    state = agent.init(KEY)
    for explore in (True, False):
        assert np.asarray(ACT(agent, state, obs, KEY, explore)).tolist() == [1] * 4
    agent, whole = LinearBandit().bind(SHARED), batch_of(SHARED, 3, 2)
    valid = np.ones((3, 2), bool)
    valid[1, 0] = False
    found = UPDATE(agent, agent.init(KEY), whole._replace(extras={"valid": valid}))
    kept = jax.tree.map(lambda leaf: leaf[valid][None], whole._replace(extras={"valid": valid}))
    expected = UPDATE(agent, agent.init(KEY), kept._replace(extras=()))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


# Trainings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thompson", [False, True], ids=["LinUCB", "LinTS"])
def test_the_compiled_loop_and_the_hosted_one_take_the_same_steps(thompson):
    assert_modes_are_equal(LinearBanditEnv(), LinearBandit(thompson=thompson), rows=2, length=3)


@pytest.mark.parametrize("name", ["BanditLinUCB", "BanditLinTS"])
def test_they_find_the_best_arms_and_resume_to_the_last_bit(name, tmp_path):
    config = get_config_class(name)().environment("LinearBandit-v0").training(alpha=0.3).debugging(seed=1)
    assert_resumes(config, tmp_path)
    with config.reporting(min_sample_timesteps_per_iteration=1000).build() as algo:
        algo.train()
        result = algo.train()
        evaluation = algo.evaluate(500)["evaluation"]
    assert result["custom_metrics"]["regret_mean"] < 0.01
    assert evaluation["custom_metrics"]["regret_mean"] < 0.001
    assert isinstance(algo.run.state, BanditState)


def test_the_command_line_trains_one(tmp_path):
    words = ["train", "BanditLinTS", "ContextualBandit-v0", "--stop-timesteps", "300", "--local-dir", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output


REFUSED = {
    "continuous actions": (("Pendulum-v1", {}), "BanditLinUCB serves Discrete action spaces"),
    "a network": (("LinearBandit-v0", {"model": {"fcnet_hiddens": [8]}}), "it has no network"),
    "another exploration": (
        ("LinearBandit-v0", {"exploration_config": {"type": "EpsilonGreedy"}}),
        "BanditLinUCB explores with UpperConfidenceBound",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_they_cannot_learn_is_a_sentence(case):
    (env, settings), message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        get_config_class("BanditLinUCB").from_dict({"env": env, **settings}).build()


def test_items_are_a_row_for_each_arm():
    with pytest.raises(ValueError, match=r"there are 3 arms: it must be a Box of shape \(3, d\)"):
        LinearBandit().bind(Spec(Dict({"item": Box(-1, 1, (2, 4))}), Discrete(3)))


# Environments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", BANDITS)
def test_ids_are_found_and_keep_the_contract(env_id):
    env, _ = find_twin(env_id)
    assert env == make_bandit(env_id)
    athlete.check_env(env_id)
    with pytest.raises(ValueError, match="it has no 'nose'"):
        make_bandit(env_id, {"nose": 3})


def played(env, action: int, count: int = 4000):
    """What was seen, paid and regretted in as many episodes of one action."""

    def one(key):
        reset_key, step_key = jax.random.split(key)
        state, obs = env.reset(reset_key)
        return obs, env.step(state, jnp.int32(action), step_key)[1]

    obs, step = jax.jit(jax.vmap(one))(jax.random.split(KEY, count))
    assert np.asarray(step.terminated).all() and not np.asarray(step.truncated).any()
    return jax.device_get((obs, step.reward, step.info["regret"]))


def test_arms_pay_linearly_with_noise_and_regret_is_of_the_best():
    env = LinearBanditEnv(feature_dim=3, num_actions=4, reward_noise_std=0.1, theta_seed=2)
    np.testing.assert_allclose(np.linalg.norm(env.thetas, axis=1), 1.0, rtol=1e-6)
    assert not np.allclose(env.thetas, LinearBanditEnv(3, 4, theta_seed=3).thetas)
    context, reward, regret = played(env, 1)
    assert context.std() == pytest.approx(1 / 3, rel=0.03)
    paid = context @ env.thetas.T
    np.testing.assert_allclose(regret, paid.max(axis=1) - paid[:, 1], atol=1e-6)
    assert (reward - paid[:, 1]).std() == pytest.approx(0.1, rel=0.05)
    assert (reward - paid[:, 1]).mean() == pytest.approx(0.0, abs=0.01)


def test_items_pay_by_their_features():
    env = ItemBandit(feature_dim=3, num_items=5, reward_noise_std=0.0)
    obs, reward, regret = played(env, 4)
    paid = obs["item"] @ env.theta
    np.testing.assert_allclose(reward, paid[:, 4], atol=1e-6)
    np.testing.assert_allclose(regret, paid.max(axis=1) - paid[:, 4], atol=1e-6)


@pytest.mark.parametrize(
    ("point", "pays"),
    [
        ((0.3, 0.3), [1.2, 1, 1, 1, 1]),
        ((0.5, 0.5), [1.2, 50, 1, 1, 1]),
        ((-0.5, 0.5), [1.2, 1, 50, 1, 1]),
        ((-0.5, -0.5), [1.2, 1, 1, 50, 1]),
        ((0.5, -0.5), [1.2, 1, 1, 1, 50]),
        ((0.5, 0.0), [1.2, 1, 1, 1, 50]),
    ],
)
def test_the_rim_of_the_wheel_pays_for_the_arm_of_its_quadrant(point, pays):
    np.testing.assert_allclose(WheelBandit().expected(jnp.array(point)), pays)


def test_points_of_the_wheel_are_uniform_in_the_disc():
    context, reward, regret = played(WheelBandit(std=0.0), 0)
    radius = np.linalg.norm(context, axis=1)
    assert radius.max() <= 1
    assert (radius < 0.5).mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(context.mean(axis=0), 0.0, atol=0.03)
    np.testing.assert_allclose(reward, 1.2)
    np.testing.assert_allclose(regret, np.where(radius >= 0.5, 48.8, 0.0), rtol=1e-5)


def test_of_two_contexts_each_has_an_arm_that_pays_ten():
    for arm, of_one in ((0, 10.0), (1, 0.0), (2, -10.0)):
        context, reward, regret = played(ContextualBandit(), arm)
        np.testing.assert_array_equal(context[:, 1], -context[:, 0])
        assert context[:, 0].mean() == pytest.approx(0.0, abs=0.05)
        np.testing.assert_array_equal(reward, of_one * context[:, 0])
        np.testing.assert_array_equal(regret, 10 - reward)


def test_whoever_sees_no_radius_pays_for_it_at_the_wheel():
    """Arms that are linear without a bias choose by the direction alone: in the middle, they pay 1 and not 1.2."""

    def one(key):
        reset_key, step_key = jax.random.split(key)
        state, (x, y) = WheelBandit().reset(reset_key)
        quadrant = jnp.where(x > 0, jnp.where(y > 0, 1, 4), jnp.where(y > 0, 2, 3))
        return WheelBandit().step(state, quadrant, step_key)[1].info["regret"]

    regret = jax.jit(jax.vmap(one))(jax.random.split(KEY, 40_000))
    assert regret.mean() == pytest.approx(0.25 * 0.2, abs=0.002)


# Logged data --------------------------------------------------------------------------------------------------------


def test_logged_decisions_tell_what_a_bandit_that_is_learned_elsewhere_would_be_paid(tmp_path):
    """Chance plays and is recorded; the estimators say of LinUCB, which never played there, what it is truly worth."""
    with RandomAgentConfig().environment("LinearBandit-v0").debugging(seed=3).build() as chance:
        data = read_data(chance.record(tmp_path / "logged.safetensors", 4000))
    with get_config_class("BanditLinUCB")().environment("LinearBandit-v0").debugging(seed=1).build() as algo:
        for _ in range(10):
            algo.train()
        policy = algo.get_policy()
    thetas = LinearBanditEnv().thetas
    contexts = np.asarray(data.transitions(policy.agent.spec).obs).reshape(-1, 8)
    true = (contexts @ thetas.T).max(axis=1).mean()
    fitting = {"updates": 800, "lr": 5e-3, "hiddens": [32], "fits": 2}
    methods = {
        "is": {"type": "ImportanceSampling"},
        "wis": {"type": "WeightedImportanceSampling"},
        "dm": {"type": "DirectMethod", "q_model_config": fitting},
        "dr": {"type": "DoublyRobust", "q_model_config": fitting},
    }
    told = estimate(policy, data, methods)
    assert true == pytest.approx(0.37, abs=0.02)
    for name, numbers in told.items():
        assert numbers["v_target"] == pytest.approx(true, abs=0.03), name
        assert numbers["v_behavior"] == pytest.approx(0.0, abs=0.03)
    assert told["dr"]["v_target_std"] < told["is"]["v_target_std"]


def test_linucb_takes_its_arm_with_certainty_and_the_probability_of_lints_is_not_known():
    batch = batch_of(SHARED, 5, 1)
    agent = LinearBandit(alpha=0.7).bind(SHARED)
    state, _ = UPDATE(agent, agent.init(KEY), batch)
    obs = batch_of(SHARED, 1, 50, seed=9).obs[0]
    view = agent.view(state, 0.0)
    drawn_from = agent.distribution(view, (), obs, obs_first(obs))
    arms = np.asarray(ACT(agent, state, obs, KEY, True))
    np.testing.assert_array_equal(drawn_from.log_prob(arms), 0.0)
    assert (np.asarray(drawn_from.log_prob((arms + 1) % ARMS)) < -100).all()
    assert LinearBandit(thompson=True).bind(SHARED).distribution(view, (), obs, obs_first(obs)) is None

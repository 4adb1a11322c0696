"""Exploration bonuses: their rewards, worked out by hand, and the agents around which they are put."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import CARTPOLE, PENDULUM, assert_modes_are_equal, assert_resumes
from witness import Witness

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.algorithms.a2c import A2C
from athlete.algorithms.catalog import is_joint, learns_from_returns, serves_slates
from athlete.algorithms.dqn import DQN, DQNConfig
from athlete.algorithms.ppo import PPO, PPOConfig
from athlete.algorithms.sac import SAC
from athlete.bonuses.bonus import fit
from athlete.bonuses.counts import Counts, CountsState
from athlete.bonuses.curiosity import Curiosity
from athlete.bonuses.rnd import RND
from athlete.combine.curious import Curious
from athlete.combine.normalize import Normalize
from athlete.core import Spec, Transition, hyper
from athlete.exploration import EpsilonGreedy, SoftQ
from athlete.memory.replay import Replay
from athlete.models.cnn import ConvNet
from athlete.models.mlp import MLP
from athlete.models.separate import Separate
from athlete.ops.gradient import adam_init
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple

KEY = wrap(np.array([0, 1], np.uint32))
QUICK = {"xla_backend_optimization_level": 0}


def steps(obs, next_obs, action, reward=None):
    """Transitions `[T, B]`."""
    obs, next_obs = np.asarray(obs), np.asarray(next_obs)
    shape = np.asarray(jax.tree.leaves(action)[0]).shape[:2]
    never = np.zeros(shape, bool)
    reward = np.zeros(shape, np.float32) if reward is None else np.asarray(reward, np.float32)
    return Transition(obs, never, action, reward, next_obs, never, never, (), {})


@functools.partial(jax.jit, compiler_options=QUICK)
def observe(bonus, state, batch):
    return bonus.observe(state, bonus.accumulators(batch.reward.shape[1]), batch)[0]


@functools.partial(jax.jit, compiler_options=QUICK)
def update(bonus, state, batch):
    """Rewards, the state after learning, metrics."""
    return bonus.reward(state, batch), *bonus.update(state, batch, KEY)


def linear(weights):
    """The parameters of a head without layers before it: x @ weights."""
    return {"kernel": jnp.asarray(weights, jnp.float32), "bias": jnp.zeros(len(weights[0]))}


# Counts -----------------------------------------------------------------------------------------------------------


def test_the_reward_of_a_count_falls_with_its_root():
    bonus = Counts(eta=0.6).bind(Spec(Discrete(5), Discrete(2)))
    state = bonus.init(KEY)
    first = steps([[0, 0]], [[1, 2]], np.zeros((1, 2), np.int32))
    state = observe(bonus, state, first)
    np.testing.assert_allclose(update(bonus, state, first)[0], [[0.6, 0.6]])
    state = observe(bonus, state, steps([[1], [1], [1]], [[1], [1], [1]], np.zeros((3, 1), np.int32)))
    reward, same, _ = update(bonus, state, first)
    np.testing.assert_allclose(reward, [[0.3, 0.6]], err_msg="four visits to 1, one to 2")
    np.testing.assert_array_equal(same.visits, state.visits, "what is replayed is not counted again")


def test_a_code_is_the_signs_of_projections():
    bonus = Counts(hash_bits=2).bind(Spec(Box(-9, 9, (2,)), Discrete(2)))
    state = CountsState(jnp.eye(2), jnp.zeros(4, jnp.int32))
    obs = np.array([[[1, 1], [1, -1], [-1, 1], [-1, -1], [5, 0.1]]], np.float32)
    counted = observe(bonus, state, steps(obs, obs, np.zeros((1, 5), np.int32)))
    np.testing.assert_array_equal(counted.visits, [1, 1, 1, 2], "both bits are set twice")


# Random network distillation --------------------------------------------------------------------------------------


def distilling(**settings):
    """A bonus of linear networks of two numbers: the random one is the identity, the predictor is twice that."""
    bonus = RND(model=MLP(()), feature_dim=2, **settings).bind(Spec(Box(-9, 9, (2,)), Discrete(2)))
    state = bonus.init(KEY)
    target, predictor = ({"layers": [], "heads": {"embedding": linear(n * np.eye(2))}} for n in (1, 2))
    assert jax.tree.structure(target) == jax.tree.structure(state.target)
    return bonus, state._replace(target=target, predictor=predictor)


def test_the_reward_is_the_mean_squared_error_over_the_deviation_of_its_returns():
    bonus, state = distilling(eta=3.0, gamma=0.5)
    obs = np.array([[[1, 1]], [[2, 0]], [[0, 4]]], np.float32)
    batch = steps(0 * obs, obs, np.zeros((3, 1), np.int32))
    state = observe(bonus, state, batch)
    reward, _, metrics = update(bonus, state, batch)
    standard = (obs - obs.mean(axis=0)) / obs.std(axis=0)
    errors = np.mean(np.square(standard), axis=2)[:, 0]
    returns = [errors[0], errors[1] + 0.5 * errors[0], errors[2] + 0.5 * errors[1] + 0.25 * errors[0]]
    np.testing.assert_allclose(reward[:, 0], 3 * errors / np.std(returns), rtol=1e-4)
    assert metrics["predictor_loss"] == pytest.approx(errors.mean())
    assert state.returns.mean == pytest.approx(np.mean(returns))


def test_intrinsic_returns_go_on_from_one_trajectory_to_the_next():
    bonus, state = distilling(gamma=0.5)
    accumulators = bonus.accumulators(1)
    np.testing.assert_array_equal(accumulators, [0])
    obs = np.array([[[1, 1]], [[2, 0]], [[0, 4]]], np.float32)
    batch = steps(0 * obs, obs, np.zeros((3, 1), np.int32))
    batch = batch._replace(first=np.array([[True], [False], [True]]))  # nor do episodes end them
    for _ in range(20):
        state, accumulators = jax.jit(bonus.observe)(state, accumulators, batch)
    errors = np.mean(np.square((obs - obs.mean(axis=0)) / obs.std(axis=0)), axis=2)[:, 0]
    last = (errors[2] + 0.5 * errors[1] + 0.25 * errors[0]) / (1 - 0.5**3)  # of a cycle that never ends
    np.testing.assert_allclose(accumulators, [last], rtol=1e-3)


def test_observations_are_standardized_with_all_that_was_visited():
    bonus, state = distilling()
    seen = np.array([[[0, 10]], [[4, 10]], [[4, 30]], [[0, 30]]], np.float32)  # means 2, 20; deviations 2, 10
    state = observe(bonus, state, steps(0 * seen, seen, np.zeros((4, 1), np.int32)))
    far = np.array([[[2, 999]]], np.float32)
    _, _, metrics = update(bonus, state, steps(far, far, np.zeros((1, 1), np.int32)))
    assert metrics["predictor_loss"] == pytest.approx(5**2 / 2, rel=1e-5), "(0, clipped to 5)"


def test_the_predictor_learns_what_it_sees_and_the_random_network_stays():
    bonus = RND(lr=1e-2).bind(Spec(Discrete(6), Discrete(2)))
    state = start = bonus.init(KEY)
    known = steps([[0, 0, 0]], [[0, 1, 2]], np.zeros((1, 3), np.int32))
    state = observe(bonus, state, known)
    for _ in range(200):
        _, state, metrics = update(bonus, state, known)
    new = steps([[0, 0, 0]], [[3, 4, 5]], np.zeros((1, 3), np.int32))
    assert metrics["predictor_loss"] < 0.05 * update(bonus, state, new)[2]["predictor_loss"]
    for a, b in zip(jax.tree.leaves(start.target), jax.tree.leaves(state.target), strict=True):
        np.testing.assert_array_equal(a, b)


# Curiosity --------------------------------------------------------------------------------------------------------


def curious_by_hand(action_space, **settings):
    """Linear networks: features are the observation's one number, the next is predicted to be the same."""
    bonus = Curiosity(feature_dim=1, features_model=MLP(()), inverse_model=MLP(()), forward_model=MLP(()), **settings)
    bonus = bonus.bind(Spec(Box(-9, 9, (1,)), action_space))
    state = bonus.init(KEY)
    actions = state.params["inverse"]["heads"]["action"]["kernel"].shape[1]
    size = state.params["forward"]["heads"]["features"]["kernel"].shape[0]
    params = {
        "features": {"layers": [], "heads": {"features": linear([[1.0]])}},
        "forward": {"layers": [], "heads": {"features": linear([[1.0]] + [[0.0]] * (size - 1))}},
        "inverse": {"layers": [], "heads": {"action": linear(np.zeros((2, actions)))}},
    }
    assert jax.tree.structure(params) == jax.tree.structure(state.params)
    return bonus, state._replace(params=params)


def test_the_reward_is_half_the_squared_error_of_the_features_that_follow():
    bonus, state = curious_by_hand(Discrete(4), eta=0.5)
    obs, next_obs = np.array([[[1.0], [2.0]]]), np.array([[[4.0], [2.0]]])
    reward, _, metrics = update(bonus, state, steps(obs, next_obs, np.array([[0, 3]])))
    np.testing.assert_allclose(reward, [[0.5 * 4.5, 0.0]])
    assert metrics["forward_loss"] == pytest.approx(2.25)
    assert metrics["inverse_loss"] == pytest.approx(np.log(4)), "it cannot tell four actions apart"


def test_continuous_actions_are_told_with_a_unit_standard_deviation():
    bonus, state = curious_by_hand(Box(-1, 1, (2,)))
    obs, action = np.array([[[1.0]]]), np.array([[[1.0, -0.5]]], np.float32)
    _, _, metrics = update(bonus, state, steps(obs, obs, action))
    assert metrics["inverse_loss"] == pytest.approx(0.5 * 1.25 + np.log(2 * np.pi))


def test_beta_chooses_what_is_learned():
    obs, next_obs, action = np.array([[[1.0], [2.0]]]), np.array([[[4.0], [2.0]]]), np.array([[0, 3]])
    for beta, moved, still in ((0.0, "inverse", "forward"), (1.0, "forward", "inverse")):
        bonus, state = curious_by_hand(Discrete(4), beta=beta)
        after = update(bonus, state, steps(obs, next_obs, action))[1].params
        assert not jax.tree.all(jax.tree.map(np.allclose, after[moved], state.params[moved]))
        assert jax.tree.all(jax.tree.map(np.array_equal, after[still], state.params[still]))


def test_what_is_predictable_gets_dull():
    bonus = Curiosity(lr=1e-2).bind(Spec(Discrete(6), Discrete(2)))
    state = bonus.init(KEY)
    known = steps([[0, 0, 1, 1]], [[2, 3, 4, 5]], np.array([[0, 1, 0, 1]]))
    losses = []
    for _ in range(300):
        _, state, metrics = update(bonus, state, known)
        losses.append([metrics["inverse_loss"], metrics["forward_loss"]])
    assert losses[0][0] == pytest.approx(np.log(2), rel=0.1)
    assert losses[-1][0] < 0.05, "the action is told from what it led to"
    assert losses[-1][1] < 0.05 * max(loss for _, loss in losses)


# Every bonus ------------------------------------------------------------------------------------------------------

MIXED = Dict({"pose": Box(-1, 1, (2, 2)), "image": Box(0, 255, (3,), np.uint8), "who": Discrete(3, start=1)})
ACTIONS = {
    "Discrete": (Discrete(3), np.array([[0, 2, 1], [1, 1, 0]])),
    "MultiDiscrete": (MultiDiscrete((2, 4)), np.zeros((2, 3, 2), np.int32)),
    "Box of rank 2": (Box(-1, 1, (1, 2)), np.zeros((2, 3, 1, 2), np.float32)),
    "Tuple": (Tuple((Discrete(2), Box(-1, 1, (2,)))), (np.zeros((2, 3), np.int32), np.zeros((2, 3, 2), np.float32))),
}
SMALL_BONUSES = [
    RND(feature_dim=3, model=MLP((4,)), lr=1e-2),
    Curiosity(feature_dim=3, features_model=MLP((4,)), inverse_model=MLP(()), forward_model=MLP(()), lr=1e-2),
    Counts(hash_bits=6),
]
NAMES = [type(bonus).__name__ for bonus in SMALL_BONUSES]


@pytest.mark.parametrize("space", ACTIONS)
@pytest.mark.parametrize("bonus", SMALL_BONUSES, ids=NAMES)
def test_every_space_is_served(bonus, space):
    action_space, action = ACTIONS[space]
    random = np.random.default_rng(0)
    obs = {
        "pose": random.uniform(-1, 1, (2, 3, 2, 2)).astype(np.float32),
        "image": random.integers(0, 256, (2, 3, 3), np.uint8),
        "who": random.integers(1, 4, (2, 3), np.int32),
    }
    never = np.zeros((2, 3), bool)
    batch = Transition(obs, never, action, np.zeros((2, 3), np.float32), obs, never, never, (), {})
    bonus = bonus.bind(Spec(MIXED, action_space))
    state = observe(bonus, bonus.init(KEY), batch)
    reward, _, metrics = update(bonus, state, batch)
    assert reward.shape == (2, 3) and np.isfinite(reward).all() and (reward >= 0).all() and reward.max() > 0
    assert all(np.isfinite(metric) for metric in metrics.values())


@pytest.mark.parametrize("bonus", SMALL_BONUSES[:2], ids=NAMES[:2])
@pytest.mark.parametrize(("length", "expected"), [(1, 1), (12, 6), (13, 6)])
def test_a_step_of_adam_is_taken_for_each_minibatch(bonus, length, expected):
    """One step on the thousands of an on-policy batch taught the predictor next to nothing."""
    bonus = dataclasses.replace(bonus, minibatch_size=8).bind(Spec(Box(-9, 9, (3,)), Discrete(2)))
    obs = np.random.default_rng(0).normal(size=(length, 4, 3)).astype(np.float32)
    batch = steps(obs, obs + 1, np.zeros((length, 4), np.int32))
    _, after, _ = update(bonus, observe(bonus, bonus.init(KEY), batch), batch)
    assert after.optimizer.count == expected


def test_minibatches_make_up_the_batch():
    samples = jnp.arange(24.0)

    def loss_of(params, part):
        loss = params["bias"].sum() * part.mean()
        return loss, {"mean": part.mean(), "spread": jnp.ptp(part)}

    params = {"bias": jnp.zeros(1)}
    _, optimizer, metrics = jax.jit(lambda: fit(loss_of, params, adam_init(params), samples, 8, 1e-3, KEY))()
    assert (optimizer.count, metrics["mean"]) == (3, pytest.approx(11.5))
    assert metrics["spread"] > 12, "in random order"


# Around an agent --------------------------------------------------------------------------------------------------


def test_the_agent_inside_learns_from_both_rewards_added_up():
    agent = Curious(Witness(), Counts(eta=0.5)).bind(Spec(Discrete(4), Discrete(2)))
    batch = steps([[0, 1]], [[2, 3]], np.array([[0, 1]]), [[1.0, -2.0]])
    state, _ = agent.observe(agent.init(KEY), agent.accumulators(2), batch)
    after, metrics = agent.update(state, batch, KEY, 0.0)
    np.testing.assert_allclose(after.agent.reward, [[1.5, -1.5]])
    for name in ("obs", "next_obs", "action"):
        np.testing.assert_array_equal(getattr(after.agent, name), getattr(batch, name))
    assert metrics == {"loss": 7.0, "intrinsic_reward_mean": 0.5}


@hyper
class Observing(Witness):
    """Keeps the rewards that it observes."""

    def observe(self, state, accumulators, trajectory):
        return trajectory.reward, accumulators


def test_the_agent_inside_observes_both_rewards_added_up():
    agent = Curious(Observing(), Counts(eta=0.5)).bind(Spec(Discrete(4), Discrete(2)))
    batch = steps([[0, 1]], [[2, 3]], np.array([[0, 1]]), [[1.0, -2.0]])
    state, _ = agent.observe(agent.init(KEY), agent.accumulators(2), batch)
    np.testing.assert_allclose(state.agent, [[1.5, -1.5]])


def test_a_bonus_is_that_of_before_the_batch_is_learned_from():
    bonus, inside = distilling(lr=0.1)
    agent = Curious(Witness(), bonus).bind(bonus.spec)
    obs = np.ones((2, 1, 2), np.float32)
    batch = steps(0 * obs, obs, np.zeros((2, 1), np.int32))
    after, _ = agent.update(agent.init(KEY)._replace(bonus=inside), batch, KEY, 0.0)
    np.testing.assert_allclose(after.agent.reward, bonus.reward(inside, batch), rtol=1e-5)
    assert not np.allclose(after.agent.reward, bonus.reward(after.bonus, batch), rtol=1e-2)


def test_nothing_of_the_bonus_travels_with_what_acts():
    agent = Curious(Witness(), RND()).bind(Spec(Discrete(4), Discrete(2)))
    assert list(agent.view(agent.init(KEY), 0.0)) == ["acts"]


NETWORK = MLP((8,), "relu")
WAIT = {"num_steps_sampled_before_learning_starts": 16}
RND_BONUS, CURIOSITY, COUNTS = SMALL_BONUSES
DQN_OF_TWO_ROWS = DQN(
    lr=1e-2,
    n_step=2,
    model=NETWORK,
    exploration=EpsilonGreedy(Schedule((0.0, 1.0), (0.5, 0.1))),
    memory=Replay(60, 8, window=2, unroll=3),
    updates=2,
    random_timesteps=6,
    **WAIT,
)
DQN_OF_ONE_ROW = DQN(lr=1e-2, model=NETWORK, memory=Replay(64, 8), **WAIT)
SAC_OF_ONE_ROW = SAC(policy_model=NETWORK, q_model=NETWORK, memory=Replay(64, 8), **WAIT)
PPO_OF_FOUR_ROWS = PPO(lr=1e-2, num_epochs=2, minibatch_size=16, model=Separate(NETWORK))

# Name -> environment, agent with its bonus, rows, steps an iteration, whether updates come while environments step.
MODES = {
    "PPO, RND": (CARTPOLE, Curious(PPO_OF_FOUR_ROWS, RND_BONUS), 4, 8, False),
    "A2C, Box, curiosity": (PENDULUM, Curious(A2C(lr=1e-2, model=Separate(NETWORK)), CURIOSITY), 4, 8, False),
    "DQN, RND": (CARTPOLE, Curious(DQN_OF_TWO_ROWS, RND_BONUS), 2, 3, False),
    "DQN, counts": (CARTPOLE, Curious(DQN_OF_TWO_ROWS, COUNTS), 2, 3, False),
    "DQN, RND, asynchronous": (CARTPOLE, Curious(DQN_OF_ONE_ROW, RND_BONUS), 1, 1, True),
    "SAC, counts": (PENDULUM, Curious(SAC_OF_ONE_ROW, COUNTS), 1, 1, False),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", MODES)
def test_trainings_are_the_same_compiled_and_hosted(case):
    env, agent, rows, length, sample_async = MODES[case]
    assert_modes_are_equal(env, agent, rows=rows, length=length, sample_async=sample_async)


TRAININGS = {
    "PPO": {"minibatch_size": 16, "num_epochs": 2, "train_batch_size": 32, "num_envs_per_worker": 2},
    "DQN": {
        "train_batch_size": 16,
        "num_steps_sampled_before_learning_starts": 32,
        "min_sample_timesteps_per_iteration": 48,
    },
}


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "bonus"), [("PPO", "Curiosity"), ("DQN", "RND"), ("DQN", "Counts")])
def test_a_restored_training_goes_on_to_the_last_bit(name, bonus, tmp_path):
    config = get_config_class(name).from_dict({**TRAININGS[name], "model": {"fcnet_hiddens": [8]}, "seed": 7})
    config.environment("CartPole-v1").exploration(exploration_config={"type": bonus})
    assert_resumes(config, tmp_path)


def test_every_step_counts_once_whether_learning_has_begun_or_not():
    config = DQNConfig().environment("CartPole-v1").exploration(exploration_config={"type": "Counts"})
    config.training(num_steps_sampled_before_learning_starts=100, model={"fcnet_hiddens": [8]})
    with config.reporting(min_sample_timesteps_per_iteration=40).build() as algo:
        result = algo.train()
        assert algo.run.state.bonus.visits.sum() == result["timesteps_total"] == 140


def test_episodes_are_reported_with_the_environments_rewards_alone():
    config = PPOConfig().environment("CartPole-v1").training(train_batch_size=512, minibatch_size=512, num_epochs=1)
    with config.exploration(exploration_config={"type": "Counts", "eta": 100.0}).build() as algo:
        result = algo.train()
        evaluated = algo.evaluate(episodes=5)["evaluation"]
    assert result["info"]["learner"]["default_policy"]["learner_stats"]["intrinsic_reward_mean"] > 1.0
    for found in (result, evaluated):
        assert found["episode_reward_mean"] == found["episode_len_mean"], "CartPole gives 1 a step"


# Settings ---------------------------------------------------------------------------------------------------------

SPEC = Spec(Box(-1, 1, (3,)), Discrete(2))


OF_STEPS = [name for name in ALGORITHMS if not (is_joint(name) or learns_from_returns(name) or serves_slates(name))]


@pytest.mark.parametrize("algorithm", OF_STEPS)
def test_every_algorithm_of_one_agent_takes_a_bonus(algorithm):
    config = get_config_class(algorithm)().exploration(exploration_config={"type": "RND"})
    space = Discrete(2) if "discrete" in config.agent_class.serves else Box(-1, 1, (2,))
    agent = config.make_agent(Spec(SPEC.obs, space))
    assert isinstance(agent, Curious) and isinstance(agent.bonus, RND)
    plain = get_config_class(algorithm)().make_agent(Spec(SPEC.obs, space))
    assert agent.agent == plain, "and is the same inside"


def test_settings_reach_the_bonus():
    given = {"type": "Curiosity", "eta": 0.5, "beta": 0.1, "lr": 0.01, "feature_dim": 5, "inverse_net_hiddens": [7]}
    agent = PPOConfig().exploration(exploration_config=given).make_agent(SPEC)
    assert isinstance(agent.agent, Normalize), "around the normalisation of rewards"
    models = (MLP((64, 64), "relu"), MLP((7,), "relu"), MLP((64,), "relu"))
    assert agent.bonus == Curiosity(0.5, 0.1, 0.01, 128, 5, *models, spec=SPEC)
    given = {"type": "RND", "gamma": 0.9, "feature_net_config": {"fcnet_hiddens": [3]}}
    bonus = PPOConfig().exploration(exploration_config=given).make_agent(SPEC).bonus
    assert (bonus.gamma, bonus.model) == (0.9, MLP((3,), "tanh"))
    given = {"type": "Counts", "eta": 2.0, "hash_bits": 4}
    assert PPOConfig().exploration(exploration_config=given).make_agent(SPEC).bonus == Counts(2.0, 4, SPEC)


def test_images_are_looked_at_by_convolutions():
    spec = Spec(Box(0, 255, (10, 10, 4), np.uint8), Discrete(2))
    bonus = PPOConfig().exploration(exploration_config={"type": "RND"}).make_agent(spec).bonus
    assert isinstance(bonus.model, ConvNet)


def test_actions_are_chosen_by_the_sub_exploration():
    def inner(**changes):
        given = {"type": "RND", **changes}
        return DQNConfig().exploration(exploration_config=given).make_agent(SPEC).agent.exploration

    assert inner() == DQNConfig().make_agent(SPEC).exploration, "by default as without a bonus"
    lower = inner(sub_exploration={"final_epsilon": 0.0})
    assert lower.epsilon.values == (1.0, 0.0), "its own type keeps the algorithm's other settings"
    assert inner(sub_exploration={"type": "SoftQ", "temperature": 0.5}) == SoftQ(0.5)
    random = DQNConfig().exploration(exploration_config={"type": "Counts", "sub_exploration": {"random_timesteps": 9}})
    assert random.make_agent(SPEC).random_timesteps == 9


WRONG = {
    "an unknown type": ({"type": "RDN"}, "PPO explores with StochasticSampling, and has the bonuses RND, Curiosity, C"),
    "a type of other algorithms": ({"type": "EpsilonGreedy"}, "'EpsilonGreedy'}: PPO explores with StochasticSampling"),
    "a slip in a name": ({"type": "RND", "feature_dims": 3}, "there is no 'feature_dims'; did you mean 'feature_dim'"),
    "another bonus's setting": (
        {"type": "Counts", "lr": 0.1},
        "there is no 'lr'; there are type, sub_exploration, eta",
    ),
    "a negative weight": ({"type": "RND", "eta": -1}, "'eta': -1}: expected a number of at least 0"),
    "no features": ({"type": "RND", "feature_dim": 0}, "'feature_dim': 0}: expected a whole number of at least 1"),
    "a share above 1": ({"type": "Curiosity", "beta": 2.0}, "'beta': 2.0}: expected at most 1"),
    "counters without end": ({"type": "Counts", "hash_bits": 32}, "'hash_bits': 32}: expected at most 24"),
    "layers that are none": (
        {"type": "Curiosity", "forward_net_hiddens": 64},
        "forward_net: .*expected a list of layer",
    ),
    "a network with memory": (
        {"type": "RND", "feature_net_config": {"use_gru": True}},
        "take a network without memory",
    ),
    "a network that is none": ({"type": "RND", "feature_net_config": 3}, "expected a dictionary such as"),
    "a sub-exploration that is none": ({"type": "RND", "sub_exploration": "SoftQ"}, "'SoftQ'}: expected a dictionary"),
    "one that does not fit": ({"type": "RND", "sub_exploration": {"type": "SoftQ"}}, "'SoftQ'}: PPO explores with Sto"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_said_at_the_call(case):
    given, message = WRONG[case]
    with pytest.raises(ValueError, match=f"exploration_config.*{message}"):
        PPOConfig().exploration(exploration_config=given)


def test_random_timesteps_are_refused_where_learning_starts_at_once():
    config = PPOConfig().exploration(exploration_config={"type": "StochasticSampling", "random_timesteps": 5})
    with pytest.raises(
        ValueError, match=r"PPO: .*random_timesteps=5, and it learns from its first step on; leave it out"
    ):
        config.make_agent(SPEC)

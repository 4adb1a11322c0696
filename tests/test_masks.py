"""No illegal action is taken, explored or learned towards, whatever the algorithm and wherever the mask comes from."""

from __future__ import annotations

import logging

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces as gs
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from modes import KEY, assert_modes_are_equal
from toy_gymnasium import Doors, Everything

from athlete.algorithms.a2c import A2C
from athlete.algorithms.dqn import DQN
from athlete.algorithms.iqn import IQN
from athlete.algorithms.pg import PG
from athlete.algorithms.ppo import PPO, PPOConfig
from athlete.algorithms.pqn import PQN
from athlete.algorithms.qrdqn import QRDQN
from athlete.algorithms.r2d2 import R2D2
from athlete.algorithms.rnnsac import RNNSAC
from athlete.algorithms.sac import SAC
from athlete.algorithms.trpo import TRPO
from athlete.combine.normalize import Normalize
from athlete.core import Env, Spec, Transition, hyper
from athlete.distributions import Categorical
from athlete.env import masks
from athlete.env.adapters.gymnasium import ActionMaskObservation
from athlete.env.adapters.source import GymnasiumSource
from athlete.env.checks.check import check_env
from athlete.env.errors import EnvError
from athlete.env.games.masked_grid import MaskedGrid
from athlete.env.masks import mask_path
from athlete.env.registry import EnvContext
from athlete.env.world import find_world
from athlete.exploration import EpsilonGreedy, ParameterNoise, SoftQ, greedy
from athlete.loops.collect import spec_of
from athlete.loops.train import CompiledTraining
from athlete.memory.replay import Replay
from athlete.models.cnn import ConvNet
from athlete.models.mlp import MLP
from athlete.models.recurrent import LSTM
from athlete.ops.features import feature_size, features
from athlete.ops.masks import action_mask, check_mask, masked, observed_space, without_action
from athlete.ops.random import wrap
from athlete.ops.sampling import random_action
from athlete.ops.temperature import default_target_entropy
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

MASKED = Dict({"action_mask": MultiBinary((3,)), "observations": Box(-1, 1, (2,))})
SPEC = Spec(MASKED, Discrete(3, start=1))
LEGAL = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]], np.int8)
OBS = {"action_mask": LEGAL, "observations": np.ones((3, 2), np.float32)}


# Reading a mask ---------------------------------------------------------------------------------------------------


def test_a_mask_is_no_feature_and_where_nothing_is_legal_all_is():
    assert observed_space(MASKED) == Box(-1, 1, (2,))
    assert feature_size(MASKED) == features(MASKED, OBS).shape[-1] == 2
    np.testing.assert_array_equal(action_mask(SPEC, OBS), [[0, 1, 1], [1, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(without_action(SPEC, OBS), [False, False, True])
    assert action_mask(Spec(Box(-1, 1, (2,)), Discrete(3)), np.ones(2)) is None


def test_a_mask_of_several_actions_has_the_values_of_each_in_a_row():
    spec = Spec(Dict({"action_mask": Box(0, 1, (5,)), "a": Discrete(2), "b": Discrete(2)}), MultiDiscrete((2, 3)))
    check_mask(spec)
    assert feature_size(spec.obs) == 4
    obs = {"action_mask": np.array([[0, 1, 1, 0, 1], [0, 0, 1, 0, 0]], np.float32)}
    np.testing.assert_array_equal(action_mask(spec, obs), [[0, 1, 1, 0, 1], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(without_action(spec, obs), [False, True])
    drawn = jax.vmap(lambda key: random_action(spec, obs, (2,), key))(jax.random.split(wrap(KEY), 200))
    assert set(map(tuple, np.asarray(drawn[:, 0]).tolist())) == {(1, 0), (1, 2)}


@pytest.mark.parametrize(
    ("mask", "action", "message"),
    [
        (MultiBinary((3,)), Discrete(4), r"observation_space\['action_mask'\] is MultiBinary.*of shape \(4,\)"),
        (Discrete(3), Discrete(3), r"must be a Box or MultiBinary of shape \(3,\)"),
        (MultiBinary((2, 3)), MultiDiscrete((2, 3)), r"of shape \(5,\)"),
        (MultiBinary((2,)), Box(-1, 1, (2,)), r"masks are for Discrete and MultiDiscrete actions, and these are Box"),
    ],
)
def test_a_mask_that_does_not_fit_the_actions_is_refused(mask, action, message):
    spec = Spec(Dict({"action_mask": mask, "observations": Discrete(2)}), action)
    with pytest.raises(ValueError, match=message):
        PPOConfig().make_agent(spec)


def test_a_mask_with_nothing_beside_it_leaves_nothing_to_see():
    with pytest.raises(ValueError, match="has no entry; where there is nothing to see"):
        PPOConfig().make_agent(Spec(Dict({"action_mask": MultiBinary((3,))}), Discrete(3)))


def test_an_image_beside_a_mask_is_seen_by_convolutions():
    spec = Spec(Dict({"action_mask": MultiBinary((3,)), "board": Box(0, 1, (6, 6, 2))}), Discrete(3))
    assert isinstance(PPOConfig().make_agent(spec).agent.model, ConvNet)


# Choosing ---------------------------------------------------------------------------------------------------------


def test_a_masked_distribution_by_hand():
    """Forbidden: probability 0 and no gradient. The others share what is left."""
    logits = jnp.log(jnp.array([1.0, 2.0, 6.0]))
    mask = jnp.array([True, True, False])

    def policy(logits):
        return Categorical(masked(logits, mask))

    assert jnp.exp(policy(logits).log_prob(jnp.arange(3))) == pytest.approx([1 / 3, 2 / 3, 0])
    expected = -(np.log(1 / 3) / 3 + np.log(2 / 3) * 2 / 3)
    assert policy(logits).entropy() == pytest.approx(expected, rel=1e-5)
    assert policy(logits).kl(policy(jnp.zeros(3))) == pytest.approx(np.log(2) - expected, rel=1e-5)
    gradient = jax.grad(lambda logits: policy(logits).entropy() + policy(logits).log_prob(jnp.int32(1)))(logits)
    assert np.isfinite(gradient).all() and gradient[2] == 0


def test_explorations_try_the_legal_actions_alike_and_no_other():
    values = jnp.broadcast_to(jnp.array([1.0, 3.0, 0.0, 2.0]), (4000, 4))
    mask = jnp.broadcast_to(jnp.array([True, False, True, True]), (4000, 4))
    random = EpsilonGreedy().choose(values, 1.0, wrap(KEY), mask)
    np.testing.assert_allclose(np.bincount(random) / 4000, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.04)
    assert set(EpsilonGreedy().choose(values, 0.0, wrap(KEY), mask).tolist()) == {3}
    assert set(ParameterNoise().choose(values, 0.0, wrap(KEY), mask).tolist()) == {3}
    soft = SoftQ().choose(values, 1e-9, wrap(KEY), mask)
    assert set(soft.tolist()) == {3}
    soft = SoftQ().choose(values, 1e9, wrap(KEY), mask)
    np.testing.assert_allclose(np.bincount(soft) / 4000, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.04)
    assert greedy(-1e20 * values, mask)[0] == 2


def test_the_entropy_that_is_aimed_at_counts_legal_actions():
    mask = jnp.array([[True, True, False, False], [True, True, True, True]])
    expected = 0.3 * (np.log(2) + np.log(4)) / 2
    assert default_target_entropy(Discrete(4), mask) == pytest.approx(expected, rel=1e-5)


# Every algorithm --------------------------------------------------------------------------------------------------

SMALL = {"model": MLP((8,)), "memory": Replay(256, 16), "num_steps_sampled_before_learning_starts": 64}
AGENTS = {
    "PPO": PPO(model=MLP((8,)), minibatch_size=32, num_epochs=2, kl_coeff=0.2, lr=1e-2),
    "A2C": A2C(model=MLP((8,)), lr=1e-2),
    "PG": PG(model=MLP((8,)), lr=1e-2),
    "TRPO": TRPO(model=MLP((8,))),
    "PQN": PQN(model=MLP((8,)), minibatch_size=32, num_epochs=2, exploration=EpsilonGreedy(0.5)),
    "DQN": DQN(random_timesteps=96, dueling=False, exploration=EpsilonGreedy(0.5), lr=1e-2, **SMALL),
    "SimpleQ": DQN(exploration=SoftQ(1.0), double_q=False, dueling=False, **SMALL),
    "QRDQN": QRDQN(num_quantiles=5, **SMALL),
    "IQN": IQN(num_acting_fractions=4, num_fractions=4, num_target_fractions=4, **SMALL),
    "SAC": SAC(
        policy_model=MLP((8,)),
        q_model=MLP((8,)),
        memory=Replay(256, 16),
        random_timesteps=96,
        num_steps_sampled_before_learning_starts=64,
    ),
}
CELL = LSTM(4, (8,))
RECURRENT = {
    "R2D2": R2D2(model=CELL, zero_init_states=True, use_h_function=False, dueling=False),
    "RNNSAC": RNNSAC(policy_model=CELL, q_model=CELL),
}
ALL = AGENTS | RECURRENT


ON_POLICY = ("PPO", "A2C", "PG", "TRPO")


@hyper
class FloatMask(Env):
    """MaskedGrid as RLlib's users write masks: numbers of a Box."""

    env: MaskedGrid = MaskedGrid()

    @property
    def observation_space(self):
        inner = dict(self.env.observation_space.items)
        return Dict({"observations": inner["observations"], "action_mask": Box(0.0, 1.0, (4,))})

    @property
    def action_space(self):
        return self.env.action_space

    def _floats(self, obs):
        return obs | {"action_mask": obs["action_mask"].astype(jnp.float32)}

    def reset(self, key):
        state, obs = self.env.reset(key)
        return state, self._floats(obs)

    def step(self, state, action, key):
        state, step = self.env.step(state, action, key)
        return state, step._replace(obs=self._floats(step.obs))


@pytest.mark.parametrize("name", [*ON_POLICY, "DQN", "SAC"])
def test_no_illegal_action_is_taken_in_all_of_a_training(name):
    """An episode's return is at most -1 exactly where it took one. A random policy takes one within a few steps."""
    env = FloatMask()
    agent = Normalize(AGENTS[name]).bind(spec_of(env))  # which must not standardise the mask
    training = CompiledTraining(agent, env, 8, 8, 2000.0, KEY)
    returns = np.concatenate([training.advance(20).returns for _ in range(2)])
    assert len(returns) > 100
    assert returns.min() > -1


def test_the_grid_punishes_an_illegal_action_so_that_it_shows():
    env = MaskedGrid()
    state, _ = env.reset(wrap(KEY))
    state = state._replace(position=jnp.array([0, 2]), goal=jnp.array([2, 2]))
    _, step = env.step(state, jnp.int32(0), wrap(KEY))
    assert (float(step.reward), bool(step.terminated)) == (-1.0, True)
    state, step = env.step(state, jnp.int32(1), wrap(KEY))
    assert (float(step.reward), bool(step.terminated)) == (pytest.approx(-0.04), False)
    np.testing.assert_array_equal(step.obs["action_mask"], [1, 1, 1, 1])
    _, step = env.step(state, jnp.int32(1), wrap(KEY))
    assert (float(step.reward), bool(step.terminated)) == (1.0, True)


def tempting(params):
    """A network of which every head says 1000 to the first of three actions, and 0 to the others."""

    def head(layer):
        bias = jnp.zeros_like(layer["bias"])
        return {"kernel": jnp.zeros_like(layer["kernel"]), "bias": bias.at[: bias.size // 3].set(1000.0)}

    if "values" in params:  # of IQN
        return params | {"values": head(params["values"])}
    return params | {"heads": {name: head(layer) for name, layer in params["heads"].items()}}


def tempted(name, agent):
    """An agent's state with such networks, the target networks too."""
    state = agent.init(wrap(KEY))
    if name in ("PPO", "A2C", "PG"):
        return state._replace(params={"network": tempting(state.params["network"])})
    if name == "TRPO":
        return state._replace(policy={"network": {"policy": tempting(state.policy["network"]["policy"])}})
    if name == "PQN":
        return state._replace(params=tempting(state.params))
    if name in ("SAC", "RNNSAC"):
        critics = [tempting(critic) for critic in state.critics]
        return state._replace(actor=tempting(state.actor), critics=critics, targets=critics)
    return state._replace(params=tempting(state.params), target=tempting(state.target))


ROWS = 64
TEMPTED = {
    "action_mask": np.broadcast_to(np.array([0, 1, 1], np.int8), (ROWS, 3)),
    "observations": np.ones((ROWS, 2), np.float32),
}


@pytest.mark.parametrize("name", ALL)
def test_the_best_of_all_actions_is_not_taken_where_it_is_illegal(name):
    agent = ALL[name].bind(SPEC)

    def act(key, explore):
        view = agent.view(tempted(name, agent), jnp.zeros(()))
        carry = agent.start(view, ROWS, key)
        return agent.act(view, carry, TEMPTED, jnp.zeros(ROWS, bool), key, explore)[0]

    for explore in (False, True):
        assert set(np.unique(jax.jit(act, static_argnums=1)(wrap(KEY), explore))) <= {1, 2}


@pytest.mark.parametrize("name", [name for name in ALL if name not in ON_POLICY])
def test_the_value_of_what_follows_is_that_of_a_legal_action(name):
    """The forbidden first action is said to be worth 1000 and the legal ones 0: targets are the reward, which is 1."""
    agent = ALL[name].bind(SPEC)
    obs = jax.tree.map(lambda leaf: leaf[None], TEMPTED)
    flags, action, reward = np.zeros((1, ROWS), bool), np.ones((1, ROWS), np.int32), np.ones((1, ROWS), np.float32)
    batch = Transition(obs, flags, action, reward, obs, flags, flags, (), {})

    def update(key):
        return agent.update(tempted(name, agent), batch, key, jnp.zeros(()))[1]

    metrics = jax.jit(update)(wrap(KEY))
    entropy = 0.99 * np.log(2) if name in ("SAC", "RNNSAC") else 0.0  # of two actions alike, worth alpha = 1
    assert metrics["mean_td_error"] == pytest.approx(-1.0 - entropy, abs=0.1)
    if entropy:
        assert metrics["entropy"] == pytest.approx(np.log(2)), "of the policy that learns, between legal actions"


@pytest.mark.parametrize("name", ON_POLICY)
def test_a_policy_learns_between_legal_actions(name):
    """Both legal actions are as likely: the entropy is log 2. With the forbidden one, which is preferred, it is 0."""
    agent = AGENTS[name].bind(SPEC)
    obs = jax.tree.map(lambda leaf: leaf[None], TEMPTED)
    flags, action, reward = np.zeros((1, ROWS), bool), np.ones((1, ROWS), np.int32), np.ones((1, ROWS), np.float32)
    outputs = np.broadcast_to(np.float32([1000, 0, 0]), (1, ROWS, 3))
    extras = {"log_prob": np.full((1, ROWS), -np.log(2), np.float32), "outputs": outputs}
    carry = jax.tree.map(lambda leaf: leaf[None], agent.start((), ROWS, None))
    batch = Transition(obs, flags, action, reward, obs, flags, flags, carry, extras)
    metrics = jax.jit(lambda key: agent.update(tempted(name, agent), batch, key, jnp.zeros(()))[1])(wrap(KEY))
    assert metrics["entropy"] == pytest.approx(np.log(2), abs=0.1)


def test_masks_go_the_same_way_compiled_and_hosted():
    assert_modes_are_equal(MaskedGrid(limit=5), AGENTS["PPO"], rows=2, length=16)


def test_masks_go_through_memory_the_same_way_compiled_and_hosted():
    agent = DQN(model=MLP((8,)), memory=Replay(64, 8), num_steps_sampled_before_learning_starts=16, random_timesteps=6)
    assert_modes_are_equal(MaskedGrid(limit=5), agent, rows=1, length=1, iterations=5)


# Gymnasium --------------------------------------------------------------------------------------------------------


def doors(env_config):
    return ActionMaskObservation(Doors(env_config))


@pytest.mark.parametrize("rollouts", [{"num_envs_per_worker": 2}, {"num_rollout_workers": 2, "num_envs_per_worker": 1}])
def test_a_mask_in_info_is_honoured(rollouts):
    """A locked door raises an error."""
    config = PPOConfig().environment(doors).rollouts(**rollouts)
    config.training(train_batch_size=32, minibatch_size=16, num_epochs=1, model={"fcnet_hiddens": [8]})
    with config.build() as algorithm:
        assert algorithm.train()["episode_reward_mean"] == 5.0
        assert algorithm.evaluate()["evaluation"]["episode_reward_mean"] == 5.0
        seen = np.zeros(1, np.float32)
        for allowed in range(3):
            obs = {"observations": seen, "action_mask": np.eye(3, dtype=np.int8)[allowed]}
            assert algorithm.compute_single_action(obs, explore=True) == allowed + 1
        with pytest.raises(ValueError, match=r"observation\['action_mask'\]: \[0 0 0\] leaves no legal action"):
            algorithm.compute_single_action({"observations": seen, "action_mask": np.zeros(3, np.int8)})


def test_checks_and_the_random_baseline_take_legal_actions():
    from athlete.env.baseline import baseline
    from athlete.env.checks.check import check_env

    check_env(doors({}))
    assert baseline(doors, episodes=20).episode_reward_min == 5.0
    assert baseline(MaskedGrid, episodes=200).episode_reward_min > -1


def test_a_row_without_a_legal_action_is_found_at_build_or_named_at_the_step():
    config = PPOConfig().environment(doors, env_config={"stuck_at": 2}).rollouts(num_envs_per_worker=2)
    config.training(train_batch_size=32, minibatch_size=16, model={"fcnet_hiddens": [8]})
    with pytest.raises(ValueError, match=r"leaves no legal action: \[0 0 0\]\. End the episode"):
        config.build()
    with (
        config.environment(disable_env_checking=True).build() as algorithm,
        pytest.raises(EnvError, match=r"leaves no legal action: \[0, 0, 0\]\. End the episode.*row 0.*step 2 of its"),
    ):
        algorithm.train()


class MethodDoors(Doors):
    """sb3-contrib's way."""

    def _info(self):
        self.mask = super()._info()["action_mask"]
        return {}

    def action_masks(self):
        return [bool(is_open) for is_open in self.mask]


class ShownDoors(Doors):
    """A mask in the observation, where nobody looks for it."""

    def __init__(self, env_config, name="valid_avail_actions_mask", deep=False):
        super().__init__(env_config)
        self.name, self.deep = name, deep
        inner = gs.Dict({name: gs.Box(0, 1, (3,), np.float32), "x": gs.Box(0, 1, (1,), np.float32)})
        self.observation_space = gs.Dict({"room": inner, "y": gs.Discrete(2)}) if deep else inner

    def _show(self, info):
        inner = {self.name: info.pop("action_mask", np.zeros(3)).astype(np.float32), "x": np.zeros(1, np.float32)}
        return {"room": inner, "y": 1} if self.deep else inner

    def reset(self, **kwargs):
        _, info = super().reset(**kwargs)
        return self._show(info), info

    def step(self, action):
        _, *rest, info = super().step(action)
        return self._show(info), *rest, info


FORMS = {
    "info": (Doors, "info['action_mask']"),
    "method": (MethodDoors, "action_masks()"),
    "wrapped method": (lambda env_config: gymnasium.wrappers.TimeLimit(MethodDoors(env_config), 9), "action_masks()"),
    "RLlib's older name": (ShownDoors, "observation['valid_avail_actions_mask']"),
    "one level deeper": (
        lambda env_config: ShownDoors(env_config, "action_mask", deep=True),
        "observation['room']['action_mask']",
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rollouts", [{"num_envs_per_worker": 2}, {"num_rollout_workers": 1, "num_envs_per_worker": 2}])
def test_masks_in_other_forms_are_taken_by_themselves_and_one_line_says_so(form, rollouts, caplog):
    """A locked door raises an error, in the check and in the baseline too."""
    make, place = FORMS[form]
    masks._told.clear()
    config = PPOConfig().environment(make).rollouts(**rollouts)
    config.training(train_batch_size=32, minibatch_size=16, num_epochs=1, model={"fcnet_hiddens": [8]})
    with caplog.at_level(logging.INFO, "athlete"), config.build() as algorithm:
        assert algorithm.train()["episode_reward_mean"] == 5.0
        assert algorithm.evaluate()["evaluation"]["episode_reward_mean"] == 5.0
        env = make(EnvContext({}))
        obs, info = env.reset(seed=1)
        if form.endswith("method"):
            info = {"action_mask": env.unwrapped.action_masks()}
        for _ in range(5):
            action = algorithm.compute_single_action(obs, info=info, explore=True)
            obs, _, _, _, info = env.step(action)
            if form.endswith("method"):
                info = {"action_mask": env.unwrapped.action_masks()}
    lines = [record.getMessage() for record in caplog.records if "legal actions" in record.getMessage()]
    assert lines == [f"{type(env.unwrapped).__name__} tells legal actions in {place}: no others are taken"]


@pytest.mark.parametrize("form", FORMS)
def test_checks_and_the_baseline_take_legal_actions_in_every_form(form):
    from athlete.env.baseline import baseline
    from athlete.env.checks.check import check_env

    make, _ = FORMS[form]
    check_env(make)
    assert baseline(make, episodes=20).episode_reward_min == 5.0


def test_a_policy_that_knows_of_masks_asks_for_the_one_of_the_step():
    config = PPOConfig().environment(Doors).rollouts(num_envs_per_worker=1)
    config.training(train_batch_size=16, minibatch_size=16, num_epochs=1, model={"fcnet_hiddens": [8]})
    with config.build() as algorithm, pytest.raises(ValueError, match=r"give info=.*'action_mask'.*or the observation"):
        algorithm.compute_single_action(np.zeros(1, np.float32))


def test_a_film_shows_what_the_policy_sees():
    class Drawn(Doors):
        def __init__(self, env_config):
            super().__init__(env_config)
            self.render_mode = env_config.get("render_mode")

        def render(self):
            return np.zeros((8, 8, 3), np.uint8)

    world = find_world(Drawn, {}, "auto").checked()
    assert sorted(world.make_for_film().reset(seed=0)[0]) == ["action_mask", "observations"]


class Elsewhere(gymnasium.Env):
    """Three actions, all legal; tells it as `shown` and `told` say: by the observation, and by the info of a step."""

    action_space = gs.Discrete(3)

    def __init__(self, space, shown, told):
        self.observation_space, self.shown, self.told = space, shown, told

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.shown, {}

    def step(self, action):
        return self.shown, 0.0, False, True, self.told


MASK, SHOWN = gs.Box(0, 1, (3,), np.int8), np.ones(3, np.int8)
X = gs.Discrete(2)
UNREAD = {
    "observation['a']['b']['action_mask'] looks like a mask of actions, and nobody reads it there": (
        gs.Dict({"a": gs.Dict({"b": gs.Dict({"action_mask": MASK})}), "x": X}),
        {"a": {"b": {"action_mask": SHOWN}}, "x": 0},
        {},
    ),
    "observation['legal_actions'] looks like": (
        gs.Dict({"legal_actions": MASK, "x": X}),
        {"legal_actions": SHOWN, "x": 0},
        {},
    ),
    "observation['a']['action_mask'] looks like": (
        gs.Dict({"a": gs.Dict({"action_mask": MASK}), "action_masks": MASK}),
        {"a": {"action_mask": SHOWN}, "action_masks": SHOWN},
        {},
    ),
    "observation[1]['action_mask'] looks like": (
        gs.Tuple([X, gs.Dict({"action_mask": MASK})]),
        (0, {"action_mask": SHOWN}),
        {},
    ),
    "Elsewhere tells legal actions in info['action_mask'] of its steps and not of its resets": (
        X,
        0,
        {"action_mask": SHOWN},
    ),
}


@pytest.mark.parametrize("sentence", UNREAD)
def test_what_looks_like_a_mask_and_is_read_as_none_is_said(sentence, caplog):
    with caplog.at_level(logging.WARNING, "athlete"):
        check_env(Elsewhere(*UNREAD[sentence]))
    assert sentence in caplog.text


@pytest.mark.parametrize("place", ["action_mask", "action_masks", "valid_avail_actions_mask"])
def test_nothing_is_said_of_a_mask_that_is_read(place, caplog):
    with caplog.at_level(logging.WARNING, "athlete"):
        check_env(Elsewhere(gs.Dict({place: MASK, "x": X}), {place: SHOWN, "x": 0}, {"action_mask": SHOWN}))
    assert "looks like a mask" not in caplog.text


def test_a_mask_one_level_deeper_in_a_jax_environment_is_taken_as_well(caplog):
    @hyper
    class Deep(Env):
        grid: MaskedGrid = MaskedGrid(limit=5)

        @property
        def observation_space(self):
            return Dict({"all": self.grid.observation_space, "more": Box(0, 1, (1,))})

        @property
        def action_space(self):
            return self.grid.action_space

        def reset(self, key):
            state, obs = self.grid.reset(key)
            return state, {"all": obs, "more": jnp.zeros(1)}

        def step(self, state, action, key):
            state, step = self.grid.step(state, action, key)
            return state, step._replace(obs={"all": step.obs, "more": jnp.zeros(1)})

    masks._told.clear()
    with caplog.at_level(logging.INFO, "athlete"):
        world = find_world(Deep, {}, "auto").checked()
    assert "Deep tells legal actions in observation['all']['action_mask']" in caplog.text
    _, obs = world.env.reset(wrap(KEY))
    assert sorted(obs) == ["action_mask", "all", "more"] and "action_mask" not in obs["all"]
    assert sorted(name for name, _ in world.env.observation_space.items) == sorted(obs)
    check_mask(spec_of(world.env))


def test_a_ready_made_vector_shows_its_mask_as_well():
    makers = [lambda: ShownDoors(EnvContext({}), "action_mask", deep=True)] * 2
    source = GymnasiumSource(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED))
    obs = source.reset(KEY)
    assert obs["action_mask"].shape == (2, 3) and source.spec.obs == Dict(
        {"action_mask": Box(0, 1, (3,)), "room": Dict({"x": Box(0, 1, (1,))}), "y": Discrete(2)}
    )
    source.step(obs["action_mask"].argmax(axis=1), KEY)
    source.close()


def test_an_entry_that_only_looks_like_a_mask_stays_where_it_is():
    space = Dict({"valid_avail_actions_mask": MultiBinary((4,)), "x": Discrete(2)})
    assert mask_path(space, Discrete(3)) is None
    assert mask_path(space, Discrete(4)) == ("valid_avail_actions_mask",)
    assert mask_path(Dict({"action_mask": MultiBinary((4,))}), Discrete(4)) is None
    assert mask_path(space, Box(-1, 1, (4,))) is None


def test_a_mask_that_nobody_reads_is_spoken_of(caplog):
    source = GymnasiumSource(Doors, {})
    source.reset(KEY)
    source.close()
    assert "wrap the environment in athlete.env.adapters.gymnasium.ActionMaskObservation" in caplog.text


def test_what_the_wrapper_cannot_wrap():
    with pytest.raises(ValueError, match="masks are for Discrete and MultiDiscrete actions, not Dict"):
        ActionMaskObservation(Everything())
    silent = Doors({})
    silent._info = dict
    with pytest.raises(ValueError, match=r"reset of .* gave no info\['action_mask'\]"):
        ActionMaskObservation(silent).reset()
    silent._info = lambda: {"action_mask": np.ones(2)}
    with pytest.raises(ValueError, match=r"of 2 entries; the actions need 3"):
        ActionMaskObservation(silent).reset()

"""What holds for every joint method: what it reads of all agents, in which loops it learns, what it refuses."""

from __future__ import annotations

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import KEY, assert_modes_are_equal, assert_resumes
from roster import Roster
from together import Together

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.algorithms.catalog import is_joint
from athlete.algorithms.joint import network_space, see, state_space, team_reward
from athlete.algorithms.maddpg import MADDPG
from athlete.algorithms.mappo import MAPPO
from athlete.algorithms.qmix import QMIX
from athlete.core import Agent, Group, Spec
from athlete.env import MultiAgentEnv
from athlete.env.games.multi_agent.two_step_game import TwoStepGame
from athlete.env.multi_agent import JointEnv, joint_spec
from athlete.env.wrappers.grouped import Grouped
from athlete.exploration import EpsilonGreedy, OrnsteinUhlenbeckNoise
from athlete.loops.collect import choose, spec_of
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.models.mlp import MLP
from athlete.models.recurrent import GRU
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Discrete

JOINT = [name for name in ALGORITHMS if is_joint(name) and name != "AlphaStar"]  # a league of agents that are not
GAMES = {"discrete": Together(), "plain": Together(told=False), "continuous": Together(continuous=True)}
SPECS = {name: spec_of(JointEnv(game)) for name, game in GAMES.items()}


def shown(game: Together, rows: int = 4):
    """Observations `[rows, ...]` of random places, as joint observations."""
    keys = jax.random.split(wrap(np.array([0, 5], np.uint32)), rows)
    return jax.vmap(JointEnv(game).reset)(keys)[1]


# What is read


def test_agents_see_their_own_and_their_number_and_the_state_is_what_the_environment_tells():
    obs, spec = shown(GAMES["discrete"]), SPECS["discrete"]
    seen = see(spec, obs)
    walker, guide = seen.own["walker"], seen.own["guide"]
    assert walker.shape == (4, 2, 4) and guide.shape == (4, 1, 3)
    np.testing.assert_array_equal(walker[..., :2], obs["obs"]["walker"]["obs"])
    np.testing.assert_array_equal(walker[..., 2:], np.broadcast_to(np.eye(2), (4, 2, 2)))
    np.testing.assert_array_equal(guide, obs["obs"]["guide"])
    np.testing.assert_array_equal(seen.state, obs["obs"]["walker"]["state"][:, 0])
    np.testing.assert_array_equal(seen.mask["walker"], obs["obs"]["walker"]["action_mask"] > 0)
    assert seen.mask["guide"] is None
    sizes = {name: network_space(group).shape for name, group in spec.groups}
    assert sizes == {"walker": (4,), "guide": (3,)} and state_space(spec).shape == (3,)


def test_agents_need_not_be_told_their_numbers():
    seen = see(SPECS["discrete"], shown(GAMES["discrete"]), obs_agent_id=False)
    np.testing.assert_array_equal(seen.own["walker"], shown(GAMES["discrete"])["obs"]["walker"]["obs"])
    assert network_space(dict(SPECS["discrete"].groups)["walker"], obs_agent_id=False).shape == (2,)


@pytest.mark.parametrize("name", JOINT)
def test_agents_without_numbers_that_see_the_same_do_the_same(name):
    config = get_config_class(name)().training(obs_agent_id=False)
    agent = config.make_agent(SPECS["plain"])
    view, obs = agent.view(agent.init(wrap(KEY)), jnp.zeros(())), shown(GAMES["plain"], 50)
    obs = {"obs": obs["obs"] | {"walker": jnp.broadcast_to(obs["obs"]["walker"][:, :1], (50, 2, 2))}}
    action = agent.act(view, agent.start(view, 50, wrap(KEY)), obs, jnp.ones(50, bool), wrap(KEY), explore=False)[0]
    np.testing.assert_array_equal(action["walker"][:, 0], action["walker"][:, 1])


def test_without_a_state_it_is_all_that_the_agents_see():
    obs, spec = shown(GAMES["plain"]), SPECS["plain"]
    seen = see(spec, obs)
    expected = np.concatenate([obs["obs"]["guide"].reshape(4, 3), obs["obs"]["walker"].reshape(4, 4)], axis=1)
    np.testing.assert_array_equal(seen.state, expected)
    assert state_space(spec).shape == (7,)


def test_what_is_read_has_the_leading_axes_of_what_is_shown():
    obs = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), shown(GAMES["discrete"]))
    flat, folded = see(SPECS["discrete"], shown(GAMES["discrete"])), see(SPECS["discrete"], obs)
    for a, b in zip(jax.tree.leaves(flat), jax.tree.leaves(folded), strict=True):
        np.testing.assert_array_equal(a, b.reshape(a.shape))


def test_the_reward_of_all_is_the_sum_or_the_mean():
    reward = jnp.array([[1.0, 2.0, 6.0]])
    assert team_reward(reward, "sum").tolist() == [9.0] and team_reward(reward, "mean").tolist() == [3.0]


# Loops

EPSILON = EpsilonGreedy(Schedule((0.0, 0.5), (1.0, 0.1)))
VALUES = {"lr": 1e-2, "num_steps_sampled_before_learning_starts": 12, "exploration": EPSILON}
SMALL = MLP((8,), "relu")
ACTORS = {"policy_model": SMALL, "q_model": SMALL, "num_steps_sampled_before_learning_starts": 12}

# Name -> game, agent, rows, steps an iteration.
CASES: dict[str, tuple[Together, Agent, int, int]] = {
    "QMIX": (GAMES["discrete"], QMIX(model=SMALL, memory=Replay(64, 8, unroll=2), **VALUES), 2, 2),
    "QMIX, random at first": (
        GAMES["discrete"],
        QMIX(model=SMALL, memory=Prioritized(64, 8), random_timesteps=10, **VALUES),
        1,
        1,
    ),
    "VDN with memory": (
        GAMES["plain"],
        QMIX(
            mixer="vdn",
            model=GRU(6, (8,)),
            burn_in=1,
            max_seq_len=3,
            target_network_update_freq=8.0,
            memory=Replay(64, 9, window=4, sequence=3, unroll=4, keep_carry=True),
            **VALUES,
        ),
        2,
        4,
    ),
    "independent": (GAMES["plain"], QMIX(mixer=None, model=SMALL, memory=Replay(64, 8), **VALUES), 2, 1),
    "MAPPO": (GAMES["continuous"], MAPPO(minibatch_size=8, num_epochs=2, lr=1e-2), 2, 8),
    "MAPPO with memory, each for itself": (
        GAMES["discrete"],
        MAPPO(team_reward=None, model=GRU(6, (8,)), max_seq_len=4, minibatch_size=8, num_epochs=2, lr=1e-2),
        2,
        8,
    ),
    "MADDPG": (GAMES["discrete"], MADDPG(memory=Replay(64, 8, unroll=2), **ACTORS), 2, 2),
    "MADDPG, continuous, prioritised, with drifting noise": (
        GAMES["continuous"],
        MADDPG(memory=Prioritized(64, 8), exploration=OrnsteinUhlenbeckNoise(), random_timesteps=6, **ACTORS),
        2,
        1,
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_all_agents_learn_the_same_compiled_and_hosted(case):
    game, agent, rows, length = CASES[case]
    assert_modes_are_equal(JointEnv(game), agent, rows=rows, length=length, iterations=max(3, 12 // (rows * length)))


TRAININGS = {
    "QMIX": {"num_steps_sampled_before_learning_starts": 32},
    "QMIX with memory": {
        "num_steps_sampled_before_learning_starts": 64,
        "rollout_fragment_length": 8,
        "model": {"use_gru": True, "max_seq_len": 4},
        "replay_buffer_config": {"replay_burn_in": 2},
    },
    "MAPPO": {"train_batch_size": 16, "observation_filter": "MeanStdFilter"},
    "MADDPG": {"num_steps_sampled_before_learning_starts": 32, "train_batch_size": 8, "rollout_fragment_length": 4},
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", TRAININGS)
def test_a_training_of_all_agents_resumes_to_the_last_bit(case, tmp_path):
    config = get_config_class(case.split()[0])().environment(Together()).debugging(seed=3)
    settings = {"min_sample_timesteps_per_iteration": 40, "num_envs_per_worker": 2, **TRAININGS[case]}
    assert_resumes(config.update_from_dict({"model": {"fcnet_hiddens": [8]}, **settings}), tmp_path)


class Pair(MultiAgentEnv):
    """Two agents in plain Python that are paid for doing the same; `leaver` leaves them after a step."""

    def __init__(self, config):
        self.possible_agents = ["a_0", "a_1"]
        self.observation_space = gymnasium.spaces.Dict(
            dict.fromkeys(self.possible_agents, gymnasium.spaces.Discrete(3))
        )
        self.action_space = gymnasium.spaces.Dict(dict.fromkeys(self.possible_agents, gymnasium.spaces.Discrete(2)))
        self.leaver = config.get("leaver")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return dict.fromkeys(self.possible_agents, 0), {}

    def step(self, actions):
        self.steps += 1
        reward = float(len(set(actions.values())) == 1)
        over = self.steps == 2
        obs, rewards = dict.fromkeys(actions, self.steps), dict.fromkeys(actions, reward)
        ended = {"__all__": over} | ({self.leaver: True} if self.leaver in actions else {})
        return obs, rewards, ended, {"__all__": False}, {}


@pytest.mark.parametrize("name", JOINT)
def test_environments_in_plain_python_are_learned_from_too(name):
    settings = {"num_envs_per_worker": 2, "train_batch_size": 8, "min_sample_timesteps_per_iteration": 40}
    if "replay_buffer_config" in get_config_class(name)():
        settings |= {"num_steps_sampled_before_learning_starts": 16, "rollout_fragment_length": 2}
    config = get_config_class(name)().environment(Pair).update_from_dict({"model": {"fcnet_hiddens": [8]}, **settings})
    with config.build() as algo:
        result = algo.train()
        assert result["episode_len_mean"] == 2 and 0 <= result["episode_reward_mean"] <= 4
        assert 0 <= algo.evaluate()["evaluation"]["episode_reward_mean"] <= 4


def test_an_agent_that_leaves_is_an_error_that_names_it():
    config = get_config_class("MAPPO")().environment(Pair, env_config={"leaver": "a_1"}).debugging(seed=0)
    with (
        config.build() as algo,
        pytest.raises(RuntimeError, match="agent 'a_1' is not asked for an action at step 1 of the episode in row 0"),
    ):
        algo.train()


# Acting


@pytest.mark.parametrize("case", CASES)
def test_each_agent_acts_by_what_it_sees_itself(case):
    """A learner may read everything; what acts must not: it is alone with its own observation."""
    game, agent, rows, _ = CASES[case]
    agent = agent.bind(spec_of(JointEnv(game)))
    key = wrap(KEY)
    view = agent.view(agent.init(key), jnp.zeros(()))
    obs, carry = shown(game, rows), agent.start(view, rows, key)

    def actions(obs):
        return agent.act(view, carry, obs, jnp.ones(rows, bool), key, explore=True)[0]["walker"]

    elsewhere = {"obs": obs["obs"] | {"guide": obs["obs"]["guide"] + 1.0}}
    if game.told:
        elsewhere["obs"]["walker"] = obs["obs"]["walker"] | {"state": obs["obs"]["walker"]["state"] + 1.0}
    np.testing.assert_array_equal(actions(obs), actions(elsewhere))


@pytest.mark.parametrize("env", [TwoStepGame(), Pair], ids=["compiled", "in plain Python"])
def test_actions_are_computed_for_agents_by_their_names(env):
    """A Q-network of one linear layer whose second action is worth what stands for the agent's number."""
    config = get_config_class("QMIX")().environment(env).training(model={"fcnet_hiddens": []})
    with config.build() as algo:
        names = ("agent_0", "agent_1") if isinstance(env, TwoStepGame) else tuple(Pair({}).possible_agents)
        weights = algo.get_weights()["default_policy"]
        head = weights.params["agents"][names[0][:-2]]["heads"]["q"]
        kernel = np.zeros_like(head["kernel"])
        kernel[-1, 1], kernel[-2, 1] = 1.0, -1.0  # by the agents' numbers, one-hot behind what they see
        changed = {"heads": {"q": {"kernel": kernel, "bias": np.zeros_like(head["bias"])}}, "layers": []}
        algo.set_weights(
            {"default_policy": weights._replace(params=weights.params | {"agents": {names[0][:-2]: changed}})}
        )
        found = algo.compute_actions({names[1]: 1, names[0]: 2})
        assert found == {names[0]: 0, names[1]: 1} and list(found) == list(names)
        with pytest.raises(ValueError, match=f"observations: expected those of {names[0]}, {names[1]}, got"):
            algo.compute_actions({names[0]: 1})
        with pytest.raises(ValueError, match=rf"observations\['{names[1]}'\]: 9 is outside Discrete"):
            algo.compute_actions({names[0]: 1, names[1]: 9})


def test_steps_of_agents_that_act_together_are_counted_for_each():
    config = get_config_class("MAPPO")().environment(Together()).training(train_batch_size=64)
    with config.build() as algo:
        result = algo.train()
    assert result["num_agent_steps_sampled"] == 3 * result["timesteps_total"]


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(
    "agent", [QMIX(exploration=EpsilonGreedy(0.5)), MAPPO(), MADDPG()], ids=lambda a: type(a).__name__
)
def test_no_agent_takes_an_action_that_its_mask_forbids(agent, random):
    game, agent = GAMES["discrete"], agent.bind(SPECS["discrete"])
    view, rows = agent.view(agent.init(wrap(KEY)), jnp.zeros(())), 200
    obs = shown(game, rows)
    mask = (np.arange(3) == np.arange(rows)[:, None, None] % 3).astype(np.int8).repeat(2, axis=1)
    obs = {"obs": obs["obs"] | {"walker": obs["obs"]["walker"] | {"action_mask": jnp.asarray(mask)}}}
    action, _, _ = choose(agent, view, agent.start(view, rows, wrap(KEY)), obs, jnp.ones(rows, bool), wrap(KEY), random)
    np.testing.assert_array_equal(action["walker"], np.broadcast_to(np.arange(rows)[:, None] % 3, (rows, 2)))
    assert set(np.unique(action["guide"])) == {0, 1}
    assert action["walker"].dtype == action["guide"].dtype == jnp.int32


def test_agents_that_were_grouped_for_rllib_are_seen_themselves():
    """RLlib's files name the two-step game with both agents as one, which QMIX there needs and here does not."""
    config = get_config_class("QMIX")().environment(Grouped(TwoStepGame())).training(mixer="vdn")
    with config.build() as algo:
        assert [group.size for _, group in algo.agent.spec.groups] == [2]


GROUPS = {"both": ["a_0", "a_1"]}


@pytest.mark.parametrize(
    "env",
    [lambda config: Pair(config).with_agent_groups(GROUPS), Pair({}).with_agent_groups(GROUPS)],
    ids=["a factory", "an instance"],
)
def test_agents_that_were_grouped_in_plain_python_are_seen_themselves(env):
    """Programs for RLlib's QMIX register environments so."""
    config = get_config_class("QMIX")().environment(env).training(num_steps_sampled_before_learning_starts=32)
    with config.build() as algo:
        assert [(name, group.size) for name, group in algo.agent.spec.groups] == [("a", 2)]
        assert algo.train()["episode_len_mean"] == 2
        assert list(algo.compute_actions({"a_0": 0, "a_1": 0})) == ["a_0", "a_1"]


def test_for_other_algorithms_a_group_is_an_agent():
    config = get_config_class("PPO")().environment(lambda config: Pair(config).with_agent_groups(GROUPS))
    with config.build() as algo:
        assert [group.size for _, group in algo.agent.spec.groups] == [1]


def test_policies_of_rllibs_files_are_left_out_with_a_line(caplog):
    config = get_config_class("MADDPG")().environment(TwoStepGame())
    config.multi_agent(policies={"p0": None, "p1": None}, policy_mapping_fn=lambda agent, *_, **__: f"p{agent[-1]}")
    config.training(replay_buffer_config={"capacity": 30_000})
    with caplog.at_level("INFO"), config.build():
        assert "MADDPG learns for all agents together: policies are left out" in caplog.text


# What is refused


@pytest.mark.parametrize("name", JOINT)
def test_environments_of_one_agent_are_refused(name):
    config = get_config_class(name)()
    with pytest.raises(ValueError, match=f"^{name} learns for several agents together, and this is an environment of"):
        config.make_agent(Spec(Box(-1.0, 1.0, (3,)), Discrete(2)))
    with pytest.raises(ValueError, match=f"^{name} learns for several agents together"):
        config.environment("CartPole-v1").build()


@pytest.mark.parametrize("name", JOINT)
def test_agents_that_come_and_go_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} learns from agents that act at every step .* turns, or come and go"):
        get_config_class(name)().make_agent(spec_of(JointEnv(Roster())))


@pytest.mark.parametrize("name", JOINT)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"normalize_rewards": True}, "normalize_rewards=True is"),
        ({"exploration_config": {"type": "RND"}}, "the bonus 'RND' is"),
        ({"observation_fn": (lambda obs: obs, SPECS["discrete"].obs)}, "observation_fn is"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_is_for_one_agents_reward_is_refused(name, given, said):
    config = get_config_class(name)().update_from_dict(given)
    with pytest.raises(ValueError, match=f"^{name}: {said} for one agent's observations and reward"):
        config.make_agent(SPECS["discrete"])


def test_a_filter_standardises_what_agents_see_but_not_their_masks():
    agent = get_config_class("MAPPO")().rollouts(observation_filter="MeanStdFilter").make_agent(SPECS["discrete"])
    state, obs = agent.init(wrap(KEY)), shown(GAMES["discrete"])
    moments = state.acting._replace(mean=[leaf + 5.0 for leaf in state.acting.mean])
    standard = agent._standard_obs(moments, obs)["obs"]["walker"]
    np.testing.assert_allclose(standard["obs"], obs["obs"]["walker"]["obs"] - 5.0, rtol=1e-5)
    np.testing.assert_allclose(standard["state"], obs["obs"]["walker"]["state"] - 5.0, rtol=1e-5)
    np.testing.assert_array_equal(standard["action_mask"] > 0, obs["obs"]["walker"]["action_mask"] > 0)


def test_actions_that_an_algorithm_does_not_serve_are_refused_with_the_name_of_their_agents():
    groups = {
        "good": Group(1, Box(-1.0, 1.0, (2,)), Discrete(2)),
        "bad": Group(2, Box(-1.0, 1.0, (2,)), Box(-1, 1, (1,))),
    }
    with pytest.raises(ValueError, match=r"QMIX serves Discrete action spaces, and that of the agents 'bad' is Box"):
        QMIX().bind(joint_spec(groups, always_acting=True))


def test_a_mask_of_another_size_is_refused():
    spec = SPECS["discrete"]
    walker = dict(spec.groups)["walker"]
    groups = {"walker": walker._replace(action=Discrete(4))}
    with pytest.raises(ValueError, match=r"the mask must be a Box or MultiBinary of shape \(4,\)"):
        QMIX().bind(joint_spec(groups, always_acting=True))


def test_a_game_is_the_same_bound_alone_or_by_its_configuration():
    spec = spec_of(JointEnv(TwoStepGame()))
    agent = get_config_class("QMIX")().training(mixer=None, lr=0.1).make_agent(spec)
    assert (agent.mixer, agent.lr) == (None, 0.1) and dataclasses.replace(agent, spec=None).bind(spec) == agent

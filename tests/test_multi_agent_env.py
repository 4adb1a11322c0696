"""Environments in RLlib's form of dictionaries by agent id: what is understood, and how they are named and made."""

from __future__ import annotations

import functools
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from toy_agents import DictRoster, OldRoster, Scripted, Telling, TurnRoster

import athlete
from athlete import DefaultCallbacks
from athlete.algorithms.ppo import PPOConfig
from athlete.core import Source
from athlete.env import MultiAgentEnv, make_multi_agent
from athlete.env.adapters.agents_source import MultiAgentSource
from athlete.env.adapters.multi_agent_env import DictAgents
from athlete.env.checks.check import check_env
from athlete.env.errors import EnvError
from athlete.env.supervision import Supervision
from athlete.env.world import find_world
from athlete.env.wrappers.shuffled_seats import ShuffledSeatsSource

KEY = np.array([0, 7], np.uint32)


def zeros(source: Source) -> dict:
    """An action of all agents in all rows."""
    return {
        name: np.zeros((source.rows, group.size, *group.action.shape), group.action.dtype)
        for name, group in source.spec.groups
    }


# Ids and spaces --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "ids"),
    [
        ({"possible_agents": ["z", "a"]}, ("z", "a")),
        ({"_agent_ids": {"walker_10", "walker_9", "boss"}}, ("boss", "walker_9", "walker_10")),
        ({"_agent_ids": {3, 0, 11}}, (0, 3, 11)),
        ({"get_agent_ids": lambda: {"b", "a"}}, ("a", "b")),
        ({"observation_spaces": {"b": Discrete(2), "a": Discrete(2)}}, ("b", "a")),
        ({"observation_space": Dict({"b": Discrete(2)}), "action_space": Dict({"b": Discrete(2)})}, ("b",)),
        ({"agents": ["only", "these"]}, ("only", "these")),
    ],
)
def test_ids_are_found_wherever_the_environment_says_them(says, ids):
    env = Scripted()
    env.possible_agents = ()
    vars(env).update(says)
    assert DictAgents(env).ids == ids


def test_spaces_are_one_for_all_or_by_agent_or_asked_for():
    one, other = Box(-1, 1, (2,)), Discrete(3)
    env = Scripted()
    assert DictAgents(env).spaces["red"] == (one, Discrete(2))
    env.observation_space = Dict({"red": one, "blue": other})
    assert DictAgents(env).spaces["blue"] == (other, Discrete(2))
    env.observation_space = Dict({"position": one, "kind": other})  # of every agent: its keys are no ids
    assert DictAgents(env).spaces["blue"][0] == env.observation_space
    env.action_spaces = {"red": other, "blue": one}
    assert DictAgents(env).spaces["blue"][1] == one
    env.get_action_space = lambda agent: other
    assert DictAgents(env).spaces["blue"][1] == other


@pytest.mark.parametrize(
    ("spaces", "names"),
    [
        ({"walker_0": 2, "walker_1": 2, "boss": 3}, {"walker": 2, "boss": 1}),
        ({"walker_0": 2, "walker_1": 3, "walker_2": 2}, {"walker_0": 2, "walker_1": 1}),  # one name would be of two
        ({0: 2, 1: 2}, {"agent": 2}),
        ({"red": 2, "blue": 2}, {"red_blue": 2}),
        ({"a": 2, "b": 2, "c": 2, "d": 2}, {"agents": 4}),
    ],
)
def test_groups_are_named_after_their_agents(spaces, names):
    env = Scripted()
    env.possible_agents = list(spaces)
    env.observation_spaces = {agent: Discrete(n) for agent, n in spaces.items()}
    source = MultiAgentSource(env)
    assert {name: group.size for name, group in source.spec.groups} == names
    assert set(source.agent_ids) == set(spaces)


def test_what_an_agent_was_shown_last_stays_and_an_episode_begins_with_zeros():
    class Turns(Scripted):
        def step(self, action_dict):
            _, *rest = super().step(action_dict)
            agent = "blue" if self.steps % 2 else "red"
            return {agent: np.full(2, self.steps / 10, np.float32)}, *rest

        def reset(self, *, seed=None, options=None):
            self.steps = 0
            return {"red": np.full(2, 0.5, np.float32)}, {}

    source = MultiAgentSource(Turns)
    source.reset(KEY)  # an episode that is given up at once
    for _ in range(2):
        obs = source.reset(KEY)
        assert obs["obs"]["red_blue"][0].tolist() == [[0.5, 0.5], [0, 0]]
        assert obs["acting"]["red_blue"].tolist() == [[1, 0]]
        obs = source.step(zeros(source), KEY).obs
        np.testing.assert_allclose(obs["obs"]["red_blue"][0], [[0.5, 0.5], [0.1, 0.1]])
        assert obs["acting"]["red_blue"].tolist() == [[0, 1]]


def test_only_who_is_asked_is_sent_an_action_in_the_form_of_its_own_space():
    class Asking(DictRoster):
        def step(self, action_dict):
            for agent, action in action_dict.items():
                assert action in self.action_space[agent], (agent, action)
            return super().step(action_dict)

    source = MultiAgentSource(Asking, num_envs_per_worker=2)
    obs = source.reset(KEY)
    for _ in range(50):
        action = zeros(source)
        action["b"][:] = 1.0
        step = source.step(action, KEY)
        obs = source.reset_where(step.terminated | step.truncated, step.obs, KEY)
    assert obs["acting"]["a"].dtype == np.int8


# Masks of actions ------------------------------------------------------------------------------------------------


class Masked(MultiAgentEnv):
    """Tells in `config["place"]` that only the action `steps % 3` is legal."""

    def __init__(self, config):
        self.place = config["place"]
        self.possible_agents = ["p_0", "p_1"]
        plain, mask = Box(-1, 1, (2,)), MultiBinary(3)
        self.observation_space = {
            "entry": Dict({"observation": plain, "action_mask": mask}),
            "rllib": Dict({"state": Dict({"valid_avail_actions_mask": mask, "seen": plain})}),
            "info": plain,
        }[self.place]
        self.action_space = Discrete(3)

    def told(self):
        seen, mask = np.zeros(2, np.float32), np.eye(3, dtype=np.int8)[self.steps % 3]
        obs = {
            "entry": {"observation": seen, "action_mask": mask},
            "rllib": {"state": {"valid_avail_actions_mask": mask, "seen": seen}},
            "info": seen,
        }[self.place]
        agent = f"p_{self.steps % 2}"
        return {agent: obs}, {agent: {"action_mask": mask}}

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.told()

    def step(self, action_dict):
        assert list(action_dict.values()) == [self.steps % 3]
        self.steps += 1
        obs, infos = self.told()
        return obs, {}, {"__all__": self.steps == 5}, {}, infos


@pytest.mark.parametrize("place", ["entry", "rllib", "info"])
def test_masks_of_actions_come_to_stand_where_policies_read_them(place):
    source = MultiAgentSource(Masked, {"place": place})
    assert "action_mask" in dict(dict(source.spec.groups)["p"].obs.items)
    obs = source.reset(KEY)
    for step in range(4):
        mask = obs["obs"]["p"]["action_mask"][0, step % 2]
        assert mask.tolist() == np.eye(3)[step % 3].tolist()
        obs = source.step({"p": np.full((1, 2), mask.argmax())}, KEY).obs
    check_env(Masked, {"place": place})


def test_infos_need_no_mask_where_the_episode_ends_and_must_have_one_before():
    class Forgetting(Masked):
        def told(self):
            obs, infos = super().told()
            return obs, {} if self.steps == self.forgets else infos

    class Late(Forgetting):
        forgets = 5

    class Early(Forgetting):
        forgets = 4

    check_env(Late, {"place": "info"})
    with pytest.raises(ValueError, match="in step 4 of episode 1, is wrong: the info of 'p_0' has no 'action_mask'"):
        check_env(Early, {"place": "info"})


def test_a_mask_that_leaves_an_agent_nothing_to_do_is_an_error():
    class Stuck(Masked):
        def told(self):
            obs, infos = super().told()
            for shown in obs.values():
                shown["action_mask"] = np.zeros(3, np.int8)
            return (obs, infos) if self.steps else super().told()

    source = MultiAgentSource(Stuck, {"place": "entry"})
    source.reset(KEY)
    with pytest.raises(EnvError, match=r"observation\['p_1'\]\['action_mask'\] leaves no legal action.*row 0.*step 1"):
        source.step({"p": np.zeros((1, 2), int)}, KEY)
    with pytest.raises(ValueError, match="in step 2 of episode 1 'p_1' is to act, and the observation's 'action_mask'"):
        check_env(Stuck, {"place": "entry"})


class Turns:
    """Turns of PettingZoo's: `p_0` and `p_1`, two each. Masks are told in infos; who has ended is shown nothing."""

    metadata: dict = {"name": "turns"}  # noqa: RUF012
    render_mode = None
    possible_agents = ("p_0", "p_1")

    def observation_space(self, agent):
        return Box(-1, 1, (2,))

    def action_space(self, agent):
        return Discrete(3)

    def reset(self, seed=None, options=None):
        self.agents, self.steps = list(self.possible_agents), 0
        self.agent_selection = "p_0"
        self.infos = {f"p_{i}": {"action_mask": np.eye(3, dtype=np.int8)[i]} for i in range(2)}

    def last(self):
        over = self.steps == 4
        return None if over else np.zeros(2, np.float32), 0.0, over, False, self.infos[self.agent_selection]

    def step(self, action):
        if action is None:
            self.agents.remove(self.agent_selection)
            self.agent_selection = self.agents[0] if self.agents else None
            return
        assert action == self.steps % 2, "what the mask of the agent allows"
        self.steps += 1
        self.agent_selection = f"p_{self.steps % 2}"


def test_turns_may_tell_masks_in_infos_and_show_nothing_at_the_end():
    source = MultiAgentSource(Turns)
    obs = source.reset(KEY)
    for step in range(4):
        mask = obs["obs"]["p"]["action_mask"][0, step % 2]
        assert mask.tolist() == np.eye(3)[step % 2].tolist()
        taken = source.step({"p": np.full((1, 2), mask.argmax())}, KEY)
        obs = taken.obs
    assert taken.terminated.all() and obs["terminated"]["p"].all()
    check_env(Turns)


# Groups of agents, copies ----------------------------------------------------------------------------------------


def test_groups_of_agents_are_agents_with_tuples():
    grouped = Scripted().with_agent_groups({"team": ["red", "blue"]})
    obs, infos = grouped.reset(seed=0)
    assert list(obs) == ["team"] and len(obs["team"]) == 2
    obs, rewards, terminateds, truncateds, infos = grouped.step({"team": (1, 0)})
    assert rewards == {"team": 2.0} and infos["team"]["_group_rewards"] == [1.0, 1.0]
    assert terminateds == {"__all__": False, "team": False} and truncateds == {"__all__": False, "team": False}
    source = MultiAgentSource(lambda: Scripted().with_agent_groups({"team": ["red", "blue"]}))
    assert source.agent_ids == ("team",) and source.spec.reward_shape == (1,)
    check_env(grouped)


def test_a_group_is_paid_and_told_what_some_of_its_agents_are():
    answer = {"rewards": {"blue": 2.0}, "infos": {"blue": {"score": 3}}}
    grouped = Scripted({"answers": {1: answer, 2: {"rewards": {}}}}).with_agent_groups({"team": ["red", "blue"]})
    grouped.reset()
    _, rewards, _, _, infos = grouped.step({"team": (1, 0)})
    assert rewards == {"team": 2.0}
    assert infos == {"team": {"_group_rewards": [0.0, 2.0], "_group_info": [{"score": 3}]}}
    assert grouped.step({"team": (1, 0)})[1] == {}


@pytest.mark.parametrize(
    ("flags", "terminated", "truncated"),
    [
        ({"terminateds": {"red": True}}, False, False),
        ({"terminateds": {"red": True, "blue": True}}, True, False),
        ({"terminateds": {"red": True}, "truncateds": {"blue": True}}, False, True),
    ],
)
def test_a_group_has_ended_when_all_its_agents_have(flags, terminated, truncated):
    grouped = Scripted({"answers": {1: flags}}).with_agent_groups({"team": ["red", "blue"]})
    grouped.reset()
    _, _, terminateds, truncateds, _ = grouped.step({"team": (1, 0)})
    assert (terminateds["team"], truncateds["team"]) == (terminated, truncated)


def test_groups_name_what_is_wrong_with_them():
    with pytest.raises(ValueError, match=r"the agent 'red' is in two places"):
        Scripted().with_agent_groups({"a": ["red"], "b": ["red"]})
    with pytest.raises(ValueError, match=r"the agent 'green' is not one of \['red', 'blue'\]"):
        Scripted().with_agent_groups({"a": ["green"]})
    lonely = {1: {"obs": {"red": np.zeros(2, np.float32)}}}
    with pytest.raises(ValueError, match="the group 'team' has no observation of its agent 'blue'"):
        check_env(Scripted({"answers": lonely}).with_agent_groups({"team": ["red", "blue"]}))


def test_copies_of_an_environment_are_agents_of_one():
    env = make_multi_agent("CartPole-v1")({"num_agents": 3})
    single = [gym.make("CartPole-v1") for _ in range(3)]
    obs, _ = env.reset(seed=5)
    for i, other in enumerate(single):
        np.testing.assert_array_equal(obs[i], other.reset(seed=5 + i)[0])
    playing, over, lengths = {0, 1, 2}, False, np.zeros(3, int)
    while not over:
        actions = {i: int(obs[i][2] > 0) if i == 1 else 1 for i in playing}
        obs, rewards, terminateds, _, _ = env.step(actions)
        for i in sorted(playing):
            expected = single[i].step(actions[i])
            np.testing.assert_array_equal(obs[i], expected[0])
            assert (rewards[i], terminateds[i]) == expected[1:3]
        lengths[list(playing)] += 1
        playing = {i for i in playing if not terminateds[i]}
        over = terminateds["__all__"]
    assert not playing and len(set(lengths)) > 1
    source = MultiAgentSource(make_multi_agent("CartPole-v1", num_agents=4), num_envs_per_worker=2)
    assert source.agent_ids == (0, 1, 2, 3) and [name for name, _ in source.spec.groups] == ["agent"]
    check_env(make_multi_agent("CartPole-v1"), {"num_agents": 2})


def test_copies_that_are_cut_cut_the_episode():
    env = make_multi_agent("CartPole-v1", 2)({"max_episode_steps": 3})
    env.reset(seed=0)
    flags = [env.step({0: t % 2, 1: t % 2})[2:4] for t in range(3)]
    assert [terminateds["__all__"] for terminateds, _ in flags] == [False] * 3
    assert [truncateds["__all__"] for _, truncateds in flags] == [False, False, True]


def test_one_environment_cannot_be_several_copies():
    one = gym.make("CartPole-v1")
    with pytest.raises(ValueError, match="it is one environment; give its id, its class or a factory"):
        make_multi_agent(one, 2)
    with pytest.raises(ValueError, match="the factory gave one environment twice; make a new one each time"):
        make_multi_agent(lambda config: one, 2)()
    assert make_multi_agent(functools.partial(gym.make, "CartPole-v1"), 2)().possible_agents == [0, 1]


# Seats that are shuffled -----------------------------------------------------------------------------------------


class Seats(Scripted):
    """Each seat shows its number, is paid ten times it and what it does, and tells it. Red's alone acts in step 2."""

    def told(self):
        return {agent: np.full(2, i, np.float32) for i, agent in enumerate(self.ids)}

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.told(), {}

    def step(self, action_dict):
        self.steps += 1
        obs = self.told() if self.steps != 1 else {"red": self.told()["red"]}
        rewards = {agent: 10.0 * self.ids.index(agent) + action for agent, action in action_dict.items()}
        infos = {agent: {"seat": i} for i, agent in enumerate(self.ids)} | {"__common__": {"seat": 7}}
        return obs, rewards, {"__all__": self.steps == 3}, {"__all__": False}, infos


def test_outside_jax_all_that_is_told_of_an_agent_is_told_of_its_seat():
    rows = 32
    source = ShuffledSeatsSource(MultiAgentSource(Seats, num_envs_per_worker=rows))
    seat = source.reset(KEY)["obs"]["red_blue"][..., 0]
    assert {tuple(row) for row in seat.tolist()} == {(0, 1), (1, 0)}
    assert source.agent_ids == ("red", "blue") and len(source.environments()) == rows
    action = np.tile([0, 1], (rows, 1))
    for asked in (np.ones((rows, 2), bool), seat == 0, np.ones((rows, 2), bool)):
        step = source.step({"red_blue": action}, KEY)
        np.testing.assert_array_equal(step.obs["obs"]["red_blue"][..., 0], seat)
        np.testing.assert_array_equal(step.reward, np.where(asked, 10 * seat + action, 0))
        for row, info in enumerate(step.info):
            assert [info[agent]["seat"] for agent in ("red", "blue")] == seat[row].tolist()
            assert info["__common__"] == {"seat": 7}
        if not step.terminated.any():
            going = step.obs["acting"]["red_blue"]
            np.testing.assert_array_equal(going > 0, seat == 0 if asked.all() else np.ones((rows, 2), bool))
    begun = np.arange(rows) % 2 == 0
    keys = np.stack([np.arange(rows), np.arange(rows)], axis=1).astype(np.uint32)
    after = source.reset_where(begun, step.obs, keys)["obs"]["red_blue"][..., 0]
    np.testing.assert_array_equal(after[~begun], seat[~begun])
    assert (after[begun] != seat[begun]).any() and (after[begun] == seat[begun]).any()


# Where they are named --------------------------------------------------------------------------------------------


class Duck:
    """No base class and RLlib's form."""

    def __init__(self, config=None):
        self._env = Scripted(config)
        self._agent_ids = {"red", "blue"}
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space

    def get_agent_ids(self):
        return self._agent_ids

    def reset(self, *, seed=None, options=None):
        return self._env.reset(seed=seed)

    def step(self, action_dict):
        return self._env.step(action_dict)


class FromRay(type("MultiAgentEnv", (), {})):
    """RLlib's own base class is known by its name. This one says who there is only once it is made."""

    def __init__(self, config=None):
        self._env = Scripted(config)
        self.observation_spaces = {"red": self._env.observation_space, "blue": self._env.observation_space}
        self.action_spaces = dict.fromkeys(self.observation_spaces, self._env.action_space)

    reset, step = Duck.reset, Duck.step


@pytest.mark.parametrize(
    "named",
    [Scripted, Scripted(), lambda config: Scripted(config), Duck, Duck(), FromRay, OldRoster, TurnRoster, TurnRoster()],
)
def test_whatever_names_one_finds_it(named):
    world = find_world(named, {}, "auto").checked()
    assert world.many_agents and world.env is None
    source = world.source(num_envs_per_worker=1)
    assert source.spec.groups and len(source.agent_ids) > 1
    source.reset(KEY)
    source.step(zeros(source), KEY)
    source.close()


def test_names_given_to_register_env_and_ids_of_one_agent_are_told_apart():
    athlete.register_env("two-who-see", lambda config: Scripted(config))
    assert find_world("two-who-see", {}, "auto").many_agents
    assert not find_world("CartPole-v1", {}, "gymnasium").many_agents
    assert not find_world(lambda: gym.make("CartPole-v1"), {}, "auto").many_agents
    with pytest.raises(ValueError, match="it is no JAX environment"):
        find_world(Scripted, {}, "jax")


def test_a_baseline_is_of_all_agents_and_takes_legal_actions_only():
    hosted = athlete.baseline(make_multi_agent("CartPole-v1", 2), episodes=200)
    compiled = athlete.baseline("MultiAgentCartPole-v1", episodes=1000, env_config={"num_agents": 2})
    alone = athlete.baseline("CartPole-v1", episodes=1000)
    for result in (hosted, compiled):
        assert result.episode_reward_mean == pytest.approx(2 * alone.episode_reward_mean, rel=0.15)
        assert alone.episode_len_mean < result.episode_len_mean < result.episode_reward_mean
    masked = athlete.baseline(Masked, 3, {"place": "entry"})  # which asserts that they are
    assert masked.episode_len_mean == 5
    game = athlete.baseline("TicTacToe-v0", episodes=500)
    assert game.episode_reward_mean == 0 and 5 <= game.episode_len_mean <= 9


# Failures, seeds, films ------------------------------------------------------------------------------------------


class Failing(DictRoster):
    """Raises in the third step of the row `config["row"]`, once."""

    broken = False

    def __init__(self, config):
        super().__init__(config)
        self.fails = config.vector_index == 1 and not Failing.broken

    def step(self, action_dict):
        if self.fails and self.steps == 2:
            Failing.broken = True
            raise ZeroDivisionError("the track is broken")
        return super().step(action_dict)


def test_a_row_that_fails_begins_anew_and_is_cut_off_where_it_stood():
    Failing.broken = False
    supervision = Supervision(restart_rows=True)
    source = MultiAgentSource(Failing, {"limit": 100}, num_envs_per_worker=2, supervision=supervision)
    source.reset(KEY)
    steps = [source.step(zeros(source), KEY) for _ in range(2)]
    before, step = steps[-1], source.step(zeros(source), KEY)
    assert source.faulty.tolist() == [False, True] and step.truncated.tolist()[1] and not step.reward[1].any()
    for flag in ("terminated", "truncated"):
        assert not any(bits[1].any() for bits in step.obs[flag].values())
    np.testing.assert_array_equal(step.obs["obs"]["a"][1], before.obs["obs"]["a"][1])
    obs = source.reset_where(np.array([False, True]), step.obs, KEY)
    assert source.health.faulty_episodes == 1 and not np.array_equal(obs["obs"]["a"], step.obs["obs"]["a"])


def test_an_end_is_told_once_where_the_next_step_fails():
    class Breaking(Scripted):
        def step(self, action_dict):
            if self.steps == 1:
                raise ZeroDivisionError
            return super().step(action_dict)

    answers = {"answers": {1: {"terminateds": {"red": True}}}}
    source = MultiAgentSource(Breaking, answers, supervision=Supervision(restart_rows=True))
    source.reset(KEY)
    ended = [source.step(zeros(source), KEY).obs["terminated"]["red_blue"].tolist() for _ in range(2)]
    assert ended == [[[1, 0]], [[0, 0]]] and source.faulty.all()


def test_an_environment_that_raises_is_told_with_its_traceback_and_the_step():
    Failing.broken = False
    source = MultiAgentSource(Failing, {"limit": 100}, num_envs_per_worker=2)
    source.reset(KEY)
    with pytest.raises(
        EnvError, match=r"(?s)ZeroDivisionError: the track is broken\n.*row 1, .*in step 3 of its"
    ) as raised:
        for _ in range(3):
            source.step(zeros(source), KEY)
    assert str(raised.value).count('File "') == 1  # the frames are those of the environment


class Hanging(Scripted):
    def step(self, action_dict):
        time.sleep(60)


def test_a_step_that_does_not_come_back_is_broken_off():
    source = MultiAgentSource(Hanging, supervision=Supervision(env_timeout=0.3))
    source.reset(KEY)
    with pytest.raises(EnvError, match=r"did not come back within 0.3 seconds (.|\n)*row 0, .*in step 1"):
        source.step(zeros(source), KEY)
    source.close()


def test_infos_come_by_agent_and_worker_processes_need_no_jax():
    source = MultiAgentSource(Telling, num_workers=1)
    source.reset(KEY)
    assert source.step(zeros(source), KEY).info[0] == {"red": {"jax": False}}
    source.close()


def test_seeded_resets_repeat_an_evaluation():
    def second_episode():
        source = MultiAgentSource(DictRoster, num_envs_per_worker=2, seeded_resets=True)
        obs = source.reset(KEY)
        obs = source.step(zeros(source), KEY).obs
        return source.reset_where(np.array([True, True]), obs, np.array([3, 4], np.uint32))

    np.testing.assert_array_equal(second_episode()["obs"]["a"], second_episode()["obs"]["a"])


def test_check_env_warns_where_an_episode_cannot_be_repeated(caplog):
    class Unseeded(DictRoster):
        def reset(self, *, seed=None, options=None):
            return super().reset()

    check_env(DictRoster)
    assert "differ" not in caplog.text
    check_env(Unseeded)
    assert "Unseeded: two episodes from reset(seed=0) with the same actions differ: observations" in caplog.text


def test_check_env_finds_an_environment_in_which_nobody_acts():
    class Idle(Scripted):
        def step(self, action_dict):
            return {}, *super().step(action_dict)[1:]

    with pytest.raises(ValueError, match="Idle: for 20 steps, the last in step 21 of episode 1, no agent was asked"):
        check_env(Idle)


class Listening(DefaultCallbacks):
    """Notes what hooks are told of each agent."""

    def on_episode_start(self, *, episode, **_):
        assert episode.get_agents() == ["red", "blue"] and episode.last_reward_for("red") == 0.0
        assert episode.last_action_for("red") is None and episode.last_info_for("red") == {}

    def on_episode_end(self, *, episode, **_):
        assert episode.last_observation_for("blue").shape == (2,) and episode.last_action_for("blue") in (0, 1)
        assert episode.last_observation_for()["obs"]["red_blue"].shape == (2, 2)
        rewards = [episode.last_reward_for(agent) for agent in (None, "red", "blue")]
        assert rewards == [5.0, 3.0, 2.0] and episode.last_info_for("red") == {"score": 7}
        episode.custom_metrics["total"] = episode.total_reward


def test_hooks_are_told_of_each_agent_by_its_id():
    last = {"rewards": {"red": 3.0, "blue": 2.0}, "terminateds": {"__all__": True}, "infos": {"red": {"score": 7}}}
    config = PPOConfig().environment(Scripted, env_config={"answers": {4: last}}).multi_agent(policies={"both"})
    config.training(train_batch_size=32, model={"fcnet_hiddens": [4]}).rollouts(num_envs_per_worker=2)
    algo = config.callbacks(Listening).build()
    result = algo.train()
    assert result["custom_metrics"]["total_mean"] == result["episode_reward_mean"] == 11.0
    assert algo._agent_ids() == ("red", "blue")
    algo.stop()


def test_the_last_action_is_no_part_of_observations_of_many():
    config = PPOConfig().environment(Scripted).training(model={"use_lstm": True, "lstm_use_prev_action": True})
    with pytest.raises(
        ValueError, match="lstm_use_prev_action and lstm_use_prev_reward are for one agent, and Scripted"
    ):
        config.build()


def test_films_are_made_of_what_it_draws(tmp_path):
    class Drawn(Scripted):
        def __init__(self, config):
            super().__init__({"answers": {7: {"terminateds": {"__all__": True}}}})
            self.render_mode = config["render_mode"]

        def render(self):
            return np.full((32, 48, 3), 20 * self.steps, np.uint8)

    from athlete.record.video import record_episodes

    world = find_world(Drawn, {}, "auto")
    films = record_episodes(
        world.make_for_film, lambda obs, state, first: ({"red_blue": np.ones(2, int)}, None), tmp_path
    )
    assert films[0].length == 7 and films[0].episode_return == 14.0

"""What does not hold together in an environment of many agents is an error with the agent, the row and the step."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text
from toy_agents import Scripted, ScriptedParallel, TurnRoster

from athlete.core import Step
from athlete.env import MultiAgentEnv
from athlete.env.adapters.agents_source import MultiAgentSource
from athlete.env.checks.check import check_env
from athlete.env.errors import EnvError

KEY = np.array([0, 7], np.uint32)
SEEN = np.zeros(2, np.float32)
NOBODY = {"__all__": False}
RED_DIES = {"terminateds": {"red": True, "__all__": False}}


def stepped(form: type, answers: dict[int, dict], steps: int, num_workers: int = 0) -> Step:
    """The last of `steps` steps of two rows."""
    rows = {"num_workers": num_workers, "num_envs_per_worker": 1} if num_workers else {"num_envs_per_worker": 2}
    source = MultiAgentSource(form, {"answers": answers}, **rows)
    try:
        source.reset(KEY)
        for _ in range(steps):
            step = source.step({name: np.zeros((2, group.size), int) for name, group in source.spec.groups}, KEY)
        return step
    finally:
        source.close()


RED_LEAVES = {"truncateds": {"red": True, "__all__": False}}

BAD = [
    # what is answered in which step, and what the error says of it
    ({1: RED_LEAVES, 2: {"obs": {"red": SEEN}}}, "an observation of the agent 'red', which has ended before"),
    ({1: RED_DIES, 2: {"rewards": {"red": 2.5}}}, "reward of 2.5 for the agent 'red', which has ended before"),
    ({1: RED_DIES, 2: {"obs": {"red": SEEN}}}, "an observation of the agent 'red', which has ended before"),
    (
        {2: {"obs": {"green": SEEN}}},
        r"an observation for 'green', which is none of the possible agents \['red', 'blue'\]",
    ),
    ({2: {"rewards": {"green": 1.0}}}, "a reward for 'green', which is none of the possible agents"),
    ({2: {"terminateds": {"green": True}}}, "a flag terminated for 'green'"),
    ({2: {"obs": {"red": None}}}, r"the observation of 'red' is None; expected an element of Box"),
    ({2: {"obs": {"red": np.zeros(3)}}}, r"observation\['red'\] has shape \(3,\); expected \(2,\)"),
    ({2: {"obs": {"red": "up"}}}, r"observation\['red'\] is 'up' \(str\); expected an array of shape \(2,\)"),
    (
        {2: {"obs": {"blue": np.array([0, np.nan], np.float32)}}},
        r"observation\['blue'\]\[1\] is nan; expected a finite number",
    ),
    ({2: {"rewards": {"blue": np.inf}}}, "the reward of 'blue' is inf; expected a finite number"),
    ({2: {"rewards": {"blue": None}}}, r"the reward of 'blue' is None \(NoneType\); expected a number"),
    ({2: {"truncateds": {"blue": "no"}}}, r"truncated of 'blue' is 'no' \(str\); expected a bool"),
    ({2: {"terminateds": {"__all__": 7}}}, r"terminated of '__all__' is 7 \(int\); expected a bool"),
    ({2: {"obs": [SEEN, SEEN]}}, "observations are of type list; expected a dict by agent id"),
    ({2: {"infos": None}}, "infos are of type NoneType; expected a dict by agent id"),
    (
        {2: {"obs": {"blue": SEEN}, "truncateds": {"red": True}}},
        "the agent 'red' is truncated and its last observation is missing",
    ),
    (
        {1: RED_DIES, 2: {"terminateds": {"blue": True, "__all__": False}}},
        r"all agents have ended, with this step 'blue', .* expected terminateds\['__all__'\] or truncateds",
    ),
]


@pytest.mark.parametrize(("answers", "sentence"), BAD)
def test_the_error_names_the_agent_the_row_and_the_step(answers, sentence):
    with pytest.raises(EnvError, match=rf"(?s){sentence}.*This was row 0, seeded with \d+, in step 2 of its episode"):
        stepped(Scripted, answers, 2)
    assert stepped(Scripted, answers, 1).reward.shape == (2, 2)


def test_the_same_from_a_worker_process():
    with pytest.raises(EnvError, match=r"agent 'red', which has ended before.*\n.*row 1, .* in step 2"):
        stepped(Scripted, BAD[0][0], 2, num_workers=2)


@pytest.mark.parametrize("answer", [(1, 2, 3), "done"])
def test_a_step_gives_five_dictionaries(answer):
    class Short(Scripted):
        def step(self, action_dict):
            return answer

    with pytest.raises(EnvError, match=r"step returned .*; expected five dictionaries by agent id: observations, rew"):
        stepped(Short, {}, 1)


@pytest.mark.parametrize(("name", "end"), [("terminated", RED_DIES), ("truncated", RED_LEAVES)])
def test_what_is_harmless_of_an_agent_that_has_ended_is_taken(name, end):
    assert stepped(Scripted, {1: end}, 1).obs[name]["red_blue"].tolist() == [[1, 0]] * 2
    step = stepped(Scripted, {1: end, 2: end | {"rewards": {"red": 0.0, "blue": 1.0}}}, 2)
    for flag in ("terminated", "truncated"):
        assert step.obs[flag]["red_blue"].tolist() == [[0, 0]] * 2  # told once, in the step before
    assert step.reward.tolist() == [[0.0, 1.0]] * 2


@pytest.mark.parametrize("flag", ["terminateds", "truncateds"])
def test_who_has_not_come_yet_cannot_end(flag):
    class Late(Scripted):
        def reset(self, *, seed=None, options=None):
            return {"red": super().reset()[0]["red"]}, {}

    before = {1: {flag: {"blue": True}}}
    assert not stepped(Late, before, 1).obs[flag[:-1]]["red_blue"].any()
    joined = stepped(Late, before | {2: {"obs": {"red": SEEN, "blue": SEEN}}}, 2)
    assert joined.obs["acting"]["red_blue"].tolist() == [[1, 1]] * 2


def test_who_waits_when_the_episode_is_cut_is_valued_at_what_it_was_shown_last():
    cut = {"obs": {"blue": SEEN}, "truncateds": {"red": True, "blue": True, "__all__": True}}
    step = stepped(Scripted, {2: cut}, 2)
    assert step.truncated.all() and step.obs["truncated"]["red_blue"].all()


@pytest.mark.parametrize("form", [Scripted, ScriptedParallel])
def test_a_dead_environment_is_not_stepped_on(form):
    if form is Scripted:
        end = {"truncateds": {"__all__": True}}
    else:
        end = {"agents": [], "truncations": {"red": True, "blue": True}}
    last = stepped(form, {2: end}, 2)
    assert last.truncated.all() and not any(bits.any() for bits in last.obs["acting"].values())
    with pytest.raises(EnvError, match=r"episode is over for all agents; expected a reset\n.*row 0, .* in step 3"):
        stepped(form, {2: end}, 3)


def test_a_parallel_episode_in_which_one_ends_and_the_other_is_cut_is_cut():
    end = {"agents": [], "terminations": {"red": True}, "truncations": {"blue": True}}
    step = stepped(ScriptedParallel, {2: end}, 2)
    assert step.truncated.all() and not step.terminated.any()
    assert step.obs["terminated"]["red_blue"].tolist() == [[1, 0]] * 2
    assert step.obs["truncated"]["red_blue"].tolist() == [[0, 1]] * 2


BAD_PARALLEL = [
    ({"agents": ["blue"]}, "the agent 'red' is gone from env.agents, and neither terminations nor truncations say"),
    ({"agents": []}, "the agent 'red' is gone from env.agents, and neither"),
    ({"obs": {"red": SEEN}}, "step gave no observation for 'blue', which is in env.agents"),
    ({"terminations": None}, "terminations are of type NoneType; expected a dict"),
]


@pytest.mark.parametrize(("answer", "sentence"), BAD_PARALLEL)
def test_parallel_environments_tell_of_all_who_are_there(answer, sentence):
    with pytest.raises(EnvError, match=rf"{sentence}.*\n.*row 0, .* in step 2"):
        stepped(ScriptedParallel, {2: answer}, 2)


def test_turns_whose_dead_stay_are_an_error():
    class Undead(TurnRoster):
        def step(self, action):
            if action is not None:
                super().step(action)

    source = MultiAgentSource(Undead)
    source.reset(KEY)
    with pytest.raises(EnvError, match=r"the agent '\w+' has ended and is still in env.agents after step\(None\)"):
        for _ in range(100):
            source.step({name: np.zeros((1, group.size), int) for name, group in source.spec.groups}, KEY)


class Without(MultiAgentEnv):
    """An environment that lacks what `config` says."""

    def __init__(self, config):
        self.possible_agents = ["red", "blue"]
        self.observation_space, self.action_space = Box(-1, 1, (2,)), Discrete(2)
        vars(self).update(config)

    def reset(self, *, seed=None, options=None):
        return {}, {}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"possible_agents": []}, "Without does not say which agents there are: set self.possible_agents"),
        ({"possible_agents": ["1", 1]}, r"Without has the agents \['1', '1'\]; each needs an id of its own"),
        ({"observation_space": None}, r"Without.observation_space is None; set it in __init__ to a space of gymnasium"),
        (
            {"action_space": Dict({"red": Discrete(2)})},
            r"Without.action_space has the agents \['red'\] and no entry for 'blue'",
        ),
        ({"observation_space": Text(3)}, "observation_space of 'red' is a Text space, which has no fixed shape"),
        ({"action_spaces": {"red": Discrete(2), "blue": 5}}, r"action_space of 'blue' is 5 \(int\); expected a space"),
    ],
)
def test_what_an_environment_lacks_is_said(config, sentence):
    with pytest.raises(ValueError, match=sentence):
        MultiAgentSource(Without, config)


def test_rows_must_have_the_same_agents():
    made = []

    def make():
        made.append(Scripted())
        if len(made) == 2:
            made[-1].possible_agents = ["red", "green"]
        return made[-1]

    with pytest.raises(ValueError, match=r"row 1 has the agents .*green.*must have the same"):
        MultiAgentSource(make, num_envs_per_worker=2)


def test_one_agent_is_not_many():
    with pytest.raises(ValueError, match="expected one with many agents"):
        MultiAgentSource(lambda: gym.make("CartPole-v1"))


@pytest.mark.parametrize(("answers", "sentence"), BAD)
def test_check_env_names_the_agent_and_the_step(answers, sentence):
    with pytest.raises(ValueError, match=rf"(?s)Scripted.step\(.*in step 2 of episode 1, is wrong: .*{sentence}"):
        check_env(Scripted, {"answers": answers})

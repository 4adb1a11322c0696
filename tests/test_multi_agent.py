"""Many agents as users set them up: policies, mapping, results, checkpoints, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes import assert_resumes
from roster import Roster

from athlete import Algorithm, Policy
from athlete.algorithms.a2c import A2CConfig
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.settings.multi_agent import PolicySpec, mapping_of

SMALL = {"model": {"fcnet_hiddens": [8]}}


def config_of(env="MultiAgentCartPole-v1", **multi_agent) -> PPOConfig:
    config = PPOConfig().environment(env, env_config={"num_agents": 3} if isinstance(env, str) else {})
    config.rollouts(num_envs_per_worker=2, rollout_fragment_length=16).training(num_epochs=1, **SMALL)
    config.training(train_batch_size=32, minibatch_size=16).debugging(seed=4)
    return config.multi_agent(**multi_agent)


def always_left(obs, key):
    return jnp.zeros(obs.shape[0], jnp.int32)


MIXED = {
    "policies": {
        "learner": PolicySpec(config={"lr": 1e-2}),
        "other": PolicySpec(algorithm="DQN", config={"num_steps_sampled_before_learning_starts": 32, **SMALL}),
        "frozen": PolicySpec(),
    },
    "policy_mapping_fn": {"agent_0": "learner", "agent_1": "other", "agent_2": "frozen"},
    "policies_to_train": ["learner", "other"],
}


def test_agents_share_one_policy_unless_told_otherwise():
    with config_of().build() as algo:
        result = algo.train()
        assert list(result["info"]["learner"]) == ["default_policy"]
        assert algo.compute_single_action(np.zeros(4, np.float32)) in (0, 1)


def test_steps_are_counted_of_environments_and_of_agents():
    with config_of(**MIXED).build() as algo:
        first, second = algo.train(), algo.train()
    assert first["num_env_steps_sampled"] == 2 * 32, "one trajectory of warm-up, and one"
    assert second["num_env_steps_sampled_this_iter"] == 32
    assert 32 < second["num_agent_steps_sampled_this_iter"] <= 3 * 32, "CartPoles that have fallen do not act"
    steps = first["num_agent_steps_sampled_this_iter"] + second["num_agent_steps_sampled_this_iter"]
    assert second["num_agent_steps_sampled"] == steps
    assert set(second["info"]["learner"]) == {"learner", "other"}, "a frozen policy measures nothing"


def test_rewards_by_policy_add_up_to_those_of_episodes():
    with config_of(**MIXED).build() as algo:
        for _ in range(4):
            result = algo.train()
        by_policy = [result["hist_stats"][f"policy_{name}_reward"] for name in ("learner", "other", "frozen")]
        assert len(by_policy[0]) == len(result["hist_stats"]["policy_learner_reward"]) > 0
        assert sum(np.mean(part) for part in by_policy) == pytest.approx(result["episode_reward_mean"])
        assert result["policy_reward_max"]["learner"] == max(by_policy[0])
        evaluation = algo.evaluate(3)["evaluation"]
        assert sum(evaluation["policy_reward_mean"].values()) == pytest.approx(evaluation["episode_reward_mean"])


def test_a_frozen_policy_stays_as_it_is_to_the_bit_and_the_others_learn():
    with config_of(**MIXED).build() as algo:
        before = algo.get_weights()
        for _ in range(3):
            algo.train()
        after = algo.get_weights()
    same = {
        name: all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before[name], after[name])), strict=True))
        for name in before
    }
    assert same == {"learner": False, "other": False, "frozen": True}


def test_weights_of_one_policy_are_put_into_another():
    with config_of(**MIXED).build() as algo:
        algo.train()
        algo.set_weights({"frozen": algo.get_weights()["learner"]})
        weights = algo.get_weights()
        jax.tree.map(np.testing.assert_array_equal, weights["frozen"], weights["learner"])
        with pytest.raises(ValueError, match=r"expected \{'frozen', 'learner', 'other': ...\}.*'nobody'"):
            algo.set_weights({"nobody": weights["learner"]})


@pytest.mark.parametrize("env", ["MultiAgentCartPole-v1", Roster()], ids=["cartpoles", "roster"])
def test_a_training_goes_on_to_the_last_bit(env, tmp_path):
    mapping = {"a": "learner", "b": "other"} if isinstance(env, Roster) else MIXED["policy_mapping_fn"]
    settings = MIXED | {"policy_mapping_fn": mapping}
    if isinstance(env, Roster):
        settings["policies"] = {name: settings["policies"][name] for name in ("learner", "other")}
    assert_resumes(config_of(env, **settings), tmp_path)


def test_a_checkpoint_tells_which_policy_acts_for_whom(tmp_path):
    def mapping(agent_id, episode, worker, **kwargs):
        return "even" if int(agent_id[-1]) % 2 == 0 else "odd"

    with config_of(policies=["even", "odd"], policy_mapping_fn=mapping).build() as algo:
        algo.train()
        path = algo.save(tmp_path)
        obs = np.full(4, 0.1, np.float32)
        expected = algo.compute_single_action(obs, policy_id="odd")
        with Algorithm.from_checkpoint(path) as restored:
            assert restored.config.policy_mapping_fn == {"agent_0": "even", "agent_1": "odd", "agent_2": "even"}
            assert restored.compute_single_action(obs, policy_id="odd") == expected
    alone = Policy.from_checkpoint(path, policy_id="odd")
    assert alone.compute_single_action(obs)[0] == expected
    with pytest.raises(ValueError, match="there is no policy 'default_policy'; there are 'even', 'odd'"):
        Policy.from_checkpoint(path)


def test_a_heuristic_and_a_random_policy_play_along():
    policies = {"learner": None, "heuristic": always_left, "dull": "random"}
    mapping = dict(zip(("agent_0", "agent_1", "agent_2"), policies, strict=True))
    with config_of(policies=policies, policy_mapping_fn=mapping).build() as algo:
        result = algo.train()
        assert list(result["info"]["learner"]) == ["learner"]
        observations = {i: np.full(4, 0.1 * i, np.float32) for i in range(20)}
        assert set(algo.compute_actions(observations, policy_id="heuristic").values()) == {0}
        actions = algo.compute_actions(observations, policy_id="dull", explore=True)
        assert set(actions.values()) == {0, 1}


def test_like_agents_share_a_policy_of_their_groups_name_where_spaces_differ():
    with config_of(Roster()).build() as algo:
        assert list(algo.train()["info"]["learner"]) == ["a", "b"]


def test_schedules_of_all_policies_end_where_they_say():
    policies = {
        "short": PolicySpec(config={"lr_schedule": [[0, 1.0], [100, 0.0]]}),
        "long": PolicySpec(config={"lr_schedule": [[0, 1.0], [1000, 0.0]]}),
    }
    mapping = {"agent_0": "short", "agent_1": "long", "agent_2": "long"}
    with config_of(policies=policies, policy_mapping_fn=mapping).build() as algo:
        for _ in range(3):
            result = algo.train()
    learner = result["info"]["learner"]  # progress is that of the iteration's start, 64 timesteps
    assert learner["short"]["learner_stats"]["cur_lr"] == pytest.approx(0.36, abs=1e-5)
    assert learner["long"]["learner_stats"]["cur_lr"] == pytest.approx(0.936, abs=1e-5)


def test_a_batch_counted_in_agent_steps_takes_fewer_steps_of_the_environment():
    with config_of(count_steps_by="agent_steps").rollouts(rollout_fragment_length="auto").build() as algo:
        assert algo.train()["num_env_steps_sampled"] == 2 * 6  # 32 of 3 agents in 2 environments, rounded up


@pytest.mark.parametrize("config", [A2CConfig, DQNConfig], ids=lambda config: config.algorithm_name)
def test_other_algorithms_are_shared_too(config):
    algo = config().environment("MultiAgentCartPole-v1").training(**SMALL).debugging(seed=1).build()
    with algo:
        assert algo.train()["num_agent_steps_sampled"] > 0


def test_gymnasium_side_environments_of_many_agents_train(tmp_path):
    from athlete.env import make_multi_agent

    mapping = {0: "learner", 1: "other", 2: "frozen"}  # RLlib's agents of this environment are numbers
    config = config_of(make_multi_agent("CartPole-v1", num_agents=3), **MIXED | {"policy_mapping_fn": mapping})
    with config.build() as algo:
        for _ in range(3):
            result = algo.train()
        assert set(result["policy_reward_mean"]) == {"learner", "other", "frozen"}
        path = algo.save(tmp_path)
        found = algo.evaluate(2)["evaluation"]["policy_reward_mean"]
    with Algorithm.from_checkpoint(path, env=make_multi_agent("CartPole-v1", num_agents=3)) as restored:
        assert restored.evaluate(2)["evaluation"]["policy_reward_mean"] == found
        restored.train()


def test_policies_given_as_a_set_have_an_order_that_does_not_change():
    names = ["walker", "runner", "a", "swimmer", "b"]
    assert list(PPOConfig().multi_agent(policies=set(names)).policies) == sorted(names)
    assert list(PPOConfig().multi_agent(policies=names).policies) == names


# What is refused ----------------------------------------------------------------------------------------------------


def test_a_mapping_must_know_every_agent_and_every_policy():
    ids, policies = ("agent_0", "agent_1"), ["left", "right"]
    with pytest.raises(ValueError, match=r"no policy for the agent 'agent_1'; the agents are agent_0, agent_1"):
        mapping_of({"agent_0": "left"}, ids, policies)
    with pytest.raises(ValueError, match=r"agent 'agent_0' is mapped to 'lefd', .*did you mean 'left'"):
        mapping_of(lambda agent_id: "lefd", ids, policies)
    assert mapping_of({"agent": "left"}, ids, policies) == {"agent_0": "left", "agent_1": "left"}


def test_a_mapping_that_answers_differently_when_asked_again_is_refused():
    answers = iter("abababab")
    with pytest.raises(ValueError, match=r"asked again.*shuffle_seats=True.*Past"):
        mapping_of(lambda agent_id, *args, **kwargs: next(answers), ("agent_0",), ["a", "b"])


def test_agents_of_unlike_spaces_need_policies_of_their_own():
    with pytest.raises(ValueError, match=r"policy 'all' acts for 'a_0' and 'b_0', whose observation spaces differ"):
        config_of(Roster(), policies=["all"]).build()


def test_policies_on_an_environment_of_one_agent_are_refused():
    with pytest.raises(ValueError, match=r"multi_agent\(policies=\['a'\]\): the environment has one agent"):
        PPOConfig().environment("CartPole-v1").multi_agent(policies=["a"]).build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policies": {}}, "there has to be a policy"),
        ({"policies": {"a/b": None}}, "'a/b' is no name for a policy"),
        ({"policies": {"a": 3}}, r"policies\['a'\] is 3; expected a PolicySpec"),
        ({"policies": {"a": {"algoritm": "PPO"}}}, "did you mean 'algorithm'"),
        ({"policies": {"a": PolicySpec(config=3)}}, "config is 3; expected a dictionary or a configuration"),
        ({"policy_mapping_fn": 3}, "a function from an agent's name to a policy's"),
        ({"count_steps_by": "steps"}, "one of 'env_steps', 'agent_steps'"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_call(settings, message):
    with pytest.raises(ValueError, match=message):
        PPOConfig().multi_agent(**settings)


def test_what_a_policy_is_told_is_checked_at_build_and_names_it():
    with pytest.raises(ValueError, match=r"policies\['a'\]: .*PPO has no 'gama'; did you mean 'gamma'"):
        config_of(policies={"a": PolicySpec(config={"gama": 0.9})}).build()
    with pytest.raises(ValueError, match=r"policies\['a'\]: there is no algorithm 'PPPO'"):
        config_of(policies={"a": PolicySpec(algorithm="PPPO")}).build()
    with pytest.raises(ValueError, match=r"policies_to_train=\['b'\].*there is no policy 'b'"):
        config_of(policies=["a"], policies_to_train=["b"]).build()
    with pytest.raises(ValueError, match=r"the policy 'dull' cannot learn"):
        config_of(policies={"dull": "random"}, policies_to_train=["dull"]).build()


def test_a_memory_that_does_not_fit_is_refused_at_build():
    huge = PolicySpec(algorithm="DQN", config={"replay_buffer_config": {"capacity": 10**12}})
    mapping = {"agent_0": "huge", "agent_1": "small", "agent_2": "small"}
    with pytest.raises(ValueError, match=r"replay memory: .* take capacity="):
        config_of(policies={"huge": huge, "small": None}, policy_mapping_fn=mapping).build()


def test_a_policy_that_there_is_not_is_named():
    with config_of(**MIXED).build() as algo, pytest.raises(ValueError, match="no policy 'x'; there are 'learner'"):
        algo.get_policy("x")

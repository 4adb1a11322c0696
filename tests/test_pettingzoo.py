"""PettingZoo's environments, where it is installed: `make test-extras` has an environment of its own for it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from test_hosted_agents import canonical, count, played
from toy_agents import TurnRoster

from athlete import Algorithm
from athlete.algorithms.ppo import PPOConfig
from athlete.env.adapters.agents_source import MultiAgentSource
from athlete.env.adapters.source import seed_of
from athlete.env.checks.check import check_env
from athlete.env.registry import runs_code
from athlete.env.world import find_world

KEY = np.array([0, 7], np.uint32)
SPREAD = "pettingzoo:mpe2.simple_spread_v3"


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(ValueError, match="needs the package pettingzoo: pip install pettingzoo"):
        find_world(SPREAD, {}, "auto")


def test_a_name_in_a_file_imports_nothing():
    assert runs_code("pettingzoo:antigravity") and not runs_code("pettingzoo:sys")  # what is imported runs nothing


@pytest.fixture
def zoo():
    pytest.importorskip("mpe2")
    return pytest.importorskip("pettingzoo")


@pytest.fixture
def spread(zoo):
    from mpe2 import simple_spread_v3

    return simple_spread_v3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_are_the_bare_loop_step_by_step(spread, num_workers):
    source = find_world(SPREAD, {"max_cycles": 10}, "auto").source(num_workers=num_workers, num_envs_per_worker=1)
    assert source.agent_ids == ("agent_0", "agent_1", "agent_2")
    came = played(source, 25)
    source.close()
    generator = np.random.default_rng(0)
    bare = [spread.parallel_env(max_cycles=10) for _ in range(source.rows)]
    shown = [env.reset(seed=seed_of(KEY) + row)[0] for row, env in enumerate(bare)]
    for t in range(25):
        actions = canonical(source, generator)["agent"]
        for row, env in enumerate(bare):
            for i, agent in enumerate(source.agent_ids):
                np.testing.assert_array_equal(came.obs["obs"]["agent"][t, row, i], shown[row][agent].astype(np.float32))
            taken = dict(zip(source.agent_ids, actions[row], strict=True))
            shown[row], rewards, _, truncations, _ = env.step(taken)
            np.testing.assert_array_equal(came.reward[t, row], np.float32(list(rewards.values())))
            is_last = all(truncations.values())
            assert came.truncated[t, row] == is_last == (t % 10 == 9) and not came.terminated[t, row]
            assert came.next_obs["truncated"]["agent"][t, row].all() == is_last
            if is_last:
                shown[row] = env.reset()[0]


def test_a_name_a_module_a_factory_and_an_object_are_one(spread):
    forms = [SPREAD, spread, spread.parallel_env, lambda: spread.parallel_env(), spread.parallel_env()]
    worlds = [find_world(form, {}, "auto").checked() for form in forms]
    trajectories = [played(world.source(num_envs_per_worker=1), 30) for world in worlds]
    for trajectory in trajectories[1:]:
        np.testing.assert_array_equal(trajectory.reward, trajectories[0].reward)


def test_the_form_of_turns_pays_what_the_parallel_one_pays(spread):
    """Each reward is told once: at the next turn of who gets it, or at its last."""
    parallel, turns = (
        MultiAgentSource(make, num_envs_per_worker=1) for make in (spread.parallel_env, lambda: spread.env())
    )
    actions = np.random.default_rng(3).integers(0, 5, (25, 1, 3))
    parallel.reset(KEY)
    expected = sum(parallel.step({"agent": action}, KEY).reward for action in actions)
    obs, total = turns.reset(KEY), np.zeros((1, 3), np.float32)
    for t in range(75):
        assert np.flatnonzero(obs["acting"]["agent"][0]).tolist() == [t % 3]
        step = turns.step({"agent": actions[t // 3]}, KEY)
        obs, total = step.obs, total + step.reward
        assert step.truncated[0] == (t == 74)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert obs["truncated"]["agent"].all()


@pytest.mark.parametrize("name", ["tictactoe_v3", "connect_four_v3"])
def test_board_games_tell_what_is_legal_and_who_won(zoo, name):
    world = find_world(f"pettingzoo:classic.{name}", {}, "auto").checked()
    source = world.source(num_envs_per_worker=2)
    generator = np.random.default_rng(0)
    obs, ends = source.reset(KEY), 0
    for _ in range(120):
        acting, masks = obs["acting"]["player"], obs["obs"]["player"]["action_mask"]
        assert (acting.sum(axis=1) == 1).all()
        action = np.zeros((2, 2), int)
        for row, i in np.argwhere(acting):
            action[row, i] = generator.choice(np.flatnonzero(masks[row, i]))
        step = source.step({"player": action}, KEY)
        over = step.terminated
        assert not step.reward[~over].any() and (step.obs["terminated"]["player"][over] == 1).all()
        assert (step.reward.sum(axis=1) == 0).all() and (np.abs(step.reward[over]) <= 1).all()
        ends += int(np.abs(step.reward[over]).sum())
        obs = source.reset_where(over, step.obs, KEY)
    assert ends > 0


def test_an_environment_of_the_base_class_of_turns_is_counted(zoo):
    class Real(zoo.AECEnv):
        """TurnRoster with the bookkeeping of PettingZoo's own base class."""

        metadata: dict = {"name": "turns"}  # noqa: RUF012

        def __init__(self):
            self.own = TurnRoster()
            self.possible_agents, self.diary = self.own.possible_agents, self.own.diary

        def observation_space(self, agent):
            return self.own.observation_space(agent)

        def action_space(self, agent):
            return self.own.action_space(agent)

        def reset(self, seed=None, options=None):
            self.own.reset(seed)
            for name in ("agents", "rewards", "_cumulative_rewards", "terminations", "truncations", "infos"):
                setattr(self, name, getattr(self.own, name))
            self.agent_selection = self.own.agent_selection

        def observe(self, agent):
            return self.own._seen

        def step(self, action):
            agent = self.agent_selection
            if self.terminations[agent] or self.truncations[agent]:
                self._was_dead_step(action)
            else:
                self.own._act(agent, action)
            if self.agents:
                self.agent_selection = self.agents[int(self.own.random.integers(len(self.agents)))]
                self.own._select(self.agent_selection)

    source = MultiAgentSource(Real, num_envs_per_worker=2)
    trajectory = played(source, 150)
    for row, env in enumerate(source.environments()):
        assert count(source, trajectory, row, env.diary) == len(env.diary.entries) > 100


def test_names_that_do_not_exist_are_refused_with_the_nearest(zoo, spread):
    with pytest.raises(ValueError, match=r"no module 'mpe2.simple_spred_v3'.*did you mean 'simple_spread_v3'"):
        find_world("pettingzoo:mpe2.simple_spred_v3", {}, "auto")
    with pytest.raises(ValueError, match=r"no module 'nothing_v3'.*such a name is pettingzoo:mpe2.simple_spread_v3"):
        find_world("pettingzoo:nothing_v3", {}, "auto")
    with pytest.raises(ValueError, match="json has no parallel_env and no env"):
        find_world("pettingzoo:json", {}, "auto")


def test_ids_of_pettingzoos_registries(zoo):
    if not hasattr(zoo, "parallel_registry"):
        pytest.skip("PettingZoo has registries from 1.27 on")
    name = "pettingzoo:classic/tictactoe-v3"
    assert find_world(name, {}, "auto").source().agent_ids == ("player_1", "player_2")
    assert not runs_code(name) and runs_code("pettingzoo:classic/nothing-v3")


def test_films_of_it(spread, tmp_path):
    from athlete.record.video import record_episodes

    world = find_world(SPREAD, {"max_cycles": 4}, "auto")
    films = record_episodes(world.make_for_film, lambda *_: ({"agent": np.zeros(3, int)}, None), tmp_path)
    assert films[0].length == 4 and films[0].path.exists()


def test_check_env_takes_its_own(spread):
    check_env(SPREAD)
    check_env("pettingzoo:classic.rps_v2")


def test_a_training_with_the_module_is_saved_with_its_name_and_plays_pettingzoos_own_loop(zoo, tmp_path):
    from pettingzoo.classic import tictactoe_v3

    config = PPOConfig().environment(tictactoe_v3).multi_agent(policies={"player"})
    config.training(train_batch_size=64, model={"fcnet_hiddens": [8]}).rollouts(num_envs_per_worker=2)
    algo = config.build()
    assert algo.train()["policy_reward_mean"] == {"player": 0.0}
    path = algo.save(tmp_path)
    algo.stop()
    algo = Algorithm.from_checkpoint(path)
    assert algo.config.env == "pettingzoo:pettingzoo.classic.tictactoe_v3"
    env = tictactoe_v3.env()
    env.reset(seed=0)
    paid = []
    for _ in env.agent_iter():
        observation, reward, termination, truncation, _ = env.last()
        over = termination or truncation
        env.step(None if over else algo.compute_single_action(observation, policy_id="player"))
        paid += [reward] if over else []
    assert sum(paid) == 0 and len(paid) == 2
    algo.stop()

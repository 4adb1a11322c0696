"""Gymnasium's environments behind the adapter: spaces, ways to name them, rows that only the loop resets, failures."""

import logging
import os
import subprocess
import sys
import textwrap

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces as gs
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_gymnasium import Counter, Dies, HalfMigrated, Old

from athlete import spaces
from athlete.env.adapters import gymnasium as adapter
from athlete.env.adapters import old_gym
from athlete.env.adapters.gymnasium import OldGymAdapter, make_gymnasium, to_gymnasium_space, to_space
from athlete.env.adapters.processes import ProcessRows
from athlete.env.adapters.source import GymnasiumSource
from athlete.env.errors import EnvError
from athlete.env.membership import sample, violation
from athlete.env.registry import register_env
from athlete.env.world import find_world

KEY = np.array([0, 7], np.uint32)
OTHER_KEY = np.array([0, 8], np.uint32)


@pytest.fixture(params=[0, 3], ids=["in process", "in workers"])
def counters(request):
    """Three rows of Counter, which terminate after 3, 4 and 5 steps in one process, after 3 in groups of one."""
    workers = request.param
    source = GymnasiumSource(Counter, {"length": 3}, num_workers=workers, num_envs_per_worker=1 if workers else 3)
    yield source
    source.close()


def counts(obs):
    return obs["count"][:, 0].tolist()


# Spaces

simple_spaces = st.one_of(
    st.builds(
        lambda low, width, n: gs.Box(low, low + width, (n,), np.float32),
        st.integers(-5, 5),
        st.integers(0, 9),
        st.integers(1, 3),
    ),
    st.just(gs.Box(-np.inf, np.inf, (2, 2), np.float32)),
    st.just(gs.Box(0, 255, (2, 2, 3), np.uint8)),
    st.builds(lambda n, start: gs.Discrete(n, start=start), st.integers(1, 9), st.integers(-3, 3)),
    st.builds(lambda n: gs.MultiDiscrete([n, 2]), st.integers(1, 4)),
    st.just(gs.MultiDiscrete([2, 3], start=[1, -1])),
    st.just(gs.MultiBinary(3)),
    st.just(gs.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 0], [-1, 0]])),
    st.just(gs.MultiBinary([2, 2])),
)
any_space = st.recursive(
    simple_spaces,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(gs.Tuple),
        st.lists(inner, min_size=1, max_size=3).map(gs.OneOf),
        st.dictionaries(st.text("abc", min_size=1), inner, min_size=1, max_size=3).map(gs.Dict),
    ),
    max_leaves=4,
)


@given(any_space)
def test_spaces_survive_the_way_there_and_back(space):
    assert to_gymnasium_space(to_space(space)) == space
    assert to_space(to_gymnasium_space(to_space(space))) == to_space(space)


@given(any_space, st.integers(0, 5))
@settings(max_examples=50)
def test_random_elements_lie_in_the_space_by_our_judgement_and_by_gymnasiums(space, seed):
    space.seed(seed)
    ours = to_space(space, exact=True)
    element = sample(ours, np.random.default_rng(seed))
    assert violation(ours, element, "element") == ""
    assert space.contains(element)
    assert violation(ours, space.sample(), "element") == ""


def test_numbers_of_64_bits_become_numbers_of_32_unless_asked_exactly():
    wide = gs.Dict({"x": gs.Box(-1e300, 0.1, (2,), np.float64), "n": gs.Box(-(2**62), 2**62, (1,), np.int64)})
    narrow = dict(to_space(wide).items)
    assert narrow["x"].dtype == np.float32 and narrow["n"].dtype == np.int32
    assert narrow["x"].low.tolist() == [-np.inf] * 2  # beyond float32 there is no bound
    assert narrow["n"].high.tolist() == [2**31 - 1]
    assert dict(to_space(wide, exact=True).items)["x"].dtype == np.float64


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (gs.Dict({"a": gs.Tuple([gs.Discrete(2), gs.Text(5)])}), r"obs\['a'\]\[1\] is a Text space"),
        (gs.Graph(gs.Box(0, 1, (1,)), None), "obs is a Graph space"),
        (gs.Sequence(gs.Discrete(2)), "obs is a Sequence space"),
        (gs.OneOf([gs.Discrete(2), gs.Text(5)]), r"obs\[1\] is a Text space"),
        (gs.Tuple([]), "obs is empty"),
        (gs.Dict({1: gs.Discrete(2)}), "the key 1; keys must be strings"),
        ((2, 3), "expected a space of gymnasium.spaces"),
        (None, "expected a space of gymnasium.spaces"),
    ],
)
def test_spaces_that_agents_cannot_serve_are_refused_by_entry(space, sentence):
    with pytest.raises(ValueError, match=sentence):
        to_space(space, "obs")


def test_a_box_with_crossed_bounds_is_refused():
    box = gs.Box(0, 1, (2,))
    box.low[1] = 2
    with pytest.raises(ValueError, match=r"obs\[1\] is bounded by low=2.0 and high=1.0"):
        to_space(box, "obs")


# Ways to name an environment


def unwrapped(env, env_config=None, **context):
    made = make_gymnasium(env, env_config, **context)
    made.close()
    return made.unwrapped


def test_an_id_takes_env_config_as_arguments_of_make():
    assert unwrapped("FrozenLake-v1", {"is_slippery": False, "map_name": "8x8"}).desc.shape == (8, 8)
    assert make_gymnasium("CartPole-v1", {"max_episode_steps": 7})._max_episode_steps == 7


def test_classes_factories_registered_names_paths_and_instances_make_environments():
    register_env("counter", lambda env_config: Counter(env_config))
    assert unwrapped(Counter, {"length": 9}).length == 9
    assert unwrapped("counter", {"length": 9}, worker_index=2, vector_index=1, num_workers=3).length == 10
    assert type(unwrapped("gymnasium.envs.classic_control.PendulumEnv", {"g": 1.0})).__name__ == "PendulumEnv"
    instance = gymnasium.make("CartPole-v1")
    assert make_gymnasium(instance) is instance


@pytest.mark.parametrize(
    ("env", "env_config", "sentence"),
    [
        ("CartPoel-v1", {}, "did you mean 'CartPole-v"),
        ("CartPole", {}, "did you mean 'CartPole-v"),
        ("no_such_package:Some-v0", {}, "no module 'no_such_package'; install"),
        ("CartPole-v1", {"sutton_barto": True}, "did you mean 'sutton_barto_reward'"),
        (lambda: 3, {}, "no reset and step"),
        (lambda: gymnasium.make_vec("CartPole-v1"), {}, "is a vector environment"),
    ],
)
def test_names_that_lead_to_no_environment_are_errors(env, env_config, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_gymnasium(env, env_config)


def test_a_jax_environment_is_not_mistaken_for_one_of_gymnasium():
    from athlete.core import Env

    with pytest.raises(ValueError, match="is a JAX environment"):
        make_gymnasium(lambda: Env())


@pytest.mark.parametrize("env_id", ["Ant-v2", "Ant-v3", "GymV26Environment-v0"])
def test_an_id_that_gymnasium_has_given_up_is_answered_with_its_reason(env_id):
    with pytest.raises(ValueError, match=f"environment '{env_id}': .*(mujoco|shimmy)"):
        find_world(env_id, {}, "auto")


# The old Gym API


def test_an_old_environment_is_adapted_and_the_log_says_so(caplog):
    old_gym._told.clear()
    with caplog.at_level(logging.WARNING, "athlete"):
        env = make_gymnasium(Old)
        for made in (env, make_gymnasium(Old)):
            made.reset()
    assert isinstance(env, OldGymAdapter)
    assert [record.message.startswith("Old follows the old Gym API") for record in caplog.records] == [True]
    assert env.observation_space == gs.Box(0, 1, (2,), np.float64)
    assert env.action_space == gs.Discrete(2)
    obs, info = env.reset(seed=4)
    assert env.env.seeded == 4 and info == {} and obs.tolist() == [0, 0]
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (True, False)  # done
    assert env.step(0)[2:4] == (False, True)  # done, and info says that it was the time limit
    assert env.render() == "drawn as rgb_array"
    env.close()


@pytest.mark.parametrize("env", [Old, HalfMigrated])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_old_environments_run_as_rows(env, num_workers):
    source = GymnasiumSource(env, num_workers=num_workers)
    assert source.reset(KEY).tolist() == [[0, 0]]
    step = source.step(np.array([0]), KEY)
    while not step.terminated[0]:
        step = source.step(np.array([0]), KEY)
    assert step.obs.dtype == np.float32 and step.obs.tolist() == [[1, 1]]
    source.close()


def test_an_old_environment_registered_in_gymnasium_keeps_its_time_limit():
    gymnasium.register("OldCounter-v0", entry_point=Old, max_episode_steps=1)
    env = make_gymnasium("OldCounter-v0")
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, True)


def test_an_object_without_spaces_is_refused():
    class NoSpaces:
        def reset(self): ...
        def step(self, action): ...

    with pytest.raises(ValueError, match="NoSpaces has no observation_space"):
        make_gymnasium(NoSpaces)


# Rows


def test_the_last_observation_is_the_true_one_and_only_done_rows_are_reset(counters):
    obs = counters.reset(KEY)
    assert counts(obs) == [0, 0, 0]
    lengths = [3, 3, 3] if isinstance(counters.vector, ProcessRows) else [3, 4, 5]
    drawn = obs["drawn"].copy()
    for t in range(1, 4):
        step = counters.step(np.array([0, 1, 2]), KEY)
        assert counts(step.obs) == [t, t, t]
        assert step.reward.tolist() == [1, 2, 3] and step.reward.dtype == np.float32  # canonical 0 is the space's 1
        assert step.terminated.tolist() == [t >= length for length in lengths]
        assert not step.truncated.any()
    assert np.array_equal(step.obs["drawn"], drawn)
    mask = np.array([True, False, False])
    fresh = counters.reset_where(mask, step.obs, KEY)
    assert counts(fresh) == [0, 3, 3]
    assert counts(step.obs) == [3, 3, 3]  # not overwritten
    fresh = counters.reset_where(np.array([False, True, True]), fresh, KEY)
    assert counts(counters.step(np.array([0, 0, 0]), KEY).obs) == [1, 1, 1]


def test_rows_that_are_not_done_go_on_where_they_were(counters):
    counters.reset(KEY)
    step = counters.step(np.zeros(3, int), KEY)
    counters.reset_where(np.array([True, False, True]), step.obs, KEY)
    assert counts(counters.step(np.zeros(3, int), KEY).obs) == [1, 2, 1]


def test_a_mask_without_a_row_changes_nothing(counters):
    obs = counters.reset(KEY)
    assert counters.reset_where(np.zeros(3, bool), obs, KEY) is obs


def test_the_spec_has_narrow_dtypes_and_observations_keep_to_it(counters):
    assert counters.rows == 3
    assert counters.spec.action == spaces.Discrete(3, start=1)
    obs = counters.reset(KEY)
    for name, part in counters.spec.obs.items:
        assert obs[name].dtype == part.dtype and obs[name].shape == (3, *part.shape)


def test_termination_and_truncation_stay_apart():
    source = GymnasiumSource(Counter, {"length": 9, "limit": 1})
    source.reset(KEY)
    step = source.step(np.array([0]), KEY)
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([False], [True])
    assert step.terminated.dtype == step.truncated.dtype == bool
    source.close()


def test_the_key_seeds_rows_apart_and_repeatably(counters):
    first = counters.reset(KEY)["drawn"]
    assert len(set(first.tolist())) == 3
    assert counters.reset(KEY)["drawn"].tolist() == first.tolist()
    assert counters.reset(OTHER_KEY)["drawn"].tolist() != first.tolist()


@pytest.mark.parametrize("seeded", [True, False])
def test_later_resets_are_seeded_from_their_key_only_if_asked(seeded):
    source = GymnasiumSource(Counter, num_envs_per_worker=2, seeded_resets=seeded)
    obs = source.reset(KEY)
    draws = [source.reset_where(np.ones(2, bool), obs, OTHER_KEY)["drawn"].tolist() for _ in range(2)]
    assert (draws[0] == draws[1]) == seeded
    source.close()


def test_rows_in_this_process_and_in_workers_see_the_same():
    def play(num_workers):
        source = GymnasiumSource("CartPole-v1", num_workers=num_workers, num_envs_per_worker=2 - num_workers // 2)
        obs, seen = source.reset(KEY), []
        for t in range(60):
            step = source.step(np.array([t % 2, t % 3 == 0]), KEY)
            obs = source.reset_where(step.terminated, step.obs, KEY)
            seen += [step.obs, obs]
        source.close()
        return np.stack(seen)

    assert np.array_equal(play(0), play(2))


def test_box_actions_are_rescaled_and_never_leave_their_bounds():
    class Thrust(gymnasium.Env):
        observation_space = gs.Box(-10, 10, (3,), np.float64)
        action_space = gs.Dict({"arm": gs.Box(np.array([-1.1, 0, 1 / 3]), np.array([0.3, 0.1, 7.7]), dtype=np.float64)})

        def reset(self, *, seed=None, options=None):
            return np.zeros(3), {}

        def step(self, action):
            assert action in self.action_space, action
            return action["arm"], 0.0, False, False, {}

    source = GymnasiumSource(Thrust, num_envs_per_worker=3)
    source.reset(KEY)
    action = np.stack([np.full(3, value, np.float32) for value in (-1, 1, 5)])
    obs = source.step({"arm": action}, KEY).obs
    assert obs == pytest.approx(np.array([[-1.1, 0, 1 / 3], [0.3, 0.1, 7.7], [0.3, 0.1, 7.7]]))
    source.close()


def test_an_instance_serves_one_row_only():
    source = GymnasiumSource(gymnasium.make("CartPole-v1"))
    assert source.reset(KEY).shape == (1, 4)
    source.close()
    with pytest.raises(ValueError, match="one instance, but 2 rows"):
        GymnasiumSource(gymnasium.make("CartPole-v1"), num_envs_per_worker=2)


def test_an_id_that_only_this_process_has_registered_works_in_workers():
    gymnasium.register("CounterHere-v0", entry_point=lambda length=2: Counter(adapter.EnvContext({"length": length})))
    source = GymnasiumSource("CounterHere-v0", {"length": 1}, num_workers=1)
    source.reset(KEY)
    assert source.step(np.array([0]), KEY).terminated.tolist() == [True]
    source.close()


def test_unservable_spaces_are_refused_before_anything_runs():
    class Talks(Counter):
        observation_space = gs.Text(5)

    with pytest.raises(ValueError, match="observation_space is a Text space"):
        GymnasiumSource(Talks)


# Ready-made vector environments


class ResetsAll(SyncVectorEnv):
    """Says that it never resets by itself, and ignores which rows it is asked to reset."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


def counter_rows():
    return [lambda: Counter(adapter.EnvContext({}))] * 2


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_vector_that_resets_by_itself_is_refused(mode):
    with pytest.raises(
        ValueError, match=r"resets rows by itself.*autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED"
    ):
        GymnasiumSource(SyncVectorEnv(counter_rows(), autoreset_mode=mode))


def test_gymnasiums_own_vectorised_cartpole_is_refused():
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point")
    with pytest.raises(ValueError, match="resets rows by itself"):
        GymnasiumSource(vector)


def test_a_vector_that_leaves_resets_to_the_loop_is_accepted():
    source = GymnasiumSource(SyncVectorEnv(counter_rows(), autoreset_mode=AutoresetMode.DISABLED))
    source.reset(KEY)
    step = source.step(np.zeros(2, int), KEY)
    assert counts(source.reset_where(np.array([True, False]), step.obs, KEY)) == [0, 1]
    source.close()


def test_a_vector_that_resets_more_rows_than_asked_is_caught():
    source = GymnasiumSource(ResetsAll(counter_rows(), autoreset_mode=AutoresetMode.DISABLED))
    source.reset(KEY)
    step = source.step(np.zeros(2, int), KEY)
    with pytest.raises(EnvError, match="ignores options\\['reset_mask'\\]"):
        source.reset_where(np.array([True, False]), step.obs, KEY)


# Failures


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_exception_inside_comes_with_its_traceback_row_seed_step_and_action(num_workers):
    source = GymnasiumSource(Counter, {"trouble": {1: 2}, "length": 9}, num_workers=num_workers, num_envs_per_worker=2)
    obs = source.reset(KEY)
    step = source.step(np.array([0, 1]), KEY)
    source.reset_where(np.array([False, True]), step.obs, KEY)
    source.step(np.array([0, 1]), KEY)
    with pytest.raises(EnvError) as caught:
        source.step(np.array([0, 1]), KEY)
    lines = str(caught.value).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "toy_gymnasium.py" in lines[1] and "in step" in lines[1]
    assert "ZeroDivisionError: the 100% track %s is broken" in lines
    assert lines[-1].startswith("This was row 1, seeded with ")
    assert lines[-1].endswith(", 1 episode later, in step 2 of its episode, in step(np.int64(2))")
    assert obs is not None
    source.close()
    source.close()


def test_the_seed_in_the_message_repeats_the_episode():
    source = GymnasiumSource(Counter, {"trouble": {0: 1}})
    drawn = source.reset(KEY)["drawn"][0]
    with pytest.raises(EnvError, match="seeded with") as caught:
        source.step(np.array([0]), KEY)
    seed = int(str(caught.value).split("seeded with ")[1].split(",")[0])
    assert Counter(adapter.EnvContext({})).reset(seed=seed)[0]["drawn"] == drawn
    source.close()


def test_an_exception_while_making_a_row_in_a_worker_comes_with_its_traceback():
    def only_in_the_parent(env_config):
        if env_config["parent"] != os.getpid() and env_config.worker_index == 2:
            raise OSError("no simulator left")
        return Counter(env_config)

    with pytest.raises(EnvError, match=r"(?s)^Traceback.*OSError: no simulator left\nThis was row 1, while"):
        GymnasiumSource(only_in_the_parent, {"parent": os.getpid()}, num_workers=2)


def test_a_worker_process_that_dies_is_named_and_everything_still_closes():
    source = GymnasiumSource(Dies, num_workers=3)
    source.reset(KEY)
    with pytest.raises(EnvError, match=r"worker process 1 died with exit code 3. This was row 1, .* in step 1 of"):
        source.step(np.array([0, 1, 2]), KEY)
    source.close()
    assert not any(process.is_alive() for process in source.vector.processes)


def test_a_worker_process_that_is_killed_between_steps_is_noticed():
    source = GymnasiumSource(Counter, num_workers=2)
    source.reset(KEY)
    source.vector.processes[0].kill()
    with pytest.raises(EnvError, match=r"worker process 0 died with exit code -9"):
        for _ in range(3):
            source.step(np.array([0, 1]), KEY)
    source.close()
    assert not any(process.is_alive() for process in source.vector.processes)


def test_a_source_closes_although_a_worker_died_unnoticed():
    source = GymnasiumSource(Counter, num_workers=2)
    source.vector.processes[0].kill()
    source.vector.processes[0].join()
    source.close()
    assert not source.vector.processes[1].is_alive()


def test_what_cannot_be_sent_to_a_worker_is_said_before_one_starts():
    with pytest.raises(ValueError, match="cannot be sent to workers"):
        GymnasiumSource(Counter, {"handle": sys._getframe()}, num_workers=1)


def test_classes_of_a_script_without_a_main_guard_run_in_workers_that_do_not_import_jax(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import gymnasium, numpy as np
            from athlete.env.adapters.source import GymnasiumSource

            class Tells(gymnasium.Env):
                observation_space, action_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2)
                def reset(self, *, seed=None, options=None):
                    return int("jax" in sys.modules), {}

            assert "jax" in sys.modules
            source = GymnasiumSource(Tells, num_workers=2)
            print(source.reset(np.array([0, 1], np.uint32)).tolist())
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[0, 0]", 0), done.stderr


def test_an_id_of_the_running_script_works_in_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import gymnasium, numpy as np
            from athlete.env.adapters.source import GymnasiumSource

            class Small(gymnasium.Env):
                observation_space, action_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2)
                def reset(self, *, seed=None, options=None):
                    return 1, {}

            gymnasium.register("Small-v0", entry_point="__main__:Small")
            source = GymnasiumSource("Small-v0", num_workers=1, num_envs_per_worker=2)
            print(source.reset(np.array([0, 1], np.uint32)).tolist())
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[1, 1]", 0), done.stderr

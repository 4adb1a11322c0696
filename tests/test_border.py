"""What environments return is converted and checked in every step; errors name row, seed, step and entry."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces as gs
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toy_gymnasium import Fickle, OldStep, Pid, SeedOnly

from athlete.algorithms.ppo import PPOConfig
from athlete.env.adapters import envpool
from athlete.env.adapters.source import GymnasiumSource
from athlete.env.baseline import baseline
from athlete.env.checks.check import check_env
from athlete.env.errors import EnvError
from athlete.env.world import find_world

KEY = np.array([0, 7], np.uint32)
OBS = np.array([0.25, -0.5], np.float32)
NESTED = gs.Dict(
    {"arm": gs.Tuple([gs.Discrete(3, start=1), gs.Box(-1, 1, (2, 2), np.float64)]), "board": gs.Discrete(9)}
)


def answering(obs=OBS, reward=1.0, terminated=False, truncated=False, info=None, *, after=0):
    """Steps of Fickle: these values in all steps after `after`, and sound ones before."""

    def answer(step):
        return (obs, reward, terminated, truncated, {} if info is None else info) if step > after else SOUND

    return answer


SOUND = (OBS, 1.0, False, False, {})


def stepped(answer, rows=1, steps=1, num_workers=0, **config):
    """The last of `steps` steps of a source."""
    source = GymnasiumSource(
        Fickle, {"answer": answer, **config}, num_workers=num_workers, num_envs_per_worker=rows // max(num_workers, 1)
    )
    try:
        source.reset(KEY)
        for _ in range(steps):
            step = source.step(np.zeros(rows, int), KEY)
        return step
    finally:
        source.close()


def ready_made(answer, rows=2):
    makers = [lambda: Fickle({"answer": answer})] * rows
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("flag", [1, np.int64(1), np.True_, np.array(True), np.array([1]), 1.0])
def test_an_end_is_a_bool_whatever_number_says_it(flag, rows):
    step = stepped(answering(terminated=flag, truncated=0), rows)
    assert step.terminated.dtype == step.truncated.dtype == bool
    assert step.terminated.all() and not step.truncated.any()
    assert not (~step.terminated).any()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("reward", [2, 2.0, np.float64(2), np.int8(2), np.array(2.0), np.array([2.0]), [2.0]])
def test_a_reward_is_a_float32_whatever_number_it_is(reward, rows):
    step = stepped(answering(reward=reward), rows)
    assert step.reward.dtype == np.float32 and step.reward.tolist() == [2.0] * rows


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("obs", [OBS.astype(np.float64), OBS.astype(np.float16), OBS.tolist(), tuple(OBS.tolist())])
def test_an_observation_has_the_dtype_of_its_space(obs, rows):
    step = stepped(answering(obs=obs), rows)
    assert step.obs.dtype == np.float32 and step.obs.tolist() == [OBS.tolist()] * rows


def test_whole_numbers_come_in_any_type_that_keeps_them():
    space = gs.Dict({"cell": gs.Discrete(4), "board": gs.Box(0, 255, (2,), np.uint8)})
    obs = {"cell": np.float64(3.0), "board": np.array([0, 255], np.int64), "more": "is passed over"}
    step = stepped(lambda _: (obs, 0.0, False, False, {}), space=space)
    assert step.obs["cell"].tolist() == [3] and step.obs["cell"].dtype == np.int32
    assert step.obs["board"].tolist() == [[0, 255]] and step.obs["board"].dtype == np.uint8


WRONG = [
    ({"obs": np.zeros(3, np.float32)}, "observation has shape (3,); expected (2,)"),
    ({"obs": np.zeros((1, 2), np.float32)}, "observation has shape (1, 2); expected (2,)"),
    ({"obs": 0.0}, "observation has shape (); expected (2,)"),
    ({"obs": None}, "observation is None (NoneType); expected"),
    ({"obs": [[1.0], [1.0, 2.0]]}, "observation is [[1.0], [1.0, 2.0]] (list); expected"),
    ({"obs": np.array(["a", "b"])}, "observation is array(['a', 'b']"),
    ({"obs": np.array([0, np.nan], np.float32)}, "observation[1] is nan; expected a finite number"),
    ({"obs": np.array([-np.inf, 0])}, "observation[0] is -inf; expected a finite number"),
    ({"reward": None}, "the reward is None (NoneType); expected a number"),
    ({"reward": "1"}, "the reward is '1' (str); expected a number"),
    ({"reward": np.ones(2)}, "the reward is array([1., 1.]) (ndarray); expected a number"),
    ({"reward": float("nan")}, "the reward is nan; expected a finite number"),
    ({"reward": 1e300}, "the reward is inf; expected a finite number"),
    ({"terminated": None}, "terminated is None (NoneType); expected a bool"),
    ({"truncated": 2}, "truncated is 2 (int); expected a bool"),
    ({"terminated": np.zeros(2, bool)}, "terminated is array([False, False]) (ndarray); expected a bool"),
    ({"info": [1]}, "info is of type list; expected a dict"),
]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_what_changes_later_is_an_error_that_names_row_seed_step_and_action(wrong, sentence, rows):
    with pytest.raises(EnvError) as caught:
        stepped(answering(**wrong, after=1), rows, steps=2)
    assert sentence in str(caught.value)
    assert "This was row 0, seeded with " in str(caught.value)
    assert str(caught.value).endswith("in step 2 of its episode, in step(np.int64(0))")


def test_the_row_at_fault_is_named_in_workers_too():
    def third(env_config):
        good = answering()
        return Fickle({"answer": answering(reward=np.nan, after=1) if env_config.vector_index == 1 else good})

    for num_workers, rows in ((0, 2), (1, 2)):
        source = GymnasiumSource(third, num_workers=num_workers, num_envs_per_worker=rows)
        source.reset(KEY)
        source.step(np.zeros(2, int), KEY)
        with pytest.raises(EnvError, match=r"^the reward is nan; .* This was row 1, seeded with \d+, in step 2"):
            source.step(np.zeros(2, int), KEY)
        source.close()


@pytest.mark.parametrize(
    ("obs", "sentence"),
    [
        ({"arm": (4, np.zeros((2, 2))), "board": 0}, "observation['arm'][0] is 4, above its highest value 3"),
        ({"arm": (1, np.full((2, 2), np.nan)), "board": 0}, "observation['arm'][1][0][0] is nan"),
        (
            {"arm": (1.5, np.zeros((2, 2))), "board": 0},
            "['arm'][0] is 1.5 (float64), which int32 does not hold",
        ),
        ({"arm": (1,), "board": 0}, "observation['arm'] is (1,) (tuple); expected a tuple of 2 entries"),
        ({"board": 0}, "observation has the keys ['board']; expected a dict with the keys ['arm', 'board']"),
        (OBS, "expected a dict with the keys ['arm', 'board']"),
    ],
)
def test_the_entry_of_a_nested_observation_is_named(obs, sentence):
    sound = {"arm": (1, np.zeros((2, 2))), "board": 8}
    with pytest.raises(EnvError) as caught:
        stepped(lambda step: (obs if step else sound, 0.0, False, False, {}), space=NESTED)
    assert sentence in str(caught.value)


def test_a_reset_is_looked_at_as_well():
    with pytest.raises(EnvError, match=r"observation\[0\] is nan.* row 0, seeded with \d+, in step 0.* in reset"):
        stepped(lambda _: (np.full(2, np.nan, np.float32), 0.0, False, False, {}))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"reward": np.nan}, "the reward is nan; expected a finite number. This was row 0, seeded with"),
        ({"obs": np.array([0, np.inf], np.float32)}, "observation[1] is inf; expected a finite number. This was row 0"),
    ],
)
def test_a_ready_made_vector_is_looked_at_too(wrong, sentence):
    source = GymnasiumSource(ready_made(answering(**wrong)))
    source.reset(KEY)
    with pytest.raises(EnvError) as caught:
        source.step(np.zeros(2, int), KEY)
    assert sentence in str(caught.value) and "in step 1 of its episode" in str(caught.value)
    source.close()


class Numbers(SyncVectorEnv):
    """A vector that gives its flags as whole numbers and its rewards in a column."""

    column = False

    def step(self, actions):
        obs, reward, terminated, truncated, info = super().step(actions)
        return obs, reward[:, None] if self.column else reward, ~terminated * 1, truncated * 1, info


def test_flags_of_a_ready_made_vector_become_bools_and_shapes_are_looked_at():
    source = GymnasiumSource(
        Numbers([lambda: Fickle({"answer": answering()})] * 2, autoreset_mode=AutoresetMode.DISABLED)
    )
    source.reset(KEY)
    step = source.step(np.zeros(2, int), KEY)
    assert step.terminated.dtype == bool and step.terminated.all() and step.reward.dtype == np.float32
    source.vector.vector.column = True
    with pytest.raises(EnvError, match=r"the rewards have shape \(2, 1\); expected \(2,\)"):
        source.step(np.zeros(2, int), KEY)
    source.close()


def test_infos_of_unlike_types_stay_the_rows_own():
    def unlike(env_config):
        value = [3, "three", {"a": [1]}, np.zeros(2), np.zeros(3)][env_config.vector_index]
        return Fickle({"answer": answering(info={"what": value})})

    source = GymnasiumSource(unlike, num_envs_per_worker=5)
    source.reset(KEY)
    infos = source.step(np.zeros(5, int), KEY).info
    assert [type(info["what"]) for info in infos] == [int, str, dict, np.ndarray, np.ndarray]
    source.close()


def test_infos_of_a_ready_made_vector_are_told_apart_by_row():
    told = answering(info={"lives": 3, "deep": {"x": 1.5}})
    makers = [lambda: Fickle({"answer": told}), lambda: Fickle({"answer": answering()})]
    vector = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    source = GymnasiumSource(vector)
    source.reset(KEY)
    infos = source.step(np.zeros(2, int), KEY).info
    assert [dict(info) for info in infos] == [{"lives": 3, "deep": {"x": 1.5}}, {}]
    source.close()


def test_rows_that_show_different_things_are_refused():
    def unequal(env_config):
        return Fickle({"answer": answering(), "space": gs.Box(-1, 1, (2 + env_config.vector_index,), np.float32)})

    with pytest.raises(ValueError, match=r"row 1 has the observation_space Box.*\(3,\).*first row.*\(2,\)"):
        GymnasiumSource(unequal, num_envs_per_worker=2)


def test_an_environment_may_write_into_its_action_and_its_observation():
    class Writes(gymnasium.Env):
        observation_space, action_space = gs.Box(-9, 9, (2,), np.float32), gs.MultiBinary(2)

        def reset(self, *, seed=None, options=None):
            self.obs = np.zeros(2, np.float32)
            return self.obs, {}

        def step(self, action):
            action += 1
            self.obs += 1
            return self.obs, 0.0, False, False, {}

    source = GymnasiumSource(Writes)
    source.reset(KEY)
    action = np.zeros((1, 2), np.int8)
    seen = [source.step(action, KEY).obs for _ in range(2)]
    assert action.tolist() == [[0, 0]] and [obs.tolist() for obs in seen] == [[[1, 1]], [[2, 2]]]
    source.close()


@pytest.mark.parametrize(("num_workers", "size"), [(2, 3), (1, 4), (3, 1)])
def test_each_worker_process_has_rows_of_its_own(num_workers, size):
    source = GymnasiumSource(Pid, num_workers=num_workers, num_envs_per_worker=size)
    pids = source.reset(KEY)[:, 0].tolist()
    assert len(pids) == num_workers * size
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [size] * num_workers
    source.close()


class FakePool:
    """Two rows of EnvPool's interface: `answers` are the observation, reward and flags of each step."""

    gymnasium_observation_space, gymnasium_action_space = gs.Box(-9, 9, (2,), np.float64), gs.Discrete(2)

    def __init__(self, answers=()):
        self.answers = iter(answers)

    def list_all_envs(self):
        return ["Fake-v0"]

    def make_spec(self, name):
        return self

    def make(self, name, **settings):
        return self

    def reset(self, rows=(0, 1)):
        return np.zeros((len(rows), 2)), {"env_id": np.asarray(rows)}

    def step(self, actions):
        return (*next(self.answers), {"elapsed_step": np.array([1, 2])})

    def close(self):
        pass


def test_an_envpool_is_looked_at_too(monkeypatch):
    sound = np.ones((2, 2)), np.zeros(2, np.float64), np.array([1, 0]), np.array([1, 0])
    broken = np.array([[1, 1], [1, np.nan]]), *sound[1:]
    pool = FakePool([sound, broken, (np.ones((2, 3)), *sound[1:])])
    monkeypatch.setattr(envpool, "require_envpool", lambda: pool)
    source = envpool.EnvPoolSource("Fake-v0", rows=2)
    source.reset(KEY)
    step = source.step(np.zeros(2, int), KEY)
    assert (step.obs.dtype, step.reward.dtype, step.terminated.dtype) == (np.float32, np.float32, bool)
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([True, False], [False, False])
    assert [info["elapsed_step"] for info in step.info] == [1, 2]
    fresh = source.reset_where(step.terminated, step.obs, KEY)
    assert fresh.tolist() == [[0, 0], [1, 1]] and step.obs.tolist() == [[1, 1], [1, 1]]
    with pytest.raises(EnvError, match=r"observation\[1\] is nan; .* row 1, seeded with \d+, in step 2 of its episode"):
        source.step(np.zeros(2, int), KEY)
    with pytest.raises(EnvError, match=r"EnvPool's 'Fake-v0' returned what does not fit in step.*has shape \(2, 3\)"):
        source.step(np.zeros(2, int), KEY)
    source.close()


# What environments of their own kind are ------------------------------------------------------------------------------


class Mission(gs.Space):
    """As MiniGrid's MissionSpace: a space of its own kind, of texts."""

    def sample(self, mask=None, probability=None):
        return "go to the goal"

    def contains(self, x):
        return isinstance(x, str)


class Grid(gymnasium.Env):
    observation_space = gs.Dict({"image": gs.Box(0, 255, (7, 7, 3), np.uint8), "mission": Mission(), "say": gs.Text(9)})
    action_space = gs.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"image": np.zeros((7, 7, 3), np.uint8), "mission": "go to the goal", "say": "hm"}, {}

    def step(self, action):
        return {"image": np.full((7, 7, 3), 9, np.uint8), "mission": "go", "say": "hm"}, 1.0, True, False, {}


def test_texts_among_the_entries_of_an_observation_are_left_out_with_a_line(caplog):
    config = PPOConfig().environment(Grid).rollouts(num_envs_per_worker=2)
    config.training(train_batch_size=16, minibatch_size=16, num_epochs=1, model={"fcnet_hiddens": [4]})
    with caplog.at_level("INFO", "athlete"), config.build() as algorithm:
        assert algorithm.train()["episode_reward_mean"] == 1.0
        assert algorithm.compute_single_action(Grid().reset()[0]) in range(3)
    lines = sorted(record.getMessage() for record in caplog.records if "left out" in record.getMessage())
    assert lines == [
        "Grid: observation['mission'] is a Mission without a fixed shape; it is left out",
        "Grid: observation['say'] is a Text without a fixed shape; it is left out",
    ]


def test_a_space_of_its_own_kind_is_refused_by_its_name_where_nothing_else_is_there():
    class Talks(Grid):
        observation_space = Mission()

    with pytest.raises(ValueError, match="observation_space is a Mission space, which has no fixed shape; agents take"):
        GymnasiumSource(Talks)


def test_subclasses_of_gymnasiums_spaces_are_what_they_inherit_from():
    class Angles(gs.Box):
        def __init__(self):
            super().__init__(-np.pi, np.pi, (2,), np.float32)

    class Turns(gs.Discrete):
        def __init__(self):
            super().__init__(2)

    class Turning(Fickle):
        observation_space, action_space = Angles(), Turns()

    source = GymnasiumSource(Turning, {"answer": answering()}, num_workers=1, num_envs_per_worker=2)
    source.reset(KEY)
    assert source.step(np.zeros(2, int), KEY).obs.tolist() == [OBS.tolist()] * 2
    source.close()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("by_id", [False, True])
def test_a_reset_that_takes_a_seed_only_trains(num_workers, rows, by_id):
    if by_id:
        gymnasium.register("SeedOnly-v0", entry_point=SeedOnly)
    check_env("SeedOnly-v0" if by_id else SeedOnly)
    source = GymnasiumSource("SeedOnly-v0" if by_id else SeedOnly, num_workers=num_workers, num_envs_per_worker=rows)
    drawn = source.reset(KEY)
    assert np.array_equal(source.reset(KEY), drawn) and len(np.unique(drawn)) == rows
    source.close()


def test_a_new_reset_beside_an_old_step_is_taken_and_the_check_says_what_is_true():
    with pytest.raises(ValueError, match=r"returned 4 values.*This is the old Gym API.*training does so by itself"):
        check_env(OldStep)
    check_env(OldStep, adapt=True)
    for num_workers, rows in ((0, 1), (0, 2), (1, 2)):
        source = GymnasiumSource(OldStep, num_workers=num_workers, num_envs_per_worker=rows)
        source.reset(KEY)
        step = source.step(np.zeros(rows, int), KEY)
        assert (step.terminated.tolist(), step.truncated.tolist()) == ([False] * rows, [True] * rows)
        source.close()
    config = PPOConfig().environment(OldStep).rollouts(num_envs_per_worker=1)
    config.training(train_batch_size=16, minibatch_size=16, num_epochs=1, model={"fcnet_hiddens": [4]})
    with config.build() as algorithm:
        assert algorithm.train()["episode_len_mean"] == 1
    assert baseline(OldStep, episodes=3).episode_len_mean == 1
    film = find_world(DrawnOldStep, {}, "auto").make_for_film()
    film.reset(seed=1)
    assert film.step(0)[2:4] == (False, True) and film.render().shape == (4, 4, 3)


class DrawnOldStep(OldStep):
    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def render(self):
        return np.zeros((4, 4, 3), np.uint8)

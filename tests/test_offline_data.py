"""Recorded data: what is read from each format, what follows from the columns, and what is refused with which words."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from athlete.core import Spec
from athlete.offline.columns import columns_of, from_columns
from athlete.offline.dataset import DataError, DataSet, joined, spaces_of
from athlete.offline.files import read_data, write_data
from athlete.offline.report import histogram, report
from athlete.offline.rllib_json import ArraysOnly
from athlete.spaces import Box, Dict, Discrete

REWARDS = [1.0, 2.0, 3.0, 4.0, 5.0]


def columns(**changes):
    """Two episodes: steps 0 to 2, which terminate, and steps 3 and 4, which are cut."""
    given = {
        "obs": np.arange(10, dtype=np.float32).reshape(5, 2),
        "new_obs": np.arange(10, dtype=np.float32).reshape(5, 2) + 100,
        "actions": np.array([0, 1, 0, 1, 1]),
        "rewards": np.array(REWARDS),
        "terminateds": np.array([False, False, True, False, False]),
        "truncateds": np.array([False, False, False, False, True]),
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


def data_of(**changes):
    return from_columns(columns(**changes), "the data")


def assert_same(one: DataSet, other: DataSet):
    for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated", "log_prob"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.tobytes() == b.tobytes(), name


# Columns --------------------------------------------------------------------------------------------------------------


def test_episodes_returns_and_lengths():
    data = data_of()
    assert len(data) == 5
    assert data.first.tolist() == [True, False, False, True, False]
    assert data.lengths.tolist() == [3, 2]
    assert data.returns.tolist() == [6.0, 9.0]
    assert data.episodes([1]).reward.tolist() == [4.0, 5.0]


def test_the_names_of_d4rl_mean_the_same():
    given = {
        "observations": columns()["obs"],
        "next_observations": columns()["new_obs"],
        "actions": columns()["actions"],
        "rewards": columns()["rewards"],
        "terminals": columns()["terminateds"],
        "timeouts": columns()["truncateds"],
    }
    assert_same(read_data(given), data_of())


def test_without_new_obs_it_is_the_next_step_and_a_cut_episode_ends_one_step_earlier():
    data = data_of(new_obs=None)
    assert data.reward.tolist() == [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_array_equal(data.next_obs[:2], columns()["obs"][1:3])
    np.testing.assert_array_equal(data.next_obs[3], columns()["obs"][4])
    assert data.terminated.tolist() == [False, False, True, False]
    assert data.truncated.tolist() == [False, False, False, True]


def test_what_the_recording_broke_off_is_cut():
    data = data_of(truncateds=None)
    assert data.truncated.tolist() == [False] * 4 + [True]


def test_another_episode_cuts_the_one_before():
    data = data_of(truncateds=None, eps_id=np.array([7, 7, 7, 8, 9]))
    assert data.truncated.tolist() == [False, False, False, True, True]
    assert data.first.tolist() == [True, False, False, True, True]
    assert data.terminated.tolist() == [False, False, True, False, False]


def test_dones_after_the_time_limit_are_cut_and_others_terminated():
    dones = {"terminateds": None, "truncateds": None, "dones": np.array([False, False, True, False, True])}
    data = from_columns(columns(**dones), "x", max_episode_steps=3)
    assert (data.terminated.tolist(), data.truncated.tolist()) == (
        [False] * 4 + [True],
        [False, False, True, False, False],
    )


def test_dones_of_episodes_of_one_length_are_doubted(caplog):
    dones = np.tile([False, True], 3)
    given = {"obs": np.zeros((6, 1)), "actions": np.zeros(6, int), "rewards": np.zeros(6), "dones": dones}
    from_columns(given | {"new_obs": np.zeros((6, 1))}, "walker.json")
    (record,) = caplog.records
    assert record.getMessage() == (
        "walker.json: all of its 3 episodes have 2 steps and are told as dones alone, which look terminated: if a time "
        "limit cut them, say input_config={'max_episode_steps': 2}"
    )


def test_probabilities_are_kept_as_logarithms():
    data = data_of(action_prob=np.array([1.0, 0.5, 0.25, 1.0, 1.0]))
    np.testing.assert_allclose(data.log_prob, np.log([1.0, 0.5, 0.25, 1.0, 1.0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rewards": None}, "the data has no column 'rewards'; it has obs, new_obs, actions, terminateds, truncateds"),
        ({"rewards": np.ones(4)}, "the data: obs has 5 rows, and rewards has 4: the file is cut or mixed"),
        ({"rewards": np.array([0, 1, np.nan, 0, 0])}, "the data, row 2: rewards holds NaN or infinity"),
        ({"obs": np.full((5, 2), np.inf)}, "the data, row 0: obs holds NaN or infinity"),
        (
            {"terminateds": None, "truncateds": None},
            "the data does not tell where episodes end: it has neither terminateds and truncateds, dones nor eps_id",
        ),
        ({"action_prob": np.array([1, 1, 0, 1, 1])}, "the data, row 2: action_prob is 0.0, and what was done has a"),
        ({"obs": [[1.0], [1.0, 2.0], [3.0], [4.0], [5.0]]}, "the data: obs is no column of numbers, all of one shape"),
        ({"obs": np.array(["a"] * 5)}, "the data: obs is no column of numbers"),
        ({"rewards": 3.0}, "the data: rewards is one number, and a column has a row for each step"),
        ({name: value[:0] for name, value in columns().items()}, "the data holds no step"),
    ],
)
def test_what_is_wrong_with_columns_is_told(changes, told):
    with pytest.raises(DataError) as raised:
        data_of(**changes)
    assert str(raised.value).startswith(told)


def test_episodes_that_never_end_are_told_and_taken_for_cut(caplog):
    data = data_of(terminateds=np.zeros(5, bool), truncateds=np.zeros(5, bool))
    assert data.truncated.tolist() == [False] * 4 + [True]
    assert caplog.messages == ["the data: no episode ends in its 5 steps; the last one is taken for cut"]


# What is learned from ------------------------------------------------------------------------------------------------


def test_transitions_are_one_row_in_canonical_actions():
    spec = Spec(Box(-np.inf, np.inf, (2,)), Box(-2.0, 4.0, (1,)))
    data = data_of(actions=np.array([[-2.0], [1.0], [4.0], [1.0], [1.0]]))
    steps = data.transitions(spec)
    assert steps.action[:, 0, 0].tolist() == [-1.0, 0.0, 1.0, 0.0, 0.0]
    assert steps.reward.shape == (5, 1) and steps.obs.shape == (5, 1, 2)
    assert steps.first[:, 0].tolist() == [True, False, False, True, False]
    assert (steps.carry, steps.extras) == ((), {})


def test_actions_that_are_normalised_already_stay():
    spec = Spec(Box(-np.inf, np.inf, (2,)), Box(-2.0, 4.0, (1,)))
    given = columns(actions=np.array([[-1.0], [0.5], [1.0], [0.0], [0.0]]))
    assert read_data(given, normalized=True).transitions(spec).action[1, 0, 0] == 0.5
    with pytest.raises(DataError, match=r"row 2: actions is \[3.\], outside of Box.*, and they are said to be normal"):
        read_data(columns(actions=np.array([[0.0], [0.0], [3.0], [0.0], [0.0]])), normalized=True).transitions(spec)


def test_actions_that_look_normalised_are_doubted(caplog):
    spec = Spec(Box(-np.inf, np.inf, (2,)), Box(-2.0, 2.0, (1,)))
    data_of(actions=np.array([[-1.0], [0.5], [1.0], [0.0], [0.0]])).transitions(spec)
    (told,) = caplog.messages
    assert told.startswith(
        "the data: actions go from -1 to 1 alone, and the space is Box(-2.0, 2.0, (1,), float32): if"
    )
    data_of(actions=np.array([[-1.0], [0.5], [1.5], [0.0], [0.0]])).transitions(spec)
    data_of(actions=np.full((5, 1), 0.2)).transitions(spec)
    assert len(caplog.messages) == 1


def test_discrete_actions_are_counted_from_0():
    spec = Spec(Box(-np.inf, np.inf, (2,)), Discrete(2, start=5))
    assert data_of(actions=np.array([5, 6, 5, 6, 6])).transitions(spec).action[:, 0].tolist() == [0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "spec", "told"),
    [
        ({"actions": np.array([0, 1, 2, 0, 0])}, Discrete(2), "the data, row 2: actions is 2, outside of Discrete("),
        ({"actions": np.zeros((5, 1))}, Discrete(2), "the data: actions has shape [1], and the space Discrete("),
        ({"actions": np.zeros(5)}, Discrete(2), "the data: actions is of type float32, and the space Discrete("),
        ({"actions": np.full((5, 1), 9.0)}, Box(-2, 2, (1,)), "the data, row 0: actions is [9.], outside of Box(-2.0"),
        ({"obs": np.zeros((5, 3))}, Discrete(2), "the data: obs has shape [3], and the space Box("),
    ],
)
def test_what_does_not_fit_the_spaces_is_told(changes, spec, told):
    with pytest.raises(DataError) as raised:
        data_of(**changes).transitions(Spec(Box(-np.inf, np.inf, (2,)), spec))
    assert str(raised.value).startswith(told)


def test_returns_to_go_stop_with_the_episode_and_go_on_where_it_was_cut():
    total, counts = data_of().returns_to_go(0.5)
    assert total.tolist() == [1 + 0.5 * 2 + 0.25 * 3, 2 + 0.5 * 3, 3, 4 + 0.5 * 5, 5]
    assert counts.tolist() == [0, 0, 0, 0.25, 0.5]


def test_steps_that_lead_to_the_end_of_their_episode():
    data = data_of()
    steps = data.transitions(spaces_of(data))
    shown = data.to_ends(steps, 0.5)
    assert shown.reward[:, 0].tolist() == data.returns_to_go(0.5)[0].tolist()
    assert shown.next_obs[:, 0, 0].tolist() == [104, 104, 104, 108, 108]
    assert shown.extras["discount"][:, 0].tolist() == [0, 0, 0, 0.25, 0.5]
    assert shown.obs is steps.obs


def test_spaces_are_those_that_arrays_look_like():
    assert spaces_of(data_of()) == Spec(Box(-np.inf, np.inf, (2,)), Discrete(2))
    floats = data_of(obs=np.zeros((5, 4, 4, 1), np.uint8), actions=np.full((5, 3), 0.5))
    assert spaces_of(floats) == Spec(Box(0, 255, (4, 4, 1), np.uint8), Box(-1.0, 1.0, (3,)))
    with pytest.raises(DataError, match=r"actions go from 2\.0 to 2\.0: give an environment"):
        spaces_of(data_of(actions=np.full((5, 3), 2.0)))


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".json"])
def test_every_bit_comes_back(ending, tmp_path):
    random = np.random.default_rng(0)
    data = data_of(
        obs=random.normal(size=(5, 2)),
        new_obs=random.normal(size=(5, 2)),
        rewards=random.normal(size=5),
        action_logp=random.normal(size=5),
    )
    path = write_data(data, tmp_path / f"data{ending}")
    assert_same(read_data(path), data)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_our_own_file_keeps_trees_and_spaces(tmp_path):
    obs_space = Dict({"where": Box(-np.inf, np.inf, (2,)), "what": Discrete(4)})
    obs = {"where": columns()["obs"], "what": np.arange(5) % 4}
    data = from_columns(
        columns(obs=obs, new_obs=obs), "x", observation_space=obs_space, action_space=Discrete(2, start=0)
    )
    read = read_data(write_data(data, tmp_path / "data.safetensors"))
    assert (read.observation_space, read.action_space) == (obs_space, Discrete(2))
    np.testing.assert_array_equal(read.obs["what"], data.obs["what"])
    with pytest.raises(DataError, match=r"observations of several entries have no column; write them as \.safetensors"):
        write_data(data, tmp_path / "data.json")


def packed(array, compress=lambda raw: raw):
    return base64.b64encode(compress(pickle.dumps(array))).decode()


def rllib_line(**changes):
    given = {name: value.tolist() for name, value in columns().items()} | changes
    return json.dumps({"type": "SampleBatch", **given})


def test_rllibs_files_plain_packed_zipped_and_of_one_policy(tmp_path):
    plain = rllib_line()
    both = rllib_line(obs=packed(columns()["obs"]), new_obs=packed(columns()["new_obs"]))
    nested = json.dumps(
        {"type": "MultiAgentBatch", "count": 5, "policy_batches": {"default_policy": json.loads(plain)}}
    )
    for number, line in enumerate((plain, both, nested)):
        (tmp_path / f"{number}.json").write_text(line + "\n" + line)
        assert_same(read_data(tmp_path / f"{number}.json"), joined([data_of(), data_of()]))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("output.json", plain)
    assert_same(read_data(tmp_path / "all.zip"), data_of())


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
def test_pickles_of_arrays_are_read_whatever_wrote_them(protocol, core):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    raw = pickle.dumps(array, protocol=protocol).replace(b"numpy._core", core.encode())
    if protocol >= 4 and core == "numpy.core":
        pytest.skip("its strings carry their length, and old NumPy wrote protocol 2 and 3")
    np.testing.assert_array_equal(ArraysOnly(io.BytesIO(raw)).load(), array)


class Dangerous:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("content", [Dangerous(), [Dangerous()], os.system, {"a": 1}])
def test_a_pickle_that_is_more_than_an_array_is_refused_and_not_run(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text(rllib_line(obs=packed(content)))
    with pytest.raises(DataError, match=r"x\.json, line 1, row 0: obs holds a pickle (that is more than|of dict, and)"):
        read_data(tmp_path / "x.json")
    assert not (tmp_path / "executed").exists()


def test_folders_patterns_and_lists_are_read_in_the_order_of_names(tmp_path):
    for name, reward in (("b", 2.0), ("a", 1.0)):
        write_data(data_of(rewards=np.full(5, reward)), tmp_path / f"{name}.safetensors")
    for source in (tmp_path, str(tmp_path / "*.safetensors"), [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]):
        assert read_data(source).reward.tolist() == [1.0] * 5 + [2.0] * 5
    assert read_data(tmp_path).place(7) == f"{tmp_path / 'b.safetensors'}, row 2"


def spoiled(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.safetensors", b"nothing", "is cut or damaged: it is no safetensors file"),
        ("x.npz", b"nothing", "is cut or damaged, or holds more than arrays"),
        ("x.json", b"{", ", line 1, row 0: the line is cut or no JSON"),
        ("x.json", b"[1]", ", line 1, row 0: expected a sample batch, got list"),
        ("x.json", b"\n", " holds no batch"),
        ("x.zip", b"nothing", " is cut or damaged: it is no zip file"),
        ("x.txt", b"", ": data are read as .safetensors, .npz, .json, .jsonl, .zip"),
        ("x.json", (rllib_line() + "\n" + rllib_line(eps_id=[1] * 5)).encode(), ", line 2, row 5: the columns are act"),
        ("x.json", rllib_line(obs="no base64!").encode(), ", line 1, row 0: obs is a text that is no packed array"),
        (
            "x.json",
            json.dumps({"type": "MultiAgentBatch", "policy_batches": {"a": {}, "b": {}}}).encode(),
            ", line 1, row 0: a batch of several policies; data of one agent are learned from",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told(name, content, told, tmp_path):
    path = spoiled(tmp_path / name, content)
    with pytest.raises(DataError) as raised:
        read_data(path)
    assert str(raised.value).startswith(f"{path}{told if told.startswith((',', ':', ' ')) else f' {told}'}")


def test_files_that_are_missing_are_told(tmp_path):
    with pytest.raises(DataError, match=r"x\.json: there is no such file or folder"):
        read_data(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"\*\.json: no file fits this pattern"):
        read_data(str(tmp_path / "*.json"))
    with pytest.raises(DataError, match="the folder holds no file of data"):
        read_data(tmp_path)
    with pytest.raises(DataError, match="there is no file in the list of data"):
        read_data([])


def test_files_too_large_for_memory_are_not_read(tmp_path, monkeypatch):
    data = joined([data_of()] * 200)
    paths = [write_data(data, tmp_path / f"{name}.npz") for name in "ab"]
    with zipfile.ZipFile(paths[0]) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    assert size > paths[0].stat().st_size, "what is packed is larger in memory"
    told = (
        rf"{tmp_path}: [\d.]+ kB are read, 2 times as much is needed, and this machine has [\d.]+ kB available; "
        r"say input_config=\{'capacity': STEPS\} to have so many there at a time"
    )
    monkeypatch.setattr("athlete.offline.files.available_bytes", lambda: int(4 * size / 0.9) + 1)
    assert len(read_data(tmp_path)) == 2000
    monkeypatch.setattr("athlete.offline.files.available_bytes", lambda: int(4 * size / 0.9) - 1)
    assert len(read_data(paths[0])) == 1000, "one alone fits"
    with pytest.raises(DataError, match=told):
        read_data(tmp_path)
    with pytest.raises(DataError, match=r"a\.npz and 1 more: .*; make input_config=\{'capacity': \.\.\.\} smaller, or"):
        read_data(paths, {"capacity": 9})


def test_files_of_different_environments_are_not_mixed(tmp_path):
    write_data(data_of(), tmp_path / "a.safetensors")
    write_data(data_of(obs=np.zeros((5, 3)), new_obs=np.zeros((5, 3))), tmp_path / "b.safetensors")
    with pytest.raises(DataError, match=r"b\.safetensors has the observation space Box.*different environments"):
        read_data(tmp_path)
    with pytest.raises(DataError, match=r"the data has obs of float32\[3\], and the data has float32\[2\]"):
        joined([data_of(), data_of(obs=np.zeros((5, 3)))])


def test_a_safetensors_file_of_something_else_is_refused(tmp_path):
    from athlete.record.arrays import save_arrays

    save_arrays(tmp_path / "x.safetensors", {"a": np.zeros(2)})
    with pytest.raises(DataError, match=r"is no data set of Athlete: its header does not say 'athlete data'"):
        read_data(tmp_path / "x.safetensors")


# Looking at them -----------------------------------------------------------------------------------------------------


def test_the_report_tells_sizes_endings_and_returns():
    lines = report(data_of()).splitlines()
    told = dict(line.split("  ", 1) for line in lines[:9] if "  " in line)
    assert told["steps"].strip() == "5 from 1 files"
    assert told["episodes"].strip() == "2: 1 terminated, 1 cut"
    assert told["returns"].strip() == "mean 7.5, from 6 to 9, median 7.5"


def test_the_histogram_counts_each_episode_once():
    lines = histogram(np.array([0.0, 0.0, 0.5, 10.0]))
    assert [int(line.split()[-1]) for line in lines] == [3, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert lines[0].count("#") == 40 and lines[-1].count("#") == 14


def test_columns_are_those_of_rllib():
    found = columns_of(data_of())
    assert found["eps_id"].tolist() == [0, 0, 0, 1, 1]
    assert found["t"].tolist() == [0, 1, 2, 0, 1]
    assert found["dones"].tolist() == [False, False, True, False, True]

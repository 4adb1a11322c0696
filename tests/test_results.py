"""The record of a trial on disk: JSON lines, CSV, TensorBoard events."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athlete.record import results, tensorboard
from athlete.record.results import ResultWriter, cut_results, flatten, from_json, read_params, read_results, to_json


def record(folder: Path, rows: list[dict]) -> None:
    writer = ResultWriter(folder)
    for row in rows:
        writer.write(row, flatten(row))
    writer.close()


def test_flatten_joins_keys_with_slashes() -> None:
    nested = {"a": 1, "info": {"learner": {"loss": 0.5}, "empty": {}}, "list": [1, 2]}
    assert flatten(nested) == {"a": 1, "info/learner/loss": 0.5, "list": [1, 2]}


@pytest.mark.parametrize("value", [math.nan, np.float32("nan"), np.float64("nan")])
def test_nan_is_null_in_the_file_and_nan_when_read(value: float) -> None:
    text = to_json({"reward": value, "deep": {"also": [value]}})
    assert json.loads(text, parse_constant=pytest.fail) == {"reward": None, "deep": {"also": [None]}}
    assert math.isnan(from_json(text)["reward"])


def test_infinities_survive_the_round_trip_as_words() -> None:
    text = to_json({"up": math.inf, "down": -math.inf})
    assert json.loads(text, parse_constant=pytest.fail) == {"up": "Infinity", "down": "-Infinity"}
    assert from_json(text) == {"up": math.inf, "down": -math.inf}


def test_what_json_has_no_word_for_is_described() -> None:
    described = json.loads(to_json({"n": np.int64(3), "a": np.arange(2.0), "c": Path, "p": Path("x"), 1: (1, 2)}))
    assert described == {"n": 3, "a": [0.0, 1.0], "c": f"{Path.__module__}.Path", "p": "x", "1": [1, 2]}


TEXT = st.text().filter(lambda text: text not in ("Infinity", "-Infinity"))
JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(), JSON_VALUES))
def test_results_come_back_from_json_as_they_were(result: dict) -> None:
    assert from_json(to_json(result)) == result


def test_params_keep_none_and_infinity(tmp_path: Path) -> None:
    results.write_params(tmp_path, {"lr": 1e-3, "env": Path, "seed": None, "vf_clip_param": math.inf})
    assert read_params(tmp_path) == {
        "lr": 1e-3,
        "env": f"{Path.__module__}.Path",
        "seed": None,
        "vf_clip_param": math.inf,
    }


def test_csv_gains_columns_when_evaluation_begins(tmp_path: Path) -> None:
    record(tmp_path, [{"training_iteration": 1, "reward": 1.0, "note": 'a "b", c', "many": [1, 2]}])
    record(tmp_path, [{"training_iteration": 2, "reward": math.nan, "evaluation": {"reward": 5.0}}])
    record(tmp_path, [{"training_iteration": 3, "reward": 3.0, "note": "d"}])
    frame = pandas.read_csv(tmp_path / "progress.csv")
    assert list(frame) == ["training_iteration", "reward", "note", "evaluation/reward"]
    assert frame["training_iteration"].tolist() == [1, 2, 3]
    assert frame["note"].fillna("").tolist() == ['a "b", c', "", "d"]
    assert frame["evaluation/reward"].fillna(-1).tolist() == [-1, 5.0, -1]
    assert frame["reward"].isna().tolist() == [False, True, False]


def test_new_columns_within_one_run_do_not_lose_rows(tmp_path: Path) -> None:
    writer = ResultWriter(tmp_path)
    for i in range(1, 6):
        row = {"training_iteration": i} | ({f"late_{i}": i} if i > 2 else {})
        writer.write(row, row)
        writer.flush()
    writer.close()
    frame = pandas.read_csv(tmp_path / "progress.csv")
    assert frame["training_iteration"].tolist() == [1, 2, 3, 4, 5]
    assert frame["late_4"].dropna().tolist() == [4]


def test_results_written_fast_are_all_there_after_a_flush(tmp_path: Path) -> None:
    writer = ResultWriter(tmp_path)
    rows = [{"training_iteration": i, "reward": i / 7} for i in range(1, 101)]
    for row in rows:
        writer.write(row, row)
    writer.flush()
    assert read_results(tmp_path) == rows
    writer.close()


def test_cutting_forgets_what_came_after_the_checkpoint_and_half_lines(tmp_path: Path) -> None:
    rows = [{"training_iteration": i, "reward": 1.0 * i} for i in range(1, 8)]
    record(tmp_path, rows)
    with (tmp_path / "result.json").open("a") as file:
        file.write('{"training_iteration": 8, "rew')
    assert cut_results(tmp_path, 4) == rows[3]
    record(tmp_path, rows[4:6])
    assert read_results(tmp_path) == rows[:6]
    assert pandas.read_csv(tmp_path / "progress.csv")["training_iteration"].tolist() == [1, 2, 3, 4, 5, 6]


def test_cutting_everything_or_nothing(tmp_path: Path) -> None:
    assert cut_results(tmp_path, 3) == {}
    record(tmp_path, [{"training_iteration": 1}])
    assert cut_results(tmp_path, 0) == {}
    assert read_results(tmp_path) == [] and not (tmp_path / "progress.csv").exists()


def test_writing_beside_leaves_no_other_file(tmp_path: Path) -> None:
    results.write_beside(tmp_path / "state.json", "one")
    results.write_beside(tmp_path / "state.json", "two")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("state.json", "two")]


# TensorBoard


def test_tags() -> None:
    assert tensorboard.tag("episode_reward_mean") == "train/episode_reward_mean"
    assert tensorboard.tag("evaluation/episode_reward_mean") == "evaluation/episode_reward_mean"
    assert tensorboard.tag("info/learner/default_policy/learner_stats/entropy") == "learner/entropy"
    assert tensorboard.tag("info/learner/default_policy/entropy") == "learner/entropy"
    assert tensorboard.tag("info/learner/wolf/learner_stats/entropy") == "learner/wolf/entropy"
    assert tensorboard.tag("timers/learn_time_ms") == "timers/learn_time_ms"
    assert tensorboard.tag("pid") is None


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_training_and_evaluation(tmp_path: Path) -> None:
    writer = tensorboard.EventWriter(tmp_path)
    for i in range(1, 5):
        flat = {"training_iteration": i, "timesteps_total": 100 * i, "episode_reward_mean": float(i), "date": "today"}
        writer.write(flat | ({"evaluation/episode_reward_mean": 10.0 * i} if i % 2 == 0 else {}))
    writer.close()
    assert read_events(tmp_path) == {
        "train/episode_reward_mean": [(100, 1.0), (200, 2.0), (300, 3.0), (400, 4.0)],
        "evaluation/episode_reward_mean": [(200, 20.0), (400, 40.0)],
    }


def test_tensorboard_takes_values_that_change_their_kind_or_leave_float32(tmp_path: Path) -> None:
    writer = tensorboard.EventWriter(tmp_path)
    for i, value in enumerate([1.0, None, 1e300, np.float32(2.0), "word", 3], start=1):
        writer.write({"training_iteration": i, "loss": value})
    writer.close()
    assert read_events(tmp_path)["train/loss"] == [(1, 1.0), (3, math.inf), (4, 2.0), (6, 3.0)]


def test_tensorboard_hides_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    first = tensorboard.EventWriter(tmp_path)
    for i in range(1, 6):
        first.write({"training_iteration": i, "loss": 1.0})
    first.close()
    second = tensorboard.EventWriter(tmp_path, purge_step=4)
    for i in range(4, 7):
        second.write({"training_iteration": i, "loss": 2.0})
    second.close()
    losses = [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]
    assert read_events(tmp_path)["train/loss"] == losses

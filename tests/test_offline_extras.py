"""Data in the formats of other libraries: pandas, CSV, Parquet, Minari, lz4. Skipped where these are not installed."""

from __future__ import annotations

import base64
import json
import pickle

import numpy as np
import pytest
from test_offline_data import assert_same, columns, data_of

from athlete.algorithms.bc import BCConfig
from athlete.offline.dataset import DataError
from athlete.offline.files import read_data, write_data

NUMBERED = {
    "obs_0": [0.0, 2.0, 4.0, 6.0, 8.0],
    "obs_1": [1.0, 3.0, 5.0, 7.0, 9.0],
    "new_obs_0": [100.0, 102.0, 104.0, 106.0, 108.0],
    "new_obs_1": [101.0, 103.0, 105.0, 107.0, 109.0],
    **{name: columns()[name] for name in ("actions", "rewards", "terminateds", "truncateds")},
}


@pytest.mark.parametrize("numbered", [False, True], ids=["arrays in rows", "numbered columns"])
def test_a_frame_is_a_row_for_each_step(numbered):
    import pandas

    arrays = {name: list(column) for name, column in columns().items()}
    frame = pandas.DataFrame(NUMBERED if numbered else arrays)
    assert_same(read_data(frame), data_of())
    config = BCConfig().offline_data(input_=frame)
    assert_same(config.input_, data_of())


def test_a_frame_whose_rows_differ_is_told():
    import pandas

    arrays = {name: list(column) for name, column in columns().items()}
    arrays["obs"] = [[1.0], [1.0, 2.0], [1.0], [1.0], [1.0]]
    with pytest.raises(DataError, match="the data: obs has rows of unlike shapes"):
        read_data(pandas.DataFrame(arrays))


def test_csv_has_numbered_columns(tmp_path):
    import pandas

    pandas.DataFrame(NUMBERED).to_csv(tmp_path / "x.csv", index=False)
    assert_same(read_data(tmp_path / "x.csv"), data_of())
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(DataError, match=r"x\.csv is cut or no table"):
        read_data(tmp_path / "x.csv")


def test_parquet_keeps_every_bit(tmp_path):
    pytest.importorskip("pyarrow")
    random = np.random.default_rng(0)
    data = data_of(obs=random.normal(size=(5, 2, 3)), new_obs=random.normal(size=(5, 2, 3)), action_logp=np.ones(5))
    assert_same(read_data(write_data(data, tmp_path / "x.parquet")), data)
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x\.parquet is cut or no Parquet"):
        read_data(tmp_path / "x.parquet")


def test_parquet_with_lists_of_unlike_lengths_is_told(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    lists = {name: column.tolist() for name, column in columns().items()} | {"obs": [[1.0], [1.0, 2.0], [], [], []]}
    parquet.write_table(pyarrow.table(lists), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: obs has rows of unlike shapes"):
        read_data(tmp_path / "x.parquet")


def test_columns_packed_with_lz4_are_read(tmp_path):
    frame = pytest.importorskip("lz4.frame")
    packed = base64.b64encode(frame.compress(pickle.dumps(columns()["obs"]))).decode()
    line = {name: column.tolist() for name, column in columns().items()} | {"obs": packed}
    (tmp_path / "x.json").write_text(json.dumps({"type": "SampleBatch", **line}))
    assert_same(read_data(tmp_path / "x.json"), data_of())


def test_minaris_episodes_tell_where_the_last_step_led(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gymnasium.make("Pendulum-v1", max_episode_steps=7))
    seen = []
    for seed in range(3):
        seen.append(env.reset(seed=seed)[0])
        cut = False
        while not cut:
            obs, _, _, cut, _ = env.step(env.action_space.sample())
            seen.append(obs)
    kept = env.create_dataset(dataset_id="pendulum/random-v0")
    for source in ("minari:pendulum/random-v0", kept):
        data = read_data(source)
        assert (len(data), data.lengths.tolist()) == (21, [7, 7, 7])
        assert data.truncated[data.ends].all() and not data.terminated.any()
        assert data.action_space.high.tolist() == [2.0]
        np.testing.assert_allclose(data.next_obs[data.ends], np.array(seen)[[7, 15, 23]], rtol=1e-6)
    with pytest.raises(DataError, match="minari:nothing/here-v0 is not on this machine"):
        read_data("minari:nothing/here-v0")


@pytest.mark.parametrize("library", ["pyarrow", "minari"])
def test_a_library_that_is_missing_is_named(library, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    (tmp_path / "x.parquet").write_bytes(b"")
    source = tmp_path / "x.parquet" if library == "pyarrow" else "minari:a/b-v0"
    with pytest.raises(ImportError, match=f"{library}, which is not installed"):
        read_data(source)

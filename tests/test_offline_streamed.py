"""Data larger than memory: read part by part, in an order that the seed tells, into a memory of a set capacity."""

from __future__ import annotations

import itertools
import json
import weakref

import jax
import numpy as np
import pytest
from modes import assert_resumes
from test_offline_data import assert_same

from athlete import Algorithm
from athlete.algorithms.bc import BCConfig
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.dt import DTConfig
from athlete.algorithms.iql import IQLConfig
from athlete.algorithms.marwil import MARWILConfig
from athlete.loops.refill import rechunked
from athlete.memory.ring import ring_take
from athlete.offline.columns import from_columns
from athlete.offline.dataset import DataError, joined, spaces_of
from athlete.offline.files import read_data, stream_data, write_data
from athlete.offline.streamed import Piece
from athlete.spaces import Discrete

LENGTHS = (7, 3, 12, 5, 9, 4)  # of the episodes of one file
FILES = 4
STEPS = FILES * sum(LENGTHS)
SEED = (3, 0)


def columns_of_file(number):
    """Every reward is the number of its step among all, and so is the first observation."""
    size = sum(LENGTHS)
    steps = number * size + np.arange(size, dtype=np.float32)
    random = np.random.default_rng(number)
    noise = random.normal(size=(2, size)).astype(np.float32)
    ends = np.zeros(size, bool)
    ends[np.cumsum(LENGTHS) - 1] = True
    return {
        "obs": np.stack([steps, noise[0]], axis=1),
        "new_obs": np.stack([steps + 1, noise[1]], axis=1),
        "actions": (noise[0] > 0).astype(int),
        "rewards": steps,
        "terminateds": ends & (np.arange(size) % 2 == 1),
        "truncateds": ends & (np.arange(size) % 2 == 0),
    }


def written(folder, ending=".safetensors"):
    """A folder of files that together hold the steps 0, 1, ..., STEPS - 1."""
    for number in range(FILES):
        write_data(from_columns(columns_of_file(number), "x"), folder / f"{number}{ending}")
    return folder


def streamed_steps(streamed, turns, seed=SEED):
    """The rewards, which number the steps, that come in so many turns; each turn apart."""
    pieces = itertools.islice(streamed.from_step(seed, 0), turns * len(streamed.pieces))
    steps = np.concatenate([streamed.read(piece).reward for piece, _ in pieces])
    return steps.astype(int).reshape(turns, -1)


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".safetensors", ".json", ".npz", ".parquet"])
def test_every_step_comes_once_a_turn_in_an_order_that_the_seed_tells(ending, tmp_path):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    streamed = stream_data(written(tmp_path, ending), 50)
    assert len(streamed) == STEPS
    first, second = streamed_steps(streamed, 2)
    assert sorted(first) == sorted(second) == list(range(STEPS))
    assert first.tolist() != second.tolist(), "each turn has an order of its own"
    assert streamed_steps(streamed, 1)[0].tolist() == first.tolist()
    assert streamed_steps(streamed, 1, seed=(4, 0))[0].tolist() != first.tolist()


@pytest.mark.parametrize("capacity", [13, 40, 10_000])
def test_pieces_are_whole_episodes_and_together_the_data(capacity, tmp_path):
    streamed = stream_data(written(tmp_path), capacity)
    pieces = [streamed.read(number) for number in range(len(streamed.pieces))]
    assert_same(joined(pieces), read_data(tmp_path))
    assert all(len(piece) <= capacity for piece in pieces)
    assert [length for piece in pieces for length in piece.lengths] == [*LENGTHS] * FILES


def test_an_episode_that_lies_in_several_blocks_is_one(tmp_path, monkeypatch):
    """Lines of JSON hold two steps here, and a block is a line: nearly every block ends within an episode."""
    monkeypatch.setattr("athlete.offline.rllib_json.BATCH", 2)
    monkeypatch.setattr("athlete.offline.rllib_json.BLOCK", 100)
    streamed = stream_data(written(tmp_path, ".json"), 20)
    assert streamed.pieces[0].blocks.number > 10
    pieces = [streamed.read(number) for number in range(len(streamed.pieces))]
    assert [length for piece in pieces for length in piece.lengths] == [*LENGTHS] * FILES
    assert_same(joined(pieces), read_data(tmp_path))
    assert all(piece.last_block - piece.first_block < 15 for piece in streamed.pieces), "no more than its own are read"


def test_row_groups_of_parquet_may_end_anywhere(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = columns_of_file(0)
    table = pyarrow.table({name: column.tolist() for name, column in columns.items()})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=5)
    streamed = stream_data(tmp_path / "x.parquet", 20)
    assert streamed.pieces[0].blocks.number == 8 and len(streamed.pieces) > 3
    assert_same(joined([streamed.read(n) for n in range(len(streamed.pieces))]), from_columns(columns, "x"))


def test_minaris_episodes_come_some_at_a_time(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = minari.DataCollector(gymnasium.make("Pendulum-v1", max_episode_steps=7))
    for seed in range(9):
        env.reset(seed=seed)
        cut = False
        while not cut:
            cut = env.step(env.action_space.sample())[3]
    env.create_dataset(dataset_id="pendulum/random-v0")
    streamed = stream_data("minari:pendulum/random-v0", 20)
    assert len(streamed.pieces) == 9
    assert_same(joined([streamed.read(n) for n in range(9)]), read_data("minari:pendulum/random-v0"))


def test_what_steps_go_on_from_is_told_by_their_number_alone(tmp_path):
    streamed = stream_data(written(tmp_path), 20)

    def steps_from(step):
        pieces = itertools.islice(streamed.from_step(SEED, step), 60)
        return np.concatenate([streamed.read(piece).reward[left_out:] for piece, left_out in pieces])

    whole = steps_from(0)
    for step in range(STEPS):
        piece, left_out = next(streamed.from_step(SEED, step))
        assert left_out < streamed.pieces[piece].steps
    for step in (1, 17, STEPS - 1, STEPS, STEPS + 5):
        np.testing.assert_array_equal(steps_from(step)[:200], whole[step : step + 200])


def test_the_extremes_tell_the_spaces_and_what_fits(tmp_path):
    data = read_data(written(tmp_path))
    extremes = stream_data(tmp_path, 20).extremes
    assert spaces_of(extremes) == spaces_of(data)
    assert extremes.reward.tolist() == [0, STEPS - 1]
    np.testing.assert_array_equal(extremes.obs, [data.obs.min(axis=0), data.obs.max(axis=0)])


def test_steps_are_cut_anew_into_equal_chunks(tmp_path):
    streamed = stream_data(written(tmp_path), 20)
    parts = [streamed.read(n).transitions(spaces_of(streamed.extremes)) for n in range(len(streamed.pieces))]
    chunks = list(rechunked(parts, 33))
    assert [len(chunk.reward) for chunk in chunks] == [33, 33, 33, 33, 28]
    np.testing.assert_array_equal(np.concatenate([chunk.reward[:, 0] for chunk in chunks]), np.arange(STEPS))
    assert chunks[0].obs.shape == (33, 1, 2)


# Learning from it -----------------------------------------------------------------------------------------------------

SMALL = {"train_batch_size": 10, "model": {"fcnet_hiddens": [8]}, "min_sample_timesteps_per_iteration": 40, "seed": 0}


def config_of(folder, capacity, config_class=BCConfig, **settings):
    config = config_class().offline_data(input_=str(folder), input_config={"capacity": capacity})
    return config.update_from_dict({**SMALL, **settings})


def held(algo):
    """The numbers of the steps in memory, the oldest first."""
    training = algo._training
    memory, _ = training._memory_now()
    ring = memory.steps
    rewards = jax.device_get(ring_steps(ring)).reward[:, 0]
    assert int(ring.filled) == len(rewards)
    return np.roll(rewards, -int(ring.cursor)).astype(int)


def ring_steps(ring):
    return ring_take(ring, np.zeros(1, int), np.zeros(1, int), ring.packed.table.shape[0])


def test_the_memory_holds_its_capacity_and_sees_every_step_equally_often(tmp_path):
    with config_of(written(tmp_path), 80).build() as algo:
        seen = np.zeros(STEPS, int)
        for _ in range(2 * STEPS // 40 * 7):
            now = held(algo)
            assert len(now) == 80
            seen[now] += 1
            algo.train()
        assert seen.min() >= seen.max() - 4 > 10, "but for where the first and the last turn begin and end"
        assert algo._training._memory.updates_left(0) == 4


def test_what_is_in_memory_is_the_end_of_what_came(tmp_path):
    folder = written(tmp_path)
    with config_of(folder, 80).build() as algo:
        whole = streamed_steps(stream_data(folder, 80), 3, seed=(0, 0)).reshape(-1)
        for iteration in range(5):
            np.testing.assert_array_equal(held(algo), whole[40 * iteration : 40 * iteration + 80])
            algo.train()


def test_a_memory_that_holds_everything_learns_as_one_that_was_read_at_once(tmp_path):
    folder = written(tmp_path)
    whole = BCConfig().offline_data(input_=str(folder)).update_from_dict(SMALL)
    runs = []
    for config in (whole, config_of(folder, STEPS)):
        with config.build() as algo:
            algo.train()
            runs.append(jax.device_get(algo.run))
    for a, b in zip(*map(jax.tree.leaves, runs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("config_class", [BCConfig, MARWILConfig])
@pytest.mark.parametrize("seed", [0, None, 2**40 + 3])
def test_it_resumes_exactly(config_class, seed, tmp_path):
    config = config_of(written(tmp_path / "data"), 30, config_class, seed=seed, observation_filter="MeanStdFilter")
    assert_resumes(config, tmp_path / "saved")


def test_another_training_goes_on_in_the_order_of_the_one_it_is_restored_from(tmp_path):
    config = config_of(written(tmp_path / "data"), 30)
    with config.build() as alone, config.copy().debugging(seed=9).build() as other:
        for _ in range(5):
            alone.train()
        other.train()
        other.restore(alone.save(tmp_path / "saved"))
        np.testing.assert_array_equal(held(other), held(alone))
        alone.train(), other.train()
        for a, b in zip(*map(jax.tree.leaves, (alone.run, other.run)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_iterations_of_other_lengths_learn_the_same(tmp_path):
    """What is in memory hangs on the number of updates alone."""
    config, runs = config_of(written(tmp_path), 30), []
    for parts in ((4, 4, 4), (3, 9), (12,)):
        with config.build() as algo:
            for updates in parts:
                algo._training.advance(updates)
            runs.append(jax.device_get(algo.run))
    for other in runs[1:]:
        for a, b in zip(*map(jax.tree.leaves, (runs[0], other)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("capacity", [30, STEPS - 1])
def test_an_observation_filter_knows_all_data_before_the_first_update(capacity, tmp_path):
    with config_of(written(tmp_path), capacity, observation_filter="MeanStdFilter").build() as algo:
        state, obs = jax.device_get(algo.run.state), read_data(tmp_path).obs
        assert state.obs.count == STEPS
        np.testing.assert_allclose(state.obs.mean[0], obs.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(state.obs.variance[0], obs.var(axis=0), rtol=1e-4)


def test_dt_knows_all_data_before_the_first_update(tmp_path):
    settings = {"target_return": 1.0, "embed_dim": 8, "num_layers": 1}
    runs = []
    for capacity in (30, STEPS):
        with config_of(written(tmp_path), capacity, DTConfig, model={"max_seq_len": 3}, **settings).build() as algo:
            runs.append(jax.device_get(algo.run.state.data))
    for name in ("mean", "std", "return_"):
        np.testing.assert_allclose(getattr(runs[0], name), getattr(runs[1], name), rtol=1e-4)


def test_returns_are_those_of_whole_episodes(tmp_path):
    folder = written(tmp_path)
    data = read_data(folder)
    expected = data.returns_to_go(0.9)[0]
    with config_of(folder, 30, MARWILConfig, gamma=0.9).build() as algo:
        for _ in range(4):
            steps = jax.device_get(ring_steps(algo._training._memory_now()[0].steps))
            np.testing.assert_array_equal(steps.reward[:, 0], expected[steps.obs[:, 0, 0].astype(int)])
            algo.train()


def test_it_learns_what_was_done_in_all_of_the_data(tmp_path):
    """Action 1 where the second observation is positive; the first one grows from file to file, and says nothing."""
    config = config_of(written(tmp_path), 40, lr=3e-2, min_sample_timesteps_per_iteration=200)
    with config.update_from_dict({"observation_filter": "MeanStdFilter"}).build() as algo:
        for _ in range(15):
            algo.train()
        data = read_data(tmp_path)
        actions = algo.get_policy().compute_actions(data.obs, explore=False)[0]
    assert np.mean(actions == data.action) > 0.9


def test_windows_stop_with_their_episode_as_ever(tmp_path):
    with config_of(written(tmp_path), 30, DQNConfig, n_step=3, hiddens=[]).build() as algo:
        for _ in range(3):
            steps = jax.device_get(ring_steps(algo._training._memory_now()[0].steps))
            number, done = steps.obs[:, 0, 0], (steps.terminated | steps.truncated)[:, 0]
            cursor = int(algo._training._memory_now()[0].steps.cursor)
            goes_on = np.delete(~done[:-1] & (np.diff(number) != 1), [cursor - 1] if cursor else [])
            assert not goes_on.any(), "where the next step is of another episode, this one has ended"
            assert np.isfinite(algo.train()["info"]["learner"]["default_policy"]["learner_stats"]["mean_q"])


def test_sources_are_mixed_each_in_its_share_of_the_capacity(tmp_path):
    for name in "ab":
        written(tmp_path / name)
    shares = {str(tmp_path / "a"): 0.75, str(tmp_path / "b"): 0.25}
    config = IQLConfig().offline_data(input_=shares, input_config={"capacity": 80})
    with config.update_from_dict({**SMALL, "train_batch_size": 20}).build() as algo:
        algo.train()
        memory, _ = algo._training._memory_now()
        assert [part.batch_size for part in memory.parts] == [15, 5]
        assert [part.steps.packed.table.shape[0] for part in memory.parts] == [60, 20]


def test_the_program_that_learns_is_compiled_once(tmp_path):
    with config_of(written(tmp_path), 30).build() as algo:
        algo.train()
        results = [algo.train() for _ in range(3)]
        assert [result["perf"]["compilations_this_iter"] for result in results] == [0, 0, 0]


def test_no_more_steps_are_read_at_once_than_the_memory_holds(tmp_path, monkeypatch):
    """Rows of files that are somewhere in NumPy's arrays, whoever has them: beside those in the learner's memory."""
    alive, counts, read = [], [], Piece.read

    def counted(piece):
        data = read(piece)
        alive.append(weakref.ref(data.reward))
        counts.append(sum(len(each()) for each in alive if each() is not None))
        return data

    monkeypatch.setattr(Piece, "read", counted)
    with config_of(written(tmp_path), 40).build() as algo:
        for _ in range(12):
            algo.train()
    assert len(counts) > 50 and 12 < max(counts) <= 2 * 40


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            BCConfig().offline_data(input_="x", input_config={"capacity": 0}),
            r"input_config=\{'capacity': 0\}\): expected a whole number of steps, 1 or more",
        ),
        (
            IQLConfig()
            .environment("Pendulum-v1")
            .offline_data(input_={"sampler": 0.5, "x": 0.5}, input_config={"capacity": 9}),
            r"IQL: input_config=\{'capacity': 9\} reads data part by part between .* leave it out beside 'sampler'",
        ),
        (
            DQNConfig()
            .training(replay_buffer_config={"type": "PrioritizedReplayBuffer"})
            .offline_data(input_="x", input_config={"capacity": 9}),
            r"type 'PrioritizedReplayBuffer', and of data that are read part by part steps are drawn uniformly",
        ),
    ],
)
def test_what_does_not_fit_is_told_at_build(config, told):
    with pytest.raises(ValueError, match=told):
        config.build()


def test_an_episode_longer_than_the_memory_is_told(tmp_path):
    told = r"0\.safetensors, row 10: at least 12 steps have to be read at once, .* and 11 are in memory at a time: make"
    with pytest.raises(DataError, match=told):
        config_of(written(tmp_path), 11).build()
    with pytest.raises(DataError, match=r"0\.npz, row 0: at least 40 steps have to be read at once"):
        config_of(written(tmp_path / "numpy", ".npz"), 39).build()


def test_a_memory_smaller_than_a_sample_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"capacity=13 is 13 timesteps .* too few for windows of 20"):
        config_of(written(tmp_path), 13, DQNConfig, n_step=20).build()


def test_what_is_wrong_far_behind_names_file_and_row(tmp_path):
    folder = written(tmp_path)
    columns = columns_of_file(9)
    columns["rewards"][33] = np.nan
    (tmp_path / "9.json").write_text(json.dumps({name: column.tolist() for name, column in columns.items()}))
    with pytest.raises(DataError, match=r"9\.json, row 33: rewards holds NaN"):
        config_of(folder, 50).build()


def test_an_action_outside_the_space_names_file_and_row(tmp_path):
    columns = columns_of_file(3)
    columns["actions"][17] = 2
    write_data(from_columns(columns, "x"), written(tmp_path) / "3.npz")
    (tmp_path / "3.safetensors").unlink()
    with pytest.raises(DataError, match=r"3\.npz, row 17: actions is 2, outside of Discrete\(n=2"):
        config_of(tmp_path, 50).environment(action_space=Discrete(2)).build()


def test_a_file_that_changes_is_told(tmp_path):
    folder = written(tmp_path, ".npz")
    with config_of(folder, 50).build() as algo:
        for number in range(FILES):
            short = {name: column[:38] for name, column in columns_of_file(number).items()}
            write_data(from_columns(short, "x"), folder / f"{number}.npz")
        with pytest.raises(DataError, match=r"npz, row 0: the file has changed since the training began"):
            for _ in range(20):
                algo.train()


def test_files_of_different_environments_are_told(tmp_path):
    folder = written(tmp_path)
    wide = columns_of_file(0)
    wide |= {name: np.zeros((40, 3), np.float32) for name in ("obs", "new_obs")}
    write_data(from_columns(wide, "x"), folder / "9.npz")
    with pytest.raises(DataError, match=r"9\.npz has obs of float32\[3\], and .*0\.safetensors has float32\[2\]"):
        config_of(folder, 50).build()


def test_a_capacity_larger_than_this_machines_memory_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("athlete.memory.room.available_bytes", lambda: 1000)
    with pytest.raises(ValueError, match=r"but this machine has 1\.0 kB available; take capacity=\d+ or less"):
        config_of(written(tmp_path), 100).build()


def test_a_capacity_for_data_that_are_in_memory_changes_nothing():
    config = BCConfig().offline_data(input_=columns_of_file(0), input_config={"capacity": 5}).update_from_dict(SMALL)
    with config.build() as algo:
        assert held(algo).tolist() == list(range(40))


def test_a_checkpoint_of_such_a_training_is_as_small_as_any(tmp_path):
    with config_of(written(tmp_path / "data"), 30).build() as algo:
        algo.train()
        path = algo.save(tmp_path / "saved")
    with Algorithm.from_checkpoint(path) as restored:
        assert restored.config.input_config == {"capacity": 30}
    assert sum(file.stat().st_size for file in (tmp_path / "saved").rglob("*")) < 100_000

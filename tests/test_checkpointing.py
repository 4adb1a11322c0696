"""What `save` keeps, and what `restore` and `from_checkpoint` refuse, naming the entry, before they build anything."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from typer.testing import CliRunner

from athlete.algorithm import Algorithm
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.checkpointing import memory_since
from athlete.cli.main import app
from athlete.record import checkpoint as record
from athlete.record.checkpoint import CheckpointError, open_checkpoint, read_metadata
from athlete.record.keeping import Keeper
from athlete.settings.limits import excess

TINY = {"train_batch_size": 64, "minibatch_size": 32, "num_epochs": 1, "model": {"fcnet_hiddens": [8]}}


def ppo(**settings: Any) -> PPOConfig:
    return PPOConfig().environment("CartPole-v1").training(**TINY, **settings).debugging(seed=0)


def dqn(**settings: Any) -> DQNConfig:
    small = {"model": {"fcnet_hiddens": [8]}, "num_steps_sampled_before_learning_starts": 8, "train_batch_size": 8}
    config = DQNConfig().environment("CartPole-v1").rollouts(num_envs_per_worker=1, rollout_fragment_length=4)
    return config.training(**small, **settings).debugging(seed=0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with ppo().build() as algorithm:
        algorithm.train()
        return Path(algorithm.save(tmp_path_factory.mktemp("saved")))


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


def seal(folder: Path) -> None:
    """Sums that are right for whatever the files hold now."""
    paths = [path for path in folder.iterdir() if path.name != record.MANIFEST_FILE]
    files = {path.name: {"size": path.stat().st_size, "sha256": record._sum_of(path)} for path in paths}
    (folder / record.MANIFEST_FILE).write_bytes(record._manifest_bytes(files))


def change_metadata(folder: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    metadata = json.loads((folder / record.METADATA_FILE).read_bytes())
    how(metadata)
    (folder / record.METADATA_FILE).write_bytes(record._json_bytes(metadata))
    seal(folder)


def change_arrays(folder: Path, how: Callable[[dict[str, np.ndarray]], Any]) -> None:
    arrays = safetensors.numpy.load_file(folder / "agent.safetensors")
    how(arrays)
    safetensors.numpy.save_file(arrays, folder / "agent.safetensors")
    seal(folder)


def refused(folder: Path) -> str:
    """The sentence with which both ways to read it refuse the checkpoint."""
    with pytest.raises(CheckpointError) as read:
        Algorithm.from_checkpoint(folder)
    with ppo().build() as algorithm, pytest.raises(CheckpointError):
        algorithm.restore(folder)
    return str(read.value)


# Metadata


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("algorithm", None),
        ("config", []),
        ("seed", -1),
        ("seed", 1.5),
        ("rows", 0),
        ("compiled", "yes"),
        ("observation_space", 7),
        ("counters", None),
    ],
)
def test_an_entry_of_another_kind_is_named(saved: Path, entry: str, value: Any) -> None:
    change_metadata(saved, lambda metadata: metadata.update({entry: value}))
    assert f"{entry!r} is {value!r}" in refused(saved)


@pytest.mark.parametrize("entry", ["algorithm", "config", "seed", "counters", "observation_space", "action_space"])
def test_a_missing_entry_is_named(saved: Path, entry: str) -> None:
    change_metadata(saved, lambda metadata: metadata.pop(entry))
    assert f"its metadata lack {entry!r}" in refused(saved)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("iteration", -1),
        ("iteration", True),
        ("iteration", 10**12),
        ("timesteps_total", 1e9),
        ("episodes_total", 2**60),
        ("time_total_s", float("nan")),
        ("time_total_s", -1.0),
        ("window_returns", [float("inf")]),
        ("window_lengths", ["long"]),
    ],
)
def test_a_counter_that_cannot_be_is_named(saved: Path, entry: str, value: Any) -> None:
    change_metadata(saved, lambda metadata: metadata["counters"].update({entry: value}))
    assert f"counters[{entry!r}]" in refused(saved)
    change_metadata(saved, lambda metadata: metadata["counters"].pop(entry))
    assert f"its metadata lack counters[{entry!r}]" in refused(saved)


def test_a_warm_up_that_would_never_end_is_refused(saved: Path) -> None:
    change_metadata(saved, lambda metadata: metadata["counters"].update(memory_since_timesteps=10**9))
    assert "memory_since_timesteps is 1000000000, and" in refused(saved)
    change_metadata(saved, lambda metadata: metadata["counters"].update(memory_since_timesteps=None))
    assert "memory_since_timesteps is None" in refused(saved)


def test_memory_since_is_within_the_training() -> None:
    learner = {"timesteps": np.uint32(48), "iteration": np.int32(3)}
    assert memory_since({"memory_since_timesteps": 48}, learner, "x") == 48
    assert memory_since({"memory_since": 1, "timesteps_total": 48}, learner, "x") == 16, "counted in iterations"
    for counters in ({"memory_since_timesteps": 49}, {"memory_since_timesteps": -1}, {"memory_since": 4}, {}):
        with pytest.raises(CheckpointError, match="memory_since"):
            memory_since(counters, learner, "x")


@pytest.mark.parametrize(
    "space",
    [
        {"type": "Box", "low": 0, "high": 1, "shape": [2_000_000_000], "dtype": "float32"},
        functools.reduce(lambda inner, _: {"type": "Tuple", "spaces": [inner]}, range(400), {"type": "Discrete"}),
    ],
    ids=["large", "deep"],
)
def test_a_space_that_is_too_large_is_refused(saved: Path, space: Any) -> None:
    change_metadata(saved, lambda metadata: metadata.update(observation_space=space))
    assert "describes no space" in refused(saved)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ([0], "is no group of agents"),
        ([True], "is no group of agents"),
        ([20_000], "is no group of agents"),
        (["2"], "is no group of agents"),
        ([6000, 6000], "groups of 12,000 agents, more than 10,000"),
    ],
)
def test_groups_of_agents_that_cannot_be_are_refused(saved: Path, sizes: list[Any], sentence: str) -> None:
    def add(metadata: dict[str, Any]) -> None:
        spaces = {name: metadata[name] for name in ("observation_space", "action_space")}
        metadata["groups"] = [{"name": "a", "size": size, **spaces} for size in sizes]

    change_metadata(saved, add)
    assert sentence in refused(saved)


# What a file may ask for


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_rollout_workers": 40}, "num_rollout_workers=40, more than the 32"),
        ({"num_envs_per_worker": 10**6}, "num_envs_per_worker=1000000, more than the 4,096"),
        ({"model": {"fcnet_hiddens": [8] * 3000}}, r"3,000 entries of model.fcnet_hiddens, more than the 100"),
        ({"model": {"fcnet_hiddens": [10**6]}}, r"model.fcnet_hiddens=1000000, more than the 65,536"),
        ({"model": {"lstm_cell_size": 10**9}}, "model.lstm_cell_size=1000000000"),
        ({"min_sample_timesteps_per_iteration": 10**12}, "min_sample_timesteps_per_iteration=1000000000000"),
        ({"min_time_s_per_iteration": float("inf")}, "min_time_s_per_iteration=inf"),
        ({"replay_buffer_config": {"capacity": 10**10}}, "replay_buffer_config.capacity=10000000000"),
        ({"hiddens": [10**9]}, "hiddens=1000000000, more than the 65,536"),
        ({"q_model_config": {"fcnet_hiddens": [10**9]}}, "q_model_config.fcnet_hiddens=1000000000"),
        ({"model": {"custom_model": {"fields": {"width": 10**9}}}}, "model.custom_model.fields.width=1000000000"),
        ({"policies": {"a": {"config": {"model": {"gru_cell_size": 10**9}}}}}, "policies.a.config.model.gru_cell_size"),
        ({"model": {"attention_num_transformer_units": 1000}}, "model.attention_num_transformer_units=1000, more than"),
        ({"lr": [[i, 1e-3] for i in range(101)]}, "101 entries of lr, more than the 100"),
    ],
)
def test_a_file_asks_for_no_more_than_a_limit(saved: Path, settings: dict[str, Any], sentence: str) -> None:
    change_metadata(saved, lambda metadata: metadata["config"].update(settings))
    with pytest.raises(CheckpointError, match=rf"config\['{next(iter(settings))}'\] asks for {sentence}.*that a file"):
        Algorithm.from_checkpoint(saved)


@pytest.mark.parametrize("config", [{"lr": {"grid_search": [1e-3] * 200}}, {"env_config": {"table": [1.0] * 200}}])
def test_searches_and_environments_may_have_long_lists(config: dict[str, Any]) -> None:
    assert excess(config) is None


def test_the_caller_may_ask_for_more(saved: Path) -> None:
    change_metadata(saved, lambda metadata: metadata["config"].update(num_envs_per_worker=5000))
    with Algorithm.from_checkpoint(saved, num_envs_per_worker=8) as algorithm:
        assert algorithm.iteration == 1
    with pytest.raises(ValueError, match="num_rollout_workers"):
        Algorithm.from_checkpoint(saved, num_envs_per_worker=8, num_rollout_workers=-1)


# Parameters that are no numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_that_are_not_finite_are_neither_restored_nor_saved(
    saved: Path, tmp_path: Path, value: float
) -> None:
    def spoil(arrays: dict[str, np.ndarray]) -> None:
        name = next(name for name, array in arrays.items() if array.dtype == np.float32 and array.size > 1)
        arrays[name].flat[0] = value

    change_arrays(saved, spoil)
    assert "is not restored" in refused(saved) and "not finite" in refused(saved)
    with ppo().build() as algorithm:
        spoiled = jax.tree.map(
            lambda leaf: leaf * 0 + value if leaf.dtype.kind == "f" else leaf, algorithm.get_weights()
        )
        with pytest.raises(CheckpointError, match="nothing was taken over"):
            algorithm.set_weights(spoiled)
        algorithm._training.run = algorithm.run._replace(state=spoiled["default_policy"])
        with pytest.raises(CheckpointError, match=r"nothing was saved into .*not finite"):
            algorithm.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_evaluating_such_a_checkpoint_ends_with_1_and_the_sentence(saved: Path) -> None:
    change_arrays(saved, lambda arrays: [array.fill(np.nan) for array in arrays.values() if array.dtype == np.float32])
    result = CliRunner().invoke(app, ["evaluate", str(saved)])
    assert result.exit_code == 1 and "not finite" in result.stderr and "Traceback" not in result.stderr


# Folders


def test_every_training_saves_into_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))
    with ppo().build() as one, ppo().build() as other:
        paths = [Path(one.save()), Path(other.save())]
        assert paths[0].parent != paths[1].parent
        assert [str(path.parent) for path in paths] == [one.logdir, other.logdir]
    assert all(path.parent.name.startswith("PPO_CartPole-v1_2") and path.is_dir() for path in paths)


def test_films_are_numbered_on(tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    with ppo().build() as algorithm:
        first = algorithm.record_video(tmp_path, episodes=2)
        second = algorithm.record_video(tmp_path)
    assert [Path(path).stem for path in [*first, *second]] == ["episode_000", "episode_001", "episode_002"]


# The replay memory


def with_memory(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "memory" in open_checkpoint(path).files)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [(None, ["checkpoint_000003"]), (False, []), (True, [f"checkpoint_{i:06d}" for i in (1, 2, 3)])],
)
def test_the_memory_is_in_the_newest_checkpoint_of_a_folder(tmp_path: Path, kept: Any, expected: list[str]) -> None:
    settings = {} if kept is None else {"store_buffer_in_checkpoints": kept}
    with dqn(**settings).build() as algorithm:
        elsewhere = Path(algorithm.save(tmp_path / "elsewhere"))
        for _ in range(3):
            algorithm.train()
            algorithm.save(tmp_path / "mine")
    assert with_memory(tmp_path / "mine") == expected
    assert with_memory(elsewhere.parent) == ([] if kept is False else [elsewhere.name])


def test_a_checkpoint_takes_the_room_of_what_is_in_the_memory(tmp_path: Path) -> None:
    sizes = []
    for capacity in (10_000, 1_000_000):
        with dqn(replay_buffer_config={"capacity": capacity}).build() as algorithm:
            algorithm.train()
            path = Path(algorithm.save(tmp_path / str(capacity)))
            sizes.append(sum(file.stat().st_size for file in path.iterdir()))
    assert sizes[1] < sizes[0] + 1000 < 200_000


@pytest.mark.parametrize("backend", ["auto", "gymnasium"])
def test_who_acts_from_a_checkpoint_takes_no_room_for_its_memory(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> Any:
        raise AssertionError("the memory was made")

    with dqn().environment("CartPole-v1", backend=backend).build() as algorithm:
        algorithm.train()
        path = algorithm.save(tmp_path)
        expected = algorithm.evaluate(episodes=2)["evaluation"]["hist_stats"]
        going_on = algorithm.train()["timesteps_total"], jax.tree.leaves(algorithm.run.store)
    with pytest.MonkeyPatch.context() as patch, Algorithm.from_checkpoint(path) as acting:
        for module in ("train", "learn", "host"):
            patch.setattr(f"athlete.loops.{module}.fresh_store", no_memory, raising=False)
        patch.setattr(record, "_array_of", functools.partial(without_large, record._array_of))
        assert acting.compute_single_action(np.zeros(4, np.float32)) in (0, 1)
        assert acting.evaluate(episodes=2)["evaluation"]["hist_stats"] == expected
        acting.set_weights(acting.get_weights())
        assert acting._training.learned.store is None
    with Algorithm.from_checkpoint(path) as other:
        shutil.rmtree(path)  # what was opened is there until it is needed
        assert other.train()["timesteps_total"] == going_on[0]
        assert [leaf.shape for leaf in jax.tree.leaves(other.run.store)] == [leaf.shape for leaf in going_on[1]]
        if backend == "auto":
            pairs = zip(jax.tree.leaves(other.run.store), going_on[1], strict=True)
            assert all(np.array_equal(one, two) for one, two in pairs)


def without_large(array_of: Any, file: Any, name: str, like: Any) -> Any:
    assert np.prod(like.shape) < 100_000, f"{name} was read"
    return array_of(file, name, like)


def test_a_restored_memory_is_saved_again_before_the_training_goes_on(tmp_path: Path) -> None:
    with dqn().build() as algorithm:
        algorithm.train()
        path = algorithm.save(tmp_path / "one")
    with Algorithm.from_checkpoint(path) as other:
        again = Path(other.save(tmp_path / "other"))
    for name in ("agent.safetensors", "memory.safetensors", "rows.safetensors"):
        assert (again / name).read_bytes() == (Path(path) / name).read_bytes()


def test_a_memory_for_which_there_is_no_room_is_refused_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dqn(replay_buffer_config={"capacity": 100_000}).build() as algorithm:
        algorithm.train()
        path = algorithm.save(tmp_path)
    monkeypatch.setattr("athlete.memory.room.available_bytes", lambda: 1_000_000)
    with Algorithm.from_checkpoint(path) as small:
        assert small.evaluate(episodes=1)["evaluation"]["episodes_this_iter"] == 1
        with pytest.raises(ValueError, match=r"this machine has 1\.0 MB available"):
            small.train()


def test_from_a_checkpoint_without_its_memory_training_fills_a_new_one(tmp_path: Path, caplog: Any) -> None:
    with dqn().build() as algorithm:
        algorithm.train()
        before = Path(algorithm.save(tmp_path))
        algorithm.train()
        algorithm.save(tmp_path)
    with caplog.at_level("INFO", "athlete"), Algorithm.from_checkpoint(before) as other:
        assert other.iteration == 1
        other.train()
    assert "holds no replay memory" in caplog.text


def test_metadata_of_this_version_pass_the_check_that_they_were_written_for(original: Path) -> None:
    from athlete.checkpointing import check_limits, check_metadata

    metadata = read_metadata(original)
    check_metadata(metadata, original)
    check_limits(metadata["config"], original)


def test_another_trainings_checkpoint_is_replaced_with_a_warning(tmp_path: Path, caplog: Any) -> None:
    with ppo().build() as one, ppo().build() as other:
        with caplog.at_level("WARNING", "athlete"):
            saved = one.save(tmp_path / "mine")
            assert one.save(tmp_path / "mine") == saved and "replaced" not in caplog.text
            assert other.save(tmp_path / "mine") == saved
        assert f"{saved}: a checkpoint that this training did not write is replaced" in caplog.text


@pytest.mark.parametrize(
    ("folder", "where"),
    [
        ("checkpoint", "."),
        ("checkpoint_best", "."),
        ("checkpoints", "checkpoint_000000"),
        ("results", "checkpoint_000000"),
    ],
)
def test_a_folder_is_a_checkpoint_or_holds_checkpoints_by_its_name(tmp_path: Path, folder: str, where: str) -> None:
    with ppo().build() as algorithm:
        assert Path(algorithm.save(tmp_path / folder)) == (tmp_path / folder / where).resolve()


@pytest.mark.parametrize("fields", [{"zzz": 1}, [1], None])
def test_an_object_that_cannot_be_made_of_its_fields_is_refused_by_its_entry(saved: Path, fields: Any) -> None:
    described = {"__object__": "athlete.models.mlp:MLP", "fields": fields}
    change_metadata(saved, lambda metadata: metadata["config"].update(model={"custom_model": described}))
    sentence = r"config\.model\.custom_model: athlete\.models\.mlp:MLP (cannot be made|has no fields)"
    with pytest.raises(CheckpointError, match=sentence):
        Algorithm.from_checkpoint(saved)


def test_a_keeper_without_a_frequency_saves_by_the_clock_and_spends_a_twentieth_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("athlete.record.keeping.time.monotonic", lambda: now[0])
    keeper, saved = Keeper(0, 1, None, seconds=60.0), []

    def save_for(seconds):
        def save():
            now[0] += seconds
            saved.append(now[0])
            return f"nowhere/checkpoint_{len(saved)}"

        return save

    for iteration, moment in enumerate((30.0, 61.0, 62.0, 500.0, 550.0, 700.0), start=1):
        now[0] = max(now[0], moment)
        keeper.take({"training_iteration": iteration}, save_for(10.0 if iteration == 2 else 1.0))
    assert saved == [71.0, 501.0, 701.0], "after ten seconds of saving it waits for two hundred"
    assert keeper.best == "nowhere/checkpoint_3"


def test_which_cluster_is_talked_to_is_not_for_a_checkpoint_to_say(tmp_path):
    made = PPOConfig().environment("CartPole-v1").resources(ray="ray://elsewhere:10001").reporting(logdir=False)
    with made.training(train_batch_size=64, minibatch_size=32).build() as algorithm:
        path = algorithm.save(tmp_path)
    with Algorithm.from_checkpoint(path) as restored:
        assert restored.config.ray == "auto"
    with Algorithm.from_checkpoint(path, ray="10.0.0.1:6379") as restored:
        assert restored.config.ray == "10.0.0.1:6379"
    assert excess({"ray": "ray://elsewhere:10001"}) == (
        "ray",
        "a connection to the cluster at 'ray://elsewhere:10001', which a file may not name",
    )
    assert all(excess({"ray": value}) is None for value in (True, False, "auto"))

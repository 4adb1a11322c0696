"""Checkpoints keep every array and every space to the last bit, and refuse whatever is not what was written."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import athlete
from athlete.checkpointing import check_compatible
from athlete.record import checkpoint
from athlete.record.checkpoint import (
    CheckpointError,
    drop_tree,
    load_checkpoint,
    open_checkpoint,
    read_metadata,
    save_checkpoint,
)
from athlete.record.files import locked
from athlete.record.space_json import space_from_json, space_to_json
from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple

METADATA = {"algorithm": "PPO", "config": {"lr": 0.1, "grad_clip": float("inf"), "env": None}, "timesteps_total": 2**40}


class Learner(NamedTuple):
    params: Any
    optimizer: Any
    nothing: Any


def example_tree() -> Learner:
    """One array of every kind that a run holds: weights, counters, flags, keys, and what has no elements."""
    return Learner(
        params={"policy": [{"kernel": np.arange(12.0, dtype=np.float32).reshape(3, 4).T, "bias": np.zeros(3)}]},
        optimizer={
            "count": jnp.int32(7),
            "half": jnp.array([1.5, -0.0, jnp.inf], jnp.bfloat16),
            "done": np.array([True, False]),
            "key": jnp.array([1, 2**32 - 1], jnp.uint32),
            "action": np.array([-128, 127], np.int8),
            "empty": np.zeros((0, 4), np.float32),
            "nan": np.float32("nan"),
        },
        nothing=(),
    )


def assert_same(left: Any, right: Any) -> None:
    """The same structure, and in each place the same bits, shape and data type."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "checkpoint_000001", {"run": example_tree()}, METADATA)


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Change entries of the manifest and seal it again, as another writer of the format would."""
    manifest = json.loads((folder / "manifest.json").read_bytes()) | changes
    (folder / "manifest.json").write_bytes(checkpoint._json_bytes(checkpoint._sealed(manifest)))


# What is kept


def test_a_checkpoint_is_a_folder_of_three_files_with_readable_names(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["checkpoint.json", "manifest.json", "run.safetensors"]
    arrays = safetensors.numpy.load_file(saved / "run.safetensors")
    assert "params/policy/0/kernel" in arrays and "optimizer/count" in arrays
    assert json.loads((saved / "checkpoint.json").read_text())["config"]["lr"] == 0.1
    manifest = json.loads((saved / "manifest.json").read_text())
    content = (saved / "run.safetensors").read_bytes()
    assert manifest["version"] == 2
    assert manifest["files"]["run.safetensors"] == {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_arrays_of_every_kind_come_back_to_the_last_bit(saved: Path) -> None:
    loaded = load_checkpoint(saved, {"run": example_tree()})["run"]
    assert_same(loaded, example_tree())
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded))


def test_the_structure_to_restore_into_may_be_shapes_alone(saved: Path) -> None:
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, example_tree()._replace(params={})))
    tree = example_tree()._replace(params={})
    folder = save_checkpoint(saved.with_name("shapes"), {"run": tree}, {})
    assert_same(load_checkpoint(folder, {"run": shapes})["run"], tree)


def test_metadata_come_back_as_given(saved: Path) -> None:
    assert read_metadata(saved) == METADATA


def test_several_trees_are_several_files_and_each_is_loaded_alone(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "two", {"run": {"a": np.ones(2)}, "best": np.float32(3.0)}, {})
    assert_same(load_checkpoint(folder, {"best": np.float32(0.0)}), {"best": np.float32(3.0)})


def test_names_that_look_like_paths_or_reserved_words_do_not_collide(tmp_path: Path) -> None:
    tree = {"a/b": np.float32(1), "a": {"b": np.float32(2), "%2F": np.float32(3)}, "__metadata__": np.float32(4)}
    folder = save_checkpoint(tmp_path / "names", {"run": tree}, {})
    assert_same(load_checkpoint(folder, {"run": tree})["run"], tree)


data_types = st.sampled_from(sorted(checkpoint._ARRAY_TYPES - {"bfloat16"}))
leaves = data_types.flatmap(
    lambda name: arrays_of.arrays(
        np.dtype(name), arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    )
)
trees = st.recursive(
    leaves | st.just(()) | st.none(),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(st.text(max_size=5), parts, max_size=3)
        | st.builds(Learner, parts, parts, parts)
    ),
    max_leaves=6,
)


@given(tree=trees)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_of_arrays_comes_back_to_the_last_bit(tree: Any, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", {"run": tree}, {})
    assert_same(load_checkpoint(folder, {"run": tree})["run"], tree)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts, max_size=3),
    max_leaves=8,
)


@given(metadata=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_metadata_come_back(metadata: dict, tmp_path: Path) -> None:
    assert read_metadata(save_checkpoint(tmp_path / "checkpoint", {}, metadata)) == metadata


# Spaces

bounds = st.floats(width=32, allow_nan=False)
boxes = arrays_of.array_shapes(min_dims=0, max_dims=2, max_side=3).flatmap(
    lambda shape: arrays_of.arrays(np.float32, (2, *shape), elements=bounds).map(
        lambda pair: Box(np.minimum(*pair), np.maximum(*pair))
    )
)
sizes = st.lists(st.integers(1, 100), min_size=1, max_size=3).map(tuple)
plain_spaces: st.SearchStrategy[Space] = (
    boxes
    | st.builds(Discrete, st.integers(1, 100), st.integers(-5, 5))
    | st.builds(MultiBinary, sizes)
    | sizes.flatmap(lambda nvec: st.builds(MultiDiscrete, st.just(nvec), st.none() | st.just(nvec)))
    | st.just(MultiDiscrete(((2, 3), (4, 5)), ((0, 1), (0, 0))))
    | st.just(Box(0, 255, (84, 84, 3), np.uint8))
    | st.just(Box(0, 2**64 - 1, (2,), np.uint64))
)
spaces = st.recursive(
    plain_spaces,
    lambda parts: (
        st.builds(Tuple, st.lists(parts, max_size=3).map(tuple))
        | st.builds(OneOf, st.lists(parts, max_size=3).map(tuple))
        | st.builds(Dict, st.dictionaries(st.text(max_size=4), parts, max_size=3))
    ),
    max_leaves=4,
)


@given(space=spaces)
@settings(max_examples=150, deadline=None)
def test_any_space_comes_back_through_strict_json(space: Space) -> None:
    assert space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False))) == space


def test_bounds_are_one_number_where_all_are_the_same() -> None:
    form = space_to_json(Box(-np.inf, np.inf, (84, 84), np.float32))
    assert (form["low"], form["high"]) == ("-inf", "inf")


def test_a_box_with_a_negative_zero_is_not_taken_for_uniform() -> None:
    space = Box(np.array([0.0, -0.0]), np.array([1.0, 1.0]))
    assert space_from_json(space_to_json(space)) == space


@pytest.mark.parametrize(
    "form",
    [
        None,
        [],
        {},
        {"type": "Space"},
        {"type": "__import__"},
        {"type": "Box", "low": "os", "high": 1, "shape": [1], "dtype": "float32"},
        {"type": "Box", "low": 0, "high": 1, "shape": [1], "dtype": "object"},
        {"type": "Box", "low": [0, 0], "high": 1, "shape": [3], "dtype": "float32"},
        {"type": "Discrete", "n": "many", "start": 0},
        {"type": "Tuple", "spaces": [None]},
        {"type": "Box", "low": 0, "high": 1, "shape": [2_000_000_000], "dtype": "float32"},
        {"type": "Box", "low": 0, "high": 1, "shape": [-1], "dtype": "float32"},
        {"type": "Box", "low": 1, "high": 0, "shape": [1], "dtype": "float32"},
        {"type": "Box", "low": "nan", "high": 1, "shape": [1], "dtype": "float32"},
        {"type": "Discrete", "n": 0, "start": 0},
        {"type": "Discrete", "n": 2.5, "start": 0},
        {"type": "Discrete", "n": 10**30, "start": 0},
        {"type": "MultiDiscrete", "nvec": [2, 0], "start": None},
        {"type": "MultiDiscrete", "nvec": [2, [3]], "start": None},
        {"type": "MultiBinary", "size": [10**6, 10**6]},
        functools.reduce(lambda inner, _: {"type": "Tuple", "spaces": [inner]}, range(400), {"type": "Discrete"}),
    ],
    ids=lambda form: repr(form)[:60],
)
def test_what_describes_no_space_is_refused(form: Any) -> None:
    with pytest.raises(CheckpointError, match="describes no space"):
        space_from_json(form)


def test_only_spaces_have_a_json_form() -> None:
    with pytest.raises(TypeError, match="object is not a space"):
        space_to_json(object())  # type: ignore[arg-type]


# Replacing


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_nothing_beside_it(saved: Path) -> None:
    save_checkpoint(saved, {"run": {"a": np.ones(1)}}, {"algorithm": "DQN"})
    assert read_metadata(saved) == {"algorithm": "DQN"}
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("step", ["save_file", "_manifest_bytes", "flush", "flush_folder", "_put_in_place"])
def test_the_old_checkpoint_stays_whole_when_writing_fails(
    saved: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(safetensors.numpy if step == "save_file" else checkpoint, step, fail)
    with pytest.raises(CheckpointError, match=f"the checkpoint {saved} could not be written: the disk is gone"):
        save_checkpoint(saved, {"run": {"a": np.ones(1)}}, {})
    assert read_metadata(saved) == METADATA
    assert_same(load_checkpoint(saved, {"run": example_tree()})["run"], example_tree())
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_kill_between_the_two_renames_loses_nothing(saved: Path) -> None:
    saved.rename(saved.with_name(".replaced-" + saved.name))  # the first rename was done, the second never came
    assert read_metadata(saved) == METADATA
    assert_same(load_checkpoint(saved, {"run": example_tree()})["run"], example_tree())
    save_checkpoint(saved, {}, {"algorithm": "DQN"})
    assert read_metadata(saved) == {"algorithm": "DQN"}


def test_what_a_killed_process_left_is_cleared_by_the_next_save(saved: Path) -> None:
    leftover = saved.with_name(".tmp-" + saved.name)
    leftover.mkdir()
    (leftover / "run.safetensors").write_bytes(b"half")
    save_checkpoint(saved, {}, {})
    assert not leftover.exists()


def test_what_a_killed_process_left_of_other_checkpoints_is_cleared_too(saved: Path) -> None:
    for name in (".tmp-checkpoint_000009", ".replaced-" + saved.name):
        (saved.parent / name).mkdir()
    (saved.parent / ".lock-checkpoint_000009").write_text("process 1")
    save_checkpoint(saved.with_name("checkpoint_000002"), {}, {})
    assert sorted(path.name for path in saved.parent.iterdir()) == ["checkpoint_000001", "checkpoint_000002"]


def test_two_writers_of_one_checkpoint_are_told(saved: Path) -> None:
    with locked(saved), pytest.raises(CheckpointError, match=rf"process {os.getpid()} is writing the checkpoint"):
        save_checkpoint(saved, {}, {"algorithm": "DQN"})
    assert read_metadata(saved) == METADATA
    half = saved.with_name(".tmp-" + saved.name)
    half.mkdir()
    with locked(saved):
        save_checkpoint(saved.with_name("checkpoint_000002"), {}, {})  # another one may be written at the same time
        assert half.exists(), "what somebody is writing is left alone"
    assert sorted(path.name for path in saved.parent.iterdir() if "lock" in path.name) == []


def test_a_checkpoint_is_read_of_one_save_while_it_is_replaced_all_the_time(saved: Path) -> None:
    """Metadata and trees come from the same one."""
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            array = np.full(50_000, number, np.int32)
            save_checkpoint(saved, {"a": array, "b": array}, {"number": number})

    save_checkpoint(saved, {"a": np.zeros(50_000, np.int32), "b": np.zeros(50_000, np.int32)}, {"number": 0})
    writer = threading.Thread(target=replace)
    writer.start()
    try:
        like = jax.ShapeDtypeStruct((50_000,), np.int32)
        for _ in range(20):
            opened = open_checkpoint(saved)
            number = opened.metadata["number"]
            assert {number} == set(opened.load("a", like).tolist()) == set(opened.load("b", like).tolist())
    finally:
        stop.set()
        writer.join()


def test_what_was_opened_stays_what_it_was(saved: Path) -> None:
    opened = open_checkpoint(saved)
    save_checkpoint(saved, {}, {"algorithm": "DQN"})
    assert_same(opened.load("run", example_tree()), example_tree())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = save_checkpoint(tmp_path / "checkpoint", {"run": np.ones(3)}, {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666 & ~mask}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


# What takes room


def test_zeros_at_the_end_of_a_large_array_take_no_room_and_come_back(tmp_path: Path) -> None:
    memory = {"table": np.zeros((100_000, 4), np.float32), "full": np.ones(30_000), "empty": np.zeros((50_000, 2))}
    memory["table"][:10] = np.arange(40).reshape(10, 4)
    memory["negative"] = np.zeros(20_000)
    memory["negative"][15_000] = -0.0  # its bits are not all zero
    folder = save_checkpoint(tmp_path / "checkpoint", {"memory": memory}, {})
    assert (folder / "memory.safetensors").stat().st_size < 30_000 * 8 + 15_001 * 8 + 2_000
    assert_same(load_checkpoint(folder, {"memory": memory})["memory"], memory)
    longer = {**memory, "table": np.zeros((100_001, 4), np.float32)}
    with pytest.raises(CheckpointError, match=r"float32\[100000, 4\] there and float32\[100001, 4\] here"):
        load_checkpoint(folder, {"memory": longer})


@pytest.mark.parametrize("lengths", ["7", "[]", '{"a": "x"}', '{"a": 1}', "{", '{"a": -1}', '{"a": true}'])
def test_lengths_that_cannot_be_are_refused(saved: Path, lengths: str) -> None:
    safetensors.numpy.save_file({"a": np.ones(3)}, saved / "run.safetensors", {"lengths": lengths})
    content = (saved / "run.safetensors").read_bytes()
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite_manifest(
        saved, files=json.loads((saved / "manifest.json").read_bytes())["files"] | {"run.safetensors": entry}
    )
    with pytest.raises(CheckpointError, match=r"run\.safetensors is damaged"):
        load_checkpoint(saved, {"run": {"a": np.ones(3)}})


def test_a_tree_can_be_taken_out_of_a_checkpoint(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", {"agent": np.ones(3), "memory": np.ones(9)}, METADATA)
    for _ in range(2):  # the second time there is nothing to do
        drop_tree(folder, "memory")
        assert sorted(path.name for path in folder.iterdir()) == [
            "agent.safetensors",
            "checkpoint.json",
            "manifest.json",
        ]
        assert set(open_checkpoint(folder).files) == {"agent"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_kill_while_a_tree_is_taken_out_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", {"agent": np.ones(3), "memory": np.ones(9)}, METADATA)
    content = (folder / "memory.safetensors").read_bytes()
    drop_tree(folder, "memory")
    (folder / "memory.safetensors").write_bytes(content)  # the manifest was new, and the file not removed yet
    (tmp_path / ".lock-checkpoint").touch()
    (tmp_path / ".tmp-checkpoint").mkdir()
    (tmp_path / ".tmp-checkpoint" / ".manifest.json.1.tmp").touch()
    assert set(open_checkpoint(folder).files) == {"agent"}
    save_checkpoint(tmp_path / "checkpoint_next", {}, {})
    assert sorted(path.name for path in folder.iterdir()) == ["agent.safetensors", "checkpoint.json", "manifest.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "checkpoint_next"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"no part of a checkpoint \(first: checkpoint_000001\)"):
        save_checkpoint(tmp_path, {}, {})
    (saved / "film.mp4").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no part of a checkpoint \(first: film.mp4\)"):
        save_checkpoint(saved, {}, {})
    with pytest.raises(CheckpointError, match=r"thesis.tex is a file: a checkpoint is a folder"):
        save_checkpoint(tmp_path / "thesis.tex", {}, {})
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_may_become_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert read_metadata(save_checkpoint(tmp_path / "new", {}, {"a": 1})) == {"a": 1}


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int = 1_000_000

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: Usage())
    with pytest.raises(CheckpointError, match=r"has 1\.0 MB free, but this checkpoint needs 8\.1 MB: make room"):
        save_checkpoint(tmp_path / "big", {"run": np.ones(1_000_000)}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits on the size of files")
def test_a_disk_that_is_full_in_the_middle_is_told_by_file_and_folder(tmp_path: Path) -> None:
    """A limit on the size of files is the nearest to a full disk that a process can make."""
    program = (
        "import resource, sys, numpy as np\n"
        "from athlete.record.checkpoint import save_checkpoint, CheckpointError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: save_checkpoint(sys.argv[1], {'run': np.ones(100_000)}, {})\n"
        "except CheckpointError as error: print(error)"
    )
    folder = tmp_path / "checkpoint_000001"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert re.search(
        rf"run\.safetensors of the checkpoint {folder} could not be written: .*too large", done.stdout, re.I
    )
    assert list(tmp_path.iterdir()) == []


# What cannot be written


def test_metadata_that_json_would_change_are_refused_with_their_place(tmp_path: Path) -> None:
    for metadata, sentence in [
        ({"config": {"env": object}}, r"metadata\['config'\]\['env'\] is a type"),
        ({"layers": [{3: 1}]}, r"metadata\['layers'\]\[0\] has the key 3: keys must be strings"),
        ({"weights": np.ones(2)}, r"metadata\['weights'\] is a ndarray.*put arrays into a tree"),
    ]:
        with pytest.raises(CheckpointError, match=sentence):
            save_checkpoint(tmp_path / "checkpoint", {}, metadata)


def test_arrays_that_the_format_cannot_hold_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="array 'a/0' is of type complex128"):
        save_checkpoint(tmp_path / "checkpoint", {"run": {"a": [np.ones(2, complex)]}}, {})
    with pytest.raises(CheckpointError, match="array 'a' is of type object"):
        save_checkpoint(tmp_path / "checkpoint", {"run": {"a": object()}}, {})


def test_a_tree_cannot_be_named_like_a_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a tree cannot be named '\.\./run'"):
        save_checkpoint(tmp_path / "checkpoint", {"../run": np.ones(1)}, {})


# What is refused when reading


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere is not a checkpoint: there is no such folder"):
        read_metadata(tmp_path / "nowhere")
    (tmp_path / "model.zip").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"model.zip is not a checkpoint: it is a file"):
        read_metadata(tmp_path / "model.zip")
    with pytest.raises(CheckpointError, match=r"is not a checkpoint of Athlete: it has no manifest\.json"):
        load_checkpoint(tmp_path, {})
    save_checkpoint(tmp_path / "checkpoint_000003", {}, {})
    with pytest.raises(CheckpointError, match=r"it has no manifest\.json; did you mean .*checkpoint_000003\?"):
        read_metadata(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(CheckpointError, match=r"not a checkpoint of Athlete: its manifest\.json is of another kind"):
        load_checkpoint(tmp_path, {})


@pytest.mark.parametrize("name", ["checkpoint.json", "manifest.json", "run.safetensors"])
def test_an_incomplete_checkpoint_is_refused_by_the_name_of_the_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=rf"is incomplete: {re.escape(name)} is missing"):
        load_checkpoint(saved, {"run": example_tree()})


@given(
    position=st.integers(0, 10**6), mask=st.integers(1, 255), name=st.sampled_from(["checkpoint", "manifest", "run"])
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_anywhere_is_refused(saved: Path, position: int, mask: int, name: str) -> None:
    (path,) = saved.glob(f"{name}.*")
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= mask
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"damaged|not a checkpoint of Athlete"):
            load_checkpoint(saved, {"run": example_tree()})
        if name != "run":
            with pytest.raises(CheckpointError):
                read_metadata(saved)
    finally:
        path.write_bytes(whole)


@given(kept=st.floats(0, 1, exclude_max=True), name=st.sampled_from(["checkpoint", "manifest", "run"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_is_refused(saved: Path, kept: float, name: str) -> None:
    (path,) = saved.glob(f"{name}.*")
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(
            CheckpointError, match="damaged" if name == "manifest" else rf"{path.name} .* is cut: it has"
        ):
            load_checkpoint(saved, {"run": example_tree()})
    finally:
        path.write_bytes(whole)


def test_a_damaged_file_is_named(saved: Path) -> None:
    content = bytearray((saved / "run.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "run.safetensors").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"run\.safetensors of the checkpoint .* is damaged: its SHA-256 sum differs"
    ):
        load_checkpoint(saved, {"run": example_tree()})


@pytest.mark.parametrize(
    ("version", "advice"), [(3, "install a newer"), ("x", "install a newer"), (1, r"that wrote it \(0\.1\)")]
)
def test_another_format_is_refused_with_what_to_do(saved: Path, version: Any, advice: str) -> None:
    rewrite_manifest(saved, version=version)
    for read in (read_metadata, open_checkpoint):
        with pytest.raises(
            CheckpointError, match=f"has format version {version}, and this Athlete reads 2: .*{advice}"
        ):
            read(saved)


def test_a_tree_that_was_not_saved_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no tree 'store' \(it holds: run\)"):
        load_checkpoint(saved, {"store": np.ones(1)})


def test_missing_and_unknown_arrays_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", {"run": {"a": np.ones(1), "b": np.ones(1)}}, {})
    with pytest.raises(CheckpointError, match=r"lacks 2 arrays that are needed here \(first: 'c'\)"):
        load_checkpoint(folder, {"run": {"a": np.ones(1), "c": np.ones(1), "d": np.ones(1)}})
    with pytest.raises(CheckpointError, match=r"has 1 arrays that are unknown here \(first: 'b'\)"):
        load_checkpoint(folder, {"run": {"a": np.ones(1)}})


def test_foreign_shapes_and_types_are_refused_with_both_forms(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "checkpoint", {"run": {"a": np.ones((4, 64), np.float32), "n": np.ones(2)}}, {})
    with pytest.raises(CheckpointError, match=r"'a' is float32\[4, 64\] there and float32\[8, 64\] here; restore with"):
        load_checkpoint(folder, {"run": {"a": np.ones((8, 64), np.float32), "n": np.ones(2)}})
    with pytest.raises(CheckpointError, match=r"'a' is float32\[4, 64\] there and int32\[4, 64\] here \(and 1 more\)"):
        load_checkpoint(folder, {"run": {"a": np.ones((4, 64), np.int32), "n": np.ones(3)}})


def test_another_algorithm_and_other_spaces_are_refused() -> None:
    observation, action = Box(-1, 1, (4,)), Discrete(2)
    metadata = {
        "algorithm": "PPO",
        "observation_space": space_to_json(observation),
        "action_space": space_to_json(action),
    }
    check_compatible(metadata, algorithm="PPO", observation_space=observation, action_space=action)
    with pytest.raises(CheckpointError, match="written by PPO, and this is DQN"):
        check_compatible(metadata, algorithm="DQN", observation_space=observation, action_space=action)
    with pytest.raises(
        CheckpointError, match=r"the action space Discrete\(n=2, start=0\).*has Discrete\(n=3, start=0\)"
    ):
        check_compatible(metadata, algorithm="PPO", observation_space=observation, action_space=Discrete(3))
    with pytest.raises(CheckpointError, match=r"the observation space Box.*restore it on the environment"):
        check_compatible(metadata, algorithm="PPO", observation_space=Box(-1, 1, (5,)), action_space=action)


# Nothing is executed

HOSTILE = {
    "algorithm": "__import__('os').system('touch executed')",
    "py/object": "os.system",
    "__reduce__": ["os.system", ["touch executed"]],
    "observation_space": {"type": "__import__('os').system('touch executed')"},
}


def test_a_hostile_checkpoint_is_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    metadata = read_metadata(save_checkpoint(tmp_path / "checkpoint", {}, HOSTILE))
    assert metadata == HOSTILE
    with pytest.raises(CheckpointError):
        check_compatible(metadata, algorithm="PPO", observation_space=Discrete(1), action_space=Discrete(1))
    with pytest.raises(CheckpointError, match="describes no space"):
        space_from_json(metadata["observation_space"])
    assert not (tmp_path / "executed").exists()


def test_a_pickle_in_the_place_of_arrays_is_refused_even_with_the_right_sum(saved: Path) -> None:
    pickled = b"cos\nsystem\n(S'touch executed'\ntR."  # what a pickle loader would run
    (saved / "run.safetensors").write_bytes(pickled)
    entry = {"size": len(pickled), "sha256": hashlib.sha256(pickled).hexdigest()}
    files = json.loads((saved / "manifest.json").read_bytes())["files"] | {"run.safetensors": entry}
    rewrite_manifest(saved, files=files)
    with pytest.raises(CheckpointError, match=r"run\.safetensors is damaged: it is not a safetensors file"):
        load_checkpoint(saved, {"run": example_tree()})


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/run.safetensors", "run.pkl"])
def test_a_manifest_cannot_lead_out_of_its_folder(saved: Path, name: str) -> None:
    rewrite_manifest(saved, files={name: {"size": 1, "sha256": ""}})
    with pytest.raises(CheckpointError, match="lists files that no checkpoint has"):
        load_checkpoint(saved, {})


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b"[]", b""])
def test_hostile_json_is_refused_with_a_sentence(saved: Path, content: bytes) -> None:
    (saved / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged: it is not JSON|of another kind"):
        read_metadata(saved)


def test_reading_metadata_imports_neither_jax_nor_anything_that_can_execute(saved: Path) -> None:
    program = (
        "import sys\n"
        "from athlete.record.checkpoint import read_metadata\n"
        f"print(read_metadata({str(saved)!r})['algorithm'], 'jax' in sys.modules, 'cloudpickle' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["PPO", "False", "False"]


# Pickles go only through pipes between a process and the children that it started itself, never through files.
PIPES_TO_CHILDREN = {"tune/worker.py", "env/adapters/processes.py", "env/adapters/making.py", "worker_processes.py"}
# RLlib's packed columns are pickles: its own reader of them refuses all but arrays (`tests/test_offline_data.py`).
ARRAYS_ONLY = {"offline/rllib_json.py"}
PICKLE = re.compile(r"^\s*(?:import|from)\s+(?:pickle|cPickle|cloudpickle|dill|joblib|shelve|marshal)\b", re.MULTILINE)
EXECUTES = re.compile(
    r"allow_pickle\s*=\s*True|(?<![\w.])(?:eval|exec)\("
    r"|yaml\.(?:unsafe_load|full_load|UnsafeLoader|FullLoader|Loader)\b|yaml\.load\([^,)]*\)"
)


def test_the_package_has_no_code_that_executes_what_it_reads() -> None:
    assert all(PICKLE.search(text) for text in ("import pickle", "    from cloudpickle import loads"))
    assert all(EXECUTES.search(text) for text in ("x = eval('1')", "np.load(f, allow_pickle=True)", "yaml.load(text)"))
    package = Path(athlete.__file__).parent
    sources = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    assert len(sources) > 20
    assert {name for name, source in sources.items() if PICKLE.search(source)} <= PIPES_TO_CHILDREN | ARRAYS_ONLY
    assert not any(re.search(r"pickle\.loads?\(", sources[name]) for name in ARRAYS_ONLY)
    assert {name for name, source in sources.items() if EXECUTES.search(source)} == set()

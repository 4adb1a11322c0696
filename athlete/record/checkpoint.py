"""Checkpoints on disk: safetensors for arrays, JSON for the rest, a manifest of sums; nothing is executed on load.

A checkpoint is a folder:

    run.safetensors      one file for each named tree; an array's name is its path: `state/params/policy/0/kernel`
    checkpoint.json      the caller's metadata: algorithm, spaces, configuration, versions, counters
    manifest.json        format version, and the size and SHA-256 of every other file; it carries its own sum too

It is written beside its place and renamed, so a folder of that name is always a whole checkpoint. Files that the
manifest does not list are ignored. `read_metadata` needs neither JAX nor the user's code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from athlete.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple, nested_tuples

Tree = Any  # a pytree of arrays; `athlete.core` has the same word, but importing it would import JAX

FORMAT = "athlete checkpoint"
FORMAT_VERSION = 1
METADATA_FILE = "checkpoint.json"
MANIFEST_FILE = "manifest.json"

_TREE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LISTED_FILE = re.compile(r"checkpoint\.json|[A-Za-z0-9_-]+\.safetensors")
_NUMBERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_ARRAY_TYPES = frozenset(("bool", "bfloat16", "complex64", *_NUMBERS))


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; the message is one sentence that says which and why."""


# Writing


def save_checkpoint(folder: str | Path, trees: Mapping[str, Tree], metadata: Mapping[str, Any]) -> Path:
    """Write `trees` and `metadata` as the checkpoint `folder` and return its absolute path.

    `trees` maps a name to a pytree of arrays; `{"run": run}` becomes `run.safetensors`. Every array is kept exactly,
    whatever its shape (zero-size and scalar too); of data types, those of safetensors that NumPy and JAX share.
    `metadata` is JSON: dictionaries with string keys, lists or tuples (read back as lists), strings, numbers, None.
    A checkpoint that is already in `folder` stays until the new one is complete.

    Raises CheckpointError if a value cannot be kept exactly, if the disk lacks the space, or if `folder` holds
    anything that is not a checkpoint (it would be lost).
    """
    folder = Path(folder).resolve()
    _check_json(metadata, "metadata")
    document = _json_bytes(metadata)
    files = {_tree_file(name): _host_arrays(tree) for name, tree in trees.items()}
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_free_space(folder.parent, files, len(document))

    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # what a killed process left
    temporary.mkdir()
    try:
        import safetensors.numpy  # here, so that a training that saves nothing does not import it

        for file_name, arrays in files.items():
            safetensors.numpy.save_file(arrays, temporary / file_name)
        (temporary / METADATA_FILE).write_bytes(document)
        (temporary / MANIFEST_FILE).write_bytes(_manifest_bytes(temporary))
        for path in temporary.iterdir():
            _flush_file(path)
        _flush_folder(temporary)
        _put_in_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _tree_file(name: str) -> str:
    if not _TREE_NAME.fullmatch(name):
        raise CheckpointError(f"a tree cannot be named {name!r}: use letters, digits, '_' and '-'")
    return f"{name}.safetensors"


def _named_leaves(tree: Tree) -> tuple[dict[str, Any], Any]:
    """Each leaf by the name of its path, and the tree's structure."""
    from jax import tree_util  # here, so that reading metadata does not import JAX

    paths, structure = tree_util.tree_flatten_with_path(tree)
    leaves = {"/".join(_path_part(tree_util.keystr((key,), simple=True)) for key in path): leaf for path, leaf in paths}
    if len(leaves) != len(paths):
        raise CheckpointError("two arrays of the tree have the same path: name the keys of its dictionaries otherwise")
    return leaves, structure


def _path_part(part: str) -> str:
    """One step of a path, escaped so that different paths never have the same name."""
    escaped = part.replace("%", "%25").replace("/", "%2F")
    return "%5F_metadata__" if escaped == "__metadata__" else escaped  # safetensors keeps that name for itself


def _host_arrays(tree: Tree) -> dict[str, np.ndarray]:
    arrays = {}
    for name, leaf in _named_leaves(tree)[0].items():
        # C order: safetensors writes an array's memory as it lies.
        arrays[name] = np.asarray(leaf, order="C")
        if arrays[name].dtype.name not in _ARRAY_TYPES:
            raise CheckpointError(
                f"array {name!r} is of type {arrays[name].dtype.name}, which a checkpoint cannot hold: "
                f"use one of {', '.join(sorted(_ARRAY_TYPES))}"
            )
    return arrays


def _check_json(value: Any, where: str) -> None:
    """Raise CheckpointError unless JSON gives `value` back, but for tuples, which come back as lists."""
    if value is None or isinstance(value, bool | int | float | str):
        return
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                raise CheckpointError(f"{where} has the key {key!r}: keys must be strings")
            _check_json(part, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            _check_json(part, f"{where}[{index}]")
    else:
        raise CheckpointError(
            f"{where} is a {type(value).__name__}: metadata may hold dictionaries, lists, strings, numbers and None; "
            "put arrays into a tree"
        )


def _json_bytes(value: Any) -> bytes:
    """The one way in which a value is written: bytes can be compared. Infinities are spelled as Python reads them."""
    return (json.dumps(value, indent=1, default=dict) + "\n").encode()


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: a checkpoint is a folder, choose another path")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if name != MANIFEST_FILE and not _LISTED_FILE.fullmatch(name)]
    if foreign or (names and MANIFEST_FILE not in names):
        raise CheckpointError(
            f"{folder} holds files that are no part of a checkpoint (first: {(foreign or names)[0]}) and would be "
            "lost: choose another folder, or empty this one"
        )


def _check_free_space(parent: Path, files: Mapping[str, Mapping[str, np.ndarray]], document_size: int) -> None:
    """Raise CheckpointError unless the disk of `parent` has room for the new checkpoint beside the old one."""
    array_bytes = sum(array.nbytes for arrays in files.values() for array in arrays.values())
    header_bytes = sum(len(name) + 200 for arrays in files.values() for name in arrays)
    needed = array_bytes + header_bytes + document_size + 65_536
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise CheckpointError(
            f"the disk of {parent} has {free / 1e6:,.1f} MB free, but this checkpoint needs {needed / 1e6:,.1f} MB: "
            "make room, keep fewer checkpoints or choose another folder"
        )


def _manifest_bytes(folder: Path) -> bytes:
    """The manifest of the files that lie in `folder`."""
    files = {path.name: {"size": path.stat().st_size, "sha256": _sum_of(path)} for path in sorted(folder.iterdir())}
    return _json_bytes(_sealed({"format": FORMAT, "version": FORMAT_VERSION, "files": files}))


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the sum of all its other entries. Later format versions must keep this rule."""
    entries = {name: value for name, value in manifest.items() if name != "sha256"}
    return entries | {"sha256": hashlib.sha256(_json_bytes(entries)).hexdigest()}


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush_file(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replaced(folder: Path) -> Path:
    """Where the old checkpoint waits while the new one takes its place."""
    return folder.with_name(f".replaced-{folder.name}")


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename the complete `temporary` to `folder`; after a kill between the renames, `_located` finds the old one."""
    if folder.exists():
        shutil.rmtree(_replaced(folder), ignore_errors=True)
        folder.rename(_replaced(folder))
    temporary.rename(folder)
    _flush_folder(folder.parent)
    shutil.rmtree(_replaced(folder), ignore_errors=True)


# Reading


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """The metadata of a checkpoint, its sum verified. Imports no user code and no JAX.

    Raises CheckpointError if `folder` is not a checkpoint, or one of a newer format, or if its manifest or metadata
    are missing, cut or damaged.
    """
    folder = _located(folder)
    _verify_file(folder, METADATA_FILE, _read_manifest(folder).get(METADATA_FILE, {}))
    metadata = _parse_json(folder, METADATA_FILE)
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{METADATA_FILE} of the checkpoint {folder} is damaged: it holds no JSON object")
    return metadata


def load_checkpoint(folder: str | Path, likes: Mapping[str, Tree]) -> dict[str, Tree]:
    """The trees of a checkpoint, as NumPy arrays in the structure of `likes`, after verifying every file's sum.

    `likes` maps a tree's name to a pytree of arrays or `jax.ShapeDtypeStruct`: what the caller would have saved. The
    checkpoint must have the same array names, shapes and data types. Trees of the checkpoint that `likes` does not
    name are verified and left out.

    Raises CheckpointError if the checkpoint is incomplete, cut, damaged, of a newer format, or does not fit `likes`.
    """
    folder = _located(folder)
    manifest = _read_manifest(folder)
    for file_name, entry in manifest.items():
        _verify_file(folder, file_name, entry)
    trees = {}
    for name, like in likes.items():
        if _tree_file(name) not in manifest:
            held = ", ".join(sorted(file.removesuffix(".safetensors") for file in manifest if file != METADATA_FILE))
            raise CheckpointError(f"the checkpoint {folder} holds no tree {name!r} (it holds: {held or 'none'})")
        trees[name] = _load_tree(folder / _tree_file(name), like)
    return trees


def _load_tree(path: Path, like: Tree) -> Tree:
    import safetensors.numpy

    leaves, structure = _named_leaves(like)
    try:
        arrays = safetensors.numpy.load_file(path)
    except Exception as error:  # the sum is right, so whoever wrote the file wrote it wrong
        raise CheckpointError(f"{path} is damaged: it is not a safetensors file ({error})") from error
    _refuse_any(path, "lacks", "that are needed here", [name for name in leaves if name not in arrays])
    _refuse_any(path, "has", "that are unknown here", [name for name in arrays if name not in leaves])
    misfits = [
        f"{name!r} is {_form(arrays[name])} there and {_form(leaf)} here"
        for name, leaf in leaves.items()
        if _form(arrays[name]) != _form(leaf)
    ]
    if misfits:
        others = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
        raise CheckpointError(
            f"{path} has arrays of other shapes: {misfits[0]}{others}; restore with the configuration and spaces "
            "that it was trained with"
        )
    return structure.unflatten([arrays[name] for name in leaves])


def _refuse_any(path: Path, verb: str, why: str, names: list[str]) -> None:
    if names:
        raise CheckpointError(
            f"{path} {verb} {len(names)} arrays {why} (first: {min(names)!r}): "
            "restore with the algorithm and model settings that it was trained with"
        )


def _form(array: Any) -> str:
    """Shape and data type as text: `float32[4, 64]`."""
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def _located(folder: str | Path) -> Path:
    """The folder to read: `folder`, or the old checkpoint if a process was killed while replacing it."""
    folder = Path(folder).resolve()
    if not folder.exists() and _replaced(folder).is_dir():
        return _replaced(folder)
    return folder


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries of the manifest, file name -> {"size", "sha256"}, after checking the manifest itself."""
    if not folder.is_dir():
        what = "it is a file, and a checkpoint is a folder" if folder.exists() else "there is no such folder"
        raise CheckpointError(f"{folder} is not a checkpoint: {what}")
    if not (folder / MANIFEST_FILE).is_file():
        if (folder / METADATA_FILE).exists():
            raise CheckpointError(f"the checkpoint {folder} is incomplete: {MANIFEST_FILE} is missing")
        inside = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST_FILE}"))
        hint = f"; did you mean {folder / inside[-1]}?" if inside else ""
        raise CheckpointError(f"{folder} is not a checkpoint of Athlete: it has no {MANIFEST_FILE}{hint}")
    manifest = _parse_json(folder, MANIFEST_FILE)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder} is not a checkpoint of Athlete: its {MANIFEST_FILE} is of another kind")
    if (folder / MANIFEST_FILE).read_bytes() != _json_bytes(_sealed(manifest)):
        raise CheckpointError(f"{MANIFEST_FILE} of the checkpoint {folder} is damaged: its sum differs")
    if manifest.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            f"the checkpoint {folder} has format version {manifest.get('version')}, and this Athlete reads "
            f"{FORMAT_VERSION}: install a newer Athlete"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_LISTED_FILE.fullmatch(name) for name in files):
        raise CheckpointError(f"{MANIFEST_FILE} of the checkpoint {folder} lists files that no checkpoint has")
    return files


def _parse_json(folder: Path, file_name: str) -> Any:
    try:
        return json.loads((folder / file_name).read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file_name} of the checkpoint {folder} is damaged: it is not JSON") from error


def _verify_file(folder: Path, file_name: str, entry: Any) -> None:
    path = folder / file_name
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {folder} is incomplete: {file_name} is missing")
    if not isinstance(entry, dict) or not {"size", "sha256"} <= entry.keys():
        raise CheckpointError(f"{MANIFEST_FILE} of the checkpoint {folder} is damaged: it has no sum of {file_name}")
    size = path.stat().st_size
    if size != entry["size"]:
        raise CheckpointError(
            f"{file_name} of the checkpoint {folder} is cut: it has {size} bytes, and {entry['size']} were written"
        )
    if _sum_of(path) != entry["sha256"]:
        raise CheckpointError(f"{file_name} of the checkpoint {folder} is damaged: its SHA-256 sum differs")


# Spaces and compatibility


def check_compatible(
    metadata: Mapping[str, Any], *, algorithm: str, observation_space: Space, action_space: Space
) -> None:
    """Raise CheckpointError unless `metadata` names this algorithm and these spaces.

    It reads the entries "algorithm" (a name), "observation_space" and "action_space" (`space_to_json`).
    """
    if metadata.get("algorithm") != algorithm:
        raise CheckpointError(
            f"the checkpoint was written by {metadata.get('algorithm')}, and this is {algorithm}: "
            f"restore it with {metadata.get('algorithm')}, or with Algorithm.from_checkpoint, which needs no config"
        )
    for entry, here in (("observation_space", observation_space), ("action_space", action_space)):
        there = space_from_json(metadata.get(entry))
        if there != here:
            raise CheckpointError(
                f"the checkpoint was trained with the {entry.replace('_', ' ')} {there}, and this environment has "
                f"{here}: restore it on the environment that it was trained on"
            )


def space_to_json(space: Space) -> dict[str, Any]:
    """A space of `athlete.spaces` as JSON, exactly: bounds in full precision, infinities as "inf" and "-inf".

    Raises TypeError for any other object.
    """
    kind = {"type": type(space).__name__}
    if isinstance(space, Box):
        bounds = {"low": _bounds_to_json(space.low), "high": _bounds_to_json(space.high)}
        return kind | {"shape": list(space.shape), "dtype": space.dtype.name} | bounds
    if isinstance(space, Discrete):
        return kind | {"n": int(space.n), "start": int(space.start)}
    if isinstance(space, MultiDiscrete):
        start = None if space.start is None else space.lowest.tolist()
        return kind | {"nvec": np.asarray(space.nvec).tolist(), "start": start}
    if isinstance(space, MultiBinary):
        return kind | {"size": [int(value) for value in space.size]}
    if isinstance(space, Tuple | OneOf):
        return kind | {"spaces": [space_to_json(part) for part in space.spaces]}
    if isinstance(space, Dict):
        return kind | {"items": {name: space_to_json(part) for name, part in space.items}}
    raise TypeError(f"{type(space).__name__} is not a space of athlete.spaces")


def space_from_json(form: Any) -> Space:
    """The space that `space_to_json` described. Raises CheckpointError if `form` describes none."""
    try:
        return _space_from_json(form)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"this describes no space: {str(form)[:200]}") from error


def _space_from_json(form: Any) -> Space:
    kind = form["type"]
    if kind == "Box":
        if form["dtype"] not in _ARRAY_TYPES:
            raise ValueError(form["dtype"])
        shape, dtype = _integers(form["shape"]), np.dtype(form["dtype"])
        low, high = (_bounds_from_json(form[bound], shape, dtype) for bound in ("low", "high"))
        return Box(low, high, shape, dtype)
    if kind == "Discrete":
        return Discrete(int(form["n"]), int(form["start"]))
    if kind == "MultiDiscrete":
        start = None if form["start"] is None else nested_tuples(form["start"])
        return MultiDiscrete(nested_tuples(form["nvec"]), start)
    if kind == "MultiBinary":
        return MultiBinary(_integers(form["size"]))
    if kind == "Tuple":
        return Tuple(tuple(_space_from_json(part) for part in form["spaces"]))
    if kind == "OneOf":
        return OneOf(tuple(_space_from_json(part) for part in form["spaces"]))
    if kind == "Dict":
        return Dict({name: _space_from_json(part) for name, part in form["items"].items()})
    raise ValueError(kind)


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _bounds_to_json(bounds: np.ndarray) -> Any:
    """One number where all bounds are the same, else the list of all in C order."""
    values = [value if np.isfinite(value) else str(value) for value in bounds.ravel().tolist()]
    uniform = bool(values) and bounds.tobytes() == bounds.ravel()[:1].tobytes() * bounds.size
    return values[0] if uniform else values


def _bounds_from_json(form: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    values = form if isinstance(form, list) else [form]
    array = np.array([float(value) if isinstance(value, str) else value for value in values], dtype)
    return array.reshape(shape) if isinstance(form, list) else array[0]

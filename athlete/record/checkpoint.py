"""Checkpoints on disk: safetensors for arrays, JSON for the rest, a manifest of sums; nothing is executed on load.

A checkpoint is a folder:

    run.safetensors      one file for each named tree; an array's name is its path: `state/params/policy/0/kernel`
    checkpoint.json      the caller's metadata: algorithm, spaces, configuration, versions, counters
    manifest.json        format version, and the size and SHA-256 of every other file; it carries its own sum too

It is written beside its place and renamed, so a folder of that name is always a whole checkpoint. Files that the
manifest does not list are ignored. `read_metadata` needs neither JAX nor the user's code.

Of a large array, entries of zeros at the end of its first axis are left out: a replay memory takes the room of what is
in it. The file's own metadata say how long such arrays are.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from athlete.record.arrays import open_arrays, save_arrays
from athlete.record.errors import CheckpointError, DamagedError, LockedError
from athlete.record.files import flush, flush_folder, locked, write_beside

Tree = Any  # a pytree of arrays; `athlete.core` has the same word, but importing it would import JAX

FORMAT = "athlete checkpoint"
FORMAT_VERSION = 2
METADATA_FILE = "checkpoint.json"
MANIFEST_FILE = "manifest.json"
LARGE = 65_536  # bytes of an array, from which on zeros at its end are left out

_TREE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LISTED_FILE = re.compile(r"checkpoint\.json|[A-Za-z0-9_-]+\.safetensors")
_NUMBERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_ARRAY_TYPES = frozenset(("bool", "bfloat16", "complex64", *_NUMBERS))
_LENGTHS = "lengths"  # in a file's own metadata: the lengths of the arrays whose zeros were left out
_TRIES = 5  # at reading a checkpoint that is being replaced


# Writing


def save_checkpoint(folder: str | Path, trees: Mapping[str, Tree], metadata: Mapping[str, Any]) -> Path:
    """Write `trees` and `metadata` as the checkpoint `folder` and return its absolute path.

    `trees` maps a name to a pytree of arrays; `{"run": run}` becomes `run.safetensors`. Every array is kept exactly,
    whatever its shape (zero-size and scalar too); of data types, those of safetensors that NumPy and JAX share.
    `metadata` is JSON: dictionaries with string keys, lists or tuples (read back as lists), strings, numbers, None.
    A checkpoint that is already in `folder` stays until the new one is complete.

    Raises CheckpointError if a value cannot be kept exactly, if the disk lacks the space, if somebody else is writing
    this checkpoint, or if `folder` holds anything that is not a checkpoint (it would be lost).
    """
    folder = Path(folder).resolve()
    _check_json(metadata, "metadata")
    document = _json_bytes(metadata)
    files = {_tree_file(name): _without_trailing_zeros(_host_arrays(tree)) for name, tree in trees.items()}
    _check_replaceable(folder)
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _check_free_space(folder.parent, files, len(document))
        _sweep(folder.parent)
        with locked(folder):
            _write(folder, files, document)
    return folder


def is_checkpoint(folder: Path) -> bool:
    """Whether `folder` looks like a checkpoint; its sums are not asked."""
    return (folder / MANIFEST_FILE).is_file()


def drop_tree(folder: str | Path, name: str) -> None:
    """Take a tree out of a checkpoint, which stays whole at every moment; nothing where it has none of that name."""
    folder = _located(folder)
    with _explained(folder), locked(folder):
        files = _listed(folder, _read_manifest(folder))
        if files.pop(_tree_file(name), None) is not None:
            temporary = _fresh_temporary(folder)  # beside the folder, where a sweep finds what a killed process left
            try:
                write_beside(temporary / MANIFEST_FILE, _manifest_bytes(files))
                (temporary / MANIFEST_FILE).replace(folder / MANIFEST_FILE)
                flush_folder(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            (folder / _tree_file(name)).unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What the disk and the lock say about `folder`, as CheckpointError."""
    try:
        yield
    except LockedError as holder:
        raise CheckpointError(
            f"{holder} is writing the checkpoint {folder} at this moment: give each training a folder of its own"
        ) from holder
    except OSError as error:
        file = f"{Path(error.filename).name} of " if error.filename else ""
        raise CheckpointError(
            f"{file}the checkpoint {folder} could not be written: {error.strerror or error}"
        ) from error


def _write(folder: Path, files: Mapping[str, _Arrays], document: bytes) -> None:
    temporary = _fresh_temporary(folder)
    try:
        (temporary / METADATA_FILE).write_bytes(document)
        for file_name, arrays in files.items():
            _write_arrays(temporary / file_name, arrays)
        listed = {path.name: {"size": path.stat().st_size, "sha256": _sum_of(path)} for path in temporary.iterdir()}
        (temporary / MANIFEST_FILE).write_bytes(_manifest_bytes(listed))
        for path in temporary.iterdir():
            with path.open("r+b") as file:
                flush(file)
        flush_folder(temporary)
        _put_in_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


class _Arrays(NamedTuple):
    """What a file holds: arrays by name, and the lengths of those whose trailing zeros were left out."""

    arrays: dict[str, np.ndarray]
    lengths: dict[str, int]


def _write_arrays(path: Path, kept: _Arrays) -> None:
    save_arrays(path, kept.arrays, {_LENGTHS: json.dumps(kept.lengths)} if kept.lengths else None)
    path.chmod((path.parent / METADATA_FILE).stat().st_mode & 0o777)  # it gives 0600, whatever the umask says


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


def _without_trailing_zeros(arrays: dict[str, np.ndarray]) -> _Arrays:
    filled = {name: _filled(array) if array.nbytes >= LARGE else None for name, array in arrays.items()}
    cut = {name: length for name, length in filled.items() if length is not None and length < len(arrays[name])}
    kept = {name: array[: cut[name]] if name in cut else array for name, array in arrays.items()}
    return _Arrays(kept, {name: len(arrays[name]) for name in cut})


def _filled(array: np.ndarray) -> int | None:
    """The length of the first axis without the entries at its end whose bits are all zero; None where it has none."""
    if array.ndim == 0:
        return None
    entries = array.reshape(len(array), -1).view(np.uint8)
    step, end = max(1, 2**22 // entries.shape[1]), len(entries)
    while end > 0:
        start = max(0, end - step)
        used = np.flatnonzero(entries[start:end].any(axis=1))
        if used.size:
            return start + int(used[-1]) + 1
        end = start
    return 0


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


def _check_free_space(parent: Path, files: Mapping[str, _Arrays], document_size: int) -> None:
    """Raise CheckpointError unless the disk of `parent` has room for the new checkpoint beside the old one."""
    array_bytes = sum(array.nbytes for kept in files.values() for array in kept.arrays.values())
    header_bytes = sum(len(name) + 200 for kept in files.values() for name in kept.arrays)
    needed = array_bytes + header_bytes + document_size + 65_536
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise CheckpointError(
            f"the disk of {parent} has {free / 1e6:,.1f} MB free, but this checkpoint needs {needed / 1e6:,.1f} MB: "
            "make room, keep fewer checkpoints or choose another folder"
        )


def _manifest_bytes(files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The manifest of files with their sizes and sums."""
    return _json_bytes(_sealed({"format": FORMAT, "version": FORMAT_VERSION, "files": dict(sorted(files.items()))}))


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the sum of all its other entries. Later format versions must keep this rule."""
    entries = {name: value for name, value in manifest.items() if name != "sha256"}
    return entries | {"sha256": hashlib.sha256(_json_bytes(entries)).hexdigest()}


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(folder: Path, word: str) -> Path:
    """Where a checkpoint is on its way: `.tmp-NAME` while it is written, `.replaced-NAME` while a new one comes."""
    return folder.with_name(f".{word}-{folder.name}")


def _fresh_temporary(folder: Path) -> Path:
    temporary = _beside(folder, "tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return temporary


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename the complete `temporary` to `folder`; after a kill between the renames, `_located` finds the old one."""
    replaced = _beside(folder, "replaced")
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    temporary.rename(folder)
    flush_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Clear away what killed processes left beside the checkpoints of `parent`; who is still writing holds a lock."""
    for word, pattern in (("tmp", "*"), ("replaced", "*"), ("lock", "checkpoint*")):
        for left in parent.glob(f".{word}-{pattern}"):
            folder = parent / left.name.removeprefix(f".{word}-")
            with contextlib.suppress(LockedError), locked(folder):
                shutil.rmtree(_beside(folder, "tmp"), ignore_errors=True)
                if folder.exists():
                    shutil.rmtree(_beside(folder, "replaced"), ignore_errors=True)
                    _remove_unlisted(folder)


def _remove_unlisted(folder: Path) -> None:
    """Remove a tree that was taken out of the manifest of a checkpoint just before its process was killed."""
    try:
        files = _listed(folder, _read_manifest(folder))
    except CheckpointError:
        return
    for path in folder.glob("*.safetensors"):
        if path.name not in files:
            path.unlink(missing_ok=True)


# Reading


class OpenCheckpoint(NamedTuple):
    """A checkpoint whose every sum was right when it was opened, all of its parts of one save.

    It stays what it was, whatever happens to its folder: arrays are read from the files that were open then.
    """

    folder: Path
    metadata: dict[str, Any]
    files: dict[str, Any]  # the name of a tree -> its open file of safetensors

    def load(self, name: str, like: Tree) -> Tree:
        """The tree `name` as NumPy arrays in the structure of `like`, of arrays or `jax.ShapeDtypeStruct`.

        Raises CheckpointError where it is not there, or has other arrays than `like`.
        """
        leaves, structure = _named_leaves(like)
        file = self._fitting(name, leaves)
        return structure.unflatten([_array_of(file, array_name, leaf) for array_name, leaf in leaves.items()])

    def require_fit(self, name: str, like: Tree) -> None:
        """Raise what `load` does for a tree that does not fit, reading no array."""
        self._fitting(name, _named_leaves(like)[0])

    def _fitting(self, name: str, leaves: Mapping[str, Any]) -> Any:
        if name not in self.files:
            held = ", ".join(sorted(self.files)) or "none"
            raise CheckpointError(f"the checkpoint {self.folder} holds no tree {name!r} (it holds: {held})")
        file, path = self.files[name], self.folder / _tree_file(name)
        there = _forms_in(path, file)
        _refuse_any(path, "lacks", "that are needed here", [array for array in leaves if array not in there])
        _refuse_any(path, "has", "that are unknown here", [array for array in there if array not in leaves])
        misfits = [
            f"{array!r} is {there[array]} there and {_form(leaf)} here"
            for array, leaf in leaves.items()
            if _form(leaf) != there[array]
        ]
        if misfits:
            others = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
            raise CheckpointError(
                f"{path} has arrays of other shapes: {misfits[0]}{others}; restore with the configuration and spaces "
                "that it was trained with"
            )
        return file


def open_checkpoint(folder: str | Path, trees: tuple[str, ...] | None = None) -> OpenCheckpoint:
    """The checkpoint in `folder`, after verifying every file's sum by one manifest; or only those of `trees`.

    Where another process replaces the checkpoint meanwhile, the new one is opened. Raises CheckpointError if it is
    incomplete, cut, damaged or of another format.
    """
    return _read_undisturbed(folder, functools.partial(_open, trees))


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """The metadata of a checkpoint, its sum verified. Imports no user code and no JAX.

    Raises CheckpointError if `folder` is not a checkpoint, or one of another format, or if its manifest or metadata
    are missing, cut or damaged.
    """
    return _read_undisturbed(folder, _read_metadata)


def load_checkpoint(folder: str | Path, likes: Mapping[str, Tree]) -> dict[str, Tree]:
    """The trees of a checkpoint, as NumPy arrays in the structure of `likes`, after verifying every file's sum.

    `likes` maps a tree's name to a pytree of arrays or `jax.ShapeDtypeStruct`: what the caller would have saved. The
    checkpoint must have the same array names, shapes and data types. Trees of the checkpoint that `likes` does not
    name are verified and left out.

    Raises CheckpointError if the checkpoint is incomplete, cut, damaged, of another format, or does not fit `likes`.
    """
    opened = open_checkpoint(folder)
    return {name: opened.load(name, like) for name, like in likes.items()}


def _read_undisturbed(folder: str | Path, read: Callable[[Path, dict[str, Any]], Any]) -> Any:
    """What `read(folder, manifest)` gives where the manifest is the same before and after it; else once more."""
    for attempt in range(_TRIES):
        before = _manifest_now(folder)
        located = _located(folder)
        try:
            found = read(located, _read_manifest(located))
            error = None
        except CheckpointError as failure:
            error = failure
        except OSError as failure:
            error = CheckpointError(f"the checkpoint {located} could not be read: {failure.strerror or failure}")
        if before == _manifest_now(folder) or attempt == _TRIES - 1:
            break
    if error is not None:
        raise error
    return found


def _manifest_now(folder: str | Path) -> bytes | None:
    try:
        return (_located(folder) / MANIFEST_FILE).read_bytes()
    except OSError:
        return None


def _open(trees: tuple[str, ...] | None, folder: Path, manifest: dict[str, Any]) -> OpenCheckpoint:
    files = {}
    for file_name, entry in _listed(folder, manifest).items():
        name = file_name.removesuffix(".safetensors")
        if file_name == METADATA_FILE or (trees is not None and name not in trees):
            continue
        _verify_file(folder, file_name, entry)
        try:
            files[name] = open_arrays(folder / file_name)
        except Exception as error:  # the sum is right, so whoever wrote the file wrote it wrong
            raise DamagedError(f"{folder / file_name} is damaged: it is not a safetensors file ({error})") from error
    return OpenCheckpoint(folder, _read_metadata(folder, manifest), files)


def _read_metadata(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    _verify_file(folder, METADATA_FILE, _listed(folder, manifest).get(METADATA_FILE, {}))
    metadata = _parse_json(folder, METADATA_FILE)
    if not isinstance(metadata, dict):
        raise DamagedError(f"{METADATA_FILE} of the checkpoint {folder} is damaged: it holds no JSON object")
    return metadata


def _forms_in(path: Path, file: Any) -> dict[str, str]:
    """The shape and type of every array of an open file, with the zeros that were left out."""
    forms, lengths = {}, _lengths_of(path, file)
    for name in file.keys():  # noqa: SIM118 (it is no dictionary)
        part = file.get_slice(name)
        shape = list(part.get_shape())
        if name in lengths:
            if not shape or lengths[name] < shape[0]:
                raise DamagedError(f"{path} is damaged: {name!r} is longer than it says")
            shape[0] = lengths[name]
        forms[name] = f"{_NAMES_OF_TYPES.get(part.get_dtype(), part.get_dtype())}{shape}"
    return forms


def _lengths_of(path: Path, file: Any) -> dict[str, int]:
    try:
        lengths = json.loads((file.metadata() or {}).get(_LENGTHS, "{}"))
        if all(isinstance(length, int) for length in lengths.values()):
            return lengths
    except (ValueError, AttributeError, RecursionError):
        pass
    raise DamagedError(f"{path} is damaged: its metadata hold no lengths of arrays")


_NAMES_OF_TYPES = {"BOOL": "bool", "BF16": "bfloat16", "C64": "complex64"}
_NAMES_OF_TYPES |= {kind[0].upper() + re.sub(r"\D", "", kind): kind for kind in _NUMBERS}  # "F32": "float32"


def _array_of(file: Any, name: str, like: Any) -> np.ndarray:
    part = file.get_tensor(name)
    shape = np.shape(like)
    if part.shape == shape:
        return part
    whole = np.zeros(shape, part.dtype)
    whole[: len(part)] = part
    return whole


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
    replaced = _beside(folder, "replaced")
    return replaced if not folder.exists() and replaced.is_dir() else folder


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, after checking it against its own sum."""
    if not folder.is_dir():
        what = "it is a file, and a checkpoint is a folder" if folder.exists() else "there is no such folder"
        raise CheckpointError(f"{folder} is not a checkpoint: {what}")
    if not (folder / MANIFEST_FILE).is_file():
        if (folder / METADATA_FILE).exists():
            raise DamagedError(f"the checkpoint {folder} is incomplete: {MANIFEST_FILE} is missing")
        inside = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST_FILE}"))
        hint = f"; did you mean {folder / inside[-1]}?" if inside else ""
        raise DamagedError(f"{folder} is not a checkpoint of Athlete: it has no {MANIFEST_FILE}{hint}")
    manifest = _parse_json(folder, MANIFEST_FILE)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DamagedError(f"{folder} is not a checkpoint of Athlete: its {MANIFEST_FILE} is of another kind")
    if (folder / MANIFEST_FILE).read_bytes() != _json_bytes(_sealed(manifest)):
        raise DamagedError(f"{MANIFEST_FILE} of the checkpoint {folder} is damaged: its sum differs")
    return manifest


def _listed(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The entries of a manifest, file name -> {"size", "sha256"}, of the format that is read here."""
    version = manifest.get("version")
    if version != FORMAT_VERSION:
        is_older = isinstance(version, int) and version < FORMAT_VERSION
        raise CheckpointError(
            f"the checkpoint {folder} has format version {version}, and this Athlete reads {FORMAT_VERSION}: "
            + ("go on with the Athlete that wrote it (0.1), or train anew" if is_older else "install a newer Athlete")
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(_LISTED_FILE.fullmatch(name) for name in files):
        raise DamagedError(f"{MANIFEST_FILE} of the checkpoint {folder} lists files that no checkpoint has")
    return files


def _parse_json(folder: Path, file_name: str) -> Any:
    try:
        return json.loads((folder / file_name).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{file_name} of the checkpoint {folder} is damaged: it is not JSON") from error


def _verify_file(folder: Path, file_name: str, entry: Any) -> None:
    path = folder / file_name
    if not path.is_file():
        raise DamagedError(f"the checkpoint {folder} is incomplete: {file_name} is missing")
    if not isinstance(entry, dict) or not {"size", "sha256"} <= entry.keys():
        raise DamagedError(f"{MANIFEST_FILE} of the checkpoint {folder} is damaged: it has no sum of {file_name}")
    size = path.stat().st_size
    if size != entry["size"]:
        raise DamagedError(
            f"{file_name} of the checkpoint {folder} is cut: it has {size} bytes, and {entry['size']} were written"
        )
    if _sum_of(path) != entry["sha256"]:
        raise DamagedError(f"{file_name} of the checkpoint {folder} is damaged: its SHA-256 sum differs")

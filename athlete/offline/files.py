"""Files of recorded steps: what is read is told by the ending. Our own, RLlib's JSON, NumPy's, Parquet; Minari's sets.

Our own file, `*.safetensors`, is that of the arrays of a `DataSet`, with its spaces as JSON in the header. It is by far
the fastest, keeps every bit, and holds nothing that could be executed.
"""

from __future__ import annotations

import glob
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from athlete.memory.room import SPARE, available_bytes, in_words
from athlete.offline.columns import columns_of, from_columns
from athlete.offline.dataset import DataError, DataSet, from_named, joined, named_leaves, spaces_of
from athlete.offline.minari_sets import is_minari, minari_blocks, read_minari
from athlete.offline.rllib_json import json_blocks, read_json, write_json
from athlete.offline.streamed import Blocks, Streamed, look_through
from athlete.offline.tables import from_frame, parquet_blocks, parquet_bytes, read_csv, read_parquet, write_parquet
from athlete.record.arrays import open_arrays, save_arrays
from athlete.record.errors import CheckpointError
from athlete.record.files import beside
from athlete.record.space_json import space_from_json, space_to_json

FORMAT = "athlete data"
VERSION = 1
Options = Mapping[str, Any]  # of `input_config`: max_episode_steps, format
COPIES = 2  # of the numbers in files: as they are read, and as they are learned from
PIECES = 16  # about so many are in memory at a time, where data are larger than it


def read_data(source: Any, options: Options | None = None, normalized: bool = False) -> DataSet:
    """A data set from wherever it is: a file, a folder, a pattern such as `"runs/*.json"`, a list of these, columns as
    a dictionary of arrays, a pandas frame, Minari's set or its name (`"minari:pointmaze/umaze-v2"`), or a `DataSet`.

    `options` are `max_episode_steps` (where a file tells `dones` alone: the time limit, which cuts episodes), and
    `format` ("json", "parquet", ...; where a file's ending does not tell it). `normalized` says that actions are in
    [-1, 1] whatever the space is.

    Raises DataError, naming file and row, for what cannot be read or learned from.
    """
    _require_room(source, options or {})
    data = _read(source, options or {})
    return data.as_normalized() if normalized else data


def _read(source: Any, options: Options) -> DataSet:
    if isinstance(source, DataSet):
        return source
    if is_minari(source):
        return read_minari(source)
    if type(source).__name__ == "DataFrame":
        return from_frame(source, "the data", options)
    if isinstance(source, str | Path):
        return joined([_read_file(path, options) for path in _found(str(source))])
    if isinstance(source, Mapping):
        return from_columns(source, "the data", max_episode_steps=options.get("max_episode_steps"))
    if isinstance(source, Sequence):
        if not source:
            raise DataError("there is no file in the list of data")
        return joined([_read(part, options) for part in source])
    raise DataError(f"{type(source).__name__} is no data: expected files, a dictionary of arrays or a DataSet")


def is_on_disk(source: Any) -> bool:
    """Whether data are read from there, and so can be read part by part."""
    if isinstance(source, list | tuple):
        return all(map(is_on_disk, source))
    return isinstance(source, str | Path) or is_minari(source)


def stream_data(source: Any, capacity: int, options: Options | None = None, normalized: bool = False) -> Streamed:
    """The data that `read_data` would read, of which no more than `capacity` steps are read at a time.

    They are looked through once. `source` is on disk; the rest is as for `read_data`.
    """
    least = max(1, capacity // PIECES)
    return look_through(_blocks(source, options or {}, least), least, capacity, normalized)


def _blocks(source: Any, options: Options, least: int) -> Iterator[Blocks]:
    """Where steps come from, in order; a piece will have about `least` of them."""
    if isinstance(source, list | tuple):
        for part in source:
            yield from _blocks(part, options, least)
    elif is_minari(source):
        yield minari_blocks(source, least)
    else:
        for path in _found(str(source)):
            yield _blocks_of_file(path, options, least)


def _blocks_of_file(path: Path, options: Options, least: int) -> Blocks:
    given = {"max_episode_steps": options.get("max_episode_steps")}
    kind = _typed(path, options)
    try:
        if kind.suffix == ".safetensors":
            return _own_blocks(path, max(1, least // 4))
        if kind.suffix == ".parquet":
            return parquet_blocks(path, given)
        if kind.suffix in (".json", ".jsonl"):
            return json_blocks(path, given)
        _kind(kind, READERS, "read")
    except OSError as error:
        raise _unreadable(path, error) from error
    return Blocks(str(path), 1, lambda number, row: columns_of(_read_file(path, options)), {})


def write_data(data: DataSet, path: str | Path) -> Path:
    """Write a data set in the format of the path's ending, and return the path. A file of that name is replaced.

    Raises DataError for an ending that no format has, and what `open` raises.
    """
    path = Path(path)
    write = _kind(path, WRITERS, "written")
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as temporary:
        write(data, temporary)
    return path


def _found(source: str) -> list[Path]:
    """The files that a path or a pattern means, sorted by name."""
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in READERS and not each.name.startswith("."))
        if not files:
            raise DataError(f"{path}: the folder holds no file of data ({', '.join(READERS)})")
        return files
    if path.exists():
        return [path]
    files = sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not files:
        what = "no file fits this pattern" if glob.has_magic(source) else "there is no such file or folder"
        raise DataError(f"{source}: {what}")
    return files


def _read_file(path: Path, options: Options) -> DataSet:
    read = _kind(_typed(path, options), READERS, "read")
    try:
        return read(path, options)
    except OSError as error:
        raise _unreadable(path, error) from error


def _typed(path: Path, options: Options) -> Path:
    """The path with the ending that tells its format."""
    ending = options.get("format")
    return path if ending is None else Path(f"{path}.{ending}")


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}")


def _require_room(source: Any, options: Options) -> None:
    """Raise DataError for files that do not fit into the memory that is left, as they are read and are learned from."""
    files, available = _files(source), available_bytes()
    size = sum(_unfolded_bytes(path, options) for path in files)
    if available is not None and COPIES * size > (1 - SPARE) * available:
        name = str(source) if isinstance(source, str | Path) else f"{files[0]} and {len(files) - 1} more"
        advice = "say input_config={'capacity': STEPS} to have so many there at a time"
        if "capacity" in options:  # which holds all of them, or they are for estimators, which see all at once
            advice = "make input_config={'capacity': ...} smaller, or give evaluation_config={'input': ...} fewer"
        raise DataError(
            f"{name}: {in_words(size)} are read, {COPIES} times as much is needed, and this machine has "
            f"{in_words(available)} available; {advice}"
        )


def _files(source: Any) -> list[Path]:
    """The files that data are read from."""
    if isinstance(source, list | tuple):
        return [path for part in source for path in _files(part)]
    return _found(str(source)) if isinstance(source, str | Path) and not is_minari(source) else []


def _unfolded_bytes(path: Path, options: Options) -> int:
    """How many bytes are in a file, packed ones unpacked; 0 where it cannot be read."""
    kind = _typed(path, options).suffix
    try:
        if kind == ".parquet":
            return parquet_bytes(path)
        if kind in (".npz", ".zip"):
            with zipfile.ZipFile(path) as archive:
                return sum(entry.file_size for entry in archive.infolist())
        return path.stat().st_size
    except (OSError, DataError, ImportError, zipfile.BadZipFile):  # to be told where it is read
        return 0


def _kind(path: Path, kinds: Mapping[str, Callable], what: str) -> Callable:
    if path.suffix not in kinds:
        raise DataError(
            f"{path}: data are {what} as {', '.join(kinds)}, and not as {path.suffix or 'what has no ending'}"
        )
    return kinds[path.suffix]


# Our own


def _read_own(path: Path, options: Options) -> DataSet:
    given = _own_header(path)[0]
    return from_columns(_own_columns(path, given, slice(None)), str(path), **given)


def _own_blocks(path: Path, steps: int) -> Blocks:
    """The file in blocks of so many steps, of which each is read alone."""
    given, rows = _own_header(path)

    def read(number: int, row: int) -> dict[str, Any]:
        return _own_columns(path, given, slice(number * steps, min(rows, (number + 1) * steps)))

    return Blocks(str(path), max(1, -(-rows // steps)), read, given)


def _own_header(path: Path) -> tuple[dict[str, Any], int]:
    """What the header tells of the columns, as `from_columns` takes it, and the number of steps."""
    file = _own(path, lambda: open_arrays(path))
    about = file.metadata() or {}
    if about.get("format") != FORMAT:
        raise DataError(f"{path} is no data set of Athlete: its header does not say {FORMAT!r}")
    if about.get("version") != str(VERSION):
        raise DataError(f"{path} has format version {about.get('version')}, and this Athlete reads {VERSION}")
    try:
        spaces = {name: space_from_json(json.loads(about[name])) for name in ("observation_space", "action_space")}
    except (KeyError, ValueError, CheckpointError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    rows = _own(path, lambda: file.get_slice("rewards").get_shape()[0])
    return {**spaces, "normalized": about.get("normalized") == "true"}, rows


def _own_columns(path: Path, given: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """The columns of the file, of these rows; only they are read from the disk."""

    def arrays() -> dict[str, np.ndarray]:
        file = open_arrays(path)
        whole = rows == slice(None)
        names = file.keys()  # it is no dictionary
        return {name: file.get_tensor(name) if whole else file.get_slice(name)[rows] for name in names}

    found = _own(path, arrays)
    try:
        columns = {
            "obs": from_named(given["observation_space"], found, "obs"),
            "new_obs": from_named(given["observation_space"], found, "new_obs"),
            "actions": from_named(given["action_space"], found, "actions"),
            **{name: found[name] for name in ("rewards", "terminateds", "truncateds")},
        }
    except KeyError as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return columns | ({"action_logp": found["action_logp"]} if "action_logp" in found else {})


def _own(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` reads from one of our files."""
    try:
        return read()
    except OSError:
        raise
    except Exception as error:
        raise DataError(f"{path} is cut or damaged: it is no safetensors file ({error})") from error


def _write_own(data: DataSet, path: Path) -> None:
    spaces = spaces_of(data)
    arrays = dict(named_leaves(data.obs, "obs")) | dict(named_leaves(data.next_obs, "new_obs"))
    arrays |= dict(named_leaves(data.action, "actions"))
    arrays |= {"rewards": data.reward, "terminateds": data.terminated, "truncateds": data.truncated}
    if data.log_prob is not None:
        arrays["action_logp"] = data.log_prob
    about = {
        "format": FORMAT,
        "version": str(VERSION),
        "observation_space": json.dumps(space_to_json(spaces.obs)),
        "action_space": json.dumps(space_to_json(spaces.action)),
        "normalized": "true" if data.normalized else "false",
    }
    save_arrays(path, {name: np.ascontiguousarray(array) for name, array in arrays.items()}, about)
    path.chmod(0o644)  # it gives 0600, whatever the umask says


# NumPy's


def _read_numpy(path: Path, options: Options) -> DataSet:
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = dict(file)
    except (ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is cut or damaged, or holds more than arrays: {error}") from error
    return from_columns(columns, str(path), max_episode_steps=options.get("max_episode_steps"))


def _write_numpy(data: DataSet, path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **columns_of(data))


READERS: dict[str, Callable[[Path, Options], DataSet]] = {
    ".safetensors": _read_own,
    ".npz": _read_numpy,
    **dict.fromkeys((".json", ".jsonl", ".zip"), read_json),
    ".parquet": read_parquet,
    ".csv": read_csv,
}
WRITERS: dict[str, Callable[[DataSet, Path], None]] = {
    ".safetensors": _write_own,
    ".npz": _write_numpy,
    ".json": write_json,
    ".parquet": write_parquet,
}

"""RLlib's files of sample batches: a line of JSON for each batch, its arrays as lists or packed.

Packed columns are `base64(lz4(pickle(array)))`, as RLlib writes `obs` and `new_obs` by default. A pickle can run any
code; what is read here may build NumPy arrays and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import io
import itertools
import json
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from athlete.offline.columns import NAMES, columns_of, from_columns
from athlete.offline.dataset import DataError, DataSet, joined
from athlete.offline.streamed import Blocks

_OF_ARRAYS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}
BATCH = 200  # steps a line holds at most, as RLlib's
BLOCK = 1 << 20  # bytes of lines that are read together, where a file is read part by part


class ArraysOnly(pickle.Unpickler):
    """Reads pickles of arrays; anything else in one is refused before it is made."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _OF_ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_json(path: Path, options: Mapping[str, Any]) -> DataSet:
    """The batches of one file, or of the files in a zip, one behind the other."""
    limit = options.get("max_episode_steps")
    sets = [from_columns(_columns(lines, name), name, max_episode_steps=limit) for name, lines in _documents(path)]
    return joined(sets)


def json_blocks(path: Path, given: Mapping[str, Any]) -> Blocks:
    """The lines of a file, about `BLOCK` bytes of them in each block."""
    begins, line = [(0, 1)], 1  # where each block begins, and with which line
    with path.open("rb") as file:
        while lines := file.read(BLOCK) + file.readline():
            line += lines.count(b"\n")
            begins.append((file.tell(), line))
            if not lines.strip():  # empty lines at the end
                begins.pop(-2)

    def read(number: int, row: int) -> dict[str, Any]:
        (begin, line), (end, _) = begins[number : number + 2]
        with path.open("rb") as file:
            file.seek(begin)
            return _columns(file.read(end - begin).split(b"\n"), str(path), line, row)

    return Blocks(str(path), len(begins) - 1, read, given)


def _columns(lines: Iterable[bytes], name: str, first_line: int = 1, row: int = 0) -> dict[str, Any]:
    """The columns of all batches; the first line is `first_line` of the file, and its first step step `row`."""
    columns: dict[str, list[Any]] = {}
    for number, line in enumerate(lines, first_line):
        if not line.strip():
            continue
        batch = _batch(line, f"{name}, line {number}, row {row}")
        if columns and set(columns) != set(batch):
            raise DataError(
                f"{name}, line {number}, row {row}: the columns are {', '.join(sorted(batch))}, and those before "
                f"have {', '.join(sorted(columns))}: the file is mixed"
            )
        for column, value in batch.items():
            columns.setdefault(column, []).append(value)
        row += np.size(batch.get("rewards", ()))
    if not columns:
        raise DataError(f"{name} holds no batch")
    return {column: _joined(parts, f"{name}: {column}") for column, parts in columns.items()}


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    """The name and the lines of a file, or of each file in a zip."""
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in sorted(archive.namelist()):
                    if entry.endswith(".json"):
                        yield f"{path}/{entry}", archive.read(entry).splitlines()
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is cut or damaged: it is no zip file") from error
        return
    with path.open("rb") as file:
        yield str(path), file


def _batch(line: bytes, where: str) -> dict[str, Any]:
    """The known columns of one line."""
    try:
        batch = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: the line is cut or no JSON") from error
    if not isinstance(batch, dict):
        raise DataError(f"{where}: expected a sample batch, got {type(batch).__name__}")
    if batch.get("type") == "MultiAgentBatch":
        policies = batch.get("policy_batches")
        if not isinstance(policies, dict) or len(policies) != 1:
            raise DataError(f"{where}: a batch of several policies; data of one agent are learned from")
        batch = next(iter(policies.values()))
    return {name: _unpacked(value, f"{where}: {name}") for name, value in batch.items() if name in NAMES}


def _unpacked(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _unpacked(part, f"{where}[{key!r}]") for key, part in value.items()}
    if not isinstance(value, str):
        return _array(value, where)
    try:
        packed = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise DataError(f"{where} is a text that is no packed array") from error
    if packed[:4] == b"\x04\x22\x4d\x18":  # how a frame of lz4 begins
        try:
            from lz4 import frame
        except ImportError as error:
            raise ImportError(f"{where} is packed with lz4, and the package lz4 is not installed") from error
        packed = frame.decompress(packed)
    try:
        array = ArraysOnly(io.BytesIO(packed)).load()
    except Exception as error:
        raise DataError(f"{where} holds a pickle that is more than an array ({error}): it was not run") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{where} holds a pickle of {type(array).__name__}, and an array is expected")
    return array


def _array(value: Any, where: str) -> np.ndarray:
    """A list of numbers, or of lists of them, as an array, so that Python's objects are of one line at a time."""
    try:
        if not _are_rows_of_floats(value):
            return np.asarray(value)
        if len({len(row) for row in value}) > 1:
            raise ValueError("rows of unlike lengths")
        flat = itertools.chain.from_iterable(value)  # `asarray` takes half as long again: it finds out types and depth
        return np.fromiter(flat, np.float32, len(value) * len(value[0])).reshape(len(value), -1)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} is no column of numbers, all of one shape") from error


def _are_rows_of_floats(value: Any) -> bool:
    row = value[0] if isinstance(value, list) and value else None
    return isinstance(row, list) and bool(row) and isinstance(row[0], float)


def _joined(parts: list[Any], where: str) -> Any:
    """The column of all batches."""
    try:
        if isinstance(parts[0], dict):
            return {key: _joined([part[key] for part in parts], f"{where}[{key!r}]") for key in parts[0]}
        return np.concatenate(parts)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where} differs in shape from batch to batch") from error


def write_json(data: DataSet, path: Path) -> None:
    """One line for each episode, or for each `BATCH` steps of a longer one: plain lists, which keep every bit."""
    columns = columns_of(data)
    with path.open("w", encoding="utf-8") as file:
        for end, length in zip(data.ends, data.lengths, strict=True):
            for start in range(end - length + 1, end + 1, BATCH):
                rows = slice(start, min(start + BATCH, end + 1))
                batch = {name: column[rows].tolist() for name, column in columns.items()}
                file.write(json.dumps({"type": "SampleBatch", **batch}) + "\n")

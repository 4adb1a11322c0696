"""Tables of recorded steps: pandas' frames, Parquet and CSV. Their libraries are imported when they are needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from athlete.offline.columns import columns_of, from_columns
from athlete.offline.dataset import DataError, DataSet
from athlete.offline.streamed import Blocks

ROW_GROUP = 1 << 16  # rows that a file is read by, where it is larger than memory
_NUMBERED = re.compile(r"(.+)[_.](\d+)")


def from_frame(frame: Any, name: str, options: Mapping[str, Any]) -> DataSet:
    """The data set of a pandas frame, a row for each step.

    A column holds numbers, or an array or list in each row; `obs_0`, `obs_1`, ... are one column `obs`.
    """
    columns = {str(column): _array(frame[column], f"{name}: {column}") for column in frame.columns}
    return from_columns(_gathered(columns), name, max_episode_steps=options.get("max_episode_steps"))


def _array(column: Any, where: str) -> np.ndarray:
    values = column.to_numpy()
    if values.dtype != object:
        return values
    try:
        return np.stack([np.asarray(value) for value in values])
    except ValueError as error:
        raise DataError(f"{where} has rows of unlike shapes") from error


def _gathered(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns with numbers at the end of their names as one, in the order of the numbers."""
    found: dict[str, Any] = {}
    parts: dict[str, dict[int, np.ndarray]] = {}
    for name, column in columns.items():
        match = _NUMBERED.fullmatch(name)
        if match is None:
            found[name] = column
        else:
            parts.setdefault(match[1], {})[int(match[2])] = column
    for name, numbered in parts.items():
        found.setdefault(name, np.stack([numbered[number] for number in sorted(numbered)], axis=-1))
    return found


def read_csv(path: Path, options: Mapping[str, Any]) -> DataSet:
    """Columns of numbers, with a line of names at the top."""
    import pandas

    try:
        return from_frame(pandas.read_csv(path), str(path), options)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is cut or no table: {error}") from error


def read_parquet(path: Path, options: Mapping[str, Any]) -> DataSet:
    """A row for each step; columns of numbers and of lists."""
    parquet = _parquet(path)
    table = _of_parquet(path, lambda: parquet.read_table(path))
    return from_columns(_columns(table, path), str(path), max_episode_steps=options.get("max_episode_steps"))


def parquet_blocks(path: Path, given: Mapping[str, Any]) -> Blocks:
    """The file's row groups."""
    parquet = _parquet(path)
    number = _of_parquet(path, lambda: parquet.ParquetFile(path).num_row_groups)

    def read(number: int, row: int) -> dict[str, np.ndarray]:
        return _columns(_of_parquet(path, lambda: parquet.ParquetFile(path).read_row_group(number)), path)

    return Blocks(str(path), number, read, given)


def parquet_bytes(path: Path) -> int:
    """How many bytes are in a file, unpacked."""
    parquet = _parquet(path)
    about = _of_parquet(path, lambda: parquet.read_metadata(path))
    return sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))


def _columns(table: Any, path: Path) -> dict[str, np.ndarray]:
    return _gathered({name: _of_arrow(table[name], f"{path}: {name}") for name in table.column_names})


def _of_parquet(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` reads from the file."""
    try:
        return read()
    except Exception as error:  # pyarrow's own, which would have to be imported for its name
        raise DataError(f"{path} is cut or no Parquet: {error}") from error


def _of_arrow(column: Any, where: str) -> np.ndarray:
    """A column of numbers `[N]`, or of lists of one length, `[N, n]`."""
    whole, rows, shape = column.combine_chunks(), len(column), []
    while hasattr(whole, "flatten") and str(whole.type).startswith(("list", "fixed_size_list", "large_list")):
        flat = whole.flatten()
        length = len(flat) // max(len(whole), 1)
        if len(flat) != length * len(whole):
            raise DataError(f"{where} has rows of unlike shapes")
        shape.append(length)
        whole = flat
    return np.asarray(whole.to_numpy(zero_copy_only=False)).reshape(rows, *shape)


def write_parquet(data: DataSet, path: Path) -> None:
    """A row for each step, arrays as lists of one length."""
    parquet = _parquet(path)
    import pyarrow

    table = {name: _to_arrow(pyarrow, column) for name, column in columns_of(data).items()}
    parquet.write_table(pyarrow.table(table), path, row_group_size=ROW_GROUP)


def _to_arrow(pyarrow: Any, column: np.ndarray) -> Any:
    array = pyarrow.array(np.ascontiguousarray(column).reshape(-1))
    for size in reversed(column.shape[1:]):
        array = pyarrow.FixedSizeListArray.from_arrays(array, size)
    return array


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"{path}: Parquet is read with pyarrow, which is not installed") from error
    return parquet

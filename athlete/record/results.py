"""A trial's results on disk: `params.json`, `result.json` (one JSON a line) and `progress.csv` (flattened with `/`).

The three files can be read while the trial runs and after any end of it, `kill -9` included. Numbers that JSON does not
have are written so that every parser takes them: NaN as `null`, the infinities as `"Infinity"` and `"-Infinity"`;
`read_results` turns them back.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeGuard

from athlete.record.files import named, write_beside

PARAMS, RESULTS, PROGRESS = "params.json", "result.json", "progress.csv"
FLUSH_SECONDS = 1.0
REPEATED = ("config", "sampler_results")  # entries of a training's results that say again what stands elsewhere

_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}


def flatten(result: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as one: `{"info": {"loss": 1}}` -> `{"info/loss": 1}`. Empty ones vanish."""
    flat: dict[str, Any] = {}
    _flatten_into(flat, "", result)
    return flat


def _flatten_into(flat: dict[str, Any], prefix: str, result: Mapping[str, Any]) -> None:
    for key, value in result.items():
        if isinstance(value, dict):
            _flatten_into(flat, f"{prefix}{key}/", value)
        else:
            flat[f"{prefix}{key}"] = value


def without_repeated(result: Mapping[str, Any]) -> dict[str, Any]:
    """A training's result without `config`, which is in `params.json`, and `sampler_results`, which it has itself.

    Results of others, which are known by having no `sampler_results`, stay as they are.
    """
    repeated = REPEATED if "sampler_results" in result else ()
    return {name: value for name, value in result.items() if name not in repeated}


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a result's value is one number: a Python, NumPy or JAX scalar. Booleans count, as 0 and 1."""
    return isinstance(value, (int, float)) or (getattr(value, "shape", None) == () and hasattr(value, "__float__"))


def describe(value: Any) -> Any:
    """What stands in JSON for a value that JSON does not have: an array's list, a class's path, else its repr."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name and hasattr(value, "__module__") else repr(value)


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): _clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(entry) for entry in value]
    return _clean(describe(value))


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every parser reads: NaN becomes `null`, what JSON cannot hold becomes its description."""
    try:
        return json.dumps(value, default=describe, allow_nan=False, indent=indent)
    except (ValueError, TypeError):  # NaN, an infinity, or keys that are not strings: rare, so the walk is worth it
        return json.dumps(_clean(value), indent=indent)


def _restore(value: Any, missing: float | None) -> Any:
    if value is None:
        return missing
    if isinstance(value, str):
        return _INFINITIES.get(value, value)
    if isinstance(value, dict):
        return {key: _restore(entry, missing) for key, entry in value.items()}
    if isinstance(value, list):
        return [_restore(entry, missing) for entry in value]
    return value


def from_json(text: str | bytes, missing: float | None = math.nan) -> Any:
    """The inverse of `to_json`: the infinities are numbers again, and `null` is `missing`: NaN in results."""
    return _restore(json.loads(text), missing)


def write_params(folder: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Write the trial's config as `params.json`."""
    write_beside(Path(folder) / PARAMS, to_json(config, indent=2) + "\n")


def read_params(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The config that `write_params` wrote; classes and functions come back as their names."""
    return from_json((Path(folder) / PARAMS).read_text(encoding="utf-8"), missing=None)


def _whole_lines(path: Path) -> Iterable[bytes]:
    """The lines of `result.json` that were written to their end; a process may have died within the last one."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and line.startswith(b"{"):
                yield line


def read_results(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All results of a trial's folder in their order, nested as they were reported."""
    return [from_json(line) for line in _whole_lines(Path(folder) / RESULTS)]


def cut_results(folder: str | os.PathLike[str], iteration: int) -> dict[str, Any]:
    """Forget the results after `training_iteration == iteration`, so that a resumed trial repeats none.

    Returns the last result that stays, `{}` if none does. `progress.csv` is cut by the same rule.
    """
    folder = Path(folder)
    kept = [
        line for line in _whole_lines(folder / RESULTS) if from_json(line).get("training_iteration", 0) <= iteration
    ]
    if (folder / RESULTS).exists():
        write_beside(folder / RESULTS, b"".join(kept))
    if (folder / PROGRESS).exists():
        with (folder / PROGRESS).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        rows = [row for row in rows if (row.get("training_iteration") or "").isdigit()]
        rows = [row for row in rows if int(row["training_iteration"]) <= iteration]
        if rows:
            _rewrite_csv(folder / PROGRESS, list(rows[0]), rows)
        else:
            (folder / PROGRESS).unlink()
    return from_json(kept[-1]) if kept else {}


def _rewrite_csv(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_beside(path, text.getvalue())


class CSVWriter:
    """Rows of numbers and words under a header that may grow: evaluation brings columns after many rows."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.columns: list[str] = []
        self._file: TextIO | None = None
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.columns = next(csv.reader(file), [])

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append flat results; lists and objects have no column (they are in `result.json`)."""
        known = set(self.columns)
        new = {key: None for row in rows for key in row if key not in known and _has_column(row[key])}
        if new or self._file is None:
            self._open(list(new))
        assert self._file is not None
        table = [[row.get(column, "") for column in self.columns] for row in rows]
        with named(self.path):
            csv.writer(self._file, lineterminator="\n").writerows(table)
            self._file.flush()

    def _open(self, new: list[str]) -> None:
        self.close()
        if self.columns and new:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            _rewrite_csv(self.path, self.columns + new, rows)
        with named(self.path):
            self._file = self.path.open("a", newline="", encoding="utf-8")
        if not self.columns:
            csv.writer(self._file, lineterminator="\n").writerow(new)
        self.columns = self.columns + new

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with named(self.path):
                file.close()


def _has_column(value: Any) -> bool:
    return isinstance(value, str) or is_number(value)


class ResultWriter:
    """Appends results to `result.json` and `progress.csv`.

    An iteration may take 2 ms, so lines are gathered and written when a second has passed since the last time (at once
    when iterations are slower than that), on `flush` and on `close`; with `flush_seconds=0` each at once.
    """

    def __init__(self, folder: str | os.PathLike[str], flush_seconds: float = FLUSH_SECONDS):
        self.folder = Path(folder)
        self._flush_seconds = flush_seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / RESULTS).open("a", encoding="utf-8")
        self._csv = CSVWriter(self.folder / PROGRESS)
        self._lines: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._last_flush = -math.inf

    def write(self, result: Mapping[str, Any], flat: dict[str, Any]) -> None:
        """Take in one result, and the same flattened (the caller has it already)."""
        self._lines.append(to_json(result))
        self._rows.append(flat)
        if time.monotonic() - self._last_flush >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Put everything taken in so far into the files."""
        self._last_flush = time.monotonic()
        if not self._lines:
            return
        lines, rows, self._lines, self._rows = self._lines, self._rows, [], []
        with named(self.folder / RESULTS):
            if os.fstat(self._file.fileno()).st_nlink == 0:  # an open file can be written when it has no name any more
                raise FileNotFoundError(errno.ENOENT, "it was removed while it was written")
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()
        self._csv.write(rows)

    def close(self) -> None:
        """Write what is left and close both files, whatever becomes of the other. Raises OSError, naming the file."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._csv.close)
            stack.enter_context(named(self.folder / RESULTS))
            stack.callback(self._file.close)
            stack.callback(self.flush)

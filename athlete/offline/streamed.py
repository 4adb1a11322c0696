"""Data larger than memory: looked through once, then read part by part, whole episodes at a time, again and again."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from athlete.offline.columns import from_columns, known_columns, steps_of_whole_episodes
from athlete.offline.dataset import DataError, DataSet, joined, mapped, named_leaves


class Blocks(NamedTuple):
    """A file, or another place that steps come from, in blocks that are read one by one."""

    name: str
    number: int  # of blocks
    read: Callable[[int, int], Mapping[str, Any]]  # a block's number, and the row that it begins with -> its columns
    given: Mapping[str, Any]  # what `from_columns` takes besides


class Piece(NamedTuple):
    """Whole episodes of one file, read at once."""

    blocks: Blocks
    first_block: int
    last_block: int
    block_row: int  # which the first block begins with
    row: int  # which the piece begins with
    rows: int
    steps: int = 0  # that are learned from: fewer than rows where each episode's last one is not

    def read(self) -> DataSet:
        """Its steps. Raises DataError where the file has changed since it was looked through."""
        held: list[Mapping[str, Any]] = []
        row = self.block_row
        for number in range(self.first_block, self.last_block + 1):
            held.append(known_columns(self.blocks.read(number, row), self.blocks.name))
            row += len(held[-1]["rewards"])
        skipped = self.row - self.block_row
        columns = _joined(held, self.blocks.name)
        data = self.made_of({name: _part(tree, skipped, skipped + self.rows) for name, tree in columns.items()})
        if len(data) != self.steps:
            raise DataError(f"{self.blocks.name}, row {self.row}: the file has changed since the training began")
        return data

    def made_of(self, columns: Mapping[str, Any], doubts: bool = False) -> DataSet:
        """The data set of its columns."""
        return from_columns(columns, self.blocks.name, first_row=self.row, doubts=doubts, **self.blocks.given)


class Streamed:
    """Recorded steps that are on disk. `extremes` is a data set of two of them, the least and the largest numbers of
    every column: the spaces that it looks like are those of all, and what it fits all fit.
    """

    def __init__(self, pieces: list[Piece], extremes: DataSet):
        self.pieces, self.extremes = pieces, extremes
        self.name, self.normalized = extremes.parts[0].name, extremes.normalized

    def __len__(self) -> int:
        """The number of steps."""
        return sum(piece.steps for piece in self.pieces)

    def read(self, number: int) -> DataSet:
        """Piece `number`."""
        data = self.pieces[number].read()
        return data.as_normalized() if self.normalized else data

    def order(self, seed: tuple[int, ...], turn: int) -> np.ndarray:
        """In which order the pieces come, the `turn`-th time that all of them do."""
        return np.random.default_rng([*seed, turn]).permutation(len(self.pieces))

    def from_step(self, seed: tuple[int, ...], step: int) -> Iterator[tuple[int, int]]:
        """The pieces from step `step` on of those that come in turn without end; and how many steps of each are left
        out, none but of the first.
        """
        turn, left_out = divmod(step, len(self))
        while True:
            for number in self.order(seed, turn):
                steps = self.pieces[number].steps
                if left_out < steps:
                    yield int(number), left_out
                left_out = max(left_out - steps, 0)
            turn += 1


def look_through(places: Iterable[Blocks], least: int, most: int, normalized: bool = False) -> Streamed:
    """Read all of the data once, a little at a time: check them, and find pieces of about `least` rows.

    Raises DataError for what cannot be learned from, and where more than `most` rows would have to be read at once.
    """
    pieces: list[Piece] = []
    seen: DataSet | None = None
    for blocks in places:
        for piece, data in _pieces_of(blocks, least, most):
            pieces.append(piece)
            new = extremes_of(data)
            seen = new if seen is None else extremes_of(joined([seen, new]))
    if seen is None:
        raise DataError("there is no file in the list of data")
    return Streamed(pieces, seen.as_normalized() if normalized else seen)


def extremes_of(data: DataSet) -> DataSet:
    """Two steps, of the least and the largest numbers of every column."""
    return data.mapped(lambda array: np.stack([array.min(axis=0), array.max(axis=0)]), data.parts[:1])


def _pieces_of(blocks: Blocks, least: int, most: int) -> Iterator[tuple[Piece, DataSet]]:
    """Each piece, and what it reads."""
    begins: list[int] = []  # the first row of every block so far
    held: list[Mapping[str, Any]] = []  # the columns of rows that are of no piece yet
    row = end = 0  # the first one of these, and the row after the last
    if not blocks.number:
        raise DataError(f"{blocks.name} holds no step")
    for number in range(blocks.number):
        begins.append(end)
        held.append(known_columns(blocks.read(number, end), blocks.name))
        end += len(held[-1]["rewards"])
        last = number == blocks.number - 1
        if end - row < least and not last:
            continue
        columns = _joined(held, blocks.name)
        rows = end - row if last else steps_of_whole_episodes(columns)
        if (rows or end - row) > most:
            raise DataError(
                f"{blocks.name}, row {row}: at least {rows or end - row:,} steps have to be read at once, an episode "
                f"or what the file holds in one part, and {most:,} are in memory at a time: make "
                "input_config={'capacity': ...} larger, or write the data as .safetensors (athlete convert)"
            )
        if rows:
            first = bisect.bisect_right(begins, row) - 1
            piece = Piece(blocks, first, number, begins[first], row, rows)
            data = piece.made_of({name: _part(tree, 0, rows) for name, tree in columns.items()}, doubts=row == 0)
            yield piece._replace(steps=len(data)), data
        row += rows
        held = [] if row == end else [{name: _part(tree, rows, None) for name, tree in columns.items()}]


def _joined(parts: list[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Columns one behind the other."""
    if len(parts) == 1:
        return parts[0]
    forms = [{path: leaf.shape[1:] for key in part for path, leaf in named_leaves(part[key], key)} for part in parts]
    for other in forms[1:]:
        if other != forms[0]:
            differs = next(iter(sorted(set(forms[0].items()) ^ set(other.items()))))[0]
            raise DataError(f"{name}: {differs} differs in shape from block to block, or is not everywhere")
    return {key: mapped(lambda *leaves: np.concatenate(leaves), *(part[key] for part in parts)) for key in parts[0]}


def _part(tree: Any, start: int, stop: int | None) -> Any:
    return mapped(lambda leaf: leaf[start:stop], tree)

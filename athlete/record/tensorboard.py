"""TensorBoard event files, written by hand: one event a result, all scalars of the result in it.

The format is small (a protobuf of a few fields in checksummed records), and a general writer was measured at 0.18 s to
import and 0.8 to 8.5 ms a result of 40 scalars, where an iteration may take 2 ms. The x axis is `timesteps_total`, or
`training_iteration` where a trainable counts no steps. Tags are chosen by `tag`.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from functools import cache
from pathlib import Path
from typing import Any

from athlete.record.results import FLUSH_SECONDS, is_number

_NOT_CHARTED = {"timestamp", "pid", "seed", "done", "trial_id", "experiment_id", "iterations_since_restore"}
_NOT_CHARTED |= {"timesteps_since_restore", "time_since_restore", "training_iteration", "timesteps_total"}
_CHUNK = 1024


def tag(key: str) -> str | None:
    """The TensorBoard tag of a flat result key, None where a curve would say nothing.

    `train/...`        everything at the top level: `train/episode_reward_mean`, `train/num_env_steps_sampled`
    `evaluation/...`   what evaluation found: `evaluation/episode_reward_mean`
    `learner/...`      losses: `info/learner/default_policy/learner_stats/entropy` is `learner/entropy`;
                       other policies keep their names, `learner/<policy>/entropy`
    Any other group keeps its own name: `timers/...`, `perf/...`, `custom_metrics/...`.
    """
    if key in _NOT_CHARTED or key.startswith("config/"):
        return None
    if key.startswith("info/learner/"):
        parts = key.removeprefix("info/learner/").split("/")
        return "/".join(["learner"] + [part for part in parts if part not in ("default_policy", "learner_stats")])
    return key if "/" in key else f"train/{key}"


@cache
def _crc_tables() -> Any:
    """What a byte adds to the CRC-32C when k zero bytes follow it, at `256 * k + byte`; and 256 k for k falling to 0.

    A CRC is linear over XOR, so that of a message is the XOR of its bytes' shares: one gather instead of a Python loop.
    """
    import numpy as np

    first = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        first = np.where(first & 1, (first >> 1) ^ np.uint32(0x82F63B78), first >> 1)
    tables = np.empty((_CHUNK, 256), np.uint32)
    tables[0] = first
    for k in range(1, _CHUNK):
        tables[k] = (tables[k - 1] >> 8) ^ first[tables[k - 1] & 0xFF]
    return tables.ravel(), 256 * np.arange(_CHUNK - 1, -1, -1)


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) checksum of a message."""
    import numpy as np

    (shares, places), state = _crc_tables(), 0xFFFFFFFF
    for start in range(0, len(data), _CHUNK):
        chunk = np.frombuffer(data[start : start + _CHUNK], np.uint8).copy()
        head = min(4, len(chunk))  # the state so far acts like four bytes laid over the next ones
        chunk[:head] ^= np.frombuffer(struct.pack("<I", state), np.uint8)[:head]
        own = shares.take(places[_CHUNK - len(chunk) :] + chunk)
        state = int(np.bitwise_xor.reduce(own)) ^ (state >> 8 * head)
    return state ^ 0xFFFFFFFF


@cache
def _length(number: int) -> bytes:
    """A record's length with its checksum; events of a run have few different ones."""
    length = struct.pack("<Q", number)
    return length + _masked(length)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field: text or a message."""
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _event(wall_time: float, step: int, body: bytes) -> bytes:
    """An `Event` as a record: length and payload, each with its checksum."""
    event = b"\x09" + struct.pack("<d", wall_time) + b"\x10" + _varint(max(step, 0)) + body
    return _length(len(event)) + event + _masked(event)


class EventWriter:
    """Writes the scalars of results as TensorBoard events into a trial's folder.

    `purge_step` is for a resumed run: TensorBoard then hides what an earlier file has from that step on. Events are
    gathered and written once a second, on `flush` and on `close`.
    """

    def __init__(self, folder: str | os.PathLike[str], purge_step: int | None = None):
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self.path = Path(folder) / name
        self._file = self.path.open("ab")
        self._file.write(_event(now, 0, _field(3, b"brain.Event:2")))
        if purge_step is not None:
            self._file.write(_event(now, purge_step, _field(7, b"\x08\x01")))  # SessionLog.status = START
        self._file.flush()
        self._pending: list[tuple[float, dict[str, Any]]] = []
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._last_flush = -math.inf

    def write(self, flat: dict[str, Any]) -> None:
        """Take in one flattened result."""
        self._pending.append((time.time(), flat))
        if time.monotonic() - self._last_flush >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put everything taken in so far into the file."""
        self._last_flush = time.monotonic()
        events = [_event(when, step_of(flat), self._summary(flat)) for when, flat in self._pending]
        self._file.write(b"".join(events))
        self._file.flush()
        self._pending = []

    def _summary(self, flat: dict[str, Any]) -> bytes:
        keys = tuple(flat)
        layout = self._layouts.get(keys)
        if layout is None:
            if len(self._layouts) >= 100:  # results whose keys keep changing
                self._layouts.clear()
            layout = self._layouts[keys] = _Layout(flat)
        try:
            return layout.summary(flat)
        except (TypeError, ValueError, OverflowError):  # a value has become, or is no longer, a number of float32
            return _Layout(flat).summary({key: _float32(value) for key, value in flat.items()})

    def close(self) -> None:
        self.flush()
        self._file.close()


def step_of(flat: dict[str, Any]) -> int:
    """Where a result stands on the x axis."""
    step = flat.get("timesteps_total")
    if is_number(step) and math.isfinite(step):
        return int(step)
    return int(flat.get("training_iteration", 0))


class _Layout:
    """How results with the same keys become a `Summary`: tags packed once, so that a result is one `pack` call."""

    def __init__(self, flat: dict[str, Any]):
        self._charted = [key for key in flat if tag(key) is not None and is_number(flat[key])]
        prefixes = [_value_prefix(str(tag(key))) for key in self._charted]
        self._struct = struct.Struct("<" + "".join(f"{len(prefix)}sf" for prefix in prefixes))
        self._fields: list[Any] = [field for prefix in prefixes for field in (prefix, 0.0)]

    def summary(self, flat: dict[str, Any]) -> bytes:
        self._fields[1::2] = [float(flat[key]) for key in self._charted]
        return _field(5, self._struct.pack(*self._fields))


def _value_prefix(name: str) -> bytes:
    """A `Summary.Value` up to its number."""
    named = _field(1, name.encode()) + b"\x15"
    return b"\x0a" + _varint(len(named) + 4) + named


def _float32(value: Any) -> Any:
    """A number beyond float32's range as infinity, which packing takes; anything else as it is."""
    if not is_number(value) or abs(float(value)) < 3.4e38 or not math.isfinite(float(value)):
        return value
    return math.copysign(math.inf, float(value))

"""What is counted while serving, in the text format that Prometheus reads."""

from __future__ import annotations

import bisect
import time
from collections import Counter

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)  # seconds


class Metrics:
    """Counters of requests, batches and reloads, and how long requests took."""

    def __init__(self) -> None:
        self.started = time.time()
        self.requests: Counter[int] = Counter()  # by HTTP status
        self.batches = self.rows = self.reloads = self.failed_reloads = 0
        self._seconds = 0.0
        self._within = [0] * (len(BOUNDS) + 1)

    def add_batch(self, rows: int) -> None:
        self.batches += 1
        self.rows += rows

    def add_request(self, status: int, seconds: float) -> None:
        self.requests[status] += 1
        self._seconds += seconds
        self._within[bisect.bisect_left(BOUNDS, seconds)] += 1

    def text(self, sessions: int) -> str:
        """All of it, one number a line."""
        lines = [f'athlete_requests_total{{status="{status}"}} {n}' for status, n in sorted(self.requests.items())]
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), self._within, strict=True):
            total += count
            lines.append(f'athlete_request_seconds_bucket{{le="{bound}"}} {total}')
        numbers = {
            "athlete_request_seconds_sum": self._seconds,
            "athlete_request_seconds_count": total,
            "athlete_batches_total": self.batches,
            "athlete_batch_rows_total": self.rows,
            "athlete_reloads_total": self.reloads,
            "athlete_failed_reloads_total": self.failed_reloads,
            "athlete_sessions": sessions,
            "athlete_start_time_seconds": self.started,
        }
        return "\n".join([*lines, *(f"{name} {value}" for name, value in numbers.items())]) + "\n"

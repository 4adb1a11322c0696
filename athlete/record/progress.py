"""The live table of an experiment: rich in a terminal, plain lines into a pipe or file, HTML in a notebook.

`reporter(...)` picks the right one. A reporter draws at most every `max_report_frequency` seconds, so that drawing
never slows training. All show the same `rows`: status, what the search chose, iteration, time, timesteps, reward, and
how much of the way to the stop is done.
"""

from __future__ import annotations

import html
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from athlete.record.results import flatten, is_number

DEFAULT_COLUMNS = {
    "training_iteration": "iter",
    "time_total_s": "total time (s)",
    "timesteps_total": "ts",
    "episode_reward_mean": "reward",
}
_ORDER = {"RUNNING": 0, "ERROR": 1, "PAUSED": 2, "TERMINATED": 3, "PENDING": 4}
_COLORS = {"RUNNING": "cyan", "ERROR": "red", "PAUSED": "yellow", "TERMINATED": "green", "PENDING": "dim"}
_BOOKKEEPING = {"timestamp", "pid", "done", "time_this_iter_s", "time_since_restore", "iterations_since_restore"}
_BOOKKEEPING |= {"should_checkpoint", *DEFAULT_COLUMNS}


class Reported(Protocol):
    """What is shown of a trial."""

    name: str
    status: str
    last_result: dict[str, Any]
    progress: float | None

    @property
    def evaluated_params(self) -> dict[str, Any]: ...

    @property
    def error_file(self) -> str | None: ...


class Row(NamedTuple):
    """One trial of the table: its cells as text, and how far it is."""

    name: str
    status: str
    cells: list[str]
    progress: float | None
    has_result: bool = True


class ProgressReporter:
    """Decides when to report, and how. Subclasses may override `should_report` and `report`.

    `metric_columns` and `parameter_columns` are lists of (flat) names, or dictionaries from name to heading; without
    them the usual results and the searched parameters are shown. `max_report_frequency` is in seconds.
    """

    default_frequency = 5.0

    def __init__(
        self,
        metric_columns: Sequence[str] | Mapping[str, str] | None = None,
        parameter_columns: Sequence[str] | Mapping[str, str] | None = None,
        max_report_frequency: float | None = None,
        max_progress_rows: int = 20,
        max_column_length: int = 20,
        infer_limit: int = 3,
        metric: str | None = None,
        mode: str | None = None,
        **unused: Any,
    ):
        self.metric_columns = _headings(metric_columns)
        self.parameter_columns = _headings(parameter_columns)
        self.seconds = self.default_frequency if max_report_frequency is None else max_report_frequency
        self.max_progress_rows, self.max_column_length, self.infer_limit = (
            max_progress_rows,
            max_column_length,
            infer_limit,
        )
        self.metric, self.mode = metric, mode
        self._last_report = -math.inf
        self._last_statuses: list[str] = []
        self._start = time.time()
        self._title = ""
        self._began: dict[str, float] = {}  # of running trials
        self._first: dict[str, tuple[float, float]] = {}  # when their way to the stop first showed, and how far it was

    def setup(
        self, title: str = "", start_time: float | None = None, metric: str | None = None, mode: str | None = None
    ):
        """Called once, before the first report."""
        self._title, self._start = title, start_time or time.time()
        self.metric, self.mode = self.metric or metric, self.mode or mode

    def should_report(self, trials: Sequence[Reported], done: bool = False) -> bool:
        """Whether it is time: at the end, after `max_report_frequency` seconds, and whenever a status has changed."""
        now = time.monotonic()
        if done or now - self._last_report >= self.seconds:
            return True
        return now - self._last_report >= 0.2 and [trial.status for trial in trials] != self._last_statuses

    def report(self, trials: Sequence[Reported], done: bool, *sys_info: str) -> None:
        """Show the trials."""
        self._last_report = time.monotonic()
        self._last_statuses = [trial.status for trial in trials]
        for trial in trials:
            self._watch(trial)
        self.show(trials, done)

    def _watch(self, trial: Reported) -> None:
        """Remember when a trial was first seen to run, and where it was when its way to the stop first showed."""
        if trial.status != "RUNNING":
            self._began.pop(trial.name, None)
            self._first.pop(trial.name, None)
            return
        self._began.setdefault(trial.name, time.monotonic())
        if trial.progress is not None:
            self._first.setdefault(trial.name, (time.monotonic(), trial.progress))

    def phase(self, row: Row) -> str:
        """What a running trial is at: compiling, with a clock, before its first result, and then the time that is left.

        Until the first result comes an environment is made, programs are compiled and the first steps are taken.
        """
        now = time.monotonic()
        if row.status != "RUNNING" or row.name not in self._began:
            return ""
        if not row.has_result:
            return f"compiling and first steps, {_clock(now - self._began[row.name])}"
        since, first = self._first.get(row.name, (now, row.progress or 0.0))
        done = (row.progress or 0.0) - first
        return f"{_clock((1.0 - first - done) / done * (now - since))} left" if done > 0.0 else ""

    def show(self, trials: Sequence[Reported], done: bool) -> None:
        raise NotImplementedError

    def print(self, text: str) -> None:
        """Say something beside the table."""
        print(text, flush=True)

    def print_always(self, text: str) -> None:
        """Say what has to be known, in silence too: on stderr there."""
        self.print(text)

    def close(self) -> None:
        """Leave the terminal as it was."""

    # What every kind of table shows

    def summary(self, trials: Sequence[Reported]) -> str:
        """`PPO_2026-01-31: 1/4 trials done (2 RUNNING, 1 PENDING, 1 TERMINATED), 00:01:02`; of one trial its status."""
        return f"{self._counts(trials)}, {self.clock()}{self._best(trials)}"

    def _counts(self, trials: Sequence[Reported]) -> str:
        if len(trials) == 1:
            return f"{self._title}: {trials[0].status}"
        counts = Counter(trial.status for trial in trials)
        finished = counts["TERMINATED"] + counts["ERROR"]
        by_status = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
        return f"{self._title}: {finished}/{len(trials)} trials done ({by_status})"

    def clock(self) -> str:
        """How long the experiment has been running: `00:01:02`."""
        seconds = int(time.time() - self._start)
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def _best(self, trials: Sequence[Reported]) -> str:
        if self.metric is None or len(trials) < 2:
            return ""
        values = [(flatten(trial.last_result).get(self.metric), trial.name) for trial in trials]
        finite = [(float(value), name) for value, name in values if is_number(value) and math.isfinite(float(value))]
        if not finite:
            return ""
        value, name = min(finite) if self.mode == "min" else max(finite)
        return f"; best {self.metric} {_shown(value, 20)} by {name}"

    def columns(self, trials: Sequence[Reported]) -> tuple[dict[str, str], dict[str, str]]:
        """The parameter and the metric columns, each as name -> heading."""
        parameters = self.parameter_columns
        if parameters is None:
            parameters = {name: name.rpartition("/")[2] for trial in trials for name in trial.evaluated_params}
        metrics = self.metric_columns
        if metrics is None:
            results = [flatten(trial.last_result) for trial in trials[:100] if trial.last_result]
            metrics = {name: head for name, head in DEFAULT_COLUMNS.items() if any(name in flat for flat in results)}
            if "episode_reward_mean" not in metrics:
                metrics |= dict.fromkeys(_inferred(results)[: self.infer_limit], "")
        return parameters, {name: heading or name for name, heading in metrics.items()}

    def rows(self, trials: Sequence[Reported]) -> tuple[list[str], list[Row], str]:
        """The headings of the cells, the rows (running trials first), and a line about those that found no room."""
        parameters, metrics = self.columns(trials)
        ordered = sorted(trials, key=lambda trial: _ORDER.get(trial.status, 9))
        chosen = {
            name: self._told_apart([trial.evaluated_params.get(name) for trial in ordered]) for name in parameters
        }
        rows = []
        for number, trial in enumerate(ordered[: self.max_progress_rows]):
            flat = flatten(trial.last_result)
            cells = [chosen[name][number] for name in parameters]
            cells += [_shown(flat.get(name), self.max_column_length) for name in metrics]
            rows.append(Row(trial.name, trial.status, cells, trial.progress, bool(trial.last_result)))
        hidden = Counter(trial.status for trial in ordered[self.max_progress_rows :])
        more = ", ".join(f"{count} {status}" for status, count in hidden.items())
        return [*parameters.values(), *metrics.values()], rows, f"... and {more}" if more else ""

    def _told_apart(self, values: Sequence[Any]) -> list[str]:
        """A parameter's cells: short ones, and the whole of each where short ones would be the same for two."""
        short = [_shown(value, self.max_column_length) for value in values]
        whole = ["" if value is None else _shown(value, 1000, digits=17) for value in values]
        return short if len(set(short)) == len(set(whole)) else whole

    def errors(self, trials: Sequence[Reported]) -> list[str]:
        return [f"{trial.name} failed: {trial.error_file}" for trial in trials if trial.status == "ERROR"]


class CLIReporter(ProgressReporter):
    """A table that renews itself in a terminal; into a pipe or a file, a line for each running or changed trial."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self._terminal = bool(sys.stdout and sys.stdout.isatty()) and os.environ.get("TERM") != "dumb"
        if self._terminal and settings.get("max_report_frequency") is None:
            self.seconds = 0.5
        # rich's live display replaces sys.stdout by one that does not tell its encoding
        self._unicode = "utf" in (getattr(sys.stdout, "encoding", None) or "").lower()
        self._live: Any = None
        self._drawn: _Drawn | None = None
        self._lines: dict[str, str] = {}

    def show(self, trials: Sequence[Reported], done: bool) -> None:
        if self._terminal:
            self._show_table(trials)
        else:
            self._show_lines(trials, done)

    def _show_lines(self, trials: Sequence[Reported], done: bool) -> None:
        headings, rows, more = self.rows(trials)
        for row in rows:
            shown = " ".join(f"{head}={cell}" for head, cell in zip(headings, row.cells, strict=True) if cell)
            way = f"stop={row.progress:.0%}" if row.progress is not None and row.status == "RUNNING" else ""
            line = f"{row.name} {row.status} {shown} {way}".rstrip()
            if row.status != "PENDING" and self._lines.get(row.name) != line:
                self._lines[row.name] = line
                phase = self.phase(row)
                self.print(f"{line}, {phase}" if phase and way else line)
        if len(trials) > 1 or done:
            self.print(self.summary(trials) + (f" {more}" if more else ""))
        if done:
            for line in self.errors(trials):
                self.print(line)

    def _show_table(self, trials: Sequence[Reported]) -> None:
        from rich.live import Live

        headings, rows, more = self.rows(trials)
        names = short_names([trial.name for trial in trials])
        # What a second thread draws while this one trains: nothing that changes meanwhile.
        self._drawn = _Drawn(
            self._counts(trials),
            self._best(trials),
            [*self.columns(trials)[0].values()],
            headings,
            [names[row.name] for row in rows],
            rows,
            [line for line in [more, *self.errors(trials)] if line],
        )
        if self._live is None:
            self._live = Live(get_renderable=self._drawing, refresh_per_second=2, vertical_overflow="ellipsis")
            self._live.start()
        self._live.refresh()

    def _drawing(self) -> Any:
        """The table as it is now, with clocks that go on while a program is compiled."""
        from rich.console import Group
        from rich.text import Text

        drawn = self._drawn
        if drawn is None:
            return Text("")
        summary = Text(f"{drawn.counts}, {self.clock()}{drawn.best}")
        return Group(summary, self._table(drawn), *map(Text, drawn.notes))

    def _table(self, drawn: _Drawn) -> Any:
        """The table with as many columns as there is room for."""
        from rich import get_console

        console = get_console()
        optional = [name for name in _FIRST_TO_GO if name in drawn.headings[len(drawn.parameters) :]]
        others = [name for name in drawn.headings[len(drawn.parameters) :] if name not in (*optional, "reward")]
        gone = [*optional, *reversed(others)]
        attempts = [(12, 0), (6, 0), (6, 1), *((0, count) for count in range(1, len(gone) + 1))]
        for bar_width, count in attempts:
            table = self._made_table(drawn, bar_width, set(gone[:count]))
            if _width_of(table, console) <= console.width:
                break
        return table

    def _made_table(self, drawn: _Drawn, bar_width: int, hidden: set[str]) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        shown = [number for number, heading in enumerate(drawn.headings) if heading not in hidden]
        table.add_column("trial", no_wrap=True)
        table.add_column("status", no_wrap=True)
        for number in shown:
            table.add_column(drawn.headings[number], justify="right", no_wrap=True)
        is_running = any(row.status == "RUNNING" and row.has_result for row in drawn.rows)
        with_time_left = bar_width + 14 if is_running and bar_width else None  # so that columns do not come and go
        table.add_column("to the stop", no_wrap=True, min_width=with_time_left)
        for name, row in zip(drawn.names, drawn.rows, strict=True):
            status = Text(row.status, style=_COLORS.get(row.status, ""))
            way = f"{bar(row.progress, self._unicode, bar_width)} {self.phase(row)}".strip()
            table.add_row(Text(name), status, *(Text(row.cells[number]) for number in shown), Text(way))
        return table

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


_FIRST_TO_GO = ("total time (s)", "iter")  # of the columns, where the terminal is narrow


class _Drawn(NamedTuple):
    """What is drawn of an experiment, but for the clocks."""

    counts: str
    best: str
    parameters: list[str]
    headings: list[str]
    names: list[str]
    rows: list[Row]
    notes: list[str]


def _width_of(table: Any, console: Any) -> int:
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=10_000), table).maximum


class JupyterNotebookReporter(ProgressReporter):
    """An HTML table in a notebook, renewed in its place; with `overwrite=False` each one below the last."""

    default_frequency = 1.0

    def __init__(self, overwrite: bool = True, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        self._overwrite = overwrite
        self._handle: Any = None

    def show(self, trials: Sequence[Reported], done: bool) -> None:
        from IPython.display import HTML, display

        content = HTML(self.html(trials))
        if self._handle is None or not self._overwrite:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)

    def html(self, trials: Sequence[Reported]) -> str:
        """The table as HTML; every text from outside is escaped."""
        headings, rows, more = self.rows(trials)
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in ["trial", "status", *headings, "to the stop"])
        body = ""
        for row in rows:
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in [row.name, row.status, *row.cells])
            meter = (
                "" if row.progress is None else f'<progress value="{row.progress:.3f}"></progress> {row.progress:.0%}'
            )
            body += f"<tr>{cells}<td>{meter}</td></tr>"
        notes = "".join(f"<p>{html.escape(line)}</p>" for line in [more, *self.errors(trials)] if line)
        summary = html.escape(self.summary(trials))
        return f"<p>{summary}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


class SilentReporter(ProgressReporter):
    """Shows nothing: `verbose=0`."""

    def should_report(self, trials: Sequence[Reported], done: bool = False) -> bool:
        return False

    def print(self, text: str) -> None:
        pass

    def print_always(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@dataclass
class _Training:
    """A training that is no trial, as reporters show it."""

    name: str
    status: str = "RUNNING"
    last_result: dict[str, Any] = field(default_factory=dict)
    progress: float | None = None
    error_file = None

    @property
    def evaluated_params(self) -> dict[str, Any]:
        return {}


class Shown:
    """One training that a reporter shows within a `with` block; at its end as it was left."""

    def __init__(self, name: str, reporter: ProgressReporter):
        self._training, self._reporter = _Training(name), reporter

    def __enter__(self) -> Shown:
        self._reporter.setup(self._training.name)
        self._report()
        return self

    def update(self, result: Mapping[str, Any], progress: float | None) -> None:
        """Show a result, and how much of the way is done."""
        self._training.last_result, self._training.progress = dict(result), progress
        self._report()

    def _report(self, done: bool = False) -> None:
        if self._reporter.should_report([self._training], done):
            self._reporter.report([self._training], done)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._training.status = "TERMINATED" if kind is None else "PAUSED"
        try:
            self._report(done=True)
        finally:
            self._reporter.close()


def reporter(verbose: int) -> ProgressReporter:
    """The reporter for where the output goes: a notebook, a terminal, or a pipe."""
    if verbose == 0:
        return SilentReporter()
    return JupyterNotebookReporter() if in_notebook() else CLIReporter()


def in_notebook() -> bool:
    """Whether this is a notebook's kernel (IPython in a terminal is not)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def bar(progress: float | None, unicode: bool = True, width: int = 12) -> str:
    """`━━━━━━──────  50%`; without Unicode `######------  50%`."""
    if progress is None:
        return ""
    done = round(progress * width)
    full, empty = ("━", "─") if unicode else ("#", "-")
    return (full * done + empty * (width - done) + f" {progress:4.0%}").strip()


_TRIAL_ID = re.compile(r"^(.*)_[0-9a-f]{5}_(\d{5})$")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """For a table what tells trials apart: `00003` of `PPO_CartPole-v1_1a2b3_00003`; of one alone, what it trains."""
    matches = {name: _TRIAL_ID.match(name) for name in names}
    if len(names) == 1:
        return {name: match[1] if match else name for name, match in matches.items()}
    short = {name: match[2] if match else name for name, match in matches.items()}
    return short if len(set(short.values())) == len(set(names)) else {name: name for name in names}


def _clock(seconds: float) -> str:
    """`0:09`, `12:34`, `3:00:00`."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def brief(name: str, result: Mapping[str, Any]) -> str:
    """One line about a result, `verbose=2`."""
    flat = flatten(dict(result))
    known = [f"{head}={_shown(flat[key], 20)}" for key, head in DEFAULT_COLUMNS.items() if key in flat]
    if "episode_reward_mean" not in flat:
        known += [f"{key}={_shown(flat[key], 20)}" for key in _inferred([flat])[:3]]
    return f"Result for {name}: " + " ".join(known)


def full(name: str, result: Mapping[str, Any]) -> str:
    """All of a result, a line for each number and word, `verbose=3`."""
    flat = flatten(dict(result))
    lines = [
        f"  {key}: {_shown(value, 60)}" for key, value in flat.items() if is_number(value) or isinstance(value, str)
    ]
    return "\n".join([f"Result for {name}:", *lines])


def _inferred(results: Iterable[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for flat in results:
        names |= {key: None for key, value in flat.items() if is_number(value) and key not in _BOOKKEEPING}
    return list(names)


def _headings(columns: Sequence[str] | Mapping[str, str] | None) -> dict[str, str] | None:
    if columns is None or isinstance(columns, Mapping):
        return None if columns is None else dict(columns)
    return {name: name.rpartition("/")[2] for name in columns}


def _shown(value: Any, longest: int, digits: int = 6) -> str:
    """A cell: numbers to so many digits, long words lose their beginning."""
    if value is None:
        return ""
    if isinstance(value, bool) or not is_number(value):
        text = str(getattr(value, "__name__", value))
    elif float(value) == int(value) if math.isfinite(float(value)) else False:
        text = str(int(value))
    else:
        text = repr(float(value)) if digits > 15 else f"{float(value):.{digits}g}"
    return text if len(text) <= longest else "..." + text[3 - longest :]

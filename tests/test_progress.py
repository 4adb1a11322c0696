"""The live table: the same rows for a terminal, a pipe and a notebook."""

from __future__ import annotations

import io
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from athlete.record import progress
from athlete.record.progress import CLIReporter, JupyterNotebookReporter, SilentReporter


def trial(
    name: str, status: str = "RUNNING", done: float | None = 0.5, params: dict | None = None, **result: Any
) -> Any:
    return SimpleNamespace(
        name=name,
        status=status,
        last_result=result,
        progress=done,
        evaluated_params=params or {},
        error_file=f"/results/{name}/error.txt" if status == "ERROR" else None,
    )


FAST = trial(
    "PPO_a",
    params={"model/width": 64},
    training_iteration=3,
    time_total_s=1.5,
    timesteps_total=6000,
    episode_reward_mean=12.25,
)
WAITING = trial("PPO_b", "PENDING", None, params={"model/width": 32})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rows_hold_choices_and_results_running_trials_first() -> None:
    headings, rows, more = CLIReporter().rows([WAITING, FAST])
    assert headings == ["width", "iter", "total time (s)", "ts", "reward"]
    assert [(row.name, row.cells) for row in rows] == [
        ("PPO_a", ["64", "3", "1.5", "6000", "12.25"]),
        ("PPO_b", ["32", "", "", "", ""]),
    ]
    assert more == ""


def test_columns_of_your_own() -> None:
    nested = trial("PPO_a", params={"lr": 1e-3}, info={"kl": 0.5})
    reporter = CLIReporter(metric_columns={"info/kl": "KL"}, parameter_columns=["lr"])
    headings, rows, _ = reporter.rows([nested])
    assert (headings, rows[0].cells) == (["lr", "KL"], ["0.001", "0.5"])


def test_results_without_a_reward_show_their_own_numbers() -> None:
    headings, rows, _ = CLIReporter(infer_limit=2).rows(
        [trial("f", training_iteration=1, date="x", score=2.0, loss=1.0, c=3)]
    )
    assert (headings, rows[0].cells) == (["iter", "score", "loss"], ["1", "2", "1"])


def test_more_trials_than_rows_are_counted() -> None:
    many = [trial(f"PPO_{i}", "PENDING") for i in range(5)] + [FAST]
    _, rows, more = CLIReporter(max_progress_rows=2).rows(many)
    assert [row.name for row in rows] == ["PPO_a", "PPO_0"]
    assert more == "... and 4 PENDING"


def test_summary_counts_and_names_the_best() -> None:
    reporter = CLIReporter(metric="episode_reward_mean", mode="max")
    reporter.setup("exp")
    summary = reporter.summary([FAST, WAITING, trial("PPO_c", "ERROR")])
    assert summary.startswith("exp: 1/3 trials done (1 RUNNING, 1 ERROR, 1 PENDING), 00:00:0")
    assert summary.endswith("best episode_reward_mean 12.25 by PPO_a")


def test_a_pipe_gets_plain_lines_and_no_repeats(capsys: pytest.CaptureFixture) -> None:
    reporter = CLIReporter()
    reporter.report([FAST], False)
    reporter.report([FAST], False)
    out = capsys.readouterr().out
    assert out == "PPO_a RUNNING width=64 iter=3 total time (s)=1.5 ts=6000 reward=12.25 stop=50%\n"


def test_a_pipe_is_told_of_errors_at_the_end(capsys: pytest.CaptureFixture) -> None:
    CLIReporter().report([trial("PPO_c", "ERROR")], True)
    assert "PPO_c failed: /results/PPO_c/error.txt" in capsys.readouterr().out


def test_a_terminal_gets_one_table_that_renews_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    reporter = CLIReporter()
    reporter.report([FAST, WAITING], False)
    reporter.report([FAST, WAITING], True)
    reporter.close()
    out = terminal.getvalue()
    assert "12.25" in out and "50%" in out and "PENDING" in out
    assert "\x1b[1A" in out  # the second drawing goes over the first
    assert "\x1b[?25h" in out  # the cursor is shown again


def test_html_escapes_and_shows_progress() -> None:
    page = JupyterNotebookReporter().html([FAST, trial("<script>", "ERROR", None)])
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<td>12.25</td>" in page and '<progress value="0.500"></progress> 50%' in page


def test_a_notebook_updates_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    IPython = pytest.importorskip("IPython.display")
    shown: list[str] = []
    handle = SimpleNamespace(update=lambda content: shown.append("update"))
    monkeypatch.setattr(IPython, "display", lambda content, display_id: shown.append("display") or handle)
    reporter = JupyterNotebookReporter()
    for _ in range(3):
        reporter.report([FAST], False)
    assert shown == ["display", "update", "update"]


def test_reports_wait_for_their_time_or_a_change_of_status(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    reporter = CLIReporter(max_report_frequency=5)
    running = trial("PPO_a")
    assert reporter.should_report([running])
    reporter.report([running], False)
    clock.now += 1
    assert not reporter.should_report([running])
    assert reporter.should_report([running], done=True)
    running.status = "TERMINATED"
    assert reporter.should_report([running])
    running.status = "RUNNING"
    clock.now += 4
    assert reporter.should_report([running])


def test_which_reporter_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(progress.reporter(0)) is SilentReporter
    assert type(progress.reporter(1)) is CLIReporter
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    assert type(progress.reporter(1)) is JupyterNotebookReporter


def test_brief_and_full_results() -> None:
    result = {"training_iteration": 3, "episode_reward_mean": 1.5, "info": {"kl": 0.25}, "list": [1]}
    assert progress.brief("PPO_a", result) == "Result for PPO_a: iter=3 reward=1.5"
    assert progress.full("PPO_a", result).splitlines()[1:] == [
        "  training_iteration: 3",
        "  episode_reward_mean: 1.5",
        "  info/kl: 0.25",
    ]


def test_bars() -> None:
    assert progress.bar(None) == ""
    assert progress.bar(0.5, width=4) == "━━──  50%"
    assert progress.bar(1.0, unicode=False, width=4) == "#### 100%"


def drawn(monkeypatch: pytest.MonkeyPatch, trials: list[Any], columns: int) -> list[str]:
    """The lines of the last table that a terminal of that width shows."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("rich._console", None)  # it asks once
    monkeypatch.setenv("TERM", "xterm")
    reporter = CLIReporter()
    reporter.setup("exp")
    reporter.report(trials, True)
    reporter.close()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
    start = max(number for number, line in enumerate(lines) if "exp: " in line)
    return [line.rstrip() for line in lines[start:] if line.strip()]


RATES = [1.2345678e-5, 1.2345679e-5, 0.01]
SWEEP = [
    trial(
        f"PPO_CartPole-v1_1a2b3_{number:05d}",
        params={"lr": rate, "gamma": 0.99},
        training_iteration=123,
        time_total_s=100.123,
        timesteps_total=1_000_000,
        episode_reward_mean=123.456,
    )
    for number, rate in enumerate(RATES)
]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_is_folded_or_cut_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    lines = drawn(monkeypatch, SWEEP, columns)
    assert max(map(len, lines)) <= columns and len(lines) == 3 + len(SWEEP), "a line for each trial"
    for line, rate, number in zip(lines[3:], RATES, range(3), strict=True):
        cells = line.split()
        assert cells[:4] == [f"{number:05d}", "RUNNING", repr(rate), "0.99"], "what tells trials apart is whole"
        assert "123.456" in cells and "50%" in cells
    assert ("total time (s)" in lines[1]) == (columns == 120) and ("iter" in lines[1]) == (columns > 60)


def test_one_training_alone_is_called_what_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(monkeypatch, SWEEP[:1], 80)
    assert lines[0].startswith("exp: RUNNING, 00:00:0") and lines[3].split()[0] == "PPO_CartPole-v1"


def test_before_the_first_result_a_clock_says_what_is_happening(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    reporter = JupyterNotebookReporter()
    monkeypatch.setattr(reporter, "show", lambda trials, done: None)
    waiting = trial("PPO_a", done=None)
    reporter.report([waiting], False)
    clock.now += 75
    (row,) = reporter.rows([waiting])[1]
    assert reporter.phase(row) == "compiling and first steps, 1:15"


def test_what_is_left_is_told_from_the_way_since_the_first_result(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    reporter = JupyterNotebookReporter()
    monkeypatch.setattr(reporter, "show", lambda trials, done: None)
    running = trial("PPO_a", done=0.1, training_iteration=1)
    reporter.report([running], False)
    (row,) = reporter.rows([running])[1]
    assert reporter.phase(row) == "", "one point has no speed"
    clock.now, running.progress = 200.0, 0.3
    (row,) = reporter.rows([running])[1]
    assert reporter.phase(row) == "5:50 left", "0.2 took 100 s, and 0.7 is left"
    running.status = "TERMINATED"
    (row,) = reporter.rows([running])[1]
    assert reporter.phase(row) == ""


def test_the_clock_goes_on_while_a_program_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody calls the reporter meanwhile: another thread draws."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    reporter = CLIReporter()
    reporter.report([trial("PPO_a", done=None)], False)
    before = len(terminal.getvalue())
    deadline = time.monotonic() + 20
    while len(terminal.getvalue()) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    drawn_meanwhile = terminal.getvalue()[before:]
    reporter.close()
    assert "compiling and first steps" in drawn_meanwhile

"""`athlete report`: one page of a training, of several or of an experiment, which needs nothing beside itself."""

from __future__ import annotations

import base64
import html
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from browser import browser

from athlete import tune
from athlete.algorithms import get_config_class
from athlete.record.about import read_about
from athlete.record.names import TuneError
from athlete.record.recorder import Recorder
from athlete.record.results import read_results, write_params
from athlete.tune.chart import chart, line_of, short, ticks
from athlete.tune.report_page import write_report

SMALL = {"env": "CartPole-v1", "num_envs_per_worker": 2, "train_batch_size": 64, "num_epochs": 1, "minibatch_size": 64}


def written(folder: Path, values, **params) -> Path:
    """A training's folder as if it had reached these rewards."""
    recorder = Recorder(folder)
    for number, value in enumerate(values, 1):
        recorder.write({"training_iteration": number, "timesteps_total": 100 * number, "episode_reward_mean": value})
    recorder.close()
    write_params(folder, params)
    return folder


def page(folder: Path, **how) -> str:
    return write_report(folder, **how).read_text(encoding="utf-8")


def cells(text: str, title: str) -> list[list[str]]:
    """The body of the table of a section."""
    section = text.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section.partition("<tbody>")[2])
    return [[html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for row in rows]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    config = get_config_class("PPO").from_dict({**SMALL, "lr": 1e-3, "seed": 5, "logdir": folder})
    config.evaluation(evaluation_interval=1, evaluation_duration=2)
    with config.build() as algo:
        algo.learn(stop={"training_iteration": 3})
    return folder


def test_a_training_has_its_curves_settings_machine_and_code(trained):
    text = page(trained)
    assert "PPO in CartPole-v1 · 1 training of 1 configuration · 192 timesteps" in text
    assert text.count("<svg") == 2, "learning and evaluation"
    settings = {row[0]: row[1:] for row in cells(text, "Settings that differ from the defaults")}
    assert settings["lr"] == ["0.001", "0.0003"] and settings["train_batch_size"][0] == "64"
    assert "gamma" not in settings and "logdir" not in settings
    machine = dict(cells(text, "Machine and versions"))
    assert machine["algorithm"] == "PPO" and machine["jax"] == read_about(trained)["jax"] and int(machine["cores"]) > 0


def test_its_code_repeats_the_training(trained, tmp_path, monkeypatch):
    code = html.unescape(re.search(r"<code>(from athlete.*?)</code>", page(trained), re.S)[1])
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))
    exec(code, found := {})
    first, again = read_results(trained), read_results(found["algo"].logdir)
    for key in ("timesteps_total", "episode_reward_mean"):
        np.testing.assert_array_equal([row[key] for row in first], [row[key] for row in again])
    assert first[-1]["evaluation"]["episode_reward_mean"] == again[-1]["evaluation"]["episode_reward_mean"]


def test_an_experiment_has_a_line_for_each_configuration_the_best_first(tmp_path):
    def train(config):
        for number in range(1, 4):
            tune.report(timesteps_total=10 * number, episode_reward_mean=config["gain"] * number + config["seed"])

    config = {"gain": tune.grid_search([1.0, 5.0]), "seed": 0}
    analysis = tune.run(train, config=config, num_seeds=4, local_dir=str(tmp_path), name="gains", verbose=0)
    text = page(analysis.folder)
    rows = cells(text, "Results")
    assert [row[:3] for row in rows] == [["gain=5", "4", "16.5"], ["gain=1", "4", "4.5"]]
    assert rows[0][3] == "15.25 to 17.75" or re.fullmatch(r"1[56][\d.]* to 1[78][\d.]*", rows[0][3])
    assert "interquartile mean of 4 seeds" in text and text.count("<polygon") == 2
    assert text.index("gain=5</li>") < text.index("gain=1</li>")
    assert text.count("<h2>To repeat it</h2>") == 0, "only of algorithms of ours"
    assert cells(page(analysis.folder, mode="min"), "Results")[0][0] == "gain=1"


def test_several_trainings_that_differ_in_their_seed_are_one_line(tmp_path):
    for seed in range(2):
        written(tmp_path / f"a{seed}", [1, 2 + seed], lr=0.1, seed=seed, logdir=f"a{seed}")
    written(tmp_path / "b", [1, 9], lr=0.2, seed=0, logdir="b")
    rows = cells(page(tmp_path), "Results")
    assert [row[:3] for row in rows] == [["lr=0.2", "1", "9"], ["lr=0.1", "2", "2.5"]]


def test_a_film_is_in_the_page_itself(tmp_path):
    written(tmp_path, [1, 2])
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "episode.mp4").write_bytes(b"film")
    assert f"data:video/mp4;base64,{base64.b64encode(b'film').decode()}" in page(tmp_path)


def test_nothing_is_asked_of_the_network_and_names_cannot_be_code(tmp_path):
    folder = written(
        tmp_path / "<script>alert(1)</script>", [1, 2], env="<img src=x onerror=alert(1)>", note="</style>"
    )
    text = page(folder)
    assert "<script" not in text and "<img" not in text
    assert not re.search(r"""<[^>]*(src|href)\s*=\s*(?!["']data:)""", text)
    assert not re.search(r"https?:|@import|url\(", text)


def test_what_a_report_cannot_be_of_is_an_error(tmp_path):
    with pytest.raises(TuneError, match=r"there are no results in .*no result\.json"):
        write_report(tmp_path)
    written(tmp_path / "one", [1, 2])
    with pytest.raises(TuneError, match="did you mean 'episode_reward_mean'"):
        write_report(tmp_path / "one", metric="episode_reward_main")


def test_one_result_has_no_curve_and_still_a_page(tmp_path):
    text = page(written(tmp_path, [7]))
    assert "<svg" not in text and cells(text, "Results")[0][2] == "7"


def test_a_notebook_shows_the_curves_of_an_analysis(tmp_path):
    def train(config):
        for number in range(1, 4):
            tune.report(timesteps_total=number, score=float(number))

    analysis = tune.run(train, local_dir=str(tmp_path), verbose=0)
    shown = analysis.plot("score")._repr_html_()
    assert shown.startswith('<div class="chart">') and "<polyline" in shown
    with pytest.raises(TuneError, match="no training has two finite values of 'score' over 'nothing'"):
        analysis.plot("score", x="nothing")


def test_a_curve_goes_where_its_numbers_are():
    line = line_of("", np.array([0.0, 50.0, 100.0]), np.array([[0.0, 10.0, 20.0]]))
    (points,) = re.findall(r'<polyline points="([^"]*)"', chart([line], "timesteps", "reward"))
    first, middle, last = (tuple(map(float, point.split(","))) for point in points.split())
    assert first[0] < middle[0] < last[0] and first[1] > middle[1] > last[1], "up is up"
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1)


def test_bands_are_quartiles_from_four_seeds_on():
    values = np.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
    line = line_of("", np.zeros(1), values)
    assert (line.low[0], line.middle[0], line.high[0]) == (1.0, 2.0, 3.0)
    few = line_of("", np.zeros(1), values[2:])
    assert (few.low[0], few.middle[0], few.high[0]) == (2.0, 35.0, 100.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (-3, 7, [-4, -2, 0, 2, 4, 6, 8]), (0.1, 0.1, [0.0, 0.2]), (5, 5, [5, 6])],
)
def test_ticks_are_round_numbers_around_what_is_drawn(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_numbers_on_an_axis_are_short():
    assert [short(value) for value in (0.25, 1500, 20_000, 1.5e6, 2e9)] == ["0.25", "1500", "20k", "1.5M", "2G"]


@pytest.mark.thorough
def test_a_browser_shows_it_at_any_width_without_a_word_and_without_a_request(trained, tmp_path):
    path = write_report(trained, tmp_path / "report.html")
    with browser(tmp_path / "profile") as tab:
        for width, scheme in itertools.product((1300, 400), ("light", "dark")):
            tab.open(path.as_uri(), width, scheme=scheme)
            assert not tab.said
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nothing is beside the page"
            assert tab.evaluate("performance.getEntriesByType('resource').length") == 0
            imageio = pytest.importorskip("imageio.v3")
            pixels = imageio.imread(tab.picture(tmp_path / f"{width}-{scheme}.png"))[..., :3]
            assert pixels.shape[1] == width and pixels.reshape(-1, 3).std() > 5, "something is drawn"
            assert (pixels[2, 2].mean() > 200) == (scheme == "light")

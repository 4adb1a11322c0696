"""`athlete tune` and `athlete plot`, and the pictures of an experiment."""

from __future__ import annotations

import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tune_fakes import Counter
from typer.testing import CliRunner, Result

from athlete import tune
from athlete.cli.main import app
from athlete.cli.tune import called, searched
from athlete.tune.plot import POINTS, curves_on_grid, plot_curves, plot_parallel_coordinates
from athlete.tune.space import Float


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tune.ExperimentAnalysis:
    """Two gains and two sizes with two seeds each."""
    config = {"gain": tune.grid_search([1.0, 100.0]), "size": tune.grid_search(["small", "large"])}
    return tune.run(
        Counter,
        config=config,
        num_seeds=2,
        stop={"training_iteration": 4},
        local_dir=tmp_path_factory.mktemp("results"),
        name="mine",
        verbose=0,
    )


def athlete(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line))


def words_of(svg: Path) -> str:
    return "".join(ElementTree.parse(svg).getroot().itertext()) + svg.read_text()


def test_curves_are_read_where_every_seed_has_them() -> None:
    long = np.array([0.0, 10.0, 20.0]), np.array([np.nan, 1.0, 2.0])
    short = np.array([5.0, 15.0]), np.array([0.0, 10.0])
    found = curves_on_grid([long, short])
    assert found is not None
    grid, values = found
    assert (grid[0], grid[-1], values.shape) == (10.0, 15.0, (2, POINTS))
    assert values[:, 0].tolist() == [1.0, 5.0] and values[:, -1].tolist() == [1.5, 10.0]
    assert curves_on_grid([(np.array([1.0]), np.array([1.0]))]) is None


@pytest.mark.parametrize("ending", ["svg", "png", "html", "pdf"])
def test_pictures_of_every_kind(experiment: tune.ExperimentAnalysis, ending: str, tmp_path: Path) -> None:
    heads = {"svg": b"<?xml", "png": b"\x89PNG", "html": b"<!doctype html>", "pdf": b"%PDF"}
    for draw in (plot_curves, plot_parallel_coordinates):
        path = draw(experiment, tmp_path / "new" / f"picture.{ending}")
        assert path.read_bytes().startswith(heads[ending]) and len(path.read_bytes()) > 1_000


def test_the_same_results_give_the_same_bytes_and_a_band_for_each_config(
    experiment: tune.ExperimentAnalysis, tmp_path: Path
) -> None:
    one, two = (plot_curves(experiment, tmp_path / name).read_bytes() for name in ("one.svg", "two.svg"))
    assert one == two and one.count(b"FillBetweenPolyCollection") == 4


def test_a_wrong_ending_metric_or_axis_is_said(experiment: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a picture ends in"):
        plot_curves(experiment, tmp_path / "picture.gif")
    with pytest.raises(tune.TuneError, match="'episode_reward'"):
        plot_curves(experiment, tmp_path / "picture.svg", metric="episode_reward")
    with pytest.raises(tune.TuneError, match="no number 'steps' to draw over"):
        plot_curves(experiment, tmp_path / "picture.svg", x="steps")
    alone = tune.run(Counter, stop={"training_iteration": 1}, local_dir=tmp_path, verbose=0)
    with pytest.raises(tune.TuneError, match="nothing was searched"):
        plot_parallel_coordinates(alone, tmp_path / "picture.svg")
    with pytest.raises(tune.TuneError, match="no trial has two finite values"):
        plot_curves(alone, tmp_path / "picture.svg")


def test_the_command_draws_both(experiment: tune.ExperimentAnalysis, tmp_path: Path) -> None:
    result = athlete(f"plot {experiment.folder} --out {tmp_path} --format html")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"curves.html", "parallel_coordinates.html"}
    assert athlete(f"plot {tmp_path}").exit_code == 1 and "no experiment" in athlete(f"plot {tmp_path}").output
    assert "--format gif" in athlete(f"plot {experiment.folder} --format gif").output


TINY = "--set train_batch_size=64 --set minibatch_size=32 --set num_epochs=1 --set model.fcnet_hiddens=[8]"


def test_a_search_from_the_command_line(tmp_path: Path) -> None:
    result = athlete(
        f"tune PPO CartPole-v1 {TINY} --set seed=0 --search 'lr=loguniform(1e-4, 1e-2)' --search 'gamma=[0.9, 0.99]' "
        f"--scheduler 'asha(max_t=2, reduction_factor=2)' --num-samples 1 --local-dir {tmp_path} --name mine"
    )
    assert result.exit_code == 0, result.output
    analysis = tune.ExperimentAnalysis(tmp_path / "mine")
    assert [trial.config["gamma"] for trial in analysis.trials] == [0.9, 0.99]
    assert all(1e-4 <= trial.config["lr"] <= 1e-2 for trial in analysis.trials)
    assert "The best configurations, by episode_reward_mean" in result.output
    assert "athlete evaluate" in result.output and "athlete plot" in result.output


def test_ranges_are_read_and_nothing_is_executed() -> None:
    config: dict[str, Any] = searched({"env": "x"}, ["lr=uniform(0.1, 1.0)", "model.width=[1, 2]"])
    assert config == {"env": "x", "lr": Float(0.1, 1.0), "model": {"width": {"grid_search": [1, 2]}}}
    assert called("pbt(perturbation_interval=2, hyperparam_mutations={'lr': [1, 2]})", "--scheduler") == (
        "pbt",
        [],
        {"perturbation_interval": 2, "hyperparam_mutations": {"lr": [1, 2]}},
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "say when a trial ends"),
        ("--stop-iters 1 --search lr", "--search takes NAME=RANGE"),
        ("--stop-iters 1 --search 'lr=even(1, 2)'", "there is no 'even'"),
        ("--stop-iters 1 --search 'lr=uniform(open(1), 2)'", "open(1) is no number"),
        ("--stop-iters 1 --search 'lr=uniform(2, 1)'", "the first number must be below"),
        ("--scheduler 'asha(9)'", "settings have names"),
        ("--scheduler 'asha(t=9)'", "it takes time_attr, metric, mode, max_t"),
        ("--scheduler ahsa", "did you mean 'asha'"),
        ("--stop-iters 1 --search-alg optuma", "did you mean 'optuna'"),
    ],
)
def test_impossible_searches_are_sentences(options: str, said: str, tmp_path: Path) -> None:
    result = athlete(f"tune PPO CartPole-v1 --local-dir {tmp_path} {options}")
    assert result.exit_code != 0 and said in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.glob("*/*"))

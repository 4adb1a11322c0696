"""`Tuner` and `ResultGrid`: the newer face of `tune.run`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tune_fakes import Counter, saved_iterations

from athlete import tune


def tuner(folder: Path, **space: object) -> tune.Tuner:
    return tune.Tuner(
        Counter,
        param_space={"gain": tune.grid_search([1.0, 3.0, 2.0]), **space},
        tune_config=tune.TuneConfig(metric="episode_reward_mean", mode="max"),
        run_config=tune.RunConfig(
            name="mine",
            storage_path=folder,
            stop={"training_iteration": 4},
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute="episode_reward_mean",
                checkpoint_score_order="min",
                checkpoint_frequency=1,
            ),
        ),
    )


def test_fit_gives_a_grid_of_results(tmp_path: Path) -> None:
    grid = tuner(tmp_path).fit()
    assert (len(grid), grid.num_terminated, grid.num_errors) == (3, 3, 0)
    assert [result.metrics["episode_reward_mean"] for result in grid] == [4.0, 12.0, 8.0]
    best = grid.get_best_result()
    assert best is grid[1] and best.config == {"gain": 3.0} and best.error is None
    assert len(best.metrics_dataframe) == 4 and "Result of Counter" in repr(best)
    assert saved_iterations(best.path) == [1, 4], "the best by the lowest reward, and the newest"
    assert [metrics["training_iteration"] for _, metrics in best.best_checkpoints] == [1, 4]
    assert best.checkpoint == best.best_checkpoints[-1][0]
    assert grid.get_best_result(mode="min") is grid[0]
    assert len(grid.get_dataframe()) == 3 and grid.experiment_path == str(tmp_path / "mine")


def test_errors_are_in_the_grid_and_can_be_taken_up_again(tmp_path: Path) -> None:
    first = tuner(tmp_path, fail_at=3, fail_once=str(tmp_path / "marker"))
    with pytest.raises(tune.TuneError, match="call fit"):
        first.get_results()
    grid = first.fit()
    assert (grid.num_errors, grid.num_terminated) == (1, 2) and first.get_results() is grid
    assert "the environment broke" in str(grid.errors[0]) and grid[0].error is not None

    assert tune.Tuner.can_restore(tmp_path / "mine") and not tune.Tuner.can_restore(tmp_path)
    restored = tune.Tuner.restore(
        tmp_path / "mine",
        Counter,
        resume_errored=True,
        run_config=tune.RunConfig(stop={"training_iteration": 4}, verbose=0),
    )
    again = restored.fit()
    assert (again.num_errors, again.num_terminated) == (0, 3)
    assert again.get_best_result().config["gain"] == 3.0, "metric and mode are remembered"


def test_restoring_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(tune.TuneError, match="there is no experiment in"):
        tune.Tuner.restore(tmp_path)


def test_an_order_that_is_neither(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint_score_order='down'"):
        tune.CheckpointConfig(checkpoint_score_order="down").settings()


def test_run_takes_a_checkpoint_config_too(tmp_path: Path) -> None:
    config = tune.CheckpointConfig(checkpoint_frequency=2)
    (trial,) = tune.run(
        Counter, checkpoint_config=config, stop={"training_iteration": 4}, storage_path=tmp_path, verbose=0
    ).trials
    assert saved_iterations(trial.folder) == [2, 4]

"""Every figure on the pages comes from a manifest in `benchmarks/results`, and every manifest from seeds of its own."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LEARNING = sorted(RESULTS.glob("learning-*.json"))
OFFLINE = sorted(path for path in RESULTS.glob("offline-*.json") if '"recipe"' in path.read_text(encoding="utf-8"))
ESTIMATION = sorted(RESULTS.glob("estimation-*.json"))
SELF_PLAY = sorted(RESULTS.glob("self-play-*.json"))


def load_script(name: str) -> ModuleType:
    """A script of `benchmarks/`, as a module."""
    if str(ROOT / "benchmarks") not in sys.path:
        sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def manifest(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


# Manifests


@pytest.mark.parametrize("path", LEARNING, ids=lambda path: path.stem)
def test_what_is_published_was_learned_on_seeds_that_nobody_tunes_on(path: Path) -> None:
    found = manifest(path)
    assert found["seeds"] == [curve["seed"] for curve in found["curves"]]
    assert min(found["seeds"]) >= 1000
    assert len(set(found["seeds"])) == len(found["seeds"])


@pytest.mark.parametrize("path", LEARNING, ids=lambda path: path.stem)
def test_every_curve_names_the_commit_that_trained_it(path: Path) -> None:
    for curve in manifest(path)["curves"]:
        assert re.fullmatch(r"[0-9a-f]{40}", curve["commit"])
        assert curve["dirty"] is False
        assert curve["versions"]["jax"]


@pytest.mark.parametrize("path", LEARNING, ids=lambda path: path.stem)
def test_figures_are_those_of_the_curves(path: Path) -> None:
    from athlete.ops.statistics import summarize

    found = manifest(path)
    reached = summarize([curve["evaluation"] for curve in found["curves"]])
    assert found["figures"] == {
        reached.statistic.replace(" ", "_"): pytest.approx(reached.value, abs=1e-3),
        "interval_95": pytest.approx(reached.interval, abs=1e-3) if reached.interval else None,
        "worst": pytest.approx(reached.worst, abs=1e-3),
    }
    assert all(curve["timesteps"][-1] >= found["timesteps"] for curve in found["curves"])


@pytest.mark.parametrize("path", LEARNING, ids=lambda path: path.stem)
def test_what_is_published_was_trained_as_the_example_says_today(path: Path) -> None:
    learning, found = load_script("learning"), manifest(path)
    words = found["command"].removeprefix("python benchmarks/learning.py ").split()
    training = learning.training_of(learning.parser().parse_args(words))
    assert path.stem == f"learning-{training.label}"
    today = json.loads(json.dumps([training.algorithm, training.environment, training.config, training.timesteps]))
    assert [found[name] for name in ("algorithm", "environment", "config", "timesteps")] == today


@pytest.mark.parametrize("path", SELF_PLAY, ids=lambda path: path.stem)
def test_games_were_learned_on_fresh_seeds_by_a_commit(path: Path) -> None:
    found = manifest(path)
    assert found["seeds"] == [run["seed"] for run in found["runs"]] and min(found["seeds"]) >= 1000
    assert len(set(found["seeds"])) == len(found["seeds"])
    for run in found["runs"]:
        assert re.fullmatch(r"[0-9a-f]{40}", run["commit"]) and run["dirty"] is False


@pytest.mark.parametrize("path", SELF_PLAY, ids=lambda path: path.stem)
def test_games_were_learned_as_the_example_says_today(path: Path) -> None:
    from athlete import tuned_examples

    found = manifest(path)
    if path.stem == "self-play-rock-paper-scissors":
        assert found["timesteps"] == load_script("rock_paper_scissors").TIMESTEPS
        return
    example = tuned_examples.load(path.stem.removeprefix("self-play-"))
    assert found["config"] == json.loads(json.dumps(example.config))
    assert found["timesteps"] == example.stop["timesteps_total"]


@pytest.mark.parametrize("path", SELF_PLAY, ids=lambda path: path.stem)
def test_the_worst_games_are_those_of_the_runs(path: Path) -> None:
    found = manifest(path)
    if "games" in found:
        assert found["worst"] == load_script("self_play").worst(found["runs"])
    else:
        assert found["worst"] == {name: min(run[name] for run in found["runs"]) for name in ("memory", "without")}


@pytest.mark.parametrize("path", OFFLINE, ids=lambda path: path.stem)
def test_recorded_data_were_learned_from_on_fresh_seeds_by_a_commit(path: Path) -> None:
    found, offline = manifest(path), load_script("offline")
    assert found["seeds"] == [run["seed"] for run in found["runs"]] and min(found["seeds"]) >= 1000
    assert len(set(found["seeds"])) == len(found["seeds"])
    for run in found["runs"]:
        assert re.fullmatch(r"[0-9a-f]{40}", run["commit"]) and run["dirty"] is False
        assert run["recording"] == run["seed"] % offline.RECORDINGS


@pytest.mark.parametrize("path", OFFLINE, ids=lambda path: path.stem)
def test_recorded_data_were_learned_from_as_the_row_says_today(path: Path) -> None:
    found, offline = manifest(path), load_script("offline")
    (row,) = [row for row in offline.ROWS if f"offline-{row.label}" == path.stem]
    assert found == json.loads(json.dumps(offline.manifest_of(row, found["runs"])))


@pytest.mark.parametrize("path", ESTIMATION, ids=lambda path: path.stem)
def test_estimators_were_measured_on_fresh_seeds_as_the_benchmark_says_today(path: Path) -> None:
    found, estimation = manifest(path), load_script("estimation")
    assert found == json.loads(json.dumps(estimation.manifest_of(path.stem.removeprefix("estimation-"), found["runs"])))
    assert min(found["seeds"]) >= 1000 and len(set(found["seeds"])) == len(found["seeds"])
    for run in found["runs"]:
        assert re.fullmatch(r"[0-9a-f]{40}", run["commit"]) and run["dirty"] is False


def test_going_on_online_was_measured_on_fresh_seeds_as_the_benchmark_says_today() -> None:
    path = RESULTS / "offline-online.json"
    if not path.exists():
        pytest.skip("it was not measured yet, and the page says so")
    found, online = manifest(path), load_script("offline_online")
    assert found == json.loads(json.dumps(online.manifest_of(found["runs"])))
    assert min(found["seeds"]) >= 1000
    for run in found["runs"]:
        assert re.fullmatch(r"[0-9a-f]{40}", run["commit"]) and run["dirty"] is False


def test_the_figures_of_estimators_are_of_ranks_and_of_intervals() -> None:
    estimation = load_script("estimation")
    told = {"estimate": [1.0, 3.0, 2.0], "low": [0.0, 2.5, 3.0], "high": [2.0, 4.0, 5.0], "std": [1.0, 2.0, 6.0]}
    run = {"true": [10.0, 30.0, 20.0], "behaviour_std": 2.0, "told": dict.fromkeys(estimation.METHODS, told)}
    other = run | {"true": [1.0, 2.0, 3.0]}
    figures = estimation.figures_of([run, other])["DR"]
    assert figures == {"rank_correlation": 0.75, "inside": round(2 / 6, 3), "relative_std": 1.0}


def test_the_rows_of_recorded_data_have_names_of_their_own_and_examples_that_are_there() -> None:
    offline = load_script("offline")
    labels = [row.label for row in offline.ROWS]
    assert len(set(labels)) == len(labels)
    assert {"pendulum-replay-iql", "half-cheetah-medium-cql", "hopper-medium-expert-bc"} < set(labels)
    assert all(row.timesteps > 0 and "input_" not in row.config for row in offline.ROWS)


def test_a_row_of_recorded_data_is_gone_on_with_seed_by_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offline = load_script("offline")
    learned: list[int] = []

    def learn(row: Any, seed: int) -> dict[str, Any]:
        learned.append(seed)
        return {"seed": seed, "seconds": 0.0, "behaviour": 1.0, "evaluation": float(seed), "score": 50.0}

    monkeypatch.setattr(offline, "learn", learn)
    (row,) = [row for row in offline.ROWS if row.label == "pendulum-long-expert-bc"]
    offline.learn_seeds(row, range(1000, 1002), tmp_path)
    offline.learn_seeds(row, range(1000, 1003), tmp_path)
    assert learned == [1000, 1001, 1002]
    found = manifest(tmp_path / "offline-pendulum-long-expert-bc.json")
    assert found["seeds"] == learned and found["figures"]["mean"] == 1001.0 and found["figures"]["worst"] == 1000.0
    other = row._replace(kind="medium")
    with pytest.raises(SystemExit, match="its data is expert, that of the row is medium"):
        offline.known_runs(tmp_path / "offline-pendulum-long-expert-bc.json", other)


def test_data_that_another_recipe_made_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_script("offline_data")
    calls: list[Path] = []

    def make(name: str, seed: int, folder: Path) -> dict[str, Any]:
        assert not folder.exists()
        calls.append(folder)
        folder.mkdir()
        scores = {"recipe": data.RECIPES[name]._asdict()}
        (folder / "scores.json").write_text(json.dumps(scores))
        return scores

    monkeypatch.setattr(data, "make", make)
    monkeypatch.setattr(load_script("learning_all"), "LOCKS", tmp_path / "locks")
    folder, _ = data.made("cartpole", 1, tmp_path)
    data.made("cartpole", 1, tmp_path)
    assert calls == [folder] == [tmp_path / "cartpole-1"]
    monkeypatch.setitem(data.RECIPES, "cartpole", data.RECIPES["cartpole"]._replace(timesteps=5))
    data.made("cartpole", 1, tmp_path)
    assert len(calls) == 2


def test_manifests_of_tuning_seeds_say_so() -> None:
    for path in (RESULTS / "tuning-seeds").glob("*.json"):
        assert "tuned on" in manifest(path)["note"]


# Pages


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_a_pages_tables_are_the_manifests(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert load_script("table").filled(text) == text, "run python benchmarks/table.py"


def test_every_manifest_of_learning_is_on_the_page() -> None:
    table = load_script("table")
    shown = table.tuned_table() + table.defaults_table() + table.mujoco_table()
    for path in LEARNING:
        found, label = manifest(path), path.stem.removeprefix("learning-")
        name = {True: found["environment"], False: f"`{label.partition('-without-')[0]}`"}[
            label.endswith("-defaults") or label.startswith(table.ONE_SETTING)
        ]
        assert name in shown, label


def test_the_readmes_pictures_are_small() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert pictures and sum((ROOT / picture).stat().st_size for picture in pictures) < 300_000


@pytest.mark.parametrize(
    ("value", "text"),
    [(2608.6, "2,609"), (-142.51, "-142.5"), (500.0, "500"), (93.144, "93.14"), (0.9066, "0.907"), (0.0, "0.000")],
)
def test_numbers_have_the_digits_that_are_worth_reading(value: float, text: str) -> None:
    assert load_script("table").number(value) == text


def test_fewer_than_four_seeds_have_a_mean_and_one_no_interval() -> None:
    table = load_script("table")
    three = {"seeds": [1, 2, 3], "figures": {"mean": 2.0, "interval_95": [1.0, 3.0], "worst": 1.0}}
    assert table.reached(three) == ["3", "2 (mean)", "1 to 3", "1"]
    one = {"seeds": [1], "figures": {"mean": 2.0, "interval_95": None, "worst": 2.0}}
    assert table.reached(one) == ["1", "2 (mean)", "one seed", "2"]


def test_what_a_memory_costs_by_its_fill() -> None:
    page = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
    cases = manifest(RESULTS / "memory-cost.json")["figures"]
    for label, case in zip(("uniform, 52 MB", "prioritised, 56 MB"), cases, strict=False):
        costs = " | ".join(f"{cost:.1f}" for cost in case["cpu_microseconds_a_step_by_fill"].values())
        assert f"| {label} | {costs} |" in page


# What makes manifests


def test_a_training_is_added_to_a_manifest_seed_by_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learning = load_script("learning")
    output = tmp_path / "learning-x.json"
    words = ["learning.py", "cartpole-ppo", "--timesteps", "2048", "--output", str(output)]
    for seeds in ("1", "2"):
        monkeypatch.setattr("sys.argv", [*words, "--seeds", seeds])
        learning.main()
    found = manifest(output)
    assert found["seeds"] == [1000, 1001]
    assert capsys.readouterr().out.count(" seed 1000: ") == 1  # not trained again
    assert all(len(curve["commit"]) == 40 and "dirty" in curve for curve in found["curves"])
    assert found["figures"].keys() == {"mean", "interval_95", "worst"}  # no interquartile mean of two
    assert found["curves"][0]["timesteps"] == [2048]


def test_a_manifest_of_other_settings_is_not_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learning = load_script("learning")
    output = tmp_path / "learning-x.json"
    output.write_text(
        json.dumps(
            {"algorithm": "PPO", "environment": "CartPole-v1", "config": {"lr": 1.0}, "timesteps": 2048}
            | {"evaluation_episodes": 20, "curves": [{"seed": 1000, "evaluation": 1.0}]}
        )
    )
    monkeypatch.setattr("sys.argv", ["learning.py", "cartpole-ppo", "--timesteps", "2048", "--output", str(output)])
    with pytest.raises(SystemExit, match=r"its config is .*remove the file to begin anew"):
        learning.main()


@pytest.mark.parametrize(
    ("words", "label", "command"),
    [
        ("cartpole-ppo", "cartpole-ppo", "cartpole-ppo"),
        ("pendulum-sac --timesteps 10000", "pendulum-sac-10k", "pendulum-sac --timesteps 10000"),
        ("mujoco-ppo Hopper-v5", "mujoco-ppo-hopper-v5", "mujoco-ppo Hopper-v5"),
        ("PPO Acrobot-v1 --timesteps 5", "ppo-acrobot-v1-defaults", "PPO Acrobot-v1 --timesteps 5"),
        (
            "deep-sea-dqn-rnd --without exploration_config",
            "deep-sea-dqn-rnd-without-exploration-config",
            "deep-sea-dqn-rnd --without exploration_config",
        ),
    ],
)
def test_a_manifests_name_and_command_say_what_was_trained(words: str, label: str, command: str) -> None:
    learning = load_script("learning")
    training = learning.training_of(learning.parser().parse_args(words.split()))
    assert (training.label, training.command) == (label, command)


def test_untuned_runs_are_made_again_where_a_default_has_changed_not_where_a_setting_is_new() -> None:
    untuned = load_script("untuned")
    assert untuned.are_of({"lr": 1e-3}, {"lr": 1e-3, "env_timeout": 600.0})
    assert not untuned.are_of({"lr": 1e-3}, {"lr": 5e-4})
    assert not untuned.are_of({"lr": 1e-3, "gone": 1}, {"lr": 1e-3})


def test_seeds_below_a_thousand_are_kept_apart() -> None:
    learning = load_script("learning")
    look = learning.parser().parse_args(["cartpole-ppo", "--first-seed", "3"])
    assert learning.path_of(look, "cartpole-ppo").parent.name == ".tuning"
    published = learning.parser().parse_args(["cartpole-ppo"])
    assert learning.path_of(published, "cartpole-ppo").parent.name == "results"


def test_every_training_of_the_queue_is_one_that_exists() -> None:
    learning = load_script("learning")
    for words in (words for group in load_script("learning_all").GROUPS.values() for words in group):
        learning.training_of(learning.parser().parse_args(words.split()))


@pytest.mark.parametrize(
    ("words", "load", "sentence"),
    [
        ("", 0.6, "load average is 0.6, and speeds are measured at 0.5 at most"),
        ("--busy --json x.json", 0.6, "--busy is for a look"),
        ("--rounds 2 --json x.json", 0.1, "a manifest of speeds has 3 rounds at least"),
        ("--busy", 9.0, None),
        ("--json x.json", 0.4, None),
    ],
)
def test_speeds_are_measured_on_an_idle_machine_in_three_rounds_at_least(
    words: str, load: float, sentence: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = load_script("manifest")
    monkeypatch.setattr(made, "LOAD_AT_START", load)
    parser = argparse.ArgumentParser()
    made.add_speed_options(parser)
    arguments = parser.parse_args(words.split())
    if sentence is None:
        made.require_idle(arguments)
    else:
        with pytest.raises(SystemExit, match=sentence):
            made.require_idle(arguments)


def test_every_measurement_of_speed_asks_for_an_idle_machine() -> None:
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
    others = ("manifest", "search")  # what the second one counts is timesteps
    of_speed = [name for name, text in scripts.items() if "write_manifest(" in text and name not in others]
    assert of_speed
    for name in of_speed:
        assert "add_speed_options(parser" in scripts[name] and "require_idle(arguments)" in scripts[name], name


def test_two_queues_do_not_train_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = load_script("learning_all")
    monkeypatch.setattr(queue, "LOCKS", tmp_path)
    first = queue.lock("mujoco-ppo Hopper-v5")
    assert first is not None
    assert queue.lock("mujoco-ppo Hopper-v5") is None
    assert queue.lock("mujoco-ppo Ant-v5") is not None
    os.close(first)
    assert queue.lock("mujoco-ppo Hopper-v5") is not None


def test_a_queue_ends_a_training_at_its_time() -> None:
    queue = load_script("learning_all")
    assert queue.run([sys.executable, "-c", ""], until=float("inf"))
    assert not queue.run([sys.executable, "-c", "import time; time.sleep(600)"], until=0.0)


@pytest.mark.parametrize("minutes", [-90, 90])
def test_a_time_is_the_next_one_that_the_clock_shows(minutes: int) -> None:
    queue, now = load_script("learning_all"), datetime.datetime.now()
    clock = (now + datetime.timedelta(minutes=minutes)).strftime("%H:%M")
    end = datetime.datetime.fromtimestamp(queue.end_of(clock))
    assert end.strftime("%H:%M") == clock
    assert now < end <= now + datetime.timedelta(days=1)


def test_a_queue_without_a_time_has_no_end() -> None:
    assert load_script("learning_all").end_of(None) == float("inf")

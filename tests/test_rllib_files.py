"""RLlib's own experiment files: what is taken of them as they are, and how their results and the defaults' are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_figures import ROOT, load_script

from athlete.algorithms import ALGORITHMS, ALIASES, get_config_class
from athlete.algorithms.catalog import is_joint, serves_slates
from athlete.tuned_examples.experiment_file import experiment_of, parse_yaml, read_experiments

FILES = parse_yaml((ROOT / "benchmarks" / "rllib_files.yaml").read_text(encoding="utf-8"), "rllib_files.yaml")
OURS = [name for name, entry in FILES.items() if entry["run"] in (*ALGORITHMS, *ALIASES)]
# Files whose environment is a class of RLlib's that nothing here serves.
OF_OTHER_PACKAGES = (
    *("cql/halfcheetah-bc.yaml", "cql/halfcheetah-cql.yaml", "cql/hopper-bc.yaml", "cql/hopper-cql.yaml"),
    *("maml/ant-rand-goal-maml.yaml", "maml/halfcheetah-rand-direc-maml.yaml"),
    "ppo/recomm-sys001-ppo.yaml",
    "ppo/unity3d-soccer-strikers-vs-goalie-ppo.yaml",
    "qmix/pettingzoo-cooperative-pong-qmix.yaml",
)
# Files whose environment is given on the command line.
WITHOUT_ENVIRONMENT = ("dreamerv3/examples/atari_100k.yaml", "dreamerv3/examples/dm_control_suite_vision.yaml")


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_a_file_whose_algorithm_is_here_is_taken(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(json.dumps({"experiment": FILES[name]}))
    if name in OF_OTHER_PACKAGES:
        with pytest.raises(ValueError, match="would run code that only this file names"):
            read_experiments(path)
        return
    if name in WITHOUT_ENVIRONMENT:
        with pytest.raises(ValueError, match="has no 'env'"):
            read_experiments(path)
        return
    (experiment,) = read_experiments(path)
    experiment.check()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ppo/cartpole-ppo.yaml", None),
        ("pg/cartpole-crashing-with-remote-envs-pg.yaml", None),
        ("r2d2/stateless-cartpole-r2d2.yaml", None),
        ("ars/cartpole-ars.yaml", None),
        ("ppo/hopper-ppo.yaml", "it has no stop"),
        ("pg/multi-agent-cartpole-crashing-pg.yaml", None),
    ],
)
def test_what_cannot_run_says_why(name: str, sentence: str | None) -> None:
    files = load_script("rllib_files")
    why = files.why_not(experiment_of(name.replace("/", "-"), FILES[name], name))
    assert why is None if sentence is None else sentence in why


def test_a_file_passes_where_every_trial_reaches_its_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    files = load_script("rllib_files")
    entry = {
        "run": "PPO",
        "env": "CartPole-v1",
        "stop": {"sampler_results/episode_reward_mean": 150, "timesteps_total": 9},
    }
    experiment = experiment_of("x", entry, "x")
    last = {"episode_reward_mean": 151.5, "timesteps_total": 8, "time_total_s": 2.04}
    good, bad = (files.outcome(experiment, {**last, "episode_reward_mean": value}) for value in (151.5, 149.0))
    assert good == {
        "passed": True,
        "reached": {"episode_reward_mean": 151.5, "timesteps_total": 8.0},
        "timesteps": 8,
        "seconds": 2.0,
    }
    assert not bad["passed"]
    found = {"stop": experiment.stop, "trials": [good, bad]}
    assert files.line("x", found) == (
        "NOT      x: 151.5 after 8 steps, 2 s; 149.0 after 8 steps, 2 s [episode_reward_mean 150, timesteps_total 9]"
    )
    assert files.line("x", {**found, "trials": [good]}).startswith("reached  x: 151.5")
    assert files.line("x", {"why": "it has no stop"}) == "not run  x: it has no stop"


def test_what_a_script_says_in_python_stands_beside_its_settings() -> None:
    script = load_script("rllib_files")
    name = "examples/rock_paper_scissors_multiagent.py"
    assert set(script.SAID_IN_PYTHON) <= set(FILES)
    entry = script.with_functions(name, FILES[name])
    assert entry["env"] == "RockPaperScissors-v0" and entry["stop"] == FILES[name]["stop"]
    assert entry["config"]["multiagent"]["policies"] == FILES[name]["config"]["multiagent"]["policies"]
    assert entry["config"]["multiagent"]["policy_mapping_fn"] == {"player_0": "learned", "player_1": "beat_last"}
    assert (
        script.with_functions("a2c/cartpole-a2c.yaml", FILES["a2c/cartpole-a2c.yaml"]) == FILES["a2c/cartpole-a2c.yaml"]
    )


def test_recorded_data_of_ours_stand_in_the_place_of_rllibs(tmp_path: Path) -> None:
    script = load_script("rllib_files")
    assert set(script.DATA) <= set(FILES)
    for name in script.DATA:
        config = script.with_data(name, FILES[name]["config"], tmp_path)
        recipe, kind = script.DATA[name]
        assert config["input"] == str(tmp_path / f"{recipe}-0" / f"{kind}.safetensors")
        assert script.why_not(experiment_of(name.replace("/", "-"), {**FILES[name], "config": config}, name)) is None


def test_the_reasons_given_are_for_files_that_there_are() -> None:
    assert load_script("rllib_files").KNOWN.keys() <= FILES.keys()


def test_every_default_is_measured_where_it_serves() -> None:
    untuned = load_script("untuned")
    found = {(cell.algorithm, cell.environment) for cell in untuned.cells()}
    assert ("DQN", "CartPole-v1") in found and ("DQN", "Pendulum-v1") not in found
    assert ("PPO", "Pendulum-v1") in found and ("TD3", "CartPole-v1") not in found
    plain = [name for name in ALGORITHMS if not (is_joint(name) or serves_slates(name))]
    expected = {name for name in plain if not get_config_class(name).offline}
    assert {algorithm for algorithm, _ in found} == {"Rainbow", *expected}
    assert untuned.cells()[0].cost <= untuned.cells()[-1].cost


def test_results_are_kept_while_the_defaults_stay(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    untuned = load_script("untuned")
    monkeypatch.setattr(untuned, "RESULTS", tmp_path / "untuned.json")
    trained = []
    run = {"evaluation": 5.0, "seconds": 1.0, "commit": "c", "dirty": False, "training": 4.0}
    monkeypatch.setattr(untuned, "run_ours", lambda cell, seed: trained.append(seed) or {"seed": seed, **run})
    cell = untuned.Cell("PPO", "CartPole-v1", 1000)
    found: dict[str, Any] = {}
    for seed in (1000, 1001, 1000):
        untuned.measure(cell, seed, "athlete", None, found)
    assert trained == [1000, 1001]
    assert (
        json.loads((tmp_path / "untuned.json").read_text())["cells"]["athlete PPO CartPole-v1"]["runs"][1]["seed"]
        == 1001
    )
    found["athlete PPO CartPole-v1"]["settings"]["lr"] = 1.0  # as if the default had been another
    untuned.measure(cell, 1000, "athlete", None, found)
    assert trained == [1000, 1001, 1000] and len(found["athlete PPO CartPole-v1"]["runs"]) == 1


def test_the_page_of_defaults_is_what_was_measured() -> None:
    untuned = load_script("untuned")
    runs = [{"evaluation": value} for value in (100.0, 200.0, 300.0, 400.0, 500.0)]
    text = untuned.page({"athlete DQN CartPole-v1": {"runs": runs}, "sb3 DQN CartPole-v1": {"runs": runs[:1]}})
    assert "| DQN | 100,000 | 300.0 (100.0) | 100.0 (100.0, 1 seed) |" in text
    assert "| QRDQN | 100,000 | - |  |" in text
    found = json.loads(untuned.RESULTS.read_text())["cells"] if untuned.RESULTS.exists() else {}
    assert untuned.PAGE.read_text(encoding="utf-8") == untuned.page(found), "run python benchmarks/untuned.py --page"


def test_a_python_file_of_rllib_runs_with_its_imports_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "cartpole_a3c.py"
    path.write_text(
        "from ray import tune\n"
        "from ray.rllib.algorithms.a3c import A3CConfig\n"
        "from ray.tune.registry import register_env\n"
        "config = (\n"
        "    A3CConfig()\n"
        "    .training(gamma=0.95)\n"
        "    .environment('CartPole-v1')\n"
        "    .framework('tf')\n"
        "    .rollouts(num_rollout_workers=0)\n"
        ")\n"
    )
    (experiment,) = read_experiments(path)
    assert experiment.run == "A2C" and experiment.config["gamma"] == 0.95 and experiment.config["env"] == "CartPole-v1"


def test_accelerators_that_a_file_only_pretends_to_have_are_not_asked_for() -> None:
    entry = {"run": "A2C", "env": "CartPole-v1", "config": {"num_gpus": 5, "_fake_gpus": True, "lr": "1e-3"}}
    experiment = experiment_of("x", entry, "x")
    experiment.check()
    assert "num_gpus" not in experiment.config
    assert experiment_of("x", {**entry, "config": {"num_gpus": 0}}, "x").config["num_gpus"] == 0

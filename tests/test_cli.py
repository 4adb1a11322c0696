"""The command line: what is typed, what runs, what is said, and with which code it ends."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from athlete.algorithms import ALGORITHMS
from athlete.cli import common, doctor, experiments
from athlete.cli.common import aligned
from athlete.cli.curve import learning_curve
from athlete.cli.main import app
from athlete.record.files import short_path
from athlete.tune import Trial, TuneError
from athlete.tune.space import Integer

TINY = "--set train_batch_size=64 --set minibatch_size=32 --set num_epochs=1 --set model.fcnet_hiddens=[8]"

GOOD_ENV = """
import gymnasium, numpy

class Corridor(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 5.0, (1,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = 0.0, 0
        return numpy.array([0.0], numpy.float32), {}

    def step(self, action):
        self.position = min(max(self.position + (1.0 if action else -1.0), 0.0), 5.0)
        self.steps += 1
        observation = numpy.array([self.position], numpy.float32)
        return observation, self.position, self.position == 5.0, self.steps == 20, {}

class Broken(Corridor):
    def step(self, action):
        return super().step(action)[:4]
"""


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.delenv("ATHLETE_DEBUG", raising=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, with a module of environments in it."""
    (tmp_path / "my_corridors.py").write_text(GOOD_ENV)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_corridors", None)


def athlete(line: str) -> Result:
    """What the command does, in this process."""
    return CliRunner().invoke(app, shlex.split(line))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tiny training by the command line: its folder and what was said."""
    folder = tmp_path_factory.mktemp("trained")
    result = athlete(
        f"train PPO CartPole-v1 {TINY} --seed 3 --stop-iters 4 --checkpoint-freq 2 --local-dir {folder} --name tiny"
    )
    assert result.exit_code == 0, result.output
    (trial,) = (folder / "tiny").glob("PPO_*")
    return SimpleNamespace(experiment=folder / "tiny", trial=trial, stdout=result.stdout)


# Help


@pytest.mark.parametrize(
    "line", [["--help"], ["train", "--help"], ["tune", "--help"], ["plot", "--help"], ["example", "--help"]]
)
def test_help_imports_nothing_heavy(line: list[str]) -> None:
    code = (
        "import sys\nfrom athlete.cli.main import app\n"
        f"try: app({line!r})\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = ('jax', 'numpy', 'pandas', 'gymnasium', 'rich', 'yaml', 'logging')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[0].startswith("Usage:")
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "tune",
        "plot",
        "report",
        "evaluate",
        "check",
        "list",
        "doctor",
        *(f"example {x}" for x in ("list", "run", "get")),
    ],
)
def test_every_command_has_help(command: str) -> None:
    result = athlete(f"{command} --help")
    assert result.exit_code == 0 and "Usage:" in result.output


def test_version() -> None:
    from athlete import __version__

    assert athlete("--version").output == f"athlete {__version__}\n"


# What is typed becomes an experiment


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The arguments of every `tune.run`, which does nothing here."""
    calls: list[dict[str, Any]] = []

    def run(algorithm: str, **arguments: Any) -> SimpleNamespace:
        calls.append({"run": algorithm, **arguments})
        return SimpleNamespace(trials=[], interrupted=False, folder=tmp_path)

    monkeypatch.setattr(experiments.tune, "run", run)
    return calls


@pytest.mark.parametrize(
    "line",
    [
        "PPO CartPole-v1 --set lr=1e-3 --set model.fcnet_hiddens=[8] --stop-reward 475 --stop-timesteps 1000",
        '--run PPO --env CartPole-v1 --config \'{"lr": 1e-3, "model": {"fcnet_hiddens": [8]}}\' '
        '--stop \'{"episode_reward_mean": 475, "timesteps_total": 1000}\'',
        "--algo=PPO CartPole-v1 -c '{lr: 0.001, model: {fcnet_hiddens: [8]}}' "
        "-s '{env_runners/episode_return_mean: 475, num_env_steps_sampled_lifetime: 1000}'",
        "-a PPO -e CartPole-v1 --config '{lr: 5, model: {fcnet_hiddens: [8]}}' --set lr=0.001 "
        "--stop '{episode_reward_mean: 1}' --stop-reward 475 --stop-timesteps 1000",
    ],
)
def test_the_ways_to_say_the_same_training(line: str, asked: list[dict[str, Any]]) -> None:
    result = athlete(f"train {line}")
    assert result.exit_code == 0, result.output
    (call,) = asked
    assert call["run"] == "PPO"
    assert call["config"] == {"env": "CartPole-v1", "lr": 0.001, "model": {"fcnet_hiddens": [8]}}
    assert call["stop"] == {"episode_reward_mean": 475, "timesteps_total": 1000}
    assert call["checkpoint_at_end"] is True and call["verbose"] == 1 and call["name"] is None


def test_settings_of_the_experiment(asked: list[dict[str, Any]]) -> None:
    athlete(
        "train PPO CartPole-v1 --stop-iters 3 --num-samples 2 --checkpoint-freq 5 --no-checkpoint-at-end "
        "--keep-checkpoints-num 3 --checkpoint-score-attr episode_reward_mean --local-dir out --name mine --resume "
        "--restore somewhere --max-concurrent-trials 2 -vv"
    )
    expected = {
        "stop": {"training_iteration": 3},
        "num_samples": 2,
        "checkpoint_freq": 5,
        "checkpoint_at_end": False,
        "keep_checkpoints_num": 3,
        "checkpoint_score_attr": "episode_reward_mean",
        "local_dir": "out",
        "name": "mine",
        "resume": True,
        "restore": "somewhere",
        "max_concurrent_trials": 2,
        "verbose": 3,
    }
    assert {key: asked[0][key] for key in expected} == expected


def test_a_seed_is_the_trainings_and_of_several_samples_the_source_of_their_seeds(asked: list[dict[str, Any]]) -> None:
    athlete("train PPO CartPole-v1 --stop-iters 1 --seed 7")
    assert asked[0]["config"]["seed"] == asked[0]["seed"] == 7
    athlete("train PPO CartPole-v1 --stop-iters 1 --seed 7 --num-samples 3")
    assert isinstance(asked[1]["config"]["seed"], Integer) and asked[1]["seed"] == 7


def test_a_grid_on_the_command_line(asked: list[dict[str, Any]]) -> None:
    athlete("train PPO CartPole-v1 --stop-iters 1 --set 'lr={grid_search: [1e-3, 1e-4]}'")
    assert asked[0]["config"]["lr"] == {"grid_search": [0.001, 0.0001]}


def test_options_of_rllib_without_a_meaning_are_passed_over_with_a_line(asked: list[dict[str, Any]]) -> None:
    result = athlete("train --run PPO --framework tf --env CartPole-v1 --ray-num-cpus=4 --local-mode --stop-iters 1")
    assert asked[0]["config"]["env"] == "CartPole-v1" and result.exit_code == 0
    assert "--framework: networks run on JAX" in result.stderr
    assert "--ray-num-cpus: trials run in this process" in result.stderr and "--local-mode:" in result.stderr


def test_without_a_stop_it_says_how_to_end_it(asked: list[dict[str, Any]]) -> None:
    assert "Ctrl-C ends it" in athlete("train PPO CartPole-v1").stderr
    assert "Ctrl-C ends it" not in athlete("train PPO CartPole-v1 --stop-iters 1").stderr


RLLIB_FILE = """
first-experiment:
    env: CartPole-v1
    run: PPO
    num_samples: 2
    checkpoint_freq: 5
    stop:
        sampler_results/episode_reward_mean: 150
        timesteps_total: 100000
    config:
        framework: tf
        gamma: 0.99
        lr: 3e-4
        num_workers: 1
        lambda: 0.95
        observation_filter: MeanStdFilter
        num_sgd_iter:
            grid_search: [1, 4]
        vf_loss_coeff: 0.01
        clip_rewards: true
        use_kl_loss: true
        model:
            fcnet_hiddens: [32]
            fcnet_activation: linear
            vf_share_layers: true
        enable_connectors: True
second-experiment:
    env: Pendulum-v1
    run: PPO
    checkpoint_config: {checkpoint_frequency: 3, num_to_keep: 2}
"""


@pytest.mark.parametrize("form", ["-f {}", "--file={}", "file {}", "{}"])
def test_a_file_of_experiments_runs_as_it_is(
    form: str, asked: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(RLLIB_FILE)
    result = athlete(f"train {form.format(path)}")
    assert result.exit_code == 0, result.output
    first, second = asked
    assert first["name"] == "first-experiment" and first["num_samples"] == 2 and first["checkpoint_freq"] == 5
    assert first["stop"] == {"episode_reward_mean": 150, "timesteps_total": 100000}
    assert first["config"]["num_sgd_iter"] == {"grid_search": [1, 4]} and first["config"]["lr"] == 0.0003
    assert first["config"]["clip_rewards"] is True
    assert "use_kl_loss" not in first["config"] and "use_kl_loss=True has no effect" in caplog.text
    assert "framework='tf': networks run on JAX" in caplog.text
    assert second["config"]["env"] == "Pendulum-v1"
    assert (second["checkpoint_freq"], second["keep_checkpoints_num"]) == (3, 2)


def test_the_command_line_goes_before_the_file(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(RLLIB_FILE)
    athlete(f"train -f {path} --set lr=1 --set model.fcnet_hiddens=[4] --stop-timesteps 10 --resume --num-samples 1")
    first, second = asked
    assert first["config"]["lr"] == second["config"]["lr"] == 1
    assert first["config"]["model"] == {"fcnet_hiddens": [4], "fcnet_activation": "linear", "vf_share_layers": True}
    assert first["stop"] == {"episode_reward_mean": 150, "timesteps_total": 10}
    assert first["num_samples"] == 1 and first["resume"] == "AUTO"


def test_a_python_file_with_a_config(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from athlete.algorithms.ppo import PPOConfig\n"
        "config = PPOConfig().environment('CartPole-v1').training(lr=0.01)\nstop = {'training_iteration': 2}\n"
    )
    assert athlete(f"train {path}").exit_code == 0
    assert asked[0]["config"] == {"env": "CartPole-v1", "lr": 0.01}
    assert asked[0]["stop"] == {"training_iteration": 2} and asked[0]["name"] == "mine"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train", "which algorithm and environment? athlete train PPO CartPole-v1"),
        ("train PPO", "which environment? athlete train PPO CartPole-v1"),
        ("train PPO CartPole-v1 Pendulum-v1", "what is 'Pendulum-v1'?"),
        ("train PPO CartPole-v1 --set lr", "--set takes NAME=VALUE"),
        ("train PPO CartPole-v1 --set model=3 --set model.x=1", "'model' was set to 3 before"),
        ("train PPO CartPole-v1 --config 3", "--config takes a dictionary"),
        ("train PPO CartPole-v1 --stop-iters 0", "--stop-iters"),
        ("train PPO CartPole-v1 --sotp-iters 1", "--sotp-iters"),
        ("train -f x.yaml PPO", "x.yaml says what to train"),
        ("train file", "which file?"),
        ("check CartPole-v1 --env-config 3", "expected a dictionary"),
        ("list colours", "colours"),
    ],
)
def test_what_cannot_be_understood_ends_with_2(line: str, sentence: str, asked: list[dict[str, Any]]) -> None:
    result = athlete(line)
    assert result.exit_code == 2 and sentence in result.stderr and not asked


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train POP CartPole-v1", "there is no algorithm 'POP'; did you mean 'PPO'?"),
        ("train PPO CartPole-v1 --set gama=0.9", "PPO has no 'gama'; did you mean 'gamma'?"),
        ("train PPO CartPole-v1 --set gamma=1.5", "expected a number between 0 and 1"),
        ("train PPO CartPole-v1 --config '{lr: '", "--config: not YAML or JSON, line 1"),
        ("train -f nowhere.yaml", "there is no file 'nowhere.yaml'"),
        ("evaluate nowhere", "nowhere"),
        ("check CartPol-v1", "did you mean 'CartPole-v1'"),
        ("example run cartpole-pp", "there is no tuned example 'cartpole-pp'; did you mean 'cartpole-ppo'?"),
        ("example get cartpole-pp", "did you mean 'cartpole-ppo'?"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_ends_with_1(line: str, sentence: str) -> None:
    result = athlete(line)
    assert result.exit_code == 1 and sentence in result.stderr
    assert result.stderr.startswith("Error: ") and "Traceback" not in result.stderr


def test_the_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" in athlete("train POP CartPole-v1 -v").stderr
    monkeypatch.setenv("ATHLETE_DEBUG", "1")
    assert "Traceback" in athlete("example get cartpol").stderr


def test_a_defect_of_ours_names_its_kind_and_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(experiments.tune, "run", fail)
    result = athlete("train PPO CartPole-v1 --stop-iters 1")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == [
        "Error: ZeroDivisionError: division by zero",
        "ATHLETE_DEBUG=1 shows the traceback.",
    ]


# Training


def test_after_training_it_says_where_the_checkpoint_is_and_how_to_evaluate_it(trained: SimpleNamespace) -> None:
    checkpoint = trained.trial / "checkpoint_000004"
    assert sorted(path.name for path in trained.trial.glob("checkpoint_*")) == [
        "checkpoint_000002",
        "checkpoint_000004",
    ]
    after = trained.stdout.partition("Best checkpoint: ")[2].splitlines()
    assert Path(after[0]).parent == trained.trial
    assert re.fullmatch(r"Evaluated greedily over 10 episodes: mean [\d.]+, lowest \d+, highest \d+", after[1])
    assert f"  athlete evaluate {after[0]} --episodes 20" in after
    assert checkpoint.is_dir()


def test_the_evaluation_at_the_end_is_that_of_evaluate(trained: SimpleNamespace) -> None:
    said = trained.stdout.partition("Evaluated greedily over 10 episodes: mean ")[2].partition(",")[0]
    best = trained.stdout.partition("Best checkpoint: ")[2].splitlines()[0]
    assert float(said) == pytest.approx(evaluated(f"{best} --episodes 10")["episode_reward_mean"], rel=1e-5)


def test_paths_are_said_as_one_types_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "results" / "a b") == "results/a b"
    assert short_path("/elsewhere/results") == "/elsewhere/results"
    monkeypatch.setenv("HOME", "/elsewhere")
    assert short_path("/elsewhere/my results") == "~/my results"
    assert common.command("athlete", "plot", "~/my results") == "athlete plot ~/'my results'"


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("CartPol-v1", "did you mean 'CartPole-v1'"),
        ("Ant-v2", "cannot be made here|gymnasium-robotics|mujoco"),
        ("navix/Navix-Empty-5x5-v1", "navix is missing; pip install navix|did you mean 'navix/Navix-Empty"),
        ("pettingzoo:mpe2.simple_spred_v3", "pip install|there is no module"),
    ],
)
def test_an_environment_that_is_not_there_is_an_error_before_a_folder_is_made(
    tmp_path: Path, env: str, sentence: str
) -> None:
    result = athlete(f"train PPO {env} --stop-iters 1 --local-dir {tmp_path / 'results'} --name first")
    assert result.exit_code == 1 and re.search(sentence, result.stderr)
    assert not (tmp_path / "results").exists()


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "athlete", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("athlete ") and done.returncode == 0


def test_the_learning_curve_of_a_single_trial_is_drawn(trained: SimpleNamespace) -> None:
    assert "\nepisode_reward_mean\n" in trained.stdout and "timesteps\n" in trained.stdout


def test_experiments_of_a_file_with_a_grid_and_a_class_of_ones_own(here: Path) -> None:
    config = "{train_batch_size: 64, sgd_minibatch_size: 32, num_sgd_iter: 1, model: {fcnet_hiddens: [8]}"
    (here / "both.yaml").write_text(
        "grid:\n  {env: CartPole-v1, run: PPO, stop: {training_iteration: 1}, "
        f"config: {config}, lr: {{grid_search: [1e-3, 1e-4]}}}}}}\n"
        f"own:\n  {{env: my_corridors.Corridor, run: PPO, stop: {{training_iteration: 1}}, config: {config}}}}}\n"
    )
    result = athlete("train -f both.yaml --trust")
    assert result.exit_code == 0, result.output
    checkpoints = sorted(path.parent.parent.name for path in (here / "results").rglob("checkpoint_000001"))
    assert checkpoints == ["grid", "grid", "own"]
    (checkpoint,) = (here / "results" / "own").glob("*/checkpoint_000001")
    typed = checkpoint.relative_to(here)
    assert f"athlete evaluate {typed} --episodes 20 --env my_corridors.Corridor\n" in result.stdout
    sys.modules.pop("my_corridors")
    assert "my_corridors" in athlete(f"evaluate {checkpoint}").stderr  # code is not imported because a file names it
    assert evaluated(f"{checkpoint} --episodes 2 --env my_corridors.Corridor")["episodes_this_iter"] == 2


def test_a_failed_trial_ends_with_1_and_names_its_error(here: Path) -> None:
    result = athlete(f"train PPO my_corridors.Broken {TINY} --stop-iters 1")
    assert result.exit_code == 1
    assert "Error: PPO_" in result.stderr and "expected a dict" in result.stderr and "error.txt" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent a Ctrl-C of its own there")
def test_ctrl_c_ends_with_130_and_the_line_that_goes_on(tmp_path: Path) -> None:
    words = f"train PPO CartPole-v1 {TINY} --stop-timesteps 1000000000 --seed 1 --local-dir {tmp_path}"
    process = subprocess.Popen(
        [sys.executable, "-m", "athlete.cli", *shlex.split(words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "iter=" in line:
            break
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "CartPole-v1 runs compiled" in stderr
    (resume,) = [line for line in stdout.splitlines() if line.startswith("To go on: athlete train")]
    (saved,) = tmp_path.glob("PPO_*/PPO_*/checkpoint_*")
    result = athlete(resume.removeprefix("To go on: athlete ") + " --stop-iters 1")
    assert result.exit_code == 0, result.output
    iteration = int(saved.name.removeprefix("checkpoint_"))
    assert (saved.parent / f"checkpoint_{iteration + 1:06d}").is_dir()


@pytest.mark.parametrize(
    ("words", "own_names", "line"),
    [
        ("PPO CartPole-v1", False, "athlete train PPO CartPole-v1 --name x --local-dir /r --resume"),
        ("PPO E --name y --local-dir=/a --resume", False, "athlete train PPO E --name x --local-dir /r --resume"),
        ("PPO E -n y --set 'a=[1, 2]'", False, "athlete train PPO E --set 'a=[1, 2]' --name x --local-dir /r --resume"),
        ("-f many.yaml --local-dir /a", True, "athlete train -f many.yaml --local-dir /a --resume"),
    ],
)
def test_the_line_that_goes_on_is_the_one_that_was_typed(words: str, own_names: bool, line: str) -> None:
    assert experiments.resume_line(shlex.split(words), Path("/r/x"), own_names) == line


def test_a_second_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments.tune, "run", interrupted)
    assert athlete("train PPO CartPole-v1 --stop-iters 1").exit_code == 130


# Evaluation


def evaluated(line: str) -> dict[str, Any]:
    result = athlete(f"evaluate {line} --json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_evaluating_again_gives_the_same_numbers(trained: SimpleNamespace) -> None:
    checkpoint = trained.trial / "checkpoint_000004"
    first, second = (evaluated(f"{checkpoint} --episodes 5") for _ in range(2))
    assert len(first["episode_rewards"]) == 5 and first["seed"] == 3 and first["explore"] is False
    assert first["episode_rewards"] == second["episode_rewards"]
    assert first["episode_reward_mean"] == pytest.approx(sum(first["episode_rewards"]) / 5)
    other = evaluated(f"{checkpoint} --episodes 5 --seed 4 --explore")
    assert other["episode_rewards"] != first["episode_rewards"] and other["explore"] is True


def test_folders_of_a_trial_and_of_an_experiment_stand_for_their_checkpoints(trained: SimpleNamespace) -> None:
    assert evaluated(f"{trained.trial} --episodes 1")["checkpoint"] == str(trained.trial / "checkpoint_000004")
    assert Path(evaluated(f"{trained.experiment} --episodes 1")["checkpoint"]).parent == trained.trial


def test_evaluation_as_a_table_with_a_film(trained: SimpleNamespace, tmp_path: Path) -> None:
    result = athlete(f"evaluate {trained.trial} --run PPO --episodes 2 --video {tmp_path / 'films'}")
    assert result.exit_code == 0, result.output
    cells = {line.split("  ")[0]: line.split()[-1] for line in result.stdout.splitlines()}
    assert cells["episodes"] == "2" and cells["actions"] == "greedy" and float(cells["episode_reward_mean"]) > 0
    assert Path(cells["film"]).stat().st_size > 0 and Path(cells["film"]).parent == tmp_path / "films"
    assert "--run: the checkpoint knows its algorithm" in result.stderr


# Environments, lists, doctor


def test_check_says_ok_or_what_is_wrong(here: Path) -> None:
    good, bad = athlete("check my_corridors.Corridor"), athlete("check my_corridors.Broken")
    assert good.exit_code == 0 and good.stdout == "my_corridors.Corridor: ok\n"
    assert bad.exit_code == 1 and "returned 4 values" in bad.stderr and "Traceback" not in bad.stderr
    assert athlete("check FrozenLake-v1 --env-config '{is_slippery: false}'").exit_code == 0
    assert "is_slipery" in athlete("check FrozenLake-v1 --env-config '{is_slipery: false}'").stderr


def test_the_list_of_algorithms_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = athlete("list").stdout.splitlines()
    assert max(map(len, listed)) <= 80
    assert listed[0].split() == ["algorithm", "actions", "memory", "agents", "paper"]
    assert next(line for line in listed if line.startswith("R2D2")).endswith("Kapturowski et al. 2019")


def test_what_commands_do_is_told_whole_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "..." not in athlete("--help").stdout.partition("Commands:")[2].replace('{"observation": ...}', "").replace(
        '{"action": ...}', ""
    )


def test_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = {line.split()[0]: line for line in athlete("list algorithms").stdout.splitlines()}
    assert listed.pop("algorithm").split() == ["algorithm", "actions", "memory", "agents", "learns", "from", "paper"]
    assert set(listed) == set(ALGORITHMS)
    assert listed["R2D2"].split()[1:4] == ["discrete", "yes", "any"] and " a team " in listed["QMIX"]
    assert "discrete" in listed["DQN"] and "replay" in listed["DQN"] and "arXiv" in listed["DQN"]
    assert athlete("list examples").stdout == athlete("example list").stdout
    listed = [line.split()[:3] for line in athlete("example list --filter CARTPOLE").stdout.splitlines()]
    assert ["cartpole-ppo", "PPO", "CartPole-v1"] in listed and all("CartPole" in line[2] for line in listed)


def listed_environments() -> tuple[dict[str, str], str]:
    """Where each environment runs that is listed as there, and what is said of the others."""
    there, _, missing = athlete("list environments").stdout.partition("\nNot here: ")
    return dict(line.split(maxsplit=1) for line in there.splitlines()), missing


def test_listed_environments_are_those_that_work_here() -> None:
    from gymnasium.envs.registration import registry

    there, missing = listed_environments()
    assert there["CartPole-v1"] == "compiled" and there["Blackjack-v1"] == "on Gymnasium"
    assert there["MirrorChoice-v0"] == "compiled"
    assert "Ant-v2" not in there and "Ant-v2" in missing and "gymnasium-robotics" in missing
    for env_id, where in there.items():
        if where == "on Gymnasium":
            assert registry[env_id].make() is not None


def test_an_environment_whose_package_is_missing_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d.lunar_lander", raising=False)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d", raising=False)
    there, missing = listed_environments()
    assert "LunarLander-v3" not in there
    assert "LunarLander-v3" in missing and "Box2D is not installed" in missing


def test_an_examples_file_is_printed_as_it_is() -> None:
    from athlete.tuned_examples import path_of

    assert athlete("example get cartpole-ppo").stdout == path_of("cartpole-ppo").read_text()


def test_doctor_finds_this_installation_well() -> None:
    result = athlete("doctor")
    assert result.exit_code == 0 and result.stdout.endswith("All core parts work.\n")
    told = dict(line.split("  ", 1) for line in result.stdout.splitlines() if "  " in line)
    assert {"athlete", "python", "jax", "jaxlib", "numpy", "gymnasium", "devices", "compile cache", "results"} <= set(
        told
    )
    assert "writable" in told["results"] and "pygame" in told["rendering"] and "writes mp4" in told["films"]
    assert {"extra dev", "extra docs", "extra notebook"} <= set(told)


def test_doctor_looks_for_what_stands_behind_another_packages_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gymnasium[mujoco]` is there when MuJoCo is, not when Gymnasium is."""
    requirements = {"athlete": ['gymnasium[mujoco]>=1.2; extra == "mujoco"', "numpy>=1.26"]}
    requirements["gymnasium"] = ['mujoco>=2.1.5; extra == "mujoco"', 'pygame>=2; extra == "box2d"']
    installed = {"athlete", "gymnasium", "numpy"}

    def version(package: str) -> str:
        if package not in installed:
            raise importlib.metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr("importlib.metadata.requires", requirements.get)
    monkeypatch.setattr("importlib.metadata.version", version)
    assert doctor._extras() == [("extra mujoco", "missing; mend: pip install 'gymnasium[mujoco]'")]
    installed.add("mujoco")
    assert doctor._extras() == [("extra mujoco", "there")]


def test_doctor_asks_only_for_what_this_python_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = "3.0", f"{sys.version_info[0]}.{sys.version_info[1]}"
    needed = [f'box2d; python_version >= "{newer}" and extra == "box2d"', f"swig==4.*; python_version < '{older}'"]
    needed.append(f'box2d-py; python_version > "{newer}" and extra == "box2d"')
    monkeypatch.setattr(importlib.metadata, "requires", lambda package: needed)
    assert doctor._requirements("gymnasium") == {"box2d": ["box2d"]}


def test_doctor_names_what_is_broken_and_its_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path / "file"))
    result = athlete("doctor")
    assert result.exit_code == 1 and "Not all core parts work." in result.stdout
    assert "mend: set ATHLETE_RESULTS_DIR" in result.stdout


# What is shown


def test_the_learning_curve_rises_with_its_values() -> None:
    lines = learning_curve([0, 100, 200, 300], [1.0, 2.0, 3.0, 4.0], "reward", width=4, height=4).splitlines()
    assert lines[0] == "reward"
    filled = [[not cell.isspace() for cell in line[11:15].ljust(4)] for line in lines[1:5]]
    assert [sum(column) for column in zip(*filled, strict=True)] == [1, 2, 3, 4]
    assert lines[1].split()[0] == "4" and lines[4].split()[0] == "1" and "300 timesteps" in lines[-1]


def test_there_is_no_curve_without_two_numbers() -> None:
    nan = float("nan")
    assert learning_curve([1, 2, 3], [nan, nan, 5.0], "reward") == ""
    assert learning_curve([], [], "reward") == ""
    assert learning_curve([1, 2, 3], [nan, 4.0, 4.0], "reward") != ""


def test_columns_are_aligned() -> None:
    assert aligned([("a", 1, "x"), ("bcd", 20, "y")]) == "a    1   x\nbcd  20  y"


def test_the_best_checkpoint_of_a_trial_without_episodes_is_its_newest(tmp_path: Path) -> None:
    class Analysis:
        def get_best_checkpoint(self, trial: Trial) -> str:
            raise TuneError("no number")

    trial = SimpleNamespace(checkpoint="newest")
    assert experiments.best_checkpoint(Analysis(), trial) == "newest"  # type: ignore[arg-type]

"""A file never runs code that its reader did not name: experiments, tune states, checkpoints, compiled programs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_checkpointing import change_metadata
from tune_fakes import Counter
from typer.testing import CliRunner, Result

from athlete import tune
from athlete.algorithm import Algorithm
from athlete.algorithms.ppo import PPOConfig
from athlete.cli.main import app
from athlete.env.adapters.source import GymnasiumSource
from athlete.env.registry import foreign_code, register_env, runs_code
from athlete.loops.compiling import danger_of
from athlete.record.checkpoint import CheckpointError
from athlete.tune.experiment import STATE
from athlete.tuned_examples import load, names, read_experiments

CANARIES = ("canary", "gymnax", "envpool", "brax", "craftax", "jumanji", "mujoco_playground", "navix", "pgx")
PACKAGED = ["gymnax/CartPole-v1", "brax/ant", "craftax/Craftax-Symbolic-v1", "jumanji/Snake-v1"]
PACKAGED += ["playground/CartpoleBalance", "navix/Navix-Empty-5x5-v0", "pgx/hex"]
CANARY = "open({mark!r}, 'a').write('ran')\n"
TINY = {"train_batch_size": 64, "minibatch_size": 32, "num_epochs": 1, "model": {"fcnet_hiddens": [8]}}


@pytest.fixture(autouse=True)
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has modules that leave a mark when they are imported; this is where it would be."""
    mark = tmp_path / "mark"
    for name in CANARIES:
        (tmp_path / f"{name}.py").write_text(CANARY.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path / "results"))
    yield mark
    for name in CANARIES:
        sys.modules.pop(name, None)


def athlete(line: str) -> Result:
    return CliRunner().invoke(app, shlex.split(line))


# Names of environments


@pytest.mark.parametrize("env", ["canary.Env", "os.system", "canary:Env-v0", "subprocess.Popen", "os.path.join"])
def test_a_name_that_only_a_file_chose_would_run_code(env: str) -> None:
    assert runs_code(env)
    assert foreign_code({"env": env}) == env
    assert foreign_code({"env": {"grid_search": ["CartPole-v1", env]}}) == env
    assert foreign_code({"env": "CartPole-v1", "evaluation_config": {"env": env}}) == env


def test_ids_registered_names_and_imported_environment_classes_run_none() -> None:
    register_env("mine.Own", Counter)
    for env in ("CartPole-v1", "ALE/Pong-v5", "mine.Own", "MinAtar/Breakout-v1", "Mirror-v0", Counter):
        assert not runs_code(env)
    __import__("gymnasium.envs.classic_control.cartpole")
    assert not runs_code("gymnasium.envs.classic_control.cartpole.CartPoleEnv")
    assert runs_code("gymnasium.envs.classic_control.cartpole.math")


@pytest.mark.parametrize("env", ["os.system", "canary.Env", "canary:Env-v0", "{grid_search: [canary.Env]}"])
def test_a_file_of_experiments_chooses_no_code(env: str, mark: Path) -> None:
    Path("evil.yaml").write_text(f"evil: {{run: PPO, env: {env}, config: {{env_config: {{command: 'touch mark'}}}}}}")
    result = athlete("train evil.yaml --stop-iters 1")
    assert result.exit_code == 1 and not mark.exists()
    assert "would run code that only this file names" in result.stderr and "--trust" in result.stderr


def test_with_trust_a_file_may_name_a_class(mark: Path) -> None:
    Path("own.yaml").write_text("own: {run: PPO, env: canary.Env}")
    assert read_experiments("own.yaml", trust=True)[0].config["env"] == "canary.Env"
    result = athlete("train own.yaml --trust --stop-iters 1")
    assert mark.exists() and "no 'Env'" in result.output  # it was looked for, here


def test_every_shipped_example_names_no_code() -> None:
    assert not [name for name in names() if foreign_code(load(name).config)]


@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 5000, "{" * 5000, "a: 2024-99-99", "\x00", b"\xff\xfe\xff"])
def test_a_text_that_is_no_yaml_is_refused_with_a_sentence(text: str | bytes) -> None:
    Path("odd.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"odd\.yaml"):
        read_experiments("odd.yaml")


def test_aliases_that_multiply_are_refused_at_once() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    Path("many.yaml").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="more than 1,000,000 values"):
        read_experiments("many.yaml")


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with PPOConfig().environment("CartPole-v1").training(**TINY).build() as algorithm:
        return Path(algorithm.save(tmp_path_factory.mktemp("saved")))


def renamed_environment(checkpoint: Path, folder: Path, **entries: Any) -> Path:
    """The checkpoint with other entries in its configuration, and sums that are right."""
    copy = Path(shutil.copytree(checkpoint, folder / "checkpoint_changed"))
    change_metadata(copy, lambda metadata: metadata["config"].update(entries))
    return copy


@pytest.mark.parametrize("env", ["os.system", "canary.Env", "canary:Env-v0"])
def test_a_checkpoint_chooses_no_code(checkpoint: Path, tmp_path: Path, mark: Path, env: str) -> None:
    changed = renamed_environment(checkpoint, tmp_path, env=env)
    with pytest.raises(CheckpointError, match="is no environment class of a module that is imported here"):
        Algorithm.from_checkpoint(changed)
    assert athlete(f"evaluate {changed}").exit_code == 1 and not mark.exists()


def test_neither_a_file_nor_a_checkpoint_has_a_source_make_what_it_names(
    checkpoint: Path, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`GymnasiumSource` is a class with `reset` and `step` that is imported here, and imports what it is told."""
    monkeypatch.syspath_prepend(tmp_path)
    assert GymnasiumSource.__module__ in sys.modules
    path, env_config = f"{GymnasiumSource.__module__}.GymnasiumSource", {"env": "canary.Env"}
    assert runs_code(path)
    Path("evil.json").write_text(json.dumps({"e": {"run": "PPO", "env": path, "config": {"env_config": env_config}}}))
    with pytest.raises(ValueError, match="would run code that only this file names"):
        read_experiments("evil.json")
    by_class = {"__class__": f"{GymnasiumSource.__module__}:GymnasiumSource"}
    for env in (path, by_class):
        (folder := tmp_path / type(env).__name__).mkdir()
        with pytest.raises(CheckpointError):
            Algorithm.from_checkpoint(renamed_environment(checkpoint, folder, env=env, env_config=env_config))
    assert not mark.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"num_workers": 5000},
        {"num_rollout_workers": {"grid_search": [0, 5000]}},
        {"num_envs_per_worker": 10**9},
        {"num_envs_per_worker": 4000, "rollout_fragment_length": 90_000},
        {"train_batch_size": 10**11},
        {"model": {"fcnet_hiddens": [10**6]}},
        {"model": {"fcnet_hiddens": {"grid_search": [[64], [64] * 101]}}},
        {"evaluation_config": {"evaluation_num_workers": 129}},
        {"env_config": {"repeat_delay": 10**9}},
        {"evaluation_config": {"env_config": {"size": 100_000}}},
        {"env_config": {"max_episode_steps": 10**30}},
    ],
)
def test_a_file_asks_for_no_more_than_files_may(tmp_path: Path, config: dict[str, Any]) -> None:
    path = tmp_path / "greedy.json"
    path.write_text(json.dumps({"e": {"run": "PPO", "env": "CartPole-v1", "config": config}}))
    with pytest.raises(ValueError, match=r"experiment 'e': \w+ asks for .* more than the .* --trust"):
        read_experiments(path)
    assert read_experiments(path, trust=True)[0].config.items() >= config.items()


def test_nor_does_a_resumed_state(tmp_path: Path) -> None:
    state = recorded(tmp_path, "PPO", env="CartPole-v1", **TINY)
    change(state, lambda state: state["trials"][0]["config"].update(num_rollout_workers=5000))
    with pytest.raises(tune.TuneError, match="num_rollout_workers=5000, more than the 32"):
        resume(tmp_path, "PPO")


@pytest.mark.parametrize("entries", [*({"env": name} for name in PACKAGED), {"backend": "envpool"}])
def test_evaluating_takes_no_package_from_the_current_folder(
    checkpoint: Path, tmp_path: Path, mark: Path, entries: dict[str, str]
) -> None:
    changed = renamed_environment(checkpoint, tmp_path, **entries)
    assert athlete(f"evaluate {changed}").exit_code == 1 and not mark.exists()
    assert athlete(f"evaluate {changed} --env CartPole-v1").exit_code in (0, 1) and not mark.exists()
    assert str(tmp_path) not in sys.path


def test_an_environment_typed_by_hand_may_be_in_the_current_folder(checkpoint: Path, mark: Path) -> None:
    assert "no 'Env'" in athlete(f"evaluate {checkpoint} --env canary.Env").stderr
    assert mark.exists()


# The state of an experiment


def recorded(tmp_path: Path, what: Any = Counter, **config: Any) -> Path:
    """The state file of an experiment that has ended, but whose trial says that it has not."""
    settings = {"name": "mine", "stop": {"training_iteration": 2}, "verbose": 0, "local_dir": tmp_path}
    tune.run(what, config=config, checkpoint_freq=1, **settings)
    change(tmp_path / "mine" / STATE, lambda state: state["trials"][0].update(status="PAUSED"))
    return tmp_path / "mine" / STATE


def change(path: Path, how: Any) -> None:
    state = json.loads(path.read_text())
    how(state)
    path.write_text(json.dumps(state))


def resume(tmp_path: Path, what: Any = Counter, **settings: Any) -> None:
    stop = {"training_iteration": 3}
    tune.run(what, name="mine", resume=True, verbose=0, stop=stop, local_dir=tmp_path, **settings)


@pytest.mark.parametrize("env", ["os.system", "canary.Env"])
def test_a_resumed_state_chooses_no_code(tmp_path: Path, mark: Path, env: str) -> None:
    path = recorded(tmp_path, "PPO", env="CartPole-v1", **TINY)
    change(path, lambda state: state["trials"][0]["config"].update(env=env))
    with pytest.raises(tune.TuneError, match=r"names the environment .* which this program has neither imported"):
        resume(tmp_path, "PPO")
    assert not mark.exists()


def test_nor_do_the_choices_that_a_state_recorded(tmp_path: Path, mark: Path) -> None:
    config = {"env": tune.grid_search(["CartPole-v1"]), **TINY}
    path = recorded(tmp_path, "PPO", **config)
    change(path, lambda state: state["trials"][0].update(picks=[[["env"], "canary.Env"]]))
    with pytest.raises(tune.TuneError, match=r"names the environment 'canary.Env'"):
        resume(tmp_path, "PPO", config=config)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../victim", "..", ".", "", "a/b", "/tmp", "a\\b", "link"])
def test_a_trials_folder_stays_in_its_experiment(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    (victim / "checkpoint_000009").mkdir(parents=True)
    (victim / "result.json").write_text('{"training_iteration": 9}\n')
    path = recorded(tmp_path)
    (path.parent / "link").symlink_to(victim)
    change(path, lambda state: state["trials"][0].update(folder=name))
    with pytest.raises(tune.TuneError, match="each trial has a folder of its own in this one"):
        resume(tmp_path)
    with pytest.raises(tune.TuneError, match="each trial has a folder of its own in this one"):
        tune.ExperimentAnalysis(path.parent)
    assert (victim / "result.json").read_text() and (victim / "checkpoint_000009").is_dir()


@pytest.mark.parametrize(
    ("change_to", "sentence"),
    [
        ({"num_samples": 10**12}, r"\['num_samples'\] is 1000000000000; a count of samples is expected"),
        ({"seed": "none"}, r"\['seed'\] is 'none'"),
        ({"trials": [7]}, r"\['trials'\] is \[7\]; a list of trials"),
        ({"start_time": "noon"}, r"\['start_time'\] is 'noon'; a finite number"),
    ],
)
def test_a_state_whose_entries_are_wrong_is_refused_by_the_entry(
    tmp_path: Path, change_to: dict[str, Any], sentence: str
) -> None:
    path = recorded(tmp_path)
    change(path, lambda state: state.update(change_to))
    with pytest.raises(tune.TuneError, match=sentence):
        resume(tmp_path)


@pytest.mark.parametrize("entry", ["trial_id", "folder", "status", "config", "last_result", "picks", "checkpoints"])
def test_a_trial_whose_entries_are_wrong_is_refused_by_the_entry(tmp_path: Path, entry: str) -> None:
    path = recorded(tmp_path)
    change(path, lambda state: state["trials"][0].update({entry: 7}))
    with pytest.raises(tune.TuneError, match=rf"trials\[0\]\['{entry}'\] is 7"):
        resume(tmp_path)
    change(path, lambda state: state["trials"][0].pop(entry))
    with pytest.raises(tune.TuneError, match=rf"trials\[0\] has no '{entry}'"):
        resume(tmp_path)


def test_a_state_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    for text in ("", "{", "[" * 100_000, "null"):
        path.write_text(text)
        with pytest.raises(tune.TuneError, match=STATE):
            resume(tmp_path)


def test_experiments_have_a_largest_size() -> None:
    for settings in ({"num_samples": 10**9}, {"config": {name: tune.grid_search(list(range(100))) for name in "abc"}}):
        with pytest.raises(ValueError, match="100,000"):
            tune.run(Counter, verbose=0, **settings)


def test_a_trials_process_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "pickle.py").write_text(CANARY.format(mark=str(tmp_path / "mark")))
    code = (
        "import sys; sys.path = [entry for entry in sys.path if entry]\n"
        "from tune_fakes import Counter\nfrom athlete import tune\n"
        "tune.run(Counter, stop={'training_iteration': 1}, num_samples=2, max_concurrent_trials=2, verbose=0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path.cwd().parent)])}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(tune.__file__).parents[2])])
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env=environment, timeout=120)
    assert not (tmp_path / "mark").exists()


# Compiled programs


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows keeps users apart in other ways")
class TestTheFolderOfCompiledPrograms:
    def test_is_made_for_this_user_alone(self, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            assert danger_of(tmp_path / "cache" / "xla") is None
        finally:
            os.umask(old)
        assert stat.S_IMODE((tmp_path / "cache" / "xla").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700

    @pytest.mark.parametrize("place", ["cache", "cache/xla"])
    @pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
    def test_is_not_used_where_others_may_write(self, tmp_path: Path, mode: int, place: str) -> None:
        assert danger_of(tmp_path / "cache" / "xla") is None
        (tmp_path / place).chmod(mode)
        assert "may be written by other users" in str(danger_of(tmp_path / "cache" / "xla"))

    def test_may_lie_in_a_folder_such_as_tmp(self, tmp_path: Path) -> None:
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared").chmod(0o1777)
        assert danger_of(tmp_path / "shared" / "xla") is None

    def test_is_not_used_where_it_is_anothers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert danger_of(tmp_path / "cache" / "xla") is None
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        assert "belongs to another user" in str(danger_of(tmp_path / "cache" / "xla"))

    def test_is_no_link(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "xla").symlink_to(tmp_path / "elsewhere")
        assert "symbolic link" in str(danger_of(tmp_path / "xla"))

    def test_that_is_dangerous_is_left_alone_with_a_line(self, tmp_path: Path) -> None:
        from athlete.loops.compiling import cache_folder

        (tmp_path / "cache").mkdir()
        (tmp_path / "cache").chmod(0o777)
        code = (
            "import jax\nfrom athlete.loops.compiling import set_up\nset_up()\n"
            "print(jax.config.jax_compilation_cache_dir)\n"
        )
        environment = {**os.environ, "ATHLETE_CACHE_DIR": str(tmp_path / "cache")}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        environment["PYTHONPATH"] = str(Path(tune.__file__).parents[2])
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == "None" and "compiled programs are not kept" in done.stderr
        assert cache_folder() is None or not list((tmp_path / "cache").iterdir())

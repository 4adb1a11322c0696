"""Tuned examples and experiment files: what they may say, how an example is trained and judged."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from athlete import tuned_examples
from athlete.algorithms.ppo import PPOConfig
from athlete.settings.rllib_names import IGNORED, REFUSED, SPELLINGS, UNSERVED
from athlete.tuned_examples import Experiment, Outcome, judge, load, names, read_experiments
from athlete.tuned_examples.experiment_file import parse_yaml, result_name

RESULTS = {"evaluation/episode_reward_mean", "episode_reward_mean", "timesteps_total"}
RESULTS |= {"evaluation/custom_metrics/is_success_mean", "evaluation/custom_metrics/regret_mean"}
OF_GAMES = {"evaluation/policy_reward_mean/main"}


# The examples


def test_there_is_an_example_for_every_environment_of_the_walkthrough() -> None:
    environments = {load(name).config["env"] for name in names()}
    assert environments >= {
        *("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"),
        *("FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "Taxi-v4"),
    }


@pytest.mark.parametrize("name", names())
def test_an_example_is_complete_and_its_settings_exist(name: str) -> None:
    example = load(name)
    example.check()
    assert example.name == name
    assert "timesteps_total" in example.stop  # it ends, whether it learns or not
    assert example.pass_criteria and {*example.pass_criteria, *example.floor, *example.stop} <= RESULTS | OF_GAMES


MUJOCO = ("HalfCheetah", "Ant", "Swimmer", "Hopper", "Walker2d")
EXTRAS = {**dict.fromkeys(MUJOCO, "mujoco"), "LunarLander": "Box2D", "ALE/": "ale_py"}


QUICK = ("masked-grid-ppo", "mirror-dqn")  # the others take minutes together


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.learning) for n in names()])
def test_an_example_trains_and_is_evaluated_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    """One iteration, the shortest there is, and one episode: what `athlete example run` does, small."""
    example = load(name)
    needed = [module for start, module in EXTRAS.items() if str(example.config["env"]).startswith(start)]
    needed += ["envpool"] if example.config.get("backend") == "envpool" else []
    for module in needed:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{name} needs {module}, which is not installed")
    config = {**example.config, "min_sample_timesteps_per_iteration": 0, "evaluation_duration": 1}
    short = dataclasses.replace(example, config=config, stop={"training_iteration": 1})
    (outcome,) = tuned_examples.train(short, [0], verbose=0, local_dir=tmp_path)
    assert outcome.results["training_iteration"] == 1
    assert outcome.results["evaluation/episodes_this_iter"] == 1


def test_an_unknown_example_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="no tuned example 'CartPole-PP'; did you mean 'cartpole-ppo'"):
        load("CartPole-PP")
    with pytest.raises(ValueError, match=r"there are .*acrobot-ppo"):
        load("zzz")


@pytest.fixture(scope="module")
def tiny() -> Experiment:
    config = {"env": "CartPole-v1", "train_batch_size": 64, "minibatch_size": 64, "num_epochs": 1}
    return Experiment(
        "tiny",
        "PPO",
        {**config, "model": {"fcnet_hiddens": [8]}, "evaluation_duration": 3},
        {"training_iteration": 2},
        pass_criteria={"evaluation/episode_reward_mean": 5.0},
    )


def test_an_example_is_trained_once_a_seed_and_the_same_seed_gives_the_same(tiny: Experiment, tmp_path: Path) -> None:
    one, two, again = (
        outcome
        for seeds, folder in (((4, 5), "a"), ((4,), "b"))
        for outcome in tuned_examples.train(tiny, seeds, verbose=0, local_dir=tmp_path / folder)
    )
    assert (one.seed, two.seed, again.seed) == (4, 5, 4)
    assert one.results["timesteps_total"] == 128 and one.results["evaluation/episodes_this_iter"] == 3
    assert Path(one.checkpoint).parent == one.folder
    final = [outcome.results["evaluation/episode_reward_mean"] for outcome in (one, two, again)]
    assert (
        final[0] == final[2]
        and one.results["info/learner/default_policy/learner_stats/entropy"]
        == (again.results["info/learner/default_policy/learner_stats/entropy"])
    )


def test_run_example_gives_the_final_evaluations(
    tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("athlete.tuned_examples.running.load", lambda name: tiny)
    (mean,) = tuned_examples.run_example("tiny", [4], local_dir=tmp_path)
    assert mean > 0


# Judging


def outcomes(*values: float) -> list[Outcome]:
    results = "evaluation/episode_reward_mean"
    return [Outcome(seed, {results: value}, "", Path()) for seed, value in enumerate(values)]


def judged(threshold: float, floor: float | None, *values: float) -> bool:
    key = "evaluation/episode_reward_mean"
    example = Experiment("x", "PPO", {}, pass_criteria={key: threshold}, floor={} if floor is None else {key: floor})
    (verdict,) = judge(example, outcomes(*values))
    assert ("NOT met" in str(verdict)) == (not verdict.met)
    return verdict.met


def test_the_middle_of_the_seeds_must_reach_the_threshold_and_the_worst_the_floor() -> None:
    assert judged(100, None, 0, 100, 100, 100)
    assert not judged(100, None, 0, 0, 100, 100)
    assert judged(100, 50, 50, 100, 100, 100)
    assert not judged(100, 50, 49, 100, 100, 100)
    assert not judged(100, None, float("nan"), float("nan"), float("nan"), 500)


def test_there_is_no_verdict_without_criteria_or_seeds() -> None:
    with pytest.raises(ValueError, match="no pass_criteria in its file"):
        judge(Experiment("x", "PPO", {}), outcomes(1.0))
    with pytest.raises(ValueError, match="no seed trained to its end"):
        judge(Experiment("x", "PPO", {}, pass_criteria={"r": 1.0}), [])


# Experiment files


def written(folder: Path, text: str, name: str = "file.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E6", 5e6),
        ("-2e2", -200.0),
        ("1.5e-4", 0.00015),
        ("3", 3),
        ("1e-3x", "1e-3x"),
        ("[1e1]", [10.0]),
    ],
)
def test_numbers_may_be_written_with_an_exponent(text: str, value: object) -> None:
    parsed = parse_yaml(text, "here")
    assert parsed == value and type(parsed) is type(value)


def test_files_cannot_make_objects(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file\.yaml: not YAML or JSON, line 1, column 4: could not determine"):
        read_experiments(written(tmp_path, "a: !!python/object/apply:os.getcwd []"))


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("episode_reward_mean", "episode_reward_mean"),
        ("sampler_results/episode_reward_mean", "episode_reward_mean"),
        ("env_runners/episode_return_mean", "episode_reward_mean"),
        ("evaluation/env_runners/episode_return_mean", "evaluation/episode_reward_mean"),
        ("num_env_steps_sampled_lifetime", "timesteps_total"),
        ("info/learner/default_policy/learner_stats/kl", "info/learner/default_policy/learner_stats/kl"),
        ("time_total_s", "time_total_s"),
    ],
)
def test_results_have_one_name_whatever_the_year_of_the_file(key: str, ours: str) -> None:
    assert result_name(key) == ours


def test_an_experiment_under_our_names(tmp_path: Path) -> None:
    (experiment,) = read_experiments(
        written(
            tmp_path,
            """
            mine:
              env: CartPole-v1
              run: PPO
              stop: {env_runners/episode_return_mean: 1e2}
              num_samples: 3
              checkpoint_config:
                {checkpoint_frequency: 2, checkpoint_score_attribute: loss, checkpoint_score_order: min}
              pass_criteria: {sampler_results/episode_reward_mean: 90}
              config: {lambda: 0.9, horizon: null}
            """,
        )
    )
    assert experiment == Experiment(
        name="mine",
        run="PPO",
        config={"lambda": 0.9, "env": "CartPole-v1"},
        stop={"episode_reward_mean": 100.0},
        settings={"num_samples": 3, "checkpoint_freq": 2, "checkpoint_score_attr": "min-loss"},
        pass_criteria={"episode_reward_mean": 90},
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected experiments"),
        ("[1, 2]", "expected experiments"),
        ("a: 3", "'a': expected a dictionary with `run` and `env`"),
        ("a: {env: X}", "'a' has no 'run'"),
        ("a: {run: PPO}", "'a' has no 'env'"),
        ("a: {run: PPO, env: X, num_sample: 3}", "'a' has no 'num_sample'; did you mean 'num_samples'?"),
        ("a: {run: PPO, env: X, stop: 3}", "'stop' takes a dictionary, got 3"),
        ("a: {run: PPO, env: X, checkpoint_config: {keep: 3}}", "checkpoint_config has no 'keep'"),
        ("a: {", "not YAML or JSON, line 1"),
    ],
)
def test_a_file_that_is_wrong_is_an_error_that_says_where(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"file\.yaml") as caught:
        read_experiments(written(tmp_path, text))
    assert sentence in str(caught.value)


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.yaml, \.json or \.py"):
        read_experiments(written(tmp_path, "", "file.txt"))
    with pytest.raises(ValueError, match="there is no file"):
        read_experiments(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="expected a variable `config`"):
        read_experiments(written(tmp_path, "x = 3", "file.py"))


def test_no_setting_that_athlete_knows_is_passed_over() -> None:
    known = {*PPOConfig().to_dict(), *SPELLINGS, *IGNORED}
    assert known & {*UNSERVED, *REFUSED} == {"optimizer"}, "a dictionary of RLlib's has no effect, optax's has"
    assert not UNSERVED.keys() & REFUSED.keys()


def test_a_setting_that_does_not_exist_is_found_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="experiment 'mine': gama=1: PPO has no 'gama'; did you mean 'gamma'"):
        Experiment("mine", "PPO", {"env": "CartPole-v1", "gama": 1}).check()

"""`Algorithm`: train, evaluate, act, keep and restore, under RLlib's names and without surprises."""

from __future__ import annotations

import math
import multiprocessing.pool  # noqa: F401  (what a forged file could name is there)
import sys
import threading

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete import Algorithm, DefaultCallbacks, pretty_print
from athlete.algorithms.ppo import PPOConfig
from athlete.building import evaluation_world
from athlete.core import Env, Step, hyper
from athlete.loops.compiling import compilations
from athlete.record.checkpoint import CheckpointError, read_metadata, save_checkpoint
from athlete.spaces import Box, Discrete

# One shape of program for most tests, so that it is compiled once.
SMALL = {
    "num_envs_per_worker": 2,
    "train_batch_size": 64,
    "minibatch_size": 32,
    "num_epochs": 1,
    "model": {"fcnet_hiddens": [8]},
    "evaluation_duration": 4,
    "seed": 0,
}


@hyper
class OneStep(Env):
    """Episodes of one step that all pay the same."""

    reward: float = 1.0

    observation_space = Box(-1e9, 1e9, (1,))
    action_space = Discrete(2)

    def reset(self, key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, state, action, key):
        return state, Step(jnp.zeros(1), jnp.float32(self.reward), jnp.asarray(True), jnp.asarray(False), {})


def config(env="CartPole-v1", **settings):
    return PPOConfig.from_dict({"env": env, **SMALL, **settings})


def parameters(algorithm):
    return jax.device_get(algorithm.run.state)


def assert_equal_trees(a, b):
    assert str(jax.tree.structure(a)) == str(jax.tree.structure(b))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(autouse=True)
def results_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("ATHLETE_RESULTS_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def trained():
    """An algorithm and its first five results."""
    algorithm = config(evaluation_interval=2).build()
    results = [algorithm.train() for _ in range(5)]
    yield algorithm, results
    algorithm.stop()


# Results ----------------------------------------------------------------------------------------------------------


def test_a_result_has_rllibs_keys(trained):
    _, results = trained
    result = results[-1]
    for key in (
        *("episode_reward_mean", "episode_reward_min", "episode_reward_max", "episode_len_mean"),
        *("episodes_this_iter", "episodes_total", "timesteps_total", "training_iteration"),
        *("time_this_iter_s", "time_total_s", "num_env_steps_sampled", "num_env_steps_trained", "timers", "perf"),
    ):
        assert key in result, key
    stats = result["info"]["learner"]["default_policy"]["learner_stats"]
    assert stats.keys() >= {"policy_loss", "vf_loss", "total_loss", "entropy", "kl", "cur_lr", "grad_gnorm"}
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in stats.values())
    assert result["perf"]["env_steps_per_second"] > 0
    assert "episode_reward_mean" in pretty_print(result)


def test_counters_add_up(trained):
    _, results = trained
    assert [result["training_iteration"] for result in results] == [1, 2, 3, 4, 5]
    assert [result["timesteps_total"] for result in results] == [64, 128, 192, 256, 320]
    assert sum(result["episodes_this_iter"] for result in results) == results[-1]["episodes_total"] > 0
    assert sum(result["time_this_iter_s"] for result in results) == pytest.approx(results[-1]["time_total_s"])
    for result in results:
        assert result["num_env_steps_sampled"] == result["num_env_steps_trained"] == result["timesteps_total"]
        assert result["episode_reward_min"] <= result["episode_reward_mean"] <= result["episode_reward_max"]
        assert result["episode_reward_mean"] == pytest.approx(result["episode_len_mean"]), "CartPole pays 1 a step"


def test_evaluation_iterations_carry_their_evaluation(trained):
    _, results = trained
    assert ["evaluation" in result for result in results] == [False, True, False, True, False]
    assert results[1]["evaluation"]["episodes_this_iter"] == 4


def test_nothing_is_compiled_after_the_first_iteration(trained):
    """Evaluations and actions in between compile programs of their own; the training compiles no more."""
    _, results = trained
    assert [result["perf"]["compilations_this_iter"] for result in results[1:]] == [0, 0, 0, 0]
    assert all(result["perf"]["memory_mib"] > 0 for result in results)


def test_statistics_are_over_the_last_episodes_of_the_window():
    algorithm = config(metrics_num_episodes_for_smoothing=3, min_sample_timesteps_per_iteration=0).build()
    seen = []
    for _ in range(3):
        advance = algorithm._training.advance
        found = {}

        def spying(iterations, advance=advance, found=found):
            found["progress"] = advance(iterations)
            return found["progress"]

        algorithm._training.advance = spying
        result = algorithm.train()
        algorithm._training.advance = advance
        seen += found["progress"].returns.tolist()
        assert result["episode_reward_mean"] == pytest.approx(np.mean(seen[-3:]))
        assert result["episode_reward_max"] == max(seen[-3:])
    assert len(seen) > 3
    algorithm.stop()


def test_before_any_episode_has_ended_there_is_no_mean():
    algorithm = config("Pendulum-v1").build()  # episodes of 200 steps, batches of 32 a row
    result = algorithm.train()
    assert result["episodes_total"] == 0
    assert math.isnan(result["episode_reward_mean"])
    action = algorithm.compute_single_action(np.array([1.0, 0.0, 0.0]))
    assert gymnasium.make("Pendulum-v1").action_space.contains(action)
    algorithm.stop()


def test_an_iteration_can_be_asked_to_collect_more():
    algorithm = config(min_sample_timesteps_per_iteration=150).build()
    result = algorithm.train()
    assert (result["timesteps_this_iter"], result["training_iteration"]) == (192, 1)
    algorithm.stop()


# The same again ---------------------------------------------------------------------------------------------------


def run_of(seed, **settings):
    with config(seed=seed, **settings).build() as algorithm:
        for _ in range(2):
            result = algorithm.train()
        return parameters(algorithm), result["episode_reward_mean"]


def test_one_seed_is_one_training_and_another_seed_another():
    (first, reward), (again, reward_again), (other, _) = run_of(3), run_of(3), run_of(4)
    assert_equal_trees(first, again)
    assert reward == reward_again
    assert not np.array_equal(jax.tree.leaves(first.agent.params)[0], jax.tree.leaves(other.agent.params)[0])


def test_no_seed_is_a_new_one_each_time_which_the_results_name():
    with config(seed=None).build() as first, config(seed=None).build() as second:
        assert first.seed != second.seed
        result = first.train()
        state = parameters(first)
    again, _ = run_of_one(result["seed"])
    assert_equal_trees(state, again)


def run_of_one(seed):
    with config(seed=seed).build() as algorithm:
        result = algorithm.train()
        return parameters(algorithm), result


def test_a_sweep_over_numbers_shares_one_program(trained):
    before, _ = compilations()
    states = []
    for settings in ({"lr": 1e-2}, {"lr": 1e-4, "gamma": 0.5, "clip_param": 0.1}):
        with config(**settings).build() as algorithm:
            assert algorithm.train()["perf"]["compilations_this_iter"] == 0
            states.append(jax.tree.leaves(parameters(algorithm).agent.params))
    assert compilations()[0] == before
    assert not np.array_equal(states[0][0], states[1][0]), "and the numbers count"


def test_memory_stays_flat():
    """Over 150 iterations after a start: what each one leaves behind is below 20 KiB."""
    with config().build() as algorithm:
        used = [algorithm.train()["perf"]["memory_mib"] for _ in range(250)][100:]
    slope = np.polyfit(np.arange(len(used)), used, 1)[0]
    assert slope * 1024 < 20, f"{slope * 1024:.1f} KiB an iteration"


# Evaluation -------------------------------------------------------------------------------------------------------


def test_evaluating_twice_gives_the_same_number_and_another_seed_another(trained):
    algorithm, _ = trained
    first, again = (algorithm.evaluate()["evaluation"] for _ in range(2))
    assert first["hist_stats"] == again["hist_stats"]
    assert first["seed"] == 0
    other = algorithm.evaluate(seed=7)["evaluation"]
    assert other["hist_stats"] != first["hist_stats"]
    assert other["seed"] == 7


def test_evaluation_takes_as_many_episodes_as_asked(trained):
    algorithm, _ = trained
    found = algorithm.evaluate(episodes=3)["evaluation"]
    assert found["episodes_this_iter"] == len(found["hist_stats"]["episode_reward"]) == 3
    assert found["episode_reward_mean"] == pytest.approx(np.mean(found["hist_stats"]["episode_reward"]))
    with pytest.raises(ValueError, match=r"evaluate\(episodes=0\): expected a whole number of at least 1"):
        algorithm.evaluate(episodes=0)
    with pytest.raises(ValueError, match=r"evaluate\(episodes=2\.5\): expected a whole number"):
        algorithm.evaluate(episodes=2.5)


def test_a_duration_in_timesteps_is_whole_episodes_that_reach_it():
    with config(evaluation_duration=100, evaluation_duration_unit="timesteps").build() as algorithm:
        found = algorithm.evaluate()["evaluation"]
    assert found["timesteps_this_iter"] == sum(found["hist_stats"]["episode_lengths"]) >= 100
    assert found["timesteps_this_iter"] - sum(found["hist_stats"]["episode_lengths"][-8:]) < 100


def test_evaluation_leaves_the_training_as_it_was():
    with config().build() as evaluated, config().build() as left_alone:
        for algorithm in (evaluated, left_alone):
            algorithm.train()
        evaluated.evaluate()
        assert_equal_trees(jax.device_get(evaluated.run.rows), jax.device_get(left_alone.run.rows))
        for algorithm in (evaluated, left_alone):
            algorithm.train()
        assert_equal_trees(parameters(evaluated), parameters(left_alone))


def test_evaluation_can_explore_and_have_an_environment_of_its_own():
    with config(evaluation_config={"explore": True}).build() as algorithm:
        assert algorithm.evaluate()["evaluation"]["explore"] is True
    with config(evaluation_config={"env": OneStep(3.0)}, env=OneStep()).build() as algorithm:
        assert algorithm.evaluate()["evaluation"]["hist_stats"]["episode_reward"] == [3.0] * 4


def test_a_function_gives_the_metrics_of_evaluations_and_may_play_episodes_itself(tmp_path):
    seen = []

    def judged(algorithm, eval_workers):
        seen.append((algorithm.iteration, eval_workers))
        return {"mean": algorithm.evaluate(episodes=2)["evaluation"]["episode_reward_mean"]}

    settings = {"evaluation_interval": 2, "custom_evaluation_function": judged}
    with config(**settings).build() as algorithm:
        assert "evaluation" not in algorithm.train()
        assert list(algorithm.train()["evaluation"]) == ["mean"]
        played = algorithm.evaluate(episodes=2)["evaluation"]
        assert algorithm.evaluate() == {"evaluation": {"mean": played["episode_reward_mean"]}}
        assert [iteration for iteration, _ in seen] == [2, 2]
        with pytest.raises(AttributeError, match=r"eval_workers.remote_workers: .* algorithm.evaluate\(episodes=10\)"):
            seen[0][1].remote_workers()
        path = algorithm.save(tmp_path)
    with pytest.raises(ValueError, match="custom_evaluation_function"):
        Algorithm.from_checkpoint(path)
    again = Algorithm.from_checkpoint(path, custom_evaluation_function=lambda *_: 7)
    with again, pytest.raises(TypeError, match="expected a dictionary of metrics, got 7"):
        again.evaluate()


def test_an_environment_of_evaluation_must_exist_and_fit_the_policy():
    with pytest.raises(ValueError, match=r"'OneStap-v0': no Gymnasium id"):
        config(evaluation_config={"env": "OneStap-v0"}).build()
    sentence = r"evaluation_config=.*: its environment has the observation space Box.*, and the policy was trained on"
    with config(evaluation_config={"env": OneStep()}).build() as algorithm, pytest.raises(ValueError, match=sentence):
        algorithm.evaluate()


def test_evaluations_change_single_entries_of_dictionaries_within_env_config():
    """RLlib's files of crashing CartPoles set some of `env_config["config"]`, and keep the number of agents."""

    def make(env_config):
        return gymnasium.make("CartPole-v1")

    own, changes = {"config": {"num_agents": 2, "p_crash": 0.1}, "size": 3}, {"config": {"p_crash": 0.0}}
    training = config(env=make, env_config=own, evaluation_config={"env_config": changes})
    found = evaluation_world(training, None)
    assert found.env_config == {"config": {"num_agents": 2, "p_crash": 0.0}, "size": 3}
    assert own["config"]["p_crash"] == 0.1


# Acting -----------------------------------------------------------------------------------------------------------

OBSERVATION = np.array([0.01, -0.2, 0.03, 0.4])


def test_a_single_action_is_what_the_environments_step_takes(trained):
    algorithm, _ = trained
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        action = algorithm.compute_single_action(observation)
        assert type(action) is int
        observation, *_ = env.step(action)
    assert {algorithm.compute_single_action(OBSERVATION) for _ in range(5)} == {
        algorithm.compute_single_action(OBSERVATION)
    }
    assert {algorithm.compute_single_action(OBSERVATION, explore=True) for _ in range(100)} == {0, 1}


def test_many_actions_come_by_name_or_as_a_list(trained):
    algorithm, _ = trained
    one = algorithm.compute_single_action(OBSERVATION)
    assert algorithm.compute_actions({"a": OBSERVATION, "b": OBSERVATION}) == {"a": one, "b": one}
    assert algorithm.compute_actions([OBSERVATION, OBSERVATION]) == [one, one]


def test_full_fetch_is_rllibs_triple(trained):
    algorithm, _ = trained
    action, state, extra = algorithm.compute_single_action(OBSERVATION, full_fetch=True)
    assert (action, extra) == (algorithm.compute_single_action(OBSERVATION), {})
    assert not jax.tree.leaves(state)


def test_errors_of_acting_name_the_observation_and_the_policy(trained):
    algorithm, _ = trained
    with pytest.raises(ValueError, match=r"observation: expected shape \(4,\)"):
        algorithm.compute_single_action([0.0])
    with pytest.raises(ValueError, match=r"get_policy\('other'\): there is one policy, 'default_policy'"):
        algorithm.compute_single_action(OBSERVATION, policy_id="other")


def test_a_policy_is_a_snapshot():
    with config(lr=0.1).build() as algorithm:
        policy = algorithm.get_policy()
        before = jax.tree.map(np.array, jax.device_get(policy.view))
        algorithm.train()
        assert_equal_trees(before, jax.device_get(policy.view))
        assert algorithm.get_policy() is not policy
        assert not np.array_equal(
            jax.tree.leaves(algorithm.get_policy().view.agent)[0], jax.tree.leaves(before.agent)[0]
        )


def test_observation_filters_act_too():
    with config(observation_filter="MeanStdFilter").build() as algorithm:
        algorithm.train()
        view = algorithm.get_policy().view
        assert view.obs.count == 64
        assert algorithm.compute_single_action(OBSERVATION) in (0, 1)


@pytest.fixture(scope="module")
def recurrent():
    model = {"use_gru": True, "gru_cell_size": 4, "fcnet_hiddens": [], "max_seq_len": 8}
    with config(model=model).build() as algorithm:
        algorithm.train()
        yield algorithm


def test_a_network_with_memory_takes_a_state_and_gives_one_back(recurrent):
    state = recurrent.get_policy().get_initial_state()
    action, after, extra = recurrent.compute_single_action(OBSERVATION, state)
    assert action in (0, 1)
    assert extra == {}
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True)
    )
    begun = recurrent.compute_single_action(OBSERVATION, full_fetch=True)
    assert_equal_trees(jax.device_get(begun[1]), jax.device_get(after))
    actions, states, _ = recurrent.compute_actions([OBSERVATION] * 2, [state, after])
    assert actions[0] == action
    later = recurrent.compute_single_action(OBSERVATION, after)[1]
    for leaf, expected in zip(jax.tree.leaves(states), jax.tree.leaves([after, later]), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-6)  # both in one call: another order of sums


def test_a_network_with_memory_does_not_lose_it_in_silence(recurrent):
    with pytest.raises(ValueError, match=r"compute_single_action.*has memory and would lose it: give state"):
        recurrent.compute_single_action(OBSERVATION)
    with pytest.raises(ValueError, match=r"compute_actions.*has memory"):
        recurrent.compute_actions([OBSERVATION])


# Weights ----------------------------------------------------------------------------------------------------------


def test_weights_travel_between_algorithms_and_outlive_training():
    with config(lr=0.1).build() as first, config(seed=5).build() as second:
        weights = first.get_weights()
        kept = jax.tree.map(np.array, weights)
        second.set_weights(weights)
        assert_equal_trees(parameters(second), kept["default_policy"])
        first.train()
        second.train()
        assert_equal_trees(weights, kept)
        first.set_weights(weights)
        assert_equal_trees(parameters(first), kept["default_policy"])
        assert first.compute_single_action(OBSERVATION) in (0, 1)


def test_weights_of_another_shape_or_kind_are_refused(trained):
    algorithm, _ = trained
    weights = algorithm.get_weights()
    with config(model={"fcnet_hiddens": [9]}).build() as other:
        with pytest.raises(ValueError, match=r"set_weights: .*kernel.* has shape \(8, 2\), and here it has \(9, 2\)"):
            other.set_weights(weights)
        with pytest.raises(ValueError, match=r"of another network or algorithm"):
            other.set_weights({"default_policy": {"w": np.zeros(3)}})
        with pytest.raises(
            ValueError, match=r"expected \{'default_policy': \.\.\.\} as get_weights gives, got \['w'\]"
        ):
            other.set_weights({"w": np.zeros(3)})


# Keeping ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_goes_on_exactly_where_it_was_saved(tmp_path):
    with config(observation_filter="MeanStdFilter").build() as algorithm:
        algorithm.train()
        path = algorithm.save(tmp_path)
        assert path == str(tmp_path / "checkpoint_000001")
        evaluation = algorithm.evaluate()["evaluation"]["hist_stats"]
        expected, result = algorithm.train(), None
        state = parameters(algorithm)
    with Algorithm.from_checkpoint(path) as restored:
        assert restored.config.observation_filter == "MeanStdFilter"
        assert restored.iteration == 1
        assert restored.evaluate()["evaluation"]["hist_stats"] == evaluation
        result = restored.train()
        assert_equal_trees(parameters(restored), state)
    for key in ("episode_reward_mean", "episodes_total", "timesteps_total", "training_iteration", "seed"):
        assert result[key] == expected[key], key
    assert result["iterations_since_restore"] == 1


def test_restoring_over_a_running_training_replaces_all_of_it(tmp_path):
    with config().build() as algorithm:
        path = algorithm.save(tmp_path / "checkpoint_mine")
        assert path.endswith("checkpoint_mine")
        first = algorithm.train()
        state = parameters(algorithm)
        algorithm.train()
        algorithm.restore(path)
        again = algorithm.train()
        assert_equal_trees(parameters(algorithm), state)
        assert again["timesteps_total"] == first["timesteps_total"]


def test_without_a_folder_it_is_saved_among_the_results(tmp_path):
    with config().build() as algorithm:
        assert algorithm.save() == f"{algorithm.logdir}/checkpoint_000000"


@hyper
class Endless(OneStep):
    def step(self, state, action, key):
        _, step = OneStep.step(self, state, action, key)
        return state, step._replace(terminated=jnp.asarray(False))


@pytest.mark.parametrize("env", [Endless, OneStep])
def test_a_training_in_which_no_episode_ends_says_so_once(env, monkeypatch, caplog):
    monkeypatch.setattr("athlete.algorithm.LONG_EPISODE", 20)
    with (
        config(env, train_batch_size=64, num_envs_per_worker=4).build() as algorithm,
        caplog.at_level("WARNING", "athlete"),
    ):
        algorithm.train()
        assert "no episode has ended" not in caplog.text  # 16 steps of each
        for _ in range(3):
            algorithm.train()
    assert caplog.text.count("no episode has ended in the last 32 steps of each environment (4 side by side)") == (
        env is Endless
    )


class Table:
    """Stands for a pandas.DataFrame, which has no JSON form and many lines."""

    def __repr__(self):
        return "\n".join(map(str, range(1000)))


class Trade(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)

    def __init__(self, table, fee=0.0):
        assert isinstance(table, Table)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {}


def test_what_env_config_holds_and_a_file_cannot_is_given_again(tmp_path):
    with config(Trade, env_config={"table": Table()}).build() as algorithm:
        folder = algorithm.save(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        Algorithm.from_checkpoint(folder)
    assert str(caught.value).endswith(
        "config.env_config.table: a test_algorithm.Table could not be kept in a file; give it again: "
        "from_checkpoint(path, env_config=...)"
    )
    with Algorithm.from_checkpoint(folder, env_config={"table": Table()}) as restored:
        assert restored.train()["training_iteration"] == 1
    with pytest.raises(
        ValueError, match=r"env_config=\{'tabel': <Table>, 'more': 1\} does not fit Trade.*mean 'table'"
    ):
        config(Trade, env_config={"tabel": Table(), "more": 1}).build()


def test_a_checkpoint_of_a_class_needs_no_env_and_one_of_a_function_does(tmp_path):
    with config(OneStep).build() as algorithm:
        of_class = algorithm.save(tmp_path / "class")
    with Algorithm.from_checkpoint(of_class) as restored:
        assert restored.config.env is OneStep

    def factory(env_config):
        return OneStep()

    with config(factory).build() as algorithm:
        of_function = algorithm.save(tmp_path / "function")
    with pytest.raises(CheckpointError, match=r"config\.env: .*; give it again: from_checkpoint\(path, env=\.\.\.\)"):
        Algorithm.from_checkpoint(of_function)
    with Algorithm.from_checkpoint(of_function, env=factory, lr=0.5) as restored:
        assert restored.config.lr == 0.5
        assert restored.train()["training_iteration"] == 1


def test_checkpoints_of_other_spaces_or_algorithms_are_refused(tmp_path, trained, monkeypatch):
    algorithm, _ = trained
    path = algorithm.save(tmp_path)
    with config(OneStep).build() as other:
        with pytest.raises(
            CheckpointError, match=r"trained with the observation space Box.*restore it on the environment"
        ):
            other.restore(path)
        monkeypatch.setattr(type(other.config), "algorithm_name", "Other")
        with pytest.raises(CheckpointError, match=r"was written by PPO, and this is Other"):
            other.restore(path)


def test_settings_that_change_what_the_numbers_mean_are_refused(tmp_path, trained):
    algorithm, _ = trained
    path = algorithm.save(tmp_path)
    with config(observation_filter="MeanStdFilter").build() as other, pytest.raises(CheckpointError) as refusal:
        other.restore(path)
    assert "trained with observation_filter='NoFilter', and here it is 'MeanStdFilter'" in str(refusal.value)
    with config(model={"fcnet_activation": "relu"}).build() as other, pytest.raises(CheckpointError) as refusal:
        other.restore(path)
    assert "trained with fcnet_activation='tanh', and here it is 'relu'" in str(refusal.value)


@pytest.mark.parametrize("changes", [{"num_envs_per_worker": 1}, {"env_config": {"max_episode_steps": -1}}])
def test_onto_other_environments_it_goes_on_with_new_episodes(tmp_path, trained, caplog, changes):
    algorithm, _ = trained
    path = algorithm.save(tmp_path)
    with config(**changes).build() as other:
        other.restore(path)
        assert_equal_trees(parameters(other), parameters(algorithm))
    assert "training starts new episodes" in caplog.text


@pytest.mark.parametrize(
    "forged",
    [
        {"env": "os.system", "env_config": {"command": "touch executed"}},
        {"env": "this.d"},
        {"env": "xml.dom.pulldom.PullDOM"},
        {"env": "this:Id-v0"},
        {"evaluation_config": {"env": "this.d"}},
        {"env": {"__class__": "multiprocessing.pool:Pool"}, "env_config": {"processes": 1}},
    ],
    ids=str,
)
def test_a_forged_checkpoint_calls_and_imports_nothing(tmp_path, trained, monkeypatch, forged):
    algorithm, _ = trained
    monkeypatch.chdir(tmp_path)
    metadata = read_metadata(algorithm.save(tmp_path))
    imported = set(sys.modules)
    path = save_checkpoint(tmp_path / "forged", {}, {**metadata, "config": metadata["config"] | forged})
    with pytest.raises(
        CheckpointError, match=r"is no environment class of a module that is imported|is not known here"
    ):
        Algorithm.from_checkpoint(path)
    assert not (tmp_path / "executed").exists()
    assert not {"this", "xml.dom.pulldom"} & (set(sys.modules) - imported)


# Callbacks and the end --------------------------------------------------------------------------------------------


class Recorder(DefaultCallbacks):
    def __init__(self):
        self.events = []

    def on_algorithm_init(self, *, algorithm):
        self.events.append("init")

    def on_train_result(self, *, algorithm, result):
        self.events.append(("result", result["training_iteration"]))
        result["mine"] = 42

    def on_evaluate_start(self, *, algorithm):
        self.events.append("evaluate")

    def on_evaluate_end(self, *, algorithm, evaluation_metrics):
        self.events.append(("evaluated", evaluation_metrics["evaluation"]["episodes_this_iter"]))

    def on_checkpoint_loaded(self, *, algorithm):
        self.events.append(("loaded", algorithm.iteration))


def test_callbacks_are_called_at_the_turning_points(tmp_path):
    recorder = Recorder()
    with config(evaluation_interval=1, callbacks=recorder).build() as algorithm:
        result = algorithm.train()
        algorithm.restore(algorithm.save(tmp_path))
    assert recorder.events == ["init", "evaluate", ("evaluated", 4), ("result", 1), ("loaded", 1)]
    assert result["mine"] == 42


def test_after_stop_every_method_says_so():
    algorithm = config().build()
    algorithm.stop()
    algorithm.stop()
    for method in ("train", "evaluate", "save", "get_policy"):
        with pytest.raises(RuntimeError, match=rf"{method}\(\): this algorithm was stopped; build a new one"):
            getattr(algorithm, method)()


def test_the_configuration_of_an_algorithm_is_frozen_and_its_own():
    mine = config()
    with mine.build() as algorithm:
        with pytest.raises(AttributeError, match="frozen"):
            algorithm.config.training(lr=1.0)
        mine.training(lr=0.5)
        assert algorithm.config.lr != 0.5


def test_arguments_of_build_go_before_the_sections():
    with config("Pendulum-v1", lr=0.5, seed=1).build(env="CartPole-v1", lr=0.25) as algorithm:
        assert (algorithm.config.env, algorithm.config.lr, algorithm.seed) == ("CartPole-v1", 0.25, 1)
        assert algorithm.agent.spec.action == Discrete(2)


def test_more_gpus_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"resources\(num_gpus=2\): JAX sees \d+ GPUs here"):
        config(num_gpus=2).build()


# Hosted by Gymnasium ----------------------------------------------------------------------------------------------

LEARNS = {
    "backend": "gymnasium",
    "train_batch_size": 512,
    "minibatch_size": 128,
    "num_epochs": 10,
    "lr": 2e-3,
    "gamma": 0.98,
    "lambda_": 0.9,
    "model": {"fcnet_hiddens": [32]},
}


@pytest.mark.parametrize(
    "workers",
    [{"num_envs_per_worker": 4}, {"num_rollout_workers": 2, "num_envs_per_worker": 2}],
    ids=["in process", "2 workers"],
)
def test_training_on_gymnasium_learns(workers, tmp_path):
    with config(**LEARNS, **workers).build() as algorithm:
        results = [algorithm.train() for _ in range(12)]
        assert [result["perf"]["compilations_this_iter"] for result in results[1:]] == [0] * 11
        assert results[0]["episode_reward_mean"] < 30
        assert results[-1]["episode_reward_mean"] > 40
        evaluation = algorithm.evaluate(episodes=5)["evaluation"]
        assert evaluation["hist_stats"] == algorithm.evaluate(episodes=5)["evaluation"]["hist_stats"]
        assert evaluation["episode_reward_mean"] > 45
        path = algorithm.save(tmp_path)
        algorithm.restore(path)
        assert algorithm.train()["training_iteration"] == 13


def test_two_threads_cannot_train_one_algorithm():
    refused = []

    class Another(DefaultCallbacks):
        def on_train_result(self, *, algorithm, result, **info):
            def train():
                try:
                    algorithm.train()
                except RuntimeError as error:
                    refused.append(str(error))

            thread = threading.Thread(target=train)
            thread.start()
            thread.join()

    with config().callbacks(Another).build() as algorithm:
        algorithm.train()
        assert len(refused) == 1 and refused[0].startswith("train(): another thread is in train() of this algorithm")
        assert algorithm.train()["training_iteration"] == 2

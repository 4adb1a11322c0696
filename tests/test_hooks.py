"""RLlib's hooks of episodes, samples and batches, and entries of `info` as custom metrics."""

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from athlete import DefaultCallbacks
from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.core import Env, Step, hyper
from athlete.loops import progress
from athlete.spaces import Box, Discrete


class Shop(gymnasium.Env):
    """Episodes of 5 steps; the profit of the last is 5 times the row's price."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, env_config):
        self.price = 1 + env_config.vector_index

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        info = {"profit": self.steps * self.price, "open": self.steps < 5, "name": "shop", "goods": np.zeros(3)}
        return np.full(2, self.steps / 10, np.float32), 1.0, self.steps == 5, False, info


def ppo(callbacks=None, rows=2, batch=20, env=Shop, **reporting):
    config = PPOConfig().environment(env, disable_env_checking=True, normalize_rewards=False)
    config.rollouts(num_envs_per_worker=rows)
    config.training(train_batch_size=batch, minibatch_size=batch // 2, num_epochs=1, model={"fcnet_hiddens": [4]})
    return config.callbacks(callbacks).reporting(**reporting)


def dqn(callbacks=None, length=4):
    config = DQNConfig().environment(Shop, disable_env_checking=True).rollouts(num_envs_per_worker=1)
    config.rollouts(rollout_fragment_length=length)
    config.training(
        train_batch_size=4,
        num_steps_sampled_before_learning_starts=8,
        model={"fcnet_hiddens": [4]},
        replay_buffer_config={"capacity": 100},
    )
    return config.callbacks(callbacks).reporting(min_sample_timesteps_per_iteration=20)


class Follow(DefaultCallbacks):
    def __init__(self):
        self.calls = []

    def on_episode_start(self, *, worker, base_env, policies, episode, env_index, **kwargs):
        assert episode.length == 0 and not episode.user_data and episode.last_info_for() == {}
        assert policies["default_policy"] is not None and len(base_env.get_sub_environments()) >= 1
        assert worker.env.price == 1
        episode.user_data["profits"] = []
        self.calls.append(("start", env_index))

    def on_episode_step(self, *, worker, base_env, policies, episode, env_index, **kwargs):
        episode.user_data["profits"].append(episode.last_info_for()["profit"])
        assert episode.last_action_for() in (0, 1) and episode.last_reward_for() == 1.0
        assert episode.last_observation_for()[0] == pytest.approx(episode.length / 10)

    def on_episode_end(self, *, worker, base_env, policies, episode, env_index, **kwargs):
        assert episode.length == 5 and episode.total_reward == 5.0
        episode.custom_metrics["profit"] = sum(episode.user_data["profits"])
        episode.hist_data["profits"] = episode.user_data["profits"]
        self.calls.append(("end", env_index))


@pytest.mark.parametrize("make", [ppo, dqn])
def test_episodes_are_followed_from_start_to_end_and_what_they_leave_is_in_the_results(make):
    callbacks = Follow()
    with make(callbacks).build() as algorithm:
        result = algorithm.train()
        assert result["custom_metrics"]["profit_min"] == 15.0
        assert result["custom_metrics"]["profit_max"] == 15.0 * algorithm._training.rows
        assert result["custom_metrics"]["profit_mean"] == pytest.approx(np.mean(result["hist_stats"]["profits"]) * 5)
        assert result["hist_stats"]["profits"][:5] == [1, 2, 3, 4, 5]
        assert len(result["hist_stats"]["episode_reward"]) == result["episodes_total"]
        ended = [row for what, row in callbacks.calls if what == "end"]
        started = [row for what, row in callbacks.calls if what == "start"]
        assert len(ended) == result["episodes_total"]
        assert len(started) - len(ended) == algorithm._training.rows


def test_hooks_see_evaluation_too_and_each_of_its_episodes_once():
    callbacks = Follow()
    with ppo(callbacks).build() as algorithm:
        callbacks.calls.clear()
        evaluation = algorithm.evaluate(8)["evaluation"]
        assert [what for what, _ in callbacks.calls].count("end") == 8
        assert evaluation["custom_metrics"]["profit_mean"] == 15.0 * np.mean(range(1, 9))
        assert len(evaluation["hist_stats"]["profits"]) == 40 and len(evaluation["hist_stats"]["episode_reward"]) == 8


def test_an_evaluation_tells_of_the_episodes_that_it_counts_alone():
    """Three of the eight that are played side by side are asked for, and their prices are 1, 2 and 3."""
    with ppo(info_metrics=["profit"]).evaluation(evaluation_duration=8).build() as algorithm:
        evaluation = algorithm.evaluate(3)["evaluation"]
    assert evaluation["custom_metrics"] == {"profit_mean": 10.0, "profit_min": 5.0, "profit_max": 15.0}


class Shaky(Shop):
    """The second row raises in the third step of its first episode."""

    failed = False

    def step(self, action):
        if self.price == 2 and self.steps == 2 and not Shaky.failed:
            Shaky.failed = True
            raise RuntimeError("the till is stuck")
        return super().step(action)


def test_an_evaluation_tells_of_an_episode_that_is_played_once_more(monkeypatch):
    monkeypatch.setattr(Shaky, "failed", False)
    made = ppo(env=Shaky, info_metrics=["profit"]).fault_tolerance(restart_failed_sub_environments=True)
    with made.evaluation(evaluation_duration=2).build() as algorithm:
        evaluation = algorithm.evaluate(2)["evaluation"]
    assert Shaky.failed and evaluation["hist_stats"]["episode_lengths"] == [5, 5]
    assert evaluation["custom_metrics"] == {"profit_mean": 7.5, "profit_min": 5.0, "profit_max": 10.0}


class Samples(DefaultCallbacks):
    def __init__(self):
        self.seen = []

    def on_sample_end(self, *, worker, samples, **kwargs):
        self.seen.append(samples)


@pytest.mark.parametrize(("make", "shape"), [(ppo, (10, 2)), (dqn, (4, 1))])
def test_samples_are_shown_trajectory_by_trajectory(make, shape):
    callbacks = Samples()
    with make(callbacks).build() as algorithm:
        result = algorithm.train()
    assert len(callbacks.seen) == result["timesteps_total"] // (shape[0] * shape[1])
    for samples in callbacks.seen:
        assert samples["rewards"].shape == shape and samples["obs"].shape == (*shape, 2)
        np.testing.assert_allclose(samples["new_obs"] - samples["obs"], 0.1, atol=1e-6)
        assert set(samples) == {"obs", "actions", "rewards", "new_obs", "terminateds", "truncateds"}


class Learner(DefaultCallbacks):
    def __init__(self, change):
        self.change, self.batches = change, []

    def on_learn_on_batch(self, *, policy, train_batch, result, **kwargs):
        self.batches.append({name: np.array(array) for name, array in train_batch.items()})
        assert policy is not None and "action_logp" in train_batch
        result["mean_reward"] = float(train_batch["rewards"].mean())
        self.change(train_batch)


def learned_with(callbacks):
    with ppo(callbacks).debugging(seed=3).build() as algorithm:
        result = algorithm.train()
        return result["info"]["learner"]["default_policy"]["learner_stats"], algorithm.get_weights()


def test_a_batch_is_shown_before_it_is_learned_from_and_changes_count():
    def double(batch):
        batch["rewards"] *= 2

    def replace(batch):
        batch["rewards"] = batch["rewards"] * 2

    callbacks = Learner(lambda batch: None)
    plain, changed, replaced = (learned_with(each)[0] for each in (callbacks, Learner(double), Learner(replace)))
    assert plain["mean_reward"] == 1.0 and callbacks.batches[0]["rewards"].shape == (10, 2)
    assert changed["vf_loss"] > plain["vf_loss"] and replaced == changed


class Postprocess(DefaultCallbacks):
    def __init__(self):
        self.lengths, self.episodes = [], []

    def on_postprocess_trajectory(
        self, *, worker, episode, agent_id, policy_id, policies, postprocessed_batch, original_batches, **kwargs
    ):
        self.lengths.append(len(postprocessed_batch["rewards"]))
        self.episodes.append(episode.episode_id)
        postprocessed_batch["rewards"][-1] += 10.0
        assert original_batches[agent_id][1]["rewards"].max() == 1.0


def test_each_episodes_part_of_a_trajectory_is_postprocessed():
    class Both(Postprocess, Learner):
        def __init__(self):
            Postprocess.__init__(self)
            Learner.__init__(self, lambda batch: None)

    callbacks = Both()
    with ppo(callbacks, batch=14).build() as algorithm:
        algorithm.train()
        algorithm.train()
    assert callbacks.lengths == [5, 2, 5, 2, 3, 4, 3, 4]
    first, second = callbacks.batches
    np.testing.assert_array_equal(first["rewards"][:, 0], [1, 1, 1, 1, 11, 1, 11])
    np.testing.assert_array_equal(second["rewards"][:, 1], [1, 1, 11, 1, 1, 1, 11])
    assert callbacks.episodes[1] == callbacks.episodes[4] and len(set(callbacks.episodes)) == 6


class Nested(Shop):
    observation_space = gymnasium.spaces.Dict({"goods": Shop.observation_space})

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return {"goods": obs}, info

    def step(self, action):
        obs, *rest = super().step(action)
        return {"goods": obs}, *rest


def test_a_nested_observation_that_a_hook_replaces_is_learned_from():
    def replace(batch):
        batch["obs"] = {"goods": batch["obs"]["goods"] + 1}

    def learned(change):
        class Change(DefaultCallbacks):
            def on_learn_on_batch(self, *, train_batch, **kwargs):
                change(train_batch)

        with ppo(Change, env=Nested).debugging(seed=3).build() as algorithm:
            return algorithm.train()["info"]["learner"]["default_policy"]["learner_stats"]["vf_loss"]

    assert learned(replace) != learned(lambda batch: None)
    with pytest.raises(ValueError, match=r"'obs' of a batch to the entries \['god'\]; expected \['goods'\]"):
        learned(lambda batch: batch.update(obs={"god": 0}))


def test_an_entry_that_a_hook_adds_to_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"a hook put 'advantages' into a batch.*'rewards'"):
        learned_with(Learner(lambda batch: batch.update(advantages=0)))


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_part_of_a_trajectory_whose_environment_failed_is_postprocessed_too(at, monkeypatch):
    class Fails(Shop):
        failed = False

        def step(self, action):
            if self.price == 2 and self.steps == at and not Fails.failed:
                Fails.failed = True
                raise RuntimeError("the till is stuck")
            return super().step(action)

    lengths = []

    class Lengths(DefaultCallbacks):
        def on_postprocess_trajectory(self, *, episode, postprocessed_batch, **kwargs):
            lengths.append((episode.env_id, len(postprocessed_batch["rewards"])))

    made = ppo(Lengths, env=Fails, batch=14).fault_tolerance(restart_failed_sub_environments=True)
    with made.build() as algorithm:
        assert algorithm.train()["num_faulty_episodes"] == 1
    assert [length for row, length in lengths if row == 0] == [5, 2]
    rest = 7 - at - 1
    assert [length for row, length in lengths if row == 1] == [at + 1, *([5, rest - 5] if rest > 5 else [rest])]


class Made(DefaultCallbacks):
    def __init__(self):
        self.seen = []

    def on_sub_environment_created(self, *, worker, sub_environment, env_context, env_index, **kwargs):
        sub_environment.price = 100 + env_index
        self.seen.append((env_index, env_context.vector_index, env_context.worker_index))


def test_each_environment_is_told_when_it_was_made():
    callbacks = Made()
    with ppo(callbacks, info_metrics=["profit"]).build() as algorithm:
        assert callbacks.seen == [(0, 0, 0), (1, 1, 0)]
        assert algorithm.train()["custom_metrics"]["profit_max"] == 505.0


def test_each_environment_of_a_worker_is_told_there():
    config = ppo(Made(), rows=1, info_metrics=["profit"]).rollouts(num_rollout_workers=2)
    with config.build() as algorithm:
        metrics = algorithm.train()["custom_metrics"]
        assert metrics == {"profit_mean": 502.5, "profit_min": 500.0, "profit_max": 505.0}


def test_entries_of_info_are_custom_metrics_where_that_was_asked():
    with ppo(info_metrics=["profit"]).build() as algorithm:
        metrics = algorithm.train()["custom_metrics"]
        assert metrics == {"profit_mean": 7.5, "profit_min": 5.0, "profit_max": 10.0}
    with ppo(info_metrics=True).build() as algorithm:
        metrics = algorithm.train()["custom_metrics"]
        assert set(metrics) == {f"{name}_{kind}" for name in ("profit", "open") for kind in ("mean", "min", "max")}
    with ppo().build() as algorithm:
        assert algorithm.train()["custom_metrics"] == {}


def test_an_entry_that_never_comes_is_said_once(caplog):
    with ppo(info_metrics=["profti"]).build() as algorithm:
        algorithm.train()
        algorithm.train()
    told = [record for record in caplog.records if "profti" in record.message]
    assert len(told) == 1 and "profit" in told[0].message


@hyper
class Stall(Env):
    """The same, compiled: episodes of 5 steps with a profit."""

    @property
    def observation_space(self):
        return Box(-1.0, 1.0, (2,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(2)

    def step(self, state, action, key):
        state = state + 1
        info = {"profit": state * 3, "open": state < 5, "goods": jnp.zeros(3)}
        ends = state == 5
        return state, Step(jnp.full(2, state / 10), jnp.float32(1), ends, jnp.zeros((), bool), info)


@pytest.mark.parametrize(("asked", "names"), [(["profit"], {"profit"}), (True, {"profit", "open"}), (False, set())])
def test_entries_of_info_are_custom_metrics_compiled_too(asked, names):
    with ppo(env=Stall(), info_metrics=asked).build() as algorithm:
        results = algorithm.train(), algorithm.evaluate(3)["evaluation"]
    for metrics in (result["custom_metrics"] for result in results):
        assert set(metrics) == {f"{name}_{kind}" for name in names for kind in ("mean", "min", "max")}
        assert not names or metrics["profit_min"] == metrics["profit_mean"] == metrics["profit_max"] == 15.0


def test_an_entry_that_a_compiled_environment_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"info_metrics=\['profti'\].*no number 'profti'.*'open', 'profit'"):
        ppo(env=Stall(), info_metrics=["profti"]).build()


def test_a_hook_that_cannot_run_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"Follow.*CartPole-v1 runs compiled.*on_episode_end.*backend='gymnasium'"):
        PPOConfig().environment("CartPole-v1").callbacks(Follow).build()
    with pytest.raises(ValueError, match=r"Learner.*DQN draws its batches.*on_learn_on_batch"):
        dqn(Learner(None)).build()


def test_a_hook_that_is_none_is_refused_with_the_nearest():
    class Misspelt(DefaultCallbacks):
        def on_episode_ended(self, **kwargs):
            pass

    with pytest.raises(ValueError, match=r"Misspelt.on_episode_ended.*did you mean 'on_episode_end'"):
        PPOConfig().callbacks(Misspelt)


def test_a_custom_metric_that_is_no_number_is_refused():
    class Wrong(DefaultCallbacks):
        def on_episode_end(self, *, episode, **kwargs):
            episode.custom_metrics["name"] = "shop"

    with (
        ppo(Wrong).build() as algorithm,
        pytest.raises(ValueError, match=r"custom_metrics\['name'\].*expected a number"),
    ):
        algorithm.train()


def test_hooks_that_an_instance_got_when_it_was_made_are_called_and_unknown_ones_refused():
    class Given(DefaultCallbacks):
        def __init__(self, **hooks):
            vars(self).update(hooks)

    calls = []
    with ppo(Given(on_episode_end=lambda **_: calls.append("end"))).build() as algorithm:
        algorithm.train()
    assert calls == ["end"] * 4
    with pytest.raises(ValueError, match=r"Given.on_episode_finish .*never be called"):
        PPOConfig().callbacks(Given(on_episode_finish=print))

    class Later(DefaultCallbacks):
        def __init__(self):
            self.on_episode_ended = print

    with pytest.raises(ValueError, match=r"Later.on_episode_ended.*did you mean 'on_episode_end'"):
        ppo(Later).build()


def test_hist_data_that_is_no_list_is_refused():
    class Wrong(DefaultCallbacks):
        def on_episode_end(self, *, episode, **kwargs):
            episode.hist_data["steps"] = 5

    with ppo(Wrong).build() as algorithm, pytest.raises(ValueError, match=r"hist_data\['steps'\].*a list.*got int 5"):
        algorithm.train()


def test_what_a_hook_reports_now_and_then_is_averaged_over_when_it_did():
    class Sometimes(DefaultCallbacks):
        calls = 0

        def on_learn_on_batch(self, *, policy, train_batch, result, **kwargs):
            Sometimes.calls += 1
            if Sometimes.calls in (1, 3):
                result[f"mine_{Sometimes.calls}"] = Sometimes.calls

    with ppo(Sometimes).build() as algorithm:
        parts = [algorithm._training.advance(1) for _ in range(3)]
    metrics = progress.joined(parts).metrics
    assert (metrics["mine_1"], metrics["mine_3"]) == (1, 3) and "policy_loss" in metrics


@pytest.mark.parametrize("make", [ppo, dqn])
@pytest.mark.parametrize("method", ["restore", "set_weights", "stop"])
def test_a_hook_in_the_middle_of_an_iteration_cannot_take_its_state_away(make, method, tmp_path):
    """The iteration goes on from what it began with: what a hook put in its place would be lost without a word."""
    said = []

    class Meddles(DefaultCallbacks):
        def on_algorithm_init(self, *, algorithm):
            self.algorithm = algorithm

        def on_episode_end(self, *, episode, **kwargs):
            arguments = {"restore": [tmp_path], "set_weights": [{}], "stop": []}[method]
            with pytest.raises(RuntimeError, match=r"an iteration is under way.*on_train_result") as caught:
                getattr(self.algorithm, method)(*arguments)
            said.append(str(caught.value))

        def on_train_result(self, *, algorithm, result):
            algorithm.set_weights(algorithm.get_weights())

    with make(Meddles).build() as algorithm:
        first = algorithm.train()["timesteps_total"]
        assert algorithm.train()["timesteps_total"] > first and said

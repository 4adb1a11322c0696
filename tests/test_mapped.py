"""Trials as one program: close to the same trials one by one, and what is no one program is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from athlete import tune
from athlete.algorithms.ppo import PPOConfig

SMALL = {"num_envs_per_worker": 2, "train_batch_size": 32, "minibatch_size": 16, "num_epochs": 2}
SMALL |= {"model": {"fcnet_hiddens": [8]}, "env": "CartPole-v1", "seed": 3}


def trained(tmp_path, mapped, config=None, **settings):
    settings = {"stop": {"training_iteration": 2}, "name": f"mapped-{mapped}", "verbose": 0, **settings}
    return tune.run("PPO", config={**SMALL, **(config or {})}, local_dir=tmp_path, mapped=mapped, **settings)


def states(analysis):
    from athlete import Algorithm

    found = []
    for trial in analysis.trials:
        with Algorithm.from_checkpoint(trial.checkpoint) as algorithm:
            found.append(jax.device_get(algorithm.run))
    return found


def test_each_trial_is_close_to_one_of_its_own(tmp_path):
    """Two iterations are too few for rounding to grow: seeds and settings are each member's own."""
    asked = {"config": {"lr": tune.grid_search([1e-3, 1e-2])}, "num_seeds": 2, "checkpoint_at_end": True}
    alone, mapped = (trained(tmp_path, each, **asked) for each in (False, True))
    assert len(mapped.trials) == 4
    for one, other in zip(alone.trials, mapped.trials, strict=True):
        assert (one.config["lr"], one.config["seed"]) == (other.config["lr"], other.config["seed"])
        for key in ("timesteps_total", "training_iteration", "episodes_total"):
            assert one.last_result[key] == other.last_result[key]
        told = [each.last_result["info"]["learner"]["default_policy"]["learner_stats"] for each in (one, other)]
        assert told[0]["total_loss"] == pytest.approx(told[1]["total_loss"], rel=1e-2)
    first, *_, last = states(mapped)
    for one, other in zip(states(alone), states(mapped), strict=True):
        for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=jax.tree_util.keystr(path))
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first.state, last.state)), strict=True))


def test_a_trial_that_has_ended_leaves_the_others_alone(tmp_path):
    def first_stops(trial_id, result):
        return result["training_iteration"] >= (1 if trial_id.endswith("0") else 3)

    analysis = trained(tmp_path, True, num_seeds=2, stop=first_stops)
    assert [trial.last_result["training_iteration"] for trial in analysis.trials] == [1, 3]
    assert [trial.last_result["timesteps_total"] for trial in analysis.trials] == [32, 96]


def test_what_was_mapped_goes_on_mapped(tmp_path):
    trained(tmp_path, True, num_seeds=2, checkpoint_at_end=True, stop={"training_iteration": 1})
    path = tune.ExperimentAnalysis(tmp_path / "mapped-True").trials[0].checkpoint
    more = trained(tmp_path, True, num_seeds=2, name="more", restore=path)
    assert [trial.last_result["timesteps_total"] for trial in more.trials] == [64, 64]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"config": {"minibatch_size": tune.grid_search([16, 8])}}, r"minibatch_size=16 and 8 shape the program, so"),
        ({"config": {"backend": "gymnasium"}}, r"its environment is not compiled"),
        ({"config": {"min_time_s_per_iteration": 1}}, r"min_time_s_per_iteration ends the iterations"),
        ({"scheduler": "asha", "metric": "episode_reward_mean", "mode": "max"}, r"ASHAScheduler|AsyncHyperBand"),
        ({"max_concurrent_trials": 2}, r"max_concurrent_trials runs each by itself; leave it out"),
        ({"max_failures": 1}, r"a failed trial cannot begin anew beside the others; leave max_failures out"),
    ],
)
def test_what_is_no_one_program_is_refused_before_anything_starts(settings, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        trained(tmp_path, True, **settings)
    assert not (tmp_path / "mapped-True" / "experiment_state.json").exists()


def test_functions_are_not_mapped(tmp_path):
    with pytest.raises(ValueError, match="algorithms of Athlete can be mapped"):
        tune.run(lambda config: None, local_dir=tmp_path, mapped=True)


def test_who_is_mapped_is_told_so_when_its_state_is_to_be_replaced():
    from athlete.population import join_algorithms

    made = [PPOConfig.from_dict({**SMALL, "seed": seed}).reporting(logdir=False).build() for seed in (0, 1)]
    join_algorithms(made)
    with pytest.raises(RuntimeError, match="mapped with others goes on from its own state alone"):
        made[0].set_weights(made[1].get_weights())
    for each in made:
        each.stop()

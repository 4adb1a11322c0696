"""Trainings on several devices: the same as on one but for rounding, with rows and replay in shares."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from on_devices import SETTINGS, on_devices

from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.loops.devices import parts_of
from athlete.ops.devices import ROWS, devices, everywhere, spread

OFTEN = ("PPO", "DQN")  # the others are for `thorough`
CASES = [pytest.param(case, marks=[] if case in OFTEN else [pytest.mark.thorough]) for case in SETTINGS]


def assert_same_training(found, hosted):
    assert max(found[part] for part in ("state", "rows", "store")) < 1e-5
    assert "state ()" in found["placed"], "all of it is on each device"
    placed = [part for part in found["placed"] if not (hosted and "rows" in part.split()[0])]
    assert set(placed) <= {"state ()", f"rows ('{ROWS}',)", f"memory (None, '{ROWS}')"}


@pytest.mark.parametrize("case", CASES)
def test_eight_devices_learn_what_one_does(case):
    assert_same_training(on_devices("differences", "compiled", case)[case], hosted=False)


@pytest.mark.parametrize("case", CASES)
def test_so_they_do_where_environments_are_outside_jax(case):
    assert_same_training(on_devices("differences", "hosted", case)[case], hosted=True)


def test_a_minibatch_costs_one_exchange():
    """All gradients of a minibatch are added up at once, and its loop says nothing else to other devices."""
    found = on_devices("collectives", "PPO")
    loops = {computation for computation, _, names in found if "transpose(jvp" in names}
    assert len(loops) == 1
    assert [operation for computation, operation, _ in found if computation in loops] == ["all-reduce"]


@pytest.mark.parametrize("hosted", ["compiled", pytest.param("hosted", marks=pytest.mark.thorough)])
def test_a_checkpoint_goes_to_another_number_of_devices(hosted, tmp_path):
    found = on_devices("moved", tmp_path, hosted)
    assert len(found) == (14 if hosted == "compiled" else 12)
    assert all(found.values()), found


@pytest.mark.thorough
def test_two_processes_train_as_one_device_does(tmp_path):
    """Each with four of eight devices; the first one writes checkpoints and results."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    with ThreadPoolExecutor(2) as both:
        asked = [both.submit(on_devices, "one_of_two", tmp_path, address, each, devices=4) for each in range(2)]
        first, second = (each.result() for each in asked)
    assert first == second, "both are told the same"
    assert all(found["devices"] == 8 and found["went on"] for found in first.values())
    assert max(on_devices("one_alone", tmp_path, devices=1).values()) < 1e-5
    folders = {path.name for path in tmp_path.iterdir()}
    assert folders == {"PPO", "DQN", "results-PPO-0", "results-DQN-0"}


def test_on_one_device_nothing_is_said_of_several():
    leaf = np.zeros((2, 3))
    assert devices() == 1
    assert spread(leaf, 1) is leaf and everywhere(leaf) is leaf


def config(**settings):
    return PPOConfig().environment("CartPole-v1").training(**settings)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (config().learners(num_learners=3), "PPO: num_learners=3: 3 devices cannot share 8 environments out evenly"),
        (
            config(minibatch_size=100).learners(num_learners=8),
            "PPO: num_learners=8: 8 devices cannot share minibatch_size=100 timesteps out evenly; make it a multiple",
        ),
        (
            config(minibatch_size=80, model={"use_lstm": True}).learners(num_learners=8),
            "8 devices cannot share minibatch_size=80 timesteps, 5 sequences of 16, out evenly",
        ),
        (
            DQNConfig()
            .environment("CartPole-v1")
            .rollouts(num_envs_per_worker=4)
            .training(train_batch_size=30)
            .resources(num_gpus=4),
            "DQN: num_gpus=4: 4 devices cannot share train_batch_size=30 timesteps out evenly; make it a multiple",
        ),
        (
            config().learners(num_learners=4).resources(num_gpus=2),
            "PPO: num_learners=4 and num_gpus=2 both say how many devices learn; leave one out",
        ),
        (
            config().learners(coordinator_address="localhost:1", num_processes=2),
            r"learners\(coordinator_address=...\) is one of several processes, and process_id has to say more",
        ),
        (
            config().learners(num_learners=8),
            r"learners\(num_learners=8\): JAX sees 1 of kind 'cpu' here; make it small",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_said_before_anything_starts(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        given.build()


@pytest.mark.parametrize("value", [-1, 1.5, "all"])
def test_how_many_devices_is_a_count_or_auto(value):
    with pytest.raises(
        ValueError, match=r"learners\(num_learners=.*\): expected a whole number of at least 0, or 'auto'"
    ):
        PPOConfig().learners(num_learners=value)


def test_auto_takes_the_devices_that_there_are():
    with config(train_batch_size=64).learners(num_learners="auto").debugging(seed=0).build() as algo:
        assert algo.train()["timesteps_total"] == 64


def test_a_checkpoint_of_more_devices_than_there_are_takes_those_that_there_are(tmp_path, monkeypatch):
    import athlete.building
    from athlete import Algorithm

    monkeypatch.setattr(athlete.building, "devices_of", lambda config: 1)
    monkeypatch.setattr("athlete.algorithm.devices_of", lambda config: 1)
    with config(train_batch_size=64, minibatch_size=32).learners(num_learners=8).debugging(seed=0).build() as algo:
        path = algo.save(tmp_path)
    with Algorithm.from_checkpoint(path) as restored:
        assert (restored.config.num_learners, restored.config.num_gpus) == ("auto", 0)


def test_rllibs_names_for_it():
    assert PPOConfig().learners(num_learner_workers=2).num_learners == 2


def test_recorded_steps_that_do_not_divide_are_on_every_device():
    from athlete.core import Run, Transition
    from athlete.memory.ring import ring_init

    zero = np.zeros((), np.float32)
    example = Transition(zero, zero > 1, zero, zero, zero, zero > 1, zero > 1, (), {})
    run = Run((), ring_init(example, 4, 6), (), (), (), ())
    assert tuple(parts_of(run, 3).store.packed.table) == (None, ROWS)
    assert tuple(parts_of(run, 4).store.packed.table) == ()

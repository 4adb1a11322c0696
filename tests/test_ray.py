"""Workers in a Ray cluster: the trainings they make are those of workers in processes, and of none."""

import gc
import os
import signal
import sys
import threading

import jax
import pytest
import yaml

ray = pytest.importorskip("ray")

from test_asynchronous import waiting_for_none  # noqa: E402
from test_fault_tolerance import wait_for  # noqa: E402
from test_workers import CASES, assert_equal_to_the_last_bit, assert_same_training, config, frail  # noqa: E402
from working import Deadly, Deaf, Unmakeable  # noqa: E402

from athlete.env.errors import EnvError  # noqa: E402
from athlete.ray_workers import RayWorkers  # noqa: E402
from athlete.worker_processes import ProcessWorkers  # noqa: E402

CPUS = 4  # as Ray counts them


@pytest.fixture(scope="module", autouse=True)
def connected():
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  else they starve where a machine does much besides
    ray.init("local", num_cpus=CPUS, object_store_memory=100_000_000, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


def in_ray(case, workers):
    return CASES[case](workers).resources(ray=True)


@pytest.mark.parametrize("case", list(CASES))
def test_workers_in_ray_make_the_training_of_the_hosted_loop_to_the_last_bit(case):
    assert_same_training(case, 2, in_ray)


def test_one_policy_behind_is_the_same_training_in_ray():
    runs = []
    for made in (config("APPO", 1), config("APPO", 2).resources(ray=True)):
        with made.rollouts(sample_async="lagged").build() as algorithm:
            results = [algorithm.train() for _ in range(3)]
            runs.append(jax.device_get(algorithm.run))
    assert_equal_to_the_last_bit(*runs)
    assert results[2]["policy_lag"] == results[2]["policy_lag_max"] == 1.0


@pytest.mark.parametrize("kind", ["IMPALA", "DQN"])
def test_what_comes_from_ray_is_learned_from_and_its_age_is_told(kind):
    with waiting_for_none(kind).resources(ray=True).build() as algorithm:
        algorithm.train()  # workers warm up
        results = [algorithm.train() for _ in range(4)]
        assert max(algorithm._training._open) <= 2
    for result in results:
        assert 0.0 <= result["policy_lag"] <= result["policy_lag_max"]
        assert result["num_env_steps_trained_this_iter"] > 0 and result["num_healthy_workers"] == 2
    assert results[-1]["episodes_total"] > 0 and 1.0 <= results[-1]["episode_reward_mean"] <= 15.0


def test_an_interrupt_loses_nothing():
    runs = []
    for interrupted in (False, True):
        with in_ray("PPO", 2).environment(env_config={"slowness": 0.02}).build() as algorithm:
            if interrupted:
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
                with pytest.raises(KeyboardInterrupt):
                    for _ in range(50):
                        algorithm.train()
                assert int(algorithm.run.iteration) < 3
            while int(algorithm.run.iteration) < 3:
                algorithm.train()
            runs.append(jax.device_get(algorithm.run))
    assert_equal_to_the_last_bit(*runs)


def test_auto_is_a_cluster_where_there_is_one():
    with config("PPO", 2).resources(ray="auto").build() as algorithm:
        assert isinstance(algorithm._training.workers, RayWorkers)


def test_auto_is_processes_where_there_is_none(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with config("PPO", 2).resources(ray="auto").build() as algorithm:
        assert isinstance(algorithm._training.workers, ProcessWorkers)


def test_settings_in_a_file_place_workers_as_those_in_python():
    text = "{ray: true, num_cpus_per_worker: 0.5, custom_resources_per_worker: {}, placement_strategy: SPREAD}"
    made = config("PPO", 2).update_from_dict(yaml.safe_load(text))
    assert (
        made.to_dict()
        == config("PPO", 2)
        .resources(ray=True, num_cpus_per_worker=0.5, custom_resources_per_worker={}, placement_strategy="SPREAD")
        .to_dict()
    )
    with made.build() as algorithm:
        assert algorithm.train()["num_healthy_workers"] == 2


def test_strict_placement_is_a_group_that_is_given_back():
    with in_ray("PPO", 2).resources(placement_strategy="STRICT_PACK").build() as algorithm:
        assert algorithm.train()["num_healthy_workers"] == 2
    assert ray.cluster_resources()["CPU"] == CPUS
    with pytest.raises(ValueError, match="STRICT_SPREAD, and the cluster, of 4 CPUs, has room for 1"):
        in_ray("PPO", 2).resources(placement_strategy="STRICT_SPREAD").build()


# What fails ---------------------------------------------------------------------------------------------------------


def test_a_failing_environment_is_an_error_and_training_goes_on(tmp_path):
    with frail(tmp_path, "raises").resources(ray=True).build() as algorithm:
        with pytest.raises(EnvError, match=r"(?s)no such place.*row 3, seeded with \d+, in step 7 of its episode"):
            algorithm.train()
        assert algorithm.train()["timesteps_total"] == 64, "with new episodes"


@pytest.mark.parametrize("trouble", ["dies", "sleeps"])
def test_a_worker_that_dies_or_hangs_begins_anew_and_is_counted(trouble, tmp_path):
    made = frail(tmp_path, trouble, Deaf).rollouts(env_timeout=1.0).resources(ray=True)
    with made.build() as algorithm:
        result = algorithm.train()
    assert result["num_remote_worker_restarts"] == 1 and result["num_healthy_workers"] == 2
    assert result["num_faulty_episodes"] == 2


def test_that_can_be_refused_and_limited(tmp_path):
    with (
        frail(tmp_path, "dies").resources(ray=True).fault_tolerance(recreate_failed_workers=False).build() as algorithm
    ):
        with pytest.raises(EnvError, match=r"worker 1 was lost.*the rows 2 to 3; .*begins it anew"):
            algorithm.train()
        assert algorithm.train()["timesteps_total"] == 64, "with new episodes"
    made = frail(tmp_path, "dies", at=2, always=True).fault_tolerance(max_num_worker_restarts=1).resources(ray=True)
    with made.build() as algorithm, pytest.raises(EnvError, match="max_num_worker_restarts=1"):
        algorithm.train()


def test_who_stops_or_forgets_to_leaves_no_actor():
    with in_ray("PPO", 2).build():
        pass
    algorithm = in_ray("PPO", 2).build()
    del algorithm
    gc.collect()
    wait_for(lambda: ray.available_resources().get("CPU") == CPUS)


# What is refused ----------------------------------------------------------------------------------------------------


def test_more_workers_than_the_cluster_has_cpus_are_refused():
    with pytest.raises(
        ValueError, match=r"ray=True\), 5 workers: 1 CPU each, and the cluster, of 4 CPUs, has room for 4"
    ):
        config("PPO", 5, rows=5).resources(ray=True).build()
    with pytest.raises(ValueError, match="1 CPU, 1 unicorn each"):
        in_ray("PPO", 2).resources(custom_resources_per_worker={"unicorn": 1}).build()
    with config("PPO", 5, rows=5).resources(ray=True, num_cpus_per_worker=0.5).build() as algorithm:
        assert algorithm.train()["num_healthy_workers"] == 5


def test_evaluation_has_workers_in_the_cluster_too_and_they_need_room():
    made = in_ray("PPO", 2).evaluation(evaluation_num_workers=2, evaluation_duration=5)
    with made.build() as algorithm, config("PPO").evaluation(evaluation_duration=5).build() as here:
        assert algorithm.evaluate()["evaluation"]["hist_stats"] == here.evaluate()["evaluation"]["hist_stats"]
    made = in_ray("PPO", 2).evaluation(evaluation_num_workers=3, evaluation_duration=5)
    with (
        made.build() as algorithm,
        pytest.raises(ValueError, match="of 4 CPUs, 2 of them taken by this program, has room for 2"),
    ):
        algorithm.evaluate()


def test_an_environment_that_workers_cannot_import_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("from working import Pole\nclass Here(Pole): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    from only_here import Here

    made = in_ray("PPO", 2).environment(Here)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    with pytest.raises(EnvError, match=r"(?s)worker \d cannot be made in the cluster: .*No module named 'only_here'"):
        made.build()


@pytest.mark.parametrize(
    ("env", "message"),
    [(Unmakeable, "(?s)worker 1 cannot be made.*no room in worker 2"), (Deadly, "worker 1 cannot be")],
)
def test_an_environment_that_cannot_be_made_is_an_error_at_build(env, message):
    with pytest.raises(EnvError, match=message):
        config("PPO", 2, env).resources(ray=True).build()
    wait_for(lambda: ray.available_resources().get("CPU") == CPUS)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("127.0.0.1:9", ConnectionError, r"ray='127.0.0.1:9'\): nothing answers at 127.0.0.1:9 \(.*`ray start --head`"),
        ("ray://127.0.0.1:9", ConnectionError, "nothing answers at ray://127.0.0.1:9"),
        ("my-cluster", ValueError, "'my-cluster' is no address; 'host:6379' of a head"),
    ],
)
def test_an_address_where_no_cluster_is_is_refused_at_once(address, error, message, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(error, match=message):
        config("PPO", 2).resources(ray=address).build()


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ImportError, match=r"resources\(ray=True\): Ray is not installed: pip install ray, or .* extra \[ray\]"
    ):
        config("PPO", 2).resources(ray=True).build()

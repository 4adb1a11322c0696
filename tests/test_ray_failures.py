"""What a training in a Ray cluster does when an actor, a node or the head is lost, or a node joins: real kills."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  else workers starve where a machine does much besides

from ray.cluster_utils import Cluster  # noqa: E402
from test_asynchronous import waiting_for_none  # noqa: E402
from test_workers import config  # noqa: E402

from athlete import Algorithm  # noqa: E402
from athlete.record.results import read_results  # noqa: E402

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


@pytest.fixture
def cluster():
    """Two raylets on this machine, with room for a worker each."""
    os.environ.pop("RAY_ADDRESS", None)
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    ray.init(made.address, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def lose(node):
    """As where a machine is switched off: its raylet is killed, and with that everything of it ends."""
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)


def train_until(algorithm, condition):
    """Train until a result is so; every iteration learns."""
    while True:
        result = algorithm.train()
        assert result["num_env_steps_trained_this_iter"] > 0
        if condition(result):
            return result


def test_actors_and_nodes_come_and_go_and_training_as_they_come_goes_on(cluster):
    node = cluster.add_node(**NODE)
    with waiting_for_none().resources(ray=True).build() as algorithm:
        algorithm.train()
        ray.kill(algorithm._training.workers._actors._handles[0])
        train_until(algorithm, lambda result: result["num_remote_worker_restarts"] == 1)
        train_until(algorithm, lambda result: result["num_healthy_workers"] == 2)
        lose(node)
        result = train_until(algorithm, lambda result: result["num_remote_worker_restarts"] == 2)
        assert result["num_healthy_workers"] == 1, "there is no room for the other one"
        for _ in range(5):
            assert algorithm.train()["num_healthy_workers"] == 1
        cluster.add_node(**NODE)
        result = train_until(algorithm, lambda result: result["num_healthy_workers"] == 2)
        assert result["num_remote_worker_restarts"] == 2 and result["num_faulty_episodes"] == 4


def test_in_step_a_training_goes_on_when_a_node_has_taken_the_place_of_the_lost_one(cluster):
    node = cluster.add_node(**NODE)
    with config("PPO", 2).resources(ray=True).build() as algorithm:
        algorithm.train()
        lose(node)
        cluster.add_node(**NODE)
        result = train_until(algorithm, lambda result: result["num_remote_worker_restarts"] == 1)
        assert result["num_healthy_workers"] == 2
        assert algorithm.train()["num_remote_worker_restarts"] == 1


HEADLESS = textwrap.dedent("""
    import os, sys
    os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"] = "2"
    sys.path.insert(0, sys.argv[1])
    import athlete.algorithm
    import ray
    from test_asynchronous import waiting_for_none
    athlete.algorithm.CHECKPOINT_SECONDS = 0.0
    ray.init("local", num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, logging_level="ERROR")
    with waiting_for_none().resources(ray=True).reporting(logdir=sys.argv[2]).build() as algorithm:
        while algorithm.best_checkpoint is None or algorithm.iteration < 3:
            algorithm.train()
        ray._private.worker._global_node.kill_gcs_server()
        while True:
            algorithm.train()
""")


def test_where_the_head_is_lost_a_run_goes_on_from_the_checkpoint_that_it_saved_by_itself(tmp_path):
    arguments = [sys.executable, "-c", HEADLESS, str(Path(__file__).parent), str(tmp_path)]
    assert subprocess.run(arguments, timeout=600).returncode != 0, "Ray ends the process, whatever Python would do"
    kept = sorted(tmp_path.glob("checkpoint_*"))
    assert len(kept) == 1, "the newest"
    with Algorithm.from_checkpoint(kept[0], ray=False, logdir=str(tmp_path)) as algorithm:
        before = algorithm.iteration
        assert before > 0 and algorithm.train()["training_iteration"] == before + 1
    recorded = [row["training_iteration"] for row in read_results(tmp_path)]
    assert recorded == list(range(1, before + 2)), "one record, of what was lost only once"


def test_the_example_runs_on_two_raylets_as_on_a_cluster(cluster, tmp_path):
    cluster.add_node(**NODE)
    program = Path(__file__).parent.parent / "examples" / "cluster.py"
    settings = {"RAY_ADDRESS": cluster.address, "ATHLETE_RESULTS_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(program), "--timesteps", "2000"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "in a Ray cluster, as they come" in done.stderr
    assert "2 workers, 0 begun anew" in done.stdout

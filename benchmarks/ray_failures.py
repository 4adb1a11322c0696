"""What the loss of an actor and of a node, and a node that joins, cost a training in a Ray cluster.

    python benchmarks/ray_failures.py --json benchmarks/results/ray-failures.json 2>/dev/null  # Ray tells of raylets

IMPALA learns as trajectories come, one environment a worker, whose step takes `--delay` milliseconds, on three raylets
of this machine. After each event: the longest time between two updates, and the steps a second from the 15th to the
20th second, beside those before the first event. The events: an actor is killed (`ray.kill`), a raylet is (SIGKILL; the
others have room for its workers), another one is (there is not room for all), and a node joins. Of several rounds, each
in a cluster of its own, the longest gap and the median of the speeds.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ray
from manifest import add_speed_options, require_idle, write_manifest
from ray.cluster_utils import Cluster
from workers import Slow

from athlete.algorithms.impala import IMPALAConfig

TAKEN = 20.0  # seconds in which the speed is to be back
LAST = 5.0  # of which these are measured
Event = tuple[str, Callable[[], Any]]  # what it is called, and what makes it happen


class Seen(NamedTuple):
    """What was seen in the `TAKEN` seconds after an event."""

    gap: float  # the longest time between two updates, in seconds
    speed: float  # steps a second in the last seconds
    result: dict[str, Any]


def watch(algorithm: Any, event: Callable[[], Any] | None, seconds: float = TAKEN) -> Seen:
    """Train for so many seconds after an event, which happens while workers collect."""
    start = last = time.perf_counter()
    gap, steps, result = 0.0, 0, {}
    if event is not None:
        event()
    while last - start < seconds:
        result = algorithm.train()
        now = time.perf_counter()
        gap, last = max(gap, now - last), now
        steps += result["timesteps_this_iter"] if now - start > seconds - LAST else 0
    return Seen(gap, steps / LAST, result)


def lose(node: Any) -> None:
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)


def join(address: str, each: dict[str, int]) -> subprocess.Popen:
    """A node that is on its way, as `ray start` begins it on another machine."""
    command = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--address={address}"]
    sizes = [f"--num-cpus={each['num_cpus']}", f"--object-store-memory={each['object_store_memory']}"]
    return subprocess.Popen([*command, *sizes], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def configured(arguments: argparse.Namespace) -> IMPALAConfig:
    config = IMPALAConfig().environment(Slow, env_config={"delay": arguments.delay / 1000.0})
    config.environment(disable_env_checking=True).debugging(seed=0, log_level="ERROR").reporting(logdir=False)
    config.rollouts(num_rollout_workers=arguments.workers, num_envs_per_worker=1, rollout_fragment_length=32)
    config.training(train_batch_size=32 * max(1, arguments.workers // 2))
    return config.resources(ray=True, placement_strategy="SPREAD")


def events_of(algorithm: Any, nodes: list[Any], another: Callable[[], subprocess.Popen]) -> Iterator[Event]:
    """What happens, one after another: to a worker, to two nodes; `another` begins a node, which goes at the end."""
    actor = algorithm._training.workers._actors._handles[0]
    first, second = nodes
    joined: list[subprocess.Popen] = []
    try:
        yield "ray.kill of a worker", lambda: ray.kill(actor)
        yield "SIGKILL of a raylet", lambda: lose(first)
        yield "SIGKILL of another", lambda: lose(second)
        yield "a node joins", lambda: joined.append(another())
    finally:
        for node in joined:
            node.terminate()
            node.wait()


def observe(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One round: what each event cost, in a cluster of its own."""
    each = {"num_cpus": -(-arguments.workers // 2), "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**each, "include_dashboard": False})
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    nodes = [cluster.add_node(**each) for _ in range(2)]
    found: dict[str, dict[str, float]] = {}
    try:
        with configured(arguments).build() as algorithm:
            watch(algorithm, None, 5.0)  # to get warm
            before = watch(algorithm, None)
            print(f"before: {before.speed:.0f} steps a second, longest gap {before.gap:.2f} s", flush=True)
            for name, event in events_of(algorithm, nodes, lambda: join(cluster.address, each)):
                seen = watch(algorithm, event)
                found[name] = {
                    "gap_s": seen.gap,
                    "speed": seen.speed / before.speed,
                    "num_healthy_workers": seen.result["num_healthy_workers"],
                    "num_remote_worker_restarts": seen.result["num_remote_worker_restarts"],
                }
                print(f"{name}: {found[name]}", flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=5.0, help="milliseconds of a step")
    parser.add_argument("--workers", type=int, default=4)
    add_speed_options(parser, rounds=3)
    arguments = parser.parse_args()
    require_idle(arguments)
    os.environ.pop("RAY_ADDRESS", None)
    rounds = [observe(arguments) for _ in range(arguments.rounds)]
    figures = {}
    for name in rounds[0]:
        gap, speed = max(found[name]["gap_s"] for found in rounds), statistics.median(f[name]["speed"] for f in rounds)
        figures[name] = {"gap_s": gap, "speed": speed}
        print(f"{name}: longest gap {gap:.2f} s; after {TAKEN:.0f} s {speed:.0%} of the speed before", flush=True)
    if arguments.json:
        write_manifest(arguments.json, figures, {"athlete": sys.executable}, workers=arguments.workers, rounds=rounds)


if __name__ == "__main__":
    main()

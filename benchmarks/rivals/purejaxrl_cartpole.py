"""PureJaxRL's own PPO on gymnax's CartPole-v1: steady steps per second, whole trainings after one that compiles.

    benchmarks/setup_rivals.sh purejaxrl
    .rivals/purejaxrl/bin/python benchmarks/rivals/purejaxrl_cartpole.py --envs 4 --steps 128 --minibatch 128 --epochs 4

Its code is imported from its repository, `.rivals/purejaxrl/source`, as it is. Prints one JSON line: the median of the
repeats, and the mean return of the episodes that the last update saw.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".rivals" / "purejaxrl" / "source"))

import jax
from purejaxrl.ppo import make_train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--minibatch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--timesteps", type=int, default=20_480, help="of one repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    config = {
        "ENV_NAME": "CartPole-v1",
        "NUM_ENVS": arguments.envs,
        "NUM_STEPS": arguments.steps,
        "NUM_MINIBATCHES": arguments.envs * arguments.steps // arguments.minibatch,
        "UPDATE_EPOCHS": arguments.epochs,
        "TOTAL_TIMESTEPS": arguments.timesteps,
        "LR": 1e-3,
        "ANNEAL_LR": True,
        "GAMMA": 0.98,
        "GAE_LAMBDA": 0.8,
        "CLIP_EPS": 0.2,
        "ENT_COEF": 0.0,
        "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": "tanh",
    }
    train = jax.jit(make_train(config))
    jax.block_until_ready(train(jax.random.PRNGKey(0)))
    speeds, speeds_of_cpu = [], []
    for repeat in range(arguments.repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        out = jax.block_until_ready(train(jax.random.PRNGKey(repeat + 1)))
        steps = config["NUM_UPDATES"] * arguments.envs * arguments.steps
        speeds.append(steps / (time.perf_counter() - started))
        speeds_of_cpu.append(steps / (time.process_time() - cpu_started))
    figures = {
        "steps_per_second": statistics.median(speeds),
        "all_steps_per_second": speeds,
        "steps_per_cpu_second": statistics.median(speeds_of_cpu),
        "timesteps": steps,
        "last_return": float(out["metrics"]["returned_episode_returns"][-1].mean()),
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()

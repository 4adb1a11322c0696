"""The tuned examples learn: over several seeds, the middle reaches the threshold and the worst seed the floor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from athlete.algorithms.ppo import PPOConfig
from athlete.tuned_examples import judge, load, names, train

SEEDS = range(int(os.environ.get("ATHLETE_LEARNING_SEEDS", "3")))
PROCESSES = min(len(SEEDS), os.cpu_count() or 1)


# Those that take seconds a seed and together stand for every family of algorithms; `make learning-all` runs all.
QUICK = {
    "acrobot-ppo",
    "bit-flip-14-dqn-hindsight",
    "cartpole-a2c",
    "cartpole-ars",
    "cartpole-cmaes",
    "cartpole-es",
    "cartpole-pgpe",
    "cartpole-appo",
    "cartpole-dqn",
    "cartpole-impala",
    "cartpole-marwil",
    "cartpole-pg",
    "cartpole-pqn",
    "cartpole-ppo",
    "cartpole-qrdqn",
    "cartpole-trpo",
    "deep-sea-dqn-rnd",
    "frozen-lake-ppo",
    "item-bandit-lints",
    "linear-bandit-linucb",
    "memory-chain-ppo-gtrxl",
    "mountain-car-continuous-ppo",
    "pendulum-bc",
    "pendulum-ddpg",
    "pendulum-iql",
    "pendulum-rebrac",
    "pendulum-ppo",
    "pendulum-td3",
    "stateless-cartpole-a2c-lstm",
    "stateless-cartpole-ppo-lstm",
    "stateless-cartpole-r2d2",
    "tic-tac-toe-alphastar",
    "tic-tac-toe-ppo-past",
}
EXAMPLES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names()]


def make_data(path: Path) -> None:
    """Record what an example learns from, where that was not done yet."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from offline_data import made

    name, _, seed = path.parent.name.rpartition("-")
    made(name, int(seed), path.parent.parent)


@pytest.mark.learning
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_reaches_its_threshold(name: str, tmp_path: Path) -> None:
    example = load(name)
    if "input_" in example.config:
        make_data(Path(example.config["input_"]))
    outcomes = train(example, SEEDS, local_dir=tmp_path, verbose=0, max_concurrent_trials=PROCESSES)
    verdicts = judge(example, outcomes)
    print("\n".join(map(str, verdicts)))
    assert all(verdict.met for verdict in verdicts), "\n".join(map(str, verdicts))


@pytest.mark.learning
@pytest.mark.parametrize(("name", "chance"), [("repeat-after-me-ppo-gru", 15.0), ("memory-chain-ppo-gru", 0.4)])
def test_without_memory_what_needs_it_stays_near_chance(name: str, chance: float) -> None:
    example = load(name)
    config = {**example.config, "model": {}, "seed": 0, "evaluation_duration": 100}
    with PPOConfig.from_dict(config).build() as algo:
        while algo.train()["timesteps_total"] < 50_000:
            pass
        assert abs(algo.evaluate()["evaluation"]["episode_reward_mean"]) < chance

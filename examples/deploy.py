"""Deploy a policy: train, read it back alone, and let it play as a web page and in plain NumPy.

    python examples/deploy.py
    python examples/deploy.py --env Pendulum-v1 --algorithm SAC --timesteps 10000 --folder deployed

Writes `policy.html`, which any browser opens, and `policy.py` with its weights, which needs NumPy and nothing else,
and plays an episode with the latter. `docs/deployment.md` explains the formats, and how to serve a policy over HTTP.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import gymnasium

from athlete import Policy
from athlete.algorithms import get_config_class


def train(algorithm: str, env: str, timesteps: int, folder: Path) -> str:
    """A checkpoint of a policy that was trained for so many timesteps."""
    with get_config_class(algorithm)().environment(env).debugging(seed=0).build() as algo:
        result = algo.train()
        while result["timesteps_total"] < timesteps:
            result = algo.train()
        print(f"{result['timesteps_total']:,} timesteps: a mean return of {result['episode_reward_mean']:.1f}")
        return algo.save(folder)


def load(path: Path) -> Any:
    """The policy in a module that `Policy.export` has written; a program of yours would just import it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Policy()


def play(policy: Any, env_id: str) -> float:
    """The return of one episode. `policy` is Athlete's or an exported one: both act alike."""
    env = gymnasium.make(env_id)
    observation, _ = env.reset(seed=0)
    state, total, over = policy.get_initial_state(), 0.0, False
    while not over:
        action, state, _ = policy.compute_single_action(observation, state)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    env.close()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", default="PPO")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--timesteps", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=Path("deployed"))
    arguments = parser.parse_args()
    checkpoint = train(arguments.algorithm, arguments.env, arguments.timesteps, arguments.folder)
    policy = Policy.from_checkpoint(checkpoint)
    module, _ = policy.export(arguments.folder / "policy.py")
    (page,) = policy.export(arguments.folder / "policy.html")
    print(f"by Athlete {play(policy, arguments.env):.1f}, by NumPy alone {play(load(Path(module)), arguments.env):.1f}")
    print(f"open {page} in a browser")


if __name__ == "__main__":
    main()

"""PPO on several virtual devices of a CPU, and beside it on one: the same training but for rounding.

    python examples/devices.py
    python examples/devices.py --devices 4 --iterations 3

On a machine with several GPUs leave XLA_FLAGS alone: `learners(num_learners="auto")` takes them.
"""

from __future__ import annotations

import argparse
import os


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=2)
    arguments = parser.parse_args()
    # Before JAX starts: how many devices a CPU is.
    flag = f"--xla_force_host_platform_device_count={arguments.devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"

    import jax
    import numpy as np

    from athlete.algorithms.ppo import PPOConfig

    states = []
    for devices in (1, arguments.devices):
        config = PPOConfig().environment("CartPole-v1").rollouts(num_envs_per_worker=16).debugging(seed=0)
        config.training(train_batch_size=512, minibatch_size=128, num_epochs=2).reporting(logdir=False)
        with config.learners(num_learners=devices).build() as algo:
            for _ in range(arguments.iterations):
                result = algo.train()
            states.append(jax.device_get(algo.run.state))
            print(f"{devices} devices: {result['timesteps_total']} timesteps")
    largest = max(
        np.abs(one - other).max(initial=0.0) for one, other in zip(*map(jax.tree.leaves, states), strict=True)
    )
    print(f"largest difference of a number: {largest:.1e}")


if __name__ == "__main__":
    main()

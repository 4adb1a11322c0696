"""The floor under the time of a SAC update: its floating-point operations, and how many of them this machine can do.

    python benchmarks/flops.py [--cores 1]

Prints one JSON line: GFLOPS of float32 products of 256 x 256 matrices in JAX, the best of many, on so many cores.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

SIZE = 256
CHAIN = 50  # products in one call, each of the one before, so that the call itself costs nothing


def forward(batch: int, sizes: Sequence[int]) -> int:
    """Operations of the products of a dense network whose layers have `sizes`, inputs and outputs included."""
    return sum(2 * batch * inputs * outputs for inputs, outputs in pairwise(sizes))


def backward(batch: int, sizes: Sequence[int]) -> int:
    """Operations of the gradient by the weights: two products a layer, but the input of the network needs none."""
    return 2 * forward(batch, sizes) - forward(batch, sizes[:2])


def sac_update(batch: int, observation: int, action: int, hidden: Sequence[int]) -> int:
    """Operations of one update of SAC's twin critics and of its actor; elementwise work and Adam are left out.

    Targets: the actor and both target critics forward. Critics: both forward and backward. Actor: forward and backward
    through both critics, whose gradients are taken only by the inputs of their layers, in the end by the action.
    """
    actor, critic = [observation, *hidden, 2 * action], [observation + action, *hidden, 1]
    targets = forward(batch, actor) + 2 * forward(batch, critic)
    critics = 2 * (forward(batch, critic) + backward(batch, critic))
    through_critic = forward(batch, critic) + forward(batch, [action, *critic[1:]])
    return targets + critics + forward(batch, actor) + backward(batch, actor) + 2 * through_critic


def measure(repeats: int) -> dict[str, Any]:
    """GFLOPS of chained float32 products. The best, because a floor is what nothing gets below."""
    import jax
    import numpy as np

    random = np.random.default_rng(0)
    orthogonal = np.linalg.qr(random.normal(size=(SIZE, SIZE)))[0].astype(np.float32)  # numbers neither grow nor vanish

    def chain(x: jax.Array, matrix: jax.Array) -> jax.Array:
        for _ in range(CHAIN):
            x = x @ matrix
        return x

    multiply = jax.jit(chain)
    x, matrix = jax.device_put(orthogonal), jax.device_put(orthogonal)
    multiply(x, matrix).block_until_ready()
    speeds = []
    for _ in range(repeats):
        started = time.perf_counter()
        multiply(x, matrix).block_until_ready()
        speeds.append(CHAIN * 2 * SIZE**3 / (time.perf_counter() - started) / 1e9)
    return {"gflops": max(speeds), "repeats": speeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, help="use only so many (Linux); all by default")
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    if arguments.cores and hasattr(os, "sched_setaffinity"):  # before JAX counts them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    print(json.dumps(measure(arguments.repeats)), flush=True)


if __name__ == "__main__":
    main()

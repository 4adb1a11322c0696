"""How fast a policy acts alone: the time from the start of a process to its first action, and 256 observations at once.

    python benchmarks/policy_speed.py [CHECKPOINT]

Without a checkpoint one of CartPole's is made. The first process fills the cache of programs and is not counted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np

from athlete import Policy
from athlete.algorithms.ppo import PPOConfig
from athlete.spaces import zeros

FIRST_ACTION = """
import sys, time
from athlete import Policy
from athlete.spaces import zeros
policy = Policy.from_checkpoint(sys.argv[1])
policy.act_one(zeros(policy.observation_space))
print(time.time(), time.process_time())
"""


def first_action(checkpoint: str) -> tuple[float, float]:
    """Seconds of a clock and of a core until a new process has acted."""
    start = time.time()
    done = subprocess.run([sys.executable, "-c", FIRST_ACTION, checkpoint], capture_output=True, text=True, check=True)
    end, processor = map(float, done.stdout.split())
    return end - start, processor


def shortest(call: Callable[[], object], times: int) -> float:
    """The shortest of several times, in seconds."""
    call()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            checkpoint = sys.argv[1]
        else:
            with PPOConfig().environment("CartPole-v1").build() as algorithm:
                checkpoint = algorithm.save(folder)
        _, *runs = [first_action(checkpoint) for _ in range(6)]
        clock, processor = np.median(runs, axis=0)
        policy = Policy.from_checkpoint(checkpoint)
    print(f"from the start of a process to its first action: {clock:.2f} s, {processor:.2f} s of a core (median of 5)")
    one, many = (zeros(policy.observation_space, leading) for leading in ((), (256,)))
    state, states = policy.get_initial_state(), policy.get_initial_state(256)
    single = shortest(lambda: [policy.act_one(one, state) for _ in range(256)], 5)
    batched = shortest(lambda: jax.tree.map(np.asarray, policy.compute_actions(many, states)[:2]), 50)
    print(
        f"256 observations: {single * 1e3:.1f} ms one by one, {batched * 1e3:.2f} ms in one call: "
        f"{single / batched:.0f} times as fast"
    )


if __name__ == "__main__":
    main()

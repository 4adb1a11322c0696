"""Every published training, one after the other, for hours in the background; it can be stopped and started again.

    nohup python benchmarks/learning_all.py mujoco short &
    python benchmarks/learning_all.py short --until 18:30 --nice 10

Each is a run of `benchmarks/learning.py`, which passes over the seeds that a manifest has. What another process is at
is passed over too, so that two of these may work beside each other. Ctrl-C, `kill` and `--until` end it; what was begun
goes on from its last checkpoint the next time.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
LOCKS = HERE / ".runs"

MUJOCO = [
    *("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5"),
    *("Swimmer-v5", "Reacher-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5"),
]
GROUPS = {
    "mujoco": [f"mujoco-ppo {environment}" for environment in MUJOCO],
    # Seconds to a minute a seed, the cheapest first.
    "short": [
        *("cartpole-ppo", "cartpole-a2c", "cartpole-pg", "acrobot-a2c", "pendulum-ppo", "masked-grid-a2c"),
        *("mountain-car-continuous-ppo", "acrobot-ppo", "mirror-a2c", "frozen-lake-ppo", "cartpole-pqn"),
        *("cartpole-trpo", "masked-grid-ppo", "mirror-dqn", "masked-grid-dqn", "acrobot-trpo"),
        *("mountain-car-continuous-sac", "pendulum-ddpg", "pendulum-td3", "cartpole-sac", "mirror-ppo"),
        *("masked-grid-sac", "cartpole-qrdqn", "stateless-cartpole-a2c-lstm", "stateless-cartpole-ppo-gru"),
        *("PPO CartPole-v1 --timesteps 100000", "PPO Acrobot-v1 --timesteps 300000"),
        *("cartpole-simple-q", "cartpole-dqn", "repeat-after-me-ppo-gru", "memory-chain-ppo-gru"),
        *("mountain-car-continuous-td3", "PPO Pendulum-v1 --timesteps 400000", "stateless-cartpole-ppo-lstm"),
        *("acrobot-dqn", "pendulum-sac --timesteps 10000", "pendulum-crossq", "mountain-car-dqn"),
        *("PPO MemoryChain-v0 --timesteps 200000", "PPO RepeatAfterMe-v0 --timesteps 200000"),
        *("deep-sea-ppo-rnd", "deep-sea-ppo-rnd --without exploration_config", "deep-sea-dqn-counts"),
        *("deep-sea-dqn-curiosity", "deep-sea-dqn-rnd --without exploration_config", "cartpole-iqn", "pendulum-redq"),
        *("cartpole-es", "cartpole-ars", "cartpole-pgpe", "pendulum-es", "cartpole-cmaes"),
        *("linear-bandit-linucb", "linear-bandit-lints", "item-bandit-linucb", "item-bandit-lints"),
        *("contextual-bandit-linucb", "contextual-bandit-lints", "wheel-bandit-linucb", "wheel-bandit-lints"),
        *("parametric-recsys-linucb", "parametric-recsys-lints"),
        *("bit-flip-14-dqn-hindsight", "bit-flip-14-dqn-hindsight --without replay_buffer_config"),
        *("bit-flip-25-dqn-hindsight", "bit-flip-25-dqn-hindsight --without replay_buffer_config"),
    ],
    # A minute to ten a seed.
    "middle": [
        *("pendulum-tqc --timesteps 10000", "memory-chain-ppo-gtrxl", "repeat-after-me-ppo-gtrxl", "pendulum-droq"),
        *("stateless-cartpole-ppo-gtrxl", "deep-sea-dqn-rnd", "lunar-lander-dqn"),
        *("deep-sea-20-dqn-rnd --without exploration_config", "deep-sea-20-dqn-rnd", "cartpole-rainbow"),
        *("minatar-breakout-pqn", "stateless-cartpole-r2d2", "pendulum-sac", "pendulum-tqc", "acrobot-qrdqn"),
        *("cartpole-impala-workers", "cartpole-appo-workers", "cartpole-apex-dqn-workers", "pendulum-apex-ddpg"),
        *("cartpole-dreamerv3", "pendulum-dreamerv3", "repeat-after-me-dreamerv3", "stateless-cartpole-dreamerv3"),
        *(
            "pendulum-mpo",
            "cartpole-mpo",
            "pendulum-mbpo",
            "pendulum-tdmpc2",
            "interest-evolution-slateq",
            "long-term-satisfaction-slateq",
        ),
        *("goal-pendulum-sac-hindsight", "goal-pendulum-sac-hindsight --without replay_buffer_config"),
        *(
            "stateless-cartpole-r2d2-workers",
            "lunar-lander-continuous-sac",
            "stateless-cartpole-rnnsac",
            "minatar-breakout-dqn",
        ),
    ],
    # Up to hours a seed.
    "long": [
        *("minatar-breakout-ppo", "minatar-asterix-ppo", "minatar-freeway-ppo", "minatar-space-invaders-ppo"),
        *("pong-ppo", "half-cheetah-td3", "half-cheetah-sac"),
    ],
}


def run(command: list[str], until: float) -> bool:
    """Run a command to its end, or to a time: whether it came to its end. Ctrl-C and SIGTERM end the command too."""
    process = subprocess.Popen(command)
    try:
        process.wait(max(0.0, until - time.time()))
        return True
    except subprocess.TimeoutExpired:
        return False
    finally:
        process.terminate()
        process.wait()


def lock(words: str) -> int | None:
    """A lock on a training; None where another process has it. It falls with the process."""
    LOCKS.mkdir(exist_ok=True)
    file = os.open(LOCKS / f"{words.replace(' ', '_').replace('/', '-')}.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


@contextlib.contextmanager
def lock_of_one(words: str) -> Iterator[None]:
    """What stands within is done by one process at a time: the others wait."""
    while (file := lock(words)) is None:
        time.sleep(1.0)
    try:
        yield
    finally:
        os.close(file)


def end_of(clock: str | None) -> float:
    """The next time that the clock shows `HH:MM`, in seconds since the epoch; never, for None."""
    if clock is None:
        return float("inf")
    now = datetime.datetime.now()
    end = datetime.datetime.combine(now.date(), datetime.time.fromisoformat(clock))
    return (end if end > now else end + datetime.timedelta(days=1)).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", help=f"of {', '.join(GROUPS)}, or what learning.py is to be told, quoted")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--until", default=None, metavar="HH:MM", help="stop at this time")
    parser.add_argument("--nice", type=int, default=5)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.nice(arguments.nice)
    until = end_of(arguments.until)
    for words in [words for group in arguments.groups for words in GROUPS.get(group, [group])]:
        file = lock(words)
        if file is None:
            continue
        command = [sys.executable, str(HERE / "learning.py"), *words.split(), "--seeds", str(arguments.seeds)]
        if not run(command, until):
            break
        os.close(file)


if __name__ == "__main__":
    main()

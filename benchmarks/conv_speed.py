"""NatureCNN on this CPU, forward and both ways: Athlete's convolutions and PyTorch's, alternating.

    benchmarks/setup_rivals.sh sb3
    python benchmarks/conv_speed.py [--batches 32 256] [--cores 1 2] [--rounds 5] [--json FILE]

Images are float32, 84 by 84 with 4 channels, laid out as each library likes them. "Both ways" is a step of gradient
descent on the parameters. As in training, ours are the minibatches of one compiled program; PyTorch's are a loop.
On one core the figures are seconds of the processor, which other work on the machine does not lengthen; on more they
are seconds of the clock, and PyTorch, whose threads spin, loses more than we do on a busy machine: the load is noted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from manifest import add_speed_options, require_idle, rival_python, write_manifest

TO_REACH = 1.2  # our time in PyTorch's
STEPS = {32: 16, 256: 4}  # minibatches of a round


class Contestant(NamedTuple):
    name: str
    process: subprocess.Popen

    def ask(self, way: str) -> float:
        """Milliseconds a minibatch in one round of "forward" or "both"."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(way + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def start(name: str, command: list[str], batch: int, cores: int) -> Contestant:
    arguments = ["--batch", str(batch), "--steps", str(STEPS.get(batch, 4)), "--cores", str(cores)]
    pipe = subprocess.PIPE
    return Contestant(name, subprocess.Popen([*command, *arguments], stdin=pipe, stdout=pipe, text=True))


def compare(batch: int, cores: int, rounds: int) -> list[dict[str, Any]]:
    """Both contestants in turn, `rounds` times after one that does not count; a row for each way."""
    players = [
        start("ours", [sys.executable, __file__, "--serve"], batch, cores),
        start(
            "torch", [rival_python("sb3"), str(Path(__file__).parent / "rivals" / "torch_nature_cnn.py")], batch, cores
        ),
    ]
    rows = []
    for way in ("forward", "both"):
        times: dict[str, list[float]] = {player.name: [] for player in players}
        for i in range(rounds + 1):
            for player in players:
                taken = player.ask(way)
                if i:
                    times[player.name].append(taken)
        ratio = statistics.median(a / b for a, b in zip(times["ours"], times["torch"], strict=True))
        medians = {name: statistics.median(all_of) for name, all_of in times.items()}
        rows.append({"batch": batch, "cores": cores, "way": way, "ratio": ratio, "milliseconds": medians, "all": times})
        print(
            f"batch {batch}, {cores} core(s), {way}: ours {medians['ours']:.1f} ms, PyTorch {medians['torch']:.1f} ms, "
            f"ratio {ratio:.2f}" + (f" (to reach: {TO_REACH})" if way == "both" else ""),
            flush=True,
        )
    for player in players:
        assert player.process.stdin is not None
        player.process.stdin.close()
        player.process.wait()
    return rows


def serve(batch: int, steps: int, cores: int) -> None:
    """Answer each line with the milliseconds a minibatch took."""
    if hasattr(os, "sched_setaffinity"):  # before JAX counts them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import jax
    import jax.numpy as jnp
    import numpy as np

    from athlete.core import Array, Tree
    from athlete.models.catalog import NATURE
    from athlete.models.cnn import ConvNet
    from athlete.models.mlp import MLP
    from athlete.ops.random import wrap
    from athlete.spaces import Box

    model = ConvNet((84, 84, 4), NATURE, MLP((512,), "relu"))
    space, heads = Box(0, 1, (84, 84, 4)), {"q": (6, 1.0)}
    params = jax.jit(lambda key: model.init(wrap(key), space, heads))(np.zeros(2, np.uint32))
    images = jax.device_put(np.random.default_rng(0).random((steps, batch, 84 * 84 * 4), np.float32))

    def forward(params: Tree, images: Array) -> Array:
        return model.apply(params, (), images[None], jnp.zeros((1, batch), bool))[1]["q"]

    def descend(params: Tree, images: Array) -> tuple[Tree, Array]:
        loss, gradient = jax.value_and_grad(lambda params: jnp.mean(jnp.square(forward(params, images))))(params)
        return jax.tree.map(lambda old, slope: old - 1e-4 * slope, params, gradient), loss

    programs = {
        "forward": jax.jit(lambda params, images: jax.lax.map(lambda one: forward(params, one), images)),
        "both": jax.jit(lambda params, images: jax.lax.scan(descend, params, images)),
    }
    clock = time.process_time if cores == 1 else time.perf_counter
    for line in sys.stdin:
        started = clock()
        jax.block_until_ready(programs[line.strip()](params, images))
        print(1e3 * (clock() - started) / steps, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--cores", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    add_speed_options(parser)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.batch, arguments.steps, arguments.cores[0])
    require_idle(arguments)
    figures = [
        row for batch in arguments.batches for n in arguments.cores for row in compare(batch, n, arguments.rounds)
    ]
    if arguments.json:
        write_manifest(arguments.json, figures, {"athlete": sys.executable, "torch": rival_python("sb3")})


if __name__ == "__main__":
    main()

"""PyTorch's side of `benchmarks/conv_speed.py`: NatureCNN, milliseconds a minibatch for each line it reads."""

import argparse
import os
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--cores", type=int, required=True)
arguments = parser.parse_args()
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])

import torch  # noqa: E402  # it counts the cores
from torch import nn  # noqa: E402

torch.set_num_threads(arguments.cores)
network = nn.Sequential(
    *(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 6)),
)
optimizer = torch.optim.SGD(network.parameters(), 1e-4)
images = torch.rand(arguments.steps, arguments.batch, 4, 84, 84)
clock = time.process_time if arguments.cores == 1 else time.perf_counter


def forward() -> None:
    with torch.no_grad():
        for batch in images:
            network(batch)


def both() -> None:
    for batch in images:
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()


for line in sys.stdin:
    started = clock()
    {"forward": forward, "both": both}[line.strip()]()
    print(1e3 * (clock() - started) / arguments.steps, flush=True)

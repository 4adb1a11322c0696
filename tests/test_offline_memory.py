"""How much memory a process takes that learns from data larger than it may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from athlete.offline.columns import from_columns
from athlete.offline.files import write_data


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_the_memory_that_a_training_takes_hangs_on_its_capacity(tmp_path):
    """The most that a process ever took, beyond what one took whose data are few: 300,000 steps of 400 bytes."""
    random = np.random.default_rng(0)
    for number in range(3):
        columns = {"obs": random.normal(size=(100_000, 48)), "actions": random.uniform(-1, 1, (100_000, 2))}
        columns |= {"new_obs": columns["obs"], "rewards": np.zeros(100_000), "eps_id": np.arange(100_000) // 100}
        write_data(from_columns(columns, "x"), tmp_path / f"{number}.safetensors")
    program = (
        "import sys\n"
        "from athlete.algorithms.td3_bc import TD3BCConfig\n"
        "source, capacity = sys.argv[1], int(sys.argv[2])\n"
        "config = TD3BCConfig().offline_data(input_=source, input_config={'capacity': capacity})\n"
        "config.update_from_dict({'min_sample_timesteps_per_iteration': 20_000, 'seed': 0, 'logdir': False})\n"
        "with config.training(model={'fcnet_hiddens': [8]}).build() as algo:\n"
        "    for _ in range(20):\n"
        "        algo.train()\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))\n"
    )

    def most(capacity):
        command = [sys.executable, "-c", program, str(tmp_path), str(capacity)]
        return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    small, larger, whole = most(5_000), most(50_000), most(300_000)
    assert small < larger < whole
    assert whole - small > size, "all data are in memory, and more than once"
    assert larger - small < 0.75 * size, "a sixth of the data, three times: learned from, read ahead, and as it is read"

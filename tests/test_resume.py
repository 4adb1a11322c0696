"""A training that is killed and restored in another process ends as one that was left alone, to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ITERATIONS = 6

SETTINGS: dict[str, dict[str, Any]] = {}
SETTINGS["PPO"] = {
    "env": "CartPole-v1",
    "num_envs_per_worker": 3,
    "train_batch_size": 48,
    "minibatch_size": 16,
    "num_epochs": 2,
    "model": {"fcnet_hiddens": [8]},
    "observation_filter": "MeanStdFilter",
    "normalize_rewards": True,
    "lr_schedule": [[0, 1e-2], [400, 1e-3]],  # in the middle of which the process dies
    "clip_param": [[0, 0.3], [500, 0.1]],
    "kl_coeff": 0.2,
    "seed": 7,
}
# The memory goes round once before the process dies; priorities, epsilon and the exponent are on their way.
SETTINGS["DQN"] = {
    "env": "CartPole-v1",
    "rollout_fragment_length": 4,
    "train_batch_size": 16,
    "num_steps_sampled_before_learning_starts": 32,
    "min_sample_timesteps_per_iteration": 32,
    "n_step": 3,
    "noisy": True,
    "model": {"fcnet_hiddens": [8]},
    "replay_buffer_config": {"capacity": 100, "beta": [[0, 0.4], [400, 1.0]]},
    "exploration_config": {"epsilon_timesteps": 300},
    "seed": 7,
}

TRAIN = """
import json, sys
from athlete import Algorithm
from athlete.algorithms import get_config_class
task, folder, iterations, name, settings = *sys.argv[1:3], int(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5])
if task == "resume":
    algorithm = Algorithm.from_checkpoint(folder + "/saved/checkpoint_%06d" % iterations)
else:
    algorithm = get_config_class(name).from_dict(settings).build()
for _ in range(2 * iterations if task == "straight" else iterations):
    result = algorithm.train()
if task == "die":
    algorithm.save(folder + "/saved")
    algorithm.train()
    print("going on", flush=True)
    while True:
        algorithm.train()
algorithm.save(folder + "/" + task)
print(json.dumps({key: result[key] for key in ("episode_reward_mean", "episodes_total", "timesteps_total")}))
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start a training process; all of them keep their compiled programs in one place."""
    import json

    cache = tmp_path_factory.mktemp("cache")
    environment = {**os.environ, "ATHLETE_CACHE_DIR": str(cache)}

    def start_process(task: str, folder: Path, name: str) -> subprocess.Popen:
        settings = json.dumps(SETTINGS[name])
        arguments = [sys.executable, "-c", TRAIN, task, str(folder), str(ITERATIONS), name, settings]
        return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)

    return start_process


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return output


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is not there to be sent")
@pytest.mark.parametrize("name", SETTINGS)
def test_killed_and_restored_is_the_same_to_the_last_bit(start, tmp_path, name):
    straight = finish(start("straight", tmp_path, name))

    dying = start("die", tmp_path, name)
    assert dying.stdout.readline() == "going on\n"  # past the checkpoint, in the middle of an iteration
    dying.send_signal(signal.SIGKILL)
    assert dying.wait(60) == -signal.SIGKILL
    dying.stdout.close()

    resumed = finish(start("resume", tmp_path, name))
    assert resumed == straight, "counters and the window of episodes go on as well"
    folders = [
        tmp_path / task / f"checkpoint_{iteration:06d}"
        for task, iteration in [("straight", 2 * ITERATIONS), ("resume", 2 * ITERATIONS), ("saved", ITERATIONS)]
    ]
    for file in ("agent.safetensors", "rows.safetensors"):
        left_alone, restored, saved = ((folder / file).read_bytes() for folder in folders)
        assert restored == left_alone, file
        assert saved != left_alone, "the test would not see a training that stands still"

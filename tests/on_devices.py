"""What tests of several devices run in a process of its own, which has eight virtual ones.

python tests/on_devices.py FUNCTION [ARGUMENTS]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DEVICES = 8


def on_devices(function: str, *arguments: Any, devices: int = DEVICES) -> Any:
    """What `function` of this module gives, as JSON, in a process that sees so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [sys.executable, __file__, function, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


SMALL = {"fcnet_hiddens": [16]}
TANH = {"fcnet_hiddens": [16], "fcnet_activation": "tanh"}
MEMORY = {**SMALL, "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 4}
ON_POLICY = {"train_batch_size": 256, "minibatch_size": 64, "num_epochs": 3}
REPLAY = {
    "train_batch_size": 32,
    "num_steps_sampled_before_learning_starts": 64,
    "replay_buffer_config": {"capacity": 800},
}
SETTINGS: dict[str, tuple[str, dict]] = {
    "PPO": ("PPO", {**ON_POLICY, "model": SMALL}),
    "PPO with LSTM": ("PPO", {**ON_POLICY, "model": MEMORY}),
    "a team": ("PPO", {**ON_POLICY, "model": SMALL}),
    "A2C": ("A2C", {"train_batch_size": 128, "model": SMALL}),
    "DQN": ("DQN", {**REPLAY, "model": TANH, "hiddens": [], "training_intensity": 1.0}),
    "SAC": ("SAC", {**REPLAY, "policy_model_config": TANH, "q_model_config": TANH}),
}


def config_of(case: str, hosted: bool) -> Any:
    """A small training of 16 rows in short episodes."""
    import working

    from athlete.algorithms import get_config_class

    name, settings = SETTINGS[case]
    config = get_config_class(name).from_dict(settings).rollouts(num_envs_per_worker=16).debugging(seed=3)
    config.reporting(logdir=False)
    if "team" in case:
        return config.environment(working.Pair if hosted else "TwoStepGame-v0")
    if hosted:
        return config.environment(working.Swing if name == "SAC" else working.Pole)
    env = "Pendulum-v1" if name == "SAC" else "CartPole-v1"
    return config.environment(env, env_config={"max_episode_steps": 9})


def differences(hosted: str, *cases: str) -> dict[str, dict]:
    """Of trainings on eight devices and on one after an iteration that learns, by the parts of a run.

    Each leaf is relative to its largest number. Also how the arrays of eight devices lie.
    """
    import jax

    found = {}
    for case in cases or SETTINGS:
        runs, placed = [], set()
        for devices in (1, DEVICES):
            with config_of(case, hosted == "hosted").learners(num_learners=devices).build() as algo:
                learned = algo.train()["info"]["learner"]
                assert learned, "nothing was learned"
                placed = _placed(algo.run)
                runs.append(jax.device_get(algo.run))
        parts = ("state", "rows", "store")
        apart = {part: _difference(getattr(runs[0], part), getattr(runs[1], part)) for part in parts}
        found[case] = apart | {"placed": sorted(placed)}
    return found


def _placed(run: Any) -> set[str]:
    """Which axes of state, rows and replay are shared out: `rows ('rows',)`."""
    import jax

    from athlete.memory.ring import Ring

    rings = jax.tree.leaves(run.store, is_leaf=lambda part: isinstance(part, Ring))
    tables = [part.packed.table for part in rings if isinstance(part, Ring)]
    parts = {"state": jax.tree.leaves(run.state), "rows": jax.tree.leaves(run.rows), "memory": tables}
    return {
        f"{name} {tuple(leaf.sharding.spec)}"
        for name, leaves in parts.items()
        for leaf in leaves
        if isinstance(leaf, jax.Array) and hasattr(leaf.sharding, "spec")
    }


def _difference(one: Any, other: Any) -> float:
    import jax
    import numpy as np

    largest = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = (np.asarray(leaf, np.float64) for leaf in (a, b))
        scale = max(1.0, np.abs(np.nan_to_num(a)).max(initial=0.0))
        largest = max(largest, float(np.abs(a - b).max(initial=0.0)) / scale)
    return largest


def collectives(case: str) -> list[list[str]]:
    """What devices tell one another in the program of a compiled training: the computation, the operation, its names.

    Read line by line: the type of an operation on several arrays has spaces in it.
    """
    import re

    from athlete.loops import train

    with config_of(case, hosted=False).learners(num_learners=DEVICES).build() as algo:
        training = algo._training
        agent, env, horizon = training._held
        with training._devices.set():
            lowered = train._iterate.lower(
                agent, env, run=training.run, length=training.length, iterations=2, horizon=horizon
            )
        lines = lowered.compile().as_text().splitlines()
    found, computation = [], ""
    for line in lines:
        if begins := re.match(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            computation = begins[1]
        if called := re.search(
            r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(", line
        ):
            names = re.search(r'op_name="([^"]*)"', line)
            found.append([computation, called[1], names[1] if names else ""])
    return found


def learned_by_ddppo() -> dict[str, int]:
    """On how many devices DDPPO's state is by default, after how many timesteps."""
    import jax

    from athlete.algorithms import DDPPOConfig

    with DDPPOConfig().environment("CartPole-v1").training(model=SMALL).reporting(logdir=False).build() as algo:
        timesteps = algo.train()["timesteps_total"]
        leaf = jax.tree.leaves(algo.run.state)[0]
        return {"devices": len(leaf.sharding.device_set), "timesteps": timesteps}


def moved(folder: str, hosted: str = "compiled") -> dict[str, bool]:
    """Whether trainings go on from where they were saved, on as many devices and on others."""
    import jax
    import numpy as np

    from athlete import Algorithm

    def equal(one: Any, other: Any) -> bool:
        leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves)

    def parts(run: Any) -> Any:  # environments outside JAX begin new episodes
        return jax.device_get(run if hosted == "compiled" else (run.state, run.store, run.timesteps))

    found = {}
    for devices in (1, DEVICES):
        with config_of("DQN", hosted == "hosted").learners(num_learners=devices).build() as algo:
            algo.train()
            path = algo.save(f"{folder}/{devices}")
            saved, evaluated = parts(algo.run), algo.evaluate(episodes=2)["evaluation"]["episode_reward_mean"]
            for others in (1, DEVICES):
                with Algorithm.from_checkpoint(path, num_learners=others) as again:
                    found[f"{devices} to {others}, restored"] = equal(saved, parts(again.run))
                    same = again.evaluate(episodes=2)["evaluation"]["episode_reward_mean"] == evaluated
                    found[f"{devices} to {others}, evaluated"] = same
                    result = again.train()
                    found[f"{devices} to {others}, goes on"] = result["training_iteration"] == 2
                    if others == devices and hosted == "compiled":
                        algo.train()
                        found[f"{devices} to {others}, exact"] = equal(parts(algo.run), parts(again.run))
    return found


def one_of_two(folder: str, address: str, process: str) -> dict[str, Any]:
    """One of two processes with four devices each, which train, save and go on; what it was told and what it has."""
    import jax

    from athlete import Algorithm

    where = {"coordinator_address": address, "num_processes": 2, "process_id": int(process)}
    found: dict[str, Any] = {}
    for case in ("PPO", "DQN"):
        config = config_of(case, hosted=False).reporting(logdir=f"{folder}/results-{case}-{process}")
        with config.learners(num_learners=DEVICES, **where).build() as algo:
            result = algo.train()
            devices = jax.tree.leaves(algo.run.rows)[0].sharding.device_set
            path = algo.save(f"{folder}/{case}")
            with Algorithm.from_checkpoint(path, num_learners=DEVICES) as again:
                went_on = again.train()["timesteps_total"] == algo.train()["timesteps_total"]
            evaluated = algo.evaluate(episodes=2)["evaluation"]["episode_reward_mean"]
        found[case] = {
            "devices": len(devices),
            "learned": result["info"]["learner"]["default_policy"]["learner_stats"],
            "went on": went_on,
            "evaluated": evaluated,
        }
    return found


def one_alone(folder: str) -> dict[str, float]:
    """How far what two processes saved is from a training on one device."""
    import jax

    from athlete import Algorithm

    found = {}
    for case in ("PPO", "DQN"):
        with config_of(case, hosted=False).build() as alone:
            alone.train()
            with Algorithm.from_checkpoint(f"{folder}/{case}/checkpoint_000001", num_learners=1) as restored:
                one, other = jax.device_get((alone.run, restored.run))
                found[case] = max(_difference(one.state, other.state), _difference(one.rows, other.rows))
    return found


def main() -> None:
    function, *arguments = sys.argv[1:]
    print(json.dumps(globals()[function](*arguments)))


if __name__ == "__main__":
    main()

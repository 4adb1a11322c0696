"""RLlib's own experiment files, as they are: which reach their stop within their limit, and why the others do not.

    python benchmarks/rllib_files.py                       # make rllib-files
    python benchmarks/rllib_files.py pendulum --again      # those whose name has this word, once more
    python benchmarks/rllib_files.py offline               # those that learn from recorded data

The files are in `rllib_files.yaml`, as RLlib wrote them; nothing is changed but the seed, where a file has none, and
recorded data, in whose place are ours of the same kind (`benchmarks/offline_data.py`, made where missing). Each runs
with `tune.run` to its own stop. What was found goes to `results/rllib-files.json`, and files that are there with
the same settings are not run again. A file passes if every trial of it reaches a stop that is a reward; one whose stops
are limits alone passes by running to one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manifest import commit, is_dirty, write_json
from offline_data import FOLDER, made

from athlete import tune
from athlete.env.world import find_world
from athlete.record.names import lookup
from athlete.tuned_examples.experiment_file import Experiment, experiment_of, parse_yaml

HERE = Path(__file__).parent
FILES = HERE / "rllib_files.yaml"
RESULTS = HERE / "results" / "rllib-files.json"
SEED = 1000
LIMITS = ("timesteps_total", "training_iteration", "time_total_s", "num_env_steps_sampled")

# What cannot be met, or takes longer than is waited for here -> why. All else that fails is ours to mend.
KNOWN: dict[str, str] = {
    "a3c/cartpole_a3c.py": (
        "20,000 steps are too few for any learner: the mean is over the last 100 episodes, which at 150 steps each are "
        "15,000 of them, so the policy would have to be there after 5,000"
    ),
    "bandits/interest-evolution-recsim-env-bandit-linucb.yaml": (
        "its bandit sees the topics of videos and not the user, and on average users like every topic as much as any "
        "other: by RecSim's rules as we have them compiled it is paid hardly more than chance, which is 154"
    ),
    "slateq/long-term-satisfaction-recsim-env-slateq.yaml": (
        "by RecSim's defaults a step pays at most 21 on average, and an episode has 60: 1,250 is the most that anybody "
        "could be paid, and the stop is 2,000"
    ),
    "alpha_zero/cartpole-sparse-rewards-alpha-zero.yaml": (
        "1,600 updates of 64 timesteps at a learning rate of 0.0001 bring it to a mean return of about 90; the example "
        "cartpole-sparse-rewards-alphazero, with more and larger updates and Gumbel's search, has 150 after 35,000"
    ),
    "cql/pendulum-cql.yaml": (
        "200,000 steps are 100 updates of 2,000 here, all of them of bc_iters; RLlib puts what it reads into a buffer, "
        "learns from a batch of that for every fragment read, and counts the fragments alone"
    ),
    "examples/rock_paper_scissors_multiagent.py": (
        "the rewards of the two players add up to 0 in every episode, so that nobody comes to 1,000: RLlib's own run "
        "ends at its limit of steps; examples/rock_paper_scissors.py measures what the policy wins"
    ),
}

# What a script of RLlib says in Python and a file cannot: functions, and names that it registers.
SAID_IN_PYTHON: dict[str, dict[str, Any]] = {
    "examples/multi_agent_cartpole.py": {
        "multiagent": {
            "policies": ["policy_0", "policy_1"],  # the script's two models are one network with shared weights
            "policy_mapping_fn": {f"agent_{i}": f"policy_{i % 2}" for i in range(4)},  # at random, in the script
        }
    },
    "examples/rock_paper_scissors_multiagent.py": {
        "env": "RockPaperScissors-v0",
        "multiagent": {"policy_mapping_fn": {"player_0": "learned", "player_1": "beat_last"}},
    },
}


# What is learned from recorded data -> ours of the same kind: whose they are, and which.
DATA: dict[str, tuple[str, str]] = {
    "bc/cartpole-bc.yaml": ("cartpole", "replay"),
    "cql/pendulum-cql.yaml": ("pendulum", "replay"),
    "crr/cartpole-v1-crr.yaml": ("cartpole", "replay"),
    "crr/pendulum-v1-crr.yaml": ("pendulum", "replay"),
    "dt/cartpole-v1-dt.yaml": ("cartpole", "replay"),
    "dt/pendulum-v1-medium-expert-dt.yaml": ("pendulum", "medium-expert"),
    "marwil/cartpole-marwil.yaml": ("cartpole", "replay"),
}


def with_data(name: str, config: Mapping[str, Any], out: Path = FOLDER) -> dict[str, Any]:
    """The settings of a file with our data in the place of RLlib's, whose actions are as the environment takes them."""
    recipe, kind = DATA[name]
    rest = {key: value for key, value in config.items() if key not in ("input_config", "actions_in_input_normalized")}
    return {**rest, "input": str(out / f"{recipe}-0" / f"{kind}.safetensors")}


def why_not(experiment: Experiment) -> str | None:
    """Why an experiment cannot run here, in a sentence; None if it can."""
    try:
        experiment.check()
    except ValueError as error:
        return str(error).removeprefix(f"experiment {experiment.name!r}: ")
    if not experiment.stop:
        return "it has no stop"
    environments = experiment.config["env"]
    for env in environments["grid_search"] if isinstance(environments, Mapping) else [environments]:
        try:
            find_world(env, experiment.config.get("env_config", {}), "auto")
        except (ValueError, ImportError) as error:
            return str(error)
    return None


def outcome(experiment: Experiment, last: Mapping[str, Any]) -> dict[str, Any]:
    """What the last result of a trial says: whether it passed, its value for each stop, and what it took."""
    rewards = {key: stop for key, stop in experiment.stop.items() if key not in LIMITS}
    found = {key: lookup(last, key) for key in experiment.stop}
    passed = all(found[key] is not None and found[key] >= stop for key, stop in rewards.items())
    values = {key: None if value is None else round(float(value), 2) for key, value in found.items()}
    return {
        "passed": passed,
        "reached": values,
        "timesteps": int(last["timesteps_total"]),
        "seconds": round(float(last["time_total_s"]), 1),
    }


def run(experiment: Experiment) -> list[dict[str, Any]]:
    """Train every trial of the experiment to its stop."""
    config = {"seed": SEED, **experiment.config, "log_level": "ERROR"}
    with tempfile.TemporaryDirectory() as folder:
        settings = {"local_dir": folder, "verbose": 0, **experiment.settings}
        analysis = tune.run(experiment.run, config=config, stop=experiment.stop, **settings)
        return [outcome(experiment, trial.last_result) for trial in analysis.trials]


def line(name: str, entry: Mapping[str, Any]) -> str:
    """What is printed of a file."""
    if "why" in entry:
        return f"not run  {name}: {entry['why']}"
    trials = entry["trials"]
    passed = all(trial["passed"] for trial in trials)
    wanted = ", ".join(f"{key} {value:g}" for key, value in entry["stop"].items())
    got = "; ".join(
        f"{', '.join(f'{value}' for key, value in trial['reached'].items() if key not in LIMITS)} "
        f"after {trial['timesteps']:,} steps, {trial['seconds']:.0f} s"
        for trial in trials
    )
    reason = "" if passed or name not in KNOWN else f" ({KNOWN[name]})"
    return f"{'reached ' if passed else 'NOT     '} {name}: {got} [{wanted}]{reason}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only files with one of these in their name")
    parser.add_argument("--again", action="store_true", help="run them even if their results are there")
    parser.add_argument("--nice", type=int, default=19)
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    described = parse_yaml(FILES.read_text(encoding="utf-8"), str(FILES))
    found: dict[str, Any] = json.loads(RESULTS.read_text())["files"] if RESULTS.exists() else {}
    for name, entry in described.items():
        chosen = not arguments.words or any(word in name for word in arguments.words)
        chosen |= "offline" in arguments.words and name in DATA
        known = name in found and found[name]["entry"] == json.loads(json.dumps(entry))
        if not chosen or (known and not arguments.again):
            continue
        result = examined(name, entry)
        print(line(name, result), flush=True)
        if "trials" in result:
            found[name] = result
            write_json(RESULTS, {"command": "python benchmarks/rllib_files.py", "files": dict(sorted(found.items()))})
    passed = [name for name, entry in found.items() if all(trial["passed"] for trial in entry["trials"])]
    print(f"\n{len(passed)} of the {len(found)} files that were run reach their own stop; {len(described)} are known.")
    for name in sorted(found.keys() - set(passed)):
        print(line(name, found[name]))


def with_functions(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a script with what the script says in Python."""
    said = dict(SAID_IN_PYTHON.get(name, {}))
    env, config = said.pop("env", entry["env"]), dict(entry["config"])
    for key, value in said.items():
        config[key] = {**config.get(key, {}), **value}
    config = with_data(name, config) if name in DATA else config
    return {**entry, "env": env, "config": config}


def examined(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What comes of a file: its trials, or why there are none."""
    try:
        experiment = experiment_of(name.replace("/", "-"), with_functions(name, entry), name)
    except ValueError as error:
        return {"entry": entry, "why": str(error)}
    why = why_not(experiment)
    if why is not None:
        return {"entry": entry, "why": why}
    if name in DATA:
        made(DATA[name][0], 0)
    made_by = {"commit": commit(), "dirty": is_dirty()}
    return {"entry": entry, **made_by, "stop": experiment.stop, "trials": run(experiment)}


if __name__ == "__main__":
    main()

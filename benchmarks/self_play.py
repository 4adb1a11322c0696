"""What self-play learns: the policy `main` of a tuned example, over seeds, against players that did not learn.

    python benchmarks/self_play.py tic-tac-toe-ppo --seeds 5
    python benchmarks/self_play.py tic-tac-toe-ppo --timesteps 2000000 --first-seed 0   # a look while tuning

Each seed trains to the timesteps of the example's `stop`; schedules that end there end at `--timesteps` instead. Then
`main` acts greedily in 1000 games against each player, half of them on either seat. Seeds that the manifest already has
are not run again. What is published comes from seeds from 1000 on; those below go to `benchmarks/.tuning`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from manifest import commit, is_dirty, machine, versions, write_json

from athlete import tuned_examples
from athlete.algorithms import get_config_class
from athlete.env.games.multi_agent.players import (
    as_heuristic,
    connect_four_minimax,
    perfect_tic_tac_toe,
    random_legal,
)

HERE = Path(__file__).parent
FIRST_PUBLISHED_SEED = 1000
GAMES = 1000
PLAYERS = {
    "TicTacToe-v0": {"random": random_legal, "perfect": perfect_tic_tac_toe},
    "ConnectFour-v0": {"random": random_legal, "minimax of depth 2": connect_four_minimax},
}


def stretched(config: Any, before: int, after: int) -> Any:
    """Settings whose schedules `[[timestep, value], ...]` that end `before` end `after`."""
    if isinstance(config, dict):
        return {name: stretched(value, before, after) for name, value in config.items()}
    if isinstance(config, list) and config and isinstance(config[-1], list) and config[-1][0] == before:
        return [[timestep * after // before, value] for timestep, value in config]
    return config


def train(example: tuned_examples.Experiment, config: dict[str, Any], timesteps: int, seed: int) -> dict[str, Any]:
    """The shares of games that `main` wins, draws and loses against each player after a training."""
    players = {name: as_heuristic(player) for name, player in PLAYERS[config["env"]].items()}
    start, entropy = time.perf_counter(), []
    with (
        get_config_class(example.run)
        .from_dict({**config, "seed": seed, "log_level": "ERROR", "logdir": False})
        .build() as algo
    ):
        result = algo.train()
        while result["timesteps_total"] < timesteps:
            result = algo.train()
            stats = result["info"]["learner"]
            own = stats.get("main", stats.get("default_policy"))["learner_stats"]
            entropy.append(round(own["entropy"], 3))
        matches = algo.evaluate_matches(GAMES, players, policies=["main"], explore=False)
    return {
        "seed": seed,
        "commit": commit(),
        "dirty": is_dirty(),
        "machine": machine(),
        "versions": versions(sys.executable),
        "seconds": round(time.perf_counter() - start, 1),
        "entropy": entropy,
        "against": {name: matches.between("main", name) for name in players},
    }


def worst(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Against each player the smallest share of games won and the largest lost, of any seed."""
    found = {}
    for name in runs[0]["against"]:
        shares = [run["against"][name] for run in runs]
        found[name] = {
            "win_rate": min(share["win_rate"] for share in shares),
            "loss_rate": max(share["loss_rate"] for share in shares),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a tuned example of a game of two, with a policy `main`")
    parser.add_argument("--timesteps", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_PUBLISHED_SEED, help="below 1000: for tuning")
    arguments = parser.parse_args()
    example = tuned_examples.load(arguments.name)
    before = int(example.stop["timesteps_total"])
    timesteps = arguments.timesteps or before
    config = stretched(example.config, before, timesteps)
    words = arguments.name + (f" --timesteps {timesteps}" if arguments.timesteps else "")
    label = words.replace(" --timesteps ", "-")
    folder = HERE / ("results" if arguments.first_seed >= FIRST_PUBLISHED_SEED else ".tuning")
    folder.mkdir(exist_ok=True)
    path = folder / f"self-play-{label}.json"
    known = json.loads(path.read_text()) if path.exists() else {"config": config, "runs": []}
    if known["config"] != json.loads(json.dumps(config)):
        sys.exit(f"{path}: its config is {known['config']}, asked for is {config}; remove the file to begin anew")
    runs = known["runs"]
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        if seed in {run["seed"] for run in runs}:
            continue
        runs = sorted([*runs, train(example, config, timesteps, seed)], key=lambda run: run["seed"])
        manifest = {
            "command": f"python benchmarks/self_play.py {words} --seeds {len(runs)}",
            "seeds": [run["seed"] for run in runs],
            "timesteps": timesteps,
            "games": GAMES,
            "config": config,
            "worst": worst(runs),
            "runs": runs,
        }
        write_json(path, manifest)
        print(f"{label} seed {seed}: {next(run for run in runs if run['seed'] == seed)['against']}", flush=True)
    print(f"{label}: {len(runs)} seeds, worst {worst(runs)} -> {path}")


if __name__ == "__main__":
    main()

"""Record transitions of the original games for `test_minatar.py`, into `tests/minatar/<game>.json`.

    pip install minatar==1.0.15
    python tests/record_minatar.py breakout

The games are played by simple players with seeded chance, half of the episodes from an unusual state. Kept are, in
order, transitions of every kind (the reward, the end, and which parts of the state changed), a few of each;
`--each 1000000` keeps all.

A line is a transition: state, action, what chance drew, reward, whether it terminated, observation, next state.
Grids, `[10, 10]`, and observations, `[10, 10, channels]`, are their bits in hexadecimal.
"""

import argparse
import json
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np

FIELDS = {
    "breakout": ["pos", "ball_y", "ball_x", "ball_dir", "last_y", "last_x", "strike", "brick_map"],
}


def plain(value):
    """A value of a state as JSON has it."""
    if isinstance(value, np.ndarray):
        return np.packbits(value.astype(bool)).tobytes().hex()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if value is None else int(value)


def play_breakout(env, random):
    """Stand under the ball, or where it is heading; one step in twenty at random."""
    if random.random() < 0.05:
        return int(random.integers(6))
    ahead = env.ball_x + (1 if env.ball_dir in (1, 2) else -1)
    target = env.ball_x if random.random() < 0.5 else min(max(ahead, 0), 9)
    return 1 if env.pos > target else 3 if env.pos < target else 0


def scatter_breakout(env, random):
    """Break half of the bricks and put the ball anywhere: among bricks it does what it seldom does in play."""
    env.brick_map[1:4] = random.random((3, 10)) < 0.5
    env.ball_y, env.ball_x, env.ball_dir = (int(random.integers(n)) for n in (9, 10, 4))


def drawn(game, env, before):
    """What chance decided in the step just taken."""
    return None


def transitions(game, steps):
    env, random = import_module(f"minatar.environments.{game}").Env(), np.random.default_rng(0)
    env.random = np.random.RandomState(0)
    env.reset()
    player, scatter = globals()[f"play_{game}"], globals()[f"scatter_{game}"]
    for _ in range(steps):
        before = [plain(getattr(env, name)) for name in FIELDS[game]]
        action = player(env, random)
        reward, terminated = env.act(action)
        after = [plain(getattr(env, name)) for name in FIELDS[game]]
        yield before, action, drawn(game, env, before), int(reward), int(terminated), plain(env.state()), after
        if terminated:
            env.reset()
            if random.random() < 0.5:
                scatter(env, random)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("game", choices=FIELDS)
    parser.add_argument("--steps", type=int, default=20_000, help="how many are played")
    parser.add_argument("--each", type=int, default=6, help="how many of a kind are kept")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "minatar")
    arguments = parser.parse_args()
    seen, lines = Counter(), []
    for transition in transitions(arguments.game, arguments.steps):
        before, _, _, reward, terminated, _, after = transition
        kind = (reward, terminated, *(old != new for old, new in zip(before, after, strict=True)))
        seen[kind] += 1
        if seen[kind] <= arguments.each:
            lines.append(json.dumps(transition, separators=(",", ":")))
    fields = json.dumps(FIELDS[arguments.game])
    text = f'{{"source": "minatar 1.0.15", "fields": {fields}, "transitions": [\n' + ",\n".join(lines) + "\n]}\n"
    (arguments.folder / f"{arguments.game}.json").write_text(text)
    print(f"{arguments.game}: {len(lines)} of {arguments.steps} transitions, {len(seen)} kinds")


if __name__ == "__main__":
    main()

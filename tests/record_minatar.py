"""Record transitions of the original games for `test_minatar.py`, into `tests/minatar/<game>.json`.

    pip install minatar==1.0.15
    python tests/record_minatar.py breakout

The games are played by simple players with seeded chance, half of the episodes from an unusual state. Kept are, in
order, the first few transitions of every kind (the reward, the end, which parts of the state changed);
`--keep 1000000` keeps all.

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
    "asterix": [
        "player_y",
        "player_x",
        "entities",
        "spawn_speed",
        "spawn_timer",
        "move_speed",
        "move_timer",
        "ramp_timer",
        "ramp_index",
    ],
    "breakout": ["pos", "ball_y", "ball_x", "ball_dir", "last_y", "last_x", "strike", "brick_map"],
    "freeway": ["pos", "move_timer", "cars", "terminate_timer"],
    "space_invaders": [
        "pos",
        "shot_timer",
        "f_bullet_map",
        "e_bullet_map",
        "alien_map",
        "alien_dir",
        "enemy_move_interval",
        "alien_move_timer",
        "alien_shot_timer",
    ],
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
    """Leave half of the bricks or hardly any, and put the ball anywhere: it then does what it seldom does in play."""
    env.brick_map[1:4] = random.random((3, 10)) < random.choice([0.5, 0.03])
    env.ball_y, env.ball_x, env.ball_dir = (int(random.integers(n)) for n in (9, 10, 4))


def play_asterix(env, random):
    return int(random.integers(6))


def scatter_asterix(env, random):
    """Fill half of the rows, and be at a late stage: faster, and about to be faster still."""
    for row in range(8):
        is_there, x, to_right, is_gold = random.integers([2, 10, 2, 2])
        env.entities[row] = [int(x), row + 1, bool(to_right), bool(is_gold)] if is_there else None
    env.spawn_speed, env.move_speed, env.ramp_index = (int(number) for number in random.integers(1, [11, 6, 10]))
    env.spawn_timer, env.move_timer = (int(random.integers(speed)) for speed in (env.spawn_speed, env.move_speed))
    env.ramp_timer = int(random.integers(-1, 10))


def play_freeway(env, random):
    return int(random.choice([2, 2, 2, 2, 4, 4, 0, 1, 3, 5]))


def scatter_freeway(env, random):
    """Put chicken and cars anywhere, near the end."""
    env.pos, env.move_timer = int(random.integers(1, 10)), int(random.integers(4))
    env.terminate_timer = int(random.integers(200))
    for car in env.cars:
        car[0], car[2] = int(random.integers(10)), int(random.integers(abs(car[3]) + 1))


def play_space_invaders(env, random):
    """Fire when possible; else move at random, but not under a bullet."""
    if env.shot_timer == 0 and random.random() < 0.7:
        return 5
    action = int(random.choice([1, 3, 0, 2, 4]))
    pos = min(max(env.pos + {1: -1, 3: 1}.get(action, 0), 0), 9)
    return action if not env.e_bullet_map[8, pos] else int(random.choice([1, 3, 0]))


def scatter_space_invaders(env, random):
    """A few aliens anywhere, seldom in the lowest rows, and bullets; the next wave is faster."""
    env.alien_map = (random.random((10, 10)) < random.choice([0.02, 0.1, 0.3])).astype(float)
    env.alien_map[random.integers(4, 11) :] = 0
    env.alien_map[0, random.integers(10)] = 1
    env.f_bullet_map = (random.random((10, 10)) < 0.1).astype(float)
    env.e_bullet_map = (random.random((10, 10)) < 0.05).astype(float)
    env.f_bullet_map[9] = env.e_bullet_map[9] = 0
    env.alien_dir = int(random.choice([-1, 1]))
    env.enemy_move_interval = int(random.integers(6, 13))
    env.alien_move_timer, env.alien_shot_timer = int(random.integers(3)), int(random.integers(10))


def drawn(game, env):
    """What chance decided in the step just taken: Freeway's speeds, or what came into which row of Asterix."""
    if game == "freeway":
        return [int(car[3]) for car in env.cars]
    return plain(env.spawned) if game == "asterix" else None


def watch_spawns(env):
    """Note in `env.spawned` what the last step of Asterix brought in."""
    spawn = env._spawn_entity

    def noted():
        old = list(env.entities)
        spawn()
        env.spawned = next((list(new) for new, was in zip(env.entities, old, strict=True) if new is not was), None)

    env._spawn_entity = noted


def transitions(game, steps):
    env, random = import_module(f"minatar.environments.{game}").Env(), np.random.default_rng(0)
    env.random = np.random.RandomState(0)
    env.reset()
    if game == "asterix":
        watch_spawns(env)
    player, scatter = globals()[f"play_{game}"], globals()[f"scatter_{game}"]
    for _ in range(steps):
        before = [plain(getattr(env, name)) for name in FIELDS[game]]
        action, env.spawned = player(env, random), None
        reward, terminated = env.act(action)
        after = [plain(getattr(env, name)) for name in FIELDS[game]]
        yield before, action, drawn(game, env), int(reward), int(terminated), plain(env.state()), after
        if terminated:
            env.reset()
            if random.random() < 0.5:
                scatter(env, random)


def kind(game, transition):
    before, _, _, reward, terminated, _, after = transition
    changes = [old != new for old, new in zip(before, after, strict=True)]
    if game == "breakout":
        strike, brick_map = after[-2:]
        changes += [strike, int(brick_map, 16) == 0]
    if game == "freeway":
        changes += [after[-1] == 0]  # the last step but one
    return reward, terminated, *changes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("game", choices=FIELDS)
    parser.add_argument("--steps", type=int, default=20_000, help="how many are played")
    parser.add_argument("--keep", type=int, default=300, help="about how many of them are kept")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "minatar")
    arguments = parser.parse_args()
    played = list(transitions(arguments.game, arguments.steps))
    kinds = [kind(arguments.game, transition) for transition in played]
    each, seen, lines = max(1, arguments.keep // len(set(kinds))), Counter(), []
    for transition, its_kind in zip(played, kinds, strict=True):
        seen[its_kind] += 1
        if seen[its_kind] <= each:
            lines.append(json.dumps(transition, separators=(",", ":")))
    fields = json.dumps(FIELDS[arguments.game])
    text = f'{{"source": "minatar 1.0.15", "fields": {fields}, "transitions": [\n' + ",\n".join(lines) + "\n]}\n"
    (arguments.folder / f"{arguments.game}.json").write_text(text)
    print(f"{arguments.game}: {len(lines)} of {arguments.steps} transitions, {len(seen)} kinds")


if __name__ == "__main__":
    main()

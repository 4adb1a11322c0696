"""What the programs of single agents are, as hashes of what JAX lowers: what is added for many must not change them.

python tests/lowered_programs.py    # writes lowered_programs.json anew, after a change that is meant
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jax
import numpy as np

from athlete.algorithms import ALGORITHMS, get_config_class
from athlete.algorithms.catalog import learns_from_returns, learns_online, learns_to_adapt, serves_slates
from athlete.env.games.classic.cartpole import CartPole
from athlete.env.games.classic.pendulum import Pendulum
from athlete.loops import train
from athlete.loops.collect import spec_of
from athlete.loops.learn import init_run

FILE = Path(__file__).with_suffix(".json")
KEY = np.zeros(2, np.uint32)


def single_agent_algorithms() -> list[str]:
    online = [name for name in ALGORITHMS if not get_config_class(name).agent_class.joint and learns_online(name)]
    others = (learns_from_returns, learns_to_adapt, serves_slates)
    own = [name for name in online if not any(asked(name) for asked in others)]
    return [name for name in own if not get_config_class(name).agent_class.searches]  # mctx's programs are not ours


def lowered(algorithm: str) -> str:
    """The hash of the program that two iterations of an algorithm with its defaults are."""
    config = get_config_class(algorithm)()
    env = CartPole() if "discrete" in config.agent_class.serves else Pendulum()
    agent, rows, length = config.make_agent(spec_of(env)), config.rows(), config.fragment_length()
    run = jax.eval_shape(lambda key: init_run(agent, env, rows, key, length), KEY)
    arguments = {"length": length, "iterations": 2, "random": False, "learning": True, "sample_async": False}
    text = train._iterate.lower(agent, env, horizon=np.float32(1e5), run=run, **arguments).as_text()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> None:
    programs = {name: lowered(name) for name in single_agent_algorithms()}
    FILE.write_text(json.dumps({"jax": jax.__version__, "programs": programs}, indent=1) + "\n")


if __name__ == "__main__":
    main()

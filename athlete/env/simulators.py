"""What a tree search plays on: an environment whose state can be told from an observation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Simulator, Spec, TurnGame
from athlete.env.multi_agent import JointEnv
from athlete.env.wrappers.exposed_state import ExposedState
from athlete.env.wrappers.turns import Against, Turns
from athlete.ops.random import wrap
from athlete.ops.sampling import random_action

GAMES, MOVES = 16, 32  # that are looked at


def simulated(env: Env | None, name: str) -> Env:
    """The environment as a search plays on it: a game of two is moved for by one agent, any other shows its state.

    Raises ValueError where it is no JAX environment, or a game that cannot be told from what a player sees.
    """
    if env is None:
        raise ValueError(
            f"AlphaZero searches in the environment itself, and {name} lives outside JAX; take MuZero, which learns a "
            "model of it, or write it as an athlete.core.Env"
        )
    if isinstance(env, Simulator | Against):
        return env
    if not isinstance(env, JointEnv):
        return ExposedState(env)
    if not isinstance(env.env, TurnGame):
        raise ValueError(
            f"AlphaZero plays games of two who move in turns, and {name} is none: an athlete.core.TurnGame, whose "
            "method state_of(obs) tells the state from what the player sees who is to move"
        )
    turns = Turns(env.env)
    if not bool(_is_told(turns, np.zeros(2, np.uint32))):
        raise ValueError(
            f"AlphaZero searches from what a player sees, and {name}.state_of(obs) gave another state than that in "
            "which obs was seen: put into the observation what is missing there"
        )
    return turns


@jax.jit
def _is_told(turns: Turns, key: Array) -> Array:
    """Whether `state_of` gives the state of all positions of some random games, ends left out."""

    def game(key: Array) -> Array:
        reset_key, play_key = jax.random.split(key)
        spec = Spec(turns.observation_space, turns.action_space)

        def move(carry: tuple, key: Array) -> tuple:
            state, obs, over = carry
            told = jax.tree.map(lambda a, b: jnp.all(a == b), turns.state_of(obs), state)
            right = over | jnp.all(jnp.stack(jax.tree.leaves(told)))
            choose_key, step_key = jax.random.split(key)
            action = random_action(spec, obs, (), choose_key)
            state, step = turns.step(state, action, step_key)
            return (state, step.obs, over | step.terminated | step.truncated), right

        start = (*turns.reset(reset_key), jnp.asarray(False))
        return jnp.all(jax.lax.scan(move, start, jax.random.split(play_key, MOVES))[1])

    return jnp.all(jax.vmap(game)(jax.random.split(wrap(key), GAMES)))

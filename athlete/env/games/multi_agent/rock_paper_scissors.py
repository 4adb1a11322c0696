"""Rock-paper-scissors, several rounds: who remembers what the other did wins against whoever repeats himself."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Group, Key, MultiEnv, MultiStep, Tree, hyper
from athlete.spaces import Discrete

MOVES = ("rock", "paper", "scissors", "lizard", "spock")
# What the move of the row gains against that of the column.
GAIN = np.array(
    [[0, -1, 1, 1, -1], [1, 0, -1, -1, 1], [-1, 1, 0, 1, -1], [-1, 1, -1, 0, 1], [1, -1, 1, -1, 0]], np.float32
)


class RockPaperScissorsState(NamedTuple):
    rounds: Array  # int32: played in this episode


@hyper
class RockPaperScissors(MultiEnv):
    """Both players move at once, `rounds` times: 1 for the winner of a round, -1 for the loser, 0 in a draw.

    Rock, paper and scissors are 0, 1 and 2; with `sheldon_cooper_mode` there are lizard and Spock too, 3 and 4. A
    player observes the move that the other made last, and 0 at first. RLlib's example of the same name.
    """

    rounds: int = 10
    sheldon_cooper_mode: bool = False

    always_acting = True

    @property
    def groups(self) -> dict[str, Group]:
        moves = Discrete(5 if self.sheldon_cooper_mode else 3)
        return {"player": Group(2, moves, moves)}

    def reset(self, key: Key) -> tuple[RockPaperScissorsState, Tree, Tree]:
        return RockPaperScissorsState(jnp.int32(0)), {"player": jnp.zeros(2, jnp.int32)}, ()

    def step(self, state: RockPaperScissorsState, action: Tree, key: Key) -> tuple[RockPaperScissorsState, MultiStep]:
        first, second = moves = jnp.asarray(action["player"], jnp.int32)
        gain = jnp.asarray(GAIN)[first, second]
        state = RockPaperScissorsState(state.rounds + 1)
        return state, MultiStep(
            obs={"player": moves[::-1]},
            reward={"player": jnp.stack([gain, -gain])},
            all_terminated=state.rounds >= self.rounds,
            all_truncated=jnp.asarray(False),
        )

"""Compiled games with many agents (`athlete.core.MultiEnv`), and what their ids make."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import Array, Env, Key, MultiEnv, Tree

# Modules, and what in them makes the game.
_GAMES = {
    "TwoStepGame-v0": ("two_step_game", "TwoStepGame"),
    "ClimbingGame-v0": ("matrix_game", "climbing_game"),
    "PenaltyGame-v0": ("matrix_game", "penalty_game"),
    "MatrixGame-v0": ("matrix_game", "matrix_game"),
    "Spread-v0": ("spread", "Spread"),
    "MultiAgentArena-v0": ("arena", "MultiAgentArena"),
    "TicTacToe-v0": ("tic_tac_toe", "TicTacToe"),
    "ConnectFour-v0": ("connect_four", "ConnectFour"),
    "RockPaperScissors-v0": ("rock_paper_scissors", "RockPaperScissors"),
    "MultiAgentCartPole-v1": ("cartpoles", "multi_agent_cartpole"),
}


def make_game(env_id: str, env_config: Mapping[str, Any] | None = None) -> MultiEnv | Env:
    """The game of an id.

    Args:
        env_id: one of `athlete.env.registry.MULTI_AGENT`, such as `"TicTacToe-v0"`.
        env_config: the game's fields. With `opponent` tic-tac-toe ("random", "perfect") and connect four ("random",
            "minimax" with a `depth`) are environments of one agent, see `athlete.env.wrappers.turns.Against`.

    Raises:
        ValueError: `env_config` has an entry that the game does not have.
    """
    module, name = _GAMES[env_id]
    maker, config = getattr(importlib.import_module(f"{__name__}.{module}"), name), dict(env_config or {})
    if env_id not in OPPONENTS or not {"opponent", "depth"} & set(config):
        return create(maker, EnvContext(config))
    from athlete.env.wrappers.turns import Against

    opponent = opponent_of(env_id, config.pop("opponent", None), config.pop("depth", None))
    return Against(create(maker, EnvContext(config)), opponent)


# Of games in which one agent may play against somebody who does not learn: who that can be.
OPPONENTS = {"TicTacToe-v0": ("random", "perfect"), "ConnectFour-v0": ("random", "minimax")}


@functools.cache
def opponent_of(env_id: str, name: Any, depth: int | None = None) -> Callable[[Tree, Key], Array]:
    """The player of `athlete.env.games.multi_agent.players` by name; minimax looks `depth` moves ahead, by default 2.

    Raises ValueError for one that the game does not have.
    """
    from athlete.env.games.multi_agent import players

    known = OPPONENTS[env_id]
    if name not in known:
        raise ValueError(f"{env_id}: env_config has opponent={name!r}; there are {', '.join(known)}")
    if depth is not None and (name != "minimax" or not isinstance(depth, int) or depth < 1):
        raise ValueError(f"{env_id}: env_config has depth={depth!r}: moves that 'minimax' looks ahead, 1 or more")
    if name == "minimax":
        return functools.partial(players.connect_four_minimax, depth=depth or 2)
    return players.perfect_tic_tac_toe if name == "perfect" else players.random_legal

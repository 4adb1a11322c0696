"""Compiled games with many agents (`athlete.core.MultiEnv`), and what their ids make."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athlete.env.registry import EnvContext, create

if TYPE_CHECKING:
    from athlete.core import MultiEnv

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


def make_game(env_id: str, env_config: Mapping[str, Any] | None = None) -> MultiEnv:
    """The game of an id.

    Args:
        env_id: one of `athlete.env.registry.MULTI_AGENT`, such as `"TicTacToe-v0"`.
        env_config: the game's fields.

    Raises:
        ValueError: `env_config` has an entry that the game does not have.
    """
    module, name = _GAMES[env_id]
    return create(getattr(importlib.import_module(f"{__name__}.{module}"), name), EnvContext(env_config))

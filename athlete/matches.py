"""Who beats whom: every two of several policies play each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from athlete.algorithms.alpha_star import AlphaStar
from athlete.combine.past import PastSelves
from athlete.combine.seating import Seats
from athlete.combine.team import Member, Team
from athlete.core import Agent, Spec, Tree
from athlete.loops.evaluate import Evaluation
from athlete.ops.elo import elo_ratings
from athlete.teams import seats_of

Play = Callable[[Team, Tree, int, int], Evaluation]  # (team, view, number of the match, episodes)


class Player(NamedTuple):
    """Who plays: an agent bound to what one seat sees, and the part of its state that acts."""

    agent: Agent
    view: Tree


@dataclass(frozen=True)
class Matches:
    """What came of the games between every two players. `print` shows it as a table."""

    names: tuple[str, ...]
    wins: np.ndarray  # int [n, n]: games that the player of the row won against that of the column
    draws: np.ndarray  # int [n, n]

    @property
    def losses(self) -> np.ndarray:
        return self.wins.T

    @property
    def games(self) -> np.ndarray:
        return self.wins + self.losses + self.draws

    @property
    def elo(self) -> dict[str, float]:
        """Elo's ratings, with a mean of 1500; see `athlete.ops.elo`."""
        return dict(zip(self.names, elo_ratings(self.wins + self.draws / 2).tolist(), strict=True))

    def between(self, name: str, other: str) -> dict[str, float]:
        """The shares of games that `name` won, drew and lost against `other`: `win_rate`, `draw_rate`, `loss_rate`."""
        i, j = self.names.index(name), self.names.index(other)
        counts = {"win_rate": self.wins[i, j], "draw_rate": self.draws[i, j], "loss_rate": self.losses[i, j]}
        return {rate: float(count / self.games[i, j]) for rate, count in counts.items()}

    def __str__(self) -> str:
        """A row for each player, the strongest first: its rating, and wins, draws and losses against each other."""
        elo = self.elo
        order = sorted(range(len(self.names)), key=lambda i: -elo[self.names[i]])
        rows = [["", "Elo", *(self.names[j] for j in order)]]
        for i in order:
            counts = ["-" if i == j else f"{self.wins[i, j]}/{self.draws[i, j]}/{self.losses[i, j]}" for j in order]
            rows.append([self.names[i], f"{elo[self.names[i]]:.0f}", *counts])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(lines)


def players_of(agent: Agent, state: Tree, view: Tree) -> dict[str, Player]:
    """The policies of a team or a league by name; snapshots of `main` are `main_v0`, `main_v1`, ...

    Empty where there are none.
    """
    if isinstance(agent, AlphaStar):
        return _players_of_league(agent, state, view)
    players: dict[str, Player] = {}
    for name, actor in actors_of(agent, view).items():
        if not isinstance(actor.agent, PastSelves):
            players[name] = actor
            continue
        past = jax.device_get(state[name])
        for number in range(int(past.kept)):
            players[f"{actor.agent.of}_v{number}"] = Player(actor.agent.agent, _nth(past.snapshots, number))
    return players


def actors_of(agent: Agent, view: Tree) -> dict[str, Player]:
    """What acts of the policies of a team, or of the learners of a league, by name; empty where there are none."""
    if isinstance(agent, AlphaStar):
        learners = jax.device_get(view["learners"])
        return {name: Player(agent.agent, _nth(learners, number)) for number, name in enumerate(agent.names)}
    members = agent.members if isinstance(agent, Team) else ()
    return {member.name: Player(member.agent, view[member.name]) for member in members}


def _players_of_league(agent: AlphaStar, state: Tree, view: Tree) -> dict[str, Player]:
    players = actors_of(agent, view)
    past, maker = jax.device_get((state.past, state.maker))
    for place in np.flatnonzero(maker >= 0):
        name = agent.names[maker[place]]
        version = np.sum(maker[:place] == maker[place])
        players[f"{name}_v{version}"] = Player(agent.agent, _nth(past, place))
    return players


def _nth(tree: Tree, number: Any) -> Tree:
    return jax.tree.map(lambda leaf: leaf[number], tree)


def play_matches(players: Mapping[str, Player], spec: Spec, play: Play, episodes: int) -> Matches:
    """`episodes` games between every two of the `players`, who change seats after half of them.

    `spec` is that of a game for two, seen as one. An episode is won by who has the higher return.

    Raises ValueError where it is a game of others than two agents with equal spaces, or of fewer than two players.
    """
    if [group.size for _, group in spec.groups] != [2]:
        agents = ", ".join(f"{group.size} of {name!r}" for name, group in spec.groups) or "one"
        raise ValueError(f"matches are between two agents with equal spaces, and this environment has {agents}")
    if len(players) < 2:
        raise ValueError(
            f"matches need two players, and there is {', '.join(players) or 'none'}; give opponents={{...}}"
        )
    names = tuple(players)
    wins, draws = (np.zeros((len(names), len(names)), int) for _ in range(2))
    for number, (i, j) in enumerate(itertools.combinations(range(len(names)), 2)):
        for swapped, games in enumerate(((episodes + 1) // 2, episodes // 2)):
            if not games:
                continue
            pair = (j, i) if swapped else (i, j)
            returns = _returns_of([players[names[k]] for k in pair], spec, play, 2 * number + swapped, games)
            own, other = (returns[:, pair.index(k)] for k in (i, j))
            wins[i, j] += np.sum(own > other)
            wins[j, i] += np.sum(other > own)
            draws[i, j] += np.sum(own == other)
    return Matches(names, wins, draws + draws.T)


def _returns_of(pair: list[Player], spec: Spec, play: Play, number: int, episodes: int) -> np.ndarray:
    """The returns `[episodes, 2]` of two players, the first of whom sits on the first seat."""
    group = spec.groups[0][0]
    # Names that are the same in every match, so that players of one kind share a program.
    members = tuple(
        Member(f"player_{seat}", player.agent, Seats(((group, (seat,)),)), trained=False)
        for seat, player in enumerate(pair)
    )
    view = {f"player_{seat}": player.view for seat, player in enumerate(pair)}
    return play(Team(members).bind(spec), view, number, episodes).returns


def team_of(
    actors: Mapping[str, Player], spec: Spec, mapping: Mapping[str, str], ids: Sequence[str]
) -> tuple[Team, Tree]:
    """The team in which the `actors` act for the agents `ids` of `spec.groups` as `mapping` says, and its view."""
    names = tuple(dict.fromkeys(mapping[agent] for agent in ids))
    members = tuple(
        Member(name, actors[name].agent, seats_of(spec, ids, mapping, name), trained=False) for name in names
    )
    return Team(members).bind(spec), {name: actors[name].view for name in names}

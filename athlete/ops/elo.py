"""Elo's ratings: how strong players are, from the games between them."""

from __future__ import annotations

import math

import numpy as np

MEAN = 1500.0
SCALE = 400.0  # so much more wins 10 points for each that is lost


def expected_score(difference: np.ndarray | float) -> np.ndarray:
    """Points a game, 1 for a win and 1/2 for a draw, of who is rated higher by `difference`: Elo, 1978."""
    return 1.0 / (1.0 + 10.0 ** (-np.asarray(difference, np.float64) / SCALE))


def elo_ratings(points: np.ndarray, iterations: int = 1000) -> np.ndarray:
    """The ratings `[n]` under which the games are most likely, with a mean of 1500.

    `points` `[n, n]` is what the player of each row took from that of each column, 1 for a win and 1/2 for a draw.

    These are those of the model of Bradley and Terry (1952), found by the iteration of Zermelo (1929), equation 3 of
    Hunter (2004), "MM algorithms for generalized Bradley-Terry models". Each player also draws a game with an average
    one, so that who has won all games is rated finitely.
    """
    points = np.array(points, np.float64)
    np.fill_diagonal(points, 0.0)
    games, strength = points + points.T, np.ones(len(points))
    for _ in range(iterations):
        shared = games / (strength[:, None] + strength[None])
        strength = (points.sum(axis=1) + 0.5) / (shared.sum(axis=1) + 1.0 / (strength + 1.0))
        strength /= math.exp(np.log(strength).mean())
    return MEAN + SCALE * np.log10(strength)

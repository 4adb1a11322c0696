"""What a policy would be worth, from decisions that another one made: importance sampling, direct and doubly robust.

All of them are about V = E sum_t gamma^t r_t of episodes as they were recorded, a number for each episode whose mean is
the estimate. `ratio` `[N]` is how much likelier the policy was to do what was done, pi(a | s) / behaviour(a | s).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
METHODS = {
    "ImportanceSampling": "is",
    "WeightedImportanceSampling": "wis",
    "DirectMethod": "dm",
    "DoublyRobust": "dr",
}


class Episodes(NamedTuple):
    """Steps of several episodes, side by side: `[E, T]`, filled up with steps that count nothing."""

    reward: np.ndarray
    discount: np.ndarray  # gamma^t; 0 where there is no step
    valid: np.ndarray  # bool

    def placed(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Values of steps `[N]`, in the order of the data, as `[E, T]`."""
        table = np.full(self.valid.shape, fill)
        table[self.valid] = values
        return table


def side_by_side(reward: np.ndarray, lengths: np.ndarray, gamma: float) -> Episodes:
    """Rewards of steps `[N]`, of episodes of these `lengths` one behind the other."""
    valid = np.arange(lengths.max()) < lengths[:, None]
    discount = np.where(valid, gamma ** np.arange(valid.shape[1]), 0.0)
    table = np.zeros(valid.shape)
    table[valid] = reward
    return Episodes(table, discount, valid)


def behaviour_values(episodes: Episodes) -> np.ndarray:
    """The discounted return of each episode, `[E]`: what those who made the data were worth."""
    return np.sum(episodes.discount * episodes.reward, axis=1)


def importance_weights(episodes: Episodes, ratio: np.ndarray, per: str) -> np.ndarray:
    """The product of ratios that each reward counts, `[E, T]`: to its step, or of the whole episode."""
    products = np.cumprod(episodes.placed(ratio, 1.0), axis=1)
    return products if per == "step" else np.broadcast_to(products[:, -1:], products.shape)


def importance_sampling(episodes: Episodes, ratio: np.ndarray, per: str = "step") -> np.ndarray:
    """`[E]`: each reward counts by how much likelier the policy was to come to it (Precup et al. 2000, equation 5, per
    step; equation 3, per episode). Without bias, with a variance that grows with every step.
    """
    weights = importance_weights(episodes, ratio, per)
    return np.sum(weights * episodes.discount * episodes.reward, axis=1)


def weighted_importance_sampling(episodes: Episodes, ratio: np.ndarray, per: str = "step") -> np.ndarray:
    """`[E]`: the same, weights divided by their mean over episodes (Precup et al. 2000, equation 4 and section 4).

    Biased towards the behaviour, with far less variance. An episode that is over counts on with its last weight.
    """
    weights = importance_weights(episodes, ratio, per)
    return np.sum(weights / np.mean(weights, axis=0) * episodes.discount * episodes.reward, axis=1)


def doubly_robust(
    episodes: Episodes, ratio: np.ndarray, value: np.ndarray, state_value: np.ndarray, gamma: float
) -> np.ndarray:
    """`[E]`: V(s) corrected by what importance sampling says of its errors (Jiang & Li 2016, equation 10).

    `value` `[N]` are Q(s, a) of what was done, `state_value` `[N]` are V(s) = E_pi Q(s, .).
    """
    ratios, values = episodes.placed(ratio, 0.0), episodes.placed(value, 0.0)
    states, found = episodes.placed(state_value, 0.0), np.zeros(len(ratios))
    for t in range(ratios.shape[1] - 1, -1, -1):
        # Where there is no step all of them are 0.
        found = states[:, t] + ratios[:, t] * (episodes.reward[:, t] + gamma * found - values[:, t])
    return found


def missing_share(episodes: Episodes, ratio: np.ndarray) -> float:
    """How much of what the policy would come to the data have nothing of, from 0 to 1, what is later counting less.

    Weights of steps are 1 on average, whatever the policies. What the mean over recorded episodes lacks of 1 stands for
    episodes that left what the data know, at that step or before.
    """
    missing = 1.0 - np.minimum(importance_weights(episodes, ratio, "step").mean(axis=0), 1.0)
    left = np.diff(np.maximum.accumulate(missing), prepend=0.0)
    return float(np.sum(episodes.discount.max(axis=0) * left))


def interval(each: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """The bootstrap interval of the mean of `each` `[E]`, over episodes."""
    random = np.random.default_rng(seed)
    means = each[random.integers(len(each), size=(RESAMPLES, len(each)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# Student's t at 97.5%, of 2 to 10 numbers.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def interval_of_fits(estimates: Sequence[float]) -> tuple[float, float]:
    """The interval of 95% that estimates from bootstrap samples of the data, a few of them, spread over."""
    wide = _STUDENT[min(len(estimates), 10) - 2] * float(np.std(estimates, ddof=1))
    return float(np.mean(estimates)) - wide, float(np.mean(estimates)) + wide


def weighted_interval(
    episodes: Episodes, ratio: np.ndarray, per: str, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The bootstrap interval of weighted importance sampling over episodes, wide where these tell too little.

    Weights are divided anew in every sample of episodes. They are 1 on average, whatever the policies: what a sample's
    mean lacks of 1 stands for episodes that the policy would come to and the sample has none of. Each end takes what
    these are paid at a step for the least, or the most, that the data were paid at any.
    """
    random, weights = np.random.default_rng(seed), importance_weights(episodes, ratio, per)
    paid, discount = weights * episodes.discount * episodes.reward, episodes.discount.max(axis=0)
    least, most = episodes.reward.min(), episodes.reward.max()  # 0 among them where an episode is over before another
    ends = np.empty((RESAMPLES // 4, 2))
    for found in ends:
        drawn = random.integers(len(paid), size=len(paid))
        mean = weights[drawn].mean(axis=0)
        told = np.sum(paid[drawn].mean(axis=0) / np.maximum(mean, 1.0))
        unknown = np.sum(np.maximum(1.0 - mean, 0.0) * discount)
        found[:] = told + unknown * least, told + unknown * most
    low, high = (np.quantile(ends[:, end], (1 + sign * level) / 2) for end, sign in ((0, -1), (1, 1)))
    return float(low), float(high)

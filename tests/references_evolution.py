"""The algorithms without gradients in plain NumPy, slow and obvious: what `test_references_evolution.py` holds them to.

Written from the papers, in float64 and with loops, as `references.py`. Returns and lengths are those of all members,
without the policy's own episodes.
"""

from __future__ import annotations

import numpy as np
from references import at


def centered_ranks(returns):
    """Salimans et al. 2017, section 2.1: from -1/2 to 1/2, equal returns sharing the mean of their ranks."""
    order = sorted(returns)
    ranks = [np.mean([i for i, other in enumerate(order) if other == value]) for value in returns]
    return np.array(ranks) / (len(returns) - 1) - 0.5


def es(agent, held, noise, returns, lengths, progress):
    """Algorithm 1 with mirrored noise, ranks, weight decay and Adam."""
    ranks, pairs, gradient = centered_ranks(returns), len(noise), np.zeros_like(held.parameters)
    for i, epsilon in enumerate(noise):
        gradient += ranks[i] * epsilon - ranks[pairs + i] * epsilon
    gradient /= len(returns)
    before, stepsize = held.parameters, at(agent.stepsize, progress)
    held.parameters = held.optimizer.step(before, agent.l2_coeff * before - gradient, stepsize)
    return {"grad_norm": np.sum(gradient**2), "cur_lr": stepsize} | moved(before, held.parameters)


def moved(before, after):
    return {
        "weights_norm": np.sum(after**2),
        "update_ratio": np.linalg.norm(after - before) / np.linalg.norm(before),
    }

"""The algorithms without gradients in plain NumPy, slow and obvious: what `test_references_evolution.py` holds them to.

Written from the papers, in float64 and with loops, as `references.py`. Returns and lengths are those of all members,
without the policy's own episodes.
"""

from __future__ import annotations

import math

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


def ars(agent, held, directions, returns, lengths, progress):
    """Algorithm 2: the best directions, their returns' deviation, a plain step."""
    rewards = returns - abs(float(agent.offset)) * lengths
    plus, minus = rewards[: len(directions)], rewards[len(directions) :]
    used = min(math.ceil(agent.rollouts_used / 2), len(directions))
    best = sorted(range(len(directions)), key=lambda k: -max(plus[k], minus[k]))[:used]
    spread = np.std([r[k] for k in best for r in (plus, minus)])
    gradient = sum((plus[k] - minus[k]) * directions[k] for k in best) / used / spread
    before, stepsize = held.parameters, at(agent.sgd_stepsize, progress)
    held.parameters = before + stepsize * gradient
    return {"grad_norm": np.sum(gradient**2), "cur_lr": stepsize} | moved(before, held.parameters)


def pgpe(agent, held, steps, returns, lengths, progress):
    """Section 3.3, on ranks, with Adam for mu and a bounded step for sigma."""
    ranks, pairs = centered_ranks(returns), len(steps)
    center, spread = np.zeros_like(held.parameters), np.zeros_like(held.stdev)
    for k, step in enumerate(steps):
        center += step * (ranks[k] - ranks[pairs + k]) / 2 / pairs
        shape = (step**2 - held.stdev**2) / held.stdev
        spread += shape * (ranks[k] + ranks[pairs + k]) / 2 / pairs
    before, stepsize = held.parameters, at(agent.stepsize, progress)
    held.parameters = held.optimizer.step(before, -center, stepsize)
    most = agent.stdev_max_change * held.stdev
    held.stdev = held.stdev + np.clip(agent.stdev_learning_rate * spread, -most, most)
    metrics = {"grad_norm": np.sum(center**2), "mean_stdev": held.stdev.mean(), "cur_lr": stepsize}
    return metrics | moved(before, held.parameters)


def cma_es(agent, held, steps, returns, lengths, progress):
    """One generation of the tutorial's figure 6, with the numbers of its table 1, written out."""
    fitness = returns.reshape(agent.popsize, -1).mean(axis=1)
    order = sorted(range(agent.popsize), key=lambda i: -fitness[i])
    n, count, diagonal = len(held.parameters), agent.popsize, held.covariance.ndim == 1
    raw = np.array([math.log((count + 1) / 2) - math.log(i) for i in range(1, count + 1)])
    mu = count // 2
    mu_eff = sum(raw[:mu]) ** 2 / sum(raw[:mu] ** 2)
    mu_eff_minus = sum(raw[mu:]) ** 2 / sum(raw[mu:] ** 2)
    c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, 2 * (1 / 4 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff))
    if diagonal:
        c_1, c_mu = c_1 * (n + 2) / 3, c_mu * (n + 2) / 3
        c_mu = min(1 - c_1, c_mu)
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
    d_sigma = 1 + 2 * max(0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma
    alpha = min(1 + c_1 / c_mu, 1 + 2 * mu_eff_minus / (mu_eff + 2), (1 - c_1 - c_mu) / (n * c_mu))
    weights = [w / sum(raw[raw >= 0]) if w >= 0 else alpha * w / -sum(raw[raw < 0]) for w in raw]
    chi = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))

    whole = np.diag(held.covariance) if diagonal else held.covariance
    values, basis = np.linalg.eigh(whole)
    root = basis @ np.diag(1 / np.sqrt(values)) @ basis.T
    step = sum(weights[i] * steps[order[i]] for i in range(mu))
    before = held.parameters
    held.parameters = before + held.sigma * step
    held.path_sigma = (1 - c_sigma) * held.path_sigma + math.sqrt(c_sigma * (2 - c_sigma) * mu_eff) * root @ step
    held.generation += 1
    length = np.linalg.norm(held.path_sigma)
    held.sigma = held.sigma * math.exp(c_sigma / d_sigma * (length / chi - 1))
    moves = length / math.sqrt(1 - (1 - c_sigma) ** (2 * held.generation)) < (1.4 + 2 / (n + 1)) * chi
    held.path_c = (1 - c_c) * held.path_c + moves * math.sqrt(c_c * (2 - c_c) * mu_eff) * step
    covariance = (1 + (1 - moves) * c_1 * c_c * (2 - c_c) - c_1 - c_mu * sum(weights)) * whole
    covariance = covariance + c_1 * np.outer(held.path_c, held.path_c)
    for i, weight in enumerate(weights):
        y = steps[order[i]]
        scaled = weight if weight >= 0 else weight * n / np.sum((root @ y) ** 2)
        covariance = covariance + c_mu * scaled * np.outer(y, y)
    held.covariance = np.diag(covariance) if diagonal else covariance
    scales = np.sqrt(held.covariance if diagonal else np.linalg.eigvalsh(covariance))
    return {"sigma": held.sigma, "axis_ratio": scales.max() / scales.min()} | moved(before, held.parameters)

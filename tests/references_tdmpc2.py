"""TD-MPC2's update and plan in plain NumPy, by the rules of `references.py`: what `test_tdmpc2.py` compares with."""

from __future__ import annotations

import numpy as np
from references import Gaussian, at, gradient, mlp, moved, sigmoid
from references_dreamerv3 import cross_entropy, decoded, silu, softmax


def simplices(x):
    """Eight numbers after the other as a distribution."""
    return np.concatenate([softmax(part) for part in np.split(x, x.shape[-1] // 8, axis=-1)], axis=-1)


def encode(world, obs):
    return simplices(mlp(world["encoder"], obs, silu)["latent"])


def ahead(world, latent, action):
    return simplices(mlp(world["dynamics"], np.concatenate([latent, action], axis=-1), silu)["latent"])


def bins_of(params, latent, action):
    return mlp(params, np.concatenate([latent, action], axis=-1), silu)["bins"]


def policy_of(policy, latent):
    mean, log_std = np.split(mlp(policy, latent, silu)["policy"], 2, axis=-1)
    return Gaussian(np.concatenate([mean, -4 + 6 * sigmoid(log_std)], axis=-1))


def world_loss(agent, world, batch, led_to, target, weight):
    """Equation 3, step by step, each state of the model from the one before."""
    latent, parts, latents = encode(world, batch.obs[0]), np.zeros(3), []
    for t in range(agent.plan_horizon):
        action = batch.action[t]
        latents.append(latent)
        value = np.mean(
            [cross_entropy(bins_of(critic, latent, action), target[t]) for critic in world["critics"]], axis=0
        )
        reward = cross_entropy(bins_of(world["reward"], latent, action), batch.reward[t])
        latent = ahead(world, latent, action)
        consistency = np.mean((latent - led_to[t]) ** 2, axis=-1)
        parts += np.mean(weight[t] * np.stack([consistency, reward, value]), axis=1) / agent.plan_horizon
    return parts @ [20, 0.1, 0.1], parts, np.stack([*latents, latent])


def weights_of(agent, batch):
    """What steps count: less the further ahead they are, and nothing behind an ending; of H + 1 states."""
    weight, alive = [], np.ones(batch.reward.shape[1])
    for t in range(agent.plan_horizon):
        if t:
            alive = alive * ~(batch.terminated[t - 1] | batch.truncated[t - 1] | batch.first[t])
        weight.append(agent.rho**t * alive)
    return np.stack([*weight, agent.rho * weight[-1] * ~batch.terminated[-1]])


def tdmpc2(agent, held, batch, draws, progress):
    """Hansen et al. 2023, with the departures of `algorithms/tdmpc2.py`."""
    batch = batch._replace(**{name: getattr(batch, name).astype(bool) for name in ("first", "terminated", "truncated")})
    weight = weights_of(agent, batch)
    led_to = encode(held.world, batch.next_obs)
    next_action, _ = policy_of(held.policy, led_to).squashed(draws["next"])
    of_pair = [decoded(bins_of(held.targets[i], led_to, next_action)) for i in draws["pair"].astype(int)]
    target = batch.reward + agent.gamma * ~batch.terminated * np.minimum(*of_pair)
    loss, parts, latents = world_loss(agent, held.world, batch, led_to, target, weight)
    slopes = gradient(lambda world: world_loss(agent, world, batch, led_to, target, weight)[0], held.world)
    held.world = held.world_optimizer.step(held.world, slopes, at(agent.lr, progress))

    def values(policy):
        action, log_prob = policy_of(policy, latents).squashed(draws["now"])
        found = [decoded(bins_of(critic, latents, action)) for critic in held.world["critics"]]
        return np.mean(found, axis=0), log_prob

    value, log_prob = values(held.policy)
    low, high = np.quantile(value[0], [0.05, 0.95])
    held.value_range = 0.99 * held.value_range + 0.01 * (high - low)

    def policy_loss(policy):
        value, log_prob = values(policy)
        return np.mean(weight * (agent.entropy_coeff * log_prob - value / max(1.0, held.value_range)))

    metrics = {
        "world_model_loss": loss,
        **dict(zip(("consistency_loss", "reward_loss", "critic_loss"), parts, strict=True)),
        "actor_loss": policy_loss(held.policy),
        "entropy": -np.mean(log_prob),
        "mean_q": np.mean(target),
        "value_range": held.value_range,
        "grad_gnorm": held.world_optimizer.norm,
    }
    slopes = gradient(policy_loss, held.policy)
    held.policy = held.policy_optimizer.step(held.policy, slopes, at(agent.lr, progress))
    held.targets = moved(held.targets, held.world["critics"], agent.tau)
    return metrics


def value_of(agent, view, latent, actions):
    """What one sequence of actions `[H, n]` from one state is worth."""
    total, discount = 0.0, 1.0
    for action in actions:
        total += discount * decoded(bins_of(view["reward"], latent, action))
        latent, discount = ahead(view, latent, action), discount * agent.gamma
    action = np.tanh(policy_of(view["policy"], latent).mean)
    return total + discount * np.mean([decoded(bins_of(critic, latent, action)) for critic in view["critics"]])


def plan(agent, view, obs, mean, draws):
    """Section 3.2 for one row: the mean actions `[H, n]` and their deviations."""
    start = encode(view, obs)
    proposed = []
    for noise in draws["policy"]:  # [samples, H, n]
        latent, actions = start, []
        for each in noise:
            actions.append(policy_of(view["policy"], latent).squashed(each)[0])
            latent = ahead(view, latent, actions[-1])
        proposed.append(actions)
    std = np.full(mean.shape, agent.max_std)
    for noise in draws["plan"]:  # [iterations, samples, H, n]
        drawn = np.clip(mean + std * noise, -1, 1)
        sequences = np.concatenate([drawn, proposed])
        values = np.array([value_of(agent, view, start, actions) for actions in sequences])
        best = np.argsort(-values)[: agent.num_elites]
        weight = softmax(agent.temperature * values[best])[:, None, None]
        mean = np.sum(weight * sequences[best], axis=0)
        variance = np.sum(weight * (sequences[best] - mean) ** 2, axis=0)
        std = np.clip(np.sqrt(variance), agent.min_std, agent.max_std)
    return mean, std

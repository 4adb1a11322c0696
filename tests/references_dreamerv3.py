"""DreamerV3's update in plain NumPy, by the rules of `references.py`: what `test_dreamerv3.py` holds the library to."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from references import Categorical, Gaussian, at, gradient, hidden, mlp, moved, sigmoid


def silu(x):
    return x * sigmoid(x)


def squash(x):
    return np.sign(x) * np.log(np.abs(x) + 1)


def unsquash(x):
    return np.sign(x) * (np.exp(np.abs(x)) - 1)


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def mixed(logits):
    """Log-probabilities, a hundredth of them uniform."""
    return np.log(0.99 * softmax(logits) + 0.01 / logits.shape[-1])


def encoded(x, number):
    """Two-hot encodings, one number after the other."""
    places = np.linspace(-20, 20, number)
    weights = np.zeros((*x.shape, number))
    for index in np.ndindex(x.shape):
        y = squash(x[index])
        below = np.searchsorted(places, y, side="right") - 1
        share = (y - places[below]) / (places[below + 1] - places[below])
        weights[index][below], weights[index][below + 1] = 1 - share, share
    return weights


def decoded(logits):
    return unsquash(np.sum(softmax(logits) * np.linspace(-20, 20, logits.shape[-1]), axis=-1))


def cross_entropy(logits, x):
    return -np.sum(encoded(x, logits.shape[-1]) * np.log(softmax(logits)), axis=-1)


class Constant:
    """What a paper holds constant in a gradient: as it was in the first run of the loss, in the order of asking."""

    def __init__(self):
        self.values, self.at = [], None

    def run(self):
        self.at = None if not self.values else 0

    def __call__(self, value):
        if self.at is None:
            self.values.append(value)
            return value
        self.at += 1
        return self.values[self.at - 1]


def drawn(log_probs, gumbel, constant):
    """One-hot draws, through which a gradient goes straight to the probabilities."""
    best = np.argmax(log_probs + gumbel, axis=-1)
    probs = np.exp(log_probs)
    hot = constant(np.eye(log_probs.shape[-1])[best]) + probs - constant(probs)
    return hot.reshape(*hot.shape[:-2], -1)


def recur(params, deter, stoch, action):
    x = hidden([params["input"]], np.concatenate([stoch, action], axis=-1), silu)
    gates = hidden([params["gates"]], np.concatenate([deter, x], axis=-1), lambda x: x)
    reset, candidate, update = np.split(gates, 3, axis=-1)
    update = sigmoid(update - 1)
    return (1 - update) * deter + update * np.tanh(sigmoid(reset) * candidate)


def log_probs_of(agent, params, x):
    return mixed(mlp(params, x, silu)["logits"].reshape(*x.shape[:-1], agent.rssm.groups, agent.rssm.classes))


def policy_of(agent, actor, seen):
    outputs = mlp(actor, seen, silu)["policy"]
    if not agent.spec.action.shape:
        return Categorical(mixed(outputs))
    found = Gaussian(outputs)
    found.mean, found.std = np.tanh(found.mean), 0.1 + 0.9 * sigmoid(np.log(found.std) + 2)
    return found


def actions_of(agent, action):
    return np.clip(action, -1, 1) if agent.spec.action.shape else np.eye(agent.spec.action.n)[action]


def states_of(agent, world, batch, draws, constant):
    """h, z and log-probabilities of z by what was seen, at the first observation and after each step, one by one."""
    rows, rssm = batch.reward.shape[1], world["rssm"]

    def observe(deter, stoch, action, obs, gumbel):
        deter = recur(rssm, deter, stoch, action)
        embed = mlp(world["encoder"], squash(obs), silu)["embed"]
        log_probs = log_probs_of(agent, rssm["posterior"], np.concatenate([deter, embed], axis=-1))
        return deter, drawn(log_probs, gumbel, constant), log_probs

    action = actions_of(agent, batch.action)
    nothing = np.zeros((rows, agent.rssm.deter)), np.zeros((rows, agent.rssm.groups * agent.rssm.classes))
    found = []
    for t in range(len(batch.reward)):
        begun = observe(*nothing, np.zeros_like(action[t]), batch.obs[t], draws["begin"][t])
        if t == 0:
            found.append(begun)
        new_episode = batch.first[t][:, None] | (t == 0)
        deter, stoch = (np.where(new_episode, new, old) for new, old in zip(begun, found[-1][:2], strict=False))
        found.append(observe(deter, stoch, action[t], batch.next_obs[t], draws["states"][t]))
    return [np.stack(part) for part in zip(*found, strict=True)]


def model_loss(agent, world, batch, draws, constant):
    """Equations 4 and 5, and the parts: of all states what was seen, of those after steps also reward and going on."""
    constant.run()
    deter, stoch, posterior = states_of(agent, world, batch, draws, constant)
    prior = log_probs_of(agent, world["rssm"]["prior"], deter)
    heads = mlp(world["heads"], np.concatenate([deter, stoch], axis=-1), silu)
    obs = np.concatenate([batch.obs[:1], batch.next_obs])

    def divergence(p, q):
        return np.maximum(agent.free_nats, np.sum(np.exp(p) * (p - q), axis=(-1, -2))).mean()

    going = sigmoid(heads["continue"][1:, :, 0])
    parts = {
        "decoder_loss": np.mean(0.5 * np.sum((heads["obs"] - squash(obs)) ** 2, axis=-1)),
        "reward_loss": np.mean(cross_entropy(heads["reward"][1:], batch.reward)),
        "continue_loss": -np.mean(np.log(np.where(batch.terminated, 1 - going, going))),
        "dynamics_loss": divergence(constant(posterior), prior),
        "representation_loss": divergence(posterior, constant(prior)),
    }
    loss = parts["decoder_loss"] + parts["reward_loss"] + parts["continue_loss"]
    return loss + 0.5 * parts["dynamics_loss"] + 0.1 * parts["representation_loss"], parts


def dream_of(agent, world, actor, deter, stoch, going, draws):
    """What happens in a dream, step by step, and how much each of its steps counts."""
    dream = SimpleNamespace(
        seen=[np.concatenate([deter, stoch], axis=-1)], action=[], reward=[], discount=[], weight=[]
    )
    constant = Constant()
    for t in range(agent.horizon_H):
        policy, noise = policy_of(agent, actor, dream.seen[-1]), draws["actions"][t]
        if agent.spec.action.shape:
            action = policy.mean + policy.std * noise
        else:
            action = np.argmax(policy.log_probs + noise, axis=-1)
        deter = recur(world["rssm"], deter, stoch, actions_of(agent, action))
        stoch = drawn(log_probs_of(agent, world["rssm"]["prior"], deter), draws["dream"][t], constant)
        dream.seen.append(np.concatenate([deter, stoch], axis=-1))
        heads = mlp(world["heads"], dream.seen[-1], silu)
        dream.action.append(action)
        dream.reward.append(decoded(heads["reward"]))
        dream.discount.append(agent.gamma * sigmoid(heads["continue"][:, 0]))
        dream.weight.append(going)
        going = going * dream.discount[-1]
    return SimpleNamespace(**{name: np.stack(part) for name, part in vars(dream).items()})


def returns_of(agent, dream, value):
    """Equation 7, from behind."""
    return_, returns = value[-1], []
    for t in reversed(range(agent.horizon_H)):
        mean = (1 - agent.gae_lambda) * value[t + 1] + agent.gae_lambda * return_
        return_ = dream.reward[t] + dream.discount[t] * mean
        returns.insert(0, return_)
    return np.stack(returns)


def dreamer(agent, held, batch, draws, progress):
    """Hafner et al. 2023, with the departures of `algorithms/dreamerv3.py`."""
    constant = Constant()
    loss, metrics = model_loss(agent, held.world, batch, draws, constant)
    metrics["world_model_loss"] = loss
    deter, stoch, _ = (
        part.reshape(-1, *part.shape[2:]) for part in replayed(agent, held.world, batch, draws, constant)
    )
    slopes = gradient(lambda world: model_loss(agent, world, batch, draws, constant)[0], held.world)
    held.world = held.world_optimizer.step(held.world, slopes, at(agent.world_model_lr, progress))
    metrics["grad_gnorm"] = held.world_optimizer.norm

    going = np.concatenate([np.ones_like(batch.reward[:1]), 1 - batch.terminated.astype(float)]).reshape(-1)
    dream = dream_of(agent, held.world, held.actor, deter, stoch, going, draws)
    seen, value = dream.seen[:-1], decoded(mlp(held.critic, dream.seen, silu)["value"])
    slow = decoded(mlp(held.slow_critic, seen, silu)["value"])
    returns = returns_of(agent, dream, value)
    decay, (low, high) = agent.return_normalization_decay, np.quantile(returns, [0.05, 0.95])
    held.return_range = decay * held.return_range + (1 - decay) * (high - low)
    advantage = (returns - value[:-1]) / max(1.0, held.return_range)

    def actor_loss(actor):
        policy = policy_of(agent, actor, seen)
        gain = advantage * policy.log_prob(dream.action) + agent.entropy_scale * policy.entropy()
        return -np.mean(dream.weight * gain)

    def critic_loss(critic):
        logits = mlp(critic, seen, silu)["value"]
        return np.mean(dream.weight * (cross_entropy(logits, returns) + cross_entropy(logits, slow)))

    metrics |= {
        "actor_loss": actor_loss(held.actor),
        "critic_loss": critic_loss(held.critic),
        "entropy": np.mean(policy_of(agent, held.actor, seen).entropy()),
        "dream_return": np.mean(returns),
        "return_range": held.return_range,
    }
    slopes = gradient(actor_loss, held.actor), gradient(critic_loss, held.critic)
    held.actor = held.actor_optimizer.step(held.actor, slopes[0], at(agent.actor_lr, progress))
    held.critic = held.critic_optimizer.step(held.critic, slopes[1], at(agent.critic_lr, progress))
    held.slow_critic = moved(held.slow_critic, held.critic, 0.02)
    return metrics


def replayed(agent, world, batch, draws, constant):
    """The states of the first run of the loss."""
    constant.run()
    return states_of(agent, world, batch, draws, constant)

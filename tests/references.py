"""Every algorithm's update in plain NumPy, slow and obvious: what `test_references.py` holds the library to.

Written from the papers, not from the library, in float64 and with loops. Networks are functions of nested dicts of
arrays, gradients are central differences of the loss, and what a paper holds constant is computed outside of it. An
update reads its settings from `agent`, changes what is `held` (parameters, optimisers, targets) and gives the metrics
that are to agree. Random numbers are given, as arrays: `draws`.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

# Trees: nested dicts, lists and tuples of arrays ---------------------------------------------------------------------


def leaves(tree):
    """The arrays of a tree, dicts in the order of their names: the order in which optimisers keep their moments."""
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def mapped(function, tree, *others):
    """`function` of the leaves of trees of the same form."""
    if isinstance(tree, dict):
        return {name: mapped(function, tree[name], *(other[name] for other in others)) for name in tree}
    if isinstance(tree, list | tuple):
        parts = [mapped(function, *each) for each in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return function(tree, *others)


def gradient(loss, params, step=1e-5):
    """Central differences of `loss(params)`, in the form of `params`."""
    params = mapped(np.array, params)
    slopes = mapped(np.zeros_like, params)
    for leaf, slope in zip(leaves(params), leaves(slopes), strict=True):
        for index in np.ndindex(leaf.shape):
            middle = leaf[index]
            leaf[index] = middle + step
            above = loss(params)
            leaf[index] = middle - step
            slope[index] = (above - loss(params)) / (2 * step)
            leaf[index] = middle
    return slopes


# Optimising ----------------------------------------------------------------------------------------------------------


class Adam:
    """Kingma & Ba 2015, algorithm 1, on gradients whose common norm is cut to `clip`."""

    def __init__(self, params, epsilon=1e-8, clip=None, beta1=0.9):
        self.mean, self.square = mapped(np.zeros_like, params), mapped(np.zeros_like, params)
        self.count, self.epsilon, self.clip, self.beta1 = 0, epsilon, clip, beta1
        self.norm = 0.0  # of the last gradients, before they were cut

    def step(self, params, gradients, lr):
        self.norm = math.sqrt(sum(np.sum(part**2) for part in leaves(gradients)))
        if self.clip is not None and self.norm > self.clip:
            gradients = mapped(lambda part: part * self.clip / self.norm, gradients)
        self.count += 1
        self.mean = mapped(lambda m, g: self.beta1 * m + (1 - self.beta1) * g, self.mean, gradients)
        self.square = mapped(lambda v, g: 0.999 * v + 0.001 * g**2, self.square, gradients)
        bias1, bias2 = 1 - self.beta1**self.count, 1 - 0.999**self.count
        return mapped(
            lambda p, m, v: p - lr * (m / bias1) / (np.sqrt(v / bias2) + self.epsilon), params, self.mean, self.square
        )


def at(setting, progress):
    """What a number or a schedule of it is worth."""
    return float(np.interp(progress, setting.at, setting.values)) if hasattr(setting, "values") else setting


def moved(target, online, tau):
    """Polyak averaging."""
    return mapped(lambda old, new: (1 - tau) * old + tau * new, target, online)


def sync(agent, held, online, tau):
    """Count this update's timesteps, and move the target network where enough of them have passed."""
    held.since += agent.timesteps_per_update
    move_if_due(agent, held, online, tau)


def move_if_due(agent, held, online, tau):
    if held.since >= agent.target_network_update_freq:
        held.target = moved(held.target, online, tau)
        held.since = max(held.since - agent.target_network_update_freq, 0.0)


# Networks ------------------------------------------------------------------------------------------------------------


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def hidden(layers, x, squash=np.tanh):
    """Dense layers: product, dropout, layer normalisation where there is one, activation."""
    for layer in layers:
        x = dense(layer, x)
        if "keep" in layer:
            x = x * layer["keep"]
        if "scale" in layer:
            centred = x - x.mean(axis=-1, keepdims=True)
            x = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-6) * layer["scale"] + layer["shift"]
        x = squash(x)
    return x


def mlp(params, x, squash=np.tanh):
    """`{head: [..., outputs]}`."""
    x = hidden(params["layers"], x, squash)
    return {name: dense(head, x) for name, head in params["heads"].items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(params, state, obs, first):
    """States (hidden, cell) before and after each of the steps `obs` `[T, B, n]`, `T + 1`, and heads of the last T."""
    states = [state]
    for x, new_episode in zip(obs, first, strict=True):
        hidden_state, cell = (np.where(new_episode[:, None], 0.0, part) for part in states[-1])
        gates = dense(params["input"], hidden(params["layers"], x)) + dense(params["state"], hidden_state)
        write, forget, show, new = np.split(gates, 4, axis=-1)
        cell = sigmoid(forget) * cell + sigmoid(write) * np.tanh(new)
        states.append((sigmoid(show) * np.tanh(cell), cell))
    shown = np.stack([hidden_state for hidden_state, _ in states[1:]])
    return states, {name: dense(head, shown) for name, head in params["heads"].items()}


def lstm_zeros(params, rows):
    size = params["state"]["kernel"].shape[0]
    return np.zeros((rows, size)), np.zeros((rows, size))


def step_on(params, states, obs, first=None):
    """Heads `[T, B, outputs]` of one more step on `obs` `[T, B, n]`, each from its own one of `states`."""
    first = np.zeros(obs.shape[:2], bool) if first is None else first
    steps = [lstm(params, state, x[None], new[None])[1] for state, x, new in zip(states, obs, first, strict=True)]
    return {name: np.concatenate([heads[name] for heads in steps]) for name in steps[0]}


# Returns -------------------------------------------------------------------------------------------------------------


def n_step(batch, gamma, start=0, length=None):
    """Of each row's steps from `start`: discounted rewards, the discount of what follows, and the last step."""
    length = batch.reward.shape[0] if length is None else length
    rows = range(batch.reward.shape[1])
    found = [_n_step_of_row(batch, gamma, row, start, length) for row in rows]
    totals, discounts, lasts = zip(*found, strict=True)
    return np.array(totals), np.array(discounts), np.array(lasts)


def _n_step_of_row(batch, gamma, row, start, length):
    total, discount = 0.0, 1.0
    for t in range(start, start + length):
        total += discount * batch.reward[t, row]
        discount *= gamma
        if batch.terminated[t, row]:
            return total, 0.0, t
        if batch.truncated[t, row] or t == start + length - 1 or batch.first[t + 1, row]:
            return total, discount, t
    raise AssertionError("a window has a step")


def advantages(batch, value, next_value, gamma, lambda_):
    """Generalised advantage estimates `[T, B]` (Schulman et al. 2016, equation 16), from the last step backwards."""
    found, following = np.zeros(value.shape), np.zeros(value.shape[1])
    for t in reversed(range(value.shape[0])):
        delta = batch.reward[t] + gamma * np.where(batch.terminated[t], 0, next_value[t]) - value[t]
        over = batch.terminated[t] | batch.truncated[t]
        following = found[t] = delta + np.where(over, 0, gamma * lambda_ * following)
    return found


def vtrace(agent, batch, log_ratio, value, next_value):
    """Targets and advantages `[T, B]` (Espeholt et al. 2018, equation 1), from the last step backwards."""
    ratio, beyond = np.exp(log_ratio), np.zeros(value.shape[1])
    rho, policy_rho = (
        np.minimum(agent.vtrace_clip_rho_threshold, ratio),
        np.minimum(agent.vtrace_clip_pg_rho_threshold, ratio),
    )
    target, advantage = np.zeros(value.shape), np.zeros(value.shape)
    following = None
    for t in reversed(range(value.shape[0])):
        over, led = batch.terminated[t] | batch.truncated[t], np.where(batch.terminated[t], 0, next_value[t])
        after = led if following is None else np.where(over, led, following)
        advantage[t] = policy_rho[t] * (batch.reward[t] + agent.gamma * after - value[t])
        trace = np.where(over, 0, agent.gamma * agent.lambda_ * np.minimum(1, ratio[t]))
        beyond = rho[t] * (batch.reward[t] + agent.gamma * led - value[t]) + trace * beyond
        following = target[t] = value[t] + beyond
    return target, advantage


def lambda_returns(batch, next_value, gamma, lambda_):
    """Peng's Q(lambda) `[T, B]`; the last step bootstraps alone."""
    found, following = np.zeros(next_value.shape), next_value[-1]
    for t in reversed(range(next_value.shape[0])):
        mixed = (1 - lambda_) * next_value[t] + lambda_ * following
        goes_on = np.where(batch.truncated[t], next_value[t], mixed)
        following = found[t] = batch.reward[t] + gamma * np.where(batch.terminated[t], 0, goes_on)
    return found


def weights(batch):
    return batch.extras["weight"][0] if "weight" in batch.extras else np.ones(batch.reward.shape[1])


# Losses and distributions --------------------------------------------------------------------------------------------


def huber(error, delta=1.0):
    size = np.abs(error)
    return np.where(size <= delta, 0.5 * error**2, delta * (size - 0.5 * delta))


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def softmax(x):
    return np.exp(log_softmax(x))


def quantile_huber(quantiles, samples, fractions, kappa, share=None):
    """QR-DQN's equation 10 for each row: a sum over quantiles of the mean over samples."""
    error = samples[:, None, :] - quantiles[:, :, None]
    share = np.full(samples.shape, 1 / samples.shape[1]) if share is None else share
    side = np.abs(fractions[..., :, None] - (error < 0))
    return np.sum(side * huber(error, kappa) / kappa * share[:, None, :], axis=(1, 2))


class Categorical:
    def __init__(self, outputs):
        self.log_probs = log_softmax(outputs)

    def log_prob(self, action):
        return np.take_along_axis(self.log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self):
        return -np.sum(np.exp(self.log_probs) * self.log_probs, axis=-1)

    def kl(self, other):
        return np.sum(np.exp(self.log_probs) * (self.log_probs - other.log_probs), axis=-1)


class Gaussian:
    """Independent normal distributions; their log standard deviations are the second half of the outputs."""

    def __init__(self, outputs):
        self.mean, log_std = np.split(outputs, 2, axis=-1)
        self.std = np.exp(np.clip(log_std, -20, 2))

    def log_prob(self, action):
        density = np.exp(-0.5 * ((action - self.mean) / self.std) ** 2) / (self.std * math.sqrt(2 * math.pi))
        return np.sum(np.log(density), axis=-1)

    def entropy(self):
        return np.sum(0.5 * np.log(2 * math.pi * math.e * self.std**2), axis=-1)

    def kl(self, other):
        ratio = (self.std**2 + (self.mean - other.mean) ** 2) / (2 * other.std**2)
        return np.sum(np.log(other.std / self.std) + ratio - 0.5, axis=-1)

    def squashed(self, normal):
        """tanh of a sample, and its log probability (SAC's equation 26)."""
        raw = self.mean + self.std * normal
        action = np.tanh(raw)
        return action, self.log_prob(raw) - np.sum(np.log(1 - action**2), axis=-1)


# Q-learning ----------------------------------------------------------------------------------------------------------


def q_network(params, optimizer, target):
    return SimpleNamespace(params=params, target=target, optimizer=optimizer, since=0.0)


def dueling(heads, actions, outputs):
    """Action values `[B, actions, outputs]` (Wang et al. 2016, equation 9), where there is a head for the value."""
    advantage = heads["advantage"].reshape(-1, actions, outputs)
    if "value" not in heads:
        return advantage
    return heads["value"].reshape(-1, 1, outputs) + advantage - advantage.mean(axis=1, keepdims=True)


def noisy(params, normal):
    """A draw of a noisy network (Fortunato et al. 2018, equations 10 and 11), or the plain network as it is.

    Each layer has one number for each of its inputs and one for each of its outputs, in the order of the tree.
    """
    if "sigma" not in params:
        return params
    noise = iter(np.sign(normal) * np.sqrt(np.abs(normal)))

    def drawn(mean, sigma):
        if isinstance(mean, list):
            return [drawn(*each) for each in zip(mean, sigma, strict=True)]
        if "kernel" not in mean:
            return {name: drawn(mean[name], sigma[name]) for name in sorted(mean)}
        inputs, outputs = (np.array([next(noise) for _ in range(size)]) for size in mean["kernel"].shape)
        kernel = mean["kernel"] + sigma["kernel"] * np.outer(inputs, outputs)
        return {"kernel": kernel, "bias": mean["bias"] + sigma["bias"] * outputs}

    return drawn(params["mean"], params["sigma"])


def mapped_in_order(function, tree, other):
    """`mapped`, with the names of dicts in order: for functions that remember."""
    if isinstance(tree, dict):
        return {name: mapped_in_order(function, tree[name], other[name]) for name in sorted(tree)}
    if isinstance(tree, list):
        return [mapped_in_order(function, a, b) for a, b in zip(tree, other, strict=True)]
    return function(tree, other)


def dqn(agent, held, batch, draws, progress):
    """Mnih et al. 2015, algorithm 1, with the parts of Rainbow that are on; also SimpleQ."""
    rows, action, weight = np.arange(batch.reward.shape[1]), batch.action[0], weights(batch)
    number = getattr(agent, "num_atoms", 1)
    support = np.linspace(agent.v_min, agent.v_max, number) if number > 1 else None

    def outputs(params, obs):
        heads = mlp(params, obs)
        return heads["q"][..., None] if "q" in heads else dueling(heads, agent.spec.action.n, number)

    def values(outputs):
        return outputs[..., 0] if number == 1 else softmax(outputs) @ support

    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, rows]
    believed = outputs(noisy(held.target, draws["target"]), next_obs)
    double = getattr(agent, "double_q", False)
    choosing = outputs(noisy(held.params, draws["next"]), next_obs) if double else believed
    best = believed[rows, np.argmax(values(choosing), axis=1)]
    target = reward + discount * best[:, 0]
    if number > 1:
        target = project(softmax(best), reward, discount, support)

    def errors(params):
        taken = outputs(noisy(params, draws["online"]), batch.obs[0])[rows, action]
        return -np.sum(target * log_softmax(taken), axis=1) if number > 1 else taken[:, 0] - target

    def loss(params):
        error = errors(params)
        if number > 1:
            return np.mean(weight * error)
        return np.mean(weight * (huber(error) if agent.td_error_loss_fn == "huber" else 0.5 * error**2))

    metrics = {"loss": loss(held.params), "td_error": errors(held.params)}
    return metrics | learn_values(agent, held, loss, progress)


def learn_values(agent, held, loss, progress):
    """A step down the loss, and the target network's."""
    lr = at(agent.lr, progress)
    held.params = held.optimizer.step(held.params, gradient(loss, held.params), lr)
    sync(agent, held, held.params, getattr(agent, "tau", 1.0))
    return {"grad_gnorm": held.optimizer.norm, "cur_lr": lr}


def project(probabilities, reward, discount, support):
    """C51's algorithm 1, atom by atom."""
    projected, spacing = np.zeros(probabilities.shape), support[1] - support[0]
    for row, atom in np.ndindex(probabilities.shape):
        place = np.clip(reward[row] + discount[row] * support[atom], support[0], support[-1])
        b = (place - support[0]) / spacing
        lower = min(int(b), len(support) - 2)
        projected[row, lower] += probabilities[row, atom] * (lower + 1 - b)
        projected[row, lower + 1] += probabilities[row, atom] * (b - lower)
    return projected


def qrdqn(agent, held, batch, draws, progress):
    """Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile Regression", algorithm 1."""
    number = agent.num_quantiles
    fractions = (np.arange(number) + 0.5) / number

    def quantiles(params, obs, fractions):
        return dueling(mlp(params, obs), agent.spec.action.n, number)

    return quantile_regression(agent, held, batch, quantiles, (fractions, fractions, fractions), progress)


def iqn(agent, held, batch, draws, progress):
    """Dabney et al. 2018, "Implicit Quantile Networks", equations 2 to 4."""
    number = agent.num_acting_fractions
    even = np.tile((np.arange(number) + 0.5) / number, (batch.reward.shape[1], 1))

    def quantiles(params, obs, fractions):
        seen = np.maximum(mlp(params["torso"], obs)["features"], 0)
        cosines = np.cos(math.pi * np.arange(64) * fractions[:, :, None])
        product = seen[:, None] * np.maximum(dense(params["fraction"], cosines), 0)
        hidden = np.maximum(dense(params["hidden"], product), 0)
        return np.swapaxes(dense(params["values"], hidden), 1, 2)

    fractions = draws["fractions"], draws["target_fractions"], even
    return quantile_regression(agent, held, batch, quantiles, fractions, progress)


def quantile_regression(agent, held, batch, quantiles, fractions, progress):
    """The quantiles of the action taken towards samples of the best next action's return."""
    rows, action = np.arange(batch.reward.shape[1]), batch.action[0]
    learned, sampled, acting = fractions
    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, rows]
    chooser = held.params if agent.double_q else held.target
    best = np.argmax(quantiles(chooser, next_obs, acting).mean(axis=-1), axis=1)
    samples = reward[:, None] + discount[:, None] * quantiles(held.target, next_obs, sampled)[rows, best]

    def loss(params):
        taken = quantiles(params, batch.obs[0], learned)[rows, action]
        return np.mean(weights(batch) * quantile_huber(taken, samples, learned, agent.kappa))

    taken = quantiles(held.params, batch.obs[0], learned)[rows, action]
    metrics = {"loss": loss(held.params), "td_error": taken.mean(axis=1) - samples.mean(axis=1)}
    return metrics | learn_values(agent, held, loss, progress)


def rescaled(x, epsilon):
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + epsilon * x


def unscaled(x, epsilon):
    """Pohlen et al. 2018, proposition A.2."""
    root = (np.sqrt(1 + 4 * epsilon * (np.abs(x) + 1 + epsilon)) - 1) / (2 * epsilon)
    return np.sign(x) * (root**2 - 1)


def r2d2(agent, held, batch, draws, progress):
    """Kapturowski et al. 2019, section 2.3, on windows of burn-in, `max_seq_len` steps and `n_step - 1` more."""
    burn, length, rows = agent.burn_in, agent.max_seq_len, batch.reward.shape[1]
    to, back = (rescaled, unscaled) if agent.use_h_function else (lambda x, _: x, lambda x, _: x)
    epsilon, actions = agent.h_function_epsilon, agent.spec.action.n

    def values(heads):
        steps = [mapped(lambda leaf, t=t: leaf[t], heads) for t in range(len(heads["advantage"]))]
        return np.stack([dueling(step, actions, 1)[..., 0] for step in steps])

    def warmed(params):
        start = lstm_zeros(params, rows) if agent.zero_init_states else tuple(leaf[0] for leaf in batch.carry.model)
        return lstm(params, start, batch.obs[:burn], batch.first[:burn])[0][-1]

    def run(params, start):
        return lstm(params, start, batch.obs[burn:], batch.first[burn:])

    def next_values(params):
        states, _ = run(params, warmed(params))
        return values(step_on(params, states[1:], batch.next_obs[burn:]))

    believed = next_values(held.target)
    best = np.argmax(next_values(held.params) if agent.double_q else believed, axis=-1)
    best = back(np.take_along_axis(believed, best[..., None], axis=-1)[..., 0], epsilon)
    target = np.zeros((length, rows))
    for t in range(length):
        reward, discount, last = n_step(batch, agent.gamma, burn + t, agent.n_step)
        target[t] = to(reward + discount * best[last - burn, np.arange(rows)], epsilon)
    start, action = warmed(held.params), batch.action[burn : burn + length]

    def errors(params):
        found = values(run(params, start)[1])[:length]
        return np.take_along_axis(found, action[..., None], axis=-1)[..., 0] - target

    def loss(params):
        return 0.5 * np.mean(weights(batch) * errors(params) ** 2)

    metrics = {"loss": loss(held.params), "td_error": sequence_priority(errors(held.params), agent.priority_eta)}
    return metrics | learn_values(agent, held, loss, progress)


def sequence_priority(error, eta):
    size = np.abs(error)
    return eta * size.max(axis=0) + (1 - eta) * size.mean(axis=0)


def pqn(agent, held, batch, draws, progress):
    """Gallici et al. 2024, algorithm 1: minibatches of lambda-returns, no target network."""
    best = mlp(held.params, batch.next_obs, relu)["q"].max(axis=-1)
    target = lambda_returns(batch, best, agent.gamma, agent.lambda_).reshape(-1)
    obs, action = (part.reshape(-1, *part.shape[2:]) for part in (batch.obs, batch.action))
    lr, losses = at(agent.lr, progress), []
    for order in draws["orders"]:

        def loss(params, order=order):
            value = mlp(params, obs[order], relu)["q"][np.arange(len(order)), action[order]]
            return 0.5 * np.mean((value - target[order]) ** 2)

        losses.append(loss(held.params))
        held.params = held.optimizer.step(held.params, gradient(loss, held.params), lr)
    return {"loss": np.mean(losses), "cur_lr": lr}


def relu(x):
    return np.maximum(x, 0)


# Actor-critics of deterministic policies -----------------------------------------------------------------------------


def td3(agent, held, batch, draws, progress):
    """Fujimoto et al. 2018, algorithm 1; with its three cures off, DDPG (Lillicrap et al. 2016, algorithm 1)."""
    action = batch.action[0]

    def values(critics, obs, action):
        return np.stack([mlp(critic, np.concatenate([obs, action], axis=-1))["q"][:, 0] for critic in critics])

    def policy(actor, obs):
        return np.tanh(mlp(actor, obs)["action"])

    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, np.arange(len(last))]
    next_action = policy(held.target["actor"], next_obs)
    if getattr(agent, "smooth_target_policy", False):
        clip = agent.target_noise_clip
        next_action = np.clip(next_action + np.clip(agent.target_noise * draws["noise"], -clip, clip), -1, 1)
    target = reward + discount * values(held.target["critics"], next_obs, next_action).min(axis=0)

    def critic_loss(critics):
        error = values(critics, batch.obs[0], action) - target
        each = huber(error, agent.huber_threshold) if agent.use_huber else 0.5 * error**2
        return np.mean(weights(batch) * each.sum(axis=0))

    error = values(held.critics, batch.obs[0], action) - target
    metrics = {"critic_loss": critic_loss(held.critics), "td_error": np.abs(error).mean(axis=0)}
    slopes = penalized(agent, gradient(critic_loss, held.critics), held.critics)
    held.critics = held.critic_optimizer.step(held.critics, slopes, at(agent.critic_lr, progress))
    metrics["critic_gnorm"] = held.critic_optimizer.norm
    held.since += agent.timesteps_per_update
    if held.critic_optimizer.count % getattr(agent, "policy_delay", 1):
        return metrics

    def actor_loss(actor):
        return -np.mean(values(held.critics[:1], batch.obs[0], policy(actor, batch.obs[0])))

    metrics["actor_loss"] = actor_loss(held.actor)
    slopes = penalized(agent, gradient(actor_loss, held.actor), held.actor)
    held.actor = held.actor_optimizer.step(held.actor, slopes, at(agent.actor_lr, progress))
    move_if_due(agent, held, {"actor": held.actor, "critics": held.critics}, agent.tau)
    return metrics


def penalized(agent, slopes, params):
    """With the gradient of half the squared weights of all matrices."""
    if agent.l2_reg is None:
        return slopes
    return mapped(lambda slope, leaf: slope + agent.l2_reg * leaf if leaf.ndim > 1 else slope, slopes, params)


# Soft actor-critics --------------------------------------------------------------------------------------------------


def learn_temperature(agent, held, entropy, progress):
    """Haarnoja et al. 2018, equation 18, in log alpha: where the policy is too random, alpha falls."""
    target = agent.target_entropy
    slope = {"log_alpha": np.array(np.mean(entropy) - target)}
    held.temperature = held.temperature_optimizer.step(held.temperature, slope, at(agent.alpha_lr, progress))


def soft_update(agent, held, progress, critic_loss, actor_loss):
    """One step of critics, actor (up the new critics) and temperature: `actor_loss` gives the policy's entropy too."""
    metrics = {"critic_loss": critic_loss(held.critics)}
    slopes = gradient(critic_loss, held.critics)
    held.critics = held.critic_optimizer.step(held.critics, slopes, at(agent.critic_lr, progress))
    metrics["grad_gnorm"] = held.critic_optimizer.norm
    return metrics | learn_policy(agent, held, progress, actor_loss)


def learn_policy(agent, held, progress, actor_loss):
    loss, entropy = actor_loss(held.actor)
    slopes = gradient(lambda actor: actor_loss(actor)[0], held.actor)
    held.actor = held.actor_optimizer.step(held.actor, slopes, at(agent.actor_lr, progress))
    learn_temperature(agent, held, entropy, progress)
    return {"actor_loss": loss, "entropy": np.mean(entropy)}


def joined(obs, action):
    return np.concatenate([obs, action], axis=-1)


def sac(agent, held, batch, draws, progress):
    """Haarnoja et al. 2018, algorithm 1, of continuous actions."""
    alpha = math.exp(held.temperature["log_alpha"])

    def values(critics, obs, action):
        return np.stack([mlp(critic, joined(obs, action))["q"][:, 0] for critic in critics])

    def soft_value(actor, critics, obs, normal):
        action, log_prob = Gaussian(mlp(actor, obs)["policy"]).squashed(normal)
        return values(critics, obs, action).min(axis=0) - alpha * log_prob, -log_prob

    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, np.arange(len(last))]
    target = reward + discount * soft_value(held.actor, held.target, next_obs, draws["next"])[0]
    errors = values(held.critics, batch.obs[0], batch.action[0]) - target

    def critic_loss(critics):
        error = values(critics, batch.obs[0], batch.action[0]) - target
        return np.mean(weights(batch) * 0.5 * np.sum(error**2, axis=0))

    def actor_loss(actor):
        value, entropy = soft_value(actor, held.critics, batch.obs[0], draws["now"])
        return -np.mean(value), entropy

    metrics = soft_update(agent, held, progress, critic_loss, actor_loss)
    sync(agent, held, held.critics, agent.tau)
    return metrics | {"td_error": np.abs(errors).mean(axis=0)}


def discrete_sac(agent, held, batch, draws, progress):
    """Christodoulou 2019: the soft value summed over all actions."""
    alpha, rows = math.exp(held.temperature["log_alpha"]), np.arange(batch.reward.shape[1])

    def values(critics, obs):
        return np.stack([mlp(critic, obs)["q"] for critic in critics])

    def soft_value(actor, critics, obs):
        log_probs = log_softmax(mlp(actor, obs)["policy"])
        soft = values(critics, obs).min(axis=0) - alpha * log_probs
        return np.sum(np.exp(log_probs) * soft, axis=1), -np.sum(np.exp(log_probs) * log_probs, axis=1)

    reward, discount, last = n_step(batch, agent.gamma)
    target = reward + discount * soft_value(held.actor, held.target, batch.next_obs[last, rows])[0]
    errors = values(held.critics, batch.obs[0])[:, rows, batch.action[0]] - target

    def critic_loss(critics):
        error = values(critics, batch.obs[0])[:, rows, batch.action[0]] - target
        return np.mean(weights(batch) * 0.5 * np.sum(error**2, axis=0))

    def actor_loss(actor):
        value, entropy = soft_value(actor, held.critics, batch.obs[0])
        return -np.mean(value), entropy

    metrics = soft_update(agent, held, progress, critic_loss, actor_loss)
    sync(agent, held, held.critics, agent.tau)
    return metrics | {"td_error": np.abs(errors).mean(axis=0)}


def tqc(agent, held, batch, draws, progress):
    """Kuznetsov et al. 2020, algorithm 1: the largest of the pooled quantiles are dropped."""
    alpha, number = math.exp(held.temperature["log_alpha"]), agent.num_quantiles
    fractions = (np.arange(number) + 0.5) / number
    kept = agent.num_critics * (number - agent.top_quantiles_to_drop_per_net)

    def quantiles(critics, obs, action):
        return np.stack([mlp(critic, joined(obs, action))["q"] for critic in critics])

    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, np.arange(len(last))]
    action, log_prob = Gaussian(mlp(held.actor, next_obs)["policy"]).squashed(draws["next"])
    pooled = np.sort(np.concatenate(list(quantiles(held.target, next_obs, action)), axis=-1), axis=-1)[:, :kept]
    target = reward[:, None] + discount[:, None] * (pooled - alpha * log_prob[:, None])
    errors = quantiles(held.critics, batch.obs[0], batch.action[0]).mean(axis=(0, 2)) - target.mean(axis=1)

    def critic_loss(critics):
        own = quantiles(critics, batch.obs[0], batch.action[0])
        losses = [quantile_huber(each, target, fractions, 1.0) / number for each in own]
        return np.mean(weights(batch) * sum(losses))

    def actor_loss(actor):
        action, log_prob = Gaussian(mlp(actor, batch.obs[0])["policy"]).squashed(draws["now"])
        value = quantiles(held.critics, batch.obs[0], action).mean(axis=(0, 2))
        return np.mean(alpha * log_prob - value), -log_prob

    metrics = soft_update(agent, held, progress, critic_loss, actor_loss)
    sync(agent, held, held.critics, agent.tau)
    return metrics | {"td_error": np.abs(errors)}


def rnnsac(agent, held, batch, draws, progress):
    """SAC along sequences with memory (Yang & Nguyen 2021), its losses added; continuous and discrete actions."""
    alpha, burn, length = math.exp(held.temperature["log_alpha"]), agent.burn_in, agent.max_seq_len
    rows, discrete = np.arange(batch.reward.shape[1]), "next" not in draws
    obs, next_obs, first = batch.obs[burn:], batch.next_obs[burn:], batch.first[burn:]

    def inputs(obs, action):
        return obs if discrete else joined(obs, action)

    def actor_start(actor):
        stored = tuple(leaf[0] for leaf in batch.carry.model)
        start = lstm_zeros(actor, len(rows)) if agent.zero_init_states else stored
        return lstm(actor, start, batch.obs[:burn], batch.first[:burn])[0][-1]

    def critic_start(critic):
        taken = inputs(batch.obs[:burn], batch.action[:burn])
        return lstm(critic, lstm_zeros(critic, len(rows)), taken, batch.first[:burn])[0][-1]

    def critic_run(critic, start):
        states, heads = lstm(critic, start, inputs(obs, batch.action[burn:]), first)
        if discrete:
            return states, np.take_along_axis(heads["q"], batch.action[burn:][..., None], axis=-1)[..., 0]
        return states, heads["q"][..., 0]

    def soft_value(outputs, critics, states, obs, first, normal):
        """`states` are the critics' before they see `obs`."""

        def smallest(seen):
            pairs = zip(critics, states, strict=True)
            return np.min([step_on(critic, own, seen, first)["q"] for critic, own in pairs], axis=0)

        if discrete:
            log_probs = log_softmax(outputs)
            soft = np.sum(np.exp(log_probs) * (smallest(obs) - alpha * log_probs), axis=-1)
            return soft, -np.sum(np.exp(log_probs) * log_probs, axis=-1)
        action, log_prob = Gaussian(outputs).squashed(normal)
        return smallest(joined(obs, action))[..., 0] - alpha * log_prob, -log_prob

    actor_begins, critics_begin = actor_start(held.actor), [critic_start(critic) for critic in held.critics]
    after_actor = lstm(held.actor, actor_begins, obs, first)[0][1:]
    after_target = [critic_run(critic, critic_start(critic))[0][1:] for critic in held.target]
    outputs = step_on(held.actor, after_actor, next_obs)["policy"]
    next_value, _ = soft_value(outputs, held.target, after_target, next_obs, np.zeros_like(first), draws.get("next"))
    target = np.zeros((length, len(rows)))
    for t in range(length):
        reward, discount, last = n_step(batch, agent.gamma, burn + t, agent.n_step)
        target[t] = reward + discount * next_value[last - burn, rows]

    def errors(critics):
        pairs = zip(critics, critics_begin, strict=True)
        return np.stack([critic_run(critic, start)[1][:length] for critic, start in pairs]) - target

    def critic_loss(critics):
        return 0.5 * np.mean(np.sum(weights(batch) * errors(critics) ** 2, axis=0))

    states_now = [critic_run(critic, start)[0][:-1] for critic, start in zip(held.critics, critics_begin, strict=True)]
    before = held.critics

    def actor_loss(actor):
        outputs = lstm(actor, actor_begins, obs, first)[1]["policy"]
        value, entropy = soft_value(outputs, before, states_now, obs, first, draws.get("now"))
        return -np.mean(value), entropy

    priority = sequence_priority(np.abs(errors(held.critics)).mean(axis=0), agent.priority_eta)
    metrics = soft_update(agent, held, progress, critic_loss, actor_loss)
    sync(agent, held, held.critics, agent.tau)
    return metrics | {"td_error": priority}


def soft_batches(agent, held, batch, draws):
    """The batches of an update of REDQ, DroQ or CrossQ: rows go to the critics' updates in turn or in blocks."""
    alpha, rows = math.exp(held.temperature["log_alpha"]), np.arange(batch.reward.shape[1])
    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, rows]
    action, log_prob = held.policy(held.actor, next_obs).squashed(draws["next"])
    parts = SimpleNamespace(
        obs=batch.obs[0],
        inputs=joined(batch.obs[0], batch.action[0]),
        next_inputs=joined(next_obs, action),
        reward=reward - discount * alpha * log_prob,
        discount=discount,
        weight=weights(batch),
    )
    blocks = {name: part.reshape(agent.policy_delay, -1, *part.shape[1:]) for name, part in vars(parts).items()}
    return [SimpleNamespace(**{name: part[i] for name, part in blocks.items()}) for i in range(agent.policy_delay)]


def redq(agent, held, batch, draws, progress):
    """Chen et al. 2021, algorithm 1, and with dropout Hiraoka et al. 2022, algorithm 2: `policy_delay` updates of the
    critics, each on a batch of its own, and one of the policy. Critics are kept side by side, `[critics, ...]`.
    """
    alpha = math.exp(held.temperature["log_alpha"])

    def value(critics, which, inputs, keep):
        critic = mapped(lambda leaf: leaf[which], critics)
        if keep is not None:
            masks = np.split(keep, np.cumsum([layer["bias"].size for layer in critic["layers"]])[:-1], axis=1)
            layers = [{**layer, "keep": mask} for layer, mask in zip(critic["layers"], masks, strict=True)]
            critic = {**critic, "layers": layers}
        return mlp(critic, inputs)["q"][:, 0]

    def masks(keeps, number):
        return keeps if keeps is not None else [None] * number

    batches, losses, priorities = soft_batches(agent, held, batch, draws), [], []
    for samples, drawn in zip(batches, draws["critics"], strict=True):
        chosen = drawn["chosen"]
        keeps = masks(drawn["target_keep"], len(chosen))
        believed = [value(held.target, i, samples.next_inputs, keep) for i, keep in zip(chosen, keeps, strict=True)]
        target = samples.reward + samples.discount * np.min(believed, axis=0)
        keeps = masks(drawn["online_keep"], agent.num_critics)

        def errors(critics, samples=samples, keeps=keeps, target=target):
            return np.stack([value(critics, i, samples.inputs, keep) - target for i, keep in enumerate(keeps)])

        def loss(critics, samples=samples, errors=errors):
            return 0.5 * np.sum(np.mean(samples.weight * errors(critics) ** 2, axis=1))

        losses.append(loss(held.critics) / agent.num_critics)
        priorities.append(np.abs(errors(held.critics)).mean(axis=0))
        slopes = gradient(loss, held.critics)
        held.critics = held.critic_optimizer.step(held.critics, slopes, at(agent.critic_lr, progress))
        held.target = moved(held.target, held.critics, agent.tau)

    obs, keeps = batches[-1].obs, masks(draws["policy_keep"], agent.num_critics)

    def actor_loss(actor):
        action, log_prob = held.policy(actor, obs).squashed(draws["now"])
        values = [value(held.critics, i, joined(obs, action), keep) for i, keep in enumerate(keeps)]
        return np.mean(alpha * log_prob - np.mean(values, axis=0)), -log_prob

    metrics = learn_policy(agent, held, progress, actor_loss)
    return metrics | {"critic_loss": np.mean(losses), "td_error": np.concatenate(priorities)}


EPSILON, LARGEST_RATIO, LARGEST_SHIFT = 1e-3, 3.0, 5.0  # of batch normalisation


def batch_norm(learned, running, x, constants=None, momentum=0.99, late=False):
    """A network whose layers standardise over the batch (Ioffe 2017, algorithm 1): heads, moments and constants.

    `constants`, r and d of the paper, are held while the rest is differentiated; without them they are found.
    """
    norms, found, follows = learned["norms"], [], []

    def standardized(i, x):
        mean, deviation = x.mean(axis=0), np.sqrt(x.var(axis=0) + EPSILON)
        usual = np.sqrt(running[i].variance + EPSILON)
        r = np.clip(deviation / usual, 1 / LARGEST_RATIO, LARGEST_RATIO) if late else np.ones_like(mean)
        d = np.clip((mean - running[i].mean) / usual, -LARGEST_SHIFT, LARGEST_SHIFT) if late else np.zeros_like(mean)
        found.append((r, d))
        r, d = found[-1] if constants is None else constants[i]
        parts = zip(running[i], (mean, x.var(axis=0)), strict=True)
        follows.append(type(running[i])(*(momentum * old + (1 - momentum) * new for old, new in parts)))
        return ((x - mean) / deviation * r + d) * norms[i]["scale"] + norms[i]["shift"]

    for i, layer in enumerate(learned["layers"]):
        x = np.tanh(dense(layer, standardized(i, x)))
    x = standardized(len(learned["layers"]), x)
    return {name: dense(head, x) for name, head in learned["heads"].items()}, follows, found


def batch_norm_fixed(params, x):
    """The same with the running moments instead of the batch's."""
    learned, running = params["learned"], params["running"]
    layers = [*learned["layers"], None]
    for layer, norm, moments in zip(layers, learned["norms"], running, strict=True):
        x = (x - moments.mean) / np.sqrt(moments.variance + EPSILON) * norm["scale"] + norm["shift"]
        x = x if layer is None else np.tanh(dense(layer, x))
    return {name: dense(head, x) for name, head in learned["heads"].items()}


def crossq(agent, held, batch, draws, progress):
    """Bhatt et al. 2024, section 4: no target network; present and next inputs are one batch. `held.critics` and
    `held.actor` are what is learned, `held.running` and `held.actor_running` the moments.
    """
    alpha, losses, priorities = math.exp(held.temperature["log_alpha"]), [], []

    def late():
        return held.critic_optimizer.count >= agent.renormalize_after

    held.policy = lambda actor, obs: Gaussian(batch_norm_fixed(actor, obs)["policy"])
    learned, held.actor = held.actor, {"learned": held.actor, "running": held.actor_running}
    batches = soft_batches(agent, held, batch, draws)
    held.actor = learned
    for samples in batches:
        both, renormalize = np.concatenate([samples.inputs, samples.next_inputs]), late()
        ran = [batch_norm(c, r, both, late=renormalize) for c, r in zip(held.critics, held.running, strict=True)]
        constants = [each[2] for each in ran]
        following = np.min([heads["q"][len(samples.inputs) :, 0] for heads, _, _ in ran], axis=0)
        target = samples.reward + samples.discount * following

        def errors(critics, both=both, constants=constants, target=target):
            triples = zip(critics, held.running, constants, strict=True)
            values = [batch_norm(c, r, both, fixed)[0]["q"][: len(both) // 2, 0] for c, r, fixed in triples]
            return np.stack(values) - target

        def loss(critics, samples=samples, errors=errors):
            return np.mean(samples.weight * 0.5 * np.sum(errors(critics) ** 2, axis=0))

        losses.append(loss(held.critics))
        priorities.append(np.abs(errors(held.critics)).mean(axis=0))
        slopes = gradient(loss, held.critics)
        held.running = [follows for _, follows, _ in ran]
        held.critics = held.critic_optimizer.step(held.critics, slopes, at(agent.critic_lr, progress))

    obs = batches[-1].obs
    critics = [{"learned": c, "running": r} for c, r in zip(held.critics, held.running, strict=True)]
    _, follows, constants = batch_norm(held.actor, held.actor_running, obs, late=late())

    def actor_loss(actor):
        outputs = batch_norm(actor, held.actor_running, obs, constants)[0]["policy"]
        action, log_prob = Gaussian(outputs).squashed(draws["now"])
        value = np.min([batch_norm_fixed(critic, joined(obs, action))["q"][:, 0] for critic in critics], axis=0)
        return np.mean(alpha * log_prob - value), -log_prob

    metrics = learn_policy(agent, held, progress, actor_loss)
    held.actor_running = follows
    return metrics | {"critic_loss": np.mean(losses), "td_error": np.concatenate(priorities)}


# On-policy algorithms ------------------------------------------------------------------------------------------------


def actor_critic(params, obs):
    """Outputs of the policy and values `[N]` at `obs` `[N, n]`: two networks, and log deviations of their own."""
    outputs, value = mlp(params["network"]["policy"], obs)["policy"], mlp(params["network"]["value"], obs)["value"]
    if "log_std" in params:
        outputs = joined(outputs, np.broadcast_to(params["log_std"], outputs.shape))
    return outputs, value[:, 0]


def on_policy_batch(agent, params, batch, lambda_):
    """Everything `[N]`, steps in order: observations, actions, advantages, old values and their targets."""
    rows = batch.reward.shape
    obs, action = (part.reshape(-1, *part.shape[2:]) for part in (batch.obs, batch.action))
    next_obs = batch.next_obs.reshape(-1, batch.next_obs.shape[-1])
    value, next_value = actor_critic(params, obs)[1], actor_critic(params, next_obs)[1]
    advantage = advantages(batch, value.reshape(rows), next_value.reshape(rows), agent.gamma, lambda_).reshape(-1)
    return SimpleNamespace(obs=obs, action=action, advantage=advantage, value=value, target=value + advantage)


def policy_of(outputs, action):
    return Categorical(outputs) if action.dtype.kind == "i" else Gaussian(outputs)


def standardized(x):
    return (x - x.mean()) / x.std()


def explained(batch):
    return 1 - np.var(batch.target - batch.value) / np.var(batch.target)


def a2c(agent, held, batch, draws, progress):
    """Mnih et al. 2016, algorithm S3, as one step on the whole batch; with PG's settings REINFORCE with a baseline."""
    whole = on_policy_batch(agent, held.params, batch, getattr(agent, "lambda_", 1.0))
    entropy_coeff = at(getattr(agent, "entropy_coeff", 0.0), progress)

    def loss(params):
        outputs, value = actor_critic(params, whole.obs)
        policy = policy_of(outputs, whole.action)
        policy_loss = -np.mean(policy.log_prob(whole.action) * whole.advantage)
        value_loss = np.mean((value - whole.target) ** 2)
        return policy_loss + agent.vf_loss_coeff * value_loss - entropy_coeff * np.mean(policy.entropy())

    metrics = {"total_loss": loss(held.params)}
    held.params = held.optimizer.step(held.params, gradient(loss, held.params), at(agent.lr, progress))
    return metrics | {"grad_gnorm": held.optimizer.norm}


def reinforce(agent, held, batch, draws, progress):
    """Williams 1992 without a baseline: the return itself weighs each action's log probability."""
    nothing = np.zeros(batch.reward.shape)
    return_ = advantages(batch, nothing, nothing, agent.gamma, 1.0).reshape(-1)
    obs, action = (part.reshape(-1, *part.shape[2:]) for part in (batch.obs, batch.action))

    def loss(params):
        return -np.mean(Categorical(mlp(params["network"], obs)["policy"]).log_prob(action) * return_)

    metrics = {"total_loss": loss(held.params)}
    held.params = held.optimizer.step(held.params, gradient(loss, held.params), at(agent.lr, progress))
    return metrics | {"grad_gnorm": held.optimizer.norm}


def corrected_batch(agent, params, pi, batch):
    """Everything `[N]` of a trajectory that another policy collected, corrected for the policy `pi`."""
    whole = on_policy_batch(agent, params, batch, agent.lambda_)
    whole.log_prob = batch.extras["log_prob"].reshape(-1)
    if agent.vtrace:
        rows, next_obs = batch.reward.shape, batch.next_obs.reshape(-1, batch.next_obs.shape[-1])
        log_prob = policy_of(actor_critic(pi, whole.obs)[0], whole.action).log_prob(whole.action)
        value, next_value = whole.value.reshape(rows), actor_critic(params, next_obs)[1].reshape(rows)
        target, advantage = vtrace(agent, batch, (log_prob - whole.log_prob).reshape(rows), value, next_value)
        whole.target, whole.advantage = target.reshape(-1), advantage.reshape(-1)
    return whole


def impala(agent, held, batch, draws, progress):
    """Espeholt et al. 2018, section 4.2, its three terms as one loss; each epoch corrects anew."""
    losses, bonus = [], at(agent.entropy_coeff, progress)
    for _ in range(agent.num_epochs):
        whole = corrected_batch(agent, held.params, held.params, batch)

        def loss(params, whole=whole):
            outputs, value = actor_critic(params, whole.obs)
            policy = policy_of(outputs, whole.action)
            gain = policy.log_prob(whole.action) * whole.advantage
            error = (value - whole.target) ** 2
            return np.mean(-gain + agent.vf_loss_coeff * error - bonus * policy.entropy())

        losses.append(loss(held.params))
        held.params = held.optimizer.step(held.params, gradient(loss, held.params), at(agent.lr, progress))
    return {"total_loss": np.mean(losses)}


def appo(agent, held, batch, draws, progress):
    """The clipped surrogate around a target policy (Luo et al. 2020), on V-trace's advantages for it."""
    losses, kls = [], []
    clip, bonus = at(agent.clip_param, progress), at(agent.entropy_coeff, progress)
    for _ in range(agent.num_epochs):
        whole = corrected_batch(agent, held.params, held.target, batch)
        old = policy_of(actor_critic(held.target, whole.obs)[0], whole.action)
        behaviour = np.minimum(2, np.exp(whole.log_prob - old.log_prob(whole.action)))

        def kl(params, whole=whole, old=old):
            return np.mean(old.kl(policy_of(actor_critic(params, whole.obs)[0], whole.action)))

        def loss(params, whole=whole, behaviour=behaviour, kl=kl):
            outputs, value = actor_critic(params, whole.obs)
            policy = policy_of(outputs, whole.action)
            ratio = behaviour * np.exp(policy.log_prob(whole.action) - whole.log_prob)
            gain = np.minimum(ratio * whole.advantage, np.clip(ratio, 1 - clip, 1 + clip) * whole.advantage)
            error = (value - whole.target) ** 2
            total = np.mean(-gain + agent.vf_loss_coeff * error - bonus * policy.entropy())
            return total if agent.kl_coeff is None else total + held.kl_coeff * kl(params)

        losses.append(loss(held.params))
        kls.append(kl(held.params))
        held.params = held.optimizer.step(held.params, gradient(loss, held.params), at(agent.lr, progress))
    if agent.kl_coeff is not None:
        held.kl_coeff *= 1.5 if np.mean(kls) > 2 * agent.kl_target else 0.5 if np.mean(kls) < agent.kl_target / 2 else 1
    held.since += 1
    if held.since >= agent.target_update_frequency:
        held.target, held.since = moved(held.target, held.params, agent.tau), 0
    return {"total_loss": np.mean(losses), "kl": np.mean(kls)}


def ppo(agent, held, batch, draws, progress):
    """Schulman et al. 2017, algorithm 1 with equations 7 to 9; `surrogate="discovered"` is Lu et al. 2022's."""
    whole = on_policy_batch(agent, held.params, batch, agent.lambda_)
    whole.advantage = standardized(whole.advantage)
    whole.log_prob = batch.extras["log_prob"].reshape(-1)
    losses, kls = [], []
    for i, order in enumerate(draws["orders"]):
        some = SimpleNamespace(**{name: part[order] for name, part in vars(whole).items()})
        some.moved = draws["moves"][i] if "moves" in draws else 0.0
        old = policy_of(batch.extras["outputs"].reshape(len(whole.obs), -1)[order], some.action)

        def loss(params, some=some, old=old):
            return ppo_loss(agent, params, some, old, held.kl_coeff, progress)

        losses.append(loss(held.params))
        kls.append(np.mean(ppo_kl(agent, held.params, some, old)))
        slopes = gradient(loss, held.params)
        stopped = agent.kl_stop is not None and max(kls) > agent.kl_stop
        if not stopped:
            held.params = held.optimizer.step(held.params, slopes, at(agent.lr, progress))
    if agent.kl_coeff is not None:  # the paper's rule, with RLlib's factors
        kl = np.mean(kls)
        factor = 1.5 if kl > 2 * agent.kl_target else 0.5 if kl < 0.5 * agent.kl_target else 1.0
        held.kl_coeff *= factor
    return {"total_loss": np.mean(losses), "kl": np.mean(kls), "vf_explained_var": explained(whole)}


def ppo_outputs(params, batch):
    """With the means moved where they are to be (robust policy optimisation, Rahman & Xue 2022)."""
    outputs, value = actor_critic(params, batch.obs)
    if np.ndim(batch.moved):
        outputs = outputs + joined(batch.moved, 0 * batch.moved)
    return outputs, value


def ppo_loss(agent, params, batch, old, kl_coeff, progress):
    outputs, value = ppo_outputs(params, batch)
    policy = policy_of(outputs, batch.action)
    ratio, clip = np.exp(policy.log_prob(batch.action) - batch.log_prob), at(agent.clip_param, progress)
    gain = np.minimum(ratio * batch.advantage, np.clip(ratio, 1 - clip, 1 + clip) * batch.advantage)
    if agent.surrogate == "discovered":
        better, worse = (ratio - 1) * batch.advantage, np.log(ratio) * batch.advantage
        positive, negative = relu(better - 2 * np.tanh(better / 2)), relu(worse - 0.6 * np.tanh(worse / 0.6))
        gain = ratio * batch.advantage - np.where(batch.advantage >= 0, positive, negative)
    error = (value - batch.target) ** 2
    if agent.vf_clip_param is not None:
        near = batch.value + np.clip(value - batch.value, -agent.vf_clip_param, agent.vf_clip_param)
        error = np.maximum(error, (near - batch.target) ** 2)
    bonus = at(agent.entropy_coeff, progress) * policy.entropy()
    loss = np.mean(-gain + agent.vf_loss_coeff * error - bonus)
    return loss if agent.kl_coeff is None else loss + kl_coeff * np.mean(old.kl(policy))


def ppo_kl(agent, params, batch, old):
    policy = policy_of(ppo_outputs(params, batch)[0], batch.action)
    if agent.kl_coeff is not None:
        return old.kl(policy)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    return np.exp(log_ratio) - 1 - log_ratio


def trpo(agent, held, batch, draws, progress):
    """Schulman et al. 2015, appendix C, with the whole Fisher matrix; then values are fitted by minibatches."""
    params = {**held.policy, "network": {**held.policy["network"], "value": held.value}}
    whole = on_policy_batch(agent, params, batch, agent.lambda_)
    advantage = standardized(whole.advantage)

    def policy(params):
        outputs = mlp(params["network"]["policy"], whole.obs)["policy"]
        if "log_std" in params:
            outputs = joined(outputs, np.broadcast_to(params["log_std"], outputs.shape))
        return policy_of(outputs, whole.action)

    old = policy(held.policy)

    def measure(vector):
        new = policy(from_vector(vector, held.policy))
        ratio = np.exp(new.log_prob(whole.action) - old.log_prob(whole.action))
        return np.mean(ratio * advantage), np.mean(old.kl(new))

    start = to_vector(held.policy)
    slope = gradient(lambda vector: measure(vector)[0], start)
    fisher = curvature(lambda vector: measure(vector)[1], start) + agent.damping * np.eye(len(start))
    direction = np.linalg.solve(fisher, slope)
    step = math.sqrt(2 * agent.kl_target / (direction @ fisher @ direction)) * direction
    before, found, gain = measure(start)[0], 0.0, 0.0
    for attempt in range(agent.line_search_steps):
        fraction = agent.line_search_decay**attempt
        objective, kl = measure(start + fraction * step)
        if objective > before and kl <= agent.kl_target:
            held.policy, found = from_vector(start + fraction * step, held.policy), fraction
            gain = objective - before
            break
    losses = []
    for order in draws["orders"]:

        def loss(value, order=order):
            return np.mean((mlp(value, whole.obs[order])["value"][:, 0] - whole.target[order]) ** 2)

        losses.append(loss(held.value))
        held.value = held.optimizer.step(held.value, gradient(loss, held.value), at(agent.lr, progress))
    metrics = {"line_search_fraction": found, "surrogate_gain": gain, "grad_gnorm": np.linalg.norm(slope)}
    return metrics | {"vf_loss": np.mean(losses)}


def to_vector(tree):
    return np.concatenate([leaf.ravel() for leaf in leaves(tree)])


def from_vector(vector, like):
    """The inverse of `to_vector`."""
    parts = iter(np.split(vector, np.cumsum([leaf.size for leaf in leaves(like)])[:-1]))
    return mapped_in_order(lambda leaf, _: next(parts).reshape(leaf.shape), like, like)


def curvature(function, start, step=1e-4):
    """The Hessian, row by row: central differences of gradients."""
    rows = []
    for unit in np.eye(len(start)) * step:
        above, below = gradient(function, start + unit), gradient(function, start - unit)
        rows.append((above - below) / (2 * step))
    return np.array(rows)


# Recorded data -------------------------------------------------------------------------------------------------------


def cloned(params, obs):
    """The outputs of a policy that has no critic, with its log standard deviations where they are apart."""
    outputs = mlp(params["network"], obs)["policy"]
    return outputs if "log_std" not in params else joined(outputs, np.broadcast_to(params["log_std"], outputs.shape))


def bc(agent, held, batch, draws, progress):
    """Pomerleau 1989: the likelihood of what was done."""
    obs, action = (part.reshape(-1, *part.shape[2:]) for part in (batch.obs, batch.action))

    def loss(params):
        return -np.mean(policy_of(cloned(params, obs), action).log_prob(action))

    metrics = {"policy_loss": loss(held.params)}
    held.params = held.optimizer.step(held.params, gradient(loss, held.params), at(agent.lr, progress))
    return metrics | {"grad_gnorm": held.optimizer.norm}


def marwil(agent, held, batch, draws, progress):
    """Wang et al. 2018, algorithm 1, with RLlib's moving average; `batch` leads to the ends of episodes."""
    whole = SimpleNamespace(
        obs=batch.obs.reshape(-1, batch.obs.shape[-1]),
        next_obs=batch.next_obs.reshape(-1, batch.obs.shape[-1]),
        action=batch.action.reshape(-1, *batch.action.shape[2:]),
        reward=batch.reward.reshape(-1),
        discount=batch.extras["discount"].reshape(-1),
    )
    target = whole.reward + whole.discount * actor_critic(held.params, whole.next_obs)[1]
    first = target - actor_critic(held.params, whole.obs)[1]
    rate = agent.moving_average_sqd_adv_norm_update_rate
    held.norm = (1 - rate) * held.norm + rate * np.mean(first**2)
    weight = np.minimum(np.exp(agent.beta * first / np.sqrt(held.norm)), agent.max_weight)

    def loss(params):
        outputs, value = actor_critic(params, whole.obs)
        log_prob = policy_of(outputs, whole.action).log_prob(whole.action)
        if "log_std" in params:
            log_prob = log_prob + agent.bc_logstd_coeff * np.sum(params["log_std"])
        return np.mean(-weight * log_prob + agent.vf_coeff * 0.5 * (target - value) ** 2)

    metrics = {"total_loss": loss(held.params), "mean_weight": np.mean(weight), "sqd_adv_norm": held.norm}
    held.params = held.optimizer.step(held.params, gradient(loss, held.params), at(agent.lr, progress))
    return metrics | {"grad_gnorm": held.optimizer.norm}


def dt(agent, held, batch, draws, progress):
    """Chen et al. 2021, algorithm 1: window by window, step by step, token by token; what is dropped is drawn."""

    def loss(params):
        return np.mean([dt_loss(agent, params, held, batch, row, draws) for row in range(batch.reward.shape[1])])

    metrics = {"policy_loss": loss(held.params)}
    lr = at(agent.lr, progress)
    before = held.params
    held.params = held.optimizer.step(before, gradient(loss, before), lr)
    held.params = mapped(
        lambda new, old: new - lr * agent.weight_decay * old if old.ndim > 1 else new, held.params, before
    )
    return metrics | {"grad_gnorm": held.optimizer.norm}


def dt_loss(agent, params, held, batch, row, draws):
    """The mean over the steps of one window: of each, what the token of its observation tells of its action."""
    kept, dim = {name: part[row] for name, part in draws.items()}, agent.embed_dim
    tokens, episode = [], []
    for t in range(len(batch.reward)):
        time = params["time"][min(int(batch.extras["time"][t, row]), agent.max_ep_len - 1)]
        observed = (batch.obs[0][t, row] - held.data.mean) / held.data.std
        action = batch.action[t, row]
        done = action if batch.action.ndim == 3 else np.eye(params["head"]["bias"].size)[int(action)]
        asked = np.array([batch.reward[t, row] / held.data.return_])
        parts = (params["return_to_go"], asked), (params["obs"], observed), (params["action"], done)
        tokens += [dense(layer, part) + time for layer, part in parts]
        episode += [int(np.sum(batch.first[1 : t + 1, row]))] * 3
    stream = np.stack([normalized_layer(params["embedded"], token) for token in tokens]) * kept["tokens"]
    for number, block in enumerate(params["blocks"]):
        stream = stream + attended(agent, block, stream, episode, kept[f"weights{number}"]) * kept[f"seen{number}"]
        inside = [dense(block["in"], normalized_layer(block["norm2"], token)) for token in stream]
        wide = [0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) for x in inside]
        stream = stream + np.stack([dense(block["back"], x) for x in wide]) * kept[f"added{number}"]
    assert stream.shape == (3 * len(batch.reward), dim)
    losses = []
    for t in range(len(batch.reward)):
        output = dense(params["head"], normalized_layer(params["norm"], stream[3 * t + 1]))
        action = batch.action[t, row]
        if batch.action.ndim == 3:
            losses.append(np.mean((np.tanh(output) - action) ** 2))
        else:
            losses.append(-log_softmax(output)[int(action)])
    return np.mean(losses)


def normalized_layer(params, x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * params["scale"] + params["shift"]


def attended(agent, block, stream, episode, kept):
    """What each token sees of those before it in its episode, `[N, dim]`; `kept` is `[heads, N, N]`."""
    size = agent.embed_dim // agent.num_heads
    query, key, value = np.split(
        np.stack([dense(block["attend"], normalized_layer(block["norm1"], token)) for token in stream]), 3, axis=-1
    )
    seen = np.zeros_like(stream)
    for head in range(agent.num_heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(stream)):
            visible = [j for j in range(i + 1) if episode[j] == episode[i]]
            weights = softmax(np.array([query[i, part] @ key[j, part] for j in visible]) / np.sqrt(size))
            for weight, j in zip(weights, visible, strict=True):
                seen[i, part] += weight * kept[head, i, j] * value[j, part]
    return np.stack([dense(block["out"], each) for each in seen])


def twin_values(critics, obs, action):
    return np.stack([mlp(critic, np.concatenate([obs, action], axis=-1))["q"][:, 0] for critic in critics])


def deterministic(actor, obs):
    return np.tanh(mlp(actor, obs)["action"])


def cloning_td3(agent, held, batch, draws, progress):
    """TD3+BC (Fujimoto & Gu 2021) where the agent has an `alpha`, else ReBRAC (Tarasov et al. 2023)."""
    rebrac, obs, action = not hasattr(agent, "alpha"), batch.obs[0], batch.action[0]
    window = batch
    if rebrac:  # the last step is what was done next
        parts = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "first")
        window = batch._replace(**{name: getattr(batch, name)[:-1] for name in parts})
    reward, discount, last = n_step(window, agent.gamma)
    next_obs = window.next_obs[last, np.arange(len(last))]
    noise = np.clip(agent.target_noise * draws["noise"], -agent.target_noise_clip, agent.target_noise_clip)
    next_action = np.clip(deterministic(held.target["actor"], next_obs) + noise, -1, 1)
    next_value = twin_values(held.target["critics"], next_obs, next_action).min(axis=0)
    if rebrac:
        ended = (window.terminated | window.truncated).any(axis=0)
        distance = np.sum((next_action - batch.action[-1]) ** 2, axis=-1)
        next_value = next_value - agent.critic_bc_coeff * np.where(ended, 0.0, distance)
    target = reward + discount * next_value

    def critic_loss(critics):
        return np.mean(weights(batch) * np.sum(0.5 * (twin_values(critics, obs, action) - target) ** 2, axis=0))

    metrics = {"critic_loss": critic_loss(held.critics)}
    held.critics = held.critic_optimizer.step(
        held.critics, gradient(critic_loss, held.critics), at(agent.critic_lr, progress)
    )
    held.since += agent.timesteps_per_update
    if held.critic_optimizer.count % agent.policy_delay:
        return metrics

    def value(actor):
        values = twin_values(held.critics, obs, deterministic(actor, obs))
        return values.min(axis=0) if rebrac else values[0]

    size = np.mean(np.abs(value(held.actor)))

    def actor_loss(actor):
        squares = (deterministic(actor, obs) - action) ** 2
        if rebrac:
            return np.mean(agent.actor_bc_coeff * squares.sum(axis=-1) - value(actor) / size)
        return np.mean(squares) - agent.alpha * np.mean(value(actor)) / size

    metrics["actor_loss"] = actor_loss(held.actor)
    held.actor = held.actor_optimizer.step(held.actor, gradient(actor_loss, held.actor), at(agent.actor_lr, progress))
    move_if_due(agent, held, {"actor": held.actor, "critics": held.critics}, agent.tau)
    return metrics


def iql(agent, held, batch, draws, progress):
    """Kostrikov et al. 2021, algorithm 1: an expectile of what was done, its targets, and a policy that clones it."""
    obs, action = batch.obs[0], batch.action[0]
    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, np.arange(len(last))]
    discrete, weight = action.dtype.kind == "i", weights(batch)

    def values(critics):
        if not discrete:
            return twin_values(critics, obs, action)
        return np.stack([mlp(critic, obs)["q"][np.arange(len(action)), action] for critic in critics])

    def state_value(params, obs):
        return mlp(params, obs)["v"][:, 0]

    def policy(actor):
        outputs = mlp(actor["network"], obs)["policy"]
        if discrete:
            return Categorical(outputs)
        return Gaussian(joined(np.tanh(outputs), np.broadcast_to(np.clip(actor["log_std"], -5, 2), outputs.shape)))

    believed = values(held.target).min(axis=0)

    def value_loss(params):
        error = believed - state_value(params, obs)
        return np.mean(weight * np.abs(agent.expectile - (error < 0)) * error**2)

    metrics = {"value_loss": value_loss(held.value)}
    held.value = held.value_optimizer.step(held.value, gradient(value_loss, held.value), at(agent.value_lr, progress))
    counts = np.minimum(np.exp(agent.beta * (believed - state_value(held.value, obs))), agent.max_weight)
    target = reward + discount * state_value(held.value, next_obs)

    def actor_loss(actor):
        return -np.mean(weight * counts * policy(actor).log_prob(action))

    def critic_loss(critics):
        return np.mean(weight * np.sum(0.5 * (values(critics) - target) ** 2, axis=0))

    metrics |= {"actor_loss": actor_loss(held.actor), "critic_loss": critic_loss(held.critics)}
    metrics["mean_weight"] = np.mean(counts)
    held.actor = held.actor_optimizer.step(held.actor, gradient(actor_loss, held.actor), at(agent.actor_lr, progress))
    held.critics = held.critic_optimizer.step(
        held.critics, gradient(critic_loss, held.critics), at(agent.critic_lr, progress)
    )
    sync(agent, held, held.critics, agent.tau)
    return metrics


def cql(agent, held, batch, draws, progress):
    """Kumar et al. 2020, CQL(H): SAC, and critics paid for what they say in general over what they say of the data."""
    obs, action = batch.obs[0], batch.action[0]
    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, np.arange(len(last))]
    alpha, discrete = math.exp(held.temperature["log_alpha"]), action.dtype.kind == "i"
    paid = 0.0 if agent.deterministic_backup else alpha

    def of_all(critics, obs):
        return np.stack([mlp(critic, obs)["q"] for critic in critics])

    def values(critics, obs, action):
        if discrete:
            return of_all(critics, obs)[:, np.arange(len(action)), action]
        return twin_values(critics, obs, action)

    def policy_of_actor(actor, obs):
        outputs = mlp(actor, obs)["policy"]
        return Categorical(outputs) if discrete else Gaussian(outputs)

    def soft_value(actor, critics, obs, normal, alpha):
        policy = policy_of_actor(actor, obs)
        if discrete:
            found = np.sum(np.exp(policy.log_probs) * of_all(critics, obs).min(axis=0), axis=-1)
            return found + alpha * policy.entropy(), policy.entropy()
        drawn, log_prob = policy.squashed(normal)
        return values(critics, obs, drawn).min(axis=0) - alpha * log_prob, -log_prob

    target = reward + discount * soft_value(held.actor, held.target, next_obs, draws.get("next"), paid)[0]
    if not discrete:
        now, now_density = policy_of_actor(held.actor, draws["tile"](obs)).squashed(draws["now_many"])
        later, later_density = policy_of_actor(held.actor, draws["tile"](next_obs)).squashed(draws["later_many"])
        uniform_density = np.full(len(now), action.shape[-1] * math.log(0.5))
        others = [(draws["uniform"], uniform_density), (now, now_density), (later, later_density)]

    def log_sum(critics):
        heat = agent.temperature
        if discrete:
            return heat * np.log(np.sum(np.exp(of_all(critics, obs) / heat), axis=-1))
        each = [
            (values(critics, draws["tile"](obs), drawn) / heat - density).reshape(len(critics), len(obs), -1)
            for drawn, density in others
        ]
        return heat * np.log(np.sum(np.exp(np.concatenate(each, axis=-1)), axis=-1))

    multiplier = math.exp(held.log_multiplier["x"])

    def penalty(critics):
        return agent.min_q_weight * (log_sum(critics) - values(critics, obs, action))

    def critic_loss(critics):
        cost = penalty(critics)
        if agent.lagrangian:
            cost = multiplier * (cost - agent.lagrangian_thresh)
        error = values(critics, obs, action) - target
        return np.mean(weights(batch) * np.sum(error**2 + cost, axis=0))

    metrics = {"critic_loss": critic_loss(held.critics), "cql_penalty": np.mean(penalty(held.critics))}
    slopes = gradient(critic_loss, held.critics)
    if agent.lagrangian:
        slope = {"x": np.asarray(multiplier * (agent.lagrangian_thresh - metrics["cql_penalty"]))}
        held.log_multiplier = held.multiplier_optimizer.step(held.log_multiplier, slope, at(agent.critic_lr, progress))
    held.critics = held.critic_optimizer.step(held.critics, slopes, at(agent.critic_lr, progress))
    clones = held.critic_optimizer.count <= agent.bc_iters

    def log_prob_of_data(actor):
        policy = policy_of_actor(actor, obs)
        if discrete:
            return policy.log_prob(action)
        return policy.log_prob(np.arctanh(action)) - np.sum(np.log(1 - action**2), axis=-1)

    def actor_loss(actor):
        value, entropy = soft_value(actor, held.critics, obs, draws.get("now"), alpha)
        return -np.mean(log_prob_of_data(actor) + alpha * entropy if clones else value)

    metrics["actor_loss"] = actor_loss(held.actor)
    entropy = soft_value(held.actor, held.critics, obs, draws.get("now"), alpha)[1]
    held.actor = held.actor_optimizer.step(held.actor, gradient(actor_loss, held.actor), at(agent.actor_lr, progress))
    slope = {"log_alpha": np.asarray(np.mean(entropy - agent.target_entropy))}
    held.temperature = held.temperature_optimizer.step(held.temperature, slope, at(agent.alpha_lr, progress))
    sync(agent, held, held.critics, agent.tau)
    return metrics


def crr(agent, held, batch, draws, progress):
    """Wang et al. 2020, algorithm 1, with critics of one value: what is better than the policy's own is cloned."""
    obs, action = batch.obs[0], batch.action[0]
    reward, discount, last = n_step(batch, agent.gamma)
    next_obs = batch.next_obs[last, np.arange(len(last))]
    discrete, weight = action.dtype.kind == "i", weights(batch)

    def of_all(critics, obs):
        return np.stack([mlp(critic, obs)["q"] for critic in critics])

    def values(critics, obs, action):
        if discrete:
            return of_all(critics, obs)[:, np.arange(len(action)), action]
        return twin_values(critics, obs, action)

    def policy_of_actor(actor, obs):
        outputs = mlp(actor["network"], obs)["policy"]
        if discrete:
            return Categorical(outputs)
        return Gaussian(joined(np.tanh(outputs), np.broadcast_to(np.clip(actor["log_std"], -5, 2), outputs.shape)))

    def drawn(policy, normal):
        return np.clip(policy.mean + policy.std * normal, -1, 1)

    next_policy = policy_of_actor(held.target["actor"], next_obs)
    if discrete:
        next_value = np.sum(
            np.exp(next_policy.log_probs) * of_all(held.target["critics"], next_obs).min(axis=0), axis=-1
        )
    else:
        next_value = values(held.target["critics"], next_obs, drawn(next_policy, draws["next"])).min(axis=0)
    target = reward + discount * next_value

    def critic_loss(critics):
        return np.mean(weight * np.sum(0.5 * (values(critics, obs, action) - target) ** 2, axis=0))

    metrics = {"critic_loss": critic_loss(held.critics)}
    held.critics = held.critic_optimizer.step(
        held.critics, gradient(critic_loss, held.critics), at(agent.critic_lr, progress)
    )
    policy = policy_of_actor(held.actor, obs)
    if discrete:  # the noise that Gumbel's trick adds to the logits
        sampled = [np.argmax(policy.log_probs + each, axis=-1) for each in draws["samples"]]
    else:
        sampled = [drawn(policy, each) for each in draws["samples"]]
    others = np.stack([values(held.critics, obs, each).min(axis=0) for each in sampled])
    compared = others.mean(axis=0) if agent.advantage_type == "mean" else others.max(axis=0)
    advantage = values(held.critics, obs, action).min(axis=0) - compared
    counts = np.minimum(np.exp(advantage / agent.temperature), agent.max_weight)
    if agent.weight_type == "bin":
        counts = (advantage > 0) * 1.0

    def actor_loss(actor):
        log_prob = policy_of_actor(actor, obs).log_prob(action)
        return -np.mean(weight * counts * log_prob)

    metrics |= {"actor_loss": actor_loss(held.actor), "mean_weight": np.mean(counts)}
    held.actor = held.actor_optimizer.step(held.actor, gradient(actor_loss, held.actor), at(agent.actor_lr, progress))
    sync(agent, held, {"actor": held.actor, "critics": held.critics}, agent.tau)
    return metrics


# AlphaZero ------------------------------------------------------------------------------------------------------------


def alpha_zero(agent, held, batch, draws, progress):
    """Silver et al. 2018, equation 1; with ranked rewards, what a single player got at the end against `held.bar`."""
    ranked, two = agent.buffer_max_length > 0, agent.simulator.players == 2

    def heads(params, obs):
        out = mlp(params, obs)
        value = out["value"][..., 0]
        return log_softmax(out["policy"]), np.tanh(value) if ranked or two else value

    outcome = np.zeros(batch.reward.shape[1])
    for row in range(len(outcome)):
        sign = 1.0
        for t in range(len(batch.reward)):
            over, reward = batch.terminated[t, row] or batch.truncated[t, row], batch.reward[t, row]
            if ranked:
                reward = 0.0 if not over or held.bar is None else 1.0 if reward >= held.bar else -1.0
            outcome[row] += sign * reward
            sign *= -agent.gamma if two else agent.gamma
            if over:
                break
        else:
            outcome[row] += sign * heads(held.params, batch.next_obs[-1, row])[1]
    searched = batch.extras["policy"][0]

    def losses(params):
        log_policy, value = heads(params, batch.obs[0])
        return np.mean((outcome - value) ** 2), np.mean(-np.sum(searched * log_policy, axis=-1)), log_policy

    slopes = gradient(lambda params: sum(losses(params)[:2]), held.params)
    slopes = mapped(lambda g, w: g + 2 * agent.l2 * w if w.ndim > 1 else g, slopes, held.params)
    value_loss, policy_loss, log_policy = losses(held.params)
    held.params = held.optimizer.step(held.params, slopes, at(agent.lr, progress))
    if ranked:
        held.bar = np.percentile(held.returns, agent.percentile)
    entropy = np.mean(-np.sum(np.exp(log_policy) * log_policy, axis=-1))
    return {"vf_loss": value_loss, "policy_loss": policy_loss, "entropy": entropy}


# MuZero --------------------------------------------------------------------------------------------------------------


def muzero(agent, held, batch, draws, progress):
    """Schrittwieser et al. 2020, equation 1 and appendices F and G, with squared errors."""
    unrolled, length = agent.unroll_steps, len(batch.reward)
    over = batch.terminated | batch.truncated
    rows = range(batch.reward.shape[1])

    def scaled(latent):
        low, high = latent.min(axis=-1, keepdims=True), latent.max(axis=-1, keepdims=True)
        return 2 * (latent - low) / (high - low + 1e-5) - 1

    def represent(params, obs):
        return scaled(mlp(params["representation"], obs)["latent"])

    def advance(params, latent, action):
        heads = mlp(params["dynamics"], np.concatenate([latent, np.eye(3)[action]], axis=-1))
        return scaled(latent + heads["latent"]), heads["reward"][..., 0]

    def predict(params, latent):
        heads = mlp(params["prediction"], latent)
        return log_softmax(heads["policy"]), heads["value"][..., 0]

    def outcome(start, row):
        total, discount = 0.0, 1.0
        for t in range(start, start + agent.n_step):
            total += discount * batch.reward[t, row]
            discount *= agent.gamma
            if batch.terminated[t, row]:
                return total
            if batch.truncated[t, row]:
                break
        searched = t + 1 < length and not batch.truncated[t, row]
        network = unscaled(predict(held.params, represent(held.params, batch.next_obs[t, row]))[1], agent.scale_epsilon)
        return total + discount * (batch.extras["value"][t + 1, row] if searched else network)

    gone = [[over[:k, row].any() for row in rows] for k in range(unrolled + 1)]
    counts = np.array([[not batch.truncated[:k, row].any() for row in rows] for k in range(unrolled + 1)])
    worth = np.array([[0.0 if gone[k][row] else outcome(k, row) for row in rows] for k in range(unrolled + 1)])
    worth = rescaled(worth, agent.scale_epsilon)
    policy = np.where(np.array(gone)[..., None], 0.0, batch.extras["policy"][: unrolled + 1])
    reward = np.where(gone, 0.0, batch.reward[: unrolled + 1])
    still = [represent(held.params, batch.obs[0])]
    for k in range(unrolled):
        still.append(advance(held.params, still[k], batch.action[k])[0])

    def losses(params):
        latent, parts = represent(params, batch.obs[0]), np.zeros(3)
        for k in range(unrolled + 1):
            log_policy, value = predict(params, latent)
            parts[0] += np.mean(-np.sum(policy[k] * log_policy, axis=-1)) / (unrolled + 1)
            parts[1] += np.mean(counts[k] * (value - worth[k]) ** 2) / (unrolled + 1)
            if k < unrolled:
                latent, paid = advance(params, latent, batch.action[k])
                parts[2] += np.mean(counts[k] * (paid - reward[k]) ** 2) / unrolled
                latent = (latent + still[k + 1]) / 2  # half of the gradient
        return parts

    weights = np.array([1.0, agent.value_coeff, 1.0])
    told = losses(held.params)
    slopes = gradient(lambda params: losses(params) @ weights, held.params)
    held.params = held.optimizer.step(held.params, slopes, at(agent.lr, progress))
    return dict(zip(("policy_loss", "vf_loss", "reward_loss"), told, strict=True))


# MPO -----------------------------------------------------------------------------------------------------------------


def mpo(agent, held, batch, draws, progress):
    """Abdolmaleki et al. 2018, with the constraints of arXiv:1812.02256, of continuous or discrete actions."""
    discrete = batch.action.dtype.kind == "i"
    rows = np.arange(batch.reward.shape[1])
    temperature, multipliers = np.exp(held.duals.temperature), np.exp(held.duals.multipliers)

    def policy(actor, obs):
        outputs = mlp(actor, obs)["policy"]
        if discrete:
            return Categorical(outputs)
        found = Gaussian(outputs)
        found.mean = np.tanh(found.mean)
        return found

    def values(critics, obs, action):
        if discrete:
            return np.stack([mlp(critic, obs)["q"][np.arange(len(obs)), action] for critic in critics])
        return np.stack([mlp(critic, joined(obs, np.clip(action, -1, 1)))["q"][:, 0] for critic in critics])

    def candidates(obs, normal):
        """Actions, how probable each was and their values, one after the other."""
        found = policy(held.target["actor"], obs)
        if discrete:
            number = found.log_probs.shape[-1]
            actions, prior = [np.full(len(obs), i) for i in range(number)], np.exp(found.log_probs).T
        else:
            actions, prior = (
                [found.mean + found.std * each for each in normal],
                np.full((len(normal), 1), 1 / len(normal)),
            )
        return actions, prior, np.stack([values(held.target["critics"], obs, each).min(axis=0) for each in actions])

    reward, discount, last = n_step(batch, agent.gamma)
    _, prior, following = candidates(batch.next_obs[last, rows], draws.get("next"))
    target = reward + discount * np.sum(prior * following, axis=0)
    obs = batch.obs[0]
    errors = values(held.critics, obs, batch.action[0]) - target
    actions, prior, worth = candidates(obs, draws.get("now"))
    old = policy(held.target["actor"], obs)
    weight = prior * np.exp(worth / temperature)
    weight = weight / weight.sum(axis=0)

    def critic_loss(critics):
        error = values(critics, obs, batch.action[0]) - target
        return np.mean(weights(batch) * 0.5 * np.sum(error**2, axis=0))

    def moved_apart(actor):
        """The new policy in parts: where both are given, the mean alone and the standard deviation alone."""
        new = policy(actor, obs)
        if discrete:
            return [new]
        parts = [policy(actor, obs), policy(actor, obs)]
        parts[0].std, parts[1].mean = old.std, old.mean
        return parts

    def divergences(actor):
        return np.array([np.mean(old.kl(part)) for part in moved_apart(actor)])

    def actor_loss(actor):
        likelihood = [sum(part.log_prob(each) for part in moved_apart(actor)) for each in actions]
        return -np.mean(np.sum(weight * np.stack(likelihood), axis=0)) + np.sum(multipliers * divergences(actor))

    limits = np.array([agent.epsilon_mean, agent.epsilon_stddev])[: len(multipliers)]
    divergence = divergences(held.actor)

    def dual(duals):
        eta = np.exp(duals.temperature)
        spread = np.mean(np.log(np.sum(prior * np.exp(worth / eta), axis=0)))
        return eta * (agent.epsilon + spread) + np.sum(np.exp(duals.multipliers) * (limits - divergence))

    metrics = {
        "critic_loss": critic_loss(held.critics),
        "actor_loss": actor_loss(held.actor),
        "kl": np.sum(divergence),
        "temperature": temperature,
        "entropy": np.mean(policy(held.actor, obs).entropy()),
        "td_error": np.abs(errors).mean(axis=0),
    }
    actor_slopes, critic_slopes = gradient(actor_loss, held.actor), gradient(critic_loss, held.critics)
    held.critics = held.critic_optimizer.step(held.critics, critic_slopes, at(agent.critic_lr, progress))
    metrics["grad_gnorm"] = held.critic_optimizer.norm
    held.actor = held.actor_optimizer.step(held.actor, actor_slopes, at(agent.actor_lr, progress))
    held.duals = held.dual_optimizer.step(held.duals, gradient(dual, held.duals), at(agent.dual_lr, progress))
    sync(agent, held, {"actor": held.actor, "critics": held.critics}, agent.tau)
    return metrics

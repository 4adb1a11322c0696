"""The updates of joint methods in plain NumPy: what `test_references_joint.py` holds the library to.

Written as `references.py` is. Observations are `{"obs": {group: ...}}`; a group's are `[T, B, n, ...]`, or a dict with
the entries "obs", "state" and "action_mask".
"""

from __future__ import annotations

import numpy as np
from references import (
    Categorical,
    Gaussian,
    advantages,
    at,
    gradient,
    learn_values,
    lstm,
    mlp,
    move_if_due,
    relu,
    softmax,
    weights,
)


def views_of(obs):
    """What each agent sees with its number among several, `{group: [..., n, k]}`; the state; and what is legal."""
    views, states, legal = {}, [], {}
    for name in sorted(obs["obs"]):
        group = obs["obs"][name]
        plain = group["obs"] if isinstance(group, dict) else group
        agents = plain.shape[-2]
        legal[name] = np.asarray(group["action_mask"]) > 0 if isinstance(group, dict) else True
        numbers = np.broadcast_to(np.eye(agents), (*plain.shape[:-1], agents))
        views[name] = np.concatenate([plain, numbers], axis=-1) if agents > 1 else plain
        states.append(group["state"][..., 0, :] if isinstance(group, dict) else None)
    told = [state for state in states if state is not None]
    plains = [obs["obs"][name] for name in sorted(obs["obs"])]
    if not told:
        told = [np.concatenate([part.reshape(*part.shape[:-2], -1) for part in plains], axis=-1)]
    return views, told[0], legal


# QMIX ----------------------------------------------------------------------------------------------------------------


def qmix(agent, held, batch, draws, progress):
    """Rashid et al. 2018, equation 6, with double Q-learning; sums of values (VDN) and none (independent)."""
    (views, state, _), (next_views, next_state, legal) = views_of(batch.obs), views_of(batch.next_obs)
    burn, names = agent.burn_in, sorted(views)
    starts = {which: {} for which in ("online", "target")}
    for which, params in (("online", held.params), ("target", held.target)):
        for name in names:
            starts[which][name] = warmed(params["agents"][name], views[name], batch, name, burn)

    def values_of(params, which, ahead):
        """Of each step behind the burn-in, or of where it led: `{group: [T, B, n, actions]}`."""
        return {
            name: agent_values(
                params["agents"][name], starts[which][name], views[name], next_views[name], batch, burn, ahead
            )
            for name in names
        }

    believed = values_of(held.target, "target", ahead=True)
    choosing = values_of(held.params, "online", ahead=True) if agent.double_q else believed
    best = {name: np.argmax(np.where(cut(legal[name], burn), choosing[name], -1e30), axis=-1) for name in names}
    following = mixed(agent, held.target, chosen(believed, best), next_state[burn:])
    reward, terminated = batch.reward[burn:], batch.terminated[burn:]
    if agent.mixer is None:
        target = reward + agent.gamma * np.where(terminated[..., None], 0, following)
    else:
        together = reward.sum(axis=-1) if agent.team_reward == "sum" else reward.mean(axis=-1)
        target = together + agent.gamma * np.where(terminated, 0, following)
    action = {name: batch.action[name][burn:] for name in names}

    def errors(params):
        return mixed(agent, params, chosen(values_of(params, "online", ahead=False), action), state[burn:]) - target

    def loss(params):
        error = errors(params)
        each = error**2 / 2
        while each.ndim > 2:
            each = each.mean(axis=-1)
        return np.mean(weights(batch) * each.mean(axis=0))

    return {"loss": loss(held.params)} | learn_values(agent, held, loss, progress)


def cut(mask, burn):
    return mask if mask is True else mask[burn:]


def chosen(values, action):
    """`[T, B, agents]` of values `{group: [T, B, n, actions]}`."""
    parts = [np.take_along_axis(values[name], action[name][..., None], axis=-1)[..., 0] for name in sorted(values)]
    return np.concatenate(parts, axis=-1)


def mixed(agent, params, values, state):
    """Q_tot, agent by agent and unit by unit; figure 2 of the paper."""
    if agent.mixer is None:
        return values
    if agent.mixer == "vdn":
        return values.sum(axis=-1)
    agents, units = values.shape[-1], agent.mixing_embed_dim
    heads = mlp(params["mixer"]["weights"], state)
    hidden = np.array(heads["b1"])
    for i in range(agents):
        hidden = hidden + values[..., i, None] * np.abs(heads["w1"][..., i * units : (i + 1) * units])
    hidden = np.where(hidden > 0, hidden, np.exp(hidden) - 1)
    bias = mlp(params["mixer"]["value"], state, relu)["b2"][..., 0]
    return np.sum(np.abs(heads["w2"]) * hidden, axis=-1) + bias


def folded(part):
    return part.reshape(part.shape[0], -1, *part.shape[3:])


def warmed(params, view, batch, name, burn):
    """The memory of agents before the first step that is learned from; None of networks without."""
    if "state" not in params:
        return None
    start = tuple(part[0].reshape(-1, part.shape[-1]) for part in batch.carry[name])
    first = np.repeat(batch.first, view.shape[2], axis=1)
    return lstm(params, start, folded(view)[:burn], first[:burn])[0][-1]


def agent_values(params, start, view, next_view, batch, burn, ahead):
    if start is None:
        return mlp(params, (next_view if ahead else view)[burn:])["q"]
    first = np.repeat(batch.first, view.shape[2], axis=1)[burn:]
    states, heads = lstm(params, start, folded(view)[burn:], first)
    if ahead:
        steps = zip(states[1:], folded(next_view)[burn:], strict=True)
        still = np.zeros((1, first.shape[1]), bool)
        return np.stack([lstm(params, state, x[None], still)[1]["q"][0] for state, x in steps]).reshape(
            *view[burn:].shape[:-1], -1
        )
    return heads["q"].reshape(*view[burn:].shape[:-1], -1)


# MAPPO ---------------------------------------------------------------------------------------------------------------


def mappo(agent, held, batch, draws, progress):
    """Yu et al. 2022, appendix A: PPO with a ratio for each agent and a critic of the state."""
    views, state, legal = views_of(batch.obs)
    next_state = views_of(batch.next_obs)[1]
    reward = batch.reward
    if agent.team_reward is not None:
        reward = (reward.sum(axis=-1) if agent.team_reward == "sum" else reward.mean(axis=-1))[..., None]

    def values(critic, state):
        return mlp(critic, state)["value"]

    mean, scale = held.returns.mean, np.sqrt(held.returns.variance + 1e-8)
    old = values(held.params["critic"], state)
    value, next_value = mean + scale * old, mean + scale * values(held.params["critic"], next_state)
    gained = [
        advantages(batch._replace(reward=reward[..., i]), value[..., i], next_value[..., i], agent.gamma, agent.lambda_)
        for i in range(reward.shape[-1])
    ]
    advantage = np.stack(gained, axis=-1)
    target = value + advantage
    if agent.normalize_values:
        held.returns.see(target)
    target = (target - held.returns.mean) / np.sqrt(held.returns.variance + 1e-8)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

    def flat(part):
        return part.reshape(-1, *part.shape[2:])

    state, old, target, advantage, old_log_prob = map(flat, (state, old, target, advantage, batch.extras["log_prob"]))
    views, action = ({name: flat(part) for name, part in group.items()} for group in (views, batch.action))
    legal = {name: mask if mask is True else flat(mask) for name, mask in legal.items()}
    clip, lr, seen = at(agent.clip_param, progress), at(agent.lr, progress), []
    for order in draws["orders"]:

        def losses(params, order=order):
            policies = [policy_of(params["actors"][n], views[n][order], legal[n], order) for n in sorted(views)]
            log_prob = np.concatenate(
                [p.log_prob(action[n][order]) for p, n in zip(policies, sorted(views), strict=True)], axis=-1
            )
            ratio = np.exp(log_prob - old_log_prob[order])
            gain = np.minimum(ratio * advantage[order], np.clip(ratio, 1 - clip, 1 + clip) * advantage[order])
            value = values(params["critic"], state[order])
            error = (value - target[order]) ** 2
            if agent.vf_clip_param is not None:
                near = old[order] + np.clip(value - old[order], -agent.vf_clip_param, agent.vf_clip_param)
                error = np.maximum(error, (near - target[order]) ** 2)
            entropy = np.mean(np.concatenate([p.entropy() for p in policies], axis=-1))
            kl = np.mean(ratio - 1 - (log_prob - old_log_prob[order]))
            total = -gain.mean() + agent.vf_loss_coeff * error.mean() - at(agent.entropy_coeff, progress) * entropy
            return total, {"policy_loss": -gain.mean(), "vf_loss": error.mean(), "entropy": entropy, "kl": kl}

        total, parts = losses(held.params)
        slopes = gradient(lambda params: losses(params)[0], held.params)
        held.params = held.optimizer.step(held.params, slopes, lr)
        seen.append(parts | {"total_loss": total, "grad_gnorm": held.optimizer.norm})
    return {name: np.mean([each[name] for each in seen]) for name in seen[0]} | {"cur_lr": lr}


def policy_of(actor, view, legal, order):
    outputs = mlp(actor["network"], view)["policy"]
    if "log_std" in actor:
        log_std = np.broadcast_to(actor["log_std"], (*outputs.shape[:-1], *actor["log_std"].shape))
        return Gaussian(np.concatenate([outputs, log_std], axis=-1))
    return Categorical(np.where(legal if legal is True else legal[order], outputs, -1e30))


class RunningMoments:
    """Mean and variance of all that was seen."""

    def __init__(self, size):
        self.seen, self.mean, self.variance = np.zeros((0, size)), np.zeros(size), np.ones(size)

    def see(self, batch):
        self.seen = np.concatenate([self.seen, batch.reshape(-1, batch.shape[-1])])
        self.mean, self.variance = self.seen.mean(axis=0), self.seen.var(axis=0)


# MADDPG --------------------------------------------------------------------------------------------------------------


def maddpg(agent, held, batch, draws, progress):
    """Lowe et al. 2017, equations 5 and 6, one agent after the other."""
    views, state, legal = views_of({"obs": first_step(batch.obs["obs"])})
    next_views, next_state, next_legal = views_of({"obs": first_step(batch.next_obs["obs"])})
    names = sorted(views)
    seats = [(name, i) for name in names for i in range(views[name].shape[1])]

    def outputs(actors, views, legal):
        raw = {name: mlp(actors[name], views[name])["action"] for name in names}
        return {name: np.where(legal[name], raw[name], -1e30) for name in names}

    def values(critics, state, joint, seat):
        name, i = seat
        agents = views[name].shape[1]
        number = np.broadcast_to(np.eye(agents)[i], (len(state), agents))[:, : agents if agents > 1 else 0]
        parts = [state, *(joint[each] for each in seats), number]
        return mlp(critics[name], np.concatenate(parts, axis=-1))["q"][:, 0]

    def taken_of(name, i):
        action = batch.action[name][0][:, i]
        return np.eye(draws["now"][name].shape[-1])[action] if name in draws["now"] else action

    taken = {seat: taken_of(*seat) for seat in seats}
    believed, following = outputs(held.target["actors"], next_views, next_legal), {}
    for name, i in seats:
        if name in draws["next"]:
            disturbed = believed[name][:, i] + draws["next"][name][:, i]
            following[name, i] = np.eye(disturbed.shape[-1])[np.argmax(disturbed, axis=-1)]
        else:
            following[name, i] = np.tanh(believed[name][:, i])
    over, targets = batch.terminated[0], {}
    for number, seat in enumerate(seats):
        next_value = values(held.target["critics"], next_state, following, seat)
        targets[seat] = batch.reward[0][:, number] + agent.gamma * np.where(over, 0, next_value)

    def critic_loss(critics):
        errors = [values(critics, state, taken, seat) - targets[seat] for seat in seats]
        return np.mean(weights(batch) * sum(0.5 * error**2 for error in errors))

    metrics = {"critic_loss": critic_loss(held.critics)}
    slopes = gradient(critic_loss, held.critics)
    held.critics = held.critic_optimizer.step(held.critics, slopes, at(agent.critic_lr, progress))
    metrics["critic_gnorm"] = held.critic_optimizer.norm
    now = outputs(held.actors, views, legal)
    fixed = {}  # what straight-through estimates hold constant: the draw less its softmax
    for name, i in seats:
        if name in draws["now"]:
            disturbed = now[name][:, i] + draws["now"][name][:, i]
            fixed[name, i] = np.eye(disturbed.shape[-1])[np.argmax(disturbed, axis=-1)] - softmax(disturbed)

    def actor_loss(actors):
        given, total = outputs(actors, views, legal), 0.0
        for name, i in seats:
            own = given[name][:, i]
            seen = np.where(np.broadcast_to(legal[name], given[name].shape)[:, i], own, 0)
            total += agent.actor_feature_reg * np.mean(seen**2)
            mine = np.tanh(own) if (name, i) not in fixed else fixed[name, i] + softmax(own + draws["now"][name][:, i])
            total -= np.mean(values(held.critics, state, taken | {(name, i): mine}, (name, i)))
        return total

    metrics["actor_loss"] = actor_loss(held.actors)
    slopes = gradient(actor_loss, held.actors)
    held.actors = held.actor_optimizer.step(held.actors, slopes, at(agent.actor_lr, progress))
    metrics["actor_gnorm"] = held.actor_optimizer.norm
    held.since += agent.timesteps_per_update
    move_if_due(agent, held, {"actors": held.actors, "critics": held.critics}, agent.tau)
    return metrics


def first_step(groups):
    return {
        name: {entry: part[0] for entry, part in group.items()} if isinstance(group, dict) else group[0]
        for name, group in groups.items()
    }

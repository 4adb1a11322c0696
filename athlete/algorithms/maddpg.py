"""MADDPG: multi-agent deep deterministic policy gradient (Lowe et al. 2017, arXiv:1706.02275).

Each agent has an actor, which sees what the agent sees, and a critic, which only learning needs: of the state of the
whole and the actions of all. A critic learns its agent's own reward, with the next actions of all by their target
actors (equation 6); an actor climbs its critic's value with the actions of the others as they were (equation 5). So
agents may work together, against each other, or both (algorithm 1).

Box actions are deterministic with noise, as in DDPG. Discrete ones are drawn from a softmax, without noise, and
gradients flow through them by the straight-through Gumbel-softmax estimate (Jang et al. 2017, arXiv:1611.01144, section
2.2). Defaults are RLlib's.

Departures:

- agents of a group share their actor and their critic, and are told apart by their numbers;
- the state, where the environment tells one, in place of all observations, see `joint.see`;
- discrete actions are drawn for the environment and in targets, where the authors' code gives it the softmax itself;
- a truncated episode is bootstrapped from its true last state; no inference of other agents' policies and no ensembles
  (sections 4.2 and 4.3).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from athlete.algorithms.joint import Seen, network_space, require_joint, see, state_space
from athlete.combine.seating import apart, merge, together
from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt
from athlete.exploration import ActingView, Exploration, GaussianNoise
from athlete.memory.replay import Replay
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import action_features, feature_size, feature_vector
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import masked
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import importance_weight
from athlete.ops.values import half_square, periodic_update
from athlete.settings.families import ActorCriticConfig
from athlete.spaces import Discrete


class Networks(NamedTuple):
    """Actors and critics by group."""

    actors: dict[str, Tree]
    critics: dict[str, Tree]


class MADDPGState(NamedTuple):
    """The state of a `MADDPG`."""

    online: Networks
    target: Networks  # in the shapes of the online ones
    actor_optimizer: AdamState
    critic_optimizer: AdamState
    since_sync: Array  # float32 scalar: timesteps sampled since the targets were updated


@hyper
class MADDPG(Agent):
    """Hyperparameters of MADDPG under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("discrete", "continuous")
    joint: ClassVar[bool] = True

    actor_lr: NonNegativeFloat | Schedule = 1e-2
    critic_lr: NonNegativeFloat | Schedule = 1e-2
    gamma: Fraction = 0.95
    tau: Fraction = 0.01  # how far the target networks move at each of their updates
    actor_feature_reg: NonNegativeFloat = 0.001  # penalty on the mean square of what actors give before tanh or softmax
    obs_agent_id: bool = (
        True  # agents of a group see their numbers in it; without, agents that see the same do the same
    )
    grad_clip: Limit | None = 0.5  # of the global norm, of the actors' and of the critics' gradient
    target_network_update_freq: NonNegativeFloat = 0.0  # timesteps sampled at least between two updates of the targets
    num_steps_sampled_before_learning_starts: NonNegativeInt = 25_600  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    exploration: Exploration = GaussianNoise()  # of Box actions
    policy_model: Model = MLP((64, 64), "relu")
    q_model: Model = MLP((64, 64), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_joint(type(self).__name__, self.serves, spec)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> MADDPGState:
        """The key is folded with twice the group's number for its actor, and one more for its critic."""
        actors, critics, joint = {}, {}, sum(self._sizes())
        for i, (name, group) in enumerate(self.spec.groups):
            number = group.size if group.size > 1 else 0
            seen = feature_vector(state_space(self.spec).shape[0] + joint + number)
            actor_key, critic_key = (jax.random.fold_in(key, 2 * i + part) for part in range(2))
            heads = {"action": (feature_size(group.action), 0.01)}
            actors[name] = self.policy_model.init(actor_key, network_space(group, self.obs_agent_id), heads)
            critics[name] = self.q_model.init(critic_key, seen, {"q": (1, 1.0)})
        online = Networks(actors, critics)
        optimizers = adam_init(actors), adam_init(critics)
        return MADDPGState(online, jax.tree.map(jnp.copy, online), *optimizers, jnp.zeros(()))

    def view(self, state: MADDPGState, progress: Array) -> ActingView:
        return ActingView(state.online.actors, self.exploration.rate(progress))

    def start(self, view: ActingView, rows: int, key: Key) -> Tree:
        return {
            name: apart(
                self.exploration.start(rows * group.size, feature_size(group.action), jax.random.fold_in(key, i)), rows
            )
            for i, (name, group) in enumerate(self.spec.groups)
            if not isinstance(group.action, Discrete)
        }

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """Actions `{group: [B, n, ...]}`. The key is for drawing Discrete ones and for the noise on others."""
        outputs, rows = self._outputs(view.params, see(self.spec, obs, self.obs_agent_id)), first.shape[0]
        carry, actions = dict(carry), {}
        for i, (name, group) in enumerate(self.spec.groups):
            own, own_key = outputs[name], jax.random.fold_in(key, i)
            if isinstance(group.action, Discrete):
                drawn = own + jax.random.gumbel(own_key, own.shape) if explore else own
                actions[name] = jnp.argmax(drawn, axis=-1).astype(jnp.int32)
                continue
            action = merge(jnp.tanh(own), 0)
            if explore:
                fresh = jnp.repeat(first, group.size)
                action, noise = self.exploration.add_noise(action, view.rate, together(carry[name]), fresh, own_key)
                carry[name] = apart(noise, rows)
            actions[name] = action.reshape(rows, group.size, *group.action.shape)
        return actions, carry, {}

    def update(self, state: MADDPGState, batch: Transition, key: Key, progress: Array) -> tuple[MADDPGState, dict]:
        """The key is split in two: for drawing the next Discrete actions, and those now."""
        next_key, now_key = jax.random.split(key)
        step = jax.tree.map(lambda leaf: leaf[0], batch._replace(carry=(), extras=()))
        seen, following = see(self.spec, step.obs, self.obs_agent_id), see(self.spec, step.next_obs, self.obs_agent_id)
        parts = [action_features(group.action, step.action[name]) for name, group in self.spec.groups]
        taken = jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=-1)

        next_outputs = self._outputs(state.target.actors, following)
        next_action = self._joint_action(next_outputs, next_key)
        next_value = self._values(state.target.critics, following, self._for_all(next_action))
        target = step.reward + self.gamma * jnp.where(step.terminated[:, None], 0.0, next_value)

        def critic_losses(critics: Tree) -> tuple[Array, tuple[Array, Array]]:
            values = self._values(critics, seen, self._for_all(taken))
            error = values - target
            return jnp.sum(half_square(error), axis=-1), (values, error)

        def actor_losses(actors: Tree) -> tuple[Array, None]:
            outputs = self._outputs(actors, seen)
            own = self._own_columns() * self._joint_action(outputs, now_key)[:, None]
            others = jnp.where(self._own_columns(), 0.0, taken[:, None])
            values = self._values(critic.params, seen, own + others)
            return -jnp.sum(values, axis=-1) + self.actor_feature_reg * self._penalty(outputs, seen), None

        adam, weight = Adam(self.grad_clip), importance_weight(batch)
        critic_lr, actor_lr = value_at(self.critic_lr, progress), value_at(self.actor_lr, progress)
        critic = adam.minimize(critic_losses, state.online.critics, state.critic_optimizer, critic_lr, weight)
        actor = adam.minimize(actor_losses, state.online.actors, state.actor_optimizer, actor_lr, weight=None)
        online, since = Networks(actor.params, critic.params), state.since_sync + self.timesteps_per_update
        targets, since = periodic_update(state.target, online, self.tau, since, self.target_network_update_freq)
        values, error = critic.aux
        metrics = {
            "critic_loss": critic.loss,
            "actor_loss": actor.loss,
            "mean_q": jnp.mean(values),
            "mean_td_error": jnp.mean(error),
            "td_error": jnp.mean(jnp.abs(error), axis=-1),
            "critic_gnorm": critic.norm,
            "actor_gnorm": actor.norm,
            "cur_exploration": self.exploration.rate(progress),
        }
        return MADDPGState(online, targets, actor.state, critic.state, since), metrics

    def _outputs(self, actors: Tree, seen: Seen) -> dict[str, Array]:
        """What actors give for what their agents see, `{group: [B, n, m]}`: logits, or actions before tanh."""
        found = {}
        for name, group in self.spec.groups:
            outputs = forward(self.policy_model, actors[name], merge(seen.own[name], 0))["action"]
            found[name] = masked(outputs.reshape(-1, group.size, outputs.shape[-1]), seen.mask[name])
        return found

    def _joint_action(self, outputs: dict[str, Array], key: Key) -> Array:
        """The flat actions of all `[B, m of all]` that gradients flow through."""
        actions = []
        for i, (name, group) in enumerate(self.spec.groups):
            if isinstance(group.action, Discrete):
                action = straight_through(outputs[name], jax.random.fold_in(key, i))
            else:
                action = jnp.tanh(outputs[name])
            actions.append(action.reshape(action.shape[0], -1))
        return jnp.concatenate(actions, axis=-1)

    def _values(self, critics: Tree, seen: Seen, actions: Array) -> Array:
        """The value `[B, agents]` that each agent's critic gives to actions of all, `[B, agents, m of all]`."""
        values, start = [], 0
        for name, group in self.spec.groups:
            own = actions[:, start : start + group.size]
            state = jnp.broadcast_to(seen.state[:, None], (*own.shape[:2], seen.state.shape[-1]))
            parts = [state, own]
            if group.size > 1:
                parts.append(jnp.broadcast_to(jnp.eye(group.size), (*own.shape[:2], group.size)))
            rows = merge(jnp.concatenate(parts, axis=-1), 0)
            values.append(forward(self.q_model, critics[name], rows)["q"].reshape(-1, group.size))
            start += group.size
        return jnp.concatenate(values, axis=-1)

    def _penalty(self, outputs: dict[str, Array], seen: Seen) -> Array:
        """The mean square of what each agent's actor gives, summed over agents, `[B]`, without what is forbidden."""
        total: Array = 0.0
        for name, _ in self.spec.groups:
            mask = seen.mask[name]
            kept = outputs[name] if mask is None else jnp.where(mask, outputs[name], 0.0)
            total = total + jnp.sum(jnp.mean(jnp.square(kept), axis=-1), axis=-1)
        return total

    def _for_all(self, actions: Array) -> Array:
        """The same actions `[B, m of all]` for every agent's critic, `[B, agents, m of all]`."""
        return jnp.broadcast_to(actions[:, None], (actions.shape[0], len(self._sizes()), actions.shape[1]))

    def _sizes(self) -> list[int]:
        """How many numbers the flat action of each agent has."""
        sizes = []
        for _, group in self.spec.groups:
            sizes += [feature_size(group.action)] * group.size
        return sizes

    def _own_columns(self) -> np.ndarray:
        """Which of the flat actions of all are an agent's own, bool `[agents, m of all]`."""
        agents = np.arange(len(self._sizes()))
        return np.repeat(agents, self._sizes()) == agents[:, None]


def straight_through(logits: Array, key: Key) -> Array:
    """A draw from the softmax of logits `[..., n]`, one-hot, with the gradient of the softmax of the same disturbed
    logits (Jang et al. 2017, arXiv:1611.01144, section 2.2).
    """
    disturbed = logits + jax.random.gumbel(key, logits.shape)
    soft = jax.nn.softmax(disturbed)
    hard = (jnp.argmax(disturbed, axis=-1)[..., None] == jnp.arange(logits.shape[-1])).astype(jnp.float32)
    return hard + soft - jax.lax.stop_gradient(soft)


class MADDPGConfig(ActorCriticConfig):
    """Configuration of MADDPG: `MADDPGConfig().environment("TwoStepGame-v0").training(actor_lr=1e-3).build()`."""

    algorithm_name = "MADDPG"
    summary = "actors that climb critics of what all agents do"
    paper = "Lowe et al. 2017, arXiv:1706.02275"
    agent_class = MADDPG
    exploration_types = ("GaussianNoise", "OrnsteinUhlenbeckNoise", "StochasticSampling")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 100,
        "train_batch_size": 1024,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 1_000_000},
    }

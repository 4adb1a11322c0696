"""QMIX: monotonic value function factorisation (Rashid et al. 2018, arXiv:1803.11485), with VDN and IQL as settings.

Each agent has values of its own actions and acts by them alone. In learning, their values of the actions taken are
mixed into one of all, Q_tot, which is monotonic in each of them (equation 5): so the actions that are best for each
are the best together (equation 4), and Q_tot learns from the reward of all as one Q function would (equation 6). The
weights of the mixing network come from the state of the whole, by networks of their own (section 4.1, figure 2).

`mixer="vdn"` adds the values up (value decomposition networks, Sunehag et al. 2017, arXiv:1706.05296, equation 3).
With `mixer=None` nothing is mixed: each agent learns from its own reward (independent Q-learning, Tan 1993).

The reward of all is the sum of the agents' rewards, or their mean, see `team_reward`; RLlib's is the mean. The state is
the entry "state" of the agents' observations, or all that they see, see `joint.see`.

Departures:

- double Q-learning (van Hasselt et al. 2016, arXiv:1509.06461, equation 4) as in the authors' later code and in RLlib;
- Adam instead of RMSProp, gradients clipped by their global norm;
- single steps from replay, or sequences where the agents' network has memory, where the paper takes whole episodes;
- a truncated episode is bootstrapped from its true last observation.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp

from athlete.algorithms.joint import Seen, network_space, require_joint, see, state_space, team_reward
from athlete.algorithms.q_learning import QState
from athlete.combine.seating import apart, merge, together
from athlete.core import Agent, Array, Key, Memory, Model, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveInt
from athlete.exploration import ActingView, EpsilonGreedy, SoftQ
from athlete.memory.replay import Replay
from athlete.models.forward import forward, forward_step
from athlete.models.mlp import MLP
from athlete.models.unroll import step_from, unroll
from athlete.ops.features import feature_size
from athlete.ops.gradient import Adam, adam_init
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import importance_weight
from athlete.ops.values import batched_index, greedy, half_square, periodic_update
from athlete.settings.families import ReplayConfig


@hyper
class QMIX(Agent):
    """Hyperparameters of QMIX under RLlib's names. Floats and schedules are traced, the rest shapes the program.

    The memory's windows are `burn_in` steps and `max_seq_len` to learn from.
    """

    serves = ("discrete",)
    joint: ClassVar[bool] = True

    lr: NonNegativeFloat | Schedule = 5e-4
    gamma: Fraction = 0.99
    grad_clip: Limit | None = 10.0  # of the global norm
    mixer: Literal["qmix", "vdn"] | None = "qmix"  # "vdn": the sum of values; None: agents learn independently
    mixing_embed_dim: PositiveInt = 32  # units of the mixing network
    team_reward: Literal["sum", "mean"] = "sum"  # of the agents' rewards, what a mixer learns from
    obs_agent_id: bool = (
        True  # agents of a group see their numbers in it; without, agents that see the same do the same
    )
    double_q: bool = True  # the online network chooses the next actions, the target network values them
    target_network_update_freq: NonNegativeFloat = 500.0  # timesteps sampled between two updates of the target network
    num_steps_sampled_before_learning_starts: NonNegativeInt = 1000  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    timesteps_per_update: float = 1.0
    burn_in: int = 0  # steps of a sequence that only bring the agents' memory up to date
    max_seq_len: int = 1  # steps of a sequence to learn from
    exploration: EpsilonGreedy | SoftQ = EpsilonGreedy()
    model: Model = MLP((64, 64), "relu")  # of each agent's values
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_joint(type(self).__name__, self.serves, spec)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> QState:
        """The key is folded with 0 for the mixing network, and from 1 on for the groups' networks."""
        agents = {
            name: self.model.init(
                jax.random.fold_in(key, 1 + i),
                network_space(group, self.obs_agent_id),
                {"q": (feature_size(group.action), 1.0)},
            )
            for i, (name, group) in enumerate(self.spec.groups)
        }
        params: Tree = {"agents": agents}
        if self.mixer == "qmix":
            params["mixer"] = self._init_mixer(jax.random.fold_in(key, 0))
        return QState(params, jax.tree.map(jnp.copy, params), adam_init(params), jnp.zeros(()))

    def view(self, state: QState, progress: Array) -> ActingView:
        return ActingView(state.params["agents"], self.exploration.rate(progress))

    def start(self, view: ActingView, rows: int, key: Key) -> Tree:
        return {name: apart(self.model.start(rows * group.size), rows) for name, group in self.spec.groups}

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """Actions `{group: [B, n]}`, each by its own agent's values; the key is for choosing among them."""
        seen, rows, actions, carries = see(self.spec, obs, self.obs_agent_id), first.shape[0], {}, {}
        for i, (name, group) in enumerate(self.spec.groups):
            own, mask, fresh = merge(seen.own[name], 0), seen.mask[name], jnp.repeat(first, group.size)
            after, heads = forward_step(self.model, view.params[name], together(carry[name]), own, fresh)
            values = heads["q"].reshape(rows, group.size, -1)
            own_key = jax.random.fold_in(key, i)
            chosen = self.exploration.choose(values, view.rate, own_key, mask) if explore else greedy(values, mask)
            actions[name], carries[name] = chosen, apart(after, rows)
        return actions, carries, {}

    def update(self, state: QState, batch: Transition, key: Key, progress: Array) -> tuple[QState, dict]:
        """The key is not used: nothing here is random."""
        batch = batch._replace(
            obs=see(self.spec, batch.obs, self.obs_agent_id), next_obs=see(self.spec, batch.next_obs, self.obs_agent_id)
        )
        learned = jax.tree.map(lambda leaf: leaf[self.burn_in :], batch._replace(carry=(), extras=()))

        def losses_of(params: Tree) -> tuple[Array, dict[str, Array]]:
            carries, values = self._unroll(params["agents"], batch)
            target = jax.lax.stop_gradient(self._target(state.target, params, carries, batch, learned))
            mixed = self._mix(params, _of_agents(values, learned.action), learned.obs.state)
            error = mixed - target
            all_but_rows = (0, *range(2, error.ndim))
            return jnp.mean(half_square(error), axis=all_but_rows), {
                "mean_q": jnp.mean(mixed),
                "mean_td_error": jnp.mean(error),
                "td_error": jnp.mean(jnp.abs(error), axis=all_but_rows),
            }

        lr, weight = value_at(self.lr, progress), importance_weight(batch)
        step = Adam(self.grad_clip).minimize(losses_of, state.params, state.optimizer, lr, weight)
        since = state.since_sync + self.timesteps_per_update
        target, since = periodic_update(state.target, step.params, 1.0, since, self.target_network_update_freq)
        metrics = {"loss": step.loss, **step.aux, "grad_gnorm": step.norm, "cur_lr": lr}
        metrics["cur_exploration"] = self.exploration.rate(progress)
        return QState(step.params, target, step.state, since), metrics

    def _target(self, target: Tree, params: Tree, carries: Tree, batch: Transition, learned: Transition) -> Array:
        """Equation 6: r + gamma max Q_tot by the target network, `[T, B]`; `[T, B, agents]` without a mixer.

        `carries` are the online network's, before and after the steps that are learned from.
        """
        seen = learned.next_obs
        values = self._next_values(target["agents"], self._unroll(target["agents"], batch)[0], seen)
        chooser = self._next_values(params["agents"], carries, seen) if self.double_q else values
        best = {name: greedy(chooser[name], seen.mask[name]) for name, _ in self.spec.groups}
        following = self._mix(target, _of_agents(values, best), seen.state)
        if self.mixer is None:
            return learned.reward + self.gamma * jnp.where(learned.terminated[..., None], 0.0, following)
        reward = team_reward(learned.reward, self.team_reward)
        return reward + self.gamma * jnp.where(learned.terminated, 0.0, following)

    def _unroll(self, agents: Tree, batch: Transition) -> tuple[Tree, dict[str, Array]]:
        """States before and after each step behind the burn-in, and values `{group: [T, B, n, actions]}`."""
        carries, values = {}, {}
        for name, group in self.spec.groups:
            own, first = merge(batch.obs.own[name], 1), jnp.repeat(batch.first, group.size, axis=1)
            start = jax.tree.map(lambda leaf: merge(leaf[0], 0), batch.carry[name]) if batch.carry else ()
            carries[name], heads = unroll(self.model, agents[name], start, own, first, self.burn_in)
            values[name] = heads["q"].reshape(len(heads["q"]), -1, group.size, heads["q"].shape[-1])
        return carries, values

    def _next_values(self, agents: Tree, carries: Tree, seen: Seen) -> dict[str, Array]:
        """Values `{group: [T, B, n, actions]}` of where steps led, from the states after them."""
        values = {}
        for name, _ in self.spec.groups:
            own = seen.own[name]
            after = jax.tree.map(lambda leaf: leaf[1:], carries[name])
            heads = step_from(self.model, agents[name], after, merge(own, 1))
            values[name] = heads["q"].reshape(*own.shape[:-1], -1)
        return values

    def _init_mixer(self, key: Key) -> Tree:
        weights_key, value_key = jax.random.split(key)
        agents, units, space = self.spec.reward_shape[0], self.mixing_embed_dim, state_space(self.spec)
        heads = {"w1": (agents * units, 1.0), "b1": (units, 1.0), "w2": (units, 1.0)}
        weights = MLP(()).init(weights_key, space, heads)
        return {"weights": weights, "value": MLP((units,), "relu").init(value_key, space, {"b2": (1, 1.0)})}

    def _mix(self, params: Tree, taken: Array, state: Array) -> Array:
        """Q_tot `[T, B]` of the agents' values `[T, B, agents]`; without a mixer these themselves."""
        if self.mixer is None:
            return taken
        if self.mixer == "vdn":
            return jnp.sum(taken, axis=-1)
        agents, units, leading = taken.shape[-1], self.mixing_embed_dim, taken.shape[:-1]
        taken, state = taken.reshape(-1, 1, agents), state.reshape(-1, state.shape[-1])
        heads = forward(MLP(()), params["mixer"]["weights"], state)
        into = jnp.abs(heads["w1"]).reshape(-1, agents, units)  # not negative: equation 5
        hidden = jax.nn.elu((taken @ into)[:, 0] + heads["b1"])
        out = jnp.sum(hidden * jnp.abs(heads["w2"]), axis=-1)
        bias = forward(MLP((units,), "relu"), params["mixer"]["value"], state)["b2"][:, 0]
        return (out + bias).reshape(leading)


def _of_agents(values: dict[str, Array], action: dict[str, Array]) -> Array:
    """Of values `{group: [T, B, n, actions]}` those of actions `{group: [T, B, n]}`, of all agents `[T, B, agents]`."""
    chosen = [
        batched_index(values[name].reshape(-1, values[name].shape[-1]), part.reshape(-1)).reshape(part.shape)
        for name, part in sorted(action.items())
    ]
    return jnp.concatenate(chosen, axis=-1)


class QMIXConfig(ReplayConfig):
    """Configuration of QMIX: `QMIXConfig().environment("TwoStepGame-v0").training(mixer="vdn").build()`."""

    algorithm_name = "QMIX"
    summary = "action values of several agents, mixed into one of all by a network that is monotonic in each"
    paper = "Rashid et al. 2018, arXiv:1803.11485"
    agent_class = QMIX
    learns_sequences = None
    exploration_types = ("EpsilonGreedy", "SoftQ")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 4,
        "train_batch_size": 32,
        "min_sample_timesteps_per_iteration": 1000,
        "model": {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"},
        "replay_buffer_config": {"type": "ReplayBuffer", "capacity": 50_000},
        "exploration_config": {
            "type": "EpsilonGreedy",
            "initial_epsilon": 1.0,
            "final_epsilon": 0.01,
            "epsilon_timesteps": 40_000,
        },
    }

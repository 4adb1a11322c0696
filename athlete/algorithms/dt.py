"""Decision Transformer (Chen et al. 2021, arXiv:2106.01345): what was done on the way to the return that is asked for.

A causal transformer reads the last `max_seq_len` steps as tokens (return-to-go, observation, action), and at each
observation tells the action that was done (section 3, algorithm 1); the return-to-go is the sum of the rewards from
there to the end of the episode. Acting, it is given `target_return` first, less each reward that comes. Nothing is
bootstrapped: discrete actions are learned by cross-entropy, continuous ones by the squared error of a tanh.

Departures:

- a sample is any window of consecutive steps, and a step attends to those of its own episode alone: the paper's windows
  begin anywhere too, and are padded where an episode ends;
- returns-to-go are seen as parts of the largest return of the data, where the paper has a number for each environment;
- an episode that was cut has the rewards up to there for its return, as in the paper; `gamma` below 1 discounts;
- observations are standardised by the data, as in the authors' code, and times after `max_ep_len` are seen as that;
- the decay of weights goes over all matrices, and Adam's second moment decays by 0.999, RLlib's default by 0.95;
- RLlib's losses of observations and returns, off by default, are not there.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Agent, Array, Key, Memory, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, PositiveInt
from athlete.distributions import Categorical, flat_action, shape_action
from athlete.memory.replay import Replay
from athlete.models.causal import Dropout, apply_blocks, block_layers, blocks_of, drop, init_norm
from athlete.models.dense import Layer, dense, init_layers, layer_norm
from athlete.ops.features import action_features, feature_size, features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.returns import discounted_sums
from athlete.ops.schedule import Schedule, value_at
from athlete.settings.families import RecordedConfig
from athlete.spaces import Discrete, Space, Tuple, has_mask, require_kind


class Context(NamedTuple):
    """Consecutive steps of each row, the last one last: `[B, K, ...]`."""

    obs: Array  # features
    action: Array  # one-hot or in [-1, 1], flat
    return_to_go: Array  # as a part of the data's largest return
    time: Array  # int32, of the step in its episode; -1 before there was one


class Data(NamedTuple):
    """What is known of the data: moments of the features of observations, `[n]`, and the largest return."""

    mean: Array
    std: Array
    return_: Array  # without its sign


class Looked(NamedTuple):
    """How far `observe` has come, `[B]` each."""

    steps: Array
    return_: Array  # of the running episode so far


class DTView(NamedTuple):
    """What acts."""

    params: Tree
    data: Data


class DTState(NamedTuple):
    """The state of a `DT`."""

    params: Tree
    optimizer: AdamState
    data: Data


@hyper
class DT(Agent):
    """Hyperparameters of DT under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("discrete", "continuous")
    learns_returns = True

    lr: NonNegativeFloat | Schedule = 1e-4
    gamma: Fraction = 1.0  # of returns-to-go
    target_return: float | None = None  # that is asked for in acting
    max_seq_len: PositiveInt = 5  # steps that an action is told from
    max_ep_len: PositiveInt = 1000  # steps of an episode that are told apart
    embed_dim: PositiveInt = 128
    num_layers: PositiveInt = 2
    num_heads: PositiveInt = 1
    embed_pdrop: Fraction = 0.1  # share of the tokens' numbers that are dropped while learning
    resid_pdrop: Fraction = 0.1  # of what a block adds
    attn_pdrop: Fraction = 0.1  # of the weights of attention
    weight_decay: NonNegativeFloat = 1e-4  # decoupled (Loshchilov & Hutter 2019), times the learning rate
    grad_clip: Limit | None = None  # of the global norm
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> DT:
        require_kind(type(self).__name__, self.serves, spec.action)
        if has_mask(spec.obs):
            raise ValueError("DT: it does not look at masks of actions; BC does, of networks with memory too")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"DT: embed_dim={self.embed_dim} is no multiple of num_heads={self.num_heads}")
        return dataclasses.replace(self, spec=spec)

    @property
    def _obs_space(self) -> Space:
        """Of observations, without the reward that is shown beside them."""
        return self.spec.obs.spaces[0] if isinstance(self.spec.obs, Tuple) else self.spec.obs

    @property
    def _target(self) -> Any:
        """`target_return`; without one, which no configuration is, 0."""
        return 0.0 if self.target_return is None else self.target_return

    def init(self, key: Key) -> DTState:
        size, action_size, dim = feature_size(self._obs_space), feature_size(self.spec.action), self.embed_dim
        inputs = [Layer(size, dim, 1.0), Layer(action_size, dim, 1.0), Layer(1, dim, 1.0)]
        times = Layer(self.max_ep_len, dim, 0.02 * max(self.max_ep_len, dim) ** 0.5)
        ends = [times, Layer(dim, _outputs_of(self.spec.action), 0.01)]
        layers = init_layers(key, [*inputs, *ends, *block_layers(dim, self.num_layers)])
        names = ("obs", "action", "return_to_go", "time", "head")
        params = dict(zip(names, layers[:5], strict=True)) | blocks_of(layers[5:], dim)
        params |= {"time": params["time"]["kernel"], "embedded": init_norm(dim)}
        return DTState(params, adam_init(params), Data(jnp.zeros(size), jnp.ones(size), jnp.ones(())))

    def view(self, state: DTState, progress: Array) -> DTView:
        return DTView(state.params, state.data)

    def observe(self, state: DTState, accumulators: Tree, trajectory: Transition) -> tuple[DTState, Tree]:
        """Look at the data, or at a part of them, `[N, 1, ...]`."""
        before, data = accumulators, state.data
        seen = features(self._obs_space, trajectory.obs[0])
        so_far = discounted_sums(trajectory.reward, trajectory.first, 1.0, before.return_)
        steps = before.steps + seen.shape[0]
        share = seen.shape[0] / steps[0]  # of what was seen so far
        shift = jnp.mean(seen, axis=(0, 1)) - data.mean
        squares = (1.0 - share) * jnp.square(data.std) + share * jnp.var(seen, axis=(0, 1))
        std = jnp.sqrt(squares + share * (1.0 - share) * jnp.square(shift))
        largest = jnp.maximum(jnp.max(jnp.abs(so_far)), jnp.where(before.steps[0] > 0, data.return_, 1e-6))
        data = Data(data.mean + share * shift, jnp.maximum(std, 1e-3), largest)
        return state._replace(data=data), Looked(steps, so_far[-1])

    def accumulators(self, rows: int) -> Looked:
        return Looked(jnp.zeros(rows), jnp.zeros(rows))

    # Acting

    def start(self, view: DTView, rows: int, key: Key) -> Context:
        length = self.max_seq_len
        shape = (rows, length)
        obs, action = (jnp.zeros((*shape, feature_size(space))) for space in (self._obs_space, self.spec.action))
        before = jnp.full(shape, self.gamma * self._target / view.data.return_)
        return Context(obs, action, before, jnp.full(shape, -1, jnp.int32))

    def act(self, view: DTView, carry: Context, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """The key is for sampling discrete actions; continuous ones are never random."""
        context = self._gone_on(view, carry, obs, first)
        output = self._outputs(view.params, context)[:, -1]
        if isinstance(self.spec.action, Discrete):
            policy = Categorical(output)
            action = policy.sample(key) if explore else policy.mode()
        else:
            action = jnp.tanh(output)
        chosen = shape_action(self.spec.action, action)
        done = context.action.at[:, -1].set(action_features(self.spec.action, chosen))
        return chosen, context._replace(action=done), {}

    def distribution(self, view: DTView, carry: Context, obs: Tree, first: Array) -> Any:
        if not isinstance(self.spec.action, Discrete):
            return None
        return Categorical(self._outputs(view.params, self._gone_on(view, carry, obs, first))[:, -1])

    def _gone_on(self, view: DTView, carry: Context, obs: Tree, first: Array) -> Context:
        """The context with the step to be decided last, its action not known yet."""
        seen, reward = obs
        left = (carry.return_to_go[:, -1] - reward[:, 0] / view.data.return_) / jnp.maximum(self.gamma, 1e-6)
        new = Context(
            self._standard(view.data, seen),
            jnp.zeros_like(carry.action[:, -1]),
            jnp.where(first, self._target / view.data.return_, left),
            jnp.where(first, 0, carry.time[:, -1] + 1),
        )
        return jax.tree.map(lambda old, last: jnp.concatenate([old[:, 1:], last[:, None]], axis=1), carry, new)

    # Learning

    def update(self, state: DTState, batch: Transition, key: Key, progress: Array) -> tuple[DTState, dict]:
        """The key is for dropout. `batch.reward` are returns-to-go, and `extras["time"]` counts an episode's steps."""
        steps = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), batch)
        seen, asked = self._standard(state.data, steps.obs[0]), steps.reward / state.data.return_
        context = Context(seen, action_features(self.spec.action, steps.action), asked, steps.extras["time"])
        done = flat_action(self.spec.action, steps.action)

        def losses_of(params: Tree) -> tuple[Array, None]:
            output = self._outputs(params, context, key)
            if isinstance(self.spec.action, Discrete):
                return -Categorical(output).log_prob(done), None
            return jnp.mean(jnp.square(jnp.tanh(output) - done), axis=-1), None

        lr = value_at(self.lr, progress)
        learned = Adam(self.grad_clip).minimize(losses_of, state.params, state.optimizer, lr, weight=None)
        decay = lr * self.weight_decay
        params = jax.tree.map(lambda new, old: new - decay * old if old.ndim > 1 else new, learned.params, state.params)
        metrics = {"policy_loss": learned.loss, "grad_gnorm": learned.norm, "cur_lr": jnp.asarray(lr, jnp.float32)}
        return state._replace(params=params, optimizer=learned.state), metrics

    def _standard(self, data: Data, obs: Tree) -> Array:
        """Features of observations, standardised."""
        return (features(self._obs_space, obs) - data.mean) / data.std

    def _outputs(self, params: Tree, context: Context, key: Key | None = None) -> Array:
        """What the head tells at every observation of a context, `[B, K, outputs]`, dropping numbers where a key is."""
        time = params["time"][jnp.clip(context.time, 0, self.max_ep_len - 1)]
        tokens = [
            dense(params["return_to_go"], context.return_to_go[..., None]),
            dense(params["obs"], context.obs),
            dense(params["action"], context.action),
        ]
        (rows, length), number = context.time.shape, len(tokens)
        stacked = jnp.stack([token + time for token in tokens], axis=2).reshape(rows, length * number, -1)
        x, dropout = layer_norm(params["embedded"], stacked), None
        if key is not None:
            token_key, key = jax.random.split(key)
            x, dropout = drop(x, self.embed_pdrop, token_key), Dropout(key, self.attn_pdrop, self.resid_pdrop)
        x = apply_blocks(params, x, visible_tokens(context.time, number), self.num_heads, dropout)
        return dense(params["head"], x.reshape(rows, length, number, -1)[:, :, 1])


def visible_tokens(time: Array, number: int) -> Array:
    """Which tokens each one sees, bool `[B, K number, K number]`, where each step has `number` tokens, in order.

    A token sees itself and those before it of its own episode: steps i and j are of the same one exactly where their
    `time` `[B, K]` differs by i - j. Of a step that never was, at time -1, others see nothing.
    """
    place = np.arange(time.shape[1])
    same = (time[:, :, None] - time[:, None]) == (place[:, None] - place)
    same &= (time[:, None] >= 0) | np.eye(time.shape[1], dtype=bool)
    spread = jnp.repeat(jnp.repeat(same, number, axis=1), number, axis=2)
    token = np.arange(time.shape[1] * number)
    return spread & (token[:, None] >= token)


def _outputs_of(space: Space) -> int:
    """Logits of discrete actions, or the entries of a continuous one."""
    return space.n if isinstance(space, Discrete) else feature_size(space)


class DTConfig(RecordedConfig):
    """Configuration of DT: `DTConfig().offline_data(input_="data.safetensors").training(target_return=500).build()`."""

    algorithm_name = "DT"
    summary = "a transformer that does what led to the return asked for"
    paper = "Chen et al. 2021, arXiv:2106.01345"
    agent_class = DT
    shows_reward = True
    defaults: ClassVar[dict[str, Any]] = {
        "train_batch_size": 512,
        "min_sample_timesteps_per_iteration": 51_200,
    }

    def sequence_length(self) -> int:
        return self.model.get("max_seq_len", DT.max_seq_len)

    def agent_parts(self) -> dict[str, Any]:
        return {"memory": self.recorded_memory(), "max_seq_len": self.sequence_length()}

    def validate(self) -> None:
        super().validate()
        if self.target_return is None:
            raise ValueError(
                f"{self._title()}: training(target_return=...) is not set: the return to ask for, such as the best of "
                "the data (`athlete data FILE` shows it)"
            )
        for name in self.model.keys() - {"max_seq_len"}:
            raise ValueError(
                f"{self._title()}: model has {name!r}, and there is max_seq_len; the size of the network is embed_dim, "
                "num_layers and num_heads"
            )
        if self.observation_filter != "NoFilter" or self.normalize_rewards or self.clip_rewards:
            raise ValueError(
                f"{self._title()}: observations are standardised by the data, and returns are those of target_return: "
                "leave observation_filter, normalize_rewards and clip_rewards out"
            )

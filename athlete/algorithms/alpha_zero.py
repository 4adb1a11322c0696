"""AlphaZero (Silver et al. 2018, Science 362): a tree search improves the policy, and the policy learns from it.

From each position `num_simulations` simulations go down a tree of what may come, by the policy p and the value v of one
network. What they found, pi, is what is played and what p learns; v learns the outcome z:

    loss = (z - v)^2 - pi^T log p + c |theta|^2      (equation 1 of the paper; c is `l2`)

With `gumbel` the search is that of Danihelka et al. 2022 ("Policy improvement by planning with Gumbel"), whose pi is
better than p with any number of simulations; else that of the paper, whose pi is the share of them that began with an
action, and which needs more.

Two players take turns through one network that sees the board from the side of who moves: what is good for one is bad
for the other, so values change their sign from move to move. A single player plays against itself of late: with ranked
rewards (Laterre et al. 2018, arXiv:1807.01672) an outcome is won, 1, if the reward at the end of the episode is not
below a percentile of the last ones, and lost, -1, else. That is RLlib's form, for rewards that come at the end.

Departures:

- searches are mctx's: values are scaled to [0, 1] among the actions of a node, and a batch of trees grows in step;
- the penalty is on the matrices of weights, not on biases;
- so that games of two are of many kinds, their first moves are random with a probability of `opening_randomness`, and
  all others with one of `randomness`: the policy learns what the search found there all the same. Without, play
  narrows to a few games, and the policy loses where it has never been;
- outcomes are ranked when they are learned from, not when they are played, and ties are won;
- the first timesteps are random, without a search: of these the value alone learns;
- an outcome further away than `n_step` steps is the value of the network there;
- an episode that is cut counts as ended, and what an environment draws is drawn once for each node of the tree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from athlete.core import ActingCarry, Agent, Array, Key, Memory, Model, Simulator, Spec, Transition, Tree, hyper
from athlete.core.ranges import Fraction, Limit, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Range
from athlete.distributions import output_size
from athlete.memory.replay import Replay
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import features
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.masks import action_mask, masked
from athlete.ops.ranked import Returns, add_returns, no_returns, percentile_of
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.sampling import random_action
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.search import Edge, Node, gumbel_search, puct_search
from athlete.settings.checks import require_known
from athlete.settings.families import REPLAY_SETTINGS, ReplayConfig
from athlete.settings.memory import UNIFORM_MEMORIES
from athlete.settings.table import Setting, check_field, is_search
from athlete.spaces import require_kind, to_environment


class Bar(NamedTuple):
    """What a single player has to reach."""

    height: Array  # float32 scalar
    is_set: Array  # bool scalar: enough episodes ended


class AlphaZeroState(NamedTuple):
    """The state of an `AlphaZero`."""

    params: Tree
    optimizer: AdamState
    returns: Returns  # of the last episodes; empty where they are not ranked
    bar: Bar


class AlphaZeroView(NamedTuple):
    """What acts."""

    params: Tree
    bar: Bar


@hyper
class AlphaZero(Agent):
    """Hyperparameters of AlphaZero. Floats and schedules are traced, the rest shapes the program."""

    serves: ClassVar[tuple[str, ...]] = ("discrete",)
    searches: ClassVar[bool] = True
    simulates: ClassVar[bool] = True

    lr: NonNegativeFloat | Schedule = 1e-3
    gamma: Fraction = 1.0
    l2: NonNegativeFloat = 1e-4
    n_step: PositiveInt = 64
    grad_clip: Limit | None = 5.0  # of the global norm
    opening_moves: NonNegativeInt = 4
    opening_randomness: Fraction = 0.5
    randomness: Fraction = 0.05
    num_simulations: PositiveInt = 32
    puct_coefficient: NonNegativeFloat = 1.25
    temperature: NonNegativeFloat = 1.0  # the power to which shares of simulations are taken: 1 / tau of the paper
    dirichlet_epsilon: Fraction = 0.25  # share of noise in the policy at the root
    dirichlet_noise: PositiveFloat = 0.3  # its concentration
    gumbel: bool = False  # Danihelka et al. 2022
    argmax_tree_policy: bool = False  # play the best action while exploring too, instead of drawing it
    percentile: NonNegativeFloat = 75.0
    buffer_max_length: NonNegativeInt = 0  # returns that the percentile is of; 0: rewards are not ranked
    num_init_rewards: NonNegativeInt = 0  # episodes until which nothing is won or lost
    num_steps_sampled_before_learning_starts: NonNegativeInt = 4096  # timesteps
    random_timesteps: int = 0  # uniformly random actions at the start
    simulator: Simulator = None  # type: ignore[assignment]  # known once the environment is
    model: Model = MLP((128, 128), "relu")
    memory: Memory = Replay()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        require_kind(type(self).__name__, self.serves, spec.action)
        return dataclasses.replace(self, spec=spec)

    def searching_in(self, simulator: Simulator) -> Self:
        """The same agent, with what it searches in. Raises ValueError where rewards of two players are ranked."""
        if simulator.players == 2 and self.buffer_max_length:
            raise ValueError(
                f"{type(self).__name__}: ranked_rewards are for one player, who plays against itself of late, and this "
                "is a game of two, who win and lose already; leave them out"
            )
        return dataclasses.replace(self, simulator=simulator)

    def init(self, key: Key) -> AlphaZeroState:
        heads = {"policy": (output_size(self.spec.action), 0.01), "value": (1, 0.01)}
        params = self.model.init(key, self.spec.obs, heads)
        bar = Bar(jnp.zeros(()), jnp.zeros((), bool))
        return AlphaZeroState(params, adam_init(params), no_returns(self.buffer_max_length), bar)

    def view(self, state: AlphaZeroState, progress: Array) -> AlphaZeroView:
        return AlphaZeroView(state.params, state.bar)

    def start(self, view: AlphaZeroView, rows: int, key: Key) -> ActingCarry:
        """How many moves each game has had."""
        return ActingCarry((), jnp.zeros(rows, jnp.int32))

    def act(
        self, view: AlphaZeroView, carry: ActingCarry, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        """The key is split in four: for the search, the choice by it, the random move, and which of the two it is."""
        search_key, choice_key, random_key, which_key = jax.random.split(key, 4)
        action, policy = self._search(view, obs, search_key, explore)
        moves = jnp.where(first, 0, carry.exploration)
        if explore:
            if not (self.gumbel or self.argmax_tree_policy):
                action = jax.random.categorical(choice_key, jnp.log(policy))
            if self.simulator.players == 2:
                chance = jnp.where(moves < self.opening_moves, self.opening_randomness, self.randomness)
                random = random_action(self.spec, obs, first.shape, random_key)
                action = jnp.where(jax.random.uniform(which_key, first.shape) < chance, random, action)
        return action.astype(jnp.int32), ActingCarry((), moves + 1), {"policy": policy}

    def observe(self, state: AlphaZeroState, accumulators: Tree, trajectory: Transition) -> tuple[AlphaZeroState, Tree]:
        """Keep the rewards at the ends of episodes, where they are ranked."""
        if self.buffer_max_length:
            over = trajectory.terminated | trajectory.truncated
            state = state._replace(returns=add_returns(state.returns, trajectory.reward, over))
        return state, accumulators

    def update(
        self, state: AlphaZeroState, batch: Transition, key: Key, progress: Array
    ) -> tuple[AlphaZeroState, dict[str, Array]]:
        """Learn what the search found at the first step `[B]` of each window `[n_step, B]`, and what came of it."""
        over = batch.terminated | batch.truncated
        reward = self._worth(state.bar, batch.reward, over)
        steps = n_step_return(batch._replace(reward=reward, terminated=over), self._discount)
        obs, searched = jax.tree.map(lambda leaf: leaf[0], (batch.obs, batch.extras["policy"]))
        outcome = steps.return_ + steps.discount * self.predict(state.params, at_step(batch.next_obs, steps.last))[1]

        def losses_of(params: Tree) -> tuple[Array, dict[str, Array]]:
            logits, value = self.predict(params, obs)
            log_policy = jax.nn.log_softmax(logits)
            value_loss, policy_loss = (outcome - value) ** 2, -jnp.sum(searched * log_policy, axis=-1)
            entropy = -jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1)
            told = {"vf_loss": value_loss, "policy_loss": policy_loss, "entropy": entropy}
            return value_loss + policy_loss, jax.tree.map(jnp.mean, told)

        lr = value_at(self.lr, progress)
        optimizer = Adam(self.grad_clip, l2=2.0 * self.l2)
        learned = optimizer.minimize(losses_of, state.params, state.optimizer, lr, None)
        metrics = {**learned.aux, "total_loss": learned.loss, "grad_gnorm": learned.norm, "cur_lr": lr}
        bar = state.bar
        if self.buffer_max_length:
            height = percentile_of(state.returns, self.percentile)
            bar = Bar(height, state.returns.number >= self.num_init_rewards)
            metrics["return_to_reach"] = height
        return AlphaZeroState(learned.params, learned.state, state.returns, bar), metrics

    @property
    def _discount(self) -> Array:
        """Of the value of the next position: of two players it is the other's."""
        return self.gamma if self.simulator.players == 1 else -self.gamma

    def _search(self, view: AlphaZeroView, obs: Tree, key: Key, explore: bool) -> tuple[Array, Array]:
        """The actions `[B]` that the search prefers, and pi, `[B, A]`."""

        def expand(key: Key, action: Array, position: tuple[Tree, Array]) -> tuple[Edge, Node]:
            state, over = position
            keys = jax.random.split(key, over.shape[0])
            state, step = jax.vmap(self.simulator.step)(state, to_environment(self.spec.action, action), keys)
            ends = step.terminated | step.truncated
            reward = jnp.where(over, 0.0, self._worth(view.bar, step.reward, ends))
            logits, value = self.predict(view.params, step.obs)
            return Edge(reward, jnp.where(over | ends, 0.0, self._discount)), Node(logits, value, (state, over | ends))

        legal = action_mask(self.spec, obs)
        logits, value = self.predict(view.params, obs)
        root = Node(logits, value, (jax.vmap(self.simulator.state_of)(obs), jnp.zeros(value.shape, bool)))
        if self.gumbel:
            return gumbel_search(root, expand, legal, key, self.num_simulations, 1.0 if explore else 0.0)[:2]
        noise = (self.dirichlet_epsilon if explore else 0.0, self.dirichlet_noise)
        share = puct_search(root, expand, legal, key, self.num_simulations, self.puct_coefficient, noise)
        power = share**self.temperature
        return jnp.argmax(share, axis=-1), power / jnp.sum(power, axis=-1, keepdims=True)

    def predict(self, params: Tree, obs: Tree) -> tuple[Array, Array]:
        """Logits `[B, A]` of the policy and values `[B]`; what is won or lost is between -1 and 1."""
        heads = forward(self.model, params, features(self.spec.obs, obs))
        value = heads["value"][..., 0]
        is_game = self.simulator.players == 2 or self.buffer_max_length > 0
        return masked(heads["policy"], action_mask(self.spec, obs)), jnp.tanh(value) if is_game else value

    def _worth(self, bar: Bar, reward: Array, over: Array) -> Array:
        """Rewards as they count: where they are ranked, whether what was got at the end is won or lost."""
        if not self.buffer_max_length:
            return reward
        won = jnp.where(reward >= bar.height, 1.0, -1.0)
        return jnp.where(over & bar.is_set, won, 0.0)


MCTS = {
    "gumbel": True,
    "num_simulations": 32,
    "puct_coefficient": 1.25,
    "temperature": 1.0,
    "dirichlet_epsilon": 0.25,
    "dirichlet_noise": 0.3,
    "argmax_tree_policy": False,
    "add_dirichlet_noise": True,
}
PUCT = [name for name in MCTS if name not in ("gumbel", "num_simulations")]  # settings of the paper's search
RANKED = {
    "enable": False,
    "percentile": 75,
    "buffer_max_length": 1000,
    "initialize_buffer": True,
    "num_init_rewards": 100,
}


RANGES: dict[str, Any] = {
    "num_simulations": PositiveInt,
    "puct_coefficient": NonNegativeFloat,
    "temperature": NonNegativeFloat,
    "dirichlet_epsilon": Fraction,
    "dirichlet_noise": PositiveFloat,
    "percentile": Annotated[float, Range(0.0, 100.0)],
    "buffer_max_length": PositiveInt,
    "num_init_rewards": NonNegativeInt,
}
# Settings that change what a network sees or a reward is worth, where a search has the environment's own.
CHANGES = {
    "observation_filter": "NoFilter",
    "observation_fn": None,
    "normalize_rewards": False,
    "clip_rewards": None,
    "reward_scale": 1.0,
}


class AlphaZeroConfig(ReplayConfig):
    """Configuration of AlphaZero: `AlphaZeroConfig().environment("TicTacToe-v0").build()`.

    `train_batch_size` timesteps are played an iteration, and `num_epochs` times as many learned from, `minibatch_size`
    at once, drawn from replay. `mcts_config` and `ranked_rewards` are RLlib's; with one of the settings of the paper's
    search, such as `puct_coefficient`, it is that search, else Gumbel AlphaZero's.
    """

    algorithm_name = "AlphaZero"
    summary = "a tree search in the environment, whose findings policy and value learn: games of two, or ranked rewards"
    paper = "Silver et al. 2018, Science 362"
    agent_class = AlphaZero
    memory_types = UNIFORM_MEMORIES
    more_settings: ClassVar[dict[str, Setting]] = {
        **REPLAY_SETTINGS,
        "minibatch_size": Setting("training", 256, "positive count"),
        "num_epochs": Setting("training", 4, "positive count"),
        "mcts_config": Setting("training", {}, "dict"),
        "ranked_rewards": Setting("training", {}, "dict"),
    }
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 64,
        "train_batch_size": 512,
        "replay_buffer_config": {"capacity": 200_000},
        "exploration_config": {"type": "StochasticSampling", "random_timesteps": 4096},
        "model": {"fcnet_hiddens": [128, 128], "fcnet_activation": "relu"},
    }
    fields_set_elsewhere = (
        *ReplayConfig.fields_set_elsewhere,
        *("gumbel", "num_simulations", "puct_coefficient", "temperature", "dirichlet_epsilon", "dirichlet_noise"),
        *("argmax_tree_policy", "percentile", "buffer_max_length", "num_init_rewards", "simulator"),
    )

    def _check(self, name: str, given: str, value: Any, section: str | None, where: str, hints: dict) -> None:
        super()._check(name, given, value, section, where, hints)
        if name in ("mcts_config", "ranked_rewards"):
            _check_entries(value, MCTS if name == "mcts_config" else RANKED, where)

    def validate(self) -> None:
        super().validate()
        if self.is_gumbel() and (unread := set(PUCT) & set(self.mcts_config)):
            raise ValueError(
                f"{self._title()}: mcts_config has {min(unread)!r}, of the search by PUCT, and gumbel=True; leave one "
                "of them out"
            )
        wrong = next((name for name, plain in CHANGES.items() if self[name] != plain), None)
        wrong = "a bonus" if self.exploration_settings().bonus else wrong
        if wrong is not None:
            raise ValueError(
                f"{self._title()}: {wrong} changes what the environment shows or pays, and the search plays on the "
                "environment itself; leave it out, or change the environment"
            )

    def is_gumbel(self) -> bool:
        """Which search it is: the paper's where one of its settings is given."""
        return bool(self.mcts_config.get("gumbel", not set(PUCT) & set(self.mcts_config)))

    def fragment_length(self) -> int:
        """How many steps each environment takes an iteration: together `train_batch_size`."""
        if self.rollout_fragment_length == "auto" or "train_batch_size" in self.chosen():
            return max(1, round(self.train_batch_size / self.rows()))
        return self.rollout_fragment_length

    def rows(self) -> int:
        """How many games are played side by side: those of `num_envs_per_worker` in all, unless that was set."""
        return super().rows() if "num_envs_per_worker" in self.chosen() else self.num_envs_per_worker

    def learned_per_update(self) -> int:
        return self.minibatch_size

    def updates(self) -> int:
        intensity = self.training_intensity or self.num_epochs
        return max(1, round(intensity * self.rows() * self.fragment_length() / self.minibatch_size))

    def agent_parts(self) -> dict[str, Any]:
        fields, mcts, ranked = super().agent_parts(), {**MCTS, **self.mcts_config}, {**RANKED, **self.ranked_rewards}
        del fields["timesteps_per_update"]
        mcts["gumbel"] = self.is_gumbel()
        if not mcts.pop("add_dirichlet_noise"):
            mcts["dirichlet_epsilon"] = 0.0
        if not ranked["enable"]:
            return {**fields, **mcts}
        least = ranked["num_init_rewards"] if ranked["initialize_buffer"] else 1
        return {
            **fields,
            **mcts,
            "percentile": ranked["percentile"],
            "buffer_max_length": ranked["buffer_max_length"],
            "num_init_rewards": least,
        }


def _check_entries(given: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for a name that is not in `known`, and for a value that cannot be."""
    for name, value in given.items():
        require_known(name, known, where)
        if is_search(value):
            continue
        if name in RANGES:
            wrong = check_field(RANGES[name], value)
        else:
            wrong = None if isinstance(value, bool) else "True or False"
        if wrong is not None:
            raise ValueError(f"{where}: {name!r} is {value!r}; expected {wrong}")

"""The contracts of the library: `Transition`, `Env`, `Source`, `Model`, `Memory`, `Agent` and `Run`.

Everything else is written in these. Time is axis 0 and rows (parallel environments) are axis 1: `[T, B, ...]`.
"""

from __future__ import annotations

import typing
from typing import Any, NamedTuple

from athlete.core import learning
from athlete.spaces import ACTION_KINDS, Space

Tree = Any  # a pytree of arrays
Array = Any  # a JAX or NumPy array
Key = Any  # a JAX random key, uint32[2]


class Transition(NamedTuple):
    """One step of every row, `[T, B, ...]`: what agents learn from, wherever it came from."""

    obs: Tree
    first: Array  # bool: obs is the first of its episode
    action: Tree  # canonical: Box in [-1, 1], Discrete from 0
    reward: Array
    next_obs: Tree  # where the step led; never the observation of a reset
    terminated: Array  # bool: the episode ended here, nothing follows
    truncated: Array  # bool: the episode was cut here; its value goes on from next_obs
    carry: Tree  # the agent's recurrent state BEFORE the step; () if it has none
    extras: Tree  # what `act` attached: log_prob, ...; "valid" where some places are no steps, see ops/statistics.py


class Group(NamedTuple):
    """Agents with the same spaces, side by side."""

    size: int
    obs: Space  # of one of them
    action: Space


class Spec(NamedTuple):
    """All that an agent knows of its surroundings.

    `groups` is where many agents are seen as one, and empty elsewhere: `obs` and `action` are then those of
    `env.multi_agent.joint_spec`.
    """

    obs: Space
    action: Space
    groups: tuple[tuple[str, Group], ...] = ()  # by name, sorted

    @property
    def reward_shape(self) -> tuple[int, ...]:
        """Of the reward of one step of one row: a number, or one for each of many agents."""
        return (sum(group.size for _, group in self.groups),) if self.groups else ()


class Step(NamedTuple):
    """What one step of an environment gives. `reward` is a float32 scalar, the two flags are bool scalars.

    Where many agents are seen as one, the reward is `[agents]`, see `Spec.groups`.

    `info` is what the environment tells besides; of a `Source` it is a sequence of the rows' own dictionaries.
    """

    obs: Tree
    reward: Array
    terminated: Array
    truncated: Array
    info: Tree


class Health(NamedTuple):
    """How the rows of a source fare, since it was made."""

    workers: int = 0  # processes that are alive
    worker_restarts: int = 0
    faulty_episodes: int = 0  # that ended since their environment failed, and were begun anew


class Source:
    """Environments that live outside JAX, seen as rows: a Gymnasium vector, a PettingZoo game. It owns the row axis.

    A source never resets a row by itself; the loop does, with `reset_where`. Arrays are NumPy and belong to the
    caller: a later call does not write into them. Actions come in canonical form and are translated here. Keys are
    uint32 data, `[2]` for `reset` and one per row, `[B, 2]`, for the others.
    """

    rows: int
    spec: Spec
    faulty: Array | None = None  # bool [B]: rows whose last step failed and is cut off there; None where there are none
    here: Array | None = None  # bool [B]: rows that there are, where others are elsewhere and show zeros
    taken: Tree | None = None  # the actions of the last step, where rows may take others than they are given; else None
    agent_ids: tuple[Any, ...] = ()  # of many agents, as the environment calls them, in the order of rewards
    any_thread: bool = False  # `step` and `reset_where` may be called from a thread that is not the maker's

    def reset(self, key: Key) -> Tree:
        """Start an episode in every row, seeded from `key`: the observations `[B, ...]`."""
        raise NotImplementedError

    def step(self, action: Tree, key: Key) -> Step:
        """Take one step in every row with actions `[B, ...]`; each leaf of the `Step` is `[B, ...]`."""
        raise NotImplementedError

    def reset_where(self, done: Array, obs: Tree, key: Key) -> Tree:
        """Start new episodes in the rows where `done`: `obs` with these rows replaced."""
        raise NotImplementedError

    def taken_of(self, given: Tree) -> Tree:
        """The canonical actions `[B, ...]` that the rows took in their last step, for which they were `given` these."""
        return given if self.taken is None else self.taken

    @property
    def health(self) -> Health:
        return Health()

    def raise_if_hung(self) -> None:
        """Raise where a row does not come back from a step that another thread takes."""

    def environments(self) -> list[Any]:
        """The rows' environments where they live in this process, else none."""
        return []

    def close(self) -> None:
        """Release processes, windows and files. May be called twice, and after an error."""


class Env:
    """A JAX environment: pure functions of one row. It never resets itself; the loop does.

    Subclasses are `@hyper` classes (their floats can be swept) with two properties, `observation_space` and
    `action_space` (of `athlete.spaces`), and the two methods. `step` takes the action as the space describes it.
    The state is a pytree of arrays of fixed shapes and dtypes and holds all that changes, the time limit included.
    """

    __hyper__ = True
    info_metrics: tuple[str, ...] = ()  # entries of `Step.info` that results tell of at the end of an episode
    groups: tuple[tuple[str, Group], ...] = ()  # of agents, where it is many seen as one

    @property
    def observation_space(self) -> Space:
        raise NotImplementedError

    @property
    def action_space(self) -> Space:
        raise NotImplementedError

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        """Start an episode: `(state, obs)`."""
        raise NotImplementedError

    def step(self, state: Tree, action: Tree, key: Key) -> tuple[Tree, Step]:
        """Take one step: `(next state, Step)`."""
        raise NotImplementedError


class Simulator(Env):
    """An environment that can be asked what would come of an action: what a tree search plays on.

    Where two players take turns one agent moves for both: whoever is to move sees the observations and gets the
    reward of the move, in a game whose rewards add up to 0.
    """

    players: int = 1  # 2: they take turns

    def state_of(self, obs: Tree) -> Tree:
        """The state in which an observation was made."""
        raise NotImplementedError


class Model:
    """A network with or without memory. Users write torsos; agents name the heads.

    Subclasses are `@hyper` classes. A feed-forward model has `carry = ()` and ignores `first`.
    """

    __hyper__ = True

    def init(self, key: Key, obs_space: Space, heads: dict[str, tuple[int, float]]) -> Tree:
        """Parameters. `heads` maps a name to (outputs, scale of its initial weights): `{"value": (1, 1.0)}`."""
        raise NotImplementedError

    def start(self, rows: int) -> Tree:
        """The carry of `rows` fresh episodes, each leaf `[rows, ...]`."""
        return ()

    def apply(self, params: Tree, carry: Tree, obs: Tree, first: Array) -> tuple[Tree, dict[str, Array]]:
        """Run over `[T, B, ...]`: the carry AFTER each step (`[T, B, ...]` leaves) and `{head: [T, B, outputs]}`.

        Where `first` is true the carry is forgotten before the step.
        """
        raise NotImplementedError


class Memory:
    """Where an agent's batches come from. Subclasses are `@hyper` classes; the store is a pytree of arrays."""

    __hyper__ = True
    keeps: typing.ClassVar[bool] = True  # whether `sample` needs only the store, and not the last trajectory
    batch_size: int  # timesteps that an update is said to learn from, where it keeps
    rated: bool = False  # what is added has the TD errors of the windows that begin with it, `extras["td_error"]`
    apart: bool = False  # samples lie within one trajectory each, so that those of any rows may follow one another

    def init(self, example: Transition, rows: int) -> Tree:
        """An empty store. `example` is one transition of one row, without leading axes."""
        raise NotImplementedError

    def add(self, store: Tree, trajectory: Transition) -> Tree:
        """Take in a trajectory `[T, B, ...]`."""
        raise NotImplementedError

    def sample(self, store: Tree, trajectory: Transition, key: Key, progress: Array) -> Transition:
        """A batch `[T, B, ...]`; `trajectory` is what was added last, `progress` in [0, 1] drives schedules.

        From a memory that `keeps`, rows come in random order: any part of them is a sample too, only a smaller one.
        """
        raise NotImplementedError

    def ready(self, store: Tree) -> Array:
        """A bool: whether there is anything to sample. Asked only where steps may come to no row for a while."""
        raise NotImplementedError

    def feedback(self, store: Tree, batch: Transition, metrics: Tree) -> Tree:
        """Learn from the update on `batch`, whose metrics may hold arrays: new priorities. Most memories do nothing."""
        return store


AGENT_STEPS = "num_agent_steps_sampled"  # `POLICY/` and this: a metric of many policies that is summed, not averaged


Which = bool | frozenset[str]  # whether something is so; of many policies the names of those of which it is


class Stage(NamedTuple):
    """What happens in a part of a training. Static: of each stage there is a program."""

    random: Which  # actions are uniformly random
    learning: Which  # the memory is full enough to learn from


class Agent:
    """An algorithm: a frozen dataclass of hyperparameters (`@hyper`) with pure methods over explicit state.

    `memory`, `updates` (updates a collected trajectory) and `spec` are fields of every agent; the first two are
    read by the loop, as are the two numbers of timesteps, 0 where an agent has no field of that name.
    `act` sees rows `[B, ...]`, `update` sees `[T, B, ...]`.
    """

    __hyper__ = True
    serves: typing.ClassVar[tuple[str, ...]] = tuple(ACTION_KINDS)  # kinds of action spaces
    joint: typing.ClassVar[bool] = False  # it learns for all agents of an environment together: see `Spec.groups`
    rates: typing.ClassVar[bool] = False  # it has `td_errors`
    learns_returns: typing.ClassVar[bool] = False  # from recorded steps as `offline.DataSet.to_ends` shows them
    filters: typing.ClassVar[bool] = False  # it standardises observations by itself
    searches: typing.ClassVar[bool] = False  # `act` is a search, and left out of random steps: `extras` are 0 there
    plans: typing.ClassVar[bool] = False  # what `act` remembers is its plan alone, left out of random steps: 0 there
    simulates: typing.ClassVar[bool] = False  # it has a field `simulator`, a `Simulator` of its environment
    memory: Memory
    updates: int
    num_steps_sampled_before_learning_starts: int = 0
    random_timesteps: int = 0  # in which actions are uniformly random instead of the agent's own
    spec: Spec  # None until `bind`

    def bind(self, spec: Spec) -> Agent:
        """The same agent, knowing its spaces. Raises ValueError on spaces that the algorithm cannot serve."""
        raise NotImplementedError

    def init(self, key: Key) -> Tree:
        """The learner's state: parameters, optimiser, normalisers. Arrays only."""
        raise NotImplementedError

    def view(self, state: Tree, progress: Array) -> Tree:
        """The part of the state that acts, and travels to workers."""
        raise NotImplementedError

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        """The carry of `rows` rows at the start of a run: recurrent state, noise, plan. `()` if there is none."""
        return ()

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """`(action, carry, extras)` for rows `[B, ...]`; greedy where `explore` is False (a static switch)."""
        raise NotImplementedError

    def distribution(self, view: Tree, carry: Tree, obs: Tree, first: Array) -> typing.Any:
        """What `act` draws from while it explores, for rows `[B, ...]`: one of `athlete.distributions`, over flat
        canonical actions. None where actions are not drawn from one.
        """
        return None

    def seen(self, obs: Tree) -> tuple[Spec, Tree]:
        """What actions are chosen from at observations `[B, ...]`, and its spaces: where a mask of actions is found."""
        return self.spec, obs

    def accumulators(self, rows: int) -> Tree:
        """What `observe` carries along each row, leaves `[rows, ...]`, at the start of a run; `()` if nothing.

        For sums that outlast a trajectory, such as the return so far of an episode. The learner's state cannot hold
        them: it serves any number of rows.
        """
        return ()

    def observe(self, state: Tree, accumulators: Tree, trajectory: Transition) -> tuple[Tree, Tree]:
        """Take in a trajectory `[T, B, ...]` that was just collected, once, whether learning has begun or not.

        Returns the new state and accumulators. For statistics of what was visited, which batches from a memory do not
        tell. With a memory that `keeps`, the steps of a trajectory come one by one; what `view` shows must not change
        before the next update. Most agents have no need of it.
        """
        return state, accumulators

    @property
    def milestones(self) -> tuple[int, ...]:
        """After how many timesteps since the memory was empty the stage changes."""
        return self.random_timesteps, self.num_steps_sampled_before_learning_starts

    def stage(self, timesteps: int) -> Stage:
        """The stage of an iteration that begins `timesteps` after the memory was empty."""
        random, waiting = self.milestones
        return Stage(timesteps < random, timesteps >= waiting)

    def learn(
        self,
        state: Tree,
        store: Tree,
        accumulators: Tree,
        trajectory: Transition,
        key: Key,
        progress: Array,
        learning_now: Which = True,
        sample_async: bool = False,
    ) -> tuple[Tree, Tree, Tree, dict[str, Array]]:
        """Learn from a trajectory `[T, B, ...]` that was just collected, or, while not `learning_now`, only take it in.

        Returns state, store and accumulators after it, and metrics. Only an agent that is made of several, which learn
        from parts of the trajectory, has one of its own.
        """
        if not learning_now:
            return *learning.take_in(self, state, store, accumulators, trajectory), {}
        return learning.learn(self, state, store, accumulators, trajectory, key, progress, sample_async)

    def td_errors(self, view: Tree, trajectory: Transition) -> Array:
        """TD errors `[T, B]` of the windows that begin with each step of a trajectory, by what acted in it.

        For a memory that is `rated`. Only agents that say so (`rates`) have them.
        """
        raise NotImplementedError

    def update(self, state: Tree, batch: Transition, key: Key, progress: Array) -> tuple[Tree, dict[str, Array]]:
        """One update on `[T, B, ...]`: the new state and metrics. `progress` in [0, 1] drives schedules.

        Scalar metrics are reported; an array, such as `td_error` `[B]`, is for `Memory.feedback` alone.
        """
        raise NotImplementedError


class Played(NamedTuple):
    """A generation of an `Evolution`, `[P]`: an episode of each member, which counts as it stood where it was cut."""

    returns: Array  # float32, undiscounted
    lengths: Array  # int32, steps
    carry: Tree  # leaves [P, ...], as `act` left it at the end of a wave of episodes


class Evolution(Agent):
    """An agent that learns from the returns of whole episodes: a population plays one each, and there is no batch.

    `act` takes two kinds of views: that of `view`, which is the policy, and that of `members`. The last
    `policy_episodes` members of every generation are the policy itself, whose returns are those that results tell of.
    """

    policy_episodes: int

    def ask(self, state: Tree, key: Key, progress: Array) -> tuple[Array, Tree]:
        """A population, the parameters `[P, N]` of its members, and what `tell` needs to know of how it was drawn."""
        raise NotImplementedError

    def members(self, state: Tree, population: Array) -> Tree:
        """What acts with another member in each row, of the parameters `[B, N]`."""
        raise NotImplementedError

    def tell(self, state: Tree, drawn: Tree, played: Played, progress: Array) -> tuple[Tree, dict[str, Array]]:
        """Learn from what became of a population: the new state and metrics, scalars."""
        raise NotImplementedError


class MetaLearner(Agent):
    """An agent that learns to adapt: from what it did in several tasks before and after each step of its own."""

    meta_batch_size: int  # tasks in an iteration
    inner_adaptation_steps: int

    def prepare(self, params: Tree, trajectory: Transition) -> Tree:
        """What `adapt` and `meta_update` need of a trajectory `[T, B, ...]` of one task, in which `params` acted."""
        raise NotImplementedError

    def adapt(self, params: Tree, batch: Tree) -> Tree:
        """The parameters after one step on what `prepare` made of one task."""
        raise NotImplementedError

    def meta_update(self, state: Tree, batches: list[Tree], progress: Array) -> tuple[Tree, dict[str, Array]]:
        """Learn from batches of all tasks, leaves `[tasks, ...]`: that before any adaptation first, and so on."""
        raise NotImplementedError


class ActingCarry(NamedTuple):
    """The carry of an agent whose exploration remembers too. A policy has memory where `model` has arrays."""

    model: Tree
    exploration: Tree


class Rows(NamedTuple):
    """The acting side between two steps, `[B, ...]`: environments, what they show, and the episodes so far."""

    env_state: Tree  # () where the environments live outside JAX
    obs: Tree
    first: Array
    carry: Tree
    episode_return: Array  # float32, of the running episode, undiscounted; `[B, agents]` of many seen as one
    episode_length: Array  # int32
    accumulators: Tree = ()  # the agent's, see `Agent.observe`


class Episodes(NamedTuple):
    """Which episodes ended, `[T, B]`: `return_` and `length` count only where `done`."""

    done: Array
    return_: Array
    length: Array
    info: Tree = ()  # {name: float32} of what `Env.info_metrics` names, where there is any


class Run(NamedTuple):
    """The whole of a training: what a checkpoint holds and what resuming needs."""

    state: Tree
    store: Tree
    rows: Rows
    key: Key
    iteration: Array  # int32, learning iterations done
    timesteps: Array  # uint32, sampled so far in all rows: what schedules and warm-ups count; stays at 2**32 - 1

"""A policy as users act with it, with or without the training that it comes from: observations in, actions out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import jax
import numpy as np

from athlete.acting import as_gymnasium, row_of, rows_of, with_mask
from athlete.checkpointing import (
    check_metadata,
    config_of,
    counts_timesteps,
    learner_part,
    progress_at,
    require_finite,
    require_same_form,
    spec_of_metadata,
)
from athlete.combine.team import Team
from athlete.combine.wrapper import with_simulator
from athlete.core import ActingCarry, Agent, Run, Simulator, Spec, Tree
from athlete.env.world import find_world
from athlete.env.wrappers.previous import Previous, previous_of
from athlete.export.formats import format_of, write
from athlete.loops.compiling import COMPILER_OPTIONS, set_up
from athlete.loops.host import act
from athlete.matches import Player, players_of
from athlete.ops.finite import NonFiniteError, first_nonfinite
from athlete.ops.masks import without_action
from athlete.ops.random import wrap
from athlete.record.checkpoint import open_checkpoint
from athlete.settings.config import AlgorithmConfig
from athlete.settings.rllib_names import no_attribute
from athlete.spaces import ACTION_MASK, Space, has_mask, to_environment
from athlete.teams import agent_for, horizon_of

OF_TRAINING = (
    "env",
    "env_config",
    "callbacks",
    "evaluation_config",
    "custom_evaluation_function",
    "input_",
    "output",
)  # settings that acting has no need of


class Policy:
    """A snapshot of the acting side: network, normalisers and the spaces they fit.

    `algo.get_policy()` gives it. So does `Policy.from_checkpoint(path)`, without environment, replay memory and
    training, and without the code that these came from.
    """

    def __init__(self, agent: Agent, view: Tree, seed: int, previous: Previous = Previous()):  # noqa: B008 (a constant)
        self.agent, self.view = agent, view
        self._previous = previous
        self._generator = np.random.default_rng(seed)

    @classmethod
    def from_checkpoint(cls, path: str | Path, policy_id: str = "default_policy", **settings: Any) -> Self:
        """The policy that a checkpoint holds; of many the one that is called `policy_id`, snapshots too (`"main_v3"`).

        Nothing is executed on reading. A class of the user's that acts, a `custom_model`, has to be imported before;
        a function, `observation_fn`, is given again in `settings`, which go over the saved ones. What searches in
        its environment, as AlphaZero does, needs that: `env` is given again where it is no name.

        Raises:
            CheckpointError: it is none, or damaged, or holds a policy that cannot act; the sentence says which.
        """
        set_up()
        stored = open_checkpoint(path, ("agent",))
        metadata = stored.metadata
        check_metadata(metadata, path)
        config = config_of(metadata, path, (*OF_TRAINING, *settings)).update_from_dict(settings)
        agent = agent_for(config, spec_of_metadata(metadata), config.fragment_length(), metadata.get("agent_ids", ()))
        if agent.simulates:
            kept = set(OF_TRAINING) - {"env", "env_config"}
            config = config_of(metadata, path, (*kept, *settings)).update_from_dict(settings)
            agent = with_simulator(agent, _simulator(config))
        like = learner_part(_learner(agent), counts_timesteps(metadata["counters"]))
        state = stored.load("agent", like)["state"]
        require_finite(state, f"{path} is not loaded")
        progress = progress_at(metadata["counters"]["timesteps_total"], horizon_of(config, agent))
        player = player_of(agent, state, view_of(agent, state, progress), policy_id, "Policy.from_checkpoint")
        return cls(*player, metadata["seed"], previous_of(config))

    if not TYPE_CHECKING:  # which would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    @property
    def observation_space(self) -> Space:
        """What the network sees: with the mask of actions, and with the previous step where it is shown."""
        return self._spec.obs

    @property
    def action_space(self) -> Space:
        return self._spec.action

    # Acting -------------------------------------------------------------------------------------------------------

    def compute_single_action(
        self,
        obs: Any,
        state: Tree = None,
        *,
        prev_action: Any = None,
        prev_reward: float | None = None,
        info: Mapping[str, Any] | None = None,
        explore: bool = False,
    ) -> tuple[Any, Tree, dict]:
        """`(action, state, {})` for one observation as the environment gives it: RLlib's triple.

        The action is what `env.step` takes. `state` None begins an episode; a network with memory needs the one that
        came with the last action. Networks that see the previous step need `prev_action` and `prev_reward` too, and
        `info` has the mask of actions where it does not stand in the observation. Greedy unless `explore`.

        Raises ValueError, with the space, for an observation that does not fit.
        """
        row = self.row(obs, state, prev_action, prev_reward, info)
        return *self.act_each([row], [state], explore)[0], {}

    def compute_actions(
        self,
        obs_batch: Any,
        state: Tree = None,
        *,
        prev_action: Any = None,
        prev_reward: Any = None,
        explore: bool = False,
    ) -> tuple[Any, Tree, dict]:
        """`(actions, state, {})` for many observations in one call: the actions stacked, `[B, ...]`.

        Observations are a list, or stacked as the space is built: an array `[B, ...]`, a dictionary or tuple of such.
        `state` has B rows too, `get_initial_state(B)` or None at first; so do `prev_action` and `prev_reward` `[B]`.
        A program is compiled for each power of two.
        """
        if any(self._previous):
            obs_batch = self._with_previous(obs_batch, state, prev_action, prev_reward, many=True)
        rows = rows_of(self._spec.obs, obs_batch)
        self._require_legal(rows, "observations")
        count = len(jax.tree.leaves(rows)[0])
        begins = is_none(state)
        state = self.get_initial_state(count) if begins else state
        actions, state = self._act(rows, state, np.full(count, begins), explore)
        return as_gymnasium(self._spec.action, actions), state, {}

    def act_one(
        self, observation: Any, state: Tree = None, *, explore: bool = False, first: bool | None = None
    ) -> tuple[Any, Tree]:
        """`(action, state)` for one observation as the network sees it; `state` None, or `first`, begins an episode."""
        row = row_of(self._spec.obs, observation)
        self._require_legal(row, "observation")
        begins = is_none(state) if first is None else first
        state = self._initial_state if is_none(state) else state
        action, state = self._act(row, state, np.array([begins]), explore)
        return self._taken_out(action, 0), state

    def row(self, obs: Any, state: Tree, prev_action: Any, prev_reward: float | None, info: Any) -> Tree:
        """An observation as the environment gives it, as one row `[1, ...]` of what the network sees."""
        shown = with_mask(self._spec, obs, info)
        if any(self._previous):
            shown = self._with_previous(shown, state, prev_action, prev_reward)
        row = row_of(self._spec.obs, shown)
        self._require_legal(row, "observation")
        return row

    def act_each(self, rows: Sequence[Tree], states: Sequence[Tree], explore: bool = False) -> list[tuple[Any, Tree]]:
        """`(action, state)` for each of the `rows` that `row` gave, in one call; a state None begins an episode."""
        begins = np.array([is_none(state) for state in states])
        carried = [self._initial_state if is_none(state) else state for state in states]
        if len(rows) == 1:
            action, state = self._act(rows[0], carried[0], begins, explore)
            return [(self._taken_out(action, 0), state)]
        actions, after = self._act(_joined(rows), _joined(carried), begins, explore)
        after = jax.device_get(after)
        found = []
        for i in range(len(rows)):
            kept = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], after)
            found.append((self._taken_out(actions, i), kept))
        return found

    def _act(self, rows: Tree, state: Tree, first: np.ndarray, explore: bool) -> tuple[Tree, Tree]:
        """Actions as the environment takes them and the state after, `[B, ...]`, in a program of 2^n rows."""
        self.require_finite()
        key = self._generator.integers(0, 2**32, 2, np.uint32)
        count = len(first)
        more = (1 << (count - 1).bit_length()) - count
        if more:
            rows, state, first = jax.tree.map(lambda leaf: _padded(leaf, more), (rows, state, first))
        action, state, _ = act(self.agent, self.view, state, rows, first, key, explore=explore)
        action = jax.device_get(action)
        if more:
            action, state = jax.tree.map(lambda leaf: leaf[:count], (action, jax.device_get(state)))
        return to_environment(self._spec.action, action), state

    def _taken_out(self, actions: Tree, i: int) -> Any:
        return as_gymnasium(self._spec.action, jax.tree.map(lambda leaf: leaf[i], actions))

    def _require_legal(self, rows: Tree, where: str) -> None:
        if not has_mask(self._spec.obs):
            return
        stuck = without_action(self._spec, rows)
        if stuck.any():
            mask = rows[ACTION_MASK][np.flatnonzero(stuck)[0]]
            raise ValueError(f"{where}[{ACTION_MASK!r}]: {mask} leaves no legal action")

    def _with_previous(self, obs: Any, state: Tree, action: Any, reward: Any, many: bool = False) -> Any:
        """The observation, or many, with the last action and reward where the network looks at them."""
        previous, action_space = self._previous, self._spec.action
        given = {"prev_action": (previous.action, action), "prev_reward": (previous.reward, reward)}
        missing = [name for name, (seen, value) in given.items() if seen and value is None]
        if not missing:
            taken = jax.tree.map(np.asarray, action) if previous.action else None
            return previous.show(action_space, obs, taken, np.asarray(reward, np.float32))
        if not self.is_start(state):
            raise ValueError(
                f"this network sees what was done and what came of it: give {' and '.join(missing)} too, but for the "
                "first step of an episode"
            )
        leading = (len(obs if isinstance(obs, list) else jax.tree.leaves(obs)[0]),) if many else ()
        return previous.show_start(action_space, obs, leading)

    # Memory -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def _initial_state(self) -> Tree:
        return _start(self.agent, self.view, np.zeros(2, np.uint32), 1)

    def get_initial_state(self, rows: int = 1) -> Tree:
        """The recurrent state at the start of `rows` episodes; without arrays for a network without memory."""
        if rows == 1:
            return self._initial_state
        return jax.tree.map(lambda leaf: np.repeat(leaf, rows, axis=0), jax.device_get(self._initial_state))

    def is_recurrent(self) -> bool:
        """Whether the network has memory."""
        state = self._initial_state
        return bool(jax.tree.leaves(state.model if isinstance(state, ActingCarry) else state))

    def is_start(self, state: Tree) -> bool:
        """Whether `state` is that of an episode's start, or none, which means the same."""
        if is_none(state):
            return True
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(self._initial_state), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)

    # Parameters ---------------------------------------------------------------------------------------------------

    def get_weights(self) -> Tree:
        """All that acts as NumPy arrays: the network's parameters, normalisers, the level of exploration."""
        return jax.device_get(self.view)

    def set_weights(self, weights: Tree) -> None:
        """Take over what `get_weights` gave. Raises ValueError where structure or shapes differ."""
        require_same_form(self.view, weights)
        self.view = jax.tree.map(np.array, weights)
        self.__dict__.pop("_fault", None)

    def export(self, path: str | Path, format: str | None = None) -> list[str]:
        """Write the greedy policy for use without Athlete and without JAX; the paths of the files.

        Formats are "onnx", "stablehlo" (`jax.export`), "torch" (a module and its weights), "numpy" (a module that needs
        nothing but NumPy, and its weights) and "web" (a page in which it plays). By default the path's ending says
        it, `.py` being NumPy's.

        Raises:
            ValueError: there is no such format, or no page for the environment.
            NotImplementedError: the network has an operation that the format has not; StableHLO has all.
        """
        self.require_finite()
        name = format_of(Path(path), format)
        start = jax.device_get(self._initial_state)
        return [str(file) for file in write(self.agent, self.get_weights(), start, Path(path), name)]

    def require_finite(self) -> None:
        """Raise NonFiniteError where its numbers are none."""
        if self._fault is not None:
            raise NonFiniteError(
                f"the policy's {self._fault!r} holds NaN or infinity: its training fell apart; restore an earlier "
                "checkpoint"
            )

    @functools.cached_property
    def _fault(self) -> str | None:
        return first_nonfinite(self.view)

    @property
    def _spec(self) -> Spec:
        assert self.agent.spec is not None
        return self.agent.spec


def _simulator(config: AlgorithmConfig) -> Simulator:
    """What the policy of `config` searches in."""
    world = find_world(config.env, config.env_config, config.backend, config.preprocessor_pref)
    return cast(Simulator, world.simulated().env)


def player_of(agent: Agent, state: Tree, view: Tree, policy_id: str, method: str) -> Player:
    """The policy of this name: one of a team, of a league, a snapshot of either, or the one there is.

    Raises ValueError, with the names that there are, for another; `method` is who asks.
    """
    if isinstance(agent, Team) and any(member.name == policy_id for member in agent.members):
        return Player(agent.member(policy_id).agent, view[policy_id])
    players = players_of(agent, state, view)
    if policy_id in players:
        return players[policy_id]
    if isinstance(agent, Team) or (players and policy_id != "default_policy"):
        raise ValueError(f"{method}: there is no policy {policy_id!r}; there are {', '.join(map(repr, players))}")
    require_default(policy_id, method)
    return Player(agent, view)


def require_default(policy_id: str, method: str) -> None:
    """Raise ValueError for any other name than that of the one policy there is."""
    if policy_id != "default_policy":
        raise ValueError(f"{method}({policy_id!r}): there is one policy, 'default_policy'")


def is_none(state: Tree) -> bool:
    """Whether a state is not given; RLlib's users give [] for none."""
    return state is None or (isinstance(state, list | tuple) and not state)


@functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
def view_of(agent: Agent, state: Tree, progress: Any) -> Tree:
    """The part of a learner's state that acts, in buffers of its own: the next iteration gives the state's away."""
    return jax.tree.map(lambda leaf: leaf.copy(), agent.view(state, progress))


@functools.partial(jax.jit, static_argnames=("rows",), compiler_options=COMPILER_OPTIONS)
def _start(agent: Agent, view: Tree, key: Any, rows: int) -> Tree:
    return agent.start(view, rows, wrap(key))


def _learner(agent: Agent) -> Run:
    """What a training of the agent keeps but for its rows and memory, as `jax.ShapeDtypeStruct`."""
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    state = jax.eval_shape(lambda key: agent.init(wrap(key)), key)
    return Run(state, None, None, key, np.zeros((), np.int32), np.zeros((), np.uint32))  # type: ignore[arg-type]


def _joined(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)


def _padded(leaf: Any, more: int) -> np.ndarray:
    """`[B, ...]` with the first row `more` times behind it."""
    array = np.asarray(leaf)
    return np.concatenate([array, np.repeat(array[:1], more, axis=0)])

"""Many policies as one agent: each acts for its agents, whose rows it sees side by side, and learns from their steps.

Parameters are shared among the agents of a policy; agents of policies of their own learn independently. To the loops a
team is an agent like any other, and what each policy is given is a trajectory like any other: `combine/own_steps.py`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.combine.own_steps import (
    Begun,
    Came,
    Pending,
    cut_at_the_last,
    nothing_pending,
    own_steps,
    transition_of,
)
from athlete.combine.past import PastSelves
from athlete.combine.seating import Seats, apart, by_group, rewards_by_group, together
from athlete.core import AGENT_STEPS, Agent, Array, Key, Memory, Spec, Stage, Transition, Tree, Which, hyper
from athlete.core.learning import take_in, update
from athlete.ops.sampling import random_action
from athlete.ops.tree import where


@hyper
class Member:
    """A policy of a team."""

    name: str
    agent: Agent  # bound to the spaces of one of its agents
    seats: Seats
    trained: bool = True


class MemberCarry(NamedTuple):
    """What a policy remembers of its agents, `[B, agents, ...]`."""

    agent: Tree
    fresh: Array  # bool: the agent has not acted yet in this life; () where agents always act


class MemberStore(NamedTuple):
    """The memory of a policy that is trained."""

    memory: Tree
    pending: Pending | tuple[()]  # () where agents always act, as are the next two
    owed: Array  # updates that are due and not made yet: a policy with a replay memory makes as many as it has steps
    metrics: Tree  # of its last update, [] by name


@hyper
class Team(Agent):
    """The policies of an environment whose agents are seen as one: see `env.multi_agent.joint_spec`.

    State, view, carry, store and extras are dictionaries by the names of the policies; metrics are `POLICY/METRIC`.
    Warm-ups are those of each policy, in timesteps of the environment.
    """

    members: tuple[Member, ...]
    spec: Spec = None  # type: ignore[assignment]  # known once bound
    updates: int = 1

    def bind(self, spec: Spec) -> Team:
        return dataclasses.replace(self, spec=spec)

    def member(self, name: str) -> Member:
        """The policy of this name. Raises ValueError, with those that there are, where there is none."""
        for member in self.members:
            if member.name == name:
                return member
        raise ValueError(
            f"there is no policy {name!r}; there are {', '.join(repr(member.name) for member in self.members)}"
        )

    @property
    def memory(self) -> Memory:  # type: ignore[override]
        return MemberStores(self)

    @property
    def always_acting(self) -> bool:
        return "acting" not in dict(self.spec.obs.items)  # type: ignore[attr-defined]

    @property
    def milestones(self) -> tuple[int, ...]:
        return tuple(timesteps for member in self.members if member.trained for timesteps in member.agent.milestones)

    def stage(self, timesteps: int) -> Stage:
        stages = {member.name: member.agent.stage(timesteps) for member in self.members if member.trained}
        random, learning = (frozenset(name for name, stage in stages.items() if stage[i]) for i in range(2))
        return Stage(random, learning)

    def init(self, key: Key) -> Tree:
        state = {member.name: member.agent.init(jax.random.fold_in(key, i)) for i, member in enumerate(self.members)}
        return self._followed(state, jnp.zeros(()))

    def _followed(self, state: dict[str, Tree], progress: Array) -> dict[str, Tree]:
        """The state after past selves have seen what became of the policies that they are of."""
        followed = {
            member.name: member.agent.follow(state[member.name], state[member.agent.of], progress)
            for member in self.members
            if isinstance(member.agent, PastSelves)
        }
        return state | followed

    def view(self, state: Tree, progress: Array) -> Tree:
        return {member.name: member.agent.view(state[member.name], progress) for member in self.members}

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        carries = {}
        for i, member in enumerate(self.members):
            number = rows * member.seats.agents
            carry = member.agent.start(view[member.name], number, jax.random.fold_in(key, i))
            fresh = () if self.always_acting else jnp.ones(number, bool)
            carries[member.name] = apart(MemberCarry(carry, fresh), rows)
        return carries

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        actions, carries, extras, rows = [], {}, {}, first.shape[0]
        for i, member in enumerate(self.members):
            before: MemberCarry = together(carry[member.name])
            own_first, acting = self._first_and_acting(member, before, obs, first)
            action, after, own_extras = member.agent.act(
                view[member.name],
                before.agent,
                self._rows(member, obs["obs"], 1),
                own_first,
                jax.random.fold_in(key, i),
                explore,
            )
            fresh: Tree = ()
            if acting is not None:  # who waits keeps its memory, and whether its first action is still to come
                after, fresh = where(acting, after, before.agent), own_first & ~acting
            actions.append((member.seats, action))
            carries[member.name] = apart(MemberCarry(after, fresh), rows)
            extras[member.name] = apart({"own": own_extras, "first": own_first}, rows) if member.trained else {}
        return by_group(actions, self.spec.groups, rows), carries, extras

    def randomized(self, action: Tree, obs: Tree, key: Key, names: frozenset[str]) -> Tree:
        """Actions of all agents in which those of some policies are uniformly random over what is legal."""
        rows, parts = jax.tree.leaves(action)[0].shape[0], []
        for i, member in enumerate(self.members):
            own = self._rows(member, action, 1)
            if member.name in names:
                spec, seen = member.agent.seen(self._rows(member, obs["obs"], 1))
                drawn = random_action(spec, seen, (rows * member.seats.agents,), jax.random.fold_in(key, i))
                own = jax.tree.map(lambda new, like: new.astype(like.dtype), drawn, own)
            parts.append((member.seats, own))
        return by_group(parts, self.spec.groups, rows)

    def accumulators(self, rows: int) -> Tree:
        return {
            member.name: apart(member.agent.accumulators(rows * member.seats.agents), rows)
            for member in self.members
            if member.trained
        }

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
        """Each policy that is trained learns from its agents' steps, those in `learning_now` by updates too."""
        state, store, accumulators = dict(state), dict(store), dict(accumulators)
        metrics: dict[str, Array] = {}
        rows = trajectory.first.shape[1]
        for i, member in enumerate(self.members):
            name = member.name
            metrics[f"{name}/{AGENT_STEPS}"] = self._agent_steps(member, trajectory)
            if not member.trained:
                continue
            pending, steps = self.steps(member, store[name].pending, trajectory)
            held = state[name], store[name]._replace(pending=pending), together(accumulators[name])
            learns = learning_now if isinstance(learning_now, bool) else name in learning_now
            state[name], store[name], own, found = _learn(
                member.agent, *held, steps, jax.random.fold_in(key, i), progress, learns
            )
            accumulators[name] = apart(own, rows)
            metrics |= {f"{name}/{metric}": value for metric, value in found.items()}
        return self._followed(state, progress), store, accumulators, metrics

    def update(self, state: Tree, batch: Transition, key: Key, progress: Array) -> tuple[Tree, dict[str, Array]]:
        raise NotImplementedError("a team learns by `learn`: its policies have batches of their own")

    def _agent_steps(self, member: Member, trajectory: Transition) -> Array:
        """How many actions a policy was asked for in a trajectory."""
        if self.always_acting:
            return jnp.asarray(trajectory.first.size * member.seats.agents, jnp.float32)
        return jnp.sum(self._rows(member, trajectory.obs["acting"], 2), dtype=jnp.float32)

    def steps(self, member: Member, pending: Tree, trajectory: Transition) -> tuple[Tree, Transition]:
        """The steps `[T, B * agents, ...]` of a policy's own agents in a trajectory, and what is pending after it."""
        begun, came = self._begun(member, trajectory), self._came(member, trajectory)
        if self.always_acting:
            return pending, transition_of(begun, came)
        # Where a training went on in new environments there is no end to what was under way in the old ones.
        interrupted = jnp.repeat(trajectory.first[0], member.seats.agents)
        pending = pending._replace(open=pending.open & ~interrupted)
        return own_steps(pending, begun, self._rows(member, trajectory.obs["acting"], 2) > 0, came)

    def _first_and_acting(
        self, member: Member, before: MemberCarry, obs: Tree, first: Array
    ) -> tuple[Array, Array | None]:
        """Of a policy's agents `[B * agents]`: is it the first action of a life, and who acts; None where all do."""
        first = jnp.repeat(first, member.seats.agents)
        if self.always_acting:
            return first, None
        acting, terminated, truncated = (
            self._rows(member, obs[flag], 1) > 0 for flag in ("acting", "terminated", "truncated")
        )
        return first | before.fresh | terminated | truncated, acting

    def _rows(self, member: Member, groups: Tree, axis: int) -> Tree:
        return member.seats.rows_of(groups, {name: group.size for name, group in self.spec.groups}, axis)

    def _begun(self, member: Member, trajectory: Transition) -> Begun:
        extras = together(trajectory.extras[member.name], 1)
        return Begun(
            self._rows(member, trajectory.obs["obs"], 2),
            extras["first"],
            self._rows(member, trajectory.action, 2),
            together(trajectory.carry[member.name].agent, 1),
            extras["own"],
        )

    def _came(self, member: Member, trajectory: Transition) -> Came:
        reward = self._rows(member, rewards_by_group(trajectory.reward, self.spec.groups), 2)
        shown = trajectory.next_obs
        over, cut = (
            jnp.repeat(flag, member.seats.agents, axis=1) for flag in (trajectory.terminated, trajectory.truncated)
        )
        if self.always_acting:
            return Came(reward, self._rows(member, shown["obs"], 2), over, cut, jnp.ones_like(over))
        ended, left, asked = (self._rows(member, shown[flag], 2) > 0 for flag in ("terminated", "truncated", "acting"))
        terminated, truncated = ended | (over & ~left), left | (cut & ~ended)
        return Came(reward, self._rows(member, shown["obs"], 2), terminated, truncated, asked)


def _learn(
    agent: Agent,
    state: Tree,
    store: MemberStore,
    accumulators: Tree,
    steps: Transition,
    key: Key,
    progress: Array,
    learns: bool,
) -> tuple[Tree, MemberStore, Tree, dict[str, Array]]:
    """What a policy learns from its agents' steps: as `core.learning.learn`, also where some places are no steps."""
    holes = isinstance(steps.extras, dict) and "valid" in steps.extras
    if holes and not agent.memory.keeps:
        steps = cut_at_the_last(steps)
    state, memory, accumulators = take_in(agent, state, store.memory, accumulators, steps)
    if not learns:
        return state, store._replace(memory=memory), accumulators, {}
    if not holes:
        state, memory, found = update(agent, state, memory, steps, key, progress)
    elif agent.memory.keeps:
        state, store, found = _update_owed(agent, state, store._replace(memory=memory), steps, key, progress)
        memory = store.memory
    else:
        after, memory, found = update(agent, state, memory, steps, key, progress)
        state = where(jnp.any(steps.extras["valid"]), after, state)  # of no steps there is nothing to learn
    return state, store._replace(memory=memory), accumulators, found


def _update_owed(
    agent: Agent, state: Tree, store: MemberStore, steps: Transition, key: Key, progress: Array
) -> tuple[Tree, MemberStore, dict[str, Array]]:
    """As many updates from memory as the share of places that were steps is of the agent's `updates`."""
    owed = store.owed + agent.updates * jnp.mean(steps.extras["valid"], dtype=jnp.float32)
    due = jnp.where(agent.memory.ready(store.memory), jnp.floor(owed), 0.0)

    def one_update(number: Array, held: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
        state, memory, _ = held
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, number))
        batch = agent.memory.sample(memory, steps, sample_key, progress)
        state, metrics = agent.update(state, batch, update_key, progress)
        return state, agent.memory.feedback(memory, batch, metrics), _scalars(metrics)

    held = state, store.memory, store.metrics
    state, memory, metrics = jax.lax.fori_loop(0, due.astype(jnp.int32), one_update, held)
    store = store._replace(memory=memory, owed=jnp.minimum(owed - due, float(agent.updates)), metrics=metrics)
    return state, store, metrics


def _scalars(metrics: dict[str, Array]) -> dict[str, Array]:
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items() if jnp.ndim(value) == 0}


@hyper
class MemberStores(Memory):
    """The memories of a team's policies; what is drawn from them is drawn in `Team.learn`."""

    keeps: ClassVar[bool] = False

    team: Team
    batch_size: int = 0

    def init(self, example: Transition, rows: int) -> Tree:
        trajectory = jax.tree.map(lambda leaf: jnp.zeros((1, rows, *leaf.shape), leaf.dtype), example)
        return {member.name: self._of(member, trajectory) for member in self.team.members if member.trained}

    def add(self, store: Tree, trajectory: Transition) -> Tree:
        return store

    def _of(self, member: Member, trajectory: Transition) -> MemberStore:
        team, agent = self.team, member.agent
        pending: Pending | tuple[()] = ()
        if not team.always_acting:
            begun = jax.tree.map(lambda leaf: leaf[0], team._begun(member, trajectory))
            pending = nothing_pending(begun)
        _, steps = team.steps(member, pending, trajectory)
        example = jax.tree.map(lambda leaf: leaf[0, 0], steps)
        memory = agent.memory.init(example, steps.first.shape[1])
        if team.always_acting or not agent.memory.keeps:
            return MemberStore(memory, pending, (), ())

        def first_update(memory: Tree, steps: Transition, data: Array) -> dict[str, Array]:
            key = jax.random.wrap_key_data(data)
            state = agent.init(key)
            batch = agent.memory.sample(memory, steps, key, jnp.zeros(()))
            return _scalars(agent.update(state, batch, key, jnp.zeros(()))[1])

        shapes = jax.eval_shape(first_update, memory, steps, jax.ShapeDtypeStruct((2,), jnp.uint32))
        metrics = {name: jnp.zeros((), jnp.float32) for name in shapes}
        return MemberStore(memory, pending, jnp.zeros(()), metrics)

"""What `check_env` does with a JAX environment of many agents: trace it, then play it compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from athlete.core import Group, MultiEnv, MultiStep, Tree, agent_ids
from athlete.env.checks.check_jax import as_agents_give, at, refuse, structure_violation, told, trace
from athlete.env.masks import told_mask
from athlete.env.membership import sample_legal, violation
from athlete.env.multi_agent import joint_spec, stacked
from athlete.ops.random import wrap
from athlete.spaces import Space, zeros

STEPS = 100
MOST_IDLE = 20  # steps in a row in which nobody is acting


def check_multi_env(env: MultiEnv) -> None:
    """Return silently if the environment keeps the contract of `athlete.core.MultiEnv`; else raise ValueError.

    Shapes, dtypes and structures are found by tracing, without running anything. Then 100 steps with random legal
    actions are played, with a reset after each end. The errors name the agent and the step.
    """
    name = type(env).__name__
    groups = _groups(env)
    if any(leaf is env for leaf in jax.tree_util.tree_leaves(env)):
        raise ValueError(f"{name} is not known to JAX; decorate the class with @athlete.core.hyper")
    _check_traced(env, groups)
    _Game(env, groups).play()


def _groups(env: MultiEnv) -> dict[str, Group]:
    name = f"{type(env).__name__}.groups"
    try:
        groups = env.groups
    except NotImplementedError:
        raise ValueError(
            f"{name} is missing; write a property that returns a dict such as "
            "{'agent': Group(size, observation space of one, action space of one)}"
        ) from None
    if not isinstance(groups, dict) or not groups:
        raise ValueError(f"{name} is {groups!r}; expected a dict of one athlete.core.Group at least, by name")
    for key, group in groups.items():
        if not isinstance(group, Group) or not isinstance(group.obs, Space) or not isinstance(group.action, Space):
            raise ValueError(
                f"{name}[{key!r}] is {group!r}; expected Group(size, obs, action), spaces of athlete.spaces"
            )
        if group.size < 1:
            raise ValueError(f"{name}[{key!r}] has {group.size} agents; expected at least 1")
    return groups


def _check_traced(env: MultiEnv, groups: dict[str, Group]) -> None:
    """Structures, shapes and dtypes of all that comes back."""
    name, spec = type(env).__name__, joint_spec(groups, env.always_acting)
    key = wrap(np.zeros(2, np.uint32))  # of the kind that environments get from the loops
    obs = {group: zeros(stacked(groups[group].obs, groups[group].size)) for group in groups}
    rewards = {group: np.zeros(groups[group].size, np.float32) for group in groups}
    flags: Tree = () if env.always_acting else jax.tree.map(lambda leaf: leaf.astype(bool), rewards)

    started = trace(f"{name}.reset(key)", env.reset, key)
    if not isinstance(started, tuple) or len(started) != 3:
        raise ValueError(f"{name}.reset(key) returned {told(started)}; expected (state, observations, acting)")
    state, first_obs, acting = started
    refuse(f"{name}.reset(key)", structure_violation(obs, first_obs, "observations"))
    refuse(f"{name}.reset(key)", _flag_violation(env, flags, acting, "acting"))

    method = f"{name}.step(state, action, key)"
    stepped = trace(method, env.step, state, as_agents_give(spec.action, zeros(spec.action)), key)
    if not isinstance(stepped, tuple) or len(stepped) != 2 or not isinstance(stepped[1], MultiStep):
        raise ValueError(f"{method} returned {told(stepped)}; expected (state, athlete.core.MultiStep)")
    next_state, step = stepped
    refuse(method, structure_violation(state, next_state, "state"))
    refuse(method, structure_violation(obs, step.obs, "observations"))
    refuse(method, structure_violation(rewards, step.reward, "reward"))
    for field in ("all_terminated", "all_truncated"):
        refuse(method, structure_violation(np.bool_(False), getattr(step, field), field))
    for field in ("acting", "terminated", "truncated"):
        refuse(method, _flag_violation(env, flags, getattr(step, field), field))


def _flag_violation(env: MultiEnv, expected: Tree, came: Tree, name: str) -> str:
    if expected == () and jax.tree.leaves(came):
        return f"{name} is given although always_acting is True; leave it out, as (), or set always_acting = False"
    if expected != () and not jax.tree.leaves(came):
        return f"{name} is left out although always_acting is False; give it, bools {{group: [n]}}, or set it to True"
    return structure_violation(expected, came, name) if expected != () else ""


class _Game:
    """A few compiled episodes with random legal actions, looked at agent by agent."""

    def __init__(self, env: MultiEnv, groups: dict[str, Group]):
        self.name, self.always_acting = type(env).__name__, env.always_acting
        self.groups = dict(sorted(groups.items()))
        self.ids = agent_ids(groups)
        self.reset = jax.jit(lambda number: env.reset(_key(number)))
        self.step = jax.jit(lambda state, action, number: env.step(state, action, _key(number)))
        self.generator = np.random.default_rng(0)

    def play(self) -> None:
        started, episode, step, idle = True, 0, 0, 0
        state: Tree = ()
        for t in range(STEPS):
            if started:
                episode, step = episode + 1, 0
                state, obs, acting = self.reset(np.uint32(t))
                self._check_observations("reset(key)", obs)
                acting = self._everybody() if self.always_acting else jax.device_get(acting)
            idle = 0 if any(acting[group].any() for group in self.groups) else idle + 1
            step += 1
            if idle == MOST_IDLE:
                raise ValueError(
                    f"{self.name}: for {idle} steps, up to step {step} of episode {episode}, none of "
                    f"{', '.join(self.ids)} is acting. Let somebody act, or set all_terminated or all_truncated"
                )
            where = f"step(state, action, key), in step {step} of episode {episode},"
            state, taken = self.step(state, self._actions(where, obs, acting), np.uint32(t))
            taken = jax.device_get(taken)
            obs, started = taken.obs, bool(taken.all_terminated or taken.all_truncated)
            self._check_observations(where, obs)
            self._check_rewards(where, taken)
            if not self.always_acting:
                acting = taken.acting
                self._check_flags(where, taken, started)

    def _agents(self) -> Iterator[tuple[str, str, int]]:
        """Each agent's name, group and number."""
        numbers = [(group, i) for group, (size, *_) in self.groups.items() for i in range(size)]
        return ((agent, *number) for agent, number in zip(self.ids, numbers, strict=True))

    def _everybody(self) -> Tree:
        return {name: np.ones(group.size, bool) for name, group in self.groups.items()}

    def _actions(self, where: str, obs: Tree, acting: Tree) -> Tree:
        """Random actions, legal ones of those who are acting."""
        found: dict[str, list[Any]] = {group: [] for group in self.groups}
        for agent, name, i in self._agents():
            group = self.groups[name]
            mask = None
            if acting[name][i]:
                mask = told_mask(None, group.obs, group.action, at(obs[name], i), {})
            try:
                action = sample_legal(group.action, mask, self.generator)
            except ValueError as error:
                raise ValueError(f"{self.name}: before {where} {agent} is acting, and {error}") from None
            found[name].append(as_agents_give(group.action, action))
        return {group: jax.tree.map(lambda *parts: np.stack(parts), *actions) for group, actions in found.items()}

    def _check_observations(self, where: str, obs: Tree) -> None:
        obs = jax.device_get(obs)
        for agent, group, i in self._agents():
            wrong = violation(self.groups[group].obs, at(obs[group], i), f"the observation of {agent}")
            refuse(f"{self.name}.{where}", wrong)

    def _check_rewards(self, where: str, taken: MultiStep) -> None:
        for agent, group, i in self._agents():
            if not np.isfinite(taken.reward[group][i]):
                reward = taken.reward[group][i]
                raise ValueError(f"{self.name}.{where} gave {agent} the reward {reward}; expected a finite number")

    def _check_flags(self, where: str, taken: MultiStep, over: bool) -> None:
        for agent, group, i in self._agents():
            ended = taken.terminated[group][i] or taken.truncated[group][i]
            if taken.acting[group][i] and (over or ended):
                what = "the episode is over" if over else "its life ended with this step"
                raise ValueError(f"{self.name}.{where} says that {agent} is acting, although {what}")


def _key(number: Any) -> Any:
    return jax.random.fold_in(wrap(np.zeros(2, np.uint32)), number)

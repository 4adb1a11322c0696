"""What uniformly random actions earn: the return that a trained policy has to beat."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Env, Spec, Tree
from athlete.env.adapters.conversion import to_space
from athlete.env.errors import EnvError
from athlete.env.masks import told_mask
from athlete.env.membership import sample_legal
from athlete.env.randomness import global_generators_kept, seed_global_generators, seed_spaces
from athlete.env.world import World, find_world
from athlete.ops.masks import action_mask, random_legal
from athlete.ops.random import wrap
from athlete.ops.sampling import sample
from athlete.spaces import Space, to_environment

ROWS = 2048  # environments at a time: enough to fill the processor's vectors, few enough for its cache
CHUNK = 16  # steps between two looks at which rows have finished: a longer one waits, a shorter one calls more
_COMPILER_OPTIONS = {"xla_backend_optimization_level": 2}  # the same speed as 3, faster to compile
LONGEST_EPISODE = 10_000_000  # steps; what runs longer is taken for endless


class BaselineResult(NamedTuple):
    """Undiscounted returns and lengths of complete episodes."""

    episode_reward_mean: float
    episode_reward_std: float
    episode_len_mean: float
    episode_reward_min: float
    episode_reward_max: float
    episodes: int
    seconds: float
    backend: str  # "jax" (compiled) or "gymnasium"


def baseline(
    env: Any,
    episodes: int = 1000,
    env_config: Mapping[str, Any] | None = None,
    seed: int = 0,
    backend: str | None = None,
) -> BaselineResult:
    """Play exactly `episodes` episodes with uniformly random actions, each to its end.

    Compiled if `env` is a JAX environment or an id with a compiled twin, else one environment in Python. Where there
    are many agents, all of them act at random, and the reward is the sum of theirs.

    Args:
        env: what `environment(...)` takes: an id, a name given to `register_env`, a class, a factory, an instance.
        backend: None or `"auto"` for compiled where that is possible, `"jax"` to insist on it, or `"gymnasium"`.

    Raises:
        ValueError: no such environment, a number of episodes below 1, a backend that is unknown or that the
            environment does not have, an endless episode.
        EnvError: rewards that are NaN or infinite.
    """
    if not isinstance(episodes, int) or episodes < 1:
        raise ValueError(f"baseline(episodes={episodes!r}): expected a whole number of at least 1")
    if backend not in (None, "auto", "jax", "gymnasium"):
        raise ValueError(f"baseline(backend={backend!r}): expected None, 'auto', 'jax' or 'gymnasium'")
    began = time.perf_counter()
    world = find_world(env, env_config or {}, backend or "auto")
    if world.env is not None:
        returns, lengths = _play_compiled(world.env, episodes, seed)
    elif world.many_agents:
        with global_generators_kept():
            seed_global_generators(seed)
            returns, lengths = _play_agents(world, episodes, seed)
    else:
        from athlete.env.adapters.gymnasium import make_todays

        with global_generators_kept():
            seed_global_generators(seed)
            returns, lengths = _play_gymnasium(make_todays(world.maker, world.env_config), episodes, seed)
    if not np.isfinite(returns).all():
        raise EnvError(f"baseline: {world.name} pays rewards that are no finite numbers: check_env says at which step")
    return BaselineResult(
        episode_reward_mean=float(returns.mean()),
        episode_reward_std=float(returns.std()),
        episode_len_mean=float(lengths.mean()),
        episode_reward_min=float(returns.min()),
        episode_reward_max=float(returns.max()),
        episodes=episodes,
        seconds=time.perf_counter() - began,
        backend="gymnasium" if world.env is None else "jax",
    )


@functools.partial(jax.jit, compiler_options=_COMPILER_OPTIONS)
def _reset(env: Env, keys: Array) -> Tree:
    """Fresh states, and which actions are legal there."""
    state, obs = jax.vmap(env.reset)(wrap(keys))
    return state, _masks(env, obs)


def _masks(env: Env, obs: Tree) -> Tree:
    """Which actions are legal, None without a mask; by group where there are many agents."""
    if not env.groups:
        return action_mask(Spec(env.observation_space, env.action_space), obs)
    return {name: action_mask(Spec(group.obs, group.action), obs["obs"][name]) for name, group in env.groups}


def _draw(env: Env, masks: Tree, key: Array, rows: int) -> Tree:
    """Random legal actions for `rows` rows."""
    if not env.groups:
        return _drawn(env.observation_space, env.action_space, masks, key, (rows,))
    keys = jax.random.split(key, len(env.groups))
    return {
        name: _drawn(group.obs, group.action, masks[name], keys[i], (rows, group.size))
        for i, (name, group) in enumerate(env.groups)
    }


def _drawn(obs_space: Space, action_space: Space, mask: Array | None, key: Array, shape: tuple[int, ...]) -> Tree:
    if mask is None:
        return sample(action_space, key, shape)
    return to_environment(action_space, random_legal(Spec(obs_space, action_space), mask, key))


@functools.partial(jax.jit, compiler_options=_COMPILER_OPTIONS)
def _play_chunk(env: Env, state: Tree, tally: Array, keys: Array) -> tuple[Tree, Array]:
    """A step for each of `keys` `[T, 2, 2]`. `tally` `[3, B]`: the return, the length, 1 while the episode goes on."""
    rows = tally.shape[1]

    def one_step(carried: tuple, key: Array) -> tuple[tuple, None]:
        (state, masks), (total, length, playing) = carried
        action_key, step_key = wrap(key)
        action = _draw(env, masks, action_key, rows)
        state, step = jax.vmap(env.step)(state, action, jax.random.split(step_key, rows))
        goes_on = jnp.where(step.terminated | step.truncated, 0.0, playing)
        reward = jnp.sum(step.reward, axis=-1) if env.groups else step.reward
        following = state, _masks(env, step.obs)
        return (following, jnp.stack([total + playing * reward, length + playing, goes_on])), None

    return jax.lax.scan(one_step, (state, tally), keys)[0]


def _play_compiled(env: Env, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths, `[episodes]`, in the order in which episodes ended.

    Every episode that begins is played to its end, and exactly `episodes` begin: a cut after a number of steps would
    favour short ones. Rows that have finished wait for the end of the chunk and then begin the next episode.
    """
    random = np.random.default_rng(seed)
    rows = min(episodes, ROWS)

    def keys(*shape: int) -> np.ndarray:
        return random.integers(0, 2**32, (*shape, 2), dtype=np.uint32)

    state = _reset(env, keys(rows))
    tally = np.zeros((3, rows), np.float32)
    tally[2] = 1
    waiting = episodes - rows
    finished = []
    while tally[2].any():
        was_playing = tally[2] == 1
        state, played = _play_chunk(env, state, tally, keys(CHUNK, 2))
        tally = np.array(played)
        done = was_playing & (tally[2] == 0)
        finished.append(tally[:2, done])
        if tally[1].max() > LONGEST_EPISODE:
            raise ValueError(_endless(env))
        begin = np.flatnonzero(done)[:waiting]
        if begin.size:
            state = jax.tree.map(functools.partial(_replace, rows=begin), state, _reset(env, keys(rows)))
            tally[:, begin] = [[0], [0], [1]]
            waiting -= begin.size
    returns, lengths = np.concatenate(finished, axis=1).astype(np.float64)
    return returns, lengths


def _replace(old: Array, new: Array, rows: np.ndarray) -> np.ndarray:
    mixed = np.array(old)
    mixed[rows] = np.asarray(new)[rows]
    return mixed


def _play_gymnasium(env: Any, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same on one Gymnasium environment, episode after episode."""
    returns, lengths = np.zeros(episodes), np.zeros(episodes)
    seed_spaces(env, seed)
    generator = np.random.default_rng(seed)
    spaces = to_space(env.observation_space), to_space(env.action_space)

    def choose(obs: Any, info: Any) -> Any:
        mask = told_mask(env, *spaces, obs, info)
        return env.action_space.sample() if mask is None else sample_legal(spaces[1], mask, generator)

    for episode in range(episodes):
        obs, info = env.reset(seed=seed if episode == 0 else None)
        over = False
        while not over:
            obs, reward, terminated, truncated, info = env.step(choose(obs, info))
            returns[episode] += float(reward)
            lengths[episode] += 1
            over = terminated or truncated
            if lengths[episode] > LONGEST_EPISODE:
                raise ValueError(_endless(env))
    env.close()
    return returns, lengths


def _play_agents(world: World, episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of one environment with many agents in Python."""
    from athlete.env.adapters.agents_source import one_row

    returns, lengths = np.zeros(episodes), np.zeros(episodes)
    row, came = one_row(world.maker, world.env_config)
    generator = np.random.default_rng(seed)
    for episode in range(episodes):
        row.reset(seed if episode == 0 else None)
        while not row.is_over:
            row.take({agent: row.random_action(agent, generator) for agent in row.acting})
            returns[episode] += came.reward.sum()
            lengths[episode] += 1
            if lengths[episode] > LONGEST_EPISODE:
                raise ValueError(_endless(row.env))
    row.close()
    return returns, lengths


def _endless(env: Any) -> str:
    return (
        f"baseline: an episode of {env!r} has run for more than {LONGEST_EPISODE:,} steps; if it never ends by itself, "
        f"give it a limit: env_config={{'max_episode_steps': ...}} or athlete.env.wrappers.time_limit.TimeLimit"
    )

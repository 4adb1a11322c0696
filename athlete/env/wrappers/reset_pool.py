"""Episodes that begin in states drawn once, for environments whose resets are dear."""

from __future__ import annotations

import jax

from athlete.core import Env, EnvWrapper, Key, Tree, hyper


@hyper
class ResetPool(EnvWrapper):
    """`env`, each of whose episodes begins in one of some start states, drawn uniformly: see `draw_pool`.

    A compiled program resets every row at every step, and keeps the result where an episode ended. Where a reset makes
    a world or settles a robot, taking one of many that are there already is much of the time saved; what is begun in
    is then always one of these.
    """

    states: jax.Array  # a tree whose leaves are [pool size, ...]
    observations: jax.Array  # likewise

    def reset(self, key: Key) -> tuple[Tree, Tree]:
        size = jax.tree.leaves(self.observations)[0].shape[0]
        index = jax.random.randint(key, (), 0, size)
        return jax.tree.map(lambda leaf: leaf[index], (self.states, self.observations))


def draw_pool(env: Env, size: int, key: Key) -> ResetPool:
    """The environment with `size` start states of its own, drawn now.

    Raises:
        ValueError: `size` is no whole number of at least 1.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"reset_pool={size!r}: expected a whole number of start states, at least 1")
    states, observations = jax.jit(jax.vmap(env.reset))(jax.random.split(key, size))
    return ResetPool(env, states, observations)

"""Tree searches for rows of positions, by mctx (the extra `search`), which is imported when one is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from athlete.core import Array, Key, Tree


class Node(NamedTuple):
    """What is known of positions, `[B, ...]`, before anything is searched from them."""

    logits: Array  # [B, A], of the policy
    value: Array  # [B]
    position: Tree  # what `Expand` goes on from


class Edge(NamedTuple):
    """What came of actions, `[B]` each."""

    reward: Array
    discount: Array  # of the value of where they led: 0 at the end of an episode, below 0 where the other moves there


Expand = Callable[[Key, Array, Tree], tuple[Edge, Node]]  # (key, actions [B], positions) -> what they lead to


def _mctx() -> Any:
    """The package. Raises ValueError where it is not installed."""
    try:
        import mctx
    except ModuleNotFoundError as error:
        raise ValueError("searches are mctx's, which is not installed; pip install mctx") from error
    return mctx


def puct_search(
    root: Node, expand: Expand, legal: Array | None, key: Key, simulations: int, puct: Array, noise: tuple[Array, Array]
) -> Array:
    """The share of `simulations` that began with each action, `[B, A]` (Silver et al. 2018, methods, "Search").

    Each goes down the tree by the largest Q(s, a) + C(s) P(s, a) sqrt(N(s)) / (1 + N(s, a)), with Q between 0 and 1
    among the actions of a node and C(s) = `puct` + log((1 + N(s) + 19652) / 19652), to a new node whose value then
    counts on the way back. At the root P is mixed with `noise`: a share of it, and the concentration of the Dirichlet
    distribution it is drawn from. `legal` `[B, A]` is of the root; None: all are.
    """
    found = _mctx().muzero_policy(
        *_asked(root, expand, legal, key, simulations),
        dirichlet_fraction=noise[0],
        dirichlet_alpha=noise[1],
        pb_c_init=puct,
    )
    return found.action_weights


def gumbel_search(
    root: Node, expand: Expand, legal: Array | None, key: Key, simulations: int, scale: float
) -> tuple[Array, Array, Array]:
    """Actions `[B]`, the improved policy `[B, A]` and its value `[B]` (Danihelka et al. 2022, equation 11).

    `scale` is of the Gumbel noise by which actions are drawn: 1 explores, 0 is greedy.
    """
    considered = min(16, root.logits.shape[-1])
    found = _mctx().gumbel_muzero_policy(
        *_asked(root, expand, legal, key, simulations), max_num_considered_actions=considered, gumbel_scale=scale
    )
    values = found.search_tree.qvalues(jnp.zeros(root.value.shape, jnp.int32))
    visited = found.search_tree.children_visits[:, 0] > 0
    weights = jnp.where(visited, found.action_weights, 0.0)
    value = jnp.sum(weights * jnp.where(visited, values, 0.0), -1) / jnp.maximum(jnp.sum(weights, -1), 1e-9)
    return found.action.astype(jnp.int32), found.action_weights, value


def _asked(root: Node, expand: Expand, legal: Array | None, key: Key, simulations: int) -> tuple[Any, ...]:
    """The arguments that mctx's searches have in common."""
    mctx = _mctx()

    def recurrent(_: Tree, key: Key, action: Array, position: Tree) -> tuple[Any, Tree]:
        edge, node = expand(key, action, position)
        found = mctx.RecurrentFnOutput(
            reward=edge.reward, discount=edge.discount, prior_logits=node.logits, value=node.value
        )
        return found, node.position

    start = mctx.RootFnOutput(prior_logits=root.logits, value=root.value, embedding=root.position)
    forbidden = None if legal is None else ~legal
    return (), key, start, recurrent, simulations, forbidden

"""The searches of mctx as they are asked here, against searches written out in plain Python."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from athlete.ops.random import wrap
from athlete.ops.search import Edge, Node, gumbel_search, puct_search

pytest.importorskip("mctx")

ACTIONS, DEPTH = 3, 3
KEY = wrap(np.array([0, 9], np.uint32))
# A tree of three actions and three moves: nodes are numbered, that after action a of node n is 3 n + a + 1.
SEED = 13
TABLES = np.random.default_rng(SEED)
LOGITS = TABLES.normal(size=(200, ACTIONS)).astype(np.float32)
VALUES = TABLES.uniform(-1, 1, size=200).astype(np.float32)
REWARDS = TABLES.normal(size=200).astype(np.float32) / 2
LAST = 12  # from which number on episodes are over


def expand(key, action, position):
    node = 3 * position + action + 1
    discount = jnp.where(node > LAST, 0.0, -1.0)
    inside = jnp.minimum(node, 199)
    edge = Edge(jnp.asarray(REWARDS)[inside], discount)
    return edge, Node(jnp.asarray(LOGITS)[inside], jnp.asarray(VALUES)[inside], inside)


def root_of(rows=2):
    return Node(jnp.tile(LOGITS[0], (rows, 1)), jnp.full(rows, VALUES[0]), jnp.zeros(rows, jnp.int32))


class Tree:
    """Silver et al. 2018, with values scaled among the actions of a node."""

    def __init__(self, number, prior=None):
        self.number, self.visits, self.total = number, 1, float(VALUES[number])
        exponents = np.exp(LOGITS[number] - LOGITS[number].max())
        self.prior = exponents / exponents.sum() if prior is None else prior
        self.children = {}

    def value(self):
        return self.total / self.visits

    def worth(self, action):
        child = self.children[action]
        return REWARDS[child.number] + (0.0 if child.number > LAST else -1.0) * child.value()

    def best(self, puct, legal):
        values = {a: self.worth(a) for a in self.children}
        low, high = min([self.value(), *values.values()]), max([self.value(), *values.values()])
        scores = np.full(ACTIONS, -np.inf)
        for a in legal:
            count = self.children[a].visits if a in self.children else 0
            scaled = (values[a] - low) / max(high - low, 1e-8) if a in values else 0.0
            exploring = puct + math.log((self.visits + 19652 + 1) / 19652)
            scores[a] = scaled + exploring * self.prior[a] * math.sqrt(self.visits) / (1 + count)
        return int(np.argmax(scores))

    def simulate(self, puct, legal=range(ACTIONS)):
        """The value of a simulation from here, as who moves here sees it."""
        action = self.best(puct, legal)
        if action in self.children:
            child = self.children[action]
            below = child.simulate(puct)
        else:
            child = self.children[action] = Tree(min(3 * self.number + action + 1, 199))
            below = child.value()
        found = REWARDS[child.number] + (0.0 if child.number > LAST else -1.0) * below
        self.visits += 1
        self.total += found
        return found


@pytest.mark.parametrize("puct", [0.5, 3.0])
@pytest.mark.parametrize("legal", [(0, 1, 2), (0, 2)])
def test_simulations_are_shared_out_as_in_a_search_by_hand(puct, legal):
    mask = np.isin(np.arange(ACTIONS), legal)
    prior = np.where(mask, np.exp(LOGITS[0]), 0)
    tree = Tree(0, prior / prior.sum())
    for _ in range(15):
        tree.simulate(puct, legal)
    shares = puct_search(root_of(), expand, jnp.tile(mask, (2, 1)), KEY, 15, puct, (0.0, 0.3))
    expected = [tree.children[a].visits / 15 if a in tree.children else 0.0 for a in range(ACTIONS)]
    np.testing.assert_allclose(shares, [expected] * 2, atol=1e-6)
    assert sorted(expected)[-2] > 0, "the case must be one in which something is weighed"


def test_noise_moves_the_simulations():
    plain, noisy = (puct_search(root_of(64), expand, None, KEY, 8, 3.0, (share, 0.3)) for share in (0.0, 0.9))
    assert np.ptp(plain, axis=0).max() == 0 and np.ptp(noisy, axis=0).max() > 0.5


def test_gumbel_s_greedy_action_and_its_policy_go_where_a_search_by_hand_finds_more():
    """One move ahead: the values are then those of the children."""
    worth = np.array([REWARDS[a + 1] - VALUES[a + 1] for a in range(ACTIONS)])
    action, policy, value = gumbel_search(root_of(), expand, None, KEY, 3, 0.0)
    scale = (50 + 1) * 0.1 / (worth.max() - worth.min())
    logits = LOGITS[0] + scale * (worth - worth.min())
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(policy, [expected] * 2, rtol=1e-4)
    assert action.tolist() == [int(np.argmax(logits))] * 2
    np.testing.assert_allclose(value, [expected @ worth] * 2, rtol=1e-4)


def test_gumbel_draws_actions_by_the_policy_where_it_explores():
    actions, _, _ = gumbel_search(root_of(256), expand, None, KEY, 3, 1.0)
    assert len(set(actions.tolist())) > 1


def test_gumbel_takes_legal_actions_only():
    mask = jnp.tile(jnp.array([False, True, False]), (64, 1))
    actions, policy, _ = gumbel_search(root_of(64), expand, mask, KEY, 4, 1.0)
    assert set(actions.tolist()) == {1} and np.allclose(policy[:, 1], 1.0)

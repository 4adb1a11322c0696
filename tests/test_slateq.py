"""SlateQ, held to its equations in plain NumPy with loops, and what it refuses."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from modes import assert_modes_are_equal, assert_resumes
from references import Adam, at, gradient, huber, learn_values, mlp, n_step, weights

from athlete.algorithms.slateq import Choice, SlateQ, SlateQConfig, all_slates
from athlete.core import Spec, Transition
from athlete.env.games.recommenders import make_recommender
from athlete.env.games.recommenders.interest_evolution import InterestEvolution
from athlete.env.games.recommenders.slates import observation_space
from athlete.loops.collect import spec_of
from athlete.memory.prioritized import Prioritized
from athlete.models.mlp import MLP
from athlete.ops.random import wrap
from athlete.ops.schedule import Schedule
from athlete.spaces import Box, Dict, Discrete, MultiDiscrete

KEY = wrap(np.array([0, 5], np.uint32))
CANDIDATES, SIZE, FEATURES = 4, 2, 3
OBS = observation_space(Box(-1, 1, (FEATURES,)), Box(-1, 1, (CANDIDATES, FEATURES)), SIZE, "watch_time")
SPEC = Spec(OBS, MultiDiscrete((CANDIDATES,) * SIZE))
FALLING = Schedule((0.0, 1.0), (0.05, 0.01))


def observations(random, steps: int, rows: int):
    """Users and documents; of the responses about a third are no click."""
    place = random.integers(SIZE + 1, size=(steps, rows))
    place[0, :3] = 0, 1, 2
    click = (place[..., None] == np.arange(SIZE)).astype(np.int8)
    user = random.normal(size=(steps, rows, FEATURES)).astype(np.float32)
    doc = random.normal(size=(steps, rows, CANDIDATES, FEATURES)).astype(np.float32)
    return {"user": user, "doc": doc, "response": {"click": click, "watch_time": 4.0 * click.astype(np.float32)}}


def batch_of(steps: int, rows: int = 6, seed: int = 0) -> Transition:
    random = np.random.default_rng(seed)
    obs, next_obs = (observations(random, steps, rows) for _ in range(2))
    slates = all_slates(CANDIDATES, SIZE)
    action = slates[random.integers(len(slates), size=(steps, rows))]
    ending = random.integers(3, size=(steps, rows))
    ending[0, :3] = 0, 1, 2
    terminated, truncated = ending == 1, ending == 2
    first = np.zeros((steps, rows), bool)
    first[1:] = (terminated | truncated)[:-1]
    reward = 2 * random.normal(size=(steps, rows)).astype(np.float32)
    extras = {"weight": random.uniform(0.2, 1, size=(1, rows)).astype(np.float32)}
    return Transition(obs, first, action, reward, next_obs, terminated, truncated, (), extras)


# In plain NumPy -----------------------------------------------------------------------------------------------------


def document_value(params, user, doc):
    """Qbar of one document, or of none of them."""
    parts = [user, np.zeros(FEATURES), [1.0]] if doc is None else [user, doc, [0.0]]
    return mlp(params, np.concatenate(parts)[None])["q"][0, 0]


def choice_probabilities(choice, user, docs):
    """Of the documents of a slate, in their places, and of none of them."""
    scores = [np.exp(choice.affinity * (user @ doc) + choice.place[k]) for k, doc in enumerate(docs)]
    return np.array([*scores, 1.0]) / (sum(scores) + 1.0)


def slate_values(params, choice, user, docs):
    found = {}
    for slate in itertools.permutations(range(CANDIDATES), SIZE):
        shown = [docs[i] for i in slate]
        values = [document_value(params, user, doc) for doc in [*shown, None]]
        found[slate] = choice_probabilities(choice, user, shown) @ np.array(values)
    return found


def best(values):
    return max(values, key=values.get)


def slateq(agent, held, batch, progress):
    """Ie et al. 2019, equations 4 and 9 to 12, step by step."""
    rows = range(batch.reward.shape[1])
    reward, discount, last = n_step(batch, agent.gamma)
    target, taken = [], []
    for row in rows:
        user, docs = (batch.next_obs[name][last[row], row] for name in ("user", "doc"))
        values = slate_values(held.target, held.choice, user, docs)
        choosing = slate_values(held.params, held.choice, user, docs) if agent.double_q else values
        target.append(reward[row] + discount[row] * values[best(choosing)])
        clicked = np.flatnonzero(batch.next_obs["response"]["click"][0, row])
        taken.append(int(clicked[0]) if len(clicked) else SIZE)

    def errors(params):
        found = []
        for row in rows:
            user, docs, slate = batch.obs["user"][0, row], batch.obs["doc"][0, row], batch.action[0, row]
            doc = None if taken[row] == SIZE else docs[slate[taken[row]]]
            found.append(document_value(params, user, doc) - target[row])
        return np.array(found)

    def loss(params):
        error = errors(params)
        delta = agent.huber_threshold
        squares = delta**2 * huber(error / delta) if agent.use_huber else 0.5 * error**2
        return np.mean(weights(batch) * squares)

    def choice_loss(choice):
        likelihood = []
        for row in rows:
            user, docs, slate = batch.obs["user"][0, row], batch.obs["doc"][0, row], batch.action[0, row]
            likelihood.append(choice_probabilities(choice, user, [docs[i] for i in slate])[taken[row]])
        return -np.mean(np.log(likelihood))

    metrics = {
        "loss": loss(held.params),
        "td_error": errors(held.params),
        "choice_loss": choice_loss(held.choice),
        "click_rate": np.mean(np.array(taken) < SIZE),
    }
    metrics |= learn_values(agent, held, loss, progress)
    slopes = gradient(choice_loss, held.choice)
    held.choice = held.choice_optimizer.step(held.choice, slopes, at(agent.lr_choice_model, progress))
    return metrics


def started(agent):
    """A state of which no parameter is 0, and the same in float64."""
    state = jax.jit(agent.init)(KEY)
    random = np.random.default_rng(7)
    params, target = (
        jax.tree.map(lambda leaf: (0.5 * random.normal(size=leaf.shape)).astype(np.float32), state.params)
        for _ in range(2)
    )
    choice = Choice(np.float32(0.6), np.array([0.4, -0.3], np.float32))
    held_params, held_target, held_choice = jax.tree.map(np.float64, (params, target, choice))
    held = SimpleNamespace(
        params=held_params,
        target=held_target,
        choice=held_choice,
        optimizer=Adam(held_params, clip=agent.grad_clip),
        choice_optimizer=Adam(held_choice),
        since=0.0,
    )
    return state._replace(params=params, target=target, choice=choice), held


def references_batch(batch):
    """In float64; what are whole numbers stay so."""
    return jax.tree.map(lambda leaf: leaf.astype(np.float64) if leaf.dtype.kind == "f" else leaf, batch)


CASES = {
    "as it is": {},
    "n steps, double Q, huber, clipped": {
        "n_step": 2,
        "double_q": True,
        "use_huber": True,
        "huber_threshold": 0.5,
        "grad_clip": 0.3,
        "tau": 0.3,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_whole_update_is_that_of_the_equations(case):
    settings = {"lr": FALLING, "lr_choice_model": Schedule((0.0, 1.0), (0.1, 0.02)), "gamma": 0.9}
    sync = {"target_network_update_freq": 3.0, "timesteps_per_update": 2.0}
    agent = SlateQ(model=MLP((3,)), **settings, **sync, **CASES[case]).bind(SPEC)
    state, held = started(agent)
    update = jax.jit(agent.update)
    for number, progress in enumerate((0.0, 0.5, 0.8)):
        batch = batch_of(agent.n_step, seed=number)
        expected = slateq(agent, held, references_batch(batch), progress)
        state, metrics = update(state, batch, KEY, progress)
        for name in ("loss", "td_error", "choice_loss", "click_rate", "mean_q"):
            if name in expected:
                np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-3, atol=1e-4, err_msg=name)
    for name in ("params", "target", "choice"):
        for a, b in zip(references.leaves(getattr(state, name)), references.leaves(getattr(held, name)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)


def test_it_shows_the_slate_whose_documents_are_worth_most_by_what_users_choose():
    agent = SlateQ(model=MLP((3,))).bind(SPEC)
    state, held = started(agent)
    obs = jax.tree.map(lambda leaf: leaf[0], observations(np.random.default_rng(3), 1, 40))
    act = jax.jit(lambda key: agent.act(agent.view(state, 0.0), (), obs, jnp.ones(40, bool), key, explore=False)[0])
    shown = np.asarray(act(KEY)).tolist()
    for row, slate in enumerate(shown):
        values = slate_values(held.params, held.choice, obs["user"][row], obs["doc"][row])
        assert tuple(slate) == best(values)
    assert len({tuple(slate) for slate in shown}) > 3


def test_chance_shows_every_slate_of_different_documents():
    slates = all_slates(4, 3)
    assert slates.shape == (24, 3) and all(len(set(slate)) == 3 for slate in slates.tolist())
    config = SlateQConfig().environment("InterestEvolution-v0", env_config={"num_candidates": 3})
    agent = config.exploration(exploration_config={"final_epsilon": 1.0}).make_agent(
        spec_of(make_recommender("InterestEvolution-v0", {"num_candidates": 3}))
    )
    rows = 3000
    obs = {"user": jnp.zeros((rows, 20)), "doc": jnp.zeros((rows, 3, 20))}
    view = agent.view(jax.jit(agent.init)(KEY), 0.0)
    assert float(view.rate) == 1.0
    drawn = np.asarray(jax.jit(lambda: agent.act(view, (), obs, jnp.ones(rows, bool), KEY)[0])())
    counts = {tuple(slate): 0 for slate in all_slates(3, 2).tolist()}
    for slate in drawn.tolist():
        counts[tuple(slate)] += 1
    assert all(count == pytest.approx(rows / 6, rel=0.2) for count in counts.values())


def test_where_users_and_documents_differ_in_size_only_places_tell_what_is_chosen():
    obs = observation_space(Box(0, 1, (1,)), Box(0, 1, (CANDIDATES, 3)), SIZE, "engagement")
    agent = SlateQ(model=MLP((3,))).bind(Spec(obs, SPEC.action))
    logits = agent._choice_logits(Choice(jnp.float32(5.0), jnp.array([1.0, -1.0])), agent_obs(3))
    np.testing.assert_allclose(logits, np.broadcast_to([[[1.0], [-1.0]]], (2, SIZE, CANDIDATES)))


def agent_obs(features: int):
    return {"user": jnp.ones((2, 1)), "doc": jnp.ones((2, CANDIDATES, features))}


# Trainings ----------------------------------------------------------------------------------------------------------

TINY = {"model": MLP((8,), "relu"), "lr": 1e-2, "num_steps_sampled_before_learning_starts": 16}


@pytest.mark.parametrize("memory", [Prioritized(capacity=64, batch_size=8)], ids=["prioritised"])
def test_the_compiled_loop_and_the_hosted_one_take_the_same_steps(memory):
    env = InterestEvolution(num_candidates=4, time_budget=6.0)
    assert_modes_are_equal(env, SlateQ(memory=memory, target_network_update_freq=5.0, **TINY), rows=2, length=1)


SMALL = {
    "num_steps_sampled_before_learning_starts": 40,
    "fcnet_hiddens_per_candidate": [8],
    "replay_buffer_config": {"capacity": 400},
    "target_network_update_freq": 10,
}


def test_it_resumes_to_the_last_bit(tmp_path):
    config = SlateQConfig().environment("InterestEvolution-v0", env_config={"num_candidates": 4}).training(**SMALL)
    assert_resumes(config.reporting(min_sample_timesteps_per_iteration=80).debugging(seed=1), tmp_path)


def test_rllibs_older_names_are_understood():
    old = SlateQConfig().update_from_dict({"hiddens": [7], "lr_q_model": 0.003, "lr_choice_model": 0.002})
    agent = old.make_agent(SPEC)
    assert (agent.model, agent.lr, agent.lr_choice_model) == (MLP((7,), "relu"), 0.003, 0.002)
    assert SlateQConfig().make_agent(SPEC).model == MLP((256, 32), "relu")


@pytest.mark.learning
def test_planning_for_the_user_beats_chance_by_far():
    """Chance is paid 154; RLlib's file of ten candidates stops at 160."""
    config = (
        SlateQConfig()
        .environment("InterestEvolution-v0")
        .training(lr=1e-3, num_steps_sampled_before_learning_starts=2000, replay_buffer_config={"capacity": 30_000})
    )
    config.exploration(exploration_config={"warmup_timesteps": 2000, "epsilon_timesteps": 10_000})
    with config.reporting(min_sample_timesteps_per_iteration=10_000).debugging(seed=0).build() as algo:
        for _ in range(3):
            algo.train()
        assert algo.evaluate(100)["evaluation"]["episode_reward_mean"] > 175


REFUSED = {
    "no slates": (Spec(OBS, Discrete(3)), "SlateQ serves slates of documents, and this one is Discrete"),
    "no documents": (
        Spec(Dict({"user": Box(-1, 1, (3,))}), SPEC.action),
        r"observations a Dict of user \[m\], doc \[n, d\] and response, which has click \[s\]; these are Dict",
    ),
    "places of different numbers": (Spec(OBS, MultiDiscrete((4, 3))), "a MultiDiscrete of s times n"),
    "too many": (
        spec_of(InterestEvolution(num_candidates=101, slate_size=3)),
        "there are 999,900 slates of 3 of 101 documents, and it values each of them, at most 10,000; show fewer",
    ),
    "longer than there are": (
        spec_of(InterestEvolution(num_candidates=2, slate_size=3)),
        "a slate of 3 documents cannot be made of 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_serve_is_a_sentence(case):
    spec, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        SlateQ().bind(spec)


def test_a_million_slates_are_refused_at_build():
    config = SlateQConfig().environment("InterestEvolution-v0", env_config={"num_candidates": 101, "slate_size": 3})
    with pytest.raises(ValueError, match=r"there are 999,900 slates of 3 of 101 documents"):
        config.build()
    with pytest.raises(ValueError, match="layers of fcnet_hiddens_per_candidate units; leave model out"):
        SlateQConfig().environment("InterestEvolution-v0").training(model={"fcnet_hiddens": [8]}).build()

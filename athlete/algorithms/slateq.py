"""SlateQ (Ie et al. 2019, arXiv:1905.12767): Q-learning of slates, whose values are made of those of their documents.

A user takes one document i of a slate A, or none, with P(i | s, A). If what follows depends on A only by what was
taken, the value of a slate is the sum of its documents' over that choice (equations 9 to 11):

    Q(s, A) = sum_i P(i | s, A) Qbar(s, i)                          the sum is over A and none of it
    Qbar(s, i) <- r + gamma max_A' Q(s', A')                        where i was taken (equation 12, with algorithm 1)

The choice is a conditional logit (equation 4): P is proportional to exp(affinity user' doc + the bias of its place), 1
for none of them. It is learned by maximum likelihood from what was taken.

Departures:

- what is taken where nothing is taken is a document of its own, the paper's null item, with a value that is learned;
  RecSim's agent and RLlib's give it none, and so overrate slates that are looked at longest;
- the maximum is over all slates, as in RLlib, at most 10,000: no top-k, greedy or linear program;
- the bias of a place is ours: a user who looks at the first place first has no conditional logit without it;
- one network for all candidates, where RLlib has one for each place of a candidate in the observation;
- the choice that is learned is also the one acted by; RLlib acts by RecSim's own rule, which it is given;
- the click of a transition is that of where it led (RLlib's is that of the slate before);
- Adam in the place of RMSProp; n steps, double Q and prioritised replay are options of DQN's.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from athlete.algorithms.q_learning import QLearner
from athlete.core import Array, Key, Spec, Transition, Tree, hyper
from athlete.core.ranges import Limit, NonNegativeFloat, NonNegativeInt, PositiveFloat
from athlete.exploration import ActingView
from athlete.models.forward import forward
from athlete.models.mlp import MLP
from athlete.ops.features import feature_vector
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.returns import at_step, n_step_return
from athlete.ops.schedule import Schedule, value_at
from athlete.ops.td import importance_weight
from athlete.ops.values import batched_index, greedy, half_square, huber
from athlete.settings.families import REPLAY_SETTINGS, ReplayConfig
from athlete.settings.table import Setting
from athlete.spaces import Box, Dict, MultiBinary, MultiDiscrete, Space

MOST_SLATES = 10_000


class Choice(NamedTuple):
    """What decides which document of a slate is taken; all 0 at the start: each of them as likely as none."""

    affinity: Array  # of user' doc
    place: Array  # [s]


class SlateQState(NamedTuple):
    """The state of a `SlateQ`."""

    params: Tree  # the online network
    target: Tree
    optimizer: AdamState
    since_sync: Array  # float32 scalar: timesteps sampled since the target was updated
    choice: Choice
    choice_optimizer: AdamState


@hyper
class SlateQ(QLearner):
    """Hyperparameters of SlateQ under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    serves = ("slates",)

    lr: NonNegativeFloat | Schedule = 2.5e-4
    lr_choice_model: NonNegativeFloat | Schedule = 1e-3
    grad_clip: Limit | None = None  # of the global norm
    use_huber: bool = False  # large errors count by their size
    huber_threshold: PositiveFloat = 1.0
    target_network_update_freq: NonNegativeFloat = 3200.0  # timesteps sampled between two of them
    num_steps_sampled_before_learning_starts: NonNegativeInt = 20_000  # timesteps

    def bind(self, spec: Spec) -> Self:
        """Raises ValueError where actions are no slates of what observations show, or too many of them."""
        title = type(self).__name__
        if not _is_of_slates(spec):
            raise ValueError(
                f"{title} serves slates of documents, and this one is {spec.action}: actions are a MultiDiscrete of s "
                "times n, and observations a Dict of user [m], doc [n, d] and response, which has click [s]; "
                f"these are {spec.obs}"
            )
        candidates, size = _shape(spec)
        if size > candidates:
            raise ValueError(f"{title}: a slate of {size} documents cannot be made of {candidates}")
        number = math.perm(candidates, size)
        if number > MOST_SLATES:
            raise ValueError(
                f"{title}: there are {number:,} slates of {size} of {candidates} documents, and it values each of "
                f"them, at most {MOST_SLATES:,}; show fewer candidates, or shorter slates"
            )
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> SlateQState:
        parts = dict(self.spec.obs.items)  # type: ignore[attr-defined]
        size = parts["user"].shape[0] + parts["doc"].shape[1] + 1
        params = self.model.init(key, feature_vector(size), {"q": (1, 1.0)})
        choice = Choice(jnp.zeros(()), jnp.zeros(_shape(self.spec)[1]))
        return SlateQState(*self._initial_state(params), choice, adam_init(choice))

    def view(self, state: SlateQState, progress: Array) -> ActingView:
        return ActingView((state.params, state.choice), self.exploration.rate(progress))

    def act(self, view: ActingView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        """Slates `[B, s]` of different documents; the key is for choosing among them."""
        params, choice = view.params
        values = self._slate_values(choice, obs, self._document_values(params, obs))
        which = self.exploration.choose(values, view.rate, key) if explore else greedy(values)
        return jnp.asarray(self._slates())[which], carry, {}

    def distribution(self, view: ActingView, carry: Tree, obs: Tree, first: Array) -> None:
        return None  # it is over slates, and not over the entries of an action

    def update(self, state: SlateQState, batch: Transition, key: Key, progress: Array) -> tuple[SlateQState, dict]:
        """One step of the network and of the choice, on windows `[n, B, ...]`; the key is not used."""
        steps = n_step_return(batch, self.gamma)
        obs, action, after = jax.tree.map(lambda leaf: leaf[0], (batch.obs, batch.action, batch.next_obs))
        place, document = _taken(after["response"]["click"], action, _shape(self.spec)[0])
        next_obs = at_step(batch.next_obs, steps.last)
        next_values = self._slate_values(state.choice, next_obs, self._document_values(state.target, next_obs))
        selector = next_values
        if self.double_q:
            selector = self._slate_values(state.choice, next_obs, self._document_values(state.params, next_obs))
        target = steps.return_ + steps.discount * batched_index(next_values, greedy(selector))

        def losses_of(params: Tree) -> tuple[Array, dict[str, Array]]:
            value = batched_index(self._document_values(params, obs), document)
            error = value - target
            loss = huber(error, self.huber_threshold) if self.use_huber else half_square(error)
            return loss, {"mean_q": jnp.mean(value), "mean_td_error": jnp.mean(error), "td_error": error}

        def choice_losses(choice: Choice) -> tuple[Array, dict[str, Array]]:
            logits = jnp.take_along_axis(self._choice_logits(choice, obs), action[..., None], axis=-1)[..., 0]
            return -batched_index(jax.nn.log_softmax(_with_none(logits, 0.0)), place), {}

        weight = importance_weight(batch)
        optimizer, rate = Adam(None, self.adam_epsilon), value_at(self.lr_choice_model, progress)
        chosen = optimizer.minimize(choice_losses, state.choice, state.choice_optimizer, rate, jnp.ones_like(weight))
        state, metrics = self._learn(state, losses_of, weight, progress)
        metrics |= {"choice_loss": chosen.loss, "click_rate": jnp.mean(place < action.shape[-1])}
        return state._replace(choice=chosen.params, choice_optimizer=chosen.state), metrics

    def _document_values(self, params: Tree, obs: Tree) -> Array:
        """Qbar of each candidate and, last, of none of them, `[B, n + 1]`."""
        user, doc = (jnp.asarray(obs[name], jnp.float32) for name in ("user", "doc"))
        rows, candidates, _ = doc.shape
        none = jnp.zeros((rows, 1, doc.shape[-1])), jnp.ones((rows, 1, 1))
        documents = jnp.concatenate([doc, none[0]], axis=1)
        is_none = jnp.concatenate([jnp.zeros((rows, candidates, 1)), none[1]], axis=1)
        users = jnp.broadcast_to(user[:, None], (rows, candidates + 1, user.shape[-1]))
        inputs = jnp.concatenate([users, documents, is_none], axis=-1)
        return forward(self.model, params, inputs.reshape(-1, inputs.shape[-1]))["q"].reshape(rows, -1)

    def _choice_logits(self, choice: Choice, obs: Tree) -> Array:
        """Of each candidate in each place, `[B, s, n]`; that of none of them is 0."""
        user, doc = (jnp.asarray(obs[name], jnp.float32) for name in ("user", "doc"))
        if user.shape[-1] != doc.shape[-1]:  # what the two have in common is not known
            affinity = jnp.zeros(doc.shape[:-1])
        else:
            affinity = jnp.sum(user[:, None] * doc, axis=-1)
        return choice.affinity * affinity[:, None] + choice.place[:, None]

    def _slate_values(self, choice: Choice, obs: Tree, values: Array) -> Array:
        """Q of every slate, `[B, slates]`, of its documents' values `[B, n + 1]`."""
        slates, logits = self._slates(), self._choice_logits(choice, obs)
        of_places = jnp.stack([logits[:, k, slates[:, k]] for k in range(slates.shape[1])], axis=-1)
        probability = jax.nn.softmax(_with_none(of_places, 0.0))
        return jnp.sum(probability * _with_none(values[:, slates], values[:, None, -1:]), axis=-1)

    def _slates(self) -> np.ndarray:
        return all_slates(*_shape(self.spec))


@functools.lru_cache(maxsize=16)
def all_slates(candidates: int, size: int) -> np.ndarray:
    """Every slate of `size` different candidates, in every order, int32 `[slates, size]`."""
    return np.array(list(itertools.permutations(range(candidates), size)), np.int32)


def _taken(click: Array, action: Array, candidates: int) -> tuple[Array, Array]:
    """Which place `[B]` of slates `[B, s]` was clicked, s for none, and which candidate stood there, n for none."""
    place = jnp.where(jnp.any(click > 0, axis=-1), jnp.argmax(click, axis=-1), action.shape[-1])
    return place, batched_index(_with_none(action, candidates), place).astype(jnp.int32)


def _with_none(places: Array, none: Array | float) -> Array:
    """`[..., s]` and what stands for none of them, `[..., s + 1]`."""
    return jnp.concatenate([places, jnp.broadcast_to(jnp.asarray(none, places.dtype), (*places.shape[:-1], 1))], -1)


def _is_of_slates(spec: Spec) -> bool:
    action, obs = spec.action, spec.obs
    if not isinstance(action, MultiDiscrete) or len(action.shape) != 1 or action.lowest.any():
        return False
    parts: dict[str, Space] = dict(obs.items) if isinstance(obs, Dict) else {}
    user, doc, response = (parts.get(name) for name in ("user", "doc", "response"))
    click = dict(response.items).get("click") if isinstance(response, Dict) else None
    boxes = isinstance(user, Box) and len(user.shape) == 1 and isinstance(doc, Box) and len(doc.shape) == 2
    return (
        boxes
        and set(action.sizes) == {doc.shape[0]}  # type: ignore[union-attr]
        and isinstance(click, MultiBinary)
        and click.shape == action.shape
    )


def _shape(spec: Spec) -> tuple[int, int]:
    """How many candidates there are, and how many of them a slate shows."""
    assert isinstance(spec.action, MultiDiscrete)
    return spec.action.sizes[0], len(spec.action.sizes)


class SlateQConfig(ReplayConfig):
    """Configuration of SlateQ: `SlateQConfig().environment("InterestEvolution-v0").build()`."""

    algorithm_name = "SlateQ"
    summary = "action values of slates, made of those of their documents and of what users choose"
    paper = "Ie et al. 2019, arXiv:1905.12767"
    agent_class = SlateQ
    exploration_types = ("SlateEpsilonGreedy", "EpsilonGreedy", "SoftQ")
    more_settings: ClassVar[dict[str, Setting]] = {
        **REPLAY_SETTINGS,
        "fcnet_hiddens_per_candidate": Setting("training", [256, 32], "layers"),
        "hiddens": Setting("training", [], "layers"),
    }
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 4,
        "train_batch_size": 32,
        "min_sample_timesteps_per_iteration": 1000,
        "replay_buffer_config": {"type": "PrioritizedReplayBuffer", "capacity": 100_000},
        "exploration_config": {
            "type": "SlateEpsilonGreedy",
            "final_epsilon": 0.01,
            "epsilon_timesteps": 250_000,
            "warmup_timesteps": 20_000,
        },
    }

    def model_parts(self) -> dict[str, Any]:
        """Layers of `hiddens`, as older versions of RLlib call them, else of `fcnet_hiddens_per_candidate`."""
        return {"model": MLP(tuple(self.hiddens or self.fcnet_hiddens_per_candidate), "relu")}

    def validate(self) -> None:
        super().validate()
        if "model" in self.chosen():
            raise ValueError(
                f"{self._title()}: its network has layers of fcnet_hiddens_per_candidate units; leave model out"
            )

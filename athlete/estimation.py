"""What a policy would be worth, told from recorded data: RLlib's `off_policy_estimation_methods`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from athlete.algorithms.fqe import FQE
from athlete.core import Agent, Array, Spec, Transition, Tree
from athlete.distributions import flat_action
from athlete.loops.compiling import COMPILER_OPTIONS
from athlete.loops.offline import OfflineTraining
from athlete.memory.recorded import recorded
from athlete.memory.replay import Replay
from athlete.models.mlp import MLP
from athlete.offline.dataset import DataError, DataSet, joined
from athlete.offline.estimators import (
    METHODS,
    behaviour_values,
    doubly_robust,
    importance_sampling,
    interval,
    interval_of_fits,
    missing_share,
    side_by_side,
    weighted_importance_sampling,
    weighted_interval,
)
from athlete.offline.files import read_data
from athlete.ops.features import features
from athlete.ops.random import wrap
from athlete.policy import Policy
from athlete.settings.config import AlgorithmConfig
from athlete.settings.recorded import SAMPLER, shares_of

STATE_SAMPLES = 16  # of a continuous policy's actions, in what a state is worth in the end
FITTING: dict[str, Any] = {
    "updates": 10_000,
    "batch_size": 256,
    "lr": 1e-3,
    "tau": 0.05,  # of 10,000 updates about 500 backups: for a gamma of 0.99 values are there
    "hiddens": [64, 64],
    "fits": 5,  # each to a bootstrap sample of the episodes
}
MOST_WEIGHT = 1e8  # of a ratio of probabilities: beyond, one step is all there is


def estimate(
    policy: Policy, data: DataSet, methods: Mapping[str, Mapping[str, Any]], gamma: float = 0.99, seed: int = 0
) -> dict[str, dict[str, float]]:
    """What each of `methods`, `{name: {"type": ..., ...}}`, says of the policy as it explores, from recorded data.

    RLlib's keys: `v_behavior` and `v_target`, the mean discounted returns of those who made the data and of the policy;
    their `_std` over episodes; `v_gain` and `v_delta`, the quotient and the difference; and here `v_target_low` and
    `v_target_high`, the ends of a bootstrap interval of 95% over episodes. Where values are fitted, they are fitted to
    every bootstrap sample anew (Hao et al. 2021, arXiv:2102.03607): the network's errors are much larger than those of
    first states.

    Raises ValueError where a method does not exist, and DataError where it needs probabilities that are not known.
    """
    told = Told(policy, data, float(gamma), seed)
    return {name: told.by(name, dict(settings)) for name, settings in methods.items()}


def evaluation_data(config: AlgorithmConfig) -> DataSet:
    """The recorded data that `off_policy_estimation_methods` are about: those of `evaluation_config`, else `input_`."""
    changes = config.evaluation_config
    source = changes.get("input", config.input_)
    source = config.input_ if source == SAMPLER else source
    shares = shares_of(source, config.input_config)
    sources = [each for each in shares if each != SAMPLER]
    if not sources:
        raise ValueError(
            "off_policy_estimation_methods: there are no recorded data; say .offline_data(input_='FILE') or "
            "evaluation_config={'input': 'FILE'}"
        )
    given = [list(each) if isinstance(each, tuple) else each for each in sources]
    return joined([read_data(each, config.input_config, config.actions_in_input_normalized) for each in given])


class Fit(NamedTuple):
    """One fit of values."""

    counts: np.ndarray  # how often each episode was drawn, `[E]`
    value: np.ndarray  # Q of what was done, `[N]`
    state_value: np.ndarray  # V of every state, `[N]`


class Told:
    """What data tell of a policy: computed once, for all methods that need it."""

    def __init__(self, policy: Policy, data: DataSet, gamma: float, seed: int):
        if policy.is_recurrent():
            raise ValueError(
                "off_policy_estimation_methods: a network with memory has no probability of one step alone"
            )
        self._policy, self._data, self._gamma, self._seed = policy, data, gamma, seed
        self._spec: Spec = policy.agent.spec
        self._steps = data.transitions(self._spec)
        self._episodes = side_by_side(data.reward, data.lengths, gamma)
        self._fitted: dict[str, list[Fit]] = {}

    def by(self, name: str, settings: dict[str, Any]) -> dict[str, float]:
        """The numbers of one method."""
        kind = settings.pop("type", None)
        kind = getattr(kind, "__name__", str(kind)).rpartition(".")[2]
        if kind not in METHODS:
            raise ValueError(
                f"off_policy_estimation_methods={{{name!r}: {{'type': {kind!r}}}}}: there are {', '.join(METHODS)}"
            )
        per, fitting = settings.pop("per", "step"), settings.pop("q_model_config", {})
        if per not in ("step", "episode"):
            raise ValueError(f"off_policy_estimation_methods={{{name!r}: {{'per': {per!r}}}}}: 'step' or 'episode'")
        for unknown in settings:
            raise ValueError(
                f"off_policy_estimation_methods={{{name!r}: {{{unknown!r}: ...}}}}: there is no such setting"
            )
        if kind == "ImportanceSampling":
            each = importance_sampling(self._episodes, self._ratio(kind), per)
            return self._numbers(each, interval(each, self._seed))
        if kind == "WeightedImportanceSampling":
            ratio = self._ratio(kind)
            each = weighted_importance_sampling(self._episodes, ratio, per)
            return self._numbers(each, weighted_interval(self._episodes, ratio, per, self._seed))
        fits = self._fit(fitting)
        if kind == "DirectMethod":
            told = [fit.state_value[self._data.first] for fit in fits]
        else:
            ratio, gamma = self._ratio(kind), self._gamma
            told = [doubly_robust(self._episodes, ratio, fit.value, fit.state_value, gamma) for fit in fits]
        each, reach = np.mean(told, axis=0), self._unknown(fits)
        if len(fits) == 1:
            low, high = interval(each, self._seed)
        else:
            low, high = interval_of_fits(
                [float(np.mean(fit.counts * one)) for fit, one in zip(fits, told, strict=True)]
            )
        return self._numbers(each, (low - reach, high + reach))

    def _unknown(self, fits: list[Fit]) -> float:
        """How far off fitted values may be where the policy does what the data do not hold.

        No fit knows. As far as probabilities tell how much of that there is, values are taken to be off there by what
        those of recorded states differ by, one standard deviation.
        """
        if self._data.log_prob is None or self._log_prob is None:
            return 0.0
        spread = float(np.std(np.mean([fit.state_value for fit in fits], axis=0)))
        return spread * missing_share(self._episodes, self._ratio("DoublyRobust"))

    def _numbers(self, each: np.ndarray, bounds: tuple[float, float]) -> dict[str, float]:
        before = behaviour_values(self._episodes)
        found = {
            "v_behavior": before.mean(),
            "v_behavior_std": before.std(),
            "v_target": each.mean(),
            "v_target_std": each.std(),
            "v_gain": each.mean() / before.mean() if before.mean() else np.nan,
            "v_delta": each.mean() - before.mean(),
            "v_target_low": bounds[0],
            "v_target_high": bounds[1],
        }
        return {key: float(number) for key, number in found.items()}

    @functools.cached_property
    def _log_prob(self) -> np.ndarray | None:
        found = _log_probs(self._policy.agent, self._policy.view, self._one_row())
        return None if found is None else np.asarray(found, np.float64)

    def _ratio(self, kind: str) -> np.ndarray:
        if self._data.log_prob is None:
            raise DataError(
                f"{self._data.parts[0].name}: {kind} needs the probability of each action under what chose it, and "
                "there is no action_prob; record with explore=True, or take DirectMethod"
            )
        if self._log_prob is None:
            raise ValueError(
                f"off_policy_estimation_methods: {kind} needs a policy that draws its actions from a distribution, and "
                f"{type(self._policy.agent).__name__}'s does not; take DirectMethod"
            )
        return np.minimum(np.exp(self._log_prob - self._data.log_prob), MOST_WEIGHT)

    def _fit_once(self, settings: Mapping[str, Any], seed: int) -> Fit:
        lengths, random = self._data.lengths, np.random.default_rng(seed)
        counts = np.ones(len(lengths))
        if settings["fits"] > 1:
            counts = np.bincount(random.integers(len(lengths), size=len(lengths)), minlength=len(lengths)).astype(float)
        weight = np.repeat(counts, lengths).astype(np.float32)[:, None]
        steps = self._steps._replace(extras={"weight": weight})
        return Fit(counts, *fitted_values(self._policy, steps, self._spec, self._gamma, settings, seed))

    def _one_row(self) -> Transition:
        return jax.tree.map(lambda leaf: leaf[:, 0], self._steps)

    def _fit(self, given: Mapping[str, Any]) -> list[Fit]:
        """What fitted Q evaluation says, once for each bootstrap sample of the episodes; of one fit, all of them."""
        for unknown in set(given) - {*FITTING, "type"}:
            raise ValueError(
                f"q_model_config={{{unknown!r}: ...}}: there is no such setting; there are {', '.join(FITTING)}"
            )
        settings = FITTING | {name: value for name, value in given.items() if name != "type"}
        if str(settings) not in self._fitted:
            self._fitted[str(settings)] = [
                self._fit_once(settings, self._seed + number) for number in range(settings["fits"])
            ]
        return self._fitted[str(settings)]


def fitted_values(
    policy: Policy, steps: Transition, spec: Spec, gamma: float, settings: Mapping[str, Any], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Q(s, a) of what was done and V(s) of `policy`, `[N]` each, fitted to steps `[N, 1, ...]`."""
    row = jax.tree.map(lambda leaf: leaf[:, 0], steps)
    seen = np.asarray(_features(spec, row.obs))
    scale = np.maximum(seen.std(axis=0), 1e-3)
    model = MLP(tuple(settings["hiddens"]), "relu")
    least, most = bounds_of_values(row.reward, gamma)
    agent = FQE(
        policy.agent,
        policy.view,
        seen.mean(axis=0),
        scale,
        least,
        most,
        settings["lr"],
        gamma,
        settings["tau"],
        model=model,
    ).bind(spec)
    memory = recorded(Replay(batch_size=settings["batch_size"]), steps)
    training = OfflineTraining(agent, memory, lambda: [steps], 1.0, np.array([seed, 0x465145], np.uint32))
    training.advance(settings["updates"])
    value, state_value = _told_values(training.agent, training.run.state.params, row, np.array([seed, 1], np.uint32))
    return np.asarray(value, np.float64), np.asarray(state_value, np.float64)


def bounds_of_values(reward: np.ndarray, gamma: float) -> tuple[float, float]:
    """Between which values lie where rewards are as in the data: 0, where an episode is over, is always one."""
    horizon = 1.0 / (1.0 - gamma) if gamma < 1.0 else np.inf
    least, most = float(reward.min()), float(reward.max())
    return (least * horizon if least < 0.0 else 0.0), (most * horizon if most > 0.0 else 0.0)


@functools.partial(jax.jit, static_argnames=("spec",), compiler_options=COMPILER_OPTIONS)
def _features(spec: Spec, obs: Tree) -> Array:
    return features(spec.obs, obs)


@functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
def _told_values(agent: FQE, params: Tree, row: Transition, key: Array) -> tuple[Array, Array]:
    keys = jax.random.split(wrap(key), STATE_SAMPLES // agent.num_samples)
    states = [agent.state_values(params, row.obs, each) for each in keys]
    value = agent.values(params, row.obs, flat_action(agent.spec.action, row.action))
    return value, jnp.mean(jnp.stack(states), axis=0)


@functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
def _log_probs(agent: Agent, view: Tree, row: Transition) -> Array | None:
    """Of each recorded action under what the agent draws from, `[N]`."""
    carry = agent.start(view, row.first.shape[0], wrap(jnp.zeros(2, jnp.uint32)))
    drawn_from: Any = agent.distribution(view, carry, row.obs, jnp.ones_like(row.first))
    return None if drawn_from is None else drawn_from.log_prob(flat_action(agent.spec.action, row.action))

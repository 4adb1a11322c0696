"""Evolution strategies (Salimans et al. 2017, arXiv:1703.03864): the agent.

Algorithm 1 with the paper's section 2.1: members are theta + sigma epsilon in mirrored pairs, their returns are shaped
into centred ranks in [-1/2, 1/2], and the estimate of the gradient, less a decay of weights, goes through Adam:

    g = 1 / P sum_i u_i epsilon_i        theta <- Adam(theta, -g + l2_coeff theta)

Departures from the paper, and from RLlib's ES where it is said:

- g is not divided by sigma: Adam does not mind, and OpenAI's code and RLlib leave it out;
- members of the same return share the mean of their ranks, where RLlib orders them as they come: a population in which
  all do equally well stands still;
- a generation is `episodes_per_batch` episodes, and no others are added until there are `train_batch_size` timesteps,
  as RLlib does; `eval_prob` is the share of episodes of the policy itself that are played besides;
- noise is drawn anew, from no table, and everyone who acts is sent the parameters;
- no virtual batch normalisation, which the paper uses on Atari.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from athlete.algorithms.evolution import (
    EvolutionStrategy,
    members_of,
    mirrored_members,
    pairs_of,
    population_metrics,
    step_metrics,
    with_policy,
)
from athlete.core import Array, Key, Played, hyper
from athlete.core.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.moments import Moments
from athlete.ops.ranks import centered_ranks
from athlete.ops.schedule import Schedule, value_at
from athlete.settings.families import EvolutionConfig


class ESState(NamedTuple):
    """The state of an `ES`."""

    parameters: Array  # [N]
    optimizer: AdamState
    filter: Moments | tuple[()]


@hyper
class ES(EvolutionStrategy):
    """Hyperparameters of ES under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    stepsize: NonNegativeFloat | Schedule = 0.01
    noise_stdev: PositiveFloat = 0.02
    l2_coeff: NonNegativeFloat = 0.005
    action_noise_std: NonNegativeFloat = 0.01
    episodes_per_batch: PositiveInt = 1000  # of perturbed members; rounded up to whole pairs

    def init(self, key: Key) -> ESState:
        parameters = self._first_parameters(key)
        return ESState(parameters, adam_init(parameters), self._first_filter())

    def ask(self, state: ESState, key: Key, progress: Array) -> tuple[Array, Array]:
        """What is drawn is the noise of the pairs, `[pairs, N]`: members are theta + and then theta - of it."""
        noise = jax.random.normal(key, (pairs_of(self.episodes_per_batch), state.parameters.size))
        members = mirrored_members(state.parameters, self.noise_stdev * noise)
        return with_policy(members, state.parameters, self.policy_episodes), noise

    def tell(self, state: ESState, drawn: Array, played: Played, progress: Array) -> tuple[ESState, dict[str, Array]]:
        returns, _ = members_of(played, self.policy_episodes)
        plus, minus = jnp.split(centered_ranks(returns), 2)
        gradient = (plus - minus) @ drawn / returns.size
        descent = -gradient + self.l2_coeff * state.parameters
        stepsize = value_at(self.stepsize, progress)
        parameters, optimizer, _ = Adam(None).step(state.parameters, descent, state.optimizer, stepsize)
        metrics = population_metrics(played, self.policy_episodes) | step_metrics(state.parameters, parameters)
        metrics |= {"grad_norm": jnp.sum(gradient**2), "cur_lr": stepsize}
        return ESState(parameters, optimizer, self._filter_after(state.filter, played)), metrics


class ESConfig(EvolutionConfig):
    """Configuration of ES: `ESConfig().environment("CartPole-v1").training(episodes_per_batch=100).build()`."""

    algorithm_name = "ES"
    summary = "a population around the policy, which moves towards those that did well"
    paper = "Salimans et al. 2017, arXiv:1703.03864"
    agent_class = ES
    members_setting = "episodes_per_batch"
    defaults: ClassVar[dict[str, Any]] = {"observation_filter": "MeanStdFilter"}

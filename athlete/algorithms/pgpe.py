"""Parameter-exploring policy gradients (PGPE, Sehnke et al. 2010, doi:10.1016/j.neunet.2009.12.004): the agent.

Members are drawn from a normal distribution with a standard deviation of its own for each parameter, in mirrored pairs
mu + e and mu - e (section 3.3). Both mu and sigma follow the gradient of the expected return:

    grad mu = e (r+ - r-) / 2        grad sigma = (e^2 - sigma^2) / sigma ((r+ + r-) / 2 - b)

Departures from the paper, which EvoTorch and EvoJAX share:

- returns are centred ranks, as in ES, of which the baseline b is the mean, 0; the paper divides by the best so far;
- mu moves by Adam, sigma by a plain step, at most by `stdev_max_change` of itself.
"""

from __future__ import annotations

from typing import NamedTuple

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
from athlete.core.ranges import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from athlete.ops.gradient import Adam, AdamState, adam_init
from athlete.ops.moments import Moments
from athlete.ops.ranks import centered_ranks
from athlete.ops.schedule import Schedule, value_at
from athlete.settings.families import EvolutionConfig


class PGPEState(NamedTuple):
    """The state of a `PGPE`."""

    parameters: Array  # [N], mu
    stdev: Array  # [N], sigma
    optimizer: AdamState
    filter: Moments | tuple[()]


@hyper
class PGPE(EvolutionStrategy):
    """Hyperparameters of PGPE. Floats and schedules are traced, the rest shapes the program."""

    stepsize: NonNegativeFloat | Schedule = 0.05  # of mu, by Adam
    stdev_init: PositiveFloat = 0.1
    stdev_learning_rate: NonNegativeFloat = 0.1
    stdev_max_change: Fraction = 0.2  # of a standard deviation in one generation, as a share of it
    popsize: PositiveInt = 64  # episodes of members in a generation, rounded up to pairs

    def init(self, key: Key) -> PGPEState:
        parameters = self._first_parameters(key)
        stdev = jnp.full(parameters.shape, self.stdev_init, jnp.float32)
        return PGPEState(parameters, stdev, adam_init(parameters), self._first_filter())

    def ask(self, state: PGPEState, key: Key, progress: Array) -> tuple[Array, Array]:
        """What is drawn are the steps e of the pairs, `[pairs, N]`."""
        steps = state.stdev * jax.random.normal(key, (pairs_of(self.popsize), state.parameters.size))
        members = mirrored_members(state.parameters, steps)
        return with_policy(members, state.parameters, self.policy_episodes), steps

    def tell(
        self, state: PGPEState, drawn: Array, played: Played, progress: Array
    ) -> tuple[PGPEState, dict[str, Array]]:
        returns, _ = members_of(played, self.policy_episodes)
        plus, minus = jnp.split(centered_ranks(returns), 2)
        gradient = (plus - minus) / 2 @ drawn / len(drawn)
        stepsize = value_at(self.stepsize, progress)
        parameters, optimizer, _ = Adam(None).step(state.parameters, -gradient, state.optimizer, stepsize)
        shape = (drawn**2 - state.stdev**2) / state.stdev
        moved = self.stdev_learning_rate * ((plus + minus) / 2 @ shape) / len(drawn)
        most = self.stdev_max_change * state.stdev
        stdev = state.stdev + jnp.clip(moved, -most, most)
        metrics = population_metrics(played, self.policy_episodes) | step_metrics(state.parameters, parameters)
        metrics |= {"grad_norm": jnp.sum(gradient**2), "mean_stdev": jnp.mean(stdev), "cur_lr": stepsize}
        return PGPEState(parameters, stdev, optimizer, self._filter_after(state.filter, played)), metrics


class PGPEConfig(EvolutionConfig):
    """Configuration of PGPE: `PGPEConfig().environment("CartPole-v1").training(popsize=64).build()`."""

    algorithm_name = "PGPE"
    summary = "a normal distribution over parameters, each with a deviation of its own that is learned"
    paper = "Sehnke et al. 2010, Neural Networks 23"
    agent_class = PGPE
    members_setting = "popsize"

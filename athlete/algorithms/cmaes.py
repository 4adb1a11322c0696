"""CMA-ES (Hansen 2016, arXiv:1604.00772; separable: Ros & Hansen 2008, doi:10.1007/978-3-540-87700-4_30): the agent.

Members are drawn from a normal distribution over the network's parameters, whose mean, scale and covariance follow the
better ones: `athlete.ops.cma` has the tutorial's equations. With `covariance="full"` a generation costs an
eigendecomposition of [N, N]; `"diagonal"` learns no correlations, and costs as much as N numbers.

Departures from the tutorial:

- the fitness of a member is the mean return of `episodes_per_member` episodes: the tutorial's functions have no noise;
- members of the same fitness are ordered as they were drawn;
- no bounds, no restarts, no termination: a training is as long as it is told to be;
- numbers are float32: standard deviations along the axes stay within a factor of 3,000 of one another.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import jax.numpy as jnp

from athlete.algorithms.evolution import (
    EvolutionStrategy,
    members_of,
    population_metrics,
    step_metrics,
    with_policy,
)
from athlete.core import Array, Key, Played, Spec, hyper
from athlete.core.ranges import PositiveFloat, PositiveInt, Range
from athlete.ops.cma import Search, adapt, constants_of, draw, start_search
from athlete.ops.moments import Moments
from athlete.settings.families import EvolutionConfig

MOST_OF_AUTO = 500  # parameters: an eigendecomposition of more is slower than most generations
MOST_OF_FULL = 3_000  # one of more takes many seconds


class CMAESState(NamedTuple):
    """The state of a `CMAES`."""

    search: Search
    filter: Moments | tuple[()]

    @property
    def parameters(self) -> Array:
        """Of the policy: the mean."""
        return self.search.mean


@hyper
class CMAES(EvolutionStrategy):
    """Hyperparameters of CMA-ES under pycma's names. Floats are traced, the rest shapes the program."""

    sigma0: PositiveFloat = 0.5  # the first population's standard deviation
    popsize: Annotated[int, Range(4)] = 32  # members of a generation
    episodes_per_member: PositiveInt = 1
    covariance: Literal["auto", "full", "diagonal"] = "auto"  # auto: full up to 500 parameters

    def bind(self, spec: Spec) -> Self:
        bound = super().bind(spec)
        if self.covariance == "full" and (size := bound.size()) > MOST_OF_FULL:
            raise ValueError(
                f"CMAES: covariance='full' of {size} parameters is a matrix of {size} x {size}; take 'diagonal', or a "
                f"network of at most {MOST_OF_FULL} parameters"
            )
        return bound

    def init(self, key: Key) -> CMAESState:
        diagonal = self.covariance == "diagonal" or (self.covariance == "auto" and self.size() > MOST_OF_AUTO)
        return CMAESState(start_search(self._first_parameters(key), self.sigma0, diagonal), self._first_filter())

    def ask(self, state: CMAESState, key: Key, progress: Array) -> tuple[Array, Array]:
        """What is drawn are the members' steps from the mean, `[popsize, N]`, in units of sigma."""
        search = state.search
        steps = draw(search, key, self.popsize)
        members = jnp.repeat(search.mean + search.sigma * steps, self.episodes_per_member, axis=0)
        return with_policy(members, search.mean, self.policy_episodes), steps

    def tell(
        self, state: CMAESState, drawn: Array, played: Played, progress: Array
    ) -> tuple[CMAESState, dict[str, Array]]:
        returns, _ = members_of(played, self.policy_episodes)
        before, fitness = state.search, jnp.mean(returns.reshape(self.popsize, -1), axis=1)
        constants = constants_of(before.mean.size, self.popsize, diagonal=before.covariance.ndim == 1)
        search = adapt(before, drawn, fitness, constants)
        metrics = population_metrics(played, self.policy_episodes) | step_metrics(before.mean, search.mean)
        metrics |= {"sigma": search.sigma, "axis_ratio": jnp.max(search.scales) / jnp.min(search.scales)}
        return CMAESState(search, self._filter_after(state.filter, played)), metrics


class CMAESConfig(EvolutionConfig):
    """Configuration of CMA-ES: `CMAESConfig().environment("CartPole-v1").training(popsize=16).build()`."""

    algorithm_name = "CMAES"
    summary = "a normal distribution over parameters, whose covariance follows the better members"
    paper = "Hansen 2016, arXiv:1604.00772"
    agent_class = CMAES
    members_setting = "popsize"
    defaults: ClassVar[dict[str, Any]] = {"model": {"fcnet_hiddens": [16]}}

"""Augmented random search (Mania et al. 2018, arXiv:1803.07055): the agent.

Algorithm 2: members are theta + nu delta in mirrored pairs, a direction counts by the difference of its two returns,
only the b best directions are used, and the step is divided by the standard deviation of their returns:

    theta <- theta + alpha / (b sigma_R) sum_k (r_k+ - r_k-) delta_k

With `observation_filter="NoFilter"` it is V1-t of the paper, with the filter, which is on, V2-t; with `rollouts_used`
as large as `num_rollouts` V1 and V2. The paper's policies are linear, and so is this one's by default.

Departures from the paper, and from RLlib's ARS where it is said:

- `num_rollouts` and `rollouts_used` count episodes, as RLlib does: 2 N and 2 b;
- a linear policy has a bias, and `model` may be any network (RLlib's default is one with two layers); like all networks
  here it starts near 0, the paper's at 0;
- where the best directions are equally good, exactly b of them are used; RLlib uses all;
- the size of `offset` is subtracted from the reward of each step, as in RLlib: the survival bonus of section 4.1.
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
from athlete.core import Array, Key, Model, Played, hyper
from athlete.core.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from athlete.models.mlp import MLP
from athlete.ops.moments import Moments
from athlete.ops.schedule import Schedule, value_at
from athlete.settings.families import EvolutionConfig


class ARSState(NamedTuple):
    """The state of an `ARS`."""

    parameters: Array  # [N]
    filter: Moments | tuple[()]


@hyper
class ARS(EvolutionStrategy):
    """Hyperparameters of ARS under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    sgd_stepsize: NonNegativeFloat | Schedule = 0.01
    noise_stdev: PositiveFloat = 0.02
    num_rollouts: PositiveInt = 32  # episodes of members, rounded up to pairs
    rollouts_used: PositiveInt = 32  # episodes of the best directions among them
    offset: float = 0.0  # its size is subtracted from the reward of each step
    model: Model = MLP(())

    def init(self, key: Key) -> ARSState:
        return ARSState(self._first_parameters(key), self._first_filter())

    def ask(self, state: ARSState, key: Key, progress: Array) -> tuple[Array, Array]:
        """What is drawn are the directions of the pairs, `[pairs, N]`."""
        directions = jax.random.normal(key, (pairs_of(self.num_rollouts), state.parameters.size))
        members = mirrored_members(state.parameters, self.noise_stdev * directions)
        return with_policy(members, state.parameters, self.policy_episodes), directions

    def tell(self, state: ARSState, drawn: Array, played: Played, progress: Array) -> tuple[ARSState, dict[str, Array]]:
        returns, lengths = members_of(played, self.policy_episodes)
        pairs = (returns - jnp.abs(self.offset) * lengths).reshape(2, -1)
        used = min(pairs_of(self.rollouts_used), pairs.shape[1])
        _, best = jax.lax.top_k(jnp.max(pairs, axis=0), used)
        plus, minus = pairs[:, best]
        spread = jnp.std(pairs[:, best])
        gradient = (plus - minus) @ drawn[best] / used
        gradient = gradient / jnp.where(spread > 1e-8, spread, 1.0)
        stepsize = value_at(self.sgd_stepsize, progress)
        parameters = state.parameters + stepsize * gradient
        metrics = population_metrics(played, self.policy_episodes) | step_metrics(state.parameters, parameters)
        metrics |= {"grad_norm": jnp.sum(gradient**2), "cur_lr": stepsize}
        return ARSState(parameters, self._filter_after(state.filter, played)), metrics


class ARSConfig(EvolutionConfig):
    """Configuration of ARS: `ARSConfig().environment("CartPole-v1").training(num_rollouts=16).build()`."""

    algorithm_name = "ARS"
    summary = "random directions from a linear policy, weighed by how much better one way is than the other"
    paper = "Mania et al. 2018, arXiv:1803.07055"
    agent_class = ARS
    members_setting = "num_rollouts"
    defaults: ClassVar[dict[str, Any]] = {"observation_filter": "MeanStdFilter", "model": {"fcnet_hiddens": []}}

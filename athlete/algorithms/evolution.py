"""What the algorithms without gradients share: a population of parameter vectors, acting with them, and the filter."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from athlete.core import Array, Evolution, Key, Memory, Model, Played, Spec, Tree, hyper
from athlete.core.ranges import NonNegativeFloat
from athlete.distributions import continuous_size, distribution, output_size, shape_action
from athlete.memory.rollout import Rollout
from athlete.models.forward import forward_step
from athlete.models.mlp import MLP
from athlete.ops.features import feature_size, features
from athlete.ops.masks import action_mask, masked
from athlete.ops.moments import Moments, initial_moments, merge_moments, standardize
from athlete.ops.random import wrap
from athlete.ops.tree import flatten, unflatten

FILTER_CLIP = 10.0  # of standardised observations, as everywhere


class PolicyView(NamedTuple):
    """One network, for all rows."""

    params: Tree
    filter: Moments | tuple[()]  # of features [n]


class MembersView(NamedTuple):
    """A network for each row."""

    params: Tree  # leaves [B, ...]
    filter: Moments | tuple[()]


class Seen(NamedTuple):
    """What the rows saw in the first episode of each: for the filter, which is the same for a whole generation."""

    episode: Array  # int32 [B], the running episode, from 1
    count: Array  # float32 [B]
    mean: Array  # [B, n]
    squares: Array  # [B, n], sum of the squared distances from the mean


class MemberCarry(NamedTuple):
    """The carry of members whose observations are filtered."""

    model: Tree
    seen: Seen


@hyper
class EvolutionStrategy(Evolution):
    """What an algorithm without gradients knows of its network. It gives `init`, `ask` and `tell`.

    Actions are the most likely ones of the network's outputs. The state has the fields `parameters` `[N]` and `filter`.
    """

    serves: ClassVar[tuple[str, ...]] = ("discrete", "continuous", "other")
    filters: ClassVar[bool] = True

    action_noise_std: NonNegativeFloat = 0.0  # on continuous actions of members, the bounds of actions being -1 and 1
    standardizes: bool = False  # observations: RLlib's `MeanStdFilter`
    policy_episodes: int = 1
    model: Model = MLP()
    memory: Memory = Rollout()
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    def bind(self, spec: Spec) -> Self:
        output_size(spec.action)
        return dataclasses.replace(self, spec=spec)

    def view(self, state: Any, progress: Array) -> PolicyView:
        return PolicyView(unflatten(state.parameters, self._like()), state.filter)

    def members(self, state: Any, population: Array) -> MembersView:
        like = self._like()
        return MembersView(jax.vmap(lambda vector: unflatten(vector, like))(population), state.filter)

    def start(self, view: PolicyView | MembersView, rows: int, key: Key) -> Tree:
        """The network's carry; that of members also gathers what they see."""
        model = self.model.start(rows)
        if isinstance(view, PolicyView) or not self.standardizes:
            return model
        size = feature_size(self.spec.obs)
        nothing = jnp.zeros((rows, size))
        return MemberCarry(model, Seen(jnp.zeros(rows, jnp.int32), jnp.zeros(rows), nothing, nothing))

    def act(
        self, view: PolicyView | MembersView, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True
    ) -> tuple:
        """The key is for noise on actions."""
        shown = features(self.spec.obs, obs)
        inner = carry.model if isinstance(carry, MemberCarry) else carry
        standard = standardize(shown, view.filter.mean, view.filter.variance, FILTER_CLIP) if view.filter else shown
        if isinstance(view, MembersView):
            inner, outputs = jax.vmap(self._outputs_of_row)(view.params, inner, standard, first)
        else:
            inner, heads = forward_step(self.model, view.params, inner, standard, first)
            outputs = heads["policy"]
        action = self._action(outputs, obs)
        if explore:
            action = self._disturbed(action, key)
        if isinstance(carry, MemberCarry):
            inner = MemberCarry(inner, with_shown(carry.seen, shown, first))
        return shape_action(self.spec.action, action), inner, {}

    def _outputs_of_row(self, params: Tree, carry: Tree, obs: Array, first: Array) -> tuple[Tree, Array]:
        """The carry after it and the outputs of one row by its own network."""
        row = jax.tree.map(lambda leaf: leaf[None], (carry, obs, first))
        carry, heads = forward_step(self.model, params, *row)
        return jax.tree.map(lambda leaf: leaf[0], carry), heads["policy"][0]

    def _action(self, outputs: Array, obs: Tree) -> Tree:
        """The most likely legal action, flat."""
        log_std = jnp.zeros((*outputs.shape[:-1], continuous_size(self.spec.action)))
        whole = masked(jnp.concatenate([outputs, log_std], axis=-1), action_mask(self.spec, obs))
        return distribution(self.spec.action, whole).mode()

    def _disturbed(self, action: Tree, key: Key) -> Tree:
        leaves, structure = jax.tree.flatten(action)
        noisy = [
            leaf + self.action_noise_std * jax.random.normal(jax.random.fold_in(key, i), leaf.shape)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, noisy)

    def _params(self, key: Key) -> Tree:
        """Parameters of a policy that does not care, nearly."""
        heads = {"policy": (output_size(self.spec.action) - continuous_size(self.spec.action), 0.01)}
        return self.model.init(key, self.spec.obs, heads)

    def _first_parameters(self, key: Key) -> Array:
        return flatten(self._params(key))

    def _like(self) -> Tree:
        """The network's parameters as shapes; computes nothing."""
        return jax.eval_shape(lambda data: self._params(wrap(data)), jax.ShapeDtypeStruct((2,), np.uint32))

    def size(self) -> int:
        """How many parameters the network has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._like()))

    def _first_filter(self) -> Moments | tuple[()]:
        return initial_moments(jnp.zeros(feature_size(self.spec.obs))) if self.standardizes else ()

    def _filter_after(self, filtered: Moments | tuple[()], played: Played) -> Moments | tuple[()]:
        """The filter with what a generation saw."""
        if not isinstance(filtered, Moments):
            return ()
        seen = played.carry.seen
        variance = seen.squares / jnp.maximum(seen.count, 1.0)[:, None]
        return merge_moments(filtered, Moments(seen.count, seen.mean, variance))


def with_shown(seen: Seen, shown: Array, first: Array) -> Seen:
    """Take in what each row is shown, `[B, n]`, unless its first episode is over (Welford 1962)."""
    episode = seen.episode + first
    new = (episode == 1).astype(jnp.float32)
    count = seen.count + new
    distance = (shown - seen.mean) * new[:, None]
    mean = seen.mean + distance / jnp.maximum(count, 1.0)[:, None]
    return Seen(episode, count, mean, seen.squares + distance * (shown - mean))


def population_metrics(played: Played, policy_episodes: int) -> dict[str, Array]:
    """How the members did that are not the policy itself."""
    returns, lengths = members_of(played, policy_episodes)
    return {
        "population_reward_mean": jnp.mean(returns),
        "population_reward_min": jnp.min(returns),
        "population_reward_max": jnp.max(returns),
        "population_len_mean": jnp.mean(lengths.astype(jnp.float32)),
    }


def members_of(played: Played, policy_episodes: int) -> tuple[Array, Array]:
    """Returns and lengths `[P]` of the members that are not the policy itself."""
    number = len(played.returns) - policy_episodes
    return played.returns[:number], played.lengths[:number]


def mirrored_members(parameters: Array, steps: Array) -> Array:
    """Members `[2 K, N]` on either side of the parameters `[N]`: first plus and then minus the steps `[K, N]`."""
    return jnp.concatenate([parameters + steps, parameters - steps])


def pairs_of(episodes: int) -> int:
    """How many mirrored pairs play at least so many episodes."""
    return -(-episodes // 2)


def with_policy(members: Array, parameters: Array, policy_episodes: int) -> Array:
    """A population `[P, N]`: the members, and behind them so many times the policy itself."""
    return jnp.concatenate([members, jnp.broadcast_to(parameters, (policy_episodes, *parameters.shape))])


def step_metrics(before: Array, after: Array) -> dict[str, Array]:
    """RLlib's numbers of a step of the parameters `[N]`."""
    moved, size = jnp.sqrt(jnp.sum((after - before) ** 2)), jnp.sqrt(jnp.sum(before**2))
    return {"weights_norm": jnp.sum(after**2), "update_ratio": moved / jnp.maximum(size, 1e-8)}

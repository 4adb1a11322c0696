"""Evaluations of a training: whole episodes with its policy as it is, and the result that tells of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from athlete.building import supervision
from athlete.combine.team import Team
from athlete.core import Source, Spec, Tree, agent_ids
from athlete.env.errors import EnvError
from athlete.env.randomness import global_generators_kept
from athlete.env.world import World
from athlete.env.wrappers.info_metrics import with_info_metrics
from athlete.hooks import Hooks
from athlete.loops.collect import spec_of
from athlete.loops.evaluate import Evaluation, evaluate_compiled, evaluate_hosted, joined_evaluation
from athlete.loops.record import MOST_ROWS, compiled_wave, hosted_wave, play_episodes
from athlete.matches import Matches, Player, actors_of, play_matches, team_of
from athlete.offline.dataset import DataSet, as_data
from athlete.policy import Policy
from athlete.settings.config import AlgorithmConfig
from athlete.settings.multi_agent import mapping_of, plain_policies
from athlete.spaces import Box, Space
from athlete.teams import columns_of, make_heuristic
from athlete.totals import episode_returns, episode_statistics, policy_statistics, told_statistics

EVALUATION_SALT = 0x45564131  # keeps the keys of evaluations apart from those of training
MATCHES_SALT = 0x4D415443
RECORD_SALT = 0x5245434F


class Evaluator:
    """Plays the episodes of `Algorithm.evaluate` in `world`, an environment like that of training.

    A source is made for the first evaluation and kept for the next ones.
    """

    def __init__(self, config: AlgorithmConfig, world: World, hooks: Hooks, training: World):
        self._config, self._world, self._hooks = config, world, hooks
        self._is_shared = world.shares_instance(training)
        told = world.exists or bool(config.off_policy_estimation_methods)
        if config.evaluation_interval and not (config.is_offline() and told):
            self.require_own_environment(f"evaluation(evaluation_interval={config.evaluation_interval})")
        self._env = None if world.env is None else with_info_metrics(world.env, config.info_metrics)
        self._source: Source | None = None

    def require_own_environment(self, method: str) -> None:
        """Raise ValueError where there is none, or where playing would take it from the training, in mid-episode."""
        if not self._world.exists:
            raise ValueError(
                f"{method}: there is no environment, only recorded data; say .environment(...), with its id or class"
            )
        if self._is_shared:
            name = self._world.name
            raise ValueError(
                f"{method}: {name} is one instance, and the training is in the middle of an episode of it; give "
                f"environment(...) its class or a factory, `lambda env_config: {name}(...)`, or give "
                "evaluation_config={'env': ...} another"
            )

    def evaluate(self, policy: Policy, iteration: int, seed: int, episodes: int | None) -> dict[str, Any]:
        """What `policy` achieves in `episodes` episodes, by default the configured duration: the entries of a result.

        `seed` and the training's `iteration` make the randomness.
        """
        start = time.perf_counter()
        self.require_own_environment("evaluate()")
        unit = "episodes" if episodes is not None else self._config.evaluation_duration_unit
        duration = episodes if episodes is not None else self._config.evaluation_duration
        if not isinstance(duration, int | np.integer) or duration < 1:
            raise ValueError(f"evaluate(episodes={episodes!r}): expected a whole number of at least 1")
        if self._config.on_nonfinite == "error":
            policy.require_finite()
        policy = self._changed(policy, seed)
        key = np.array([EVALUATION_SALT ^ (seed & 0xFFFFFFFF), iteration], np.uint32)
        explore = bool(self._config.evaluation_config.get("explore", False))
        play = self._play if unit == "episodes" else self._play_timesteps
        found = play(policy, key, int(duration), explore)
        if self._config.on_nonfinite == "error" and not np.isfinite(found.returns).all():
            unpaid = found.returns[~np.isfinite(found.returns)][0]
            raise EnvError(
                f"evaluate(): the return of an episode was {unpaid}: {self._world.name} pays rewards that are no "
                "finite numbers; mend its step"
            )
        told = told_statistics(found.told)
        returns = episode_returns(found.returns)
        hist = {"episode_reward": returns.tolist(), "episode_lengths": found.lengths.tolist()}
        by_policy = policy_statistics(found.returns, columns_of(policy.agent))
        hist |= by_policy.pop("hist_stats", {})
        return (
            episode_statistics(returns, found.lengths)
            | by_policy
            | {
                "episodes_this_iter": len(found.returns),
                "timesteps_this_iter": int(found.lengths.sum()),
                "custom_metrics": told["custom_metrics"],
                "hist_stats": told.get("hist_stats", {}) | hist,
                "seed": seed,
                "explore": explore,
                "time_s": time.perf_counter() - start,
            }
        )

    def _changed(self, policy: Policy, seed: int) -> Policy:
        """What acts in evaluations: for each agent the policy that `evaluation_config` says, heuristics among them."""
        changes = self._config.evaluation_config
        if not {"policies", "policy_mapping_fn"} & set(changes):
            return policy
        actors, spec = actors_of(policy.agent, policy.view), self.spec
        heuristics = plain_policies(changes["policies"]) if changes.get("policies") else {}
        ids = [str(agent) for agent in self._agent_ids() or agent_ids(spec.groups)]
        mapping = mapping_of(changes.get("policy_mapping_fn"), ids, [*actors, *heuristics])
        groups = [group for _, group in spec.groups for _ in range(group.size)]
        for agent, group in zip(ids, groups, strict=True):
            if (name := mapping[agent]) in heuristics:
                heuristic = make_heuristic(heuristics[name]["algorithm"])
                actors[name] = Player(heuristic.bind(Spec(group.obs, group.action)), ())
        return Policy(*team_of(actors, self.spec, mapping, ids), seed)

    def _agent_ids(self) -> Sequence[Any]:
        return self._rows().agent_ids if self._env is None else ()

    def matches(self, players: Mapping[str, Player], seed: int, episodes: int, explore: bool) -> Matches:
        """What comes of `episodes` games between every two of the players."""

        def play(team: Team, view: Tree, number: int, episodes: int) -> Evaluation:
            key = np.array([MATCHES_SALT ^ (seed & 0xFFFFFFFF), number], np.uint32)
            return self._play(Policy(team, view, seed), key, episodes, explore)

        return play_matches(players, self.spec, play, episodes)

    def record(self, policy: Policy, seed: int, number: int, episodes: int, explore: bool) -> DataSet:
        """`episodes` whole episodes with `policy`, step by step; `seed` and `number` make the randomness."""
        self.require_own_environment("record()")
        if self.spec.groups:
            raise ValueError("record(): recorded data are of one agent, and this environment has many")
        key = np.array([RECORD_SALT ^ (seed & 0xFFFFFFFF), number << 16], np.uint32)
        agent, view = policy.agent, policy.view
        if self._env is not None:
            self._check_spaces(policy, spec_of(self._env))
            steps = play_episodes(compiled_wave(agent, self._env, view, key, explore), MOST_ROWS, episodes)
        else:
            with global_generators_kept():
                source = self._rows()
                self._check_spaces(policy, source.spec)
                steps = play_episodes(hosted_wave(agent, source, view, key, explore), source.rows, episodes)
        return as_data(steps, self.spec, f"{episodes} episodes of {self._world.name}")

    @property
    def spec(self) -> Spec:
        """What agents see and do in it."""
        return spec_of(self._env) if self._env is not None else self._rows().spec

    def close(self) -> None:
        """End what environments it has made."""
        if self._source is not None:
            self._source.close()

    def _play_timesteps(self, policy: Policy, key: np.ndarray, timesteps: int, explore: bool) -> Evaluation:
        """Whole episodes until they add up to `timesteps`."""
        parts: list[Evaluation] = []
        while sum(int(part.lengths.sum()) for part in parts) < timesteps:
            part_key = key + np.array([len(parts) << 16, 0], np.uint32)
            parts.append(self._play(policy, part_key, 8, explore))
        return joined_evaluation(parts)

    def _play(self, policy: Policy, key: np.ndarray, episodes: int, explore: bool) -> Evaluation:
        agent, view = policy.agent, policy.view
        if self._env is not None:
            self._check_spaces(policy, spec_of(self._env))
            return evaluate_compiled(agent, self._env, view, key, episodes, explore)
        with global_generators_kept():  # an evaluation seeds them, and training goes on with its own numbers
            source = self._rows()
            self._check_spaces(policy, source.spec)
            return evaluate_hosted(agent, source, view, key, episodes, explore)

    def _rows(self) -> Source:
        """Its environments outside JAX."""
        if self._source is None:
            self._source = self._make_source()
        return self._source

    def _make_source(self) -> Source:
        config, workers = self._config, self._config.evaluation_num_workers
        side_by_side = 1 if self._world.is_instance else max(1, min(8, config.evaluation_duration) // max(1, workers))
        source = self._world.source(
            num_workers=workers,
            num_envs_per_worker=side_by_side,
            seeded_resets=True,
            supervision=supervision(config, self._hooks),
            seed=0,  # the same environments for every policy
        )
        return self._hooks.watch_evaluation(source)

    def _check_spaces(self, policy: Policy, spec: Spec) -> None:
        """Raise ValueError where the policy does not fit the environment of `evaluation_config`."""
        trained = policy.agent.spec
        for name, there, here in (("observation", spec.obs, trained.obs), ("action", spec.action, trained.action)):
            if not _alike(there, here):
                raise ValueError(
                    f"evaluation_config={self._config.evaluation_config!r}: its environment has the {name} space "
                    f"{there}, and the policy was trained on {here}"
                )


def _alike(there: Space, here: Space) -> bool:
    """Whether a network for one space can serve the other: bounds may differ."""
    if isinstance(there, Box) and isinstance(here, Box):
        return (there.shape, there.dtype) == (here.shape, here.dtype)
    return there == here

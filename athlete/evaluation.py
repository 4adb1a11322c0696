"""Evaluations of a training: whole episodes with its policy as it is, and the result that tells of them."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from athlete.building import make_workers, supervision, why_not_in_workers
from athlete.combine.team import Team
from athlete.core import Source, Spec, Tree, agent_ids
from athlete.env.errors import EnvError
from athlete.env.randomness import global_generators_kept
from athlete.env.world import World
from athlete.env.wrappers.info_metrics import with_info_metrics
from athlete.hooks import Hooks
from athlete.log import logger
from athlete.loops.collect import spec_of
from athlete.loops.evaluate import MOST_ROWS as MOST_COMPILED
from athlete.loops.evaluate import Evaluation, evaluate_compiled, evaluate_hosted, joined_evaluation
from athlete.loops.evaluation_workers import Beside, EvaluationWorker, EvaluationWorkers, share_out
from athlete.loops.record import MOST_ROWS, compiled_wave, hosted_wave, play_episodes
from athlete.matches import Matches, Player, actors_of, play_matches, team_of
from athlete.offline.dataset import DataSet, as_data
from athlete.policy import Policy
from athlete.settings.config import AlgorithmConfig
from athlete.settings.multi_agent import mapping_of, plain_policies
from athlete.settings.rllib_places import EVALUATION
from athlete.spaces import Box, Space
from athlete.teams import columns_of, make_heuristic
from athlete.totals import episode_returns, episode_statistics, policy_statistics, told_statistics
from athlete.worker_processes import make_evaluated

EVALUATION_SALT = 0x45564131  # keeps the keys of evaluations apart from those of training
MATCHES_SALT = 0x4D415443
RECORD_SALT = 0x5245434F
MOST_ROWS_OUTSIDE = 8  # episodes side by side outside JAX
OF_A_PART = 8  # episodes that are played at a time where timesteps are counted


Play = Callable[..., Evaluation]  # (key, episodes, explore), and of workers whether what they run beside goes on


class _Shown(NamedTuple):
    """What an environment shows, and to whom."""

    spec: Spec
    agent_ids: Sequence[Any]


class NoWorkers:
    """What RLlib's users call `eval_workers`, its second argument of a `custom_evaluation_function`: none are here."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"eval_workers.{name}: there is no set of workers to be asked; algorithm.evaluate(episodes=10) plays "
            "episodes, on workers where evaluation_num_workers says so, and algorithm.compute_single_action() acts"
        )


def metrics_of(function: Callable[..., Any], algorithm: Any) -> dict[str, Any]:
    """What a `custom_evaluation_function` gives. Raises TypeError for what is no dictionary of metrics."""
    found = function(algorithm, NoWorkers())
    if not isinstance(found, Mapping):
        raise TypeError(f"custom_evaluation_function: expected a dictionary of metrics, got {found!r}")
    return dict(found)


class Evaluator:
    """Plays the episodes of `Algorithm.evaluate` in `world`, an environment like that of training.

    Workers or a source are made for the first evaluation and kept for the next ones. With workers the result is that of
    an evaluation in this process, whatever their number.
    """

    def __init__(self, config: AlgorithmConfig, world: World, hooks: Hooks, training: World):
        self._config, self._world, self._hooks = config, world, hooks
        self._is_shared = world.shares_instance(training)
        if world.maker is not training.maker:
            world.tell_clients("an evaluation plays the policy's actions; use get_action")
        told = world.exists or bool(config.off_policy_estimation_methods)
        custom = config.custom_evaluation_function is not None
        if config.evaluation_interval and not custom and not (config.is_offline() and told):
            self.require_own_environment(f"evaluation(evaluation_interval={config.evaluation_interval})")
        self._env = None if world.env is None else with_info_metrics(world.env, config.info_metrics)
        self.is_beside = self._may_be_beside()
        self._on_workers = self.is_beside or self._may_be_on_workers()
        if config.evaluation_duration == "auto" and not self.is_beside:
            logger.info("evaluation_duration='auto': evaluation runs between iterations, and plays %d", EVALUATION)
        self._source: Source | None = None
        self._workers: EvaluationWorkers | None = None
        self._shown: _Shown | None = None
        self._beside: Beside | None = None

    def _may_be_on_workers(self) -> bool:
        outside = self._world.exists and self._world.env is None
        return (
            bool(self._config.evaluation_num_workers) and outside and not why_not_in_workers(self._world, self._hooks)
        )

    def _may_be_beside(self) -> bool:
        """Whether evaluations are to run beside the training. Raises ValueError where they cannot."""
        config = self._config
        if not config.evaluation_parallel_to_training or not config.evaluation_interval or not self._world.exists:
            return False
        if config.custom_evaluation_function is not None:
            logger.warning(
                "evaluation(evaluation_parallel_to_training=True): custom_evaluation_function is called between "
                "iterations"
            )
            return False
        if not config.evaluation_num_workers:
            logger.warning(
                "evaluation(evaluation_parallel_to_training=True) needs workers: with evaluation_num_workers=0 it runs "
                "between iterations"
            )
            return False
        if wrong := why_not_in_workers(self._world, self._hooks):
            raise ValueError(f"evaluation(evaluation_parallel_to_training=True): it {wrong}")
        return True

    def require_own_environment(self, method: str) -> None:
        """Raise ValueError where there is none, or where playing would take it from the training, in mid-episode."""
        if not self._world.exists:
            raise ValueError(
                f"{method}: there is no environment, only recorded data; say .environment(...), with its id or class"
            )
        if self._is_shared:
            raise ValueError(
                f"{method}: {self._world.name} is one instance, and the training is in the middle of an episode of it; "
                "give environment(...) its id, its class or a factory, or give evaluation_config={'env': ...} another"
            )

    def evaluate(self, policy: Policy, iteration: int, seed: int, episodes: int | None) -> dict[str, Any]:
        """What `policy` achieves in `episodes` episodes, by default the configured duration: the entries of a result.

        `seed` and the training's `iteration` make the randomness.
        """
        self._wait()
        unit, duration = self._config.evaluation_duration_unit, self._config.evaluation_duration
        if episodes is not None:
            if not isinstance(episodes, int | np.integer) or episodes < 1:
                raise ValueError(f"evaluate(episodes={episodes!r}): expected a whole number of at least 1")
            unit, duration = "episodes", episodes
        elif duration == "auto":
            duration = EVALUATION  # it runs beside nothing
        return self._evaluation(policy, iteration, seed, unit, duration)(_never)

    def begin(self, policy: Policy, iteration: int, seed: int) -> None:
        """`evaluate` beside what follows; `end` gives what comes of it. What is under way already goes on instead."""
        if self._beside is None:
            unit, duration = self._config.evaluation_duration_unit, self._config.evaluation_duration
            self._beside = Beside(self._evaluation(policy, iteration, seed, unit, duration))

    def end(self) -> dict[str, Any]:
        """The entries of what was begun, once it is complete."""
        assert self._beside is not None
        try:
            return self._beside.result()
        finally:
            self._beside = None

    def give_up(self) -> None:
        """Forget what was begun: another policy is in its place."""
        self._wait()
        self._beside = None

    def _wait(self) -> None:
        """Let what was begun come to its end; `end` gives it, or its error."""
        if self._beside is not None:
            with contextlib.suppress(Exception):
                self._beside.result()

    def _evaluation(
        self, policy: Policy, iteration: int, seed: int, unit: str, duration: Any
    ) -> Callable[[Callable[[], bool]], dict[str, Any]]:
        """An evaluation that is ready to be made; told whether what it runs beside still goes on."""
        self.require_own_environment("evaluate()")
        if self._config.on_nonfinite == "error":
            policy.require_finite()
        policy = self._changed(policy, seed)
        key = np.array([EVALUATION_SALT ^ (seed & 0xFFFFFFFF), iteration], np.uint32)
        explore = bool(self._config.evaluation_config.get("explore", False))
        play = self._play_on_workers(policy) if self._on_workers else functools.partial(self._play, policy)

        def evaluation(goes_on: Callable[[], bool]) -> dict[str, Any]:
            start = time.perf_counter()
            if duration == "auto":
                found = play(key, None, explore, goes_on)
            elif unit == "timesteps":
                found = _play_timesteps(play, key, int(duration), explore)
            else:
                found = play(key, int(duration), explore)
            return self._told(found, policy) | {
                "seed": seed,
                "explore": explore,
                "training_iteration": iteration,
                "time_s": time.perf_counter() - start,
            }

        return evaluation

    def _told(self, found: Evaluation, policy: Policy) -> dict[str, Any]:
        """The entries of a result that tell of these episodes."""
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
        entries = (
            episode_statistics(returns, found.lengths)
            | by_policy
            | {
                "episodes_this_iter": len(found.returns),
                "timesteps_this_iter": int(found.lengths.sum()),
                "custom_metrics": told["custom_metrics"],
                "hist_stats": told.get("hist_stats", {}) | hist,
            }
        )
        if self._workers is not None:
            health = self._workers.health
            entries |= {"num_healthy_workers": health.workers, "num_worker_restarts": health.worker_restarts}
        return entries

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
        return () if self._env is not None else self._look().agent_ids

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
        return spec_of(self._env) if self._env is not None else self._look().spec

    def _look(self) -> _Shown:
        """What an environment outside JAX shows, and to whom."""
        if self._shown is None:
            source = self._world.source() if self._on_workers else self._rows()
            self._shown = _Shown(source.spec, source.agent_ids)
            if self._on_workers:
                source.close()
        return self._shown

    def close(self) -> None:
        """End what environments it has made."""
        if self._source is not None:
            self._source.close()
        if self._workers is not None:
            self._workers.close()

    def _play_on_workers(self, policy: Policy) -> Play:
        """What plays `policy` on workers, which are made for the first one: its successors have the same form."""
        self._check_spaces(policy, self.spec)
        if self._workers is None:
            config, world = self._config, self._world if self._env is not None else self._world.portable()
            whole = world.env is not None
            sharing = share_out(MOST_COMPILED if whole else self._side_by_side(), config.evaluation_num_workers, whole)
            watched = supervision(config, self._hooks)
            makes = functools.partial(make_evaluated, world, sharing, watched, config.info_metrics)
            form = jax.tree.map(lambda _: 0, policy.view)
            plays = functools.partial(EvaluationWorker, policy.agent, form, makes)
            self._workers = EvaluationWorkers(
                make_workers(config, plays, sharing.workers, sharing.each, watched), sharing
            )
        return functools.partial(self._workers.play, jax.device_get(policy.view))

    def _play(self, policy: Policy, key: np.ndarray, episodes: int, explore: bool) -> Evaluation:
        agent, view = policy.agent, policy.view
        if self._env is not None:
            self._check_spaces(policy, spec_of(self._env))
            return evaluate_compiled(agent, self._env, view, key, episodes, explore)
        with global_generators_kept():  # an evaluation seeds them, and training goes on with its own numbers
            source = self._rows()
            self._check_spaces(policy, source.spec)
            return evaluate_hosted(agent, source, view, key, episodes, explore)

    def _side_by_side(self) -> int:
        """Episodes side by side outside JAX."""
        duration = self._config.evaluation_duration
        return min(MOST_ROWS_OUTSIDE, EVALUATION if duration == "auto" else duration)

    def _rows(self) -> Source:
        """Its environments outside JAX."""
        if self._source is None:
            self._source = self._make_source()
        return self._source

    def _make_source(self) -> Source:
        workers = 0 if self._on_workers else self._config.evaluation_num_workers
        side_by_side = 1 if self._world.is_instance else max(1, self._side_by_side() // max(1, workers))
        source = self._world.source(
            num_workers=workers,
            num_envs_per_worker=side_by_side,
            seeded_resets=True,
            supervision=supervision(self._config, self._hooks),
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


def _never() -> bool:
    return False


def _play_timesteps(play: Play, key: np.ndarray, timesteps: int, explore: bool) -> Evaluation:
    """Whole episodes until they add up to `timesteps`."""
    parts: list[Evaluation] = []
    while sum(int(part.lengths.sum()) for part in parts) < timesteps:
        part_key = key + np.array([len(parts) << 16, 0], np.uint32)
        parts.append(play(part_key, OF_A_PART, explore))
    return joined_evaluation(parts)


def _alike(there: Space, here: Space) -> bool:
    """Whether a network for one space can serve the other: bounds may differ."""
    if isinstance(there, Box) and isinstance(here, Box):
        return (there.shape, there.dtype) == (here.shape, here.dtype)
    return there == here

"""What a training has come to: its counters, its last episodes, and the result dictionary that tells of them."""

from __future__ import annotations

import math
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from athlete.loops.compiling import compilations
from athlete.loops.episodes import Told, told_of
from athlete.loops.progress import Progress


class Start(NamedTuple):
    """Where this process took a training up."""

    iteration: int
    timesteps: int
    seconds: float


class Totals:
    """Counters since the training began, and its last `window` episodes, over which statistics are made."""

    def __init__(self, window: int, policies: Mapping[str, Sequence[int]] = MappingProxyType({})):
        """`policies` has for each of several the columns that its agents have in the returns of an episode."""
        self._policies = policies
        self.agent_timesteps = 0  # actions that agents were asked for
        self.iteration = 0  # calls of `train()`
        self.timesteps = 0  # sampled
        self.learned = 0  # timesteps in all batches
        self.episodes = 0
        self.seconds = 0.0
        self.since_last_end = 0  # timesteps in which no episode ended
        self.restored_at = Start(0, 0, 0.0)
        self._returns: deque[float] = deque(maxlen=window)
        self._lengths: deque[int] = deque(maxlen=window)
        self._told: deque[Told] = deque(maxlen=window)
        self._agent_returns: deque[list[float]] = deque(maxlen=window)  # of each agent, where there are many

    def take_in(self, progress: Progress) -> None:
        """Count what one advance brought."""
        told = progress.told
        if progress.info:
            told = told_of({name: values[-self._told.maxlen :] for name, values in progress.info.items()})  # type: ignore
        self._told.extend(told)
        self.timesteps += progress.timesteps
        self.learned += progress.learned
        self.episodes += len(progress.returns)
        self.since_last_end = 0 if len(progress.returns) else self.since_last_end + progress.timesteps
        self.agent_timesteps += self._agent_steps(progress)
        self._returns.extend(episode_returns(progress.returns).tolist())
        if progress.returns.ndim > 1:
            self._agent_returns.extend(progress.returns.tolist())
        self._lengths.extend(progress.lengths.tolist())

    def _agent_steps(self, progress: Progress) -> int:
        """Actions that agents were asked for in one advance; of agents that act together, by all of them each time."""
        if self._policies:
            return sum(progress.agent_steps.values())
        return progress.timesteps * (progress.returns.shape[1] if progress.returns.ndim > 1 else 1)

    def result(self, progress: Progress, seconds: float) -> dict[str, Any]:
        """One `train()` of `seconds` under RLlib's keys, after `take_in` of the same `progress`."""
        timers = {f"{name}_time_ms": 1000.0 * part for name, part in progress.seconds.items()}
        timers["training_iteration_time_ms"] = 1000.0 * seconds
        count, compile_seconds = compilations()
        told = told_statistics(self._told)
        episodes = {"episode_reward": list(self._returns), "episode_lengths": list(self._lengths)}
        told["hist_stats"] = told.get("hist_stats", {}) | episodes
        by_policy = policy_statistics(list(self._agent_returns), self._policies)
        if by_policy:
            told["hist_stats"] |= by_policy.pop("hist_stats")
        return {
            **episode_statistics(self._returns, self._lengths),
            **told,
            **by_policy,
            "episodes_this_iter": len(progress.returns),
            "episodes_total": self.episodes,
            "timesteps_this_iter": progress.timesteps,
            "timesteps_total": self.timesteps,
            "agent_timesteps_total": self.agent_timesteps,
            "num_agent_steps_sampled": self.agent_timesteps,
            "num_agent_steps_sampled_this_iter": self._agent_steps(progress),
            "training_iteration": self.iteration,
            "iterations_since_restore": self.iteration - self.restored_at.iteration,
            "timesteps_since_restore": self.timesteps - self.restored_at.timesteps,
            "num_env_steps_sampled": self.timesteps,
            "num_env_steps_trained": self.learned,
            "num_env_steps_sampled_this_iter": progress.timesteps,
            "num_env_steps_trained_this_iter": progress.learned,
            "info": {
                "learner": self._learner_stats(progress),
                "num_env_steps_sampled": self.timesteps,
                "num_env_steps_trained": self.learned,
            },
            "timers": timers,
            "perf": {
                "env_steps_per_second": progress.timesteps / max(seconds, 1e-9),
                "compilations": count,
                "compile_time_s": compile_seconds,
                "memory_mib": memory_mib(),
            },
            **lag_statistics(progress.lags, progress.dropped),
            "done": False,
            "date": time.strftime("%Y-%m-%d_%H-%M-%S"),
            "timestamp": int(time.time()),
            "pid": os.getpid(),
            "hostname": platform.node(),
        }

    def _learner_stats(self, progress: Progress) -> dict[str, Any]:
        """RLlib's `info/learner`: what each policy measured as it learned."""
        if not self._policies:
            return {"default_policy": {"learner_stats": {**progress.metrics, "num_agent_steps_trained": self.learned}}}
        found: dict[str, dict[str, Any]] = {}
        for name, value in progress.metrics.items():
            policy, _, metric = name.partition("/")
            found.setdefault(policy, {})[metric] = value
        return {
            policy: {"learner_stats": {**stats, "num_agent_steps_sampled": progress.agent_steps.get(policy, 0)}}
            for policy, stats in found.items()
        }

    def add_time(self, seconds: float) -> dict[str, float]:
        """Count a `train()` of `seconds`, evaluation included: the entries of its result that tell of time."""
        self.seconds += seconds
        return {
            "time_this_iter_s": seconds,
            "time_total_s": self.seconds,
            "time_since_restore": self.seconds - self.restored_at.seconds,
        }

    def counters(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {
            "iteration": self.iteration,
            "timesteps_total": self.timesteps,
            "learned_total": self.learned,
            "episodes_total": self.episodes,
            "time_total_s": self.seconds,
            "window_returns": list(self._returns),
            "window_lengths": list(self._lengths),
        } | self._agent_counters()

    def _agent_counters(self) -> dict[str, Any]:
        if not self._policies:
            return {}
        return {"agent_timesteps_total": self.agent_timesteps, "window_agent_returns": list(self._agent_returns)}

    def restore(self, counters: Mapping[str, Any]) -> None:
        """Go on from the counters of a checkpoint."""
        self.iteration = counters["iteration"]
        self.timesteps = counters["timesteps_total"]
        self.learned = counters["learned_total"]
        self.episodes = counters["episodes_total"]
        self.agent_timesteps = counters.get("agent_timesteps_total", self.timesteps)
        self._agent_returns.clear()
        self._agent_returns.extend(counters.get("window_agent_returns", ()))
        self.seconds = counters["time_total_s"]
        self.restored_at = Start(self.iteration, self.timesteps, self.seconds)
        for kept, saved in ((self._returns, "window_returns"), (self._lengths, "window_lengths")):
            kept.clear()
            kept.extend(counters[saved])


# What RLlib 2.2 has once more in `sampler_results`.
_SAMPLER = (
    *("episode_reward_mean", "episode_reward_min", "episode_reward_max", "episode_len_mean", "episodes_this_iter"),
    *("policy_reward_mean", "policy_reward_min", "policy_reward_max", "custom_metrics", "hist_stats"),
    *("sampler_perf", "num_faulty_episodes", "episode_media"),
)
_COUNTERS = ("num_env_steps_sampled", "num_env_steps_trained", "num_agent_steps_sampled")


def rllib_results(result: Mapping[str, Any], progress: Progress, rows: int) -> dict[str, Any]:
    """What else scripts for RLlib 2.2 read in a result of `rows` environments side by side, made of what it has.

    `sampler_perf` is in milliseconds for a step of all rows; where the environment is compiled into the program nobody
    can tell its part, and it is NaN.
    """
    steps = max(1, progress.timesteps // max(1, rows))
    perf = {"mean_env_wait_ms": "env_step", "mean_inference_ms": "inference"}
    learning = sum(part for name, part in progress.seconds.items() if "learn" in name)
    of_policies = ("policy_reward_mean", "policy_reward_min", "policy_reward_max")
    more: dict[str, Any] = {name: result.get(name, {}) for name in of_policies} | {
        "episode_media": {},
        "sampler_perf": {name: 1000.0 * progress.seconds.get(part, math.nan) / steps for name, part in perf.items()},
        "num_steps_trained_this_iter": progress.learned,
        "num_remote_worker_restarts": result["num_worker_restarts"],
        "num_in_flight_async_reqs": 0,
        "counters": {name: result[name] for name in _COUNTERS},
        "timers": {
            **result["timers"],
            "learn_time_ms": 1000.0 * learning,
            "learn_throughput": progress.learned / max(learning, 1e-9),
        },
    }
    return more | {"sampler_results": {name: (more if name in more else result)[name] for name in _SAMPLER}}


def episode_statistics(returns: Any, lengths: Any) -> dict[str, float]:
    """RLlib's statistics of finished episodes; NaN where there are none."""
    if not len(returns):
        nan = float("nan")
        return {
            "episode_reward_mean": nan,
            "episode_reward_min": nan,
            "episode_reward_max": nan,
            "episode_len_mean": nan,
        }
    return {
        "episode_reward_mean": float(np.mean(returns, dtype=np.float64)),
        "episode_reward_min": float(np.min(returns)),
        "episode_reward_max": float(np.max(returns)),
        "episode_len_mean": float(np.mean(lengths, dtype=np.float64)),
    }


def episode_returns(returns: np.ndarray) -> np.ndarray:
    """Of each episode the sum over its agents: `[n]` of `[n]` or `[n, agents]`."""
    return returns if returns.ndim == 1 else returns.sum(axis=1)


def policy_statistics(returns: Any, policies: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """RLlib's statistics by policy of returns `[n, agents]`, of which each counts as one.

    RLlib leaves out agents that never joined an episode; here they count with their return of 0.

    `policy_reward_mean`, `_min` and `_max`, and all of them in `hist_stats` as `policy_NAME_reward`. Where policies
    play against each other, so that the returns of each episode add up to 0, also `win_rate`: see `win_rates`.
    """
    if not policies:
        return {}
    found: dict[str, Any] = {f"policy_reward_{kind}": {} for kind in ("min", "max", "mean")}
    if rates := win_rates(returns, policies):
        found["win_rate"] = rates
    hist = {}
    table = _by_agent(returns, policies)
    for name, columns in policies.items():
        own = table[:, list(columns)].ravel()
        hist[f"policy_{name}_reward"] = own.tolist()
        for kind, of in (("min", np.min), ("max", np.max), ("mean", np.mean)):
            found[f"policy_reward_{kind}"][name] = float(of(own)) if own.size else float("nan")
    return found | {"hist_stats": hist}


def win_rates(returns: Any, policies: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Of each policy the share of episodes that it won, of returns `[n, agents]`.

    An episode is won by the policy of an agent whose return is higher than all those of other policies; NaN where
    there is no episode. Empty where there is one policy, and where the returns of an episode do not add up to 0: that
    is no contest.
    """
    table = _by_agent(returns, policies)
    if len(policies) < 2:
        return {}
    if not len(table):
        return dict.fromkeys(policies, float("nan"))
    if (np.abs(table.sum(axis=1)) > 1e-4 * (1 + np.abs(table).max())).any():
        return {}
    best = {name: table[:, list(columns)].max(axis=1) for name, columns in policies.items()}
    others = {name: [best[other] for other in best if other != name] for name in best}
    return {name: float(np.mean(best[name] > np.max(others[name], axis=0))) for name in best}


def _by_agent(returns: Any, policies: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Returns as `[n, agents]`, also where there is no episode."""
    return np.asarray(returns, np.float64).reshape(-1, sum(map(len, policies.values())))


def lag_statistics(lags: Sequence[int], dropped: int) -> dict[str, float]:
    """How old the policies were that collected what was learned from, in learning iterations, and what was too old."""
    if not lags:
        return {}
    return {"policy_lag": float(np.mean(lags)), "policy_lag_max": float(max(lags)), "num_trajectories_dropped": dropped}


def told_statistics(told: Iterable[Told]) -> dict[str, Any]:
    """RLlib's `custom_metrics`, `NAME_mean`, `NAME_min` and `NAME_max`, and `hist_stats` where there are any."""
    custom: dict[str, list[float]] = {}
    hist: dict[str, list[float]] = {}
    for episode in told:
        for name, value in episode.custom_metrics.items():
            custom.setdefault(name, []).append(value)
        for name, values in episode.hist_data.items():
            hist.setdefault(name, []).extend(values)
    metrics: dict[str, float] = {}
    for name, values in custom.items():
        metrics[f"{name}_mean"] = float(np.mean(values))
        metrics[f"{name}_min"], metrics[f"{name}_max"] = min(values), max(values)
    return {"custom_metrics": metrics} | ({"hist_stats": hist} if hist else {})


def memory_mib() -> float:
    """The resident memory of this process in MiB; NaN where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, AttributeError, ValueError):
        pass
    try:
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    except ImportError:
        return float("nan")

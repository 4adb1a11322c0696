"""`Algorithm`: what users hold. A configuration, an agent in its environment, and RLlib's methods."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np

from athlete.algorithms.catalog import require_served
from athlete.callbacks import BATCH_HOOKS, HOSTED_HOOKS, Created, DefaultCallbacks, Policies, overridden
from athlete.checkpointing import (
    check_compatible,
    check_meaning,
    check_metadata,
    config_of,
    counts_timesteps,
    learner_part,
    memory_since,
    metadata_of,
    progress_at,
    require_finite,
    require_same_form,
)
from athlete.core import Agent, Run, Source, Spec, Tree
from athlete.env.randomness import global_generators_kept, seed_global_generators
from athlete.env.supervision import Supervision
from athlete.env.world import World, env_name, find_world
from athlete.env.wrappers.frame_stack import require_stack
from athlete.env.wrappers.info_metrics import with_info_metrics
from athlete.env.wrappers.previous import previous_of
from athlete.log import logger, set_level
from athlete.loops.batch_hooks import BatchHooks
from athlete.loops.collect import spec_of
from athlete.loops.compiling import compilations, set_up
from athlete.loops.episodes import WatchedSource
from athlete.loops.evaluate import LONG_EPISODE, Evaluation, evaluate_compiled, evaluate_hosted
from athlete.loops.learn import MOST_TIMESTEPS, transition_shapes
from athlete.loops.progress import Progress, joined
from athlete.loops.train import CompiledTraining, HostedTraining, Training
from athlete.memory.room import require_room
from athlete.ops.finite import NonFiniteError
from athlete.policy import Policy, require_default, view_of
from athlete.record.checkpoint import CheckpointError, drop_tree, open_checkpoint, read_metadata, save_checkpoint
from athlete.record.video import record_episodes
from athlete.settings.config import AlgorithmConfig
from athlete.spaces import Box, Space
from athlete.totals import Totals, episode_statistics, told_statistics

EVALUATION_SALT = 0x45564131  # keeps the keys of evaluations apart from those of training


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _alone(method: _Method) -> _Method:
    """A method during which no other thread may call one: each uses up or replaces the state of the training."""

    @functools.wraps(method)
    def alone(self: Algorithm, *arguments: Any, **options: Any) -> Any:
        name = method.__name__
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                f"{name}(): another thread is in {self._busy}() of this algorithm; wait for it, or act with what "
                "get_policy() gave before"
            )
        if name == self._busy == "train":
            self._lock.release()
            raise RuntimeError("train(): it is running already, and calls what called it")
        outer, self._busy = self._busy, name
        try:
            return method(self, *arguments, **options)
        finally:
            self._busy = outer
            self._lock.release()

    return cast(_Method, alone)


class Algorithm:
    """An algorithm in its environment: `train()`, `evaluate()`, `save()`, `restore()`, `compute_single_action()`.

    Made by `PPOConfig()....build()`, or read back by `Algorithm.from_checkpoint(path)`.
    """

    def __init__(self, config: AlgorithmConfig, begins: bool = True):
        set_up()
        set_level(config.log_level)
        self._lock, self._busy = threading.RLock(), ""
        self.config = config
        self.seed: int = config.seed if config.seed is not None else int.from_bytes(os.urandom(4), "little")
        self._check_devices()
        self._world = self._find_world(config.env, config.env_config)
        self._evaluation_world = self._find_evaluation_world()
        self._callbacks = self._make_callbacks()
        self._hooks = overridden(self._callbacks) & HOSTED_HOOKS
        self._refuse_compiled_hooks()
        self._watched: WatchedSource | None = None
        self._training = self._start_training(begins)
        self._has_room = begins  # for its replay memory: asked before that is made
        self._evaluation_source: Source | None = None
        self._totals = Totals(config.metrics_num_episodes_for_smoothing)
        self._policy: Policy | None = None
        self._told_of_endless = False
        self._stopped = False
        self._told_fault = False
        self._logdir = self._own_folder()
        self._last_checkpoint: Path | None = None  # written here or restored from
        self._callbacks.on_algorithm_init(algorithm=self)

    # Training -----------------------------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Calls of `train()` so far."""
        return self._totals.iteration

    @property
    def training_iteration(self) -> int:
        return self.iteration

    @property
    def agent(self):
        """The bound agent: an `athlete.core.Agent`."""
        return self._training.agent

    @property
    def run(self) -> Run:
        """The whole state of the training. The next `train()` uses it up: copy what you keep."""
        return self._training.run

    @_alone
    def train(self) -> dict[str, Any]:
        """Collect and learn, at least one iteration, and tell how it went; evaluate where the interval says so.

        Raises RuntimeError while another thread is in it: an iteration uses up the state that the next one starts from.
        """
        self._refuse_if_stopped("train")
        if not self._has_room:
            self._require_room(self.agent)
            self._has_room = True
        start = time.perf_counter()
        compiled_before, _ = compilations()
        batch = self._training.rows * self._training.length
        iterations = max(1, -(-self.config.min_sample_timesteps_per_iteration // batch))
        parts: list[Progress] = []
        while not parts or time.perf_counter() - start < (self.config.min_time_s_per_iteration or 0.0):
            self._policy = None
            parts.append(self._training.advance(iterations))
            self._totals.take_in(parts[-1], self._watched.take() if self._watched is not None else ())
        self._policy = None
        self._totals.iteration += 1
        progress = joined(parts)
        self._tell_of_endless_episodes()
        if progress.fault is not None:
            self._tell_fault(progress.fault)
        result = self._totals.result(progress, time.perf_counter() - start)
        health = self._training.health
        result |= {
            "num_healthy_workers": health.workers,
            "num_worker_restarts": health.worker_restarts,
            "num_faulty_episodes": health.faulty_episodes,
            "seed": self.seed,
        }
        # Only those of collecting and learning: what evaluations and others in this process compile is not ours.
        result["perf"]["compilations_this_iter"] = compilations()[0] - compiled_before
        interval = self.config.evaluation_interval
        if interval and self.iteration % interval == 0:
            result.update(self.evaluate())
        result |= self._totals.add_time(time.perf_counter() - start)
        self._callbacks.on_train_result(algorithm=self, result=result)
        return result

    def _tell_of_endless_episodes(self) -> None:
        rows = self._training.rows
        if self._told_of_endless or self._totals.since_last_end < LONG_EPISODE * rows:
            return
        self._told_of_endless = True
        logger.warning(
            "no episode has ended in the last %d steps of each environment (%d side by side), and there is no "
            "episode_reward_mean without one. If they never end, give the environment a limit: "
            "env_config={'max_episode_steps': ...} for an id, gymnasium.wrappers.TimeLimit for a class",
            self._totals.since_last_end // rows,
            rows,
        )

    def _tell_fault(self, fault: str) -> None:
        """Raise or warn of NaN or infinity that learning made."""
        message = (
            f"train(): NaN or infinity in iteration {self.iteration}: {fault}. Restore an earlier checkpoint, and "
            "train with a smaller lr, with grad_clip or with scaled rewards"
        )
        if self.config.on_nonfinite == "error":
            raise NonFiniteError(f"{message}; debugging(on_nonfinite='warn') goes on with a warning")
        if not self._told_fault:
            self._told_fault = True
            logger.warning(message)

    # Evaluation ---------------------------------------------------------------------------------------------------

    @_alone
    def evaluate(self, episodes: int | None = None, seed: int | None = None) -> dict[str, Any]:
        """`{"evaluation": {...}}` over whole episodes, greedy unless `evaluation_config={"explore": True}`.

        `episodes` is by default the configured duration. The seed is by default the training's, so that evaluating a
        restored checkpoint gives the same numbers; it is in the result.
        """
        self._refuse_if_stopped("evaluate")
        self._callbacks.on_evaluate_start(algorithm=self)
        start = time.perf_counter()
        unit = "episodes" if episodes is not None else self.config.evaluation_duration_unit
        duration = episodes if episodes is not None else self.config.evaluation_duration
        if not isinstance(duration, int | np.integer) or duration < 1:
            raise ValueError(f"evaluate(episodes={episodes!r}): expected a whole number of at least 1")
        duration = int(duration)
        seed = self.seed if seed is None else seed
        key = np.array([EVALUATION_SALT ^ (seed & 0xFFFFFFFF), self.iteration], np.uint32)
        explore = bool(self.config.evaluation_config.get("explore", False))
        if unit == "episodes":
            found = self._play(key, duration, explore)
        else:
            found = self._play_timesteps(key, duration, explore)
        watched = self._evaluation_source
        told = told_statistics(watched.take() if isinstance(watched, WatchedSource) else ())
        hist = {"episode_reward": found.returns.tolist(), "episode_lengths": found.lengths.tolist()}
        measured = episode_statistics(found.returns, found.lengths) | {
            "episodes_this_iter": len(found.returns),
            "timesteps_this_iter": int(found.lengths.sum()),
            "custom_metrics": told["custom_metrics"],
            "hist_stats": told.get("hist_stats", {}) | hist,
            "seed": seed,
            "explore": explore,
            "time_s": time.perf_counter() - start,
        }
        metrics = {"evaluation": measured}
        self._callbacks.on_evaluate_end(algorithm=self, evaluation_metrics=metrics)
        return metrics

    def _play_timesteps(self, key: np.ndarray, timesteps: int, explore: bool) -> Evaluation:
        """Whole episodes until they add up to `timesteps`."""
        parts: list[Evaluation] = []
        while sum(int(part.lengths.sum()) for part in parts) < timesteps:
            part_key = key + np.array([len(parts) << 16, 0], np.uint32)
            parts.append(self._play(part_key, 8, explore))
        return Evaluation(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    def _play(self, key: np.ndarray, episodes: int, explore: bool) -> Evaluation:
        policy, world = self.get_policy(), self._evaluation_world
        if self.config.on_nonfinite == "error":
            policy.require_finite()
        view = policy.view
        if world.env is not None:
            self._check_evaluation_spaces(spec_of(world.env))
            return evaluate_compiled(self.agent, world.env, view, key, episodes, explore)
        if self._evaluation_source is None:
            workers = self.config.evaluation_num_workers
            side_by_side = max(1, min(8, self.config.evaluation_duration) // max(1, workers))
            source = world.source(
                num_workers=workers,
                num_envs_per_worker=side_by_side,
                seeded_resets=True,
                supervision=self._supervision(),
            )
            self._evaluation_source = self._watching(source, first_only=True)
        self._check_evaluation_spaces(self._evaluation_source.spec)
        with global_generators_kept():  # an evaluation seeds them, and training goes on with its own numbers
            return evaluate_hosted(self.agent, self._evaluation_source, view, key, episodes, explore)

    def _find_evaluation_world(self) -> World:
        """The environment that evaluations run on: that of training unless `evaluation_config` says otherwise."""
        changes = self.config.evaluation_config
        if not ({"env", "env_config"} & set(changes)):
            return self._world
        env_config = {**self.config.env_config, **changes.get("env_config", {})}
        return self._find_world(changes.get("env", self.config.env), env_config)

    def _find_world(self, env: Any, env_config: Mapping[str, Any]) -> World:
        """The environment, checked before training comes across what is wrong with it, as the network sees it."""
        config = self.config
        world = find_world(env, env_config, config.backend, config.preprocessor_pref).showing(previous_of(config))
        return world if config.disable_env_checking else world.checked()

    def _check_evaluation_spaces(self, spec: Spec) -> None:
        """Raise ValueError where the policy does not fit the environment of `evaluation_config`."""
        trained = self.agent.spec
        for name, there, here in (("observation", spec.obs, trained.obs), ("action", spec.action, trained.action)):
            if not _alike(there, here):
                raise ValueError(
                    f"evaluation_config={self.config.evaluation_config!r}: its environment has the {name} space "
                    f"{there}, and the policy was trained on {here}"
                )

    # Acting -------------------------------------------------------------------------------------------------------

    @_alone
    def get_policy(self, policy_id: str = "default_policy") -> Policy:
        """The acting side as it is now: a snapshot that later training does not change."""
        self._refuse_if_stopped("get_policy")
        require_default(policy_id, "get_policy")
        if self._policy is None:
            agent, run = self._training.agent, self._training.learned
            progress = progress_at(int(run.timesteps), self.config.horizon())
            self._policy = Policy(agent, view_of(agent, run.state, progress), self.seed, self._world.previous)
        return self._policy

    def compute_single_action(
        self,
        observation: Any,
        state: Any = None,
        *,
        prev_action: Any = None,
        prev_reward: float | None = None,
        info: Mapping[str, Any] | None = None,
        explore: bool | None = None,
        full_fetch: bool = False,
        policy_id: str = "default_policy",
    ) -> Any:
        """What `env.step` takes, for one observation as `env.reset` and `env.step` give it.

        Greedy unless `explore=True`. For a network with memory give `state` (at first
        `algo.get_policy().get_initial_state()`) and get `(action, state, {})`; so too with `full_fetch=True`. For one
        with `lstm_use_prev_action` or `lstm_use_prev_reward` give also the action that this method gave before and the
        reward that came of it, but for the first step of an episode; other networks do not look at them. Where the
        environment tells its legal actions beside the observation give `info` with the entry `action_mask`.
        Raises ValueError, with the space, for an observation that does not fit, and where a network with memory would
        lose it or does not get what it sees.
        """
        policy = self.get_policy(policy_id)
        if state is None and not full_fetch:
            _require_state(policy, "compute_single_action")
        fetched = policy.compute_single_action(
            observation,
            state,
            prev_action=prev_action,
            prev_reward=prev_reward,
            info=info,
            explore=bool(explore),
        )
        return fetched if state is not None or full_fetch else fetched[0]

    def compute_actions(
        self,
        observations: Any,
        state: Any = None,
        *,
        prev_action: Any = None,
        prev_reward: Any = None,
        info: Any = None,
        explore: bool | None = None,
        policy_id: str = "default_policy",
    ) -> Any:
        """Actions for many observations: a dictionary by name, as RLlib's, or a list; so are states and all else."""
        policy = self.get_policy(policy_id)
        if state is None:
            _require_state(policy, "compute_actions")
        names = list(observations) if isinstance(observations, Mapping) else list(range(len(observations)))
        states, actions_before, rewards_before, infos = (
            dict.fromkeys(names) if given is None else given for given in (state, prev_action, prev_reward, info)
        )
        rows = [
            policy.row(observations[name], states[name], actions_before[name], rewards_before[name], infos[name])
            for name in names
        ]
        acted = policy.act_each(rows, [states[name] for name in names], bool(explore)) if names else []
        actions, new_states = ([part[i] for part in acted] for i in range(2))
        if isinstance(observations, Mapping):
            by_name = [dict(zip(names, parts, strict=True)) for parts in (actions, new_states)]
            return (*by_name, {}) if state is not None else by_name[0]
        return (actions, new_states, {}) if state is not None else actions

    @_alone
    def get_weights(self) -> dict[str, Tree]:
        """`{"default_policy": the learner's state}` as NumPy arrays: parameters, optimiser and normalisers."""
        return {"default_policy": jax.device_get(self._training.learned.state)}

    @_alone
    def set_weights(self, weights: Mapping[str, Tree]) -> None:
        """Take over what `get_weights` gave. Raises ValueError where structure or shapes differ."""
        if "default_policy" not in weights:
            raise ValueError(
                f"set_weights: expected {{'default_policy': ...}} as get_weights gives, got {list(weights)}"
            )
        run, new = self._training.learned, weights["default_policy"]
        own = run.state
        require_finite(new, "set_weights: nothing was taken over")
        require_same_form(own, new)
        self._training.run = run._replace(state=jax.device_put(new, may_alias=False))
        self._policy = None

    # Keeping ------------------------------------------------------------------------------------------------------

    @property
    def logdir(self) -> str:
        """This training's own folder, where `save()` goes without another: algorithm, environment, date and a number.

        It is in `$ATHLETE_RESULTS_DIR`, else `~/athlete_results`, and made when something is put there.
        """
        return str(self._logdir)

    @_alone
    def save(self, checkpoint_dir: str | Path | None = None) -> str:
        """Write a checkpoint and return its folder.

        A folder that is not itself called `checkpoint_...` gets the checkpoint inside, as `checkpoint_000012`. Without
        a folder it is `logdir`. By default the replay memory is in the newest checkpoint of a folder only: it is taken
        out of the one that this training wrote there before (`store_buffer_in_checkpoints`).

        Raises CheckpointError where the policy's parameters are not finite, and where the disk refuses.
        """
        self._refuse_if_stopped("save")
        folder = Path(checkpoint_dir) if checkpoint_dir is not None else self._logdir
        if not folder.name.startswith("checkpoint"):
            folder = folder / f"checkpoint_{self.iteration:06d}"
        run = self._training.run if self._stores_memory() else self._training.learned
        trees: dict[str, Tree] = {"agent": learner_part(run)}
        if self._stores_memory():
            trees["memory"] = run.store
        if self._world.env is not None:
            trees["rows"] = run.rows
        trees = jax.device_get(trees)
        require_finite(trees["agent"]["state"], f"nothing was saved into {folder}")
        path = save_checkpoint(folder, trees, self._metadata())
        self._drop_memory_before(path)
        return str(path)

    def _drop_memory_before(self, path: Path) -> None:
        """Take the memory out of the checkpoint before `path`, where only the newest keeps it."""
        before, self._last_checkpoint = self._last_checkpoint, path
        if before is None or before == path or before.parent != path.parent or not before.exists():
            return
        if self._stores_memory() and self.config.get("store_buffer_in_checkpoints") == "last":
            try:
                drop_tree(before, "memory")
            except CheckpointError as error:
                logger.warning("the replay memory stays in an older checkpoint: %s", error)

    @_alone
    def restore(self, checkpoint_path: str | Path) -> None:
        """Go on from a checkpoint of the same algorithm, settings and spaces.

        Exact to the last bit where the environment is compiled; on Gymnasium training goes on with new episodes.
        Raises `CheckpointError` with a sentence that says what does not fit, or which entry cannot be.
        """
        self._refuse_if_stopped("restore")
        stored = open_checkpoint(checkpoint_path)
        metadata, spec = stored.metadata, self._training.agent.spec
        assert spec is not None
        check_metadata(metadata, checkpoint_path)
        counters = metadata["counters"]
        check_compatible(
            metadata, algorithm=self.config.algorithm_name, observation_space=spec.obs, action_space=spec.action
        )
        check_meaning(metadata["config"], self.config, checkpoint_path)
        shapes = self._training.shapes
        learner = stored.load("agent", learner_part(shapes, counts_timesteps(counters)))
        learner.setdefault("timesteps", np.uint32(min(counters["timesteps_total"], MOST_TIMESTEPS)))
        require_finite(learner["state"], f"{checkpoint_path} is not restored")
        since = memory_since(counters, learner, checkpoint_path)
        rows: Any = None
        load_memory = None
        if "memory" in stored.files:
            stored.require_fit("memory", shapes.store)
            load_memory = functools.partial(stored.load, "memory", shapes.store)
        elif self._training.agent.memory.keeps:
            logger.info("%s holds no replay memory: training fills a new one before it learns", checkpoint_path)
            since = int(learner["timesteps"])
        if self._world.env is not None:
            try:  # every sum is right by now: what can fail is that another environment has another state
                rows = stored.load("rows", shapes.rows)
            except CheckpointError:
                logger.warning("restored onto other environments than it was saved with: training starts new episodes")
        self._training.restore(Run(rows=rows, store=None, **learner), since, load_memory)
        self._totals.restore(counters)
        self.seed = metadata["seed"]
        self._policy = None
        self._last_checkpoint = Path(checkpoint_path).resolve()
        self._callbacks.on_checkpoint_loaded(algorithm=self)

    @classmethod
    def from_checkpoint(cls, path: str | Path, env: Any = None, **settings: Any) -> Algorithm:
        """The algorithm that a checkpoint was saved from, ready to go on; no configuration needed.

        `env` is needed only where the environment was a function, or a class that is not imported here; `settings`
        go over the saved ones. Nothing is executed on reading: code is never imported because a file says so. Nor does
        a file take what it likes: a saved setting that asks for too many processes, rows or layers is refused, and
        the caller can ask for it in `settings`. The replay memory is read, and its room taken, by the first `train()`:
        who only acts or evaluates needs none.
        """
        metadata = read_metadata(path)
        check_metadata(metadata, path)
        given = ("callbacks", *settings) if env is None else ("callbacks", "env", *settings)
        config = config_of(metadata, path, given)
        algorithm = cls(config.ready(env, **settings), begins=False)
        algorithm.restore(path)
        return algorithm

    def record_video(
        self, folder: str | Path, episodes: int = 1, *, explore: bool = False, seed: int | None = None
    ) -> list[str]:
        """Film `episodes` episodes as mp4 files into `folder`; their paths. Works without a screen."""
        policy = self.get_policy()

        def choose(observation: Any, state: Any, first: bool) -> tuple[Any, Any]:
            return policy.act_one(observation, state, explore=explore, first=first)

        seed = self.seed if seed is None else seed
        with global_generators_kept():
            seed_global_generators(seed)
            films = record_episodes(self._evaluation_world.make_for_film, choose, Path(folder), episodes, seed)
        return [str(film.path) for film in films]

    def stop(self) -> None:
        """Close environments and end worker processes. May be called twice."""
        if not self._stopped:
            self._stopped = True
            self._training.close()
            if self._evaluation_source is not None:
                self._evaluation_source.close()

    def __enter__(self) -> Algorithm:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Inside -------------------------------------------------------------------------------------------------------

    def _start_training(self, begins: bool) -> Training:
        config, world = self.config, self._world
        key = np.array([0, self.seed & 0xFFFFFFFF], np.uint32)
        if world.env is not None:
            agent = self._make_agent(spec_of(world.env), begins)
            if (axis := getattr(agent.memory, "stack_axis", None)) is not None:
                require_stack(world.env, axis)
            if config.get("sample_async"):
                logger.info("sample_async=True: environment and updates are one program here; nothing waits")
            env, length = with_info_metrics(world.env, config.info_metrics), config.fragment_length()
            return CompiledTraining(agent, env, config.rows(), length, config.horizon(), key, begins=begins)
        if config.num_rollout_workers:
            processes, each = config.num_rollout_workers, config.num_envs_per_worker
            logger.info("%d worker processes with %d environments each", processes, each)
        source = world.source(
            num_workers=config.num_rollout_workers,
            num_envs_per_worker=config.num_envs_per_worker,
            supervision=self._supervision(),
        )
        try:
            agent = self._make_agent(source.spec, begins)
            length, asynchronous = config.fragment_length(), bool(config.get("sample_async"))
            source = self._watching(source, length)
            self._watched = source if isinstance(source, WatchedSource) else None
            batch_hooks = self._batch_hooks(agent)
            return HostedTraining(agent, source, length, config.horizon(), key, asynchronous, batch_hooks, begins)
        except BaseException:
            source.close()
            raise

    def _make_agent(self, spec: Spec, begins: bool) -> Agent:
        require_served(self.config.algorithm_name, spec.action)
        agent = self.config.make_agent(spec)
        if begins:
            self._require_room(agent)
        return agent

    def _require_room(self, agent: Agent) -> None:
        """Say how much memory the replay takes, and refuse where there is not so much."""
        if agent.memory.keeps:
            logger.info(require_room(agent.memory, transition_shapes(agent), self.config.rows()))

    def _check_devices(self) -> None:
        wanted = self.config.num_gpus
        if wanted and wanted > (found := sum(device.platform == "gpu" for device in jax.devices())):
            raise ValueError(
                f"resources(num_gpus={wanted}): JAX sees {found} GPUs here; install a JAX for your GPU "
                "(`pip install -U 'jax[cuda12]'`), or leave num_gpus out; `athlete doctor` shows the devices"
            )

    def _make_callbacks(self) -> Any:
        callbacks = self.config.get("callbacks") or DefaultCallbacks
        return callbacks() if isinstance(callbacks, type) else callbacks

    def _refuse_compiled_hooks(self) -> None:
        """Raise ValueError for hooks of steps and episodes where these are inside a compiled program."""
        if not self._hooks or self._world.env is None:
            return
        way_out = "environment(..., backend='gymnasium') steps it from Python"
        if not self._world.is_twin:
            way_out = "only an environment of Gymnasium is stepped from Python"
        raise ValueError(
            f"callbacks({type(self._callbacks).__name__}): {self._world.name} runs compiled, where "
            f"{', '.join(sorted(self._hooks))} cannot be called; {way_out}. Entries of info are reported compiled too: "
            "reporting(info_metrics=[...])"
        )

    def _batch_hooks(self, agent: Agent) -> BatchHooks | None:
        hooks = self._hooks & BATCH_HOOKS
        if hooks and agent.memory.keeps:
            raise ValueError(
                f"callbacks({type(self._callbacks).__name__}): {self.config.algorithm_name} draws its batches from a "
                f"memory inside a compiled program, where {', '.join(sorted(hooks))} cannot be called; on_episode_step "
                "and on_sample_end see what is collected, and a wrapper around the environment can change it"
            )
        return BatchHooks(self._callbacks, hooks, self._policies()) if hooks else None

    def _policies(self) -> Policies:
        return Policies(self.get_policy)

    def _watching(self, source: Source, length: int = 0, first_only: bool = False) -> Source:
        """`source`, told to hooks and results where there is anything to tell."""
        hooks = self._hooks - {"on_sub_environment_created"}
        if first_only:
            hooks -= BATCH_HOOKS | {"on_sample_end"}
        if not hooks and not self.config.info_metrics:
            return source
        told = self.config.info_metrics
        return WatchedSource(source, self._callbacks, hooks, self._policies(), told, length, first_only)

    def _supervision(self) -> Supervision:
        created = Created(self._callbacks) if "on_sub_environment_created" in self._hooks else None
        config = self.config
        return Supervision(
            config.env_timeout,
            config.restart_failed_sub_environments,
            config.recreate_failed_workers,
            config.max_num_worker_restarts,
            created,
        )

    def _metadata(self) -> dict[str, Any]:
        spec = self._training.agent.spec
        assert spec is not None
        counters = {**self._totals.counters(), "memory_since_timesteps": self._training.memory_since}
        how = {"rows": self._training.rows, "compiled": self._world.env is not None}
        return metadata_of(self.config, spec, counters, self.seed) | how

    def _stores_memory(self) -> bool:
        """Whether checkpoints hold the replay memory; without it a restored training fills a new one first."""
        return self._training.agent.memory.keeps and bool(self.config.get("store_buffer_in_checkpoints"))

    def _own_folder(self) -> Path:
        root = os.environ.get("ATHLETE_RESULTS_DIR")
        base = Path(root) if root else Path.home() / "athlete_results"
        name = f"{self.config.algorithm_name}_{env_name(self.config.env)}"
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        return (base / f"{name}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.urandom(3).hex()}").absolute()

    def _refuse_if_stopped(self, method: str) -> None:
        if self._stopped:
            raise RuntimeError(f"{method}(): this algorithm was stopped; build a new one or Algorithm.from_checkpoint")


def _alike(there: Space, here: Space) -> bool:
    """Whether a network for one space can serve the other: bounds may differ."""
    if isinstance(there, Box) and isinstance(here, Box):
        return (there.shape, there.dtype) == (here.shape, here.dtype)
    return there == here


def _require_state(policy: Policy, method: str) -> None:
    """Raise ValueError where a call without a state would lose the network's memory."""
    if policy.is_recurrent():
        raise ValueError(
            f"{method}(...): this network has memory and would lose it: give state, at the start of an episode "
            "algo.get_policy().get_initial_state() and then the state that came back with the last action"
        )

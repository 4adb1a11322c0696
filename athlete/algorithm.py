"""`Algorithm`: what users hold. A configuration, an agent in its environment, and RLlib's methods."""

from __future__ import annotations

import functools
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import jax
import numpy as np

from athlete.acting import actions_by_agent, joint_observation
from athlete.algorithms.alpha_star import AlphaStar
from athlete.building import (
    devices_of,
    evaluation_world,
    is_in_ray,
    own_folder,
    require_memory_room,
    start_training,
    training_world,
)
from athlete.checkpointing import learner_part, metadata_of, progress_at, require_finite, require_same_form
from athlete.combine.team import Team
from athlete.core import Run, Spec, Tree, agent_ids
from athlete.env.randomness import global_generators_kept, seed_global_generators
from athlete.env.world import env_name
from athlete.env.wrappers.previous import previous_of
from athlete.estimation import estimate, evaluation_data
from athlete.evaluation import Evaluator, metrics_of
from athlete.hooks import Hooks
from athlete.log import logger, set_level
from athlete.loops.compiling import compilations, set_up
from athlete.loops.devices import gathered, here
from athlete.loops.evaluate import LONG_EPISODE
from athlete.loops.offline import OfflineTraining
from athlete.loops.progress import Progress, joined
from athlete.loops.train import CompiledTraining
from athlete.matches import Matches, Player, players_of
from athlete.offline.dataset import DataSet
from athlete.offline.files import write_data
from athlete.ops.finite import NonFiniteError
from athlete.policy import Policy, player_of, view_of
from athlete.processes import agreed, connect, is_first, require_together, wait_for_all
from athlete.record.checkpoint import CheckpointError, drop_tree, is_checkpoint, save_checkpoint
from athlete.record.keeping import Keeper, checkpoint_name
from athlete.record.progress import Shown, reporter
from athlete.record.stopper import CombinedStopper, DictStopper, make_stopper
from athlete.record.video import record_episodes
from athlete.recording import Recording
from athlete.restoring import read_config, read_training
from athlete.settings.checks import is_count, require_known
from athlete.settings.config import AlgorithmConfig
from athlete.settings.rllib_names import no_attribute
from athlete.teams import columns_of, horizon_of, keeps_memory, make_heuristic, mapping_to_save
from athlete.totals import Totals, rllib_results

CHECKPOINT_SECONDS = 60.0  # between those that a training in a cluster saves by itself
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _never(result: Mapping[str, Any]) -> bool:
    """What ends a loop of which only its writer knows the end."""
    return False


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
        connect(config)
        self._lock, self._busy = threading.RLock(), ""
        self.config = config
        self._settings = config.to_dict()  # as results show them
        self.seed: int = config.seed if config.seed is not None else agreed(int.from_bytes(os.urandom(4), "little"))
        devices = devices_of(config)
        self._world = training_world(config)
        require_together(config, self._world.env is not None)
        self._evaluation_world = evaluation_world(config, self._world)
        hooks = Hooks(config, self._world, self.get_policy)
        self._callbacks = hooks.callbacks
        self._evaluator = Evaluator(config, self._evaluation_world, hooks, self._world)
        self._training = start_training(config, self._world, hooks, self.seed, begins, devices)
        self._has_room = begins or config.is_offline()  # for its replay memory: asked before that is made
        self._totals = Totals(config.smoothing(), columns_of(self._training.agent))
        self._policy: Policy | None = None
        self._recorded: DataSet | None = None  # what estimators read, once they have
        self._told_of_endless = False
        self._ends: Callable[[dict[str, Any]], bool] = _never
        self._stopped = False
        self._advancing: int | None = None  # the thread in which an iteration is under way
        self._told_fault = False
        self._logdir = own_folder(config)
        self._recording = Recording(config, self._logdir)
        self._recording.is_on = self._recording.is_on and is_first()
        self._keeper = self._make_keeper()
        weakref.finalize(self, self._recording.close)  # files are complete also where nobody calls stop()
        self._last_checkpoint: Path | None = None  # written here or restored from
        self._saved: set[Path] = set()  # checkpoints written here
        self._callbacks.on_algorithm_init(algorithm=self)

    if not TYPE_CHECKING:  # which would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def _make_keeper(self) -> Keeper:
        config = self.config
        frequency, keep = 0 if config.logdir is False else config.checkpoint_freq, config.keep_checkpoints_num
        seconds = math.inf
        if is_in_ray(config) and self._recording.is_on and "checkpoint_freq" not in config.chosen():
            seconds, keep = CHECKPOINT_SECONDS, keep or 1  # where a cluster's head is lost, this process ends
        return Keeper(frequency, keep, config.checkpoint_score_attr, seconds)

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
            require_memory_room(self.config, self.agent)
            self._has_room = True
        start = time.perf_counter()
        evaluates = self._evaluates_after(self.iteration + 1)
        beside = evaluates and self._evaluator.is_beside
        if beside:
            self._callbacks.on_evaluate_start(algorithm=self)
            estimates = self._estimates(self.seed)
            self._evaluator.begin(self._whole_policy(), self.iteration, self.seed)
        compiled_before, _ = compilations()
        batch = self._training.rows * self._training.length
        iterations = max(1, -(-self.config.min_sample_timesteps_per_iteration // batch))
        parts: list[Progress] = []
        while not parts or self._goes_on(time.perf_counter() - start, parts):
            self._policy = None
            self._advancing = threading.get_ident()
            try:
                parts.append(self._training.advance(iterations))
            finally:
                self._advancing = None
            self._totals.take_in(parts[-1])
        self._policy = None
        self._totals.iteration += 1
        progress = joined(parts)
        self._tell_of_endless_episodes()
        if (unpaid := progress.returns[~np.isfinite(progress.returns)]).size:
            self._tell_fault(f"the return of an episode was {unpaid[0]}. The environment pays it: mend its step")
        elif progress.fault is not None:
            self._tell_fault(
                f"{progress.fault}. Restore an earlier checkpoint, and train with a smaller lr, with grad_clip or with "
                "scaled rewards; check_env(env) says whether the environment gives such numbers"
            )
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
        result |= rllib_results(result, progress, self._training.rows) | {"config": self._settings}
        if beside:
            result.update(self._evaluated(self._evaluator.end() | estimates))
        elif evaluates:
            result.update(self.evaluate())
        result |= self._totals.add_time(time.perf_counter() - start)
        self._callbacks.on_train_result(algorithm=self, result=result)
        result["done"] = bool(result["done"]) or self._ends(result)
        self._recording.write(result, progress)
        self._keeper.take(result, self.save)
        return result

    def _goes_on(self, seconds: float, parts: Sequence[Progress]) -> bool:
        """Whether an iteration of so many seconds is still shorter than it has to be."""
        sampled = sum(part.timesteps for part in parts)
        wanted = 0 if self.config.is_offline() else self.config.min_sample_timesteps_per_iteration
        return seconds < (self.config.min_time_s_per_iteration or 0.0) or sampled < wanted

    def learn(self, total_timesteps: int | None = None, stop: Any = None, progress_bar: bool = False) -> dict[str, Any]:
        """`train()` until there are `total_timesteps` more, or a result satisfies `stop`; the last, which is `done`.

        `stop` is what `tune.run` takes: `{"episode_reward_mean": 475}`, a function `(trial_id, result) -> bool` with
        `logdir`'s name for the first, a `Stopper`, or a list. `progress_bar` shows how far it is: a table in a terminal
        or a notebook, lines elsewhere. Raises ValueError where nothing says when to end, and TuneError for the name of
        a result that there is not.
        """
        stopper = make_stopper(stop, lambda _: bool(self.config.evaluation_interval))
        if total_timesteps is not None:
            stopper = CombinedStopper(self._timesteps_more(total_timesteps), stopper)
        elif stop is None:
            raise ValueError("learn(): say when to end: learn(total_timesteps=100_000), or stop={...}")
        shown = Shown(f"{self.config.algorithm_name} {env_name(self.config.env)}", reporter(int(progress_bar)))
        self._ends = functools.partial(stopper, self._logdir.name)
        try:
            with shown:
                while True:
                    result = self.train()
                    shown.update(result, stopper.progress(self._logdir.name, result))
                    if result["done"]:
                        return result
        finally:
            self._ends = _never

    def _timesteps_more(self, timesteps: int) -> DictStopper:
        if not is_count(timesteps) or timesteps < 1:
            raise ValueError(f"learn(total_timesteps={timesteps!r}): expected a whole number of at least 1")
        if self.config.is_offline():
            raise ValueError(
                f"learn(total_timesteps={timesteps}): no timesteps are sampled where learning is from recorded data; "
                "say stop={'num_env_steps_trained': ...}"
            )
        return DictStopper({"timesteps_total": self._totals.timesteps + timesteps})

    @property
    def best_checkpoint(self) -> str | None:
        """The best checkpoint that this loop saved, by `checkpoint_score_attr`; without that the newest, else None."""
        return self._keeper.best

    def _tell_of_endless_episodes(self) -> None:
        rows = self._training.rows
        if self.config.is_offline():
            return
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
        """Raise or warn of NaN or infinity."""
        message = f"train(): NaN or infinity in iteration {self.iteration}: {fault}"
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
        restored checkpoint gives the same numbers; it is in the result. Without `episodes` a
        `custom_evaluation_function` gives the entries in the place of that.
        """
        self._refuse_if_stopped("evaluate")
        self._callbacks.on_evaluate_start(algorithm=self)
        if (function := self.config.custom_evaluation_function) is not None and episodes is None:
            return self._evaluated(metrics_of(function, self))
        seed = self.seed if seed is None else seed
        found: dict[str, Any] = {}
        if self._world.exists or not self.config.off_policy_estimation_methods:
            found = self._evaluator.evaluate(self._whole_policy(), self.iteration, seed, episodes)
        return self._evaluated(found | self._estimates(seed))

    def _evaluates_after(self, iteration: int) -> bool:
        interval = self.config.evaluation_interval
        return bool(interval) and iteration % interval == 0

    def _evaluated(self, found: dict[str, Any]) -> dict[str, Any]:
        """The result of an evaluation, of which the callbacks are told."""
        metrics = {"evaluation": found}
        self._callbacks.on_evaluate_end(algorithm=self, evaluation_metrics=metrics)
        return metrics

    @_alone
    def evaluate_matches(
        self,
        episodes: int = 100,
        opponents: Mapping[str, Any] | None = None,
        policies: Sequence[str] | None = None,
        seed: int | None = None,
        explore: bool = True,
    ) -> Matches:
        """Who beats whom in a game for two: `episodes` games between every two policies, half of them on either seat.

        The players are the policies of this training, the snapshots of its past selves (`main_v0` is the oldest), and
        `opponents` by name: heuristics, as `PolicySpec` takes them, "random", or policies that `get_policy` gave. With
        `policies` only these of the training play. Print the result for a table. With `explore=False` players act
        greedily: those without chance in them then repeat one game on each seat.

        Raises ValueError where it is no game for two agents with equal spaces, for a policy that there is not, and for
        an opponent that is none.
        """
        self._refuse_if_stopped("evaluate_matches")
        whole, spec = self._whole_policy(), self._evaluator.spec
        players = players_of(whole.agent, here(self._training.learned.state), whole.view)
        if not players:
            raise ValueError(
                "evaluate_matches: matches are between the policies of many agents, and there is one agent"
            )
        for name in policies or ():
            require_known(name, players, f"evaluate_matches(policies={list(policies or ())})")
        players = {name: players[name] for name in policies or players}
        _, group = spec.groups[0]
        for name, given in (opponents or {}).items():
            if isinstance(given, Policy):
                players[name] = Player(given.agent, given.view)
            else:
                players[name] = Player(make_heuristic(given).bind(Spec(group.obs, group.action)), ())
        return self._evaluator.matches(players, self.seed if seed is None else seed, episodes, explore)

    def _estimates(self, seed: int) -> dict[str, Any]:
        """What recorded data tell of the policy, where that is asked: an entry of an evaluation."""
        methods = self.config.off_policy_estimation_methods
        if not methods:
            return {}
        if self._recorded is None:
            self._recorded = evaluation_data(self.config)
        gamma = float(self.config.get("gamma", 0.99))
        return {"off_policy_estimator": estimate(self._whole_policy(), self._recorded, methods, gamma, seed)}

    # Acting -------------------------------------------------------------------------------------------------------

    @_alone
    def get_policy(self, policy_id: str = "default_policy") -> Policy:
        """The acting side as it is now: a snapshot that later training does not change."""
        self._refuse_if_stopped("get_policy")
        whole = self._whole_policy()
        player = player_of(whole.agent, here(self._training.learned.state), whole.view, policy_id, "get_policy")
        return whole if player.view is whole.view else Policy(*player, self.seed)

    def _whole_policy(self) -> Policy:
        """What acts for all agents there are."""
        if self._policy is None:
            agent, run = self._training.agent, self._training.learned
            progress = progress_at(int(run.timesteps), horizon_of(self.config, agent))
            view = view_of(agent, here(run.state), progress)
            self._policy = Policy(agent, view, self.seed, previous_of(self.config))
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
            observation, state, prev_action=prev_action, prev_reward=prev_reward, info=info, explore=bool(explore)
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
        """Actions for many observations: a dictionary by name, as RLlib's, or a list; so are states and all else.

        Of algorithms that act for all agents together the observations are those of one moment, by agent, and the state
        is one for all.
        """
        if self._acts_together():
            ids = self._agent_ids() or agent_ids(self.agent.spec.groups)
            shown = joint_observation(self.agent.spec.groups, ids, observations)
            fetched = self.compute_single_action(shown, state, explore=explore, full_fetch=True)
            by_agent = actions_by_agent(self.agent.spec.groups, ids, fetched[0])
            return (by_agent, *fetched[1:]) if state is not None else by_agent
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
        """The learner's state by policy, `{"default_policy": ...}` where there is one agent, as NumPy arrays.

        A state is parameters, optimiser and normalisers.
        """
        state = jax.device_get(self._training.learned.state)
        return state if isinstance(self.agent, Team) else {"default_policy": state}

    @_alone
    def set_weights(self, weights: Mapping[str, Tree]) -> None:
        """Take over what `get_weights` gave. Raises ValueError where structure or shapes differ."""
        self._refuse_in_a_hook("set_weights")
        run = self._training.learned
        own = run.state if isinstance(self.agent, Team) else {"default_policy": run.state}
        if not weights or not set(weights) <= set(own):
            names = ", ".join(map(repr, own))
            raise ValueError(f"set_weights: expected {{{names}: ...}} as get_weights gives, got {list(weights)}")
        for name, new in weights.items():
            require_finite(new, "set_weights: nothing was taken over")
            require_same_form(own[name], new)
        state = {**own, **weights}
        state = state if isinstance(self.agent, Team) else state["default_policy"]
        self._training.run = run._replace(state=jax.device_put(state, may_alias=False))
        self._policy = None

    # Keeping ------------------------------------------------------------------------------------------------------

    @property
    def logdir(self) -> str:
        """This training's own folder, where its results go and `save()` without another: `reporting(logdir=...)`.

        By default it is named after algorithm, environment and date, in `$ATHLETE_RESULTS_DIR`, else
        `~/athlete_results`. It is made when something is put there.
        """
        return str(self._logdir)

    @_alone
    def save(self, checkpoint_dir: str | Path | None = None) -> str:
        """Write a checkpoint and return its folder.

        A folder that is not itself called `checkpoint` or `checkpoint_...` gets the checkpoint inside, as
        `checkpoint_000012`; one that another training wrote there is replaced, with a warning. Without a folder it is
        `logdir`. By default the replay memory is in the newest checkpoint of a folder only: it is taken
        out of the one that this training wrote there before (`store_buffer_in_checkpoints`).

        Of several processes the first one writes, and all of them call this.

        Raises CheckpointError where the policy's parameters are not finite, and where the disk refuses.
        """
        self._refuse_if_stopped("save")
        folder = Path(checkpoint_dir) if checkpoint_dir is not None else self._logdir
        if folder.name != "checkpoint" and not folder.name.startswith("checkpoint_"):
            folder = folder / checkpoint_name(self.iteration)
        folder = folder.resolve()
        if folder not in self._saved and is_checkpoint(folder):
            logger.warning("%s: a checkpoint that this training did not write is replaced", folder)
        run = self._training.run if self._stores_memory() else self._training.learned
        trees: dict[str, Tree] = {"agent": learner_part(run)}
        if self._stores_memory():
            trees["memory"] = run.store
        if self._keeps_rows():
            trees["rows"] = run.rows
        trees = gathered(trees)
        require_finite(trees["agent"]["state"], f"nothing was saved into {folder}")
        try:
            path = save_checkpoint(folder, trees, self._metadata()) if is_first() else folder
        finally:
            wait_for_all(f"save {self.iteration}")
        if self._training.output is not None:
            self._training.output.flush()
        self._saved.add(path)
        if is_first():
            self._drop_memory_before(path)
        return str(path)

    def _drop_memory_before(self, path: Path) -> None:
        """Take the memory out of the checkpoint before `path`, where only the newest keeps it."""
        before, self._last_checkpoint = self._last_checkpoint, path
        if before is None or before == path or before.parent != path.parent or not before.exists():
            return
        last_alone = self.config.get("store_buffer_in_checkpoints", "last") == "last"
        if last_alone and keeps_memory(self._training.agent):
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
        self._refuse_in_a_hook("restore")
        saved = read_training(checkpoint_path, self._training, self.config, compiled=self._keeps_rows())
        self._evaluator.give_up()
        self._training.restore(saved.run, saved.memory_since, saved.load_store)
        self._has_seed_of(saved.seed)
        self._totals.restore(saved.counters)
        self._recording.close()  # to go on after the iteration of the checkpoint
        self._policy = None
        self._last_checkpoint = Path(checkpoint_path).resolve()
        self._callbacks.on_checkpoint_loaded(algorithm=self)

    def fits(self, other: Algorithm) -> bool:
        """Whether one training can `take_over` the other: their arrays have the same names, shapes and types."""
        ours, theirs = (
            [(path, leaf.shape, leaf.dtype) for path, leaf in jax.tree.leaves_with_path(training.shapes)]
            for training in (self._training, other._training)
        )
        return ours == theirs

    @_alone
    def take_over(self, other: Algorithm) -> None:
        """Go on from where `other` is, as `restore` would from its checkpoint, but without a file.

        Both must be of the same algorithm and of settings that differ in numbers only: raises ValueError where the
        arrays of one do not fit the other.
        """
        self._refuse_if_stopped("take_over")
        if not self.fits(other):
            raise ValueError(
                f"{self.config.algorithm_name}.take_over: the other's arrays are of other shapes; only trainings whose "
                "settings differ in numbers such as lr or gamma can go on from each other"
            )
        self._evaluator.give_up()
        run = jax.tree.map(np.array, other._training.run)  # its buffers are given away by the next iteration
        self._training.restore(run, other._training.memory_since)
        self._has_seed_of(other.seed)
        self._totals.restore(other._totals.counters())
        self._recording.close()
        self._policy = None

    def _has_seed_of(self, seed: int) -> None:
        """Go on as the training of this seed."""
        self.seed = seed
        if isinstance(self._training, OfflineTraining):
            self._training.read_in_order_of(seed)

    @classmethod
    def from_checkpoint(cls, path: str | Path, env: Any = None, **settings: Any) -> Algorithm:
        """The algorithm that a checkpoint was saved from, ready to go on; no configuration needed.

        `env` is needed only where the environment was a function, or a class that is not imported here; `settings`
        go over the saved ones. Nothing is executed on reading: code is never imported because a file says so. Nor does
        a file take what it likes: a saved setting that asks for too many processes, rows or layers is refused, and
        the caller can ask for it in `settings`. The replay memory is read, and its room taken, by the first `train()`:
        who only acts or evaluates needs none.
        """
        algorithm = cls(read_config(path, env, settings), begins=False)
        algorithm.restore(path)
        return algorithm

    def record_video(
        self, folder: str | Path, episodes: int = 1, *, explore: bool = False, seed: int | None = None
    ) -> list[str]:
        """Film `episodes` episodes as mp4 files into `folder`; their paths. Works without a screen.

        Once there are results in `logdir`, TensorBoard shows the films beside them.
        """
        self._evaluator.require_own_environment("record_video()")
        policy = self._whole_policy()

        def choose(observation: Any, state: Any, first: bool) -> tuple[Any, Any]:
            return policy.act_one(observation, state, explore=explore, first=first)

        seed = self.seed if seed is None else seed
        with global_generators_kept():
            seed_global_generators(seed)
            films = record_episodes(self._evaluation_world.make_for_film, choose, Path(folder), episodes, seed)
        self._recording.show([film.path for film in films], self._totals.timesteps)
        return [str(film.path) for film in films]

    @_alone
    def record(self, path: str | Path, episodes: int = 100, *, explore: bool = True, seed: int | None = None) -> str:
        """Play `episodes` whole episodes and write them as data to learn from; the path of the file.

        `path` is a file in a format of `athlete.offline` (`.safetensors`, `.json`, ...), or a folder, which gets one
        for each call. Actions are drawn as in training, with their probabilities where these are known; with
        `explore=False` they are the best. `seed` is by default the training's.
        """
        self._refuse_if_stopped("record")
        path = Path(path).expanduser()
        seed = self.seed if seed is None else seed
        if not path.suffix:
            path = path / f"episodes-{self.iteration:06d}-{seed}.safetensors"
        data = self._evaluator.record(self._whole_policy(), seed, self.iteration, episodes, explore)
        return str(write_data(data, path))

    def stop(self) -> None:
        """Close environments and end worker processes. May be called twice."""
        self._refuse_in_a_hook("stop")
        if not self._stopped:
            self._stopped = True
            if (output := self._training.output) is not None:
                output.cut()
                output.flush()
            self._training.close()
            self._evaluator.close()
            self._recording.close()

    def __enter__(self) -> Algorithm:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Inside -------------------------------------------------------------------------------------------------------

    def _metadata(self) -> dict[str, Any]:
        spec = self._training.agent.spec
        assert spec is not None
        mapping = mapping_to_save(self._training.agent, self._agent_ids())
        config = self.config if mapping is None else self.config.copy().multi_agent(policy_mapping_fn=mapping)
        counters = {**self._totals.counters(), "memory_since_timesteps": self._training.memory_since}
        how = {"rows": self._training.rows, "compiled": self._keeps_rows()}
        ids = self._agent_ids() or agent_ids(spec.groups)
        return metadata_of(config, spec, counters, self.seed, ids) | how

    def _acts_together(self) -> bool:
        assert self.config.agent_class is not None
        return self.config.agent_class.joint

    def _agent_ids(self) -> tuple[str, ...]:
        """The names of the environment's agents, where it is one of many."""
        return getattr(self._training, "agent_ids", ())

    def _keeps_rows(self) -> bool:
        """Whether checkpoints hold the environments: compiled ones that are in the middle of episodes."""
        return isinstance(self._training, CompiledTraining)

    def _stores_memory(self) -> bool:
        """Whether checkpoints hold the replay memory; without it a restored training fills a new one first.

        That of a team holds also what is under way in its environments, which belongs to them.
        """
        agent, wanted = self._training.agent, self.config.get("store_buffer_in_checkpoints", "last")
        return (
            bool(wanted)
            and not self.config.is_offline()
            and (keeps_memory(agent) or isinstance(agent, Team | AlphaStar))
        )

    def _refuse_in_a_hook(self, method: str) -> None:
        """Raise RuntimeError in the middle of an iteration, which goes on from what it began with."""
        if self._advancing == threading.get_ident():
            raise RuntimeError(
                f"{method}(): an iteration is under way, which would overwrite or miss it; call it in "
                "on_train_result, or raise an error here to end the iteration"
            )

    def _refuse_if_stopped(self, method: str) -> None:
        if self._stopped:
            raise RuntimeError(f"{method}(): this algorithm was stopped; build a new one or Algorithm.from_checkpoint")


def _require_state(policy: Policy, method: str) -> None:
    """Raise ValueError where a call without a state would lose the network's memory."""
    if policy.is_recurrent():
        raise ValueError(
            f"{method}(...): this network has memory and would lose it: give state, at the start of an episode "
            "algo.get_policy().get_initial_state() and then the state that came back with the last action"
        )

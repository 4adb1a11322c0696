"""The one table of other spellings: what RLlib's users of any year write, and what it means here."""

from __future__ import annotations

from collections.abc import Mapping

# Other name -> ours.
SPELLINGS: dict[str, str] = {
    "lambda": "lambda_",
    "sgd_minibatch_size": "minibatch_size",
    "mini_batch_size_per_learner": "minibatch_size",
    "num_sgd_iter": "num_epochs",
    "train_batch_size_per_learner": "train_batch_size",
    "num_workers": "num_rollout_workers",
    "num_env_runners": "num_rollout_workers",
    "num_learner_workers": "num_learners",
    "num_envs_per_env_runner": "num_envs_per_worker",
    "num_cpus_per_env_runner": "num_cpus_per_worker",
    "custom_resources_per_env_runner": "custom_resources_per_worker",
    "max_requests_in_flight_per_env_runner": "max_requests_in_flight_per_sampler_worker",
    "max_sample_requests_in_flight_per_worker": "max_requests_in_flight_per_sampler_worker",
    "evaluation_num_env_runners": "evaluation_num_workers",
    "evaluation_num_episodes": "evaluation_duration",
    "metrics_smoothing_episodes": "metrics_num_episodes_for_smoothing",
    "min_iter_time_s": "min_time_s_per_iteration",
    "min_sample_timesteps_per_reporting": "min_sample_timesteps_per_iteration",
    "timesteps_per_iteration": "min_sample_timesteps_per_iteration",
    "max_grad_norm": "grad_clip",
    "grad_norm_clipping": "grad_clip",
    "callbacks_class": "callbacks",
    **dict.fromkeys(("recreate_failed_env_runners", "restart_failed_env_runners"), "recreate_failed_workers"),
    **dict.fromkeys(("max_worker_restarts", "max_num_env_runner_restarts"), "max_num_worker_restarts"),
    "input": "input_",
    "target_update_grad_intervals": "target_network_update_freq",
    "evaluation_frequency_main_iters": "evaluation_interval",
    "lr_q_model": "lr",
    "learning_starts": "num_steps_sampled_before_learning_starts",
    "policy_model": "policy_model_config",
    "Q_model": "q_model_config",
    "model_dimension": "model_size",
}

# What users of Stable-Baselines3 write -> what does it here, for messages: its values are not always ours.
STABLE_BASELINES: dict[str, str] = {
    "learning_rate": "lr",
    "n_steps": "rollout_fragment_length, or train_batch_size for all environments together,",
    "n_envs": "rollouts(num_envs_per_worker=...)",
    "batch_size": "minibatch_size on the latest steps, and train_batch_size from replay,",
    "n_epochs": "num_epochs",
    "gae_lambda": "lambda_",
    "clip_range": "clip_param",
    "clip_range_vf": "vf_clip_param",
    "ent_coef": "entropy_coeff, and SAC's initial_alpha,",
    "vf_coef": "vf_loss_coeff",
    "target_kl": "kl_target",
    "normalize_advantage": "what PPO always does",
    "policy_kwargs": "model={'fcnet_hiddens': [64, 64], 'fcnet_activation': 'tanh'}",
    "net_arch": "fcnet_hiddens",
    "activation_fn": "fcnet_activation",
    "train_freq": "rollouts(rollout_fragment_length=...)",
    "gradient_steps": "training_intensity, timesteps learned from over timesteps sampled",
    "target_update_interval": "target_network_update_freq, in timesteps,",
    "exploration_fraction": "exploration_config={'epsilon_timesteps': ...}",
    "exploration_initial_eps": "exploration_config={'initial_epsilon': ...}",
    "exploration_final_eps": "exploration_config={'final_epsilon': ...}",
    "action_noise": "exploration_config={'type': 'GaussianNoise', 'stddev': ...}",
    "target_policy_noise": "target_noise",
    **dict.fromkeys(
        ("replay_buffer_class", "replay_buffer_kwargs"), "replay_buffer_config={'type': 'PrioritizedReplayBuffer'}"
    ),
    "tensorboard_log": "reporting(logdir=...)",
    "device": "what the JAX that is installed decides",
}

# Section methods that were renamed.
SECTIONS: dict[str, str] = {"env_runners": "rollouts"}
# Section methods of RLlib's that hold nothing but settings of the tables below.
OTHER_SECTIONS = ("python_environment", "experimental", "rl_module")

_ONE_PROGRAM = "collecting and learning are one JAX program in this process; there is nothing to place"
_FRAMEWORK = "networks run on JAX whatever the framework"

# Settings that mean nothing here -> what happens instead. Accepted, with one line in the log.
IGNORED: dict[str, str] = {
    "framework": _FRAMEWORK,
    "eager_tracing": _FRAMEWORK,
    "eager_max_retraces": _FRAMEWORK,
    "torch_compile_learner": _FRAMEWORK,
    "num_gpus_per_worker": _ONE_PROGRAM,
    "num_cpus_for_local_worker": _ONE_PROGRAM,
    "num_cpus_for_main_process": _ONE_PROGRAM,
    "num_gpus_per_env_runner": _ONE_PROGRAM,
    **dict.fromkeys(("keep_local_weights_in_sync", "torch_distributed_backend"), "gradients are averaged by XLA"),
    "num_gpus_per_learner": _ONE_PROGRAM,
    "num_cpus_per_learner": _ONE_PROGRAM,
    "create_env_on_local_worker": "environments are made in this process unless num_rollout_workers > 0",
    "create_env_on_driver": "environments are made in this process unless num_rollout_workers > 0",
    "batch_mode": "trajectories are cut by length and bootstrapped from the true last observation",
    "enable_connectors": "observations and actions are transformed inside the agent",
    "synchronize_filter": "there is one filter, inside the agent's state",
    "compress_observations": "observations stay as arrays",
    "shuffle_sequences": "every epoch takes the samples in a new random order",
    "shuffle_batch_per_epoch": "every epoch takes the samples in a new random order",
    **dict.fromkeys(("noise_size", "tf_single_threaded"), "noise is drawn anew for each generation, from no table"),
    **dict.fromkeys(
        ("gc_frequency_train_steps", "intrinsic_rewards_scale"), "nothing is collected, and a bonus has `eta`"
    ),
    **dict.fromkeys(
        ("report_individual_batch_item_stats", "report_dream_data", "report_images_and_videos"),
        "results carry means; `Algorithm.record_video()` films",
    ),
    **dict.fromkeys(
        ("summary_frequency_train_steps", "summary_include_histograms", "model_save_frequency_main_iters"),
        "results are written after every iteration, checkpoints every checkpoint_freq",
    ),
    "use_meta_env": "environments differ where `tasks` says how",
    "rollouts_per_iteration": "an iteration is of train_batch_size timesteps, and not of whole episodes",
    "use_gae": "advantages are generalised advantage estimates; lambda_=1.0 gives plain returns",
    **dict.fromkeys(("optim_alpha", "optim_eps", "rmsprop_epsilon"), "Adam takes the place of RMSProp"),
    **dict.fromkeys(
        ("use_local_critic", "use_state_preprocessor"), "the critic sees the state of all agents and what they do"
    ),
    **dict.fromkeys(("agent_id", "good_policy", "adv_policy"), "every agent has a critic of its own reward"),
    "ope_split_batch_by_episode": "estimators see whole episodes",
    "output_compress_columns": "files hold arrays as they are",
    **dict.fromkeys(
        ("shuffle_buffer_size", "offline_sampling"),
        "recorded steps are drawn from all of them, or from input_config={'capacity': ...} at a time",
    ),
    "postprocess_inputs": "what an algorithm needs of recorded episodes is computed as they are read",
    "use_critic": "there always is a critic; PG alone can do without",
    "sample_async": "environments wait while the policy learns, so that it learns from its own steps",
    "microbatch_size": "the gradient of a batch is computed at once",
    "simple_optimizer": _ONE_PROGRAM,
    "enable_rl_module_and_learner": "there is one API",
    "enable_env_runner_and_connector_v2": "there is one API",
    "_enable_rl_module_api": "there is one API",
    "_enable_learner_api": "there is one API",
    "_disable_preprocessor_api": "there is one API",
    "_disable_execution_plan_api": "there is one API",
    "log_sys_usage": "results carry steps a second and memory under 'perf'",
    "enable_async_evaluation": "evaluation_parallel_to_training evaluates beside the iteration that tells of it",
    "always_attach_evaluation_results": "results carry evaluation on the iterations that evaluate",
    "ignore_worker_failures": "a failing environment ends the trial with its own traceback",
    "num_consecutive_worker_failures_tolerance": "max_num_worker_restarts is the one limit",
    "num_consecutive_env_runner_failures_tolerance": "max_num_worker_restarts is the one limit",
    "delay_between_worker_restarts_s": "what failed begins anew at once",
    "delay_between_env_runner_restarts_s": "what failed begins anew at once",
    "render_env": "record_video() and `athlete evaluate --video` render",
    "clip_actions": "Box actions always arrive within the space's bounds",
    "normalize_actions": "agents act in [-1, 1] and actions are scaled to the space's bounds",
    "keep_per_episode_custom_metrics": "results carry means over episodes",
    "explore": "training samples its actions; compute_single_action and evaluation_config take explore",
    **dict.fromkeys(("local_tf_session_args", "tf_session_args", "use_pytorch", "torch", "eager"), _FRAMEWORK),
    **dict.fromkeys(("enable_tf1_exec_eagerly", "_tf_policy_handles_more_than_one_loss"), _FRAMEWORK),
    **dict.fromkeys(("validate_workers_after_construction", "num_aggregation_workers"), _ONE_PROGRAM),
    **dict.fromkeys(("num_accs", "num_multi_acc_tower_stacks", "num_multi_gpu_tower_stacks"), _ONE_PROGRAM),
    **dict.fromkeys(("_fake_gpus", "gpu"), _ONE_PROGRAM),
}

_ENDS = "episodes end where the environment says so"
_WAITS = "rollouts(env_timeout=...) is the one limit on a step of an environment"
_LOGS = "reporting(logdir=...) says where results are written; tune.run writes them into each trial's folder"
# Settings of RLlib's DT that are others here, or have no effect: it has no memory but the data.
SEQUENCE_MODEL = ("horizon", "optimizer", "replay_buffer_config")

# Settings that would change a training and have no counterpart -> what is so instead. Accepted, in Python and in files,
# with a warning where they are switched on.
UNSERVED: dict[str, str] = {
    "horizon": "the environment's own time limit holds; env_config={'max_episode_steps': ...} changes that of an id, "
    "gymnasium.wrappers.TimeLimit that of a class",
    **dict.fromkeys(("soft_horizon", "no_done_at_end"), _ENDS),
    "env_task_fn": "environments have no tasks; one that grows harder counts its own episodes",
    "use_kl_loss": "kl_coeff=0.0 is without the penalty, any other with it",
    "optimizer": "networks learn by Adam, with lr and grad_clip; those with one rate take an optax transformation",
    "minibatch_buffer_size": "a batch is learned from num_epochs times at once, and then dropped",
    **dict.fromkeys(("_separate_vf_optimizer", "_lr_vf"), "policy and values learn by one Adam, with vf_loss_coeff"),
    "grad_clip_by": "gradients are clipped by their global norm",
    "_disable_action_flattening": "actions of Dict and Tuple spaces are drawn part by part",
    "min_train_timesteps_per_iteration": "min_sample_timesteps_per_iteration counts those sampled",
    **dict.fromkeys(("remote_worker_envs", "remote_env_batch_wait_ms"), _ONE_PROGRAM),
    **dict.fromkeys(
        ("sample_timeout_s", "evaluation_sample_timeout_s", "metrics_episode_collection_timeout_s"), _WAITS
    ),
    **dict.fromkeys(
        ("max_requests_in_flight_per_sampler_worker", "broadcast_interval"),
        "workers wait while the policy learns; they do not where sample_async can be set",
    ),
    **dict.fromkeys(("extra_python_environs_for_driver", "extra_python_environs_for_worker"), "set os.environ before"),
    **dict.fromkeys(("logger_config", "logger_creator"), _LOGS),
    **dict.fromkeys(("sample_collector", "fake_sampler", "worker_cls", "sampler_perf_stats_ema_coef"), _ONE_PROGRAM),
    "export_native_model_files": "policy.export(path) writes ONNX, StableHLO, PyTorch and NumPy",
    "use_float16": "networks run in float32",
    "use_curiosity": "exploration_config={'type': 'Curiosity'} is a bonus for what cannot be foreseen",
    "learner_config_dict": "settings are those of the algorithm",
}

_MODULES = "networks are given as model={'custom_model': ...}"
_TRACE = "it is IMPALA's and APPO's, which learn from what older policies collected"
# Settings without which a program is another one -> what to do instead. An error, unless they are switched off.
REFUSED: dict[str, str] = {
    **dict.fromkeys(("learner_class", "learner_connector", "before_learn_on_batch"), "on_learn_on_batch sees batches"),
    **dict.fromkeys(("rl_module_spec", "model_config", "algorithm_config_overrides_per_module"), _MODULES),
    **dict.fromkeys(
        ("env_to_module_connector", "module_to_env_connector"),
        "observation_filter, observation_fn and environment(clip_rewards=...) change what comes",
    ),
    **dict.fromkeys(("vtrace", "vtrace_drop_last_ts", "replay_proportion", "learner_queue_size"), _TRACE),
}


_STEPPED = "environments are stepped by the training itself; callbacks are given `worker` and `base_env`"
_EXPORTED = "policy.export(path), of a policy from get_policy(), writes ONNX, StableHLO, PyTorch, NumPy or a page"
_POLICIES = "policies are those of multi_agent(policies=...)"
_LEARNS = "a policy acts and does not learn; callbacks see batches"
_NETWORK = "get_weights() has the parameters of the network, and compute_actions() calls it"
# Attribute of RLlib's algorithms or policies that ours have not -> what there is instead.
ATTRIBUTES: dict[str, str] = {
    **dict.fromkeys(("workers", "evaluation_workers", "env_runner", "env_runner_group", "env_creator"), _STEPPED),
    **dict.fromkeys(("export_policy_model", "export_model"), _EXPORTED),
    **dict.fromkeys(
        ("export_policy_checkpoint", "export_checkpoint"), "algo.save(path) is what Policy.from_checkpoint(path) reads"
    ),
    **dict.fromkeys(("add_policy", "remove_policy", "add_module", "remove_module"), _POLICIES),
    **dict.fromkeys(("local_replay_buffer", "learner_group"), "memory and learner are parts of one compiled program"),
    **dict.fromkeys(("training_step", "step"), "train() is one iteration; collecting and learning are one program"),
    **dict.fromkeys(("save_checkpoint", "load_checkpoint"), "save(path) and restore(path) do it"),
    **dict.fromkeys(("model", "dist_class", "framework"), _NETWORK),
    **dict.fromkeys(("learn_on_batch", "postprocess_trajectory", "compute_gradients", "loss"), _LEARNS),
}


def no_attribute(owner: object, name: str, instead: Mapping[str, str] = ATTRIBUTES) -> AttributeError:
    """The error for an attribute that is not there; where the other library has it, with what there is instead."""
    told = f": {instead[name]}" if name in instead else ""
    # With an object Python would add a name that is spelled alike.
    near = None if told else owner
    return AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}{told}", name=name, obj=near)


def said(name: str, value: object) -> str | None:
    """What is so instead of a setting of RLlib's that is switched on; None for others.

    Raises ValueError for one without which the program is another.
    """
    if not value:
        return None
    if name in REFUSED:
        raise ValueError(REFUSED[name])
    return UNSERVED.get(name)

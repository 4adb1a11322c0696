"""The one table of other spellings: what RLlib's users of any year write, and what it means here."""

from __future__ import annotations

# Other name -> ours.
SPELLINGS: dict[str, str] = {
    "lambda": "lambda_",
    "sgd_minibatch_size": "minibatch_size",
    "mini_batch_size_per_learner": "minibatch_size",
    "num_sgd_iter": "num_epochs",
    "train_batch_size_per_learner": "train_batch_size",
    "num_workers": "num_rollout_workers",
    "num_env_runners": "num_rollout_workers",
    "num_envs_per_env_runner": "num_envs_per_worker",
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
    "learning_starts": "num_steps_sampled_before_learning_starts",
    "policy_model": "policy_model_config",
    "Q_model": "q_model_config",
}

# Section methods that were renamed.
SECTIONS: dict[str, str] = {"env_runners": "rollouts"}

_ONE_PROGRAM = "collecting and learning are one JAX program in this process; there is nothing to place"
_FRAMEWORK = "networks run on JAX whatever the framework"

# Settings that mean nothing here -> what happens instead. Accepted, with one line in the log.
IGNORED: dict[str, str] = {
    "framework": _FRAMEWORK,
    "eager_tracing": _FRAMEWORK,
    "eager_max_retraces": _FRAMEWORK,
    "torch_compile_learner": _FRAMEWORK,
    "num_cpus_per_worker": _ONE_PROGRAM,
    "num_gpus_per_worker": _ONE_PROGRAM,
    "num_cpus_for_local_worker": _ONE_PROGRAM,
    "num_cpus_for_main_process": _ONE_PROGRAM,
    "num_cpus_per_env_runner": _ONE_PROGRAM,
    "num_gpus_per_env_runner": _ONE_PROGRAM,
    "custom_resources_per_worker": _ONE_PROGRAM,
    "placement_strategy": _ONE_PROGRAM,
    "num_learners": _ONE_PROGRAM,
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
    "use_gae": "advantages are generalised advantage estimates; lambda_=1.0 gives plain returns",
    **dict.fromkeys(("optim_alpha", "optim_eps"), "Adam takes the place of RMSProp"),
    **dict.fromkeys(
        ("use_local_critic", "use_state_preprocessor"), "the critic sees the state of all agents and what they do"
    ),
    **dict.fromkeys(("agent_id", "good_policy", "adv_policy"), "every agent has a critic of its own reward"),
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
    "evaluation_parallel_to_training": "evaluation runs between iterations, so that it sees one policy",
    "enable_async_evaluation": "evaluation runs between iterations, so that it sees one policy",
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
    "local_tf_session_args": _FRAMEWORK,
    "tf_session_args": _FRAMEWORK,
}

"""A population that tunes its own settings: PPO on CartPole from learning rates that are too small.

    python examples/search.py

Eight trainings in one process begin with learning rates of at most 1e-5. Every few iterations the worst go on from the
weights of the best, with other settings; then the learning curves and what was changed are drawn. `docs/experiments.md`
explains it.
"""

from __future__ import annotations

import argparse

from athlete import tune
from athlete.algorithms.ppo import PPOConfig
from athlete.tune.plot import plot_curves
from athlete.tune.schedulers import PopulationBasedTraining


def make_config() -> PPOConfig:
    config = PPOConfig().environment("CartPole-v1").debugging(seed=0)
    return config.training(lr=tune.loguniform(1e-6, 1e-5), train_batch_size=2_048, minibatch_size=256)


def make_population(interval: int) -> PopulationBasedTraining:
    return PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=interval,
        hyperparam_mutations={"lr": tune.loguniform(1e-6, 1e-2)},
        quantile_fraction=0.5,
        resample_probability=0.5,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--folder", default=None, help="where results go")
    arguments = parser.parse_args()
    population = make_population(interval=max(1, arguments.iterations // 10))
    analysis = tune.run(
        "PPO",
        config=make_config(),
        scheduler=population,
        num_samples=arguments.trials,
        stop={"training_iteration": arguments.iterations},
        metric="episode_reward_mean",
        mode="max",
        seed=0,
        local_dir=arguments.folder,
    )
    for copied in population.history:
        print(f"iteration {copied['training_iteration']}: {copied['donor']} -> {copied['trial_id']} {copied['config']}")
    best = analysis.best_trial
    print(f"best: lr={best.config['lr']:.2g}, reward {best.last_result['episode_reward_mean']:.1f}")
    print(plot_curves(analysis, analysis.folder / "curves.svg"))


if __name__ == "__main__":
    main()

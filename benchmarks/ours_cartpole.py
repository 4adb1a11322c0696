"""Athlete's PPO on CartPole-v1: time to a mean reward of 400 with its tuned example, or steady speed at given settings.

    python benchmarks/ours_cartpole.py --seed 0
    python benchmarks/ours_cartpole.py --steady [--backend gymnasium] [--envs 8 --steps 32 --minibatch 256 --epochs 20]

Prints one JSON line at the moment of reaching; whoever starts the process takes the wall time up to that line. Beside
"seconds" stand its parts: importing, tracing (Python to XLA's language), compiling, and running with all the rest.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402

from athlete import tuned_examples  # noqa: E402
from athlete.algorithm import Algorithm  # noqa: E402  (build() would import it; here it counts as import)
from athlete.algorithms.ppo import PPOConfig  # noqa: E402

IMPORTED = time.perf_counter()

import jax  # noqa: E402  (long since imported)

TRACING = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
COMPILING = ("/jax/core/compile/backend_compile_duration",)
SPANS: dict[str, list[tuple[float, float]]] = {}  # (start, end) of what JAX did, by its names

TIMESTEPS = 100_000


def build_tuned(arguments: argparse.Namespace) -> Algorithm:
    """What `athlete example run cartpole-ppo` trains."""
    config = PPOConfig.from_dict(tuned_examples.load("cartpole-ppo").config)
    return config.environment(backend=arguments.backend).debugging(seed=arguments.seed).reporting(logdir=False).build()


def build(arguments: argparse.Namespace, timesteps_per_train: int) -> Algorithm:
    """RL-Zoo's settings for CartPole, but for the shape that the arguments give."""
    return (
        PPOConfig()
        .environment("CartPole-v1", backend=arguments.backend)
        .rollouts(num_envs_per_worker=arguments.envs, rollout_fragment_length=arguments.steps)
        .training(
            train_batch_size=arguments.envs * arguments.steps,
            minibatch_size=arguments.minibatch,
            num_epochs=arguments.epochs,
            gamma=0.98,
            lambda_=0.8,
            lr=[[0, 1e-3], [TIMESTEPS, 0.0]],
            clip_param=[[0, 0.2], [TIMESTEPS, 0.0]],
            entropy_coeff=0.0,
        )
        .reporting(min_sample_timesteps_per_iteration=timesteps_per_train, logdir=False)
        .debugging(seed=arguments.seed)
        .build()
    )


def time_to(arguments: argparse.Namespace) -> dict:
    algorithm = build_tuned(arguments)
    built = time.perf_counter()
    result = algorithm.train()
    while not reached(result, arguments.target) and result["timesteps_total"] < TIMESTEPS:
        result = algorithm.train()
    seconds, import_s = time.perf_counter() - STARTED, IMPORTED - STARTED
    compile_s = covered(COMPILING)
    trace_s = covered(TRACING + COMPILING) - compile_s
    return {
        "reached": reached(result, arguments.target),
        "seconds": seconds,
        "timesteps": result["timesteps_total"],
        "import_s": import_s,
        "trace_s": trace_s,
        "compile_s": compile_s,
        "run_s": seconds - import_s - trace_s - compile_s,
        "until_built": built - STARTED,
    }


def reached(result: dict, target: float) -> bool:
    return result["episodes_total"] >= 100 and result["episode_reward_mean"] >= target


def steady(arguments: argparse.Namespace) -> dict:
    algorithm = build(arguments, timesteps_per_train=arguments.timesteps)
    algorithm.train()
    speeds, speeds_of_cpu = [], []
    for _ in range(arguments.repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        result = algorithm.train()
        speeds.append(result["timesteps_this_iter"] / (time.perf_counter() - started))
        speeds_of_cpu.append(result["timesteps_this_iter"] / (time.process_time() - cpu_started))
    return {
        "steps_per_second": statistics.median(speeds),
        "all_steps_per_second": speeds,
        "steps_per_cpu_second": statistics.median(speeds_of_cpu),
        "timesteps": result["timesteps_total"],
        "last_return": result["episode_reward_mean"],
    }


def note_span(event: str, seconds: float, **_: object) -> None:
    now = time.perf_counter()
    SPANS.setdefault(event, []).append((now - seconds, now))


def covered(events: tuple[str, ...]) -> float:
    """Seconds in which at least one of `events` was going on; spans nest, since functions trace inner functions."""
    total, reached_until = 0.0, float("-inf")
    for start, end in sorted(span for event in events for span in SPANS.get(event, [])):
        total += max(0.0, end - max(start, reached_until))
        reached_until = max(reached_until, end)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=400.0)
    parser.add_argument("--backend", default="auto", choices=["auto", "jax", "gymnasium"])
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--minibatch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steady", action="store_true", help="measure steps per second instead")
    parser.add_argument("--timesteps", type=int, default=20_480, help="environment steps of one steady repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    jax.monitoring.register_event_duration_secs_listener(note_span)
    print(json.dumps(steady(arguments) if arguments.steady else time_to(arguments)), flush=True)

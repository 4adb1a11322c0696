"""CMA-ES on functions: evaluations until a value of 1e-8, ours beside pycma's, from the same starts in the same run.

    python benchmarks/cma_es.py --rival PYTHON    # an interpreter that has pycma (`pip install cma`)

Both have the same populations and first steps. Sphere and Rosenbrock start with the default population; Rastrigin's
function, which has 11^n local minima, with a large one (Hansen & Kern 2004), and its runs may fail.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np

TARGET = 1e-8
FIRST_SEED, SEEDS = 1000, 5


class Problem(NamedTuple):
    """A function to minimise, from starts drawn from a normal distribution."""

    name: str
    n: int
    population: int
    start: float  # standard deviation of starts
    sigma: float
    most: int  # evaluations, after which a run has failed


def _default(n: int) -> int:
    return 4 + math.floor(3 * math.log(n))


PROBLEMS = [
    *(Problem("sphere", n, _default(n), 1.0, 0.5, 100_000) for n in (10, 40)),
    *(Problem("rosenbrock", n, _default(n), 0.5, 0.3, 400_000) for n in (10, 40)),
    *(Problem("rastrigin", n, population, 3.0, 2.0, 2_000 * population) for n, population in ((10, 200), (40, 800))),
]


def value(name: str, x: Any, module: Any) -> Any:
    """The function of points `[..., n]`, in the arithmetic of `module`. None loses digits near its minimum."""
    if name == "sphere":
        return module.sum(x**2, axis=-1)
    if name == "rosenbrock":
        return module.sum(100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2, axis=-1)
    return module.sum(x**2 + 20 * module.sin(math.pi * x) ** 2, axis=-1)  # 10 (1 - cos 2 pi x) = 20 sin^2 pi x


def start_of(problem: Problem, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=problem.n, scale=problem.start)


def run_ours(problem: Problem, seed: int) -> int | None:
    """Evaluations until the target, in whole generations; None where it was not reached."""
    import jax
    import jax.numpy as jnp

    from athlete.ops.cma import Search, adapt, constants_of, draw, start_search
    from athlete.ops.random import unwrap, wrap

    constants = constants_of(problem.n, problem.population)

    def generation(carried: tuple[Search, Any, Any, Any]) -> tuple[Search, Any, Any, Any]:
        search, key, best, number = carried
        draw_key, key = jax.random.split(wrap(key))
        steps = draw(search, draw_key, problem.population)
        values = value(problem.name, search.mean + search.sigma * steps, jnp)
        search = adapt(search, steps, -values, constants)
        return search, unwrap(key), jnp.minimum(best, jnp.min(values)), number + 1

    @jax.jit
    def searched(start: Any, key: Any) -> tuple[Any, Any]:
        most = problem.most // problem.population
        begun = start_search(start, problem.sigma), key, jnp.float32(jnp.inf), jnp.int32(0)
        _, _, best, number = jax.lax.while_loop(lambda c: (c[2] > TARGET) & (c[3] < most), generation, begun)
        return best, number

    best, number = searched(np.float32(start_of(problem, seed)), np.array([0, seed], np.uint32))
    return int(number) * problem.population if best <= TARGET else None


def run_pycma(problem: Problem, seed: int) -> int | None:
    """The same by pycma."""
    import cma

    options = {"popsize": problem.population, "seed": seed + 1, "verbose": -9, "ftarget": TARGET}
    options |= {"maxfevals": problem.most, "tolfun": 0, "tolfunhist": 0, "tolx": 0, "tolstagnation": 10**9}
    search = cma.CMAEvolutionStrategy(start_of(problem, seed), problem.sigma, options)
    best, evaluations = math.inf, 0
    while best > TARGET and evaluations < problem.most and not set(search.stop()) - {"ftarget"}:
        points = search.ask()
        values = value(problem.name, np.array(points), np)
        search.tell(points, values.tolist())
        best, evaluations = min(best, values.min()), evaluations + problem.population
    return evaluations if best <= TARGET else None


def run_rival(python: str, number: int) -> list[int | None]:
    """What pycma needs for the problem of that number, in an interpreter that has it."""
    command = [python, "-W", "ignore", __file__, "--play", str(number)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, check=True)
    return json.loads(done.stdout)


def summary(found: list[int | None]) -> str:
    reached = [each for each in found if each is not None]
    return f"{np.median(reached):9.0f} ({len(reached)} of {len(found)})" if reached else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", help="an interpreter that has pycma")
    parser.add_argument("--play", type=int, help=argparse.SUPPRESS)  # a problem by number, as the rival's interpreter
    arguments = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + SEEDS)
    if arguments.play is not None:
        print(json.dumps([run_pycma(PROBLEMS[arguments.play], seed) for seed in seeds]))
        return
    for number, problem in enumerate(PROBLEMS):
        ours = [run_ours(problem, seed) for seed in seeds]
        rival = run_rival(arguments.rival, number) if arguments.rival else None
        told = f"{problem.name:10} n={problem.n:<3} population {problem.population:<4} ours {summary(ours)}"
        print(told + (f"  pycma {summary(rival)}" if rival else ""), flush=True)


if __name__ == "__main__":
    main()

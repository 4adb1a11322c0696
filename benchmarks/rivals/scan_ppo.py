"""A one-file PPO in PureJaxRL's method, as fast as we could write it: the rival of our compiled PPO's steady speed.

The method: the environment resets itself inside its step, `done` does not tell dead from cut, one jitted function is
the whole training, a scan over updates of a scan over steps, GAE as a reverse scan, and epochs of minibatches drawn
with `jax.random.permutation`. Words and code are ours; it needs only JAX. Where we had a choice we took the faster:
Adam by hand instead of optax, plain arrays instead of a network library, no shuffle where the minibatch is the batch.

    python benchmarks/rivals/scan_ppo.py --envs 8 --steps 32 --minibatch 256 --epochs 20

prints one JSON line: the median of steps per second over the repeats, without compiling, and the return reached.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
GAMMA, LAMBDA, CLIP, RATE, VALUE_WEIGHT, MAX_GRADIENT = 0.98, 0.8, 0.2, 1e-3, 0.5, 0.5  # RL-Zoo's CartPole settings


# CartPole-v1, one row


class CartPole(NamedTuple):
    physics: jax.Array  # position, velocity, angle, angular velocity
    time: jax.Array
    episode_return: jax.Array


def reset(key: jax.Array) -> CartPole:
    return CartPole(jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05), jnp.int32(0), jnp.float32(0))


def step(state: CartPole, action: jax.Array, key: jax.Array) -> tuple[CartPole, jax.Array, jax.Array, jax.Array]:
    """(next state, reset if done; reward; done; return of the episode so far)."""
    x, velocity, angle, spin = state.physics
    force = jnp.where(action == 1, 10.0, -10.0)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    push = (force + 0.05 * spin**2 * sine) / 1.1
    spin_up = (9.8 * sine - cosine * push) / (0.5 * (4.0 / 3.0 - 0.1 * cosine**2 / 1.1))
    speed_up = push - 0.05 * spin_up * cosine / 1.1
    physics = jnp.stack([x + 0.02 * velocity, velocity + 0.02 * speed_up, angle + 0.02 * spin, spin + 0.02 * spin_up])
    time_now, episode_return = state.time + 1, state.episode_return + 1.0
    fallen = (jnp.abs(physics[0]) > 2.4) | (jnp.abs(physics[2]) > 12 * 2 * jnp.pi / 360)
    done = fallen | (time_now >= 500)
    moved = CartPole(physics, time_now, episode_return)
    state = jax.tree.map(lambda new, old: jnp.where(done, new, old), reset(key), moved)
    return state, jnp.float32(1.0), done, episode_return


# Network: separate actor and critic, two tanh layers of 64


def orthogonal(random: np.random.Generator, inputs: int, outputs: int, scale: float) -> dict[str, np.ndarray]:
    square, _ = np.linalg.qr(random.normal(size=(max(inputs, outputs), min(inputs, outputs))))
    kernel = square if inputs >= outputs else square.T
    return {"kernel": np.float32(scale * kernel), "bias": np.zeros(outputs, np.float32)}


def init_network(seed: int) -> Tree:
    random, root2 = np.random.default_rng(seed), 2**0.5
    torso = [(4, 64, root2), (64, 64, root2)]
    return {
        "actor": [orthogonal(random, *sizes) for sizes in [*torso, (64, 2, 0.01)]],
        "critic": [orthogonal(random, *sizes) for sizes in [*torso, (64, 1, 1.0)]],
    }


def forward(layers: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    for layer in layers[:-1]:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    return x @ layers[-1]["kernel"] + layers[-1]["bias"]


class Batch(NamedTuple):
    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    advantage: jax.Array


def loss(params: Tree, batch: Batch) -> jax.Array:
    log_probs = jax.nn.log_softmax(forward(params["actor"], batch.obs))
    log_prob = jnp.take_along_axis(log_probs, batch.action[:, None], axis=1)[:, 0]
    value = forward(params["critic"], batch.obs)[:, 0]
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    ratio = jnp.exp(log_prob - batch.log_prob)
    policy_loss = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage).mean()
    value_loss = jnp.square(value - (batch.advantage + batch.value)).mean()
    return policy_loss + VALUE_WEIGHT * value_loss


# Adam by hand, with the gradient clipped by its global norm


class Adam(NamedTuple):
    mean: Tree
    square: Tree
    count: jax.Array


def adam(params: Tree, state: Adam, gradient: Tree, rate: jax.Array) -> tuple[Tree, Adam]:
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    scale = jnp.minimum(1.0, MAX_GRADIENT / (norm + 1e-6))
    count = state.count + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * (scale * g), state.mean, gradient)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * jnp.square(scale * g), state.square, gradient)
    mean_unit, square_unit = 1 - 0.9**count, 1 - 0.999**count

    def move(p: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
        return p - rate * (m / mean_unit) / (jnp.sqrt(s / square_unit) + 1e-5)

    return jax.tree.map(move, params, mean, square), Adam(mean, square, count)


# The whole training as one function


def make_train(envs: int, steps: int, minibatch: int, epochs: int, updates: int) -> Any:
    """`train(params, key)` -> (params, (sum of returns, number) of the episodes that ended in each update)."""
    batch_size = envs * steps
    if batch_size % minibatch:
        raise ValueError(f"a batch of {envs} envs x {steps} steps does not split into minibatches of {minibatch}")

    def collect(params: Tree, state: CartPole, key: jax.Array) -> tuple[CartPole, tuple[Batch, ...]]:
        def one_step(state: CartPole, key: jax.Array) -> tuple[CartPole, tuple]:
            act_key, step_key = jax.random.split(key)
            obs = state.physics
            logits = forward(params["actor"], obs)
            value = forward(params["critic"], obs)[:, 0]
            action = jax.random.categorical(act_key, logits)
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=1)[:, 0]
            state, reward, done, returns = jax.vmap(step)(state, action, jax.random.split(step_key, envs))
            return state, (obs, action, log_prob, value, reward, done, returns)

        return jax.lax.scan(one_step, state, jax.random.split(key, steps))

    def advantages(value: jax.Array, reward: jax.Array, done: jax.Array, last_value: jax.Array) -> jax.Array:
        def one_step(carry: tuple, step: tuple) -> tuple[tuple, jax.Array]:
            advantage, next_value = carry
            value, reward, done = step
            goes_on = 1.0 - done
            delta = reward + GAMMA * next_value * goes_on - value
            advantage = delta + GAMMA * LAMBDA * goes_on * advantage
            return (advantage, value), advantage

        start = (jnp.zeros_like(last_value), last_value)
        return jax.lax.scan(one_step, start, (value, reward, done), reverse=True)[1]

    def learn(params: Tree, optimizer: Adam, batch: Batch, key: jax.Array, rate: jax.Array) -> tuple[Tree, Adam]:
        def one_minibatch(carry: tuple, part: Batch) -> tuple[tuple, None]:
            params, optimizer = carry
            return adam(params, optimizer, jax.grad(loss)(params, part), rate), None

        def one_epoch(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            if minibatch == batch_size:
                return one_minibatch(carry, batch)
            order = jax.random.permutation(key, batch_size)
            parts = jax.tree.map(lambda leaf: leaf[order].reshape(-1, minibatch, *leaf.shape[1:]), batch)
            return jax.lax.scan(one_minibatch, carry, parts)[0], None

        return jax.lax.scan(one_epoch, (params, optimizer), jax.random.split(key, epochs))[0]

    def update(carry: tuple, progress: jax.Array) -> tuple[tuple, tuple]:
        params, optimizer, state, key = carry
        key, collect_key, learn_key = jax.random.split(key, 3)
        state, (obs, action, log_prob, value, reward, done, returns) = collect(params, state, collect_key)
        last_value = forward(params["critic"], state.physics)[:, 0]
        advantage = advantages(value, reward, done, last_value)
        batch = Batch(obs, action, log_prob, value, advantage)
        batch = jax.tree.map(lambda leaf: leaf.reshape(batch_size, *leaf.shape[2:]), batch)
        params, optimizer = learn(params, optimizer, batch, learn_key, RATE * (1 - progress))
        return (params, optimizer, state, key), (jnp.sum(returns * done), jnp.sum(done))

    def train(params: Tree, key: jax.Array) -> tuple[Tree, tuple[jax.Array, jax.Array]]:
        zeros = jax.tree.map(jnp.zeros_like, params)
        optimizer = Adam(zeros, zeros, jnp.int32(0))
        key, reset_key = jax.random.split(key)
        state = jax.vmap(reset)(jax.random.split(reset_key, envs))
        progress = jnp.arange(updates) / updates
        (params, *_), episodes = jax.lax.scan(update, (params, optimizer, state, key), progress)
        return params, episodes

    return jax.jit(train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--minibatch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--timesteps", type=int, default=100_000, help="environment steps of one training")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    updates = max(1, arguments.timesteps // (arguments.envs * arguments.steps))
    train = make_train(arguments.envs, arguments.steps, arguments.minibatch, arguments.epochs, updates)
    started = time.perf_counter()
    train = train.lower(init_network(arguments.seed), jax.random.key(arguments.seed)).compile()
    compile_s = time.perf_counter() - started
    jax.block_until_ready(train(init_network(arguments.seed), jax.random.key(arguments.seed)))  # warm-up

    speeds, speeds_of_cpu, last_returns = [], [], []
    steps = updates * arguments.envs * arguments.steps
    for repeat in range(arguments.repeats):
        params, key = init_network(arguments.seed + repeat), jax.random.key(arguments.seed + repeat)
        started, cpu_started = time.perf_counter(), time.process_time()
        _, (returns, episodes) = jax.block_until_ready(train(params, key))
        speeds.append(steps / (time.perf_counter() - started))
        speeds_of_cpu.append(steps / (time.process_time() - cpu_started))
        last = max(1, updates // 10)
        last_returns.append(float(np.sum(returns[-last:]) / max(1, np.sum(episodes[-last:]))))
    figures = {
        "steps_per_second": statistics.median(speeds),
        "all_steps_per_second": speeds,
        "steps_per_cpu_second": statistics.median(speeds_of_cpu),
        "compile_s": compile_s,
        "timesteps": steps,
        "last_return": statistics.median(last_returns),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""Wrong lines that the tests have to notice: see `mutate.py`.

Each is a file, a text that is in it once (or its n-th occurrence), what replaces it, and the tests that are to fail.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    file: str
    old: str
    new: str
    tests: str  # arguments of pytest
    nth: int | None = None  # which occurrence of `old`, from 1; None: the only one

    def __str__(self) -> str:
        return f"{self.file}: {self.old!r} -> {self.new!r}"


def _in(file: str, tests: str, *changes: tuple) -> list[Mutation]:
    """Mutations of one file: `(old, new)`, and after these the number of the occurrence or tests of its own."""
    found = []
    for old, new, *more in changes:
        nth = next((each for each in more if isinstance(each, int)), None)
        own = next((each for each in more if isinstance(each, str)), tests)
        found.append(Mutation(file, old, new, own, nth))
    return found


OPS = [
    *_in(
        "athlete/ops/returns.py",
        "tests/test_ops_returns.py",
        ("gamma * jnp.where(terminated, 0.0, next_value) - value", "gamma * next_value - value"),
        ("jnp.where(terminated | truncated, 0.0, gamma * lambda_)", "jnp.where(terminated, 0.0, gamma * lambda_)"),
        ("jnp.where(terminated | truncated, 0.0, gamma * lambda_)", "jnp.where(truncated, 0.0, gamma * lambda_)"),
        ("jnp.where(terminated | truncated, 0.0, gamma * lambda_)", "jnp.where(terminated | truncated, 0.0, gamma)"),
        ("advantage = delta_t + decay_t * advantage", "advantage = delta_t + advantage"),
        ("weight = jnp.where(over, gamma, gamma * (1.0 - lambda_))", "weight = gamma * (1.0 - lambda_)"),
        ("now = reward + jnp.where(terminated, 0.0, weight * next_value)", "now = reward + weight * next_value"),
        ("scan(backwards, next_value[-1],", "scan(backwards, jnp.zeros_like(next_value[-1]),"),
        ("decay = jnp.where(over, 0.0, gamma * lambda_)", "decay = gamma * lambda_ * jnp.ones(reward.shape)"),
        ("decay = jnp.where(first, 0.0, gamma)", "decay = jnp.where(first, gamma, gamma)"),
        ("scan(forwards, before,", "scan(forwards, jnp.zeros_like(before),"),
        ("(terminated | batch.truncated)[:-1] | batch.first[1:]", "(terminated | batch.truncated)[:-1]"),
        ("(terminated | batch.truncated)[:-1]", "terminated[:-1]"),
        ("(terminated | batch.truncated)[:-1]", "batch.truncated[:-1]"),
        ("counts * powers[:, None] * reward", "counts * reward"),
        ("counts * powers[:, None] * reward", "powers[:, None] * reward"),
        ("dead = jnp.any(terminated & (counts > 0.0), axis=0)", "dead = jnp.any(terminated, axis=0)"),
        ("dead = jnp.any(terminated & (counts > 0.0), axis=0)", "dead = terminated[0]"),
        ("jnp.where(dead, 0.0, gamma**steps)", "jnp.where(dead, 0.0, gamma)"),
        ("last = steps.astype(jnp.int32) - 1", "last = jnp.full(steps.shape, reward.shape[0] - 1)"),
        ("leaf[0] if leaf.shape[0] == 1 else leaf[step, rows]", "leaf[0]"),
    ),
    *_in(
        "athlete/ops/gradient.py",
        "tests/test_ops_gradient.py",
        ("jnp.sqrt(sum(jnp.sum(part * part) for part in gradient))", "sum(jnp.sum(part * part) for part in gradient)"),
        ("scale = jnp.minimum(1.0, grad_clip / (norm + 1e-6))", "scale = grad_clip / (norm + 1e-6)"),
        ("gradient = [scale * part for part in gradient]", "gradient = [1.0 * part for part in gradient]"),
        ("beta1 * old + (1.0 - beta1) * new for", "beta1 * old + new for"),
        ("0.999 * old + 0.001 * new * new", "0.999 * old + 0.001 * jnp.abs(new)"),
        ("count = state.count + 1", "count = state.count + 2"),
        ("root = jnp.sqrt(1.0 - 0.999**steps)", "root = jnp.ones(())"),
        ("learning_rate * root / (1.0 - beta1**steps)", "learning_rate * root"),
        (
            "least = learning_rate * root / (1.0 - beta1**steps), epsilon * root",
            "least = learning_rate * root / (1.0 - beta1**steps), 1e-8 * root",
        ),
        ("if leaf.size < LARGE]), *[leaf", "if leaf.size <= LARGE]), *[leaf"),
        (
            "g + coefficient * w if w.ndim > 1 else g",
            "g + coefficient * w",
            "tests/test_ddpg.py tests/test_references.py::test_deterministic_policies",
        ),
        ("jax.lax.pmean(gradient, axis_name)", "jax.lax.psum(gradient, axis_name)"),
    ),
    *_in(
        "athlete/ops/schedule.py",
        "tests/test_ops_schedule.py",
        ("(progress - self.at[i]) / span, 0.0, 1.0)", "(progress - self.at[i]) / span, 0.0, 2.0)"),
        ("(progress - self.at[i]) / span, 0.0, 1.0)", "(progress - self.at[i]) / span, -1.0, 1.0)"),
        ("(self.values[i + 1] - self.values[i]) * ramp", "self.values[i + 1] * ramp"),
        ("span = self.at[i + 1] - self.at[i]", "span = 1.0"),
        ("number(progress) if isinstance(number, Schedule)", "number(jnp.zeros(())) if isinstance(number, Schedule)"),
        (
            "tuple(time / horizon for time in times)",
            "tuple(time for time in times)",
            "tests/test_config.py tests/test_ops_schedule.py",
        ),
        ("later <= earlier", "later < earlier"),
    ),
    *_in(
        "athlete/ops/values.py",
        "tests/test_ops_values.py",
        ("value + advantage - jnp.mean(advantage, axis=1, keepdims=True)", "value + advantage"),
        (
            "advantage - jnp.mean(advantage, axis=1, keepdims=True)",
            "advantage - jnp.max(advantage, axis=1, keepdims=True)",
        ),
        ("jnp.minimum(jnp.abs(error), delta)", "jnp.abs(error)"),
        ("(jnp.abs(error) - 0.5 * small)", "(jnp.abs(error) - small)"),
        ("old + tau * (new - old)", "new + tau * (old - new)"),
        ("due = since >= frequency", "due = since > frequency"),
        ("jnp.maximum(since - frequency, 0.0)", "0.0 * since"),
        (
            "jnp.sign(value) * (jnp.sqrt(jnp.abs(value) + 1.0) - 1.0) + epsilon * value",
            "jnp.sign(value) * (jnp.sqrt(jnp.abs(value) + 1.0) - 1.0)",
        ),
        ("jnp.sqrt(1.0 + 4.0 * epsilon * size)", "jnp.sqrt(1.0 + 2.0 * epsilon * size)"),
        ("jnp.abs(value) + 1.0 + epsilon", "jnp.abs(value) + 1.0"),
        ("where(due, moved, target)", "where(due, online, target)"),
    ),
    *_in(
        "athlete/ops/td.py",
        "tests/test_ops_td.py",
        ("at_step(batch.next_obs, steps.last)", "jax.tree.map(lambda leaf: leaf[-1], batch.next_obs)"),
        ('batch.extras["weight"][0] if', 'jnp.ones_like(batch.extras["weight"][0]) if'),
        ("jax.lax.stop_gradient(reward + discount * next_value)", "reward + discount * next_value"),
        ("reward + discount * next_value", "reward + next_value"),
        (
            "double_q_learning(values, step, next_values, next_values)",
            "double_q_learning(values, step, next_values, values)",
        ),
        ("greedy(selector, step.next_mask)", "greedy(selector)"),
        ("greedy(selector, step.next_mask)", "greedy(next_values, step.next_mask)"),
        (
            "project(probabilities, returns, support)",
            "project(probabilities, jnp.broadcast_to(support, returns.shape), support)",
        ),
        ("pooled.shape[-1] - dropped", "pooled.shape[-1]"),
        ("pooled + entropy_bonus[:, None]", "pooled"),
        ("steps.return_ + steps.discount * reached", "steps.return_ + gamma * reached"),
        ("at_step(windows(next_value, n), steps.last)", "windows(next_value, n)[-1]"),
        (
            "features(spec.obs, obs),\n        action_mask(spec, obs)",
            "features(spec.obs, obs),\n        action_mask(spec, next_obs)",
        ),
    ),
    *_in(
        "athlete/ops/quantile.py",
        "tests/test_ops_quantile.py",
        ("(jnp.arange(number) + 0.5) / number", "jnp.arange(number) / number"),
        ("jnp.abs(fractions[..., None] - (error < 0.0))", "jnp.abs(fractions[..., None] - (error > 0.0))"),
        (
            "jnp.sum(side * huber(error, kappa), axis=(1, 2)) / kappa",
            "jnp.sum(side * huber(error, kappa), axis=(1, 2))",
        ),
        ("jnp.clip(error, -kappa, kappa), axis=2) / kappa", "error, axis=2) / kappa"),
        ("slope = -jnp.sum(", "slope = jnp.sum("),
        ("1.0 / target.shape[1]) if weight is None else weight", "1.0 / target.shape[1])"),
        ("(other < own) | ((other == own) & earlier)", "(other < own) | (other == own)"),
        ("(other < own) | ((other == own) & earlier)", "other < own"),
        ("jnp.where(rank < number, 1.0 / number, 0.0)", "jnp.where(rank <= number, 1.0 / number, 0.0)"),
    ),
    *_in(
        "athlete/ops/projection.py",
        "tests/test_ops_projection.py",
        ("jnp.arange(number) / (number - 1)", "jnp.arange(number) / number"),
        ("held = jnp.clip(returns, support[0], support[-1])", "held = returns"),
        ("/ spacing, 0.0, 1.0)", "/ (2 * spacing), 0.0, 1.0)"),
    ),
    *_in(
        "athlete/ops/surrogate.py",
        "tests/test_ops_surrogate.py",
        ("gain - 2.0 * jnp.tanh(gain / 2.0)", "gain - jnp.tanh(gain)"),
        ("loss - 0.6 * jnp.tanh(loss / 0.6)", "loss - 2.0 * jnp.tanh(loss / 2.0)"),
        ("advantage >= 0.0", "advantage < 0.0"),
        ("jax.nn.relu(drift)", "drift"),
        ("log_ratio * advantage", "(ratio - 1.0) * advantage"),
    ),
    *_in(
        "athlete/ops/temperature.py",
        "tests/test_ops_temperature.py",
        ("jnp.mean(entropy) - target", "target - jnp.mean(entropy)"),
        ("jnp.exp(self.log_alpha)", "self.log_alpha"),
        ("0.98 * math.log(space.n)", "math.log(space.n)"),
        ("-float(math.prod(space.shape))", "float(math.prod(space.shape))"),
        (
            "0.98 * jnp.mean(jnp.log(jnp.sum(mask, axis=-1",
            "0.98 * jnp.mean(jnp.log(jnp.size(mask, axis=-1) + 0 * jnp.sum(mask, axis=-1",
        ),
    ),
    *_in(
        "athlete/ops/trust_region.py",
        "tests/test_ops_trust_region.py tests/test_references.py::test_trpo",
        ("derivative(vector) + damping * vector", "derivative(vector)"),
        ("jnp.sqrt(2.0 * bound / (curvature + 1e-8))", "jnp.sqrt(bound / (curvature + 1e-8))"),
        ("(objective > before) & (kl <= bound)", "objective > before"),
        ("(objective > before) & (kl <= bound)", "kl <= bound"),
        ("decay ** found.attempts.astype(jnp.float32)", "decay ** (1 + found.attempts.astype(jnp.float32))"),
        ("jnp.where(found.fraction > 0.0, start + found.fraction * step, start)", "start + step"),
    ),
    *_in(
        "athlete/ops/priorities.py",
        "tests/test_ops_priorities.py",
        ("live & (ends > position)", "live & (ends >= position)"),
        ("value = _sums(level.at[index]", "value = value + 0 * _sums(level.at[index]"),
        (
            "eta * jnp.max(size, axis=0) + (1.0 - eta) * jnp.mean(size, axis=0)",
            "eta * jnp.mean(size, axis=0) + (1.0 - eta) * jnp.max(size, axis=0)",
        ),
        ("size = jnp.abs(error)", "size = error"),
        ("node = node * WIDTH + child[:, 0]", "node = node + child[:, 0]"),
        ("(position - start) / length", "(position - start)"),
    ),
    *_in(
        "athlete/ops/shuffle.py",
        "tests/test_ops_shuffle.py",
        ("_mix(high ^ keys[i + 1])", "_mix(high ^ keys[0])"),
        ("% high_base) % high_base", "% high_base)"),
        ("rounds = 6", "rounds = 2"),
        (
            "keys = jax.random.bits(key, (rounds, orders, 1))",
            "keys = jnp.broadcast_to(jax.random.bits(key, (rounds, 1, 1)), (rounds, orders, 1))",
        ),
    ),
    *_in(
        "athlete/ops/sequences.py",
        "tests/test_ops_sequences.py",
        ("jnp.moveaxis(pieces, 0, 1)", "pieces"),
        ("lambda leaf: leaf[0], sequences.carry", "lambda leaf: leaf[-1], sequences.carry"),
        ("leaf[i : i + number].reshape", "leaf[:number].reshape"),
        ("orders[:, : number // size * size]", "orders[:1, : number // size * size]"),
        ("leaf.at[order].get", "leaf.at[0 * order].get"),
    ),
    *_in(
        "athlete/ops/noisy.py",
        "tests/test_ops_noisy.py",
        ("sigma0 / math.sqrt(leaf.shape[0])", "sigma0"),
        ("jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))", "normal"),
        ("mean + sigma * drawn", "mean + drawn"),
        ("start += size", "start += 0"),
    ),
    *_in(
        "athlete/ops/masks.py",
        "tests/test_masks.py",
        ("part | ~jnp.any(part, axis=-1, keepdims=True)", "part"),
        ("values if mask is None else jnp.where(mask, values, FORBIDDEN)", "values"),
        ("masked(jnp.zeros(part.shape), part)", "jnp.zeros(part.shape)"),
        ("if name != ACTION_MASK}", "if True}", 1),
    ),
    *_in(
        "athlete/ops/moments.py",
        "tests/test_ops_moments.py",
        ("(jnp.mean(leaf, axis=(0, 1)) - mean) * size / total", "(jnp.mean(leaf, axis=(0, 1)) - mean)"),
        (
            "variance * moments.count + jnp.var(leaf, axis=(0, 1)) * size",
            "variance + jnp.var(leaf, axis=(0, 1)) * size",
        ),
        ("(squares + shift * shift * moments.count * size / total) / total", "squares / total"),
        ("jnp.minimum(total, MOST_SAMPLES)", "total"),
        ("/ jnp.sqrt(variance + 1e-8), -clip, clip)", "/ (variance + 1e-8), -clip, clip)"),
        ("/ jnp.sqrt(variance + 1e-8), -clip, clip)", "/ jnp.sqrt(variance + 1e-8), -99.0, 99.0)"),
    ),
    *_in(
        "athlete/ops/statistics.py",
        "tests/test_ops_statistics.py tests/test_ops_returns.py",
        ("1.0 - error / (variance + 1e-8)", "error / (variance + 1e-8)"),
        ("cut = ordered.size // 4", "cut = ordered.size // 2 - 1"),
        ("jnp.stack([target, target - prediction])", "jnp.stack([prediction, target - prediction])"),
    ),
    *_in(
        "athlete/ops/features.py",
        "tests/test_ops_features.py",
        ("obs - space.start if space.start else obs", "obs"),
        ("obs - space.lowest", "obs"),
        ("vector / _largest(space) if", "vector if"),
        (") * choice[..., i, None] for", ") for"),
    ),
    *_in(
        "athlete/ops/tree.py",
        "tests/test_ops_tree.py",
        (
            "(1,) * (a.ndim - condition.ndim)",
            "(1,) * (a.ndim - condition.ndim) if a.ndim < 3 else (1,) * (a.ndim - 1) + condition.shape",
        ),
        ("next(wide) if place is None", "next(wide) if place is None and False"),
        ("start += size", "start += 1", 1),
    ),
    *_in(
        "athlete/ops/sampling.py",
        "tests/test_sampling.py",
        ("-jnp.log1p(-uniform)", "uniform"),
        ("floor * (1 - uniform) + ceiling * uniform", "ceiling * uniform"),
        (".astype(jnp.int32) + start", ".astype(jnp.int32)"),
        ("count = (high - low + 1)", "count = (high - low)"),
        ("ceiling - tail", "ceiling + tail"),
    ),
    *_in(
        "athlete/ops/random.py",
        "tests/test_ops_random.py",
        ("key[0] ^ jnp.uint32(0x9E3779B9)", "key[0]"),
        ("for _ in range(2):", "for _ in range(0):"),
        ("x, y, z = x ^ (x >> 16), y ^ (y >> 16), z ^ (z >> 16)", "pass"),
    ),
]

MEMORY = [
    *_in(
        "athlete/memory/ring.py",
        "tests/test_memory_replay.py",
        ("cursor = (ring.cursor + length) % slots", "cursor = (ring.cursor + 1) % slots"),
        ("jnp.minimum(ring.filled + length, slots)", "ring.filled + length"),
        ("(ring.filled - window + 1) * rows", "ring.filled * rows"),
        ("(ring.filled - window + 1) * rows", "(ring.filled - window) * rows"),
        ("(ring.cursor - ring.filled + drawn // rows) % slots, drawn % rows", "(drawn // rows) % slots, drawn % rows"),
        (
            "(ring.cursor - ring.filled + drawn // rows) % slots, drawn % rows",
            "(ring.cursor - ring.filled + drawn // rows) % slots, 0 * drawn",
        ),
        (
            "(slot[None] + jnp.arange(length)[:, None]) % slots",
            "(slot[None] + 0 * jnp.arange(length)[:, None]) % slots",
        ),
        ("-(-capacity // (rows * unroll)) * unroll", "capacity // (rows * unroll) * unroll"),
        ("least = window + unroll - 1", "least = window"),
        (
            "(ring.cursor - window + 1 - later) % slots, row",
            "(ring.cursor - later) % slots, row",
            "tests/test_memory_frames.py",
        ),
        (
            "jnp.sum(drawn[:, None] >= ends, axis=-1)",
            "jnp.sum(drawn[:, None] > ends, axis=-1)",
            "tests/test_memory_frames.py",
        ),
        ("kept - jnp.sum(gone, axis=0, dtype=jnp.int32)", "kept", "tests/test_memory_frames.py"),
    ),
    *_in(
        "athlete/memory/frames.py",
        "tests/test_memory_frames.py",
        ("1 + depth * trajectory.first", "1 + 0 * trajectory.first"),
        (
            "(frames.newest - pointer) % _period(count) + depth > count",
            "(frames.newest - pointer) % _period(count) > count",
        ),
        (
            "stacks[:, :, :-1], 2, to), jnp.moveaxis(stacks[:, :, 1:], 2, to)",
            "stacks[:, :, :-1], 2, to), jnp.moveaxis(stacks[:, :, :-1], 2, to)",
        ),
        ("slots + slots // 8 + (depth + 1) * at_least", "slots"),
        ("(after - 1) % _period(count)", "after % _period(count)"),
    ),
    *_in(
        "athlete/memory/prioritized.py",
        "tests/test_memory_prioritized.py",
        (" ** -value_at(self.beta, progress)", " ** -0.4"),
        (" ** -value_at(self.beta, progress)", " ** value_at(self.beta, progress)"),
        ("priority / jnp.min(priority)", "priority / jnp.max(priority)"),
        (
            'jnp.abs(metrics["td_error"]) + self.epsilon) ** self.alpha',
            'metrics["td_error"] + self.epsilon) ** self.alpha',
        ),
        ("+ self.epsilon) ** self.alpha", "+ self.epsilon)"),
        ("jnp.maximum(store.largest, jnp.max(priority))", "store.largest"),
        ("jnp.where(complete, store.largest, 0.0)", "jnp.where(complete, 1.0, 0.0)"),
        ("complete = there & (offset <= length - self.window)", "complete = there"),
        ("(offset >= 0) | (store.ring.filled + offset >= 0)", "offset > -99"),
        ("offset = jnp.arange(1 - self.window, length)", "offset = jnp.arange(0, length)"),
        ("self.batch_size // self.sequence", "self.batch_size"),
    ),
    *_in(
        "athlete/memory/replay.py",
        "tests/test_memory_replay.py",
        ("self.batch_size // self.sequence", "self.batch_size"),
        ("trajectory if self.keep_carry else trajectory._replace(carry=())", "trajectory._replace(carry=())"),
        ("trajectory if self.keep_carry else trajectory._replace(carry=())", "trajectory"),
    ),
]

ENDINGS = "tests/test_loops_endings.py"
ON_POLICY_MODES, OFF_POLICY_MODES = "tests/test_on_policy_modes.py", "tests/test_off_policy_modes.py"

LOOPS = [
    *_in(
        "athlete/loops/collect.py",
        ENDINGS,
        ("action, step.reward, step.obs, step.terminated", "action, step.reward, rows.obs, step.terminated"),
        ("done = step.terminated | step.truncated", "done = step.terminated"),
        ("first=done,", "first=step.terminated,"),
        ("jnp.where(done, 0.0, total)", "total", "tests/test_mode_equivalence.py"),
        ("jnp.where(done, 0, length)", "length", "tests/test_mode_equivalence.py"),
        ("where(episodes.done, reset_state, env_state)", "env_state"),
        (
            "jax.random.split(step, (length, rows))",
            "jax.random.split(reset, (length, rows))",
            "tests/test_mode_equivalence.py",
        ),
        ("if random:", "if False:", "tests/test_replay_config.py tests/test_stepwise.py"),
    ),
    *_in(
        "athlete/loops/learn.py",
        "tests/test_off_policy_modes.py",
        (
            "store = agent.memory.feedback(store, batch, metrics)",
            "pass",
            "tests/test_memory_prioritized.py tests/test_replay_config.py",
        ),
        (
            "jax.random.split(key, agent.updates)",
            "jnp.stack([key] * agent.updates)",
            "tests/test_replay_config.py tests/test_resume.py",
        ),
    ),
    *_in(
        "athlete/loops/host.py",
        ENDINGS,
        (
            "        running = ~done",
            "        steps[-1] = (transition._replace(next_obs=obs), episodes)\n        running = ~done",
        ),
        ("done = step.terminated | step.truncated", "done = step.terminated"),
        ("running = ~done", "running = ~step.terminated", "tests/test_mode_equivalence.py"),
    ),
    *_in(
        "athlete/loops/stepwise.py",
        ENDINGS,
        ("        outcome.next_obs,\n", "        outcome.obs,\n"),
        (
            "first, carry = transition.terminated | transition.truncated, before.chosen.next_carry",
            "first, carry = transition.terminated, before.chosen.next_carry",
        ),
        ("before.chosen.next_carry\n    chosen", "before.chosen.carry\n    chosen"),
        ("done = step.terminated | step.truncated", "done = step.terminated"),
        (
            "episodes.return_ * ~done, episodes.length * ~done",
            "episodes.return_, episodes.length",
            "tests/test_stepwise.py tests/test_off_policy_modes.py",
        ),
        ("last = step == self.length - 1", "last = step == 0", "tests/test_off_policy_modes.py"),
    ),
]

COMBINE = [
    *_in(
        "athlete/combine/normalize.py",
        "tests/test_normalize.py",
        (
            "state.obs if self.memory.keeps else state.acting",
            "state.obs",
            "tests/test_normalize.py tests/test_filters.py",
        ),
        (
            "state.obs if self.memory.keeps else state.acting",
            "state.acting",
            "tests/test_normalize.py tests/test_filters.py",
        ),
        ("state._replace(agent=agent, acting=state.obs)", "state._replace(agent=agent)"),
        ("update_moments(obs, self._floats(trajectory.obs))", "update_moments(obs, self._floats(trajectory.next_obs))"),
        ("update_moments(returns, sums), sums[-1]", "update_moments(returns, sums), return_"),
        ("batch.reward / jnp.sqrt(state.returns.variance + 1e-8)", "batch.reward / (state.returns.variance + 1e-8)"),
        ("jnp.clip(scaled, -self.reward_clip, self.reward_clip)", "scaled"),
        ("for obs in (batch.obs, batch.next_obs))", "for obs in (batch.obs, batch.obs))"),
        ("self.gamma, return_)", "0.99, return_)"),
        (
            "ACTION_MASK: obs[ACTION_MASK] > 0",
            "ACTION_MASK: obs[ACTION_MASK]",
            "tests/test_normalize.py tests/test_masks.py",
        ),
    ),
    *_in(
        "athlete/combine/curious.py",
        "tests/test_bonuses.py",
        ("reward=batch.reward + intrinsic", "reward=batch.reward"),
        ("reward=batch.reward + intrinsic", "reward=intrinsic"),
        (
            "        bonus, measured = self.bonus.update(state.bonus, batch)\n",
            "        bonus, measured = self.bonus.update(state.bonus, batch)\n"
            "        intrinsic = self.bonus.reward(bonus, batch)\n",
        ),
        ("reward=trajectory.reward + self.bonus.reward(bonus, trajectory)", "reward=trajectory.reward"),
    ),
    *_in(
        "athlete/combine/rewards.py",
        "tests/test_filters.py tests/test_normalize.py",
        ("jnp.sign(reward)", "reward"),
        ("jnp.clip(reward, -self.clip, self.clip)", "jnp.clip(reward, -1.0, 1.0)"),
        ("self.scale * reward", "reward"),
    ),
    *_in(
        "athlete/combine/observations.py",
        "tests/test_filters.py",
        ("next_obs=each(batch.next_obs)", "next_obs=each(batch.obs)"),
        ("jax.vmap(self.function)(obs), first, key, explore", "jax.vmap(self.function)(0 * obs), first, key, explore"),
    ),
    *_in(
        "athlete/bonuses/rnd.py",
        "tests/test_bonuses.py",
        ("features(self.spec.obs, batch.next_obs)", "features(self.spec.obs, batch.obs)"),
        ("/ jnp.sqrt(state.returns.variance + 1e-8)", "/ (state.returns.variance + 1e-8)"),
        ("jnp.zeros_like(trajectory.first), self.gamma, accumulators", "trajectory.first, self.gamma, accumulators"),
        (
            "jnp.zeros_like(trajectory.first), self.gamma, accumulators",
            "jnp.zeros_like(trajectory.first), self.gamma, 0 * accumulators",
        ),
        ("self.eta * error", "error"),
        ("seen = standardize(seen, state.obs.mean, state.obs.variance, CLIP)", "pass"),
        ("self._embedding(state.target, seen)", "self._embedding(predictor, seen) + 1.0"),
        ("update_moments(state.obs, features(self.spec.obs, trajectory.next_obs))", "state.obs"),
    ),
    *_in(
        "athlete/bonuses/counts.py",
        "tests/test_bonuses.py",
        ("self.eta / jnp.sqrt(visits", "self.eta / (visits"),
        ("].add(1)", "].set(1)"),
        ("state.visits[self._code(state, batch.next_obs)]", "state.visits[self._code(state, batch.obs)]"),
        ("signs << jnp.arange(self.hash_bits)", "signs << 0"),
    ),
    *_in(
        "athlete/bonuses/curiosity.py",
        "tests/test_bonuses.py",
        ("(1.0 - self.beta) * inverse + self.beta * error", "self.beta * inverse + (1.0 - self.beta) * error"),
        ("self.eta * error", "error"),
        ("jnp.square(predicted - next_phi)", "jnp.square(predicted - phi)"),
        ("0.5 * jnp.sum(jnp.square", "jnp.sum(jnp.square"),
        ("jnp.concatenate([phi, next_phi], axis=-1)", "jnp.concatenate([next_phi, phi], axis=-1)"),
        ("inverse = -jnp.mean(", "inverse = jnp.mean("),
    ),
]

EXPLORING = [
    *_in(
        "athlete/exploration.py",
        "tests/test_exploration.py",
        ("uniform < level, random, greedy(values, mask)", "uniform > level, random, greedy(values, mask)"),
        ("(bits[1] % values.shape[-1])", "(bits[0] % values.shape[-1])"),
        ("if mask is None else nth_legal(mask, bits[1])", "", "tests/test_masks.py"),
        ("values / jnp.maximum(level, 1e-6)", "values * jnp.maximum(level, 1e-6)"),
        ("self.stddev * value_at(self.scale, progress)", "self.stddev"),
        (
            "jnp.clip(action + level * jax.random.normal(key, action.shape), -1.0, 1.0)",
            "action + level * jax.random.normal(key, action.shape)",
        ),
        (
            "jnp.clip(action + level * jax.random.normal(key, action.shape), -1.0, 1.0)",
            "jnp.clip(action + jax.random.normal(key, action.shape), -1.0, 1.0)",
        ),
        ("drift - self.theta * drift + self.sigma", "drift + self.sigma"),
        ("drift = where(first, jnp.zeros_like(carry), carry)", "drift = carry"),
        ("action + 2.0 * level * drift", "action + level * drift"),
        (
            "found <= value_at(self.target, progress), stddev * self.factor, stddev / self.factor",
            "found <= value_at(self.target, progress), stddev / self.factor, stddev * self.factor",
        ),
        (
            "jax.nn.log_softmax(plain) - jax.nn.log_softmax(noisy)",
            "jax.nn.log_softmax(noisy) - jax.nn.log_softmax(plain)",
        ),
        ("jnp.sqrt(jnp.mean(jnp.square(plain - noisy)))", "jnp.mean(jnp.square(plain - noisy))"),
        (
            "counted > (number % counted[..., -1])[..., None]",
            "counted >= (number % counted[..., -1])[..., None]",
            "tests/test_exploration.py tests/test_masks.py",
        ),
        ("keys = where(first, fresh, carry)", "keys = fresh"),
        ("keys = where(first, fresh, carry)", "keys = carry"),
        ("vector + stddev * jax.random.normal", "vector + jax.random.normal"),
        ("self.base_scale * value_at(self.scale, progress)", "self.base_scale"),
    ),
    *_in(
        "athlete/distributions.py",
        "tests/test_distributions.py",
        ("-jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)", "jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)"),
        ("log_probs - jax.nn.log_softmax(other.logits)", "jax.nn.log_softmax(other.logits) - log_probs"),
        ("self.mean + jnp.exp(self.log_std) * jax.random.normal", "self.mean + self.log_std * jax.random.normal"),
        ("(action - self.mean) * jnp.exp(-self.log_std)", "(action - self.mean) * jnp.exp(self.log_std)"),
        ("0.5 * standard * standard + self.log_std +", "0.5 * standard * standard +"),
        ("0.5 * math.log(2 * math.pi * math.e)", "0.5 * math.log(2 * math.pi)"),
        ("jnp.exp(2.0 * (self.log_std - other.log_std))", "jnp.exp(self.log_std - other.log_std)"),
        ("(self.mean - other.mean) * jnp.exp(-other.log_std)", "(self.mean - other.mean) * jnp.exp(-self.log_std)"),
        ("self.base.log_prob(raw) - _log_tanh_slope(raw)", "self.base.log_prob(raw)", 1),
        ("self.base.log_prob(raw) - _log_tanh_slope(raw)", "self.base.log_prob(raw) + _log_tanh_slope(raw)", 2),
        ("math.log(2.0) - raw - jax.nn.softplus(-2.0 * raw)", "math.log(2.0) + raw - jax.nn.softplus(-2.0 * raw)"),
        ("jnp.clip(log_std, *LOG_STD_RANGE)", "log_std"),
        ("part.sample(keys[i])", "part.sample(keys[0])"),
        (
            "return jnp.sum(Categorical(self.logits).log_prob(action), axis=-1)",
            "return jnp.mean(Categorical(self.logits).log_prob(action), axis=-1)",
        ),
        ("jnp.tanh(self.base.mean)", "self.base.mean"),
        ("constant_values=FORBIDDEN", "constant_values=0"),
    ),
]

MODELS = [
    *_in(
        "athlete/models/dense.py",
        "tests/test_layers.py tests/test_models.py",
        ('@ params["kernel"] + params["bias"]', '@ params["kernel"]'),
        ("scale / math.sqrt(max(layer.inputs, layer.outputs))", "scale / math.sqrt(min(layer.inputs, layer.outputs))"),
        ("centred = x - jnp.mean(x, axis=-1, keepdims=True)", "centred = x"),
        ('centred / deviation * params["scale"] + params["shift"]', "centred / deviation"),
        (
            'folded * layer["keep"] if "keep" in layer else folded',
            "folded",
            "tests/test_redq.py tests/test_references.py::test_ensembles",
        ),
        ("start += size", "start += 0"),
    ),
    *_in(
        "athlete/models/dropout.py",
        "tests/test_redq.py tests/test_references.py::test_ensembles",
        ("jnp.where(uniform < rate, 0.0, 1.0 / (1.0 - rate))", "jnp.where(uniform < rate, 0.0, 1.0)"),
        ("jnp.where(uniform < rate, 0.0, 1.0 / (1.0 - rate))", "jnp.where(uniform > rate, 0.0, 1.0 / (1.0 - rate))"),
        ("kept[:, end - size : end]", "kept[:, :size]", "tests/test_redq.py tests/test_layers.py"),
    ),
    *_in(
        "athlete/models/batch_norm.py",
        "tests/test_batch_norm.py",
        ("running.mean + (1.0 - momentum) * mean", "running.mean + momentum * mean"),
        ("(1.0 - momentum) * (variance - running.variance)", "momentum * (variance - running.variance)"),
        ("(deviation / usual, mean / usual)", "(usual / deviation, mean / usual)"),
        ("(deviation / usual, mean / usual)", "(deviation / usual, mean / deviation)"),
        ("jnp.clip(ratio, 1.0 / LARGEST_RATIO, LARGEST_RATIO)", "ratio"),
        ("jnp.clip(shift, -LARGEST_SHIFT, LARGEST_SHIFT)", "shift"),
        (
            "jax.lax.stop_gradient((deviation / usual, mean / usual))",
            "(deviation / usual, mean / usual)",
            "tests/test_batch_norm.py tests/test_references.py::test_crossq",
        ),
        (
            "(x - running.mean) * jax.lax.rsqrt(running.variance + EPSILON)",
            "x * jax.lax.rsqrt(running.variance + EPSILON)",
        ),
        ("jnp.mean(centred * centred, axis=0) - mean * mean", "jnp.mean(centred * centred, axis=0)"),
    ),
    *_in(
        "athlete/models/recurrent.py",
        "tests/test_models.py tests/test_references.py::test_r2d2",
        ("state = where(first_t, jnp.zeros_like(state), state)", "pass"),
        ("state = where(first_t, jax.tree.map(jnp.zeros_like, state), state)", "pass"),
        ("(1.0 - update) * new + update * state", "update * new + (1.0 - update) * state"),
        ("jax.nn.sigmoid(reset_x + reset_h) * new_h", "new_h"),
        ("jax.nn.sigmoid(forget) * state.cell", "state.cell"),
        ("jax.nn.sigmoid(show) * jnp.tanh(cell)", "jax.nn.sigmoid(show) * cell"),
        ("_one_in(1, (4, self.cell_size))", "_one_in(0, (4, self.cell_size))"),
    ),
    *_in(
        "athlete/models/unroll.py",
        "tests/test_references.py::test_r2d2 tests/test_references.py::test_rnnsac tests/test_r2d2.py",
        ("lambda leaf: jax.lax.stop_gradient(leaf[-1]), warmed", "lambda leaf: jax.lax.stop_gradient(leaf[0]), warmed"),
        (
            "model.apply(jax.lax.stop_gradient(params), carry, obs[:burn_in], first[:burn_in])",
            "model.apply(jax.lax.stop_gradient(params), carry, obs[:burn_in], 0 * first[:burn_in] > 0)",
        ),
        ("jnp.concatenate([start[None], rest])", "jnp.concatenate([rest[:1], rest])"),
    ),
    *_in(
        "athlete/models/actor_critic.py",
        "tests/test_actor_critic.py tests/test_on_policy_modes.py",
        (
            "apply_actor_critic(model, params, fold(carries), next_obs, never)",
            "apply_actor_critic(model, params, jax.tree.map(jnp.zeros_like, fold(carries)), next_obs, never)",
        ),
        (
            "distribution(spec.action, masked(outputs, mask))",
            "distribution(spec.action, outputs)",
            "tests/test_masks.py",
        ),
        (
            "outputs = jnp.concatenate([outputs, jnp.broadcast_to(log_std, ",
            "outputs = jnp.concatenate([outputs, jnp.broadcast_to(0 * log_std, ",
        ),
    ),
    *_in(
        "athlete/models/actors.py",
        "tests/test_td3.py tests/test_references.py::test_deterministic_policies",
        ('jnp.tanh(heads["action"][0])', 'heads["action"][0]'),
    ),
]

MUTATIONS = [*OPS, *MEMORY, *LOOPS, *COMBINE, *EXPLORING, *MODELS]

"""Spread is `mpe2.simple_spread_v3`, step by step, over whole episodes from the same states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.env.games.multi_agent.spread import Spread, SpreadState
from athlete.ops.random import wrap

mpe2 = pytest.importorskip("mpe2", reason="make test-extras runs it", exc_type=ImportError)
KEY = wrap(np.array([0, 3], np.uint32))


def state_of(world):
    """The state of mpe2's world as ours."""
    position, velocity = ([getattr(agent.state, name) for agent in world.agents] for name in ("p_pos", "p_vel"))
    landmarks = [landmark.state.p_pos for landmark in world.landmarks]
    return SpreadState(*(jnp.array(part, jnp.float32) for part in (position, velocity, landmarks)), jnp.int32(0))


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize(("agents", "local_ratio"), [(1, 0.5), (2, 0.0), (3, 0.5), (3, 1.0), (5, 0.25)])
def test_observations_and_rewards_are_those_of_mpe2(agents, local_ratio, continuous):
    from mpe2 import simple_spread_v3

    theirs = simple_spread_v3.parallel_env(N=agents, local_ratio=local_ratio, continuous_actions=continuous)
    ours = Spread(num_agents=agents, local_ratio=local_ratio, continuous_actions=continuous)
    step, generator = jax.jit(ours.step), np.random.default_rng(agents)
    collisions = 0
    for episode in range(8):
        first, _ = theirs.reset(seed=episode)
        names = list(theirs.agents)  # mpe2 empties its own list in place
        # Close together, so that they collide.
        for agent in theirs.unwrapped.world.agents:
            agent.state.p_pos *= 0.3
        state = state_of(theirs.unwrapped.world)
        first = {name: theirs.unwrapped.observe(name) for name in names}
        np.testing.assert_allclose(ours._observe(state)["agent"], np.stack(list(first.values())), atol=1e-6)
        for t in range(25):
            actions = (
                generator.uniform(size=(agents, 5)).astype(np.float32)
                if continuous
                else generator.integers(5, size=agents)
            )
            obs, rewards, terminated, truncated, _ = theirs.step(dict(zip(names, actions, strict=True)))
            state, taken = step(state, {"agent": jnp.asarray(actions)}, KEY)
            np.testing.assert_allclose(taken.obs["agent"], np.stack([obs[name] for name in names]), atol=1e-4)
            np.testing.assert_allclose(taken.reward["agent"], [rewards[name] for name in names], atol=1e-4)
            assert bool(taken.all_truncated) == (t == 24) == all(truncated.values())
            assert not taken.all_terminated and not any(terminated.values())
            positions = np.asarray(state.position)
            apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
            collisions += int((apart < 0.3).sum()) - agents
    assert collisions > 20 or agents == 1, "the episodes must tell something of collisions"

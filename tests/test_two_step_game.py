"""The two-step game of the QMIX paper tells value mixers from one another: what each of them makes of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from athlete.algorithms import get_config_class
from athlete.algorithms.joint import see
from athlete.env.games.multi_agent.two_step_game import TwoStepGame, TwoStepGameState
from athlete.tuned_examples import load

FIRST, SAFE, RISKY = 0, 1, 2  # where the agents are


def q_tot(agent, params, game: TwoStepGame, matrix: int) -> np.ndarray:
    """Q_tot `[2, 2]` of each pair of actions."""
    shown = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], game._observe(TwoStepGameState(jnp.int32(matrix))))
    seen = see(agent.spec, {"obs": shown})
    heads = agent.model.apply(params["agents"]["agent"], (), seen.own["agent"][0], jnp.ones((1, 2), bool))[1]
    values = heads["q"][0]  # [agents, actions]
    pairs = jnp.stack([jnp.stack([values[0, i], values[1, j]]) for i in range(2) for j in range(2)])
    state = jnp.broadcast_to(seen.state, (1, 4, seen.state.shape[-1]))
    return np.asarray(agent._mix(params, pairs[None], state)).reshape(2, 2)


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(1000, 1005))
def test_qmix_finds_the_payoffs_and_vdn_cannot(seed):
    found = {}
    for mixer in ("qmix", "vdn"):
        example = load(f"two-step-game-{mixer}")
        with get_config_class("QMIX").from_dict({**example.config, "seed": seed}).build() as algo:
            while algo.train()["timesteps_total"] < example.stop["timesteps_total"]:
                pass
            agent, params = algo.agent, algo.run.state.params
            game = TwoStepGame(one_hot_state_encoding=True, separate_state_space=True)
            found[mixer] = {matrix: q_tot(agent, params, game, matrix) for matrix in (FIRST, SAFE, RISKY)}
    print(seed, {mixer: {matrix: q.round(3).tolist() for matrix, q in each.items()} for mixer, each in found.items()})
    np.testing.assert_allclose(found["qmix"][RISKY], [[0.0, 1.0], [1.0, 8.0]], atol=0.1)
    np.testing.assert_allclose(found["qmix"][SAFE], 7.0, atol=0.1)
    # The nearest sum, every joint action being as frequent: -1.5, 2.5, 2.5, 6.5; so the safe game seems better.
    np.testing.assert_allclose(found["vdn"][RISKY], [[-1.5, 2.5], [2.5, 6.5]], atol=0.4)

"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv:1812.05905, algorithm 1), also for discrete actions (Christodoulou
2019, arXiv:1910.07207).

One quantity carries both kinds of actions, the soft value of a state: V(s) = E_a[min_i Q_i(s, a) - alpha log pi(a|s)]
(equation 3), estimated with one reparameterised action of a squashed Gaussian (equation 9), or summed exactly over
discrete actions (Christodoulou, equation 10). The critics learn towards r + gamma V(s') (equations 5 and 6), the policy
maximises V (equations 7 and 9; Christodoulou, equation 12), and alpha follows the entropy (equation 18).

Departures:

- n-step returns, without the entropies of the steps in between; prioritised replay; noise on top of sampled actions;
  all off by default;
- a truncated episode is bootstrapped from its true last observation;
- the entropy aimed at is 0.3 log n for n discrete actions, Christodoulou's is 0.98 log n;
- the temperature's loss is in log alpha, and alpha is that of before the update in all losses;
- the squared errors of the critics are added, not averaged, over critics, as in most codes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from athlete.algorithms.soft_actor_critic import ForwardActorCritic, SACState
from athlete.core import Array, Key, Transition, Tree, hyper
from athlete.distributions import flat_action
from athlete.ops.td import n_step_transition, td_error
from athlete.ops.values import half_square
from athlete.settings.families import ActorCriticConfig


@hyper
class SAC(ForwardActorCritic):
    """Hyperparameters of SAC under RLlib's names. Floats and schedules are traced, the rest shapes the program."""

    def update(self, state: SACState, batch: Transition, key: Key, progress: Array) -> tuple[SACState, dict]:
        """The key is split in two: for the next actions, and for those that the actor's loss is estimated with."""
        next_key, key = jax.random.split(key)
        alpha = state.temperature.alpha()
        step = n_step_transition(batch, self.spec, self.gamma)
        next_policy = self._policy(state.actor, step.next_obs, step.next_mask)
        next_value, _ = self._soft_value(next_policy, state.targets, step.next_obs, alpha, next_key)
        action = flat_action(self.spec.action, step.action)

        def critic_losses(critics: list[Tree]) -> tuple[Array, dict[str, Array]]:
            values = self._values(critics, step.obs, action)
            error = td_error(values, step, next_value)
            return jnp.sum(half_square(error), axis=0), {
                "mean_q": jnp.mean(values),
                "mean_td_error": jnp.mean(error),
                "td_error": jnp.mean(jnp.abs(error), axis=0),
            }

        state, metrics = self._learn_critics(critic_losses, state, step.weight, progress)

        def actor_losses(actor: Tree) -> tuple[Array, tuple[Array, None]]:
            policy = self._policy(actor, step.obs, step.mask)
            value, entropy = self._soft_value(policy, state.critics, step.obs, alpha, key)
            return -value, (entropy, None)

        return self._finish(actor_losses, state, metrics, step.mask, progress)


class SACConfig(ActorCriticConfig):
    """Configuration of SAC: `SACConfig().environment("Pendulum-v1").training(tau=0.01, n_step=3).build()`."""

    algorithm_name = "SAC"
    summary = "a random policy that is paid for its entropy, with two critics and a temperature that is learned"
    paper = "Haarnoja et al. 2018, arXiv:1812.05905"
    agent_class = SAC
    exploration_types = ("StochasticSampling", "OrnsteinUhlenbeckNoise", "GaussianNoise")
    defaults: ClassVar[dict[str, Any]] = {
        "num_envs_per_worker": 1,
        "rollout_fragment_length": 1,
        "train_batch_size": 256,
        "min_sample_timesteps_per_iteration": 1000,  # RLlib: 100
        "model": {"fcnet_hiddens": [256, 256], "fcnet_activation": "relu"},
        "replay_buffer_config": {"capacity": 1_000_000},
        "exploration_config": {"type": "StochasticSampling"},
    }

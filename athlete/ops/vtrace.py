"""V-trace: values of one policy from the trajectories of another, `[T, B]`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from athlete.core import Array


class VTrace(NamedTuple):
    """What V-trace makes of a trajectory, `[T, B]` each."""

    target: Array  # v_s of equation 1: what values should be
    advantage: Array  # rho_s (r_s + gamma v_{s+1} - V(x_s)) of section 4.2: what the policy's gradient is weighed with


def vtrace(
    log_ratio: Array,
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    gamma: Array,
    clip: tuple[Array, Array] = (1.0, 1.0),
    lambda_: Array = 1.0,
) -> VTrace:
    """V-trace targets and advantages (Espeholt et al. 2018, arXiv:1802.01561, equation 1, in the form of remark 1).

    v_t - V(x_t) = delta_t + gamma c_t (v_{t+1} - V(x_{t+1}))
    delta_t      = rho_t (r_t + gamma V(next_obs_t) - V(x_t))
    rho_t        = min(rho_bar, pi(a_t|x_t) / mu(a_t|x_t)),   c_t = lambda min(1, pi(a_t|x_t) / mu(a_t|x_t))

    `log_ratio` is log pi(a|x) - log mu(a|x), `clip` the threshold rho_bar of the targets and that of the advantages. As
    in `generalized_advantages`, a truncated step is bootstrapped from where it led, a terminated one is not, nothing
    flows in from the episode that follows, and the last step bootstraps alone.
    """
    ratio, (target_clip, policy_clip) = jnp.exp(log_ratio), clip
    over = terminated | truncated
    bootstrap = jnp.where(terminated, 0.0, next_value)
    delta = jnp.minimum(target_clip, ratio) * (reward + gamma * bootstrap - value)
    decay = jnp.where(over, 0.0, gamma * lambda_ * jnp.minimum(1.0, ratio))

    def backwards(after, step):
        delta_t, decay_t = step
        now = delta_t + decay_t * after
        return now, now

    target = value + jax.lax.scan(backwards, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)[1]
    # v_{s+1}: the next step's where that is of the same episode, else the value of where the step led.
    following = jnp.where(over, bootstrap, jnp.concatenate([target[1:], bootstrap[-1:]]))
    return VTrace(target, jnp.minimum(policy_clip, ratio) * (reward + gamma * following - value))

"""DDPPO (Wijmans et al. 2020, arXiv:1911.00357): PPO on several devices, whose gradients one all-reduce averages.

There is no central learner: every device has the whole network, collects with its own rows, and computes the gradient
of its share of each minibatch; the mean of these gradients (section 3 of the paper) makes the same step on all of them.
The agent is PPO's. What shares it out is `num_learners`, which every algorithm has: DDPPO is PPO with that setting, and
with minibatches that grow with the workers, as RLlib's. On one device it is PPO.

Departures from the paper: all rows take the same number of steps, and none is cut short because others are done (the
paper's preemption of stragglers); advantages are standardised over all devices together; each minibatch is drawn from
the rows of all devices, so that a training does not hang on how many there are. Departures from RLlib: its two workers
are one process by default, with the environments and minibatches of both.
"""

from __future__ import annotations

from typing import Any, ClassVar

from athlete.algorithms.ppo import PPOConfig


class DDPPOConfig(PPOConfig):
    """Configuration of DDPPO: `DDPPOConfig().environment("CartPole-v1").learners(num_learners=8).build()`.

    `minibatch_size` is what one worker takes: with `num_rollout_workers=4` a minibatch is four times as many timesteps.
    """

    algorithm_name = "DDPPO"
    summary = "PPO whose minibatches several devices share out, averaging their gradients by one all-reduce"
    paper = "Wijmans et al. 2020, arXiv:1911.00357"
    defaults: ClassVar[dict[str, Any]] = {
        **PPOConfig.defaults,
        "num_learners": "auto",
        "workers_act": True,
        "num_envs_per_worker": 10,  # RLlib's: 5 in each of 2 workers, as are the next two
        "train_batch_size": 1000,
        "minibatch_size": 100,
        "num_epochs": 10,
    }

    def minibatch_timesteps(self) -> int:
        return min(self.minibatch_size * max(1, self.num_rollout_workers), self.rows() * self.fragment_length())

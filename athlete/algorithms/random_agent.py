"""RandomAgent: uniformly random actions, among the legal ones, and nothing is learned. RLlib's baseline of that name.

What a return is worth is known beside that of chance: scores of Atari are published as shares of the way from a random
policy to a human (Bellemare et al. 2013, arXiv:1207.4708, section 3.2). `athlete.algorithms.fixed` has the policy.
"""

from __future__ import annotations

from typing import Any

from athlete.algorithms.fixed import RandomPolicy
from athlete.settings.config import AlgorithmConfig


class RandomAgentConfig(AlgorithmConfig):
    """Configuration of RandomAgent: `RandomAgentConfig().environment("CartPole-v1").build()`."""

    algorithm_name = "RandomAgent"
    summary = "uniformly random actions, the baseline of all others"
    paper = "Bellemare et al. 2013, arXiv:1207.4708"
    agent_class = RandomPolicy
    learns = False

    def agent_parts(self) -> dict[str, Any]:
        return {}

    def validate(self) -> None:
        super().validate()
        if "model" in self.chosen():
            raise ValueError(f"{self._title()}: it has no network; leave model out")

"""The side of a simulator that plays for a training elsewhere: RLlib's `PolicyClient` over HTTP.

Python's own library is all that this file needs: it may be copied to where Athlete is not installed.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


class PolicyClient:
    """Plays episodes with the policy of a training that waits at `address`, such as "http://localhost:9900".

        client = PolicyClient("http://localhost:9900")
        episode_id = client.start_episode()
        while not over:
            action = client.get_action(episode_id, observation)
            observation, reward, over = simulator.advance(action)
            client.log_returns(episode_id, reward)
        client.end_episode(episode_id, observation)

    `token` is the server's. `timeout_s` is how long an action is waited for: the training learns now and then.
    Raises ValueError with the server's sentence where it refuses a command, and OSError where it cannot be reached.
    """

    def __init__(
        self, address: str, inference_mode: str = "remote", *, token: str | None = None, timeout_s: float = 600.0
    ):
        if inference_mode != "remote":
            raise ValueError(
                f"PolicyClient(inference_mode={inference_mode!r}): actions are computed where the training is; leave "
                "it out, or say 'remote'"
            )
        self.address = address.rstrip("/")
        self._token, self._timeout_s = token, timeout_s

    def start_episode(self, episode_id: str | None = None, training_enabled: bool = True) -> str:
        """Begin an episode and return its name, by default one that nobody else has."""
        if not training_enabled:
            raise ValueError("start_episode(training_enabled=False): play those with `athlete serve`, or a Policy")
        return self._send("start_episode", episode_id=episode_id)

    def get_action(self, episode_id: str, observation: Any) -> Any:
        """What the policy does at an observation, as `env.step` would take it: numbers, lists and dictionaries."""
        return self._send("get_action", episode_id=episode_id, observation=_plain(observation))

    def log_action(self, episode_id: str, observation: Any, action: Any) -> None:
        """Say what the simulator does at an observation by a choice of its own, in the place of `get_action`.

        For algorithms that learn from a replay memory, such as DQN, SAC and TD3: the training then learns from this
        action. Returns when it has taken it in. Raises ValueError where the action is not of the action space, and of
        algorithms that learn from their own actions only, such as PPO.
        """
        self._send("log_action", episode_id=episode_id, observation=_plain(observation), action=_plain(action))

    def log_returns(self, episode_id: str, reward: float, info: Any = None) -> None:
        """Add to the reward of the last action."""
        self._send("log_returns", episode_id=episode_id, reward=float(reward))

    def end_episode(self, episode_id: str, observation: Any, truncated: bool = False) -> None:
        """End the episode with its last observation; `truncated` where it was only cut and would have gone on."""
        self._send("end_episode", episode_id=episode_id, observation=_plain(observation), truncated=truncated)

    def _send(self, command: str, **arguments: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        body = json.dumps(arguments).encode()
        request = urllib.request.Request(f"{self.address}/{command}", body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                return json.load(answer)["result"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{command}: {json.load(error)['error']}") from None


def _plain(value: Any) -> Any:
    """Arrays within dictionaries and tuples as lists."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value.tolist() if hasattr(value, "tolist") else value

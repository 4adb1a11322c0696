"""A policy behind HTTP: right answers, one batch for many requests, sessions, newer checkpoints, clear refusals."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from athlete.algorithms.ppo import PPOConfig
from athlete.policy import Policy
from athlete.record.checkpoint import CheckpointError
from athlete.serve.answers import require_token
from athlete.serve.http import make_app
from athlete.serve.metrics import Metrics
from athlete.serve.server import PolicyServer, RequestError
from athlete.serve.sessions import Sessions

SMALL = {"train_batch_size": 32, "minibatch_size": 16, "num_epochs": 1}
LSTM = {"use_lstm": True, "lstm_cell_size": 4, "max_seq_len": 4, "lstm_use_prev_action": True}
SEEN = [[0.1, 0.0, -0.2, 0.3], [0.0, 1.0, 0.1, -2.0], [-0.3, 0.2, 0.0, 0.5]]


def saved(folder, seed=0, env="CartPole-v1", **model):
    config = PPOConfig().environment(env).rollouts(num_envs_per_worker=2).debugging(seed=seed)
    with (
        config.rollouts(num_envs_per_worker=2)
        .training(**SMALL, model={"fcnet_hiddens": [8], **model})
        .build() as algorithm
    ):
        algorithm.train()
        return algorithm.save(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("plain") / "checkpoint_1")


@pytest.fixture(scope="module")
def remembering(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("memory") / "checkpoint_1", env="Pendulum-v1", **LSTM)


@pytest.fixture
def server(plain):
    made = PolicyServer(lambda: Path(plain), max_batch_size=8)
    yield made
    made.close()


def answers(server, *requests):
    """What the server says to requests that come at the same time; errors as they are."""

    async def together():
        return await asyncio.gather(*map(server.act, requests), return_exceptions=True)

    return asyncio.run(together())


def test_an_observation_is_answered_with_the_policys_action(server, plain):
    policy = Policy.from_checkpoint(plain)
    for seen in SEEN:
        assert answers(server, {"observation": seen}) == [{"action": policy.compute_single_action(seen)[0]}]


def test_requests_that_come_together_are_answered_in_few_calls(server, plain):
    policy = Policy.from_checkpoint(plain)
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(20, 4)).tolist()
    found = answers(server, *({"observation": each} for each in seen))
    assert [answer["action"] for answer in found] == [policy.compute_single_action(each)[0] for each in seen]
    assert server.metrics.rows == 20 and server.metrics.batches == 3, "8, 8 and 4"


def test_exploring_and_greedy_requests_do_not_share_a_call(server):
    found = answers(server, *({"observation": SEEN[0], "explore": i % 2 == 0} for i in range(8)))
    assert server.metrics.batches == 2
    assert len({answer["action"] for answer in found[1::2]}) == 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([1, 2], 'expected a JSON object with an "observation"'),
        ({"obs": [0.0]}, 'expected a JSON object with an "observation"'),
        ({"observation": SEEN[0], "sesion": "a"}, "there is no entry 'sesion'; a request has observation, session"),
        ({"observation": [0.0]}, r"observation: expected shape \(4,\) of Box"),
        ({"observation": "up"}, "'up' is no element of Box"),
        ({"observation": {"x": 1}}, "is no element of Box"),
        ({"observation": [float("nan"), 0, 0, 0]}, "is not finite"),
        ({"observation": SEEN[0], "session": 3}, "session: expected a text"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(server, request_, message):
    (error,) = answers(server, request_)
    assert isinstance(error, RequestError) and re.search(message, str(error)), error


def test_a_request_that_cannot_be_answered_spoils_no_other(server):
    good, bad, also_good = answers(server, {"observation": SEEN[0]}, {"observation": [1]}, {"observation": SEEN[1]})
    assert isinstance(bad, RequestError) and "action" in good and "action" in also_good


# Sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_remembers_and_others_do_not_mix_with_it(remembering):
    server, policy = PolicyServer(lambda: Path(remembering), max_batch_size=4), Policy.from_checkpoint(remembering)
    rng = np.random.default_rng(0)
    expected = {}
    for name in ("a", "b"):
        state, action, expected[name] = None, None, []
        for seen in rng.normal(size=(4, 3)):
            action, state, _ = policy.compute_single_action(seen, state, prev_action=action)
            expected[name].append((seen.tolist(), action))
    for step in range(4):
        found = answers(server, *({"observation": expected[name][step][0], "session": name} for name in ("a", "b")))
        for name, answer in zip(("a", "b"), found, strict=True):
            np.testing.assert_allclose(answer["action"], expected[name][step][1], atol=1e-5)
            assert (answer["session"], answer["step"]) == (name, step + 1)
    first = {"observation": expected["a"][0][0], "session": "a", "first": True}
    (again,) = answers(server, first)
    np.testing.assert_allclose(again["action"], expected["a"][0][1], atol=1e-5)
    assert again["step"] == 1 and len(server.sessions) == 2
    assert server.sessions.end("a") and not server.sessions.end("a")
    server.close()


def test_two_requests_of_a_session_come_one_after_the_other(remembering):
    server = PolicyServer(lambda: Path(remembering), max_batch_size=4)
    found = answers(server, *[{"observation": [1.0, 0.0, 0.0], "session": "a"}] * 3)
    assert [answer["step"] for answer in found] == [1, 2, 3]
    server.close()


def test_sessions_go_on_after_a_restart(remembering, tmp_path):
    def start(file):
        return PolicyServer(lambda: Path(remembering), max_batch_size=2, sessions_file=tmp_path / file)

    requests = [{"observation": [0.5, -0.5, float(i)], "session": name} for i in range(2) for name in ("a", "b")]
    unbroken = start("other")
    answers(unbroken, *requests)
    before = start("sessions")
    answers(before, *requests)
    before.close()
    after = start("sessions")
    for name in ("a", "b"):
        asked = {"observation": [1.0, 0.0, 2.0], "session": name}
        (expected,), (found,) = answers(unbroken, asked), answers(after, asked)
        np.testing.assert_allclose(found["action"], expected["action"], atol=1e-6)
        assert found["step"] == 3
    unbroken.close()
    after.close()


def test_sessions_of_another_network_and_spoiled_files_begin_anew(remembering, plain, tmp_path, caplog):
    server = PolicyServer(lambda: Path(remembering), max_batch_size=1, sessions_file=tmp_path / "sessions")
    answers(server, {"observation": [1.0, 0.0, 0.0], "session": "a"})
    server.close()
    other = PolicyServer(lambda: Path(plain), max_batch_size=1, sessions_file=tmp_path / "sessions")
    assert "action" in answers(other, {"observation": SEEN[0], "session": "a"})[0]
    (tmp_path / "spoiled").write_bytes(b"spoiled")
    spoiled = PolicyServer(lambda: Path(remembering), max_batch_size=1, sessions_file=tmp_path / "spoiled")
    assert len(spoiled.sessions) == 0 and "sessions begin anew" in caplog.text


def test_a_network_with_memory_needs_a_session(remembering):
    server = PolicyServer(lambda: Path(remembering), max_batch_size=1)
    (error,) = answers(server, {"observation": [1.0, 0.0, 0.0]})
    assert "this network has memory: give session" in str(error)
    server.close()


def test_idle_sessions_are_forgotten_and_there_are_never_too_many():
    sessions = Sessions(most=2, idle_s=100.0)
    a = sessions.get("a")
    sessions.get("b")
    sessions.get("a")
    sessions.get("c")  # b was idle longest
    assert sessions.get("a") is a and len(sessions) == 2
    a.used -= 101.0
    sessions.get("c")
    assert sessions.get("a") is not a


# Newer checkpoints ------------------------------------------------------------------------------------------------


def test_a_newer_checkpoint_is_taken_over_and_a_broken_one_is_not(tmp_path):
    folder = tmp_path / "checkpoint_1"
    saved(folder)
    server = PolicyServer(lambda: folder, max_batch_size=1)
    before = server.policy
    assert not asyncio.run(server.reload()) and server.policy is before
    saved(folder, seed=1)
    assert asyncio.run(server.reload()) and server.policy is not before
    now = server.policy
    (folder / "agent.safetensors").write_bytes(b"spoiled")
    saved_manifest = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(saved_manifest + b" ")
    assert not asyncio.run(server.reload())
    assert server.policy is now and (server.metrics.reloads, server.metrics.failed_reloads) == (1, 1)
    assert "action" in answers(server, {"observation": SEEN[0]})[0]
    server.close()


def test_nothing_is_served_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such folder"):
        PolicyServer(lambda: tmp_path / "none")


# The web ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "token", "message"),
    [
        ("0.0.0.0", None, "beyond this machine requests need a token"),
        ("example.org", None, "need a token"),
        ("127.0.0.1", "short", "at least 8 letters"),
    ],
)
def test_others_than_this_machine_need_a_token(host, token, message):
    with pytest.raises(ValueError, match=message):
        require_token(host, token)


def test_this_machine_needs_none_and_a_token_opens_to_others():
    for host, token in (("127.0.0.1", None), ("::1", None), ("localhost", None), ("0.0.0.0", "a secret of mine")):
        require_token(host, token)


def test_http_speaks_as_rllibs_tutorial(server):
    client = pytest.importorskip("starlette.testclient").TestClient(make_app(server, watch_s=None))
    for method in ("POST", "GET"):
        answer = client.request(method, "/", json={"observation": SEEN[0]})
        assert answer.status_code == 200 and answer.json()["action"] in (0, 1)
    answer = client.post("/", json={"observation": [0.0]})
    assert answer.status_code == 422 and "expected shape (4,)" in answer.json()["error"]
    answer = client.post("/", content=b"hello")
    assert answer.status_code == 422 and answer.json()["error"].startswith("the body is no JSON")
    assert client.post("/", content=b" " * (16 * 2**20 + 1)).status_code == 413
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["action_space"] == "Discrete(n=2, start=0)"
    told = client.get("/metrics").text
    assert 'athlete_requests_total{status="200"} 2' in told and 'athlete_requests_total{status="422"} 2' in told
    assert client.delete("/sessions/none").status_code == 404


def test_http_with_a_token_answers_only_with_it(server):
    client = pytest.importorskip("starlette.testclient").TestClient(make_app(server, "a secret of mine", None))
    assert client.post("/", json={"observation": SEEN[0]}).status_code == 401
    assert client.get("/metrics").status_code == 401 and client.delete("/sessions/a").status_code == 401
    right = {"authorization": "Bearer a secret of mine"}
    assert client.post("/", json={"observation": SEEN[0]}, headers=right).status_code == 200
    assert client.get("/health").status_code == 200, "for those who watch whether it lives"


def test_metrics_are_in_the_format_of_prometheus():
    metrics = Metrics()
    metrics.add_request(200, 0.003)
    metrics.add_request(200, 3.0)
    metrics.add_batch(2)
    lines = metrics.text(sessions=1).splitlines()
    assert 'athlete_request_seconds_bucket{le="0.0025"} 0' in lines
    assert 'athlete_request_seconds_bucket{le="0.005"} 1' in lines
    assert 'athlete_request_seconds_bucket{le="+Inf"} 2' in lines
    assert all(re.fullmatch(r"[a-z_]+(\{[a-z]+=\"[^\"]+\"\})? [0-9.e+-]+", line) for line in lines)

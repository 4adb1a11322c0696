"""The deployment with Ray Serve that the documentation shows: its block is run as it stands, and asked over HTTP."""

from __future__ import annotations

import json
import os
import urllib.request

import pytest

serve = pytest.importorskip("ray.serve")

import ray  # noqa: E402
from test_docs import ROOT, fences  # noqa: E402
from test_serve import SEEN, saved  # noqa: E402

from athlete.policy import Policy  # noqa: E402

CHECKPOINT = "results/checkpoint_000001"


@pytest.fixture
def connected():
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  else they starve where a machine does much besides
    ray.init("local", num_cpus=4, object_store_memory=100_000_000, include_dashboard=False, logging_level="ERROR")
    yield
    serve.shutdown()
    ray.shutdown()


def test_the_deployment_of_the_page_answers_with_the_policys_actions(connected, tmp_path):
    checkpoint = saved(tmp_path / "checkpoint_000001")
    (block,) = [fence for fence in fences(ROOT / "docs" / "deployment.md") if "@serve.deployment" in fence.text]
    assert CHECKPOINT in block.text
    exec(block.text.replace(CHECKPOINT, str(checkpoint)), {"__name__": "deployment"})
    policy = Policy.from_checkpoint(checkpoint)
    for seen in SEEN:
        request = urllib.request.Request("http://127.0.0.1:8000/", json.dumps({"observation": seen}).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.loads(answer.read()) == {"action": int(policy.compute_single_action(seen)[0])}

"""How large a memory is, known before it is taken."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_streams import example_of, stream

from athlete.algorithms.dqn import DQNConfig
from athlete.algorithms.ppo import PPOConfig
from athlete.core import Transition
from athlete.memory import room
from athlete.memory.prioritized import Prioritized
from athlete.memory.replay import Replay
from athlete.memory.rollout import Rollout
from athlete.memory.room import available_bytes, in_words, require_room, require_room_for_batch, store_bytes

FLAG, NUMBER = jax.ShapeDtypeStruct((), jnp.bool_), jax.ShapeDtypeStruct((), jnp.float32)
OBS, ACTION = jax.ShapeDtypeStruct((4,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
CARTPOLE = Transition(OBS, FLAG, ACTION, NUMBER, OBS, FLAG, FLAG, (), {})


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Say how much memory is available."""
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")

    def has(kilobytes: int) -> None:
        room.MEMINFO.write_text(f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable:   {kilobytes} kB\n")

    return has


@pytest.mark.parametrize("memory", [Replay(capacity=50), Prioritized(capacity=50), Rollout()])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_bytes_are_those_that_are_taken(memory, rows):
    example = example_of(stream(1, rows))
    taken = sum(leaf.nbytes for leaf in jax.tree.leaves(memory.init(example, rows)))
    assert store_bytes(memory, example, rows) == taken


def test_a_cartpole_transition_takes_13_numbers(machine):
    machine(10**7)
    fixed = sum(np.dtype(leaf.dtype).itemsize * leaf.size for leaf in jax.tree.leaves(CARTPOLE)) + 8
    assert store_bytes(Replay(capacity=50_000), CARTPOLE, 1) - fixed == 50_000 * 13 * 4
    assert require_room(Replay(), CARTPOLE, 1) == "replay memory: 50,000 timesteps of 1 environment, 2.6 MB"
    assert require_room(Replay(), CARTPOLE, 8) == "replay memory: 50,000 timesteps of 8 environments, 2.6 MB"


def test_what_stores_nothing_needs_no_sentence(machine):
    machine(0)
    assert require_room(Rollout(), CARTPOLE, 1) == ""


@pytest.mark.parametrize(
    "memory", [Replay(capacity=10**6), Prioritized(capacity=10**6, window=3), Replay(capacity=10**6, unroll=1000)]
)
@pytest.mark.parametrize("rows", [1, 3])
def test_too_large_a_memory_is_refused_and_the_capacity_that_the_error_names_fits(machine, memory, rows):
    machine(10_000)
    with pytest.raises(
        ValueError, match=r"1,000,000 timesteps .* MB, but this machine has 10.2 MB available; "
    ) as raised:
        require_room(memory, CARTPOLE, rows)
    named = int(str(raised.value).split("capacity=")[1].split(" ")[0].replace(",", ""))
    assert require_room(dataclasses.replace(memory, capacity=named), CARTPOLE, rows)
    with pytest.raises(ValueError, match="take capacity"):  # and not much more would
        require_room(dataclasses.replace(memory, capacity=named + named // 100 + 1000 * rows), CARTPOLE, rows)


def test_where_nothing_fits_that_is_said(machine):
    machine(1)
    with pytest.raises(ValueError, match="not even the smallest capacity fits"):
        require_room(Replay(unroll=1000), CARTPOLE, 1)


@pytest.mark.parametrize("information", [None, "MemTotal: 5 kB\n"])
def test_where_the_system_does_not_tell_nothing_is_refused(machine, information):
    if information is not None:
        room.MEMINFO.write_text(information)
    assert available_bytes() is None
    assert "GB" in require_room(Replay(capacity=10**9), CARTPOLE, 1)


def test_a_batch_that_does_not_fit_is_refused_with_the_size_that_does(machine):
    machine(10**6)
    observation = {"a": np.zeros((1, 200), np.float32), "b": np.zeros((1, 200), np.uint8)}
    require_room_for_batch(921_600, observation)
    with pytest.raises(ValueError, match=r"921,601 observations, 921.6 MB, .* 1.0 GB available; .* of 921,600 or less"):
        require_room_for_batch(921_601, observation)


MILLION = 10**6


@pytest.mark.parametrize(
    "config",
    [
        PPOConfig().training(train_batch_size=MILLION),
        PPOConfig().rollouts(num_envs_per_worker=1000, rollout_fragment_length=1000),
        DQNConfig().training(
            train_batch_size=MILLION,
            num_steps_sampled_before_learning_starts=MILLION,
            replay_buffer_config={"capacity": MILLION},
        ),
    ],
    ids=["a batch", "fragments", "a batch from memory"],
)
def test_no_training_begins_whose_batch_does_not_fit(machine, config):
    machine(15_000)
    with pytest.raises(ValueError, match=r"a batch: 1,000,000 observations, 16.0 MB, but this machine has 15.4 MB"):
        config.environment("CartPole-v1").build()


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (6_240_000, "6.2 MB"), (3.1e12, "3100.0 GB")]
)
def test_bytes_for_people(size, words):
    assert in_words(size) == words

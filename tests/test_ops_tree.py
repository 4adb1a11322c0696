"""Packing keeps every bit; a packed scan is a scan."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from athlete.loops.transport import IN_ONE_PIECE, fetch, from_packet, to_packet
from athlete.ops.tree import (
    NARROW,
    flatten,
    merge_time,
    pack,
    packed_scan,
    unflatten,
    unpack,
    where,
)

# A few shapes, so that few programs are compiled; the values are what varies.
SHAPES = [(), (2, 2), (NARROW + 1,)]
DTYPES = [np.float32, np.int32, np.uint32, np.int8, np.uint8, np.int16, np.uint16, np.bool_]
EXTREMES = {
    "float32": [0.0, -0.0, 1e-45, 1.1754944e-38, 3.4028235e38, -np.inf, np.inf, np.nan],
    "int32": [-(2**31), 2**31 - 1, -1, 0, 2**24 + 1, 0x7FA00001],
    "uint32": [0, 2**32 - 1, 2**31, 2**24 + 1, 0xFFA00001, 0x7FA00001],
}


@st.composite
def trees(draw, leading):
    """Dictionaries and tuples of arrays that share their leading axes."""

    def leaf():
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        values = arrays_of.from_dtype(dtype, allow_nan=False)
        if dtype.name in EXTREMES:
            values = values | st.sampled_from(EXTREMES[dtype.name]).map(dtype.type)
        return draw(arrays_of.arrays(dtype, leading + draw(st.sampled_from(SHAPES)), elements=values))

    return {"a": leaf(), "b": (leaf(), {"c": leaf()}), "none": ()}


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == b.tobytes()


@settings(max_examples=15, deadline=None)
@given(tree=trees((2, 3)))
def test_unpacking_gives_back_every_bit(tree):
    packed = pack(tree, 2)
    assert packed.table.dtype == jnp.uint32, "a gather may flush floats that look like denormals to 0"
    assert packed.table.shape[:2] == (2, 3)
    assert_same_bits(unpack(packed, tree, 2), tree)


def test_integers_of_extreme_values_survive_a_compiled_gather():
    tree = {name: np.array(values, name)[:, None] for name, values in EXTREMES.items()}
    tree = {name: leaf[:6] for name, leaf in tree.items()}
    order = np.array([5, 0, 3])

    @jax.jit
    def gathered(tree):
        packed = pack(tree, 1)
        return unpack(jax.tree.map(lambda leaf: leaf[order], packed), tree, 1)

    assert_same_bits(gathered(tree), {name: leaf[order] for name, leaf in tree.items()})


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from athlete.ops.tree import pack, unpack

tree = {"number": np.arange(148, dtype=np.int32), "denormal": np.arange(148, dtype=np.int32).view(np.float32)}
mesh = Mesh(np.array(jax.devices()), ("rows",))
packed = jax.device_put(jax.jit(lambda tree: pack(tree, 1))(tree), NamedSharding(mesh, PartitionSpec("rows")))
order = np.random.default_rng(0).permutation(148)
gather = lambda packed: unpack(jax.tree.map(lambda leaf: leaf[order], packed), tree, 1)
found = jax.jit(gather, out_shardings=NamedSharding(mesh, PartitionSpec()))(packed)
assert (np.asarray(found["number"]) == order).all(), found["number"]
assert (np.asarray(found["denormal"]).view(np.int32) == order).all(), found["denormal"]
"""


def test_integers_survive_a_gather_from_a_table_that_several_devices_share():
    """XLA adds up what each device has, and an addition of floats flushes denormals: all were 0 but one."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_wide_leaves_keep_out_of_the_table():
    tree = {"wide": np.zeros((2, NARROW + 1), np.float32), "narrow": np.ones((2, NARROW), np.float32)}
    packed = pack(tree, 1)
    assert packed.table.shape == (2, NARROW)
    assert [leaf.shape for leaf in packed.wide] == [(2, NARROW + 1)]


def test_a_tree_of_wide_leaves_only_has_an_empty_table():
    tree = [np.arange(2.0 * 99, dtype=np.float32).reshape(2, 99)]
    packed = pack(tree, 1)
    assert packed.table.shape == (2, 0)
    assert_same_bits(unpack(packed, tree, 1), tree)


def step(carry, inputs):
    key, flag = inputs
    carry = {"total": carry["total"] + key.sum(), "count": carry["count"] + jnp.where(flag, 1, 0)}
    wide = jnp.broadcast_to(carry["total"], (2, NARROW + 2))
    outputs = {"sum": carry["total"] * jnp.ones(2), "flag": jnp.stack([flag, ~flag]), "wide": wide}
    return carry, (outputs, jnp.stack([carry["count"], -carry["count"]]), key * jnp.uint32(3_000_000_000))


def test_a_packed_scan_is_a_scan():
    random = np.random.default_rng(0)
    carry = {"total": jnp.uint32(1), "count": jnp.int32(-5)}
    inputs = (random.integers(0, 2**32, (6, 2), np.uint32), random.random(6) < 0.5)
    found = jax.jit(lambda carry, inputs: packed_scan(step, carry, inputs))(carry, inputs)
    expected = jax.jit(lambda carry, inputs: jax.lax.scan(step, carry, inputs))(carry, inputs)
    assert_same_bits(found, jax.tree.map(np.asarray, expected))


def test_flattening_is_undone_and_has_the_order_of_the_tree():
    tree = {
        "b": np.arange(6.0, dtype=np.float32).reshape(2, 3),
        "a": [np.float32(7) * np.ones(())],
        "c": np.float32([8, 9]),
    }
    vector = flatten(tree)
    np.testing.assert_array_equal(vector, [7, 0, 1, 2, 3, 4, 5, 8, 9])
    assert_same_bits(unflatten(vector, tree), jax.tree.map(np.float32, tree))


def test_where_spreads_rows_over_every_leafs_own_axes():
    yes = {"flat": np.ones(2, np.int32), "deep": np.ones((2, 2, 1), np.float32)}
    no = jax.tree.map(np.zeros_like, yes)
    found = where(np.array([True, False]), yes, no)
    np.testing.assert_array_equal(found["flat"], [1, 0])
    np.testing.assert_array_equal(found["deep"][..., 0], [[1, 1], [0, 0]])
    assert found["flat"].dtype == np.int32


@pytest.mark.parametrize("condition", [True, False])
def test_where_takes_one_condition_for_all(condition):
    np.testing.assert_array_equal(where(jnp.asarray(condition), np.ones(3), np.zeros(3)), [float(condition)] * 3)


def test_folding_merges_time_and_rows_in_that_order():
    found = merge_time({"x": np.arange(12).reshape(2, 3, 2), "flag": np.array([[True, False, False]] * 2)})
    np.testing.assert_array_equal(found["x"], np.arange(12).reshape(6, 2))
    assert found["flag"].shape == (6,)


# Packets ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(tree=trees(()))
def test_a_packet_gives_back_every_bit_on_the_host(tree):
    packet = to_packet(tree)
    assert isinstance(packet.vector, np.ndarray)
    assert packet.vector.ndim == 1
    assert_same_bits(from_packet(packet), tree)


def test_a_packet_crosses_into_a_program_and_back_to_the_last_bit():
    tree = {name: np.array(values, name) for name, values in EXTREMES.items()}
    tree |= {"flags": np.array([[True], [False]]), "scalar": np.array(-7, np.int8)}
    tree["large"] = np.arange(IN_ONE_PIECE + 1, dtype=np.int32)
    crossed = jax.jit(lambda packet: to_packet(from_packet(packet)))
    assert len(to_packet(tree).wide) == 1
    assert_same_bits(fetch(crossed(to_packet(tree))), tree)


def test_packets_of_one_structure_share_a_program():
    count = 0

    @jax.jit
    def total(packet):
        nonlocal count
        count += 1
        return from_packet(packet)["x"].sum()

    found = [float(total(to_packet({"x": np.full(3, number, np.float32)}))) for number in (1.0, 2.0)]
    assert (found, count) == ([3.0, 6.0], 1)

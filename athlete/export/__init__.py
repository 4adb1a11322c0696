"""What a policy becomes outside: one graph of array operations, written as NumPy, PyTorch, ONNX and a web page.

`trace.trace(policy)` takes the operations from JAX itself, so that every network, normaliser and mask is in it, the
user's own too. Each format is a table from operation to text or node. StableHLO is `jax.export`'s.
"""

"""From a policy to a graph: JAX says which operations acting is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from athlete.core import ActingCarry, Agent, Tree
from athlete.export.folding import fold
from athlete.export.graph import BINARY, UNARY, Builder, Form, Graph, Shape
from athlete.ops.random import wrap
from athlete.spaces import to_environment, zeros


class Acting(NamedTuple):
    """Greedy acting as a function `(parameters, observation, state) -> (action, state)`, a batch in front.

    `state` is a list of arrays: what the network remembers, as far as actions depend on it.
    """

    function: Callable[[Tree, Tree, list[Any]], tuple[Tree, list[Any]]]
    parameters: Tree  # NumPy arrays: all that acts
    observation: Tree  # jax.ShapeDtypeStruct, of any batch
    state: list[Any]
    start: list[np.ndarray]  # at the start of an episode, [1, ...]
    names: list[str]  # of what is remembered


def acting_of(agent: Agent, parameters: Tree, whole: Tree) -> Acting:
    """How an agent acts with the parameters of a view. The whole state is kept; `trace` says what of it is of use."""
    batch = export.symbolic_shape("batch")
    carried = whole.model if isinstance(whole, ActingCarry) else whole
    leaves: list[Any]
    structure: Any
    leaves, structure = jax.tree.flatten(carried)
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in _paths(carried)]

    def function(parameters: Tree, observation: Tree, state: list[Any]) -> tuple[Tree, list[Any]]:
        first = jnp.zeros(jax.tree.leaves(observation)[0].shape[0], bool)  # who begins gives the start
        key = wrap(np.zeros(2, np.uint32))  # which nothing greedy draws from
        carry = structure.unflatten(state)
        carry = whole._replace(model=carry) if isinstance(whole, ActingCarry) else carry
        action, carry, _ = agent.act(parameters, carry, observation, first, key, explore=False)
        carry = carry.model if isinstance(carry, ActingCarry) else carry
        return to_environment(agent.spec.action, action), jax.tree.leaves(carry)

    def like(leaf: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*batch, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype))

    observation = jax.tree.map(like, zeros(agent.spec.obs, (1,)))
    return Acting(function, parameters, observation, [like(leaf) for leaf in leaves], leaves, paths)


def kept(acting: Acting, places: Sequence[int]) -> Acting:
    """The same acting that remembers only these of its arrays."""

    def function(parameters: Tree, observation: Tree, state: list[Any]) -> tuple[Tree, list[Any]]:
        rows = jax.tree.leaves(observation)[0].shape[0]
        full = [jnp.broadcast_to(leaf, (rows, *leaf.shape[1:])) for leaf in acting.start]
        for place, leaf in zip(places, state, strict=True):
            full[place] = leaf
        action, after = acting.function(parameters, observation, full)
        return action, [after[place] for place in places]

    return acting._replace(
        function=function,
        state=[acting.state[place] for place in places],
        start=[acting.start[place] for place in places],
        names=[acting.names[place] for place in places],
    )


class Traced(NamedTuple):
    """A policy's graph and how its values are put together."""

    graph: Graph
    acting: Acting
    observation: Tree  # names of the graph's inputs in the structure of an observation
    action: Tree  # names of the graph's outputs in the structure of an action
    state: list[tuple[str, str]]  # of what is remembered: the input and the output
    scores: list[str]  # outputs: the numbers of which the action is the place of the largest


def trace(agent: Agent, parameters: Tree, start: Tree) -> Traced:
    """The graph of an agent's greedy action with the parameters of a view.

    `start` is the state of one row at the start of an episode. Parameters and start are NumPy arrays.
    """
    acting, builder = acting_of(agent, parameters, start), Builder(fold)
    program = jax.make_jaxpr(acting.function, return_shape=True)
    closed, shape = program(acting.parameters, acting.observation, acting.state)
    seen = [_input(builder, f"observation{_suffix(path)}", leaf) for path, leaf in _paths(acting.observation)]
    state = [
        _input(builder, f"state.{name}" if name else "state", leaf)
        for name, leaf in zip(acting.names, acting.state, strict=True)
    ]
    given = _parameters(builder, acting.parameters)
    results = _inline(builder, closed.jaxpr, closed.consts, [*given, *seen, *state])
    count = len(jax.tree.leaves(shape[0]))
    places = _lasting(builder, results[:count], state, results[count:])
    chosen = builder.needed_for(results[:count])
    scores = [op.inputs[0] for op in builder.operations.values() if op.name == "argmax" and op.output in chosen]
    outputs = {f"action{_suffix(path)}": results[i] for i, (path, _) in enumerate(_paths(shape[0]))}
    action = jax.tree.unflatten(jax.tree.structure(shape[0]), list(outputs))
    after = {f"next_{state[place]}": results[count + place] for place in places}
    scored = {"scores" if len(scores) == 1 else f"scores.{i}": value for i, value in enumerate(scores)}
    graph = builder.graph(outputs | after | scored)
    pairs = list(zip([state[place] for place in places], after, strict=True))
    observation = jax.tree.unflatten(jax.tree.structure(acting.observation), seen)
    return Traced(graph, kept(acting, places), observation, action, pairs, list(scored))


def _lasting(builder: Builder, actions: Sequence[str], before: Sequence[str], after: Sequence[str]) -> list[int]:
    """Which arrays of the state actions depend on, now or later: a network of values may remember for itself."""
    places: list[int] = []
    while True:
        needed = builder.needed_for([*actions, *(after[place] for place in places)])
        found = [place for place, name in enumerate(before) if name in needed]
        if found == places:
            return places
        places = found


def _paths(tree: Tree) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _suffix(path: Any) -> str:
    text = jax.tree_util.keystr(path, simple=True, separator=".")
    return f".{text}" if text else ""


def _parameters(builder: Builder, parameters: Tree) -> list[str]:
    """The names of each array of what acts: its path."""
    return [
        builder.parameter(np.asarray(array), jax.tree_util.keystr(path, simple=True, separator="."))
        for path, array in _paths(parameters)
    ]


def _input(builder: Builder, name: str, leaf: Any) -> str:
    return builder.input(name, _form(leaf))


def _form(aval: Any) -> Form:
    return Form(_shape(aval.shape), str(aval.dtype))


def _shape(sizes: Sequence[Any]) -> Shape:
    return tuple(map(_size, sizes))


def _size(size: Any) -> int:
    """A size as the graph has it; a symbolic one is a number of batches."""
    if isinstance(size, int | np.integer):
        return int(size)
    found = re.fullmatch(r"(?:(\d+)\*)?batch", str(size))
    if found is None:
        raise NotImplementedError(f"this network has an axis of {size} numbers, which only StableHLO can hold")
    return -int(found.group(1) or 1)


# Operations of JAX -> of the graph ------------------------------------------------------------------------------------

Rule = Callable[[Builder, Mapping[str, Any], Sequence[str], Form], str]


def _inline(builder: Builder, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[str]) -> list[str]:
    """The values of a program's outputs, its operations added to the graph."""
    values = dict(zip(jaxpr.invars, inputs, strict=True))
    for var, const in zip(jaxpr.constvars, consts, strict=True):
        values[var] = const if isinstance(const, str) else builder.constant(const)

    def value(atom: Any) -> str:
        return builder.constant(np.asarray(atom.val, atom.aval.dtype)) if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        results = _add(builder, equation, [value(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _add(builder: Builder, equation: Any, inputs: list[str]) -> list[str]:
    name, params = equation.primitive.name, equation.params
    if name in _SAME:
        return inputs
    if name == "scan":
        return _unrolled(builder, params, inputs)
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params and name not in ("while", "cond"):
            inner = params[key]
            consts = getattr(inner, "consts", ())
            return _inline(builder, getattr(inner, "jaxpr", inner), consts, inputs)
    forms = [_form(var.aval) for var in equation.outvars]
    if name == "split":
        return _split(builder, params, inputs[0], forms)
    if name in RULES:
        return [RULES[name](builder, params, inputs, forms[0])]
    same = _RENAMED.get(name, name)
    settings = {} if same in UNARY or same in BINARY else dict(params)
    return [builder.add(same, inputs, form, **settings) for form in forms]  # unknown ones: as they are, see `unknown`


_SAME = frozenset(("stop_gradient", "optimization_barrier", "name", "copy", "copy_p"))
_RENAMED = {"add_any": "add"}


def _unrolled(builder: Builder, params: Mapping[str, Any], inputs: list[str]) -> list[str]:
    """A scan, which over one moment is a single step."""
    consts, carries, length = params["num_consts"], params["num_carry"], params["length"]
    fixed, carry, rows = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
    inner = params["jaxpr"]
    outputs: list[list[str]] = []
    steps = range(length - 1, -1, -1) if params["reverse"] else range(length)
    for t in steps:
        at = [_row(builder, row, t) for row in rows]
        results = _inline(builder, inner.jaxpr, inner.consts, [*fixed, *carry, *at])
        carry = results[:carries]
        outputs.append(results[carries:])
    if params["reverse"]:
        outputs.reverse()
    stacked = [_stacked(builder, parts) for parts in zip(*outputs, strict=True)]
    return [*carry, *stacked]


def _row(builder: Builder, value: str, index: int) -> str:
    shape, dtype = builder.forms[value]
    cut = _slice(builder, value, (index, *[0] * (len(shape) - 1)), (1, *shape[1:]))
    return builder.add("reshape", [cut], Form(shape[1:], dtype))


def _stacked(builder: Builder, values: Sequence[str], axis: int = 0) -> str:
    shape, dtype = builder.forms[values[0]]
    thin = Form((*shape[:axis], 1, *shape[axis:]), dtype)
    parts = [builder.add("reshape", [value], thin) for value in values]
    whole = Form((*shape[:axis], len(parts), *shape[axis:]), dtype)
    return builder.add("concatenate", parts, whole, axis=axis)


def _slice(
    builder: Builder, value: str, starts: Sequence[int], sizes: Shape, strides: Sequence[int] | None = None
) -> str:
    """The part of `sizes` that begins at `starts`; a size of the batch is the whole axis."""
    whole, dtype = builder.forms[value]
    steps = tuple(strides) if strides is not None else (1,) * len(sizes)
    limits = tuple(
        n if n < 0 else min(start + (size - 1) * step + 1, n) if size else start
        for start, size, step, n in zip(starts, sizes, steps, whole, strict=True)
    )
    return builder.add("slice", [value], Form(sizes, dtype), starts=tuple(starts), limits=limits, strides=steps)


def _split(builder: Builder, params: Mapping[str, Any], value: str, forms: Sequence[Form]) -> list[str]:
    parts, start, axis = [], 0, params["axis"]
    for form in forms:
        starts = tuple(start if i == axis else 0 for i in range(len(form.shape)))
        parts.append(_slice(builder, value, starts, form.shape))
        start += form.shape[axis]
    return parts


def _broadcast(builder: Builder, params: Mapping[str, Any], inputs: Sequence[str], form: Form) -> str:
    thin = [1] * len(form.shape)
    for axis, size in zip(params["broadcast_dimensions"], builder.forms[inputs[0]].shape, strict=True):
        thin[axis] = size
    return builder.add("expand", [builder.add("reshape", inputs, Form(tuple(thin), form.dtype))], form)


def _dot(builder: Builder, params: Mapping[str, Any], inputs: Sequence[str], form: Form) -> str:
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    left, right = (builder.forms[value].shape for value in inputs)
    if (len(left), len(right)) == (2, 2) and (left_sum, right_sum) == ((1,), (0,)) and not left_batch:
        return builder.add("matmul", inputs, form)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    names: tuple[dict[int, str], dict[int, str]] = ({}, {})
    for i, j in [*zip(left_batch, right_batch, strict=True), *zip(left_sum, right_sum, strict=True)]:
        names[0][i] = names[1][j] = next(letters)
    batch = "".join(names[0][i] for i in left_batch)
    free = []
    for named, shape in zip(names, (left, right), strict=True):
        own = {i: next(letters) for i in range(len(shape)) if i not in named}
        named.update(own)
        free.append("".join(own.values()))
    operands = ["".join(named[i] for i in sorted(named)) for named in names]
    equation = f"{operands[0]},{operands[1]}->{batch}{free[0]}{free[1]}"
    return builder.add("einsum", inputs, form, equation=equation)


def _gather(builder: Builder, params: Mapping[str, Any], inputs: Sequence[str], form: Form) -> str:
    """A gather at places that are known: a part of the array, or entries along one axis."""
    numbers, sizes = params["dimension_numbers"], _shape(params["slice_sizes"])
    value, places = inputs
    axes, collapsed = numbers.start_index_map, numbers.collapsed_slice_dims
    index = builder.constants.get(places)
    if index is None or numbers.operand_batching_dims:
        return builder.add("gather", inputs, form)
    shape, dtype = builder.forms[value]
    if index.ndim == 1:
        starts = [0] * len(shape)
        for axis, start in zip(axes, index.tolist(), strict=True):
            starts[axis] = start
        return builder.add("reshape", [_slice(builder, value, starts, sizes)], form)
    (axis,) = axes if len(axes) == 1 else (-1,)
    whole = all(size == n for i, (size, n) in enumerate(zip(sizes, shape, strict=True)) if i != axis)
    if axis < 0 or collapsed != (axis,) or not whole:
        return builder.add("gather", inputs, form)
    flat = index.reshape(-1)
    taken = Form((*shape[:axis], flat.size, *shape[axis + 1 :]), dtype)
    if flat.size and (np.diff(flat) == 1).all():
        starts = [int(flat[0]) if i == axis else 0 for i in range(len(shape))]
        part = _slice(builder, value, starts, taken.shape)
    else:
        part = builder.add("take", [value, builder.constant(flat.astype(np.int64))], taken, axis=axis)
    # The indices' axes stand where the offsets leave room; here that is one place, behind which the rest follows.
    free = [i for i in range(len(form.shape)) if i not in numbers.offset_dims]
    spread = Form((*shape[:axis], *index.shape[:-1], *shape[axis + 1 :]), dtype)
    part = builder.add("reshape", [part], spread)
    now = list(range(axis, axis + len(free)))
    rest = iter(i for i in range(len(spread.shape)) if i not in now)
    order = tuple(now[free.index(i)] if i in free else next(rest) for i in range(len(form.shape)))
    return builder.add("transpose", [part], form, permutation=order)


def _dynamic_slice(builder: Builder, params: Mapping[str, Any], inputs: Sequence[str], form: Form) -> str:
    starts = [builder.constants.get(name) for name in inputs[1:]]
    if any(start is None for start in starts):
        return builder.add("dynamic_slice", inputs, form)
    return _slice(builder, inputs[0], [int(start) for start in starts], form.shape)  # type: ignore[arg-type]


def _pad(builder: Builder, params: Mapping[str, Any], inputs: Sequence[str], form: Form) -> str:
    low, high, inner = (tuple(map(int, column)) for column in zip(*params["padding_config"], strict=True))
    if any(inner) or min(low + high) < 0:
        return builder.add("pad with gaps", inputs, form)
    return builder.add("pad", inputs, form, low=low, high=high)


def _power(builder: Builder, params: Mapping[str, Any], inputs: Sequence[str], form: Form) -> str:
    exponent = params["y"]
    if exponent not in (2, 3):
        return builder.add("pow", [inputs[0], builder.constant(np.asarray(exponent, form.dtype))], form)
    squared = builder.add("mul", [inputs[0], inputs[0]], form)
    return squared if exponent == 2 else builder.add("mul", [squared, inputs[0]], form)


def _clamp(builder: Builder, params: Mapping[str, Any], inputs: Sequence[str], form: Form) -> str:
    low, value, high = inputs
    return builder.add("min", [builder.add("max", [value, low], form), high], form)


def _reduction(name: str) -> Rule:
    return lambda builder, params, inputs, form: builder.add(name, inputs, form, axes=tuple(params["axes"]))


def _place(name: str) -> Rule:
    return lambda builder, params, inputs, form: builder.add(name, inputs, form, axis=params["axes"][0])


def _iota(builder: Builder, params: Mapping[str, Any], inputs: Sequence[str], form: Form) -> str:
    size = form.shape[params["dimension"]]
    if size < 0:
        return builder.add("iota", [], form)
    shape = [1] * len(form.shape)
    shape[params["dimension"]] = size
    line = builder.constant(np.arange(size, dtype=form.dtype).reshape(shape))
    return builder.add("expand", [line], form)


def _like(name: str, **fixed: Any) -> Rule:
    return lambda builder, params, inputs, form: builder.add(name, inputs[:1], form, **fixed)


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "integer_pow": _power,
    "clamp": _clamp,
    "iota": _iota,
    "reshape": _like("reshape"),
    "squeeze": _like("reshape"),
    "expand_dims": _like("reshape"),
    "convert_element_type": _like("cast"),
    "square": lambda builder, params, inputs, form: builder.add("mul", [inputs[0], inputs[0]], form),
    "rsqrt": lambda builder, params, inputs, form: builder.add(
        "div", [builder.constant(np.ones((), form.dtype)), builder.add("sqrt", inputs, form)], form
    ),
    "select_n": lambda builder, params, inputs, form: builder.add("where", [inputs[0], inputs[2], inputs[1]], form),
    "transpose": lambda builder, params, inputs, form: builder.add(
        "transpose", inputs, form, permutation=tuple(params["permutation"])
    ),
    "concatenate": lambda builder, params, inputs, form: builder.add(
        "concatenate", inputs, form, axis=params["dimension"]
    ),
    "rev": lambda builder, params, inputs, form: builder.add("reverse", inputs, form, axes=tuple(params["dimensions"])),
    "slice": lambda builder, params, inputs, form: _slice(
        builder,
        inputs[0],
        [0 if not isinstance(i, int) else i for i in params["start_indices"]],
        form.shape,
        params["strides"],
    ),
    "stack": lambda builder, params, inputs, form: _stacked(builder, inputs, params["axis"]),
    "cumsum": lambda builder, params, inputs, form: builder.add("cumsum", inputs, form, axis=params["axis"]),
    **{f"reduce_{name}": _reduction(f"reduce_{name}") for name in ("sum", "max", "min", "and", "or", "prod")},
    **{name: _place(name) for name in ("argmax", "argmin")},
}

// Arrays and their operations, as many as a policy needs. An array is {shape, data}; a number is one without axes.
const product = (sizes) => sizes.reduce((a, b) => a * b, 1);
const array = (x) => (typeof x === "number" ? { shape: [], data: [x] } : x);
const make = (shape) => ({ shape, data: new Float32Array(product(shape)) });
let batch = 1; // rows; a size -n of a shape stands for n times as many

// For every entry of `shape`, in order, its place in an array with these `strides`.
function places(shape, strides) {
  const found = new Int32Array(product(shape));
  let block = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    for (let k = 1; k < shape[axis]; k++)
      for (let i = 0; i < block; i++) found[k * block + i] = found[i] + k * strides[axis];
    block *= shape[axis];
  }
  return found;
}
function stridesOf(shape) {
  const strides = new Array(shape.length);
  for (let axis = shape.length - 1, step = 1; axis >= 0; step *= shape[axis--]) strides[axis] = step;
  return strides;
}
// The strides of `x` seen as an array of `shape`: 0 along axes that are repeated.
function spread(x, shape) {
  const own = stridesOf(x.shape), lead = shape.length - x.shape.length;
  return shape.map((_, axis) => (axis < lead || x.shape[axis - lead] === 1 ? 0 : own[axis - lead]));
}
function common(...shapes) {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return [...Array(rank).keys()].map((axis) =>
    Math.max(...shapes.map((shape) => shape[axis - rank + shape.length] ?? 1)));
}
function elementwise(f) {
  return (...given) => {
    const xs = given.map(array), out = make(common(...xs.map((x) => x.shape)));
    const fits = (x) => x.shape.length === out.shape.length && x.shape.every((size, axis) => size === out.shape[axis]);
    const [a, b, c] = xs.map((x) => (fits(x) ? x.data : take_places(x, out.shape, spread(x, out.shape)).data));
    for (let i = 0; i < out.data.length; i++) out.data[i] = f(a[i], b?.[i], c?.[i]);
    return out;
  };
}
const whole = (shape) => shape.map((size) => (size < 0 ? -size * batch : size));
const reshape = (x, shape) => ({ shape: whole(shape), data: array(x).data });
function take_places(x, shape, strides, offset = 0) {
  const out = make(shape), at = places(shape, strides);
  for (let i = 0; i < at.length; i++) out.data[i] = x.data[offset + at[i]];
  return out;
}
function expand(x, shape) { return take_places(array(x), whole(shape), spread(array(x), whole(shape))); }
function transpose(x, order) {
  const strides = stridesOf(x.shape);
  return take_places(x, order.map((axis) => x.shape[axis]), order.map((axis) => strides[axis]));
}
function slice(x, starts, limits, steps) {
  const own = stridesOf(x.shape), ends = limits.map((limit, axis) => (limit < 0 ? x.shape[axis] : limit));
  const shape = ends.map((end, axis) => Math.max(0, Math.ceil((end - starts[axis]) / steps[axis])));
  const offset = starts.reduce((sum, start, axis) => sum + start * own[axis], 0);
  return take_places(x, shape, own.map((stride, axis) => stride * steps[axis]), offset);
}
function reverse(x, axes) {
  const own = stridesOf(x.shape);
  const offset = axes.reduce((sum, axis) => sum + (x.shape[axis] - 1) * own[axis], 0);
  return take_places(x, x.shape, own.map((stride, axis) => (axes.includes(axis) ? -stride : stride)), offset);
}
function put(out, x, starts) {
  const own = stridesOf(out.shape), at = places(x.shape, own);
  const offset = starts.reduce((sum, start, axis) => sum + start * own[axis], 0);
  for (let i = 0; i < at.length; i++) out.data[offset + at[i]] = x.data[i];
}
function concatenate(xs, axis) {
  const shape = [...xs[0].shape];
  shape[axis] = xs.reduce((sum, x) => sum + x.shape[axis], 0);
  const out = make(shape), starts = shape.map(() => 0);
  for (const x of xs) { put(out, x, starts); starts[axis] += x.shape[axis]; }
  return out;
}
function pad(x, value, low, high) {
  const out = make(x.shape.map((size, axis) => low[axis] + size + high[axis]));
  out.data.fill(array(value).data[0]);
  put(out, x, low);
  return out;
}
function take(x, index, axis) {
  return concatenate([...index.data].map((i) => slice(x, x.shape.map((_, k) => (k === axis ? i : 0)),
    x.shape.map((size, k) => (k === axis ? i + 1 : size)), x.shape.map(() => 1))), axis);
}
// Rows `[outer, inner]` of an array, the axes to reduce last.
function rows(x, axes) {
  const kept = x.shape.map((_, axis) => axis).filter((axis) => !axes.includes(axis));
  const moved = transpose(x, [...kept, ...axes]);
  return { shape: kept.map((axis) => x.shape[axis]), data: moved.data, width: product(axes.map((axis) => x.shape[axis])) };
}
function reduction(f, first) {
  return (x, axes) => {
    const { shape, data, width } = rows(x, axes), out = make(shape);
    for (let i = 0; i < out.data.length; i++) {
      let value = first;
      for (let k = 0; k < width; k++) value = f(value, data[i * width + k]);
      out.data[i] = value;
    }
    return out;
  };
}
function place_of(better) {
  return (x, axis) => {
    const { shape, data, width } = rows(x, [axis]), out = make(shape);
    for (let i = 0; i < out.data.length; i++) {
      let best = 0;
      for (let k = 1; k < width; k++) if (better(data[i * width + k], data[i * width + best])) best = k;
      out.data[i] = best;
    }
    return out;
  };
}
function matmul(a, b) {
  const [n, m, k] = [a.shape[0], b.shape[1], b.shape[0]], out = make([n, m]), sums = new Float64Array(m);
  for (let i = 0; i < n; i++) {
    sums.fill(0);
    for (let j = 0; j < k; j++)
      for (let l = 0, x = a.data[i * k + j], at = j * m; l < m; l++) sums[l] += x * b.data[at + l];
    out.data.set(sums, i * m);
  }
  return out;
}
function einsum(a, b, equation) {
  const [[left, right], result] = [equation.split("->")[0].split(","), equation.split("->")[1]];
  const sizes = {};
  [...left].forEach((letter, axis) => (sizes[letter] = a.shape[axis]));
  [...right].forEach((letter, axis) => (sizes[letter] = b.shape[axis]));
  const summed = Object.keys(sizes).filter((letter) => !result.includes(letter)).join("");
  const along = (x, letters, axes) => {
    const own = stridesOf(x.shape);
    return places([...axes].map((l) => sizes[l]), [...axes].map((l) => (letters.includes(l) ? own[letters.indexOf(l)] : 0)));
  };
  const out = make([...result].map((letter) => sizes[letter]));
  const [ao, bo, ai, bi] = [along(a, left, result), along(b, right, result), along(a, left, summed), along(b, right, summed)];
  for (let i = 0; i < out.data.length; i++) {
    let sum = 0;
    for (let k = 0; k < ai.length; k++) sum += a.data[ao[i] + ai[k]] * b.data[bo[i] + bi[k]];
    out.data[i] = sum;
  }
  return out;
}
const logistic = elementwise((x) => 1 / (1 + Math.exp(-x)));
const [abs, ceil, cos, exp, expm1, floor, log, log1p, sign, sin, sqrt, tan, tanh, trunc] = [
  "abs", "ceil", "cos", "exp", "expm1", "floor", "log", "log1p", "sign", "sin", "sqrt", "tan", "tanh", "trunc",
].map((name) => elementwise(Math[name]));
const round = elementwise((x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)));
const neg = elementwise((x) => -x), not = elementwise((x) => +!x), is_finite = elementwise((x) => +isFinite(x));
const add = elementwise((x, y) => x + y), sub = elementwise((x, y) => x - y), mul = elementwise((x, y) => x * y);
const div = elementwise((x, y) => x / y), pow = elementwise(Math.pow), rem = elementwise((x, y) => x % y);
const max = elementwise((x, y) => Math.max(x, y)), min = elementwise((x, y) => Math.min(x, y));
const atan2 = elementwise((x, y) => Math.atan2(x, y));
const eq = elementwise((x, y) => +(x === y)), ne = elementwise((x, y) => +(x !== y));
const lt = elementwise((x, y) => +(x < y)), le = elementwise((x, y) => +(x <= y));
const gt = elementwise((x, y) => +(x > y)), ge = elementwise((x, y) => +(x >= y));
const and = elementwise((x, y) => x & y), or = elementwise((x, y) => x | y), xor = elementwise((x, y) => x ^ y);
const where = elementwise((condition, yes, no) => (condition ? yes : no));
const reduce_sum = reduction((x, y) => x + y, 0), reduce_max = reduction(Math.max, -Infinity);
const reduce_min = reduction(Math.min, Infinity), reduce_and = reduction((x, y) => x && y, 1);
const reduce_or = reduction((x, y) => x || y, 0);
const argmax = place_of((x, y) => x > y), argmin = place_of((x, y) => x < y);

// The classic control games of Gymnasium: the same equations, step by step. A state is an array of numbers.
const between = (low, high) => low + Math.random() * (high - low);
const clip = (x, low, high) => Math.min(Math.max(x, low), high);
const wrapped = (angle) => ((((angle + Math.PI) % (2 * Math.PI)) + 2 * Math.PI) % (2 * Math.PI)) - Math.PI;

const hill = (x) => Math.sin(3 * x) * 0.45 + 0.55;
function drawMountain(pen, [x], goal, colors) {
  const at = (x) => [((x + 1.2) / 1.8) * 600, 340 - hill(x) * 260];
  pen.line(Array.from({ length: 101 }, (_, i) => at(-1.2 + i * 0.018)), colors.line, 3);
  const [flagX, flagY] = at(goal), [carX, carY] = at(x);
  pen.line([[flagX, flagY], [flagX, flagY - 50]], colors.line, 2);
  pen.polygon([[flagX, flagY - 50], [flagX + 26, flagY - 42], [flagX, flagY - 34]], colors.accent);
  const slope = Math.atan2(-(at(x + 0.01)[1] - at(x - 0.01)[1]), at(x + 0.01)[0] - at(x - 0.01)[0]);
  const turn = ([u, v]) => [carX + u * Math.cos(slope) - v * Math.sin(slope), carY - u * Math.sin(slope) - v * Math.cos(slope)];
  pen.polygon([[-20, 6], [20, 6], [20, 18], [10, 26], [-10, 26], [-20, 18]].map(turn), colors.body);
  for (const side of [-11, 11]) pen.circle(...turn([side, 6]), 6, colors.line);
}

const games = {
  CartPole: {
    interval: 20, limit: 500, actions: ["push left", "push right"],
    hint: "push the pole",
    reset: () => [0, 0, 0, 0].map(() => between(-0.05, 0.05)),
    observe: (state) => state,
    step([x, v, angle, spin], action) {
      const force = action === 1 ? 10 : -10, cos = Math.cos(angle), sin = Math.sin(angle);
      const temp = (force + 0.05 * spin * spin * sin) / 1.1;
      const turn = (9.8 * sin - cos * temp) / (0.5 * (4 / 3 - (0.1 * cos * cos) / 1.1));
      const push = temp - (0.05 * turn * cos) / 1.1;
      const state = [x + 0.02 * v, v + 0.02 * push, angle + 0.02 * spin, spin + 0.02 * turn];
      const done = Math.abs(state[0]) > 2.4 || Math.abs(state[2]) > (12 * 2 * Math.PI) / 360;
      return [state, 1, done];
    },
    disturb: ([x, v, angle, spin], side) => [x, v, angle, spin + side * 0.6],
    draw(pen, [x, , angle], colors) {
      const at = 300 + (x / 2.4) * 280;
      pen.line([[0, 300], [600, 300]], colors.line, 2);
      pen.polygon([[at - 34, 280], [at + 34, 280], [at + 34, 312], [at - 34, 312]], colors.body);
      pen.line([[at, 284], [at + 170 * Math.sin(angle), 284 - 170 * Math.cos(angle)]], colors.accent, 12);
      pen.circle(at, 284, 5, colors.line);
    },
  },
  MountainCar: {
    interval: 30, limit: 200, actions: ["push left", "coast", "push right"],
    hint: "push the car",
    reset: () => [between(-0.6, -0.4), 0],
    observe: (state) => state,
    step([x, v], action) {
      v = clip(v + (action - 1) * 0.001 - Math.cos(3 * x) * 0.0025, -0.07, 0.07);
      x = clip(x + v, -1.2, 0.6);
      if (x === -1.2 && v < 0) v = 0;
      return [[x, v], -1, x >= 0.5 && v >= 0];
    },
    disturb: ([x, v], side) => [x, clip(v + side * 0.012, -0.07, 0.07)],
    draw: (pen, state, colors) => drawMountain(pen, state, 0.5, colors),
  },
  MountainCarContinuous: {
    interval: 30, limit: 999, actions: null,
    hint: "push the car",
    reset: () => [between(-0.6, -0.4), 0],
    observe: (state) => state,
    step([x, v], action) {
      v = clip(v + clip(action, -1, 1) * 0.0015 - 0.0025 * Math.cos(3 * x), -0.07, 0.07);
      x = clip(x + v, -1.2, 0.6);
      if (x === -1.2 && v < 0) v = 0;
      const done = x >= 0.45 && v >= 0;
      return [[x, v], (done ? 100 : 0) - 0.1 * action * action, done];
    },
    disturb: ([x, v], side) => [x, clip(v + side * 0.012, -0.07, 0.07)],
    draw: (pen, state, colors) => drawMountain(pen, state, 0.45, colors),
  },
  Acrobot: {
    interval: 60, limit: 500, actions: ["torque −1", "none", "torque +1"],
    hint: "turn the lower link",
    reset: () => [0, 0, 0, 0].map(() => between(-0.1, 0.1)),
    observe: ([a, b, da, db]) => [Math.cos(a), Math.sin(a), Math.cos(b), Math.sin(b), da, db],
    step(state, action) {
      const slope = ([a, b, da, db]) => {
        const d1 = 0.25 + (1 + 0.25 + Math.cos(b)) + 2, d2 = 0.25 + 0.5 * Math.cos(b) + 1;
        const phi2 = 0.5 * 9.8 * Math.cos(a + b - Math.PI / 2);
        const phi1 = -0.5 * db * db * Math.sin(b) - db * da * Math.sin(b) + 1.5 * 9.8 * Math.cos(a - Math.PI / 2) + phi2;
        const ddb = (action - 1 + (d2 / d1) * phi1 - 0.5 * da * da * Math.sin(b) - phi2) / (0.25 + 1 - (d2 * d2) / d1);
        return [da, db, -(d2 * ddb + phi1) / d1, ddb];
      };
      const moved = (by, time) => state.map((x, i) => x + by[i] * time);
      const k1 = slope(state), k2 = slope(moved(k1, 0.1)), k3 = slope(moved(k2, 0.1)), k4 = slope(moved(k3, 0.2));
      const next = state.map((x, i) => x + (0.2 / 6) * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]));
      const [a, b] = [wrapped(next[0]), wrapped(next[1])];
      const spins = [clip(next[2], -4 * Math.PI, 4 * Math.PI), clip(next[3], -9 * Math.PI, 9 * Math.PI)];
      const done = -Math.cos(a) - Math.cos(b + a) > 1;
      return [[a, b, ...spins], done ? 0 : -1, done];
    },
    disturb: ([a, b, da, db], side) => [a, b, da, db + side * 2],
    draw(pen, [a, b], colors) {
      const joint = [300 + 85 * Math.sin(a), 180 + 85 * Math.cos(a)];
      const tip = [joint[0] + 85 * Math.sin(a + b), joint[1] + 85 * Math.cos(a + b)];
      pen.line([[60, 95], [540, 95]], colors.line, 2, [6, 6]);
      pen.line([[300, 180], joint], colors.body, 14);
      pen.line([joint, tip], colors.accent, 14);
      for (const place of [[300, 180], joint]) pen.circle(...place, 6, colors.line);
    },
  },
  Pendulum: {
    interval: 50, limit: 200, actions: null,
    hint: "swing the pendulum",
    reset: () => [between(-Math.PI, Math.PI), between(-1, 1)],
    observe: ([angle, spin]) => [Math.cos(angle), Math.sin(angle), spin],
    step([angle, spin], action) {
      const torque = clip(action, -2, 2), off = wrapped(angle);
      const cost = off * off + 0.1 * spin * spin + 0.001 * torque * torque;
      spin = clip(spin + (15 * Math.sin(angle) + 3 * torque) * 0.05, -8, 8);
      return [[angle + spin * 0.05, spin], -cost, false];
    },
    disturb: ([angle, spin], side) => [angle, clip(spin + side * 3, -8, 8)],
    draw(pen, [angle], colors, action) {
      pen.line([[300, 185], [300 + 130 * Math.sin(angle), 185 - 130 * Math.cos(angle)]], colors.accent, 18);
      pen.circle(300, 185, 7, colors.line);
      pen.arc(300, 185, 40, -Math.PI / 2, -Math.PI / 2 + action * 0.7, colors.body, 5);
    },
  },
};

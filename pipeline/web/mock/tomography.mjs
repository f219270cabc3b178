/** Ellipsoids turned in a parallel beam: darks, flats, projections, and slices by real filtered back-projection. */

import { noise, poisson } from './random.mjs';

const ROWS = 200;
const COLUMNS = 256;
const DARKS = 8;
const FLATS = 8;
const DARK_LEVEL = 96;
const FLAT_LEVEL = 9_000;

/** centre, half axes (in units of half the width), density in 1/px */
const BODIES = [
  { c: [0, 0, 0], a: [0.78, 0.6, 0.72], d: 0.006 },
  { c: [0, 0, 0.02], a: [0.68, 0.5, 0.64], d: -0.0022 },
  { c: [-0.28, 0.1, 0.1], a: [0.16, 0.24, 0.3], d: 0.004 },
  { c: [0.26, 0.08, -0.12], a: [0.2, 0.15, 0.22], d: -0.003 },
  { c: [0.05, -0.28, 0.2], a: [0.11, 0.11, 0.11], d: 0.008 },
  { c: [0.35, -0.2, 0.3], a: [0.07, 0.07, 0.2], d: 0.01 },
  { c: [-0.1, 0.32, -0.3], a: [0.3, 0.06, 0.08], d: 0.006 },
  { c: [-0.42, -0.18, -0.2], a: [0.05, 0.05, 0.05], d: 0.012 },
];

export function makeTomography(projections, seed = 11) {
  const random = noise(seed);
  const half = COLUMNS / 2;
  const first = DARKS + FLATS;
  const kernel = Float32Array.from({ length: COLUMNS }, (_, n) => (n === 0 ? 0.25 : n % 2 ? -1 / (Math.PI * n) ** 2 : 0));
  const slices = {};
  const filtered = new Float32Array(ROWS * COLUMNS);
  const frame = new Uint16Array(ROWS * COLUMNS);
  const attenuation = new Float32Array(ROWS * COLUMNS);
  const gain = Float32Array.from({ length: COLUMNS * ROWS }, (_, i) => 1 - 0.25 * (((i % COLUMNS) - half) / half) ** 2 + 0.04 * (random() - 0.5));
  const state = { drawn: -1, used: 0, version: 0 };

  const reset = () => {
    slices.xy = new Float32Array(COLUMNS * COLUMNS);
    slices.xz = new Float32Array(ROWS * COLUMNS);
    slices.yz = new Float32Array(ROWS * COLUMNS);
    Object.assign(state, { drawn: -1, used: 0, version: 0 });
  };
  reset();

  const kind = (n) => (n < DARKS ? 'dark' : n < first ? 'flat' : 'sample');
  const angleOf = (n) => (n < first ? null : ((n - first) * 180) / projections);

  /** Line integrals of all bodies at this angle. */
  function project(degrees) {
    const cos = Math.cos((degrees * Math.PI) / 180);
    const sin = Math.sin((degrees * Math.PI) / 180);
    attenuation.fill(0);
    for (const { c, a, d } of BODIES) {
      const s0 = (c[0] * cos + c[1] * sin) * half;
      const width = Math.hypot(a[0] * cos, a[1] * sin) * half;
      const length = (2 * a[0] * a[1] * half * half) / width;
      for (let row = 0; row < ROWS; row += 1) {
        const z = (row + 0.5 - ROWS / 2) / half - c[2];
        const left = 1 - (z / a[2]) ** 2;
        if (left <= 0) continue;
        const from = Math.max(0, Math.ceil(half + s0 - width * Math.sqrt(left) - 0.5));
        const to = Math.min(COLUMNS - 1, Math.floor(half + s0 + width * Math.sqrt(left) - 0.5));
        for (let column = from; column <= to; column += 1) {
          const s = (column + 0.5 - half - s0) / width;
          attenuation[row * COLUMNS + column] += d * length * Math.sqrt(Math.max(0, left - s * s));
        }
      }
    }
  }

  function backProject(degrees) {
    const cos = Math.cos((degrees * Math.PI) / 180);
    const sin = Math.sin((degrees * Math.PI) / 180);
    for (let row = 0; row < ROWS; row += 1) {
      for (let column = 0; column < COLUMNS; column += 1) {
        let sum = 0.25 * attenuation[row * COLUMNS + column];
        for (let n = 1; n < COLUMNS; n += 2) {
          const left = column - n >= 0 ? attenuation[row * COLUMNS + column - n] : 0;
          const right = column + n < COLUMNS ? attenuation[row * COLUMNS + column + n] : 0;
          sum += kernel[n] * (left + right);
        }
        filtered[row * COLUMNS + column] = sum;
      }
    }
    const weight = Math.PI / projections;
    const at = (row, x, y) => {
      const s = x * cos + y * sin + half - 0.5;
      const column = Math.floor(s);
      if (column < 0 || column >= COLUMNS - 1) return 0;
      const f = s - column;
      return weight * (filtered[row * COLUMNS + column] * (1 - f) + filtered[row * COLUMNS + column + 1] * f);
    };
    for (let j = 0; j < COLUMNS; j += 1)
      for (let i = 0; i < COLUMNS; i += 1) slices.xy[j * COLUMNS + i] += at(ROWS >> 1, i + 0.5 - half, j + 0.5 - half);
    for (let row = 0; row < ROWS; row += 1)
      for (let i = 0; i < COLUMNS; i += 1) {
        slices.xz[row * COLUMNS + i] += at(row, i + 0.5 - half, 0.1 * half);
        slices.yz[row * COLUMNS + i] += at(row, 0, i + 0.5 - half);
      }
  }

  /** Makes the pixels of frame `n`. */
  function draw(n) {
    if (state.drawn === n) return;
    const what = kind(n);
    if (what === 'sample') project(angleOf(n));
    for (let i = 0; i < frame.length; i += 1) {
      const level = what === 'dark' ? 0 : FLAT_LEVEL * gain[i] * (what === 'sample' ? Math.exp(-attenuation[i]) : 1);
      frame[i] = DARK_LEVEL + poisson(level, random);
    }
    state.drawn = n;
  }

  return {
    technique: 'tomography',
    shape: [ROWS, COLUMNS],
    dtype: 'uint16',
    descr: '<u2',
    saturation: 65_535,
    mask: new Uint32Array(ROWS * COLUMNS),
    frames: first + projections,
    reset,
    /** What the appliance does with every frame. */
    take(n) {
      if (kind(n) !== 'sample') return;
      project(angleOf(n));
      state.drawn = -1;
      backProject(angleOf(n));
      state.used += 1;
      state.version += 1;
    },
    frame: (n) => {
      draw(n);
      return frame;
    },
    kind,
    angle: angleOf,
    scalars: (n) => ({ sum: kind(n) === 'sample' ? 2.1e8 + 4e6 * Math.sin(n / 20) + 1e5 * random() : null, invalid: Math.floor(random() * 4) }),
    slices: () =>
      ['xy', 'xz', 'yz'].map((name) => ({
        name,
        shape: name === 'xy' ? [COLUMNS, COLUMNS] : [ROWS, COLUMNS],
        unit: '1/px',
        frames_used: state.used,
        frames_expected: projections,
        version: state.version,
      })),
    slice: (name) => slices[name],
  };
}

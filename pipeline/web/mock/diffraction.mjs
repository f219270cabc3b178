/** Synthetic powder rings with Bragg spots, Poisson noise, module gaps and a few hot pixels, Eiger 1M sized. */

import { noise, poisson } from './random.mjs';

export const ROWS = 1065;
export const COLUMNS = 1030;
const CENTRE = { x: 480.5, y: 530.2 };
const PIXEL_M = 75e-6;
const DISTANCE_M = 0.12;
const WAVELENGTH_NM = 0.1;
const BINS = 1000;
const SATURATION = 60_000;
const RINGS_NM_INV = [11.6, 13.4, 18.9, 22.2, 23.2, 26.8, 29.2, 29.9, 32.8, 34.8];
const VARIANTS = 8;

const qOf = (x, y) => {
  const radius = Math.hypot(x + 0.5 - CENTRE.x, y + 0.5 - CENTRE.y) * PIXEL_M;
  return ((4 * Math.PI) / WAVELENGTH_NM) * Math.sin(Math.atan2(radius, DISTANCE_M) / 2);
};

export function makeDiffraction(seed = 7) {
  const random = noise(seed);
  const mask = new Uint32Array(ROWS * COLUMNS);
  for (let y = 0; y < ROWS; y += 1) for (let x = 0; x < COLUMNS; x += 1) if (y >= 514 && y < 551) mask[y * COLUMNS + x] = 1;
  for (let i = 0; i < 300; i += 1) mask[Math.floor(random() * mask.length)] |= i % 3 === 0 ? 2 : 16;
  for (let y = 551; y < 620; y += 1) for (let x = 470; x < 492; x += 1) mask[y * COLUMNS + x] |= 256;

  const q = new Float32Array(mask.length);
  const expected = new Float32Array(mask.length);
  let qMax = 0;
  for (let i = 0; i < mask.length; i += 1) {
    q[i] = qOf(i % COLUMNS, Math.floor(i / COLUMNS));
    qMax = Math.max(qMax, q[i]);
    let value = 3 + 60 * Math.exp(-q[i] / 5) + 6 * Math.exp(-(((q[i] - 16) / 8) ** 2));
    RINGS_NM_INV.forEach((ring, n) => {
      const distance = (q[i] - ring) / 0.09;
      if (Math.abs(distance) < 5) value += (70 / (1 + 0.35 * n)) * Math.exp(-distance * distance);
    });
    expected[i] = value;
  }
  const bins = Uint16Array.from(q, (value) => Math.min(BINS - 1, Math.floor((value / qMax) * BINS)));
  const axis = Array.from({ length: BINS }, (_, i) => ((i + 0.5) / BINS) * qMax);

  const frames = Array.from({ length: VARIANTS }, () => {
    const values = new Uint32Array(mask.length);
    for (let i = 0; i < mask.length; i += 1) values[i] = mask[i] & 1 ? 0xffffffff : poisson(expected[i], random);
    for (let n = 0; n < 160; n += 1) {
      const x = 6 + Math.floor(random() * (COLUMNS - 12));
      const y = 6 + Math.floor(random() * (ROWS - 12));
      const height = 10 ** (2 + 3 * random());
      for (let dy = -3; dy <= 3; dy += 1)
        for (let dx = -3; dx <= 3; dx += 1) {
          const i = (y + dy) * COLUMNS + x + dx;
          if (!(mask[i] & 1)) values[i] = Math.min(65_535, values[i] + Math.round(height * Math.exp(-(dx * dx + dy * dy) / 1.6)));
        }
    }
    return { values, ...integrate(values, mask, bins) };
  });
  const mean = axis.map((_, bin) => frames.reduce((sum, frame) => sum + frame.curve[bin], 0) / VARIANTS);

  return {
    technique: 'diffraction',
    shape: [ROWS, COLUMNS],
    dtype: 'uint32',
    descr: '<u4',
    saturation: SATURATION,
    mask,
    frame: (n) => frames[n % VARIANTS].values,
    kind: () => 'sample',
    angle: () => null,
    scalars: (n) => {
      const frame = frames[n % VARIANTS];
      const beam = 1 + 0.04 * Math.sin(n / 90) + 0.01 * random();
      return { sum: Math.round(frame.sum * beam), max: frame.max, saturated: frame.saturated, masked: 38_110 };
    },
    profile: (n) => ({
      axis: { name: 'q', unit: 'nm^-1', values: axis },
      values: n === null ? mean : frames[n % VARIANTS].curve,
    }),
  };
}

function integrate(values, mask, bins) {
  const sums = new Float64Array(BINS);
  const counts = new Float64Array(BINS);
  let sum = 0;
  let max = 0;
  let saturated = 0;
  for (let i = 0; i < values.length; i += 1) {
    if (mask[i] & 0xffff) continue;
    const value = values[i];
    sum += value;
    max = Math.max(max, value);
    if (value >= SATURATION) {
      saturated += 1;
      continue;
    }
    sums[bins[i]] += value;
    counts[bins[i]] += 1;
  }
  const curve = Array.from(sums, (total, bin) => (counts[bin] > 0 ? total / counts[bin] : null));
  return { curve, sum, max, saturated };
}

/** What is needed to show an array of pixels: values for the screen, the range of its colours, flagged pixels. */

import type { NpyArray } from '../api/npy';

export interface Picture {
  /** row by row, as the graphics card wants them */
  values: Float32Array;
  rows: number;
  columns: number;
  /** detector pixels per picture pixel, each way */
  binning: number;
  /** a sorted sample of good values, for percentiles */
  sample: Float32Array;
  /** pixels at or above saturation that the mask does not reject */
  saturatedCount: number;
}

export interface Mask {
  /** NXmx bits */
  bits: Uint32Array;
  rows: number;
  columns: number;
  maskedCount: number;
}

export type Range = [min: number, max: number];
export type Scale = 'linear' | 'log' | 'sqrt';
/** Share of pixels within the colours, in per cent; `manual` takes the user's numbers. */
export type AutoRange = '100' | '99.9' | '99.5' | '99' | '95' | 'manual';

/** Pixels with any of these bits take no part in analysis (NXmx). */
export const REJECTED_BITS = 0xffff;

const MASK_BITS: [bit: number, name: string][] = [
  [0, 'gap'],
  [1, 'dead'],
  [2, 'under-responding'],
  [3, 'over-responding'],
  [4, 'noisy'],
  [6, 'cluster'],
  [8, 'user'],
  [31, 'virtual'],
];

/** Values looked at for percentiles: enough for 0.1 %, few enough to sort for every frame. */
const SAMPLE_MAX = 32_768;

/** Most decades on a logarithmic scale whose lower end is chosen here. */
const LOG_DECADES_MAX = 6;

export function maskNames(bits: number): string[] {
  const names = MASK_BITS.filter(([bit]) => (bits >>> bit) & 1).map(([, name]) => name);
  return names.length > 0 || bits === 0 ? names : ['flagged'];
}

export function makeMask(array: NpyArray): Mask {
  const [rows = 0, columns = 0] = array.shape;
  const bits = array.data instanceof Uint32Array ? array.data : Uint32Array.from(array.data);
  let maskedCount = 0;
  for (let i = 0; i < bits.length; i += 1) if (bits[i]! & REJECTED_BITS) maskedCount += 1;
  return { bits, rows, columns, maskedCount };
}

export function fits(mask: Mask | null, rows: number, columns: number): mask is Mask {
  return mask !== null && mask.rows === rows && mask.columns === columns;
}

export function makePicture(array: NpyArray, binning: number, mask: Mask | null, saturation: number | null): Picture {
  const [rows = 0, columns = 0] = array.shape;
  if (array.shape.length !== 2 || rows * columns === 0) throw new Error(`a picture of shape (${array.shape.join(', ')})`);
  const values = array.data instanceof Float32Array ? array.data : Float32Array.from(array.data);
  const bits = fits(mask, rows, columns) ? mask.bits : null;
  const limit = saturation ?? Infinity;

  let saturatedCount = 0;
  for (let i = 0; i < values.length; i += 1) {
    if (values[i]! >= limit && !(bits && bits[i]! & REJECTED_BITS)) saturatedCount += 1;
  }
  return { values, rows, columns, binning, sample: sampleOf(values, bits, limit), saturatedCount };
}

function sampleOf(values: Float32Array, bits: Uint32Array | null, limit: number): Float32Array {
  // An odd stride does not run along columns of a detector whose width is even.
  const stride = Math.max(1, Math.ceil(values.length / SAMPLE_MAX)) | 1;
  const sample = new Float32Array(Math.ceil(values.length / stride));
  let length = 0;
  for (let i = 0; i < values.length; i += stride) {
    const value = values[i]!;
    if (Number.isFinite(value) && value < limit && !(bits && bits[i]! & REJECTED_BITS)) sample[length++] = value;
  }
  return sample.subarray(0, length).sort();
}

/** The value below which `percent` of the sample lies. */
export function percentile(sorted: Float32Array, percent: number): number {
  if (sorted.length === 0) return Number.NaN;
  const position = Math.round((percent / 100) * (sorted.length - 1));
  return sorted[Math.min(sorted.length - 1, Math.max(0, position))]!;
}

/** The range that leaves out the same share at both ends, over all samples. */
export function autoRange(samples: Float32Array[], auto: Exclude<AutoRange, 'manual'>): Range {
  const out = (100 - Number(auto)) / 2;
  let low = Infinity;
  let high = -Infinity;
  for (const sample of samples) {
    if (sample.length === 0) continue;
    low = Math.min(low, percentile(sample, out));
    high = Math.max(high, percentile(sample, 100 - out));
  }
  if (!(low <= high)) return [0, 1];
  return low === high ? [low, low + Math.max(1, Math.abs(low) * 1e-3)] : [low, high];
}

/** A range that the scale can show: logarithms need a positive lower end, square roots one of 0 or more. */
export function validRange([low, high]: Range, scale: Scale, samples: Float32Array[]): Range {
  if (scale === 'linear') return low < high ? [low, high] : [low, low + 1];
  if (scale === 'sqrt') {
    const floor = Math.max(0, low);
    return [floor, high > floor ? high : floor + 1];
  }
  const top = high > 0 ? high : 1;
  if (low > 0 && low < top) return [low, top];
  let positive = top;
  for (const sample of samples) {
    const first = sample.find((value) => value > 0);
    if (first !== undefined) positive = Math.min(positive, first);
  }
  const floor = Math.max(positive, top / 10 ** LOG_DECADES_MAX);
  return floor < top ? [floor, top] : [top / 10, top];
}

/** The last range again while the new one is almost the same, so that colours and ticks stand still. */
export function steadyRange(last: Range | null, next: Range): Range {
  if (!last) return next;
  const tolerance = 0.1 * (last[1] - last[0]);
  const still = Math.abs(next[0] - last[0]) <= tolerance && Math.abs(next[1] - last[1]) <= tolerance;
  // On a logarithmic scale the lower end matters by its ratio.
  const sameDecade = last[0] <= 0 || next[0] <= 0 || Math.abs(Math.log2(next[0] / last[0])) < 0.5;
  return still && sameDecade ? last : next;
}

/** #rrggbb as red, green and blue from 0 to 1 */
export function rgb(hex: string): [number, number, number] {
  const value = /^#[0-9a-f]{6}$/i.test(hex) ? Number.parseInt(hex.slice(1), 16) : 0;
  return [(value >> 16) / 255, ((value >> 8) & 255) / 255, (value & 255) / 255];
}
